//! The matching of sizes against the published runs and the arithmetic of their study.

use moelab::config_file::Unreadable;
use moelab::lab::matching::{Quantity, Vary, compare, solve, solve_measured, to_toml};
use moelab::run::{Config, config::load};

fn config(name: &str, sets: &[&str]) -> Config {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/");
    let read = |path: &str| std::fs::read_to_string(format!("{root}{path}")).map_err(|error| Unreadable(error.to_string()));
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    load(&read, &format!("{name}.toml"), &sets).unwrap_or_else(|problems| panic!("{problems}"))
}

fn vary(names: &[&str]) -> Vec<Vary> {
    names.iter().map(|name| Vary::parse(name).unwrap()).collect()
}

fn matched(base: &Config, other: &Config, on: Quantity, names: &[&str], at_most: bool) -> (Vec<u32>, u64) {
    let found = solve(base, on.of(other), &vary(names), at_most, &|config| on.of(config)).unwrap();
    (found.changes.iter().map(|change| change.2).collect(), found.value as u64)
}

#[test]
fn the_shape_matcher_of_the_recurrent_depth_study() {
    let (shared, indexed) = (config("rnn/shared_moe", &[]), config("rnn/indexed", &[]));
    assert_eq!(Quantity::Total.of(&indexed), 355_901_440.0);
    let on = Quantity::Total;
    assert_eq!(matched(&shared, &indexed, on, &["expert_width"], false), (vec![3021], 355_862_576));
    let both = ["experts=16..48", "expert_width"];
    assert_eq!(matched(&shared, &indexed, on, &both, false), (vec![20, 6044], 355_903_556));
    // Strict: not above, the rest of 4,031 was padding.
    assert_eq!(matched(&shared, &indexed, on, &both, true), (vec![19, 6362], 355_897_409));
    let found = solve(&shared, 355_901_440.0, &vary(&both), false, &|config| on.of(config)).unwrap();
    assert_eq!(found.neighbours, [(6043, 355_862_576.0), (6045, 355_944_536.0)]);
    assert!((found.error() - 2116.0 / 355_901_440.0).abs() < 1e-15);
}

#[test]
fn active_compute_of_the_half_and_the_medium_models() {
    let (control, half, mid) = (config("rnn/shared_moe", &[]), config("rnn/half_aux005", &[]), config("rnn/mid_top3_short", &[]));
    let active = |config: &Config| Quantity::Active.of(config) as u64;
    assert_eq!((active(&control), active(&half), active(&mid)), (167_772_160, 50_331_648, 125_829_120));
    // K F = 13,653: two experts of 6,827, over twelve layers.
    assert_eq!(matched(&half, &control, Quantity::Active, &["ffn.width"], false), (vec![6827], 167_780_352));
    // The published match was per layer, rounded down to K F = 6552: over 16 layers 80.0 % of the control's 20.
    assert_eq!(matched(&mid, &control, Quantity::ActivePerLayer, &["expert_width"], true), (vec![2184], 8_386_560));
    assert_eq!(matched(&mid, &control, Quantity::ActivePerLayer, &["expert_width"], false), (vec![2185], 8_390_400));
    let published = config("rnn/as_run/mid_top3_match_active", &[]);
    let ratio = |on: Quantity| compare(&published, &control).into_iter().find(|row| row.quantity == on).unwrap().ratio();
    assert!((ratio(Quantity::Active) - 0.79981).abs() < 1e-4 && (ratio(Quantity::ActivePerLayer) - 0.99976).abs() < 1e-4);
    // More depth instead of width: 2 * 640 * 3 * 2048 a layer, 21.33 layers.
    assert_eq!(matched(&mid, &control, Quantity::Active, &["layers"], false), (vec![21], 21 * 7_864_320));
}

