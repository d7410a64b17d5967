//! Committed configs load, and come back equal from their effective form; layers lie over each other in order.

use std::collections::BTreeMap;

use moelab::run::config::{self, Config, DataKind};
use moelab::run::model::parameters::Group;
use moelab::run::model::{Activation, FfnKind};
use moelab::run::suite;

use crate::{ROOT, load, load_text};

pub fn configs(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("{ROOT}/{folder}")).unwrap() {
        let path = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
        if std::path::Path::new(&format!("{ROOT}/{path}")).is_dir() {
            found.extend(configs(&path));
        } else if path.ends_with("/suite.toml") {
            // A study, see `every_committed_study_is_planned`.
        } else if path.ends_with(".toml") {
            found.push(path);
        }
    }
    found
}

pub fn assert_round_trip(config: &Config) {
    let text = config.to_effective_toml();
    let again = load_text(&text, &[]).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
    assert_eq!(again, *config);
    assert_eq!(again.to_effective_toml(), text);
}

#[test]
fn every_committed_config_loads_and_comes_back_from_its_effective_form() {
    let names = configs("configs");
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        assert_round_trip(&load(".", &name, &[]).unwrap_or_else(|problems| panic!("{problems}")));
        load(".", &name, &["train.updates=12"]).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

/// The committed studies, with the number of their arms and of their first seeds.
const STUDIES: [(&str, usize, usize); 6] =
    [("exp8", 9, 3), ("exp8/as_run", 9, 3), ("reasoning", 15, 3), ("rnn", 5, 5), ("rnn/shakespeare", 5, 5), ("exp3", 4, 3)];

/// The studies whose reports are kept.
const KEPT: [&str; 6] = ["exp8", "exp8/as_run", "reasoning", "rnn", "rnn/shakespeare", "exp3"];

/// The table in configs/README.md says what the kept reports say. They are written by `moelab suite report STUDY --keep FOLDER`.
#[test]
fn the_table_of_claims_is_that_of_the_reports() {
    let mut table = String::from("| study | as published or expected | here |\n|---|---|---|\n");
    let mut summary = String::from("| study | claims | hold | do not hold | not clear | no verdict |\n|---|---|---|---|---|---|\n");
    for folder in KEPT {
        let path = format!("configs/{folder}/RESULTS.md");
        let report = std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"));
        let rows = report.lines().skip_while(|line| *line != "## Claims").skip(1).take_while(|line| !line.starts_with("## "));
        let mut of_study = 0;
        let mut outcomes = ["**holds**", "**does not hold**", "**not clear**", "**no verdict**"].map(|outcome| (outcome, 0));
        for row in rows.filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split(" | ").collect();
            of_study += 1;
            let known = outcomes.iter_mut().find(|(outcome, _)| cells[2].starts_with(outcome));
            known.unwrap_or_else(|| panic!("{path}: {row}")).1 += 1;
            table += &format!("| [`{folder}`]({folder}/RESULTS.md) | {} | {} |\n", cells[1], cells[2]);
        }
        assert!(of_study > 1, "{path} has no claims");
        let counts = outcomes.map(|(_, count)| count.to_string()).join(" | ");
        summary += &format!("| {folder} | {of_study} | {counts} |\n");
    }
    let readme = std::fs::read_to_string(format!("{ROOT}/configs/README.md")).unwrap();
    assert!(readme.contains(&table), "configs/README.md must contain:\n{table}");
    let readme = std::fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    assert!(readme.contains(&summary), "README.md must contain:\n{summary}");
}

