//! The published studies as files: each loads in every form that it is used in, has the published parameters and schedules, and
//! what was run differs from what was intended in the keys that the headers name, and in no other.

use std::collections::{BTreeMap, BTreeSet};

use moelab::run::config::Config;
use moelab::run::model::cost::{self, Counts};
use moelab::run::model::parameters::Group;
use moelab::run::schedule::balance_coefficient;

use crate::committed::{assert_round_trip, configs};
use crate::{ROOT, load, load_text};

const STUDIES: [&str; 6] = ["exp1", "exp2", "exp3", "exp8", "reasoning", "rnn"];

/// The files of all studies, without `configs/` and `.toml`.
fn files() -> Vec<String> {
    let mut files: Vec<String> = STUDIES.iter().flat_map(|study| configs(&format!("configs/{study}"))).collect();
    files.iter_mut().for_each(|file| *file = file["configs/".len()..].trim_end_matches(".toml").to_owned());
    files.sort();
    files
}

fn file(name: &str) -> Config {
    load("configs", &format!("{name}.toml"), &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn counts(name: &str) -> Counts {
    let config = file(name);
    cost::counts(&config.model, &config.parameters())
}

/// The comment that a file begins with.
fn header(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/configs/{name}.toml")).unwrap();
    text.lines().map_while(|line| line.strip_prefix("# ").map(str::to_owned)).collect()
}

/// Every key of a config with its value, as in its effective form.
fn keys(config: &Config) -> BTreeMap<String, String> {
    fn walk(table: &toml::Table, above: &str, keys: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(below) => walk(below, &format!("{above}{key}."), keys),
                _ => drop(keys.insert(format!("{above}{key}"), value.to_string())),
            }
        }
    }
    let mut keys = BTreeMap::new();
    walk(&config.to_effective_toml().parse().unwrap(), "", &mut keys);
    keys
}

/// The keys in which two files differ, with the value of the first, "-" where it has none.
fn differences(one: &str, other: &str) -> Vec<String> {
    let (one, other) = (keys(&file(one)), keys(&file(other)));
    let all: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differ = all.into_iter().filter(|key| one.get(*key) != other.get(*key));
    differ.map(|key| format!("{key} = {}", one.get(key).map_or("-", String::as_str))).collect()
}

#[test]
fn every_file_loads_as_it_is_on_the_embedded_corpus_and_reduced() {
    let files = files();
    assert!(files.len() > 120, "{}", files.len());
    for name in &files {
        let config = file(name);
        assert_round_trip(&config);
        let embedded = load("configs", &format!("{name}.toml"), &["data.embedded=true"]).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!((embedded.model.vocabulary, embedded.data.paths.len()), (256, 0), "{name}");
        assert_eq!((&embedded.optimizer, &embedded.schedule), (&config.optimizer, &config.schedule), "{name}");
        assert_round_trip(&embedded);
        let reduced = config.clone().reduced();
        assert_eq!((reduced.train.updates, reduced.model.width), (10, 64), "{name}");
        assert_eq!(reduced.model.depth.kind, config.model.depth.kind, "{name}");
        assert_round_trip(&reduced);
        // On the command line sets hold for the reduced config.
        load_text(&reduced.to_effective_toml(), &["train.updates=3"]).unwrap_or_else(|problems| panic!("{name}: {problems}"));
    }
}

#[test]
fn every_file_says_what_it_is() {
    for name in files() {
        let header = header(&name);
        assert!((2..=8).contains(&header.len()), "{name}: a header of {} lines", header.len());
        let text = header.join(" ");
        let study = name.split('/').next().unwrap();
        let title = BTreeMap::from([("reasoning", "Reasoning study"), ("rnn", "Recurrent depth")]).get(study).copied().unwrap_or(study);
        assert!(text.starts_with(title), "{name}: {text}");
        let told = ["ublished", "ever run", "lanned", "Not part of the study", "ame run", "repeat", " as run", "against ", "Against "];
        assert!(told.iter().any(|word| text.contains(word)), "{name}: what was published? {text}");
    }
}

#[test]
fn two_files_that_are_the_same_run_say_so() {
    let mut first = BTreeMap::new();
    let mut repeats = 0;
    for name in files() {
        let twin = first.entry(file(&name).hash()).or_insert_with(|| name.clone()).clone();
        if twin != name {
            repeats += 1;
            let said = |name: &str| {
                let text = header(name).join(" ").to_lowercase();
                text.contains("same run") || text.contains("repeat")
            };
            assert!(said(&name) || said(&twin), "{name} is {twin}");
        }
    }
    assert!(repeats > 10, "{repeats}");
}