#[test]
fn sizes_that_no_config_may_have_are_skipped() {
    let (small, large) = (config("quickstart", &["model.width=64"]), config("quickstart", &["model.width=250", "model.attention.heads=5"]));
    let heads = small.model.attention.heads;
    let found = solve(&small, Quantity::Total.of(&large), &vary(&["width"]), false, &|config| Quantity::Total.of(config)).unwrap();
    let width = found.config.model.width;
    assert!(width.is_multiple_of(heads) && found.config.problems().is_empty() && found.error().abs() < 0.1, "{width}");
    assert!(found.neighbours.iter().all(|(near, _)| near.is_multiple_of(heads)), "{:?}", found.neighbours);
}

#[test]
fn what_cannot_be_matched_is_said() {
    let (base, other) = (config("rnn/shared_moe", &[]), config("rnn/indexed", &[]));
    let active = |config: &Config| Quantity::Active.of(config);
    let problem = solve(&base, active(&other), &vary(&["experts"]), false, &active).unwrap_err().to_string();
    assert_eq!(problem, "what is to be matched does not depend on `model.router.experts`: vary another size");
    let problem = solve(&base, active(&other), &vary(&["expert_width", "layers"]), false, &active).unwrap_err().to_string();
    assert!(problem.contains("give `model.ffn.width` a range"), "{problem}");
    assert!(Vary::parse("depth").unwrap_err().to_string().contains("model.depth.layers (layers)"));
    assert!(Vary::parse("experts=70..80").unwrap_err().to_string().contains("which may be 1 to 64"));
    assert!(Vary::parse("experts=few").unwrap_err().to_string().contains("for example 16..48"));
    assert!(
        Quantity::parse("params").unwrap_err().to_string().ends_with("total, active, active-per-layer, unique-active, flops, wall-clock")
    );
    // Out of reach: the closest is emitted, and marked.
    let total = |config: &Config| Quantity::Total.of(config);
    let found = solve(&base, 1e12, &vary(&["experts=8..40"]), false, &total).unwrap();
    assert_eq!(found.changes, [("model.router.experts", 40, 40)]);
    let text = to_toml(&found, Quantity::Total, ("other.toml", &other), 0.01, "extends = \"base.toml\"");
    assert!(text.contains("# NOT MATCHED within 1 %"), "{text}");
}

#[test]
fn the_emitted_config_says_what_was_and_was_not_met() {
    let (control, half) = (config("rnn/shared_moe", &[]), config("rnn/half_aux005", &[]));
    let active = |config: &Config| Quantity::Active.of(config);
    let found = solve(&half, active(&control), &vary(&["ffn.width"]), false, &active).unwrap();
    let text = to_toml(&found, Quantity::Active, ("rnn/shared_moe.toml", &control), 0.01, "extends = \"half_aux005.toml\"");
    insta::assert_snapshot!(text);
    let read = |path: &str| match path {
        "rnn/mine.toml" => Ok(text.clone()),
        path => std::fs::read_to_string(format!("{}/configs/{path}", env!("CARGO_MANIFEST_DIR"))).map_err(|e| Unreadable(e.to_string())),
    };
    assert_eq!(load(&read, "rnn/mine.toml", &[]).unwrap_or_else(|problems| panic!("{problems}")), found.config);
}

#[test]
fn a_duration_is_matched_by_measuring_candidates() {
    let base = config("quickstart", &[]);
    // A machine that needs 5 ms for anything, and the more time for a weight the wider the model.
    let milliseconds =
        |config: &Config| 5.0 + f64::from(config.model.ffn.width) * 0.03 * (1.0 + f64::from(config.model.ffn.width) / 4000.0);
    let mut measured = 0;
    let measure = |config: &Config| {
        measured += 1;
        Ok::<f64, String>(milliseconds(config))
    };
    let found = solve_measured(&base, 40.0, &vary(&["ffn.width"]), measure).unwrap().unwrap();
    assert!(found.error().abs() < 0.01 && found.value == milliseconds(&found.config), "{} of 40 ms", found.value);
    assert_eq!(measured, 4, "the base and three candidates");
    let failed = solve_measured(&base, 40.0, &vary(&["ffn.width"]), |_| Err::<f64, _>("lost"));
    assert_eq!(failed.unwrap_err(), "lost");
}
