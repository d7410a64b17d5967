//! Verdicts say what the pairs support and no more.

use super::statistics::EXP8;
use moelab::lab::statistics::{Moments, t_quantile};
use moelab::lab::verdict::{Arm, ArmJudgement, Better, Comparison, Finding, Judgement, Spec, Verdict, judge};
use moelab::random::Stream;

/// Noise of the seed, shared by all arms, and that of each run.
fn noise(arm: u32, seed: u64) -> f64 {
    let stream = |stream| Stream { seed: 11, step: seed as u32, stream };
    0.05 * f64::from(stream(99).normal(0)) + 0.004 * f64::from(stream(arm).normal(0))
}

fn arm(name: &str, index: u32, effect: f64, seeds: u64) -> Arm {
    Arm::new(name, (0..seeds).map(|seed| (seed, Some(5.0 + effect + noise(index, seed)))))
}

fn comparison(arms: Vec<Arm>) -> Comparison {
    Comparison { control: arm("control", 0, 0.0, 8), arms, ..Comparison::default() }
}

fn verdicts(judgement: &Judgement) -> Vec<Verdict> {
    judgement.arms.iter().map(|arm| arm.verdict).collect()
}

#[test]
fn each_word_has_its_pairs() {
    let mut arms = vec![
        arm("better", 1, -0.1, 8),
        arm("worse", 2, 0.1, 8),
        arm("same", 3, 0.0, 8),
        arm("vague", 4, 0.015, 4),
        arm("three", 5, 0.1, 3),
    ];
    arms.push(Arm { name: "copy".into(), ..arm("control", 0, 0.0, 3) });
    arms.push(Arm { name: "none".into(), ..Arm::default() });
    // Hardly any noise: better by less than the margin.
    let exact = (0..8).map(|seed| (seed, Some(5.0 - 0.004 + noise(0, seed) + 1e-5 * noise(6, seed))));
    arms.push(Arm::new("slightly", exact));
    let comparison = comparison(arms);
    let judgement = judge(&comparison);
    use Verdict::*;
    assert_eq!(verdicts(&judgement), [Better, Worse, Equivalent, NotClear, Unknown, Identical, Unknown, BetterAndEquivalent]);
    insta::assert_snapshot!(judgement.sentences().join("\n"));
    // A bound that excludes 0 does not read as 0.
    let close = ArmJudgement { mean: Some(-0.0213), interval: Some([-0.0422, -0.00041]), ..judgement.arms[0].clone() };
    assert!(close.sentence(&judgement.spec, "control").contains("lower by 0.0213 (interval 0.0004 to 0.0422, 8 pairs)"));

    let mut higher = comparison.clone();
    higher.spec.better = moelab::lab::verdict::Better::Higher;
    assert_eq!(verdicts(&judge(&higher))[..3], [Worse, Better, Equivalent]);
    let text = serde_json::to_string(&judgement).unwrap();
    assert_eq!(serde_json::from_str::<Judgement>(&text).unwrap(), judgement);
}

#[test]
fn arms_are_paired_by_seed_and_failed_runs_are_shown() {
    let mut control = arm("control", 0, 0.0, 6);
    let mut better = arm("better", 1, -0.1, 7);
    control.values.insert(2, None);
    better.values.insert(4, Some(f64::NAN));
    let judgement = judge(&Comparison { control, arms: vec![better], ..Comparison::default() });
    let better = &judgement.arms[0];
    assert_eq!(better.pairs.iter().map(|pair| pair.seed).collect::<Vec<_>>(), [0, 1, 3, 5]);
    assert_eq!((better.failed.as_slice(), better.unpaired.as_slice()), (&[4][..], &[2, 6][..]));
    assert!(better.pairs.iter().all(|pair| pair.difference == pair.arm - pair.control));
    // Seeds differ by far more than the arms: unpaired, nothing would be clear.
    assert!(better.sd.unwrap() < 0.02 && judgement.control.sd.unwrap() > 0.02);
    assert_eq!((better.verdict, judgement.control.n), (Verdict::Better, 5));
    let sentence = better.sentence(&judgement.spec, "control");
    assert!(sentence.contains("1 of its 7 runs failed (seed 4)") && sentence.contains("2 of its runs have no partner"), "{sentence}");
}