#[test]
fn published_parameter_counts_of_the_files() {
    for (name, total, active) in [
        ("exp8/baseline", 79_059_840, 36_592_512),
        ("exp8/as_run/baseline", 79_059_840, 36_592_512),
        ("reasoning/1_baseline", 100_688_384, 67_133_952),
        ("reasoning/7_small_model", 22_026_496, 17_832_192),
        ("reasoning/as_run/7_small_model", 30_415_104, 22_026_496),
        ("reasoning/2_recursive", 100_688_384, 67_133_952),
        ("reasoning/as_run/2_recursive", 101_216_770, 67_662_338),
        ("exp3/baseline", 20_456_704, 17_310_976),
        ("exp3/as_run/extended", 20_456_704, 17_310_976),
        ("exp3/mla_glm", 25_622_464, 20_903_872),
        ("exp1/baseline", 53_493_248, 34_618_880),
        ("exp1/mlp_512d", 37_752_320, 37_752_320),
        ("exp1/attention_mlp", 36_281_024, 36_281_024),
        ("exp1/as_run/moe", 232_894_976 - 3 * 51_383_296, 78_745_088),
        ("rnn/baseline", 304_438_272, 304_438_272),
        ("rnn/indexed", 355_901_440, 355_901_440),
        ("rnn/shared", 116_573_184, 116_573_184),
        ("rnn/shared_moe", 276_115_496, 276_115_496 - 38 * 4_197_376),
        ("rnn/auxsched_v2", 276_115_496, 276_115_496 - 38 * 4_197_376),
        ("rnn/half_aux005", 137_050_152, 137_050_152 - 38 * 2_099_712),
        ("rnn/mid_short", 171_619_880, 171_619_880 - 38 * 2_624_128),
        ("rnn/mid_top3_short", 171_619_880, 171_619_880 - 37 * 2_624_128),
        ("rnn/mid_top4", 171_619_880, 171_619_880 - 36 * 2_624_128),
        ("rnn/as_run/mid_top3_match_active", 178_588_520, 178_588_520 - 37 * 2_798_344),
    ] {
        let counts = counts(name);
        assert_eq!((counts.total, counts.active), (total, active), "{name}");
    }
}

#[test]
fn headers_state_the_parameters_that_their_files_have() {
    let mut checked = 0;
    for name in files() {
        let text = header(&name).join(" ");
        let words: Vec<_> = text.split(' ').collect();
        for pair in words.windows(2).filter(|pair| pair[0].starts_with('(') && pair[1].starts_with("parameters")) {
            let Ok(stated) = pair[0].trim_matches('(').replace(',', "").parse::<u64>() else { continue };
            assert_eq!(counts(&name).total, stated, "{name}: {text}");
            checked += 1;
        }
    }
    assert!(checked >= 10, "{checked}");
    assert_eq!(counts("rnn/half_match_active").total, 332_989_152);
    assert_eq!(counts("rnn/as_run/mid_top3_match_active").total, 178_588_520);
}

/// FFN weights that a token reads over all depths.
fn active_ffn(name: &str) -> u64 {
    let (counts, model) = (counts(name), file(name).model);
    let (_, k) = model.experts();
    let product: u64 = [2, model.width, k, model.ffn.width, model.depth.layers].into_iter().map(u64::from).product();
    assert_eq!((counts.ffn_over_depth, counts.ffn_per_layer), (product, product / u64::from(model.depth.layers)), "{name}: 2 D K F L");
    product
}

#[test]
fn a_shared_block_may_choose_other_experts_at_every_depth() {
    // Experts that one token can touch: 40 of 40, 24 of 40, 32 of 40; each is 2 D F + F + D.
    for (name, unused, width, f) in [("rnn/shared_moe", 0, 1024, 2048), ("rnn/half_aux005", 16, 512, 2048), ("rnn/mid_short", 8, 640, 2048)]
    {
        let counts = counts(name);
        assert_eq!(counts.total - counts.unique_active, unused * (2 * width * f + f + width), "{name}");
    }
    // Every layer has experts of its own: two of eight, in one pass or over the depth.
    let exp8 = counts("exp8/baseline");
    assert_eq!((exp8.total, exp8.active, exp8.unique_active), (79_059_840, 36_592_512, 36_592_512));
    // System B calls its four experts of each layer six times.
    let recursive = counts("reasoning/2_recursive");
    assert_eq!(recursive.unique_active, recursive.total);
    assert_eq!(recursive.ffn_over_depth, 6 * 8 * 2 * 512 * 2 * 2048);
}

#[test]
fn what_is_said_to_match_matches() {
    let control = active_ffn("rnn/shared_moe");
    assert_eq!((control, active_ffn("rnn/baseline")), (167_772_160, 167_772_160));
    for name in ["rnn/half_match_active", "rnn/mid_top3_match_active"] {
        let ratio = active_ffn(name) as f64 / control as f64;
        assert!((ratio - 1.0).abs() < 2e-4, "{name}: {ratio}");
    }
    // The published ones do not.
    assert_eq!((active_ffn("rnn/half_aux005"), active_ffn("rnn/as_run/mid_top3_match_active")), (50_331_648, 134_184_960));
}