#[test]
fn every_committed_study_is_planned() {
    let read = |path: &str| std::fs::read_to_string(format!("{ROOT}/{path}")).map_err(|error| error.to_string().into());
    for (folder, arms, seeds) in STUDIES.into_iter().chain([("example", 3, 3), ("exp3/lr_range", 4, 4)]) {
        let path = format!("configs/{folder}/suite.toml");
        let suite = suite::load(&read, &path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let plan = suite::plan(&suite, &read, &path).unwrap_or_else(|problem| panic!("{path}: {problem}"));
        assert_eq!((plan.arms.len(), plan.runs.len()), (arms, seeds * arms), "{path}");
        assert_eq!(plan.arms[0].name, suite.control);
    }
}

#[test]
fn every_key_shows_in_an_effective_config_and_comes_back() {
    let text = "
        seed = 9007199254740993
        model.vocabulary = 300
        model.width = 60
        model.attention = { heads = 6, kv_heads = 2, head_width = 16 }
        model.ffn = { bias = true, gated = true, activation = 'gelu_tanh' }
        optimizer.overrides = { '*.router.*' = 'adamw', '*' = 'muon', 'embedding.*' = 'adamw', '*norm*' = 'adamw', '*.bias' = 'adamw' }
        schedule = { kind = 'step', unit = 'micro_steps', warmup = '12.5%', horizon = 77 }
        sample = { prompts = ['a \"b\"\\n', 'é'], temperature = 0 }
        data = { kind = 'text', paths = ['a/*.txt', 'b.jsonl'], tokenizer = { kind = 'bpe', vocabulary = 300 } }";
    let config = load_text(&text.replace("\n        ", "\n"), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_round_trip(&config);
    let effective = config.to_effective_toml();
    for line in ["seed = 9007199254740993", "warmup = \"12.5%\"", "horizon = 77", "\"*.router.*\" = \"adamw\"", "temperature = 0.0"] {
        assert!(effective.lines().any(|shown| shown == line), "{line} in\n{effective}");
    }
    assert!(!effective.contains("min_ratio") && !effective.contains("[data.language]"));
}

#[test]
fn the_default_config_is_sound() {
    let config = load_text("", &[]).unwrap();
    let filled = moelab::run::ModelConfig { vocabulary: 256, ..Config::default().model };
    assert_eq!(config, Config { model: filled, ..Config::default() });
    assert_round_trip(&config);
}

#[test]
fn later_layers_lie_over_earlier_ones() {
    let files = BTreeMap::from([
        ("studies/a/run.toml", "extends = \"../base.toml\"\nseed = 2\n[model.router]\ntop_k = 1\n"),
        ("studies/base.toml", "extends = \"./../bottom.toml\"\nseed = 1\nmodel.router.experts = 4\n"),
        ("bottom.toml", "seed = 0\n[model]\nrouter = { experts = 2, noise = 0.5 }\nwidth = 96\n"),
    ]);
    let read = |name: &str| files.get(name).map(|text| (*text).to_owned()).ok_or_else(|| format!("no {name}").into());
    let sets = ["model.width=128".to_owned(), "model.width = 160".to_owned(), "schedule.warmup=5%".to_owned()];
    let config = config::load(&read, "studies/a/run.toml", &sets).unwrap_or_else(|problems| panic!("{problems}"));
    let router = &config.model.router;
    assert_eq!((config.seed, router.experts, router.top_k, router.noise, config.model.width), (2, 4, 1, 0.5, 160));
}

#[test]
fn sets_take_toml_and_bare_texts() {
    let sets = [
        "model.ffn.activation=gelu",
        "data.kind=text",
        "data.paths=[\"a.txt\"]",
        "data.tokenizer.kind=\"file\"",
        "data.tokenizer.path=2024-01-01",
        "model.vocabulary=0x1000",
        "optimizer.adamw={lr=1,eps=1e-9}",
        "optimizer.overrides.\"*.router.*\"=adamw",
    ];
    let config = load_text("", &sets).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.model.ffn.activation, config.data.kind), (Activation::Gelu, DataKind::Text));
    assert_eq!(config.data.tokenizer.path, "2024-01-01");
    assert_eq!((config.model.vocabulary, config.optimizer.adamw.lr, config.optimizer.adamw.eps), (4096, 1.0, 1e-9));
    assert_eq!(config.optimizer.overrides, BTreeMap::from([("*.router.*".to_owned(), Group::AdamW)]));
    let routers = config.parameters().into_iter().filter(|spec| spec.name.ends_with("router.weight"));
    assert!(routers.map(|spec| spec.group).all(|group| group == Group::AdamW));
}

#[test]
fn what_a_base_set_and_a_later_choice_switches_off_goes_back_to_its_default() {
    let base = "[model.router]\nexperts = 4\nnoise = 0.0\n[model.balance]\ncoefficient = 0.5\n";
    let read = |name: &str| Ok(if name == "base.toml" { base } else { "extends = \"base.toml\"\nmodel.ffn.kind = \"dense\"\n" }.to_owned());
    let config = config::load(&read, "dense.toml", &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.model.ffn.kind, &config.model.router), (FfnKind::Dense, &Config::default().model.router));
    assert_eq!(config.model.experts(), (1, 1));
    assert_round_trip(&config);
}

#[test]
fn every_key_is_explained() {
    let all = config::explain();
    assert!(all.len() > 70, "{}", all.len());
    for key in &all {
        let sentence = key.doc.ends_with('.') && key.doc.len() > 3;
        assert!(sentence && !key.default.is_empty() && !key.allowed.is_empty(), "{key:?}");
    }
    let find = |name: &str| all.iter().find(|key| key.key == name).unwrap();
    assert_eq!(find("model.router.top_k").allowed, "an integer from 1 to 16");
    assert_eq!(find("model.norm.eps").default, "1.1920929e-7");
    assert_eq!(find("schedule.warmup").default, "\"5%\"");
    assert_eq!(find("model.balance.coefficient").applies.len(), 2);
    assert_eq!(find("schedule.kind").choices.len(), 6);
}

/// Run folders keep the settings that differ from the defaults, each under its class: a default or a class that changes would make an
/// older run another run. Lines may be added to the list, never changed.
#[test]
fn classes_and_defaults_are_those_that_run_folders_were_written_with() {
    let listed: Vec<String> = config::explain().iter().map(|key| format!("{} {} = {}", key.class, key.key, key.default)).collect();
    let kept: Vec<&str> = include_str!("keys.txt").lines().collect();
    let changed: Vec<_> = kept.iter().filter(|line| !listed.iter().any(|key| key == *line)).collect();
    assert!(changed.is_empty(), "changed or gone: {changed:#?}");
    let new: Vec<_> = listed.iter().filter(|line| !kept.contains(&line.as_str())).cloned().collect();
    assert!(new.is_empty(), "add to tests/config/keys.txt:\n{}", new.join("\n"));
}

#[test]
fn what_other_trainers_call_a_key_points_at_a_key() {
    let all = config::explain();
    for (name, meant) in <Config as moelab::config_file::Root>::SYNONYMS {
        for meant in *meant {
            assert!(all.iter().any(|key| key.key == *meant), "{name} -> {meant}");
        }
        assert!(!all.iter().any(|key| key.key == *name), "{name} is a key itself");
    }
}