#[test]
fn the_level_is_shared_among_the_arms() {
    let width = |arms: usize| {
        let others = (1..arms as u32).map(|index| arm("other", index + 20, 0.0, 8));
        let all = std::iter::once(arm("first", 1, 0.0, 8)).chain(others).collect();
        let [low, high] = judge(&comparison(all)).arms[0].interval.unwrap();
        high - low
    };
    let test = |alpha| moelab::lab::statistics::sequential::SequentialT { alpha, effect: 3.0 }.threshold(8).unwrap();
    assert!((width(4) / width(1) - test(0.05 / 4.0) / test(0.05)).abs() < 1e-9);
    assert!(width(4) > width(1) * 1.2);
    // The interval is wider than the one of a single look at a fixed n.
    assert!(test(0.05) > 1.5 * t_quantile(0.975, 7.0));
    let many = (0..400).map(|index| arm("arm", index + 30, -0.1, 4)).collect();
    let judged = &judge(&comparison(many)).arms[0];
    assert_eq!((judged.verdict, judged.fewest), (Verdict::Unknown, Some(6)));
    assert!(judged.sentence(&Spec::default(), "control").contains("at least 6 are needed"));
}

#[test]
fn the_forecast_of_repeats_comes_true() {
    let spec = Spec { margin: 1e-4, ..Spec::default() };
    let control = Arm::new("control", (0..5).map(|seed| (seed, Some(5.0))));
    // Mean 0.01 and standard deviation 0.01: one standard deviation.
    let differences = [0.0, 0.02, 0.0, 0.02, 0.01];
    let values = differences.into_iter().enumerate().map(|(seed, difference)| (seed as u64, Some(5.0 + difference)));
    let make = |values| Comparison { spec: spec.clone(), control: control.clone(), arms: vec![Arm::new("arm", values)], key: None };
    let judgement = judge(&make(values.clone().collect::<Vec<_>>()));
    let arm = &judgement.arms[0];
    let needed = arm.needed.unwrap();
    assert_eq!(arm.verdict, Verdict::NotClear);
    let (median, ninety) = (needed.median.unwrap(), needed.ninety.unwrap());
    // In 20,000 simulations with NumPy: 13 and 23.
    assert!((12..=14).contains(&median) && (20..=26).contains(&ninety), "{needed:?}");
    assert_eq!(judge(&make(values.collect())), judgement, "the forecast is not deterministic");
    let far = [0.01, -0.01, 0.01, -0.01, 1e-6].into_iter().enumerate().map(|(seed, d)| (seed as u64, Some(5.0 + d)));
    let sentence = judge(&make(far.collect())).arms[0].needed.unwrap().sentence();
    assert!(sentence.contains("more than 400"), "{sentence}");
}

#[test]
fn replicas_are_reported_as_such_and_nothing_is_ranked() {
    let mut arms: Vec<Arm> = EXP8.iter().map(|(name, loss, ..)| Arm::new(*name, [(42, Some(*loss))])).collect();
    let control = arms.remove(0);
    let judgement = judge(&Comparison { control, arms, ..Comparison::default() });
    assert!(judgement.arms.iter().all(|arm| arm.verdict == Verdict::Unknown));
    assert!(judgement.findings.iter().any(|finding| matches!(finding, Finding::UnknownNoise { n: 1, .. })));
    // With hashes of the final weights, equal runs are found even from one seed, and equal losses are not enough.
    let hashed = |name: &str, hash: &str| Arm { weights: [(1, hash.into())].into(), ..Arm::new(name, [(1, Some(5.25))]) };
    let arms = vec![hashed("lower_lb_weight", "a"), hashed("other", "b"), hashed("no_lb", "a")];
    let judgement = judge(&Comparison { control: hashed("baseline", "a"), arms, ..Comparison::default() });
    assert_eq!(verdicts(&judgement), [Verdict::Identical, Verdict::Unknown, Verdict::Identical]);
    assert_eq!(judgement.findings[0], Finding::IdenticalArms { arms: ["baseline", "lower_lb_weight", "no_lb"].map(String::from).into() });
}