#[test]
fn adamw_takes_everything_where_the_study_had_nothing_else() {
    for name in files() {
        let muon = file(&name).parameters().iter().filter(|spec| spec.group == Group::Muon).count();
        assert_eq!(muon == 0, name.starts_with("reasoning/") || name.starts_with("rnn/"), "{name}: {muon} by Muon");
    }
    assert_eq!(counts("exp8/as_run/no_lb").muon, 60_180_480);
    assert_eq!(counts("exp3/as_run/lr_3e-3").muon, 7_870_464);
}

#[test]
fn what_was_run_differs_from_what_was_intended_where_the_headers_say() {
    const LAST: &str = "data.drop_last = false";
    const WEIGHTS: &str = "train.weighting = \"micro_batch\"";
    const SCHEDULE: [&str; 2] = ["schedule.horizon = 1000", "schedule.warmup = 50"];
    let mut table: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |name: &str, keys: &[&str]| table.push((name.into(), keys.iter().map(|key| (*key).into()).collect()));
    for arm in ["baseline", "early_stopping", "higher_dropout", "linear_decay", "slower_min_lr", "one_epoch", "reshuffle"] {
        add(&format!("exp8/{arm}"), &[LAST, SCHEDULE[0], SCHEDULE[1], WEIGHTS]);
    }
    add("exp8/constant_lr", &[LAST, WEIGHTS]);
    for arm in ["lower_lb_weight", "no_lb"] {
        add(&format!("exp8/{arm}"), &[LAST, "model.balance.coefficient = 0.01", SCHEDULE[0], SCHEDULE[1], WEIGHTS]);
    }
    add("exp8/short_run", &[LAST, SCHEDULE[0], SCHEDULE[1], "train.updates = 250", WEIGHTS]);
    add("exp1/baseline", &[LAST, "schedule.horizon = 1500", "schedule.warmup = 150", WEIGHTS]);
    add("reasoning/7_small_model", &["model.ffn.width = 2048"]);
    add("reasoning/8_few_experts", &["model.router.experts = 4"]);
    add("rnn/half_aux003_short", &["train.updates = 2000"]);
    add("rnn/mid_top3_match_active", &["model.ffn.width = 2184"]);
    for (arm, batches) in [
        ("2_recursive", 3),
        ("12_recursive_vlow_lr", 3),
        ("R01_baseline", 3),
        ("R02_minimal", 2),
        ("R03_deep", 5),
        ("R04_more_H", 4),
        ("R05_more_L", 4),
        ("R10_low_lr", 3),
        ("R11_high_lr", 3),
        ("R12_med_lr", 3),
        ("R13_optimized", 3),
        ("R14_asym_H", 3),
        ("R15_asym_L", 3),
        ("best_recursive_1000", 2),
    ] {
        let recursion = [
            "model.balance.coefficient = -",
            "model.balance.kind = \"none\"",
            "model.balance.reduction = -",
            "model.balance.schedule.kind = -",
            "model.depth.recursion.carry = \"next_data\"",
            &format!("model.depth.recursion.halt_after = {batches}"),
            "model.depth.recursion.halting_head = true",
            "model.depth.recursion.head = \"call\"",
            "model.depth.recursion.injection = \"projected\"",
            "model.depth.recursion.start = \"learned\"",
            "model.depth.recursion.update = \"residual\"",
        ];
        add(&format!("reasoning/{arm}"), &recursion);
    }
    for (name, wanted) in table {
        let (study, arm) = name.split_once('/').unwrap();
        assert_eq!(differences(&format!("{study}/as_run/{arm}"), &name), wanted, "{name}");
    }
    // The load-balancing coefficient never moved, whatever the arm was called.
    for name in configs("configs/exp8/as_run") {
        assert_eq!(load(".", &name, &[]).unwrap().model.balance.coefficient, 0.01, "{name}");
    }
    assert_eq!(differences("exp8/as_run/drop_last", "exp8/as_run/baseline"), ["data.drop_last = true"]);
}

fn assert_multipliers(name: &str, table: &[(u32, f64)]) {
    let schedule = file(name).learning_rates();
    for &(updates, wanted) in table {
        let found = schedule.at_update(updates);
        assert!((found - wanted).abs() < 1e-6, "{name}: {found} at {updates}, {wanted} wanted, of {schedule:?}");
    }
}

