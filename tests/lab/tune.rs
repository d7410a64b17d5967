//! The search for a choice of kernels, against updates whose cost is known.

use moelab::{
    lab::bench::{
        BenchError,
        tune::{Change, Comparison, Contest, Effort, Launches, Trial, search, to_toml},
    },
    run::config::{Kernels, load},
};

/// An update of three launches. `fast` can be replaced by `middle`, that by `slow`; `rounded` multiplies matrices.
#[derive(Default)]
struct Known {
    compared: Vec<(Vec<String>, Vec<String>, u32)>,
    /// What `middle` takes; `fast` takes 10 ms, `slow` 30.
    middle_ms: f64,
    /// Half the width of each interval.
    margin_ms: f64,
}

impl Known {
    fn ms(&self, kernels: &Kernels) -> f64 {
        let first = match &self.launches(kernels).unwrap().kernels[0].0[..] {
            "fast" => 10.0,
            "middle" => self.middle_ms,
            _ => 30.0,
        };
        first + if kernels.workgroups == 64 { 50.0 } else { 60.0 } + if kernels.logit_rows == 128 { 1.0 } else { 0.0 }
    }
}

impl Contest for Known {
    fn launches(&self, kernels: &Kernels) -> Result<Launches, BenchError> {
        let has = |name: &str| kernels.without.iter().all(|without| without != name);
        let of_stem = |names: &[&'static str]| names.iter().copied().find(|name| has(name)).unwrap();
        let chosen = [of_stem(&["fast", "middle", "slow"]), of_stem(&["rounded", "exact"])];
        let replaceable = chosen.iter().filter(|name| !["slow", "exact"].contains(name)).map(|name| (*name).into()).collect();
        let workgroups = [kernels.workgroups.max(16), kernels.logit_rows.max(1), 1];
        let kernels = [chosen[0], chosen[1], "sum"].map(|name| (name.into(), workgroups)).to_vec();
        Ok(Launches { kernels, replaceable, with_matrices: usize::from(chosen[1] == "rounded") })
    }

    fn compare(&mut self, before: &Kernels, after: &Kernels, rounds: u32) -> Result<Comparison, BenchError> {
        self.compared.push((before.without.clone(), after.without.clone(), rounds));
        Ok(Comparison { before_ms: self.ms(before), after_ms: self.ms(after), margin_ms: self.margin_ms, rounds })
    }
}

const NUMBERS: [Change; 3] = [Change::Workgroups(16), Change::Workgroups(64), Change::LogitRows(128)];

fn found(known: &mut Known) -> (Kernels, Option<Comparison>, Vec<(String, bool)>) {
    let mut trials = Vec::new();
    let mut tell = |trial: &Trial| trials.push((trial.change.words(), trial.is_kept));
    let tuned = search(known, &Kernels::default(), &NUMBERS, Effort { rounds: 9, only: "" }, &mut tell).unwrap();
    (tuned.kernels, tuned.result, trials)
}

#[test]
fn only_some_changes_are_tried_if_asked_for() {
    let mut tried = Vec::new();
    let mut tell = |trial: &Trial| tried.push(trial.change.words());
    let effort = Effort { rounds: 9, only: "workgroups" };
    let tuned = search(&mut Known::default(), &Kernels::default(), &NUMBERS, effort, &mut tell).unwrap();
    assert_eq!((tried, tuned.kernels.workgroups), (vec!["64 workgroups".to_string()], 64));
}

#[test]
fn changes_are_kept_on_top_of_each_other_and_measured_once_more() {
    let mut known = Known { middle_ms: 5.0, margin_ms: 1.0, ..Known::default() };
    let (kernels, result, trials) = found(&mut known);
    // Not tried: `rounded`, without which the precision is another, and the number of workgroups that there is anyway.
    let wanted = [("without fast", true), ("64 workgroups", true), ("128 rows of logits", false), ("without middle", false)];
    assert_eq!(trials, wanted.map(|(change, is_kept)| (change.to_string(), is_kept)));
    assert_eq!((&kernels.without[..], kernels.workgroups), (&["fast".to_string()][..], 64));
    let result = result.unwrap();
    assert_eq!((result.before_ms, result.after_ms), (70.0, 55.0));
    // The last comparison is of its own rounds, against the fixed choice.
    let (before, after, rounds) = known.compared.last().unwrap();
    assert_eq!((before.len(), &after[..], *rounds), (0, &["fast".to_string()][..], 9));
    // What is slower at first is given up after a few rounds.
    let rounds: Vec<u32> = known.compared.iter().map(|(.., rounds)| *rounds).collect();
    assert_eq!(rounds, [3, 9, 3, 9, 3, 3, 9]);
}

#[test]
fn what_may_be_chance_is_not_kept() {
    let mut known = Known { middle_ms: 5.0, margin_ms: 20.0, ..Known::default() };
    let (kernels, result, trials) = found(&mut known);
    assert_eq!((kernels, result), (Kernels::default(), None));
    assert!(trials.iter().all(|(_, is_kept)| !is_kept) && trials.len() == 3, "{trials:?}");
}

#[test]
fn intervals_are_those_of_paired_differences() {
    // Differences of -500, -600 and -400 ms: mean -500, standard error 57.735, t of 2 degrees of freedom 4.3027.
    let found = Comparison::of(&[1.0, 2.0, 3.0], &[0.5, 1.4, 2.6]);
    assert_eq!((found.before_ms, found.rounds), (2000.0, 3));
    assert!((found.difference_ms() + 500.0).abs() < 1e-9 && (found.margin_ms - 248.415).abs() < 0.01, "{found:?}");
    assert!(found.is_faster());
    assert!(!Comparison::of(&[1.0, 2.0, 3.0], &[0.5, 2.6, 2.6]).is_faster());
    // One round says nothing.
    assert!(!Comparison::of(&[2.0], &[1.0]).is_faster());
    assert_eq!(Change::Without("matmul_vec4".into()).words(), "without matmul_vec4");
}

#[test]
fn the_file_is_a_config_over_the_one_measured() {
    let kernels = Kernels {
        adapter: "A \"card\"\nseed = 7".into(),
        driver: "1.2 \u{1b}[31m".into(),
        shaders: "0123456789abcdef".into(),
        workgroups: 64,
        logit_rows: 192,
        without: vec!["adamw_cpu".into(), "rope_cpu".into()],
    };
    let result = Comparison { before_ms: 80.0, after_ms: 60.0, margin_ms: 1.5, rounds: 14 };
    let text = to_toml(&kernels, &result, "extends = \"base.toml\"\ntrain.updates = 3\n");
    let read = |path: &str| Ok(if path == "tuned.toml" { text.clone() } else { "seed = 5\nmodel.vocabulary = 256\n".into() });
    let config = load(&read, "tuned.toml", &[]).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert_eq!((config.seed, config.train.updates, config.kernels), (5, 3, kernels));
    assert!(text.contains("# 80.00 -> 60.00 ms per update (-25.0 %; difference -20.00 ms, 95 % interval +- 1.50, 14 rounds).\n"), "{text}");
}