#[test]
fn differences_below_the_step_of_the_metric_are_ties() {
    let named = [("1_baseline", 7.078125), ("8_few_experts", 7.071875), ("10_low_grad_clip", 6.9875), ("11_high_grad_clip", 7.078125)];
    let more = [("15_low_dropout", 6.99375), ("4_high_lr", 6.66875), ("3_low_lr", 8.35), ("7_small_model", 7.7), ("13_vlow_lr", 9.4625)];
    let mut arms: Vec<Arm> = named.into_iter().chain(more).map(|(name, loss)| Arm::new(name, [(42, Some(loss))])).collect();
    let control = arms.remove(0);
    let spec = Spec { metric: "val_loss".into(), quantum: Some(1.0 / 32.0), ..Spec::default() };
    let judgement = judge(&Comparison { spec, control, arms, key: None });
    let message = judgement.findings.iter().find(|finding| finding.title() == "QUANTISED METRIC").unwrap().message();
    assert_eq!(
        message,
        "val_loss lies on a grid of 1/320, with a step of 0.03125. Ties: 1_baseline and 8_few_experts (0.006250 apart), \
         1_baseline and 11_high_grad_clip (0.000000 apart), 8_few_experts and 11_high_grad_clip (0.006250 apart), \
         10_low_grad_clip and 15_low_dropout (0.006250 apart)."
    );
    // However often it is repeated, a difference below the step is not clear.
    let steady = |name: &str, value: f64| Arm::new(name, (0..8).map(|seed| (seed, Some(value + 0.5 * seed as f64))));
    let judge_with = |quantum| {
        let spec = Spec { quantum, margin: 1e-3, ..Spec::default() };
        judge(&Comparison { spec, control: steady("control", 6.0), arms: vec![steady("arm", 5.99)], key: None }).arms.remove(0)
    };
    assert_eq!((judge_with(None).verdict, judge_with(Some(1.0 / 32.0)).verdict), (Verdict::Better, Verdict::NotClear));
    assert!(judge_with(Some(1.0 / 32.0)).sentence(&Spec { quantum: Some(0.03125), ..Spec::default() }, "control").contains("a tie"));
}

#[test]
fn other_measurements_and_other_differences_are_said() {
    let measured = |name: &str, evaluation: &str| Arm { evaluation: evaluation.into(), ..arm(name, 1, -0.2, 6) };
    let control = Arm { evaluation: "full split".into(), ..arm("control", 0, 0.0, 6) };
    let confounded = Arm { also_differs: vec!["max_steps 2000/20000".into(), "warm-up 60/600".into()], ..measured("b", "full split") };
    let judgement = judge(&Comparison { control, arms: vec![measured("a", "13,299 targets"), confounded], ..Comparison::default() });
    assert_eq!(verdicts(&judgement), [Verdict::Unknown, Verdict::Better]);
    let titles: Vec<&str> = judgement.findings.iter().map(Finding::title).collect();
    assert_eq!(titles, ["EVAL MISMATCH", "CONFOUNDED"]);
    let sentence = judgement.arms[1].sentence(&judgement.spec, "control");
    assert!(sentence.ends_with("Not attributed to what the arm declares: also differ max_steps 2000/20000, warm-up 60/600."), "{sentence}");
}

#[test]
fn a_best_value_at_the_edge_and_a_best_evaluation_within_the_noise_are_said() {
    let with = |name: &str, index, effect, setting| Arm { setting: Some(setting), ..arm(name, index, effect, 4) };
    let edge = |settings: [f64; 3], better| {
        let control = with("control", 0, 0.0, settings[0]);
        let arms = vec![with("b", 1, -0.1, settings[1]), with("c", 2, -0.2, settings[2])];
        let spec = Spec { better, ..Spec::default() };
        let judgement = judge(&Comparison { spec, control, arms, key: Some("lr".into()) });
        judgement.findings.into_iter().find(|finding| finding.title() == "BEST AT EDGE").map(|finding| finding.message())
    };
    let at_edge = edge([1e-4, 3e-4, 6e-4], Better::Lower).unwrap();
    assert_eq!(at_edge, "c has the best mean, and lr = 0.0006 is the largest value tried: the optimum may lie beyond it.");
    assert!(edge([1e-4, 3e-4, 6e-4], Better::Higher).unwrap().contains("control has the best mean, and lr = 0.0001 is the smallest"));
    assert_eq!(edge([1e-4, 6e-4, 3e-4], Better::Lower), None);
    assert_eq!(edge([1e-4, 6e-4, 6e-4], Better::Lower), None, "every best of two values is at an edge");

    let gap = |gap: f64| {
        let mut control = arm("control", 0, 0.0, 5);
        let sd = Moments::of(control.values.values().flatten().copied()).sd().unwrap();
        control.best = control.values.iter().map(|(seed, value)| (*seed, value.unwrap() - gap * sd)).collect();
        let judgement = judge(&Comparison { control, ..Comparison::default() });
        judgement.findings.iter().any(|finding| matches!(finding, Finding::BestWithinNoise { .. }))
    };
    assert_eq!([gap(0.0), gap(1.9), gap(2.1)], [false, true, false]);
}