#[test]
fn learning_rates_of_the_files_at_their_corners() {
    assert_multipliers("exp8/as_run/baseline", &[(0, 0.0), (2, 0.04), (50, 1.0), (100, 0.993_863), (249, 0.906_025), (250, 0.905_113)]);
    assert_multipliers("exp8/as_run/slower_min_lr", &[(50, 1.0), (200, 0.957_815), (250, 0.926_199)]);
    assert_multipliers("exp8/as_run/linear_decay", &[(50, 1.0), (200, 0.857_895), (250, 0.810_526)]);
    assert_multipliers("exp8/as_run/constant_lr", &[(0, 1.0), (250, 1.0)]);
    assert_multipliers("exp8/baseline", &[(0, 0.0), (6, 0.5), (12, 1.0), (131, 0.55), (250, 0.1)]);
    assert_multipliers("exp8/slower_min_lr", &[(12, 1.0), (131, 0.65), (250, 0.3)]);
    assert_multipliers("exp8/linear_decay", &[(12, 1.0), (131, 0.55), (250, 0.1)]);
    assert_multipliers("exp8/short_run", &[(0, 0.0), (7, 1.0), (150, 0.1)]);
    assert_multipliers("exp8/option3", &[(0, 1.0), (200, 1.0), (225, 0.55), (250, 0.1)]);
    assert_multipliers("exp1/as_run/baseline", &[(150, 1.0), (375, 0.939_711)]);
    assert_multipliers("exp1/baseline", &[(37, 1.0), (375, 0.1)]);
    assert_multipliers("exp3/extended", &[(0, 1.0), (10_000, 1.0)]);
    assert_multipliers("reasoning/1_baseline", &[(0, 0.0), (10, 0.5), (20, 1.0), (60, 0.5), (92, 0.1), (99, 0.1)]);
    assert_multipliers("reasoning/5_long_warmup", &[(25, 0.5), (50, 1.0), (94, 0.12), (95, 0.1)]);
    assert_multipliers("reasoning/6_no_warmup", &[(0, 1.0), (89, 0.11), (90, 0.1)]);
    assert_multipliers("reasoning/as_run/best_recursive_1000", &[(50, 0.5), (100, 1.0), (1000, 0.1)]);
    assert_multipliers("reasoning/proposed_recursive", &[(100, 0.5), (200, 1.0)]);
    for (name, updates, rate) in [
        ("rnn/baseline", 19, 9.5e-6),
        ("rnn/shared_moe", 19, 9.5e-6),
        ("rnn/mid_short", 19, 9.5e-5),
        ("rnn/as_run/half_aux003_short", 19, 9.5e-5),
        ("rnn/suites/a1_aux_0005", 15, 1.5e-4),
    ] {
        let config = file(name);
        let found = config.learning_rates().at_update(updates) * config.optimizer.adamw.lr;
        assert!((found / rate - 1.0).abs() < 1e-9, "{name}: {found} at {updates}");
        assert!(config.learning_rates().at_update(config.train.updates).abs() < 1e-12);
    }
    // Summed over the first 500 updates a short run's rates are 2.17 times a long one's.
    let sum = |name: &str| (0..500).map(|u| 3e-4 * file(name).learning_rates().at_update(u)).sum::<f64>();
    let (short, long) = (sum("rnn/as_run/half_aux003_short"), sum("rnn/half_aux005"));
    assert!((short - 0.135_424).abs() < 1e-6 && (long - 0.062_375).abs() < 1e-6, "{short} {long}");
}

#[test]
fn balance_coefficients_of_the_files_at_their_corners() {
    for (name, table) in [
        ("rnn/auxsched_v1", &[(0, 0.05), (500, 0.05), (1_000, 0.05), (3_500, 0.03), (6_000, 0.01), (20_000, 0.01)][..]),
        ("rnn/half_aux005", &[(500, 0.05), (3_500, 0.03)]),
        ("rnn/half_aux003_short", &[(500, 0.03), (1_000, 0.03), (3_500, 0.02), (6_000, 0.01)]),
        ("rnn/as_run/half_aux003_short", &[(100, 0.03), (350, 0.02), (500, 0.014), (600, 0.01)]),
        ("rnn/mid_short", &[(500, 0.018), (600, 0.01)]),
        ("rnn/shared_moe", &[(0, 0.01), (20_000, 0.01)]),
        ("rnn/suites/a1_aux_0000", &[(0, 0.0)]),
        ("exp8/no_lb", &[(100, 0.0)]),
        ("exp8/as_run/no_lb", &[(100, 0.01)]),
        ("exp3/mla_glm", &[(100, 0.0)]),
        ("reasoning/as_run/R06_no_act", &[(50, 0.0)]),
    ] {
        let config = file(name);
        for &(done, wanted) in table {
            let found = balance_coefficient(&config.model.balance, done, config.train.updates);
            assert!((found - wanted).abs() < 1e-12, "{name}: {found} at {done}, {wanted} wanted");
        }
    }
}
