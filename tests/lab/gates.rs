//! Gates against recorded curves: the published tables, with decisions worked out by hand.

use std::{collections::BTreeMap, fs};

use moelab::lab::evaluation::{EvalPoint, Routing};
use moelab::lab::gates::{
    Course, Decision, DecisionRecord, Verdict, decide, decide_each,
    economy::{Runs, Truth, economy, to_markdown},
    half_parameters::Rating,
    halving::{self, Arm},
};
use moelab::lab::verdict::Spec;
use moelab::run::gates::{GateOptions, GateRule, HalfParameterOptions, HalvingOptions, Undecided};

#[derive(serde::Deserialize)]
struct Study {
    #[serde(rename = "source")]
    _source: String,
    courses: Vec<Course>,
}

fn published(study: &str) -> BTreeMap<String, Course> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/published_curves.json");
    let mut studies: BTreeMap<String, Study> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    studies.remove(study).unwrap().courses.into_iter().map(|course| (course.name.clone(), course)).collect()
}

fn options(rule: GateRule) -> GateOptions {
    GateOptions { rule, ..GateOptions::default() }
}

fn verdicts(decisions: &[Decision]) -> Vec<(u32, Verdict)> {
    decisions.iter().map(|decision| (decision.update, decision.verdict)).collect()
}

fn number(decision: &Decision, name: &str) -> f64 {
    let found = decision.numbers.iter().find(|number| number.name == name);
    found.unwrap_or_else(|| panic!("{name} in {:?}", decision.numbers)).value
}

use Verdict::{Promote, Stop, Wait};

#[test]
fn the_gap_rule_on_the_published_screens() {
    let runs = published("rnn");
    let each = |name: &str| decide_each(&options(GateRule::Gap), &runs[name], Some(&runs["baseline"]));
    // Gaps: +0.320 · +0.080 +0.390 +0.585 · +0.068 +0.272 +0.442 +0.688 · +0.206 · +0.026 +0.214 +0.390 +0.635.
    assert_eq!(verdicts(&each("half_aux005")), [(500, Stop)]);
    assert_eq!(verdicts(&each("half_aux003")), [(500, Wait), (1000, Stop), (1500, Stop)]);
    assert_eq!(verdicts(&each("mid_top2")), [(500, Wait), (1000, Stop), (1500, Stop), (2000, Stop)]);
    assert_eq!(verdicts(&each("mid_top3")), [(1000, Stop)]);
    assert_eq!(verdicts(&each("mid_top4")), [(500, Wait), (1000, Stop), (1500, Stop), (2000, Stop)]);
    // +0.035 0.000 +0.078 +0.144 +0.129: within 0.02 of the first gap only at 1000.
    assert_eq!(verdicts(&each("control")), [(500, Wait), (1000, Promote), (1500, Stop), (2000, Stop), (2500, Stop)]);
    assert_eq!(verdicts(&each("indexed")), [(500, Wait), (1000, Promote)]);
    let half = &each("half_aux003")[1];
    assert!((number(half, "first_gap") - 0.080).abs() < 1e-9 && (number(half, "gap_growth") - 0.310).abs() < 1e-9, "{half:?}");
    assert_eq!(half.reason, "the gap widened from +0.0800 at update 500 to +0.3900 at update 1000, by more than 0.02");
}

#[test]
fn a_gap_of_exactly_the_limit_is_allowed() {
    let course = |name: &str, losses: &[f64]| {
        let evals = losses.iter().zip(1..).map(|(ce, i)| EvalPoint { update: 500 * i, val_ce: *ce, ..EvalPoint::default() });
        Course { name: name.into(), evals: evals.collect(), ..Course::default() }
    };
    // 5.7 - 5.6 is 0.10000000000000053 in binary.
    let (own, reference) = (course("own", &[5.7, 4.62]), course("reference", &[5.6, 4.5]));
    assert_eq!(verdicts(&decide_each(&options(GateRule::Gap), &own, Some(&reference))), [(500, Wait), (1000, Promote)]);
}

#[test]
fn restarts_and_collapsed_routing_close_the_gap_gate() {
    let routing = |spread| Some(Routing { entropy: 0.9, max_load: 1.5, spread });
    let mut own = Course { name: "own".into(), ..Course::default() };
    own.evals = [(100, 5.0, 0.5), (200, 4.0, 0.05)]
        .map(|(update, val_ce, spread)| EvalPoint { update, val_ce, routing: routing(spread), ..EvalPoint::default() })
        .into();
    let reference = Course { name: "reference".into(), ..own.clone() };
    let each = || decide_each(&options(GateRule::Gap), &own, Some(&reference));
    assert_eq!(verdicts(&each()), [(100, Wait), (200, Stop)]);
    assert_eq!(each()[1].reason, "the routing of a layer has collapsed: spread 0.050, at least 0.1");
    let mut own = own.clone();
    own.faults = vec![50];
    let decision = decide(&options(GateRule::Gap), &own.until(100), Some(&reference));
    assert_eq!((decision.verdict, decision.reason.as_str()), (Stop, "restarts after a lost device, or roll-backs: 1"));
}

#[test]
fn the_half_parameter_verdicts_on_the_published_screens() {
    let runs = published("rnn");
    let each = |name: &str| decide_each(&options(GateRule::HalfParameters), &runs[name], Some(&runs["control"]));
    // 5.656 / 5.611 = +0.80 %, 5.157 / 4.767 = +8.18 %, 4.864 / 4.357 = +11.64 %; 5.896 / 5.611 = +5.08 %.
    let half = each("half_aux003");
    assert_eq!(verdicts(&half), [(500, Promote), (1000, Wait), (1500, Stop)]);
    let reasons: Vec<&str> = half.iter().map(|decision| decision.reason.as_str()).collect();
    let tail = "with 49.6 % of its parameters";
    assert_eq!(reasons[0], format!("excellent: the loss is +0.80 % to that of control at update 500, {tail}"));
    assert_eq!(reasons[1], format!("marginal: the loss is +8.18 % to that of control at update 1000, {tail}"));
    assert_eq!(reasons[2], format!("weak: the loss is +11.64 % to that of control at update 1500, {tail}"));
    assert!(each("half_aux005")[0].reason.starts_with("good: the loss is +5.08 %"), "{:?}", each("half_aux005"));
    let of = |increase| Rating::of(increase, &HalfParameterOptions::default());
    let bounds = [0.0299, 0.03, 0.07, 0.0701, 0.10, 0.1001].map(of);
    assert_eq!(bounds, [Rating::Excellent, Rating::Good, Rating::Good, Rating::Marginal, Rating::Marginal, Rating::Weak]);
}

#[test]
fn promotion_on_the_published_screens() {
    let runs = published("rnn");
    let each = |name: &str, reference: &str| decide_each(&options(GateRule::StopPromote), &runs[name], Some(&runs[reference]));
    // -0.034, then -0.134 to the baseline.
    let indexed = each("indexed", "baseline");
    assert_eq!(verdicts(&indexed), [(500, Wait), (1000, Promote)]);
    // Better by more than the noise, but not by the margin, and not cheaper.
    assert!(indexed[0].reason.ends_with("neither better by 0.05 nor equal within 0.02: -0.0340 to baseline at update 500"), "{indexed:?}");
    assert_eq!(indexed[1].reason, "better than the reference by at least 0.05: -0.1340 to baseline at update 1000");
    // -0.009 to the control with 37.8 % fewer parameters, then +0.214, +0.312, +0.491.
    let top4 = each("mid_top4", "control");
    assert_eq!(verdicts(&top4), [(500, Promote), (1000, Wait), (1500, Wait), (2000, Wait)]);
    assert_eq!(top4[0].reason, "equal within 0.02 (-0.0090 to control at update 500), with 37.8 % fewer parameters");
    // Equal to 0.000 at 1000, with 9.3 % fewer parameters than the baseline.
    assert_eq!(each("control", "baseline")[1].verdict, Promote);
    // The reference has no evaluation there.
    let mut shifted = runs["control"].clone();
    shifted.evals.iter_mut().for_each(|eval| eval.update += 1);
    let decision = &decide_each(&options(GateRule::StopPromote), &shifted, Some(&runs["baseline"]))[1];
    assert!(decision.verdict == Wait && decision.reason.ends_with("baseline has no evaluation at update 1001"), "{decision:?}");
}

/// A run with a plateau from update 300 on: training loss and routing as given.
fn plateau(train: impl Fn(u32) -> f64, max_load: [f64; 5]) -> Course {
    let losses = [5.0, 4.5, 4.495, 4.48, 4.47];
    let point = |i: usize| EvalPoint {
        update: 100 * (i as u32 + 1),
        val_ce: losses[i],
        routing: Some(Routing { entropy: 0.9, max_load: max_load[i], spread: 0.5 }),
        ..EvalPoint::default()
    };
    Course {
        name: "run".into(),
        evals: (0..5).map(point).collect(),
        train: (1..=500).map(|u| (u, train(u))).collect(),
        ..Course::default()
    }
}

#[test]
fn a_run_stops_only_if_all_three_conditions_hold() {
    let rule = options(GateRule::StopPromote);
    let (flat, constant) = (|_: u32| 4.4, [2.0; 5]);
    let each = decide_each(&rule, &plateau(flat, constant), None);
    // The gains on the best before are 0.5, 0.005, 0.015, 0.01: three in a row below 0.02 at 500.
    assert_eq!(verdicts(&each), [(100, Wait), (200, Wait), (300, Wait), (400, Wait), (500, Stop)]);
    assert!((number(&each[4], "largest_val_ce_gain") - 0.015).abs() < 1e-9);
    assert!((number(&each[4], "best_val_ce_gain_of_last_2") - 0.025).abs() < 1e-9);
    assert!((number(&each[3], "largest_val_ce_gain") - 0.5).abs() < 1e-9);
    // The slope is -0.0003 per update: -0.03 over the 100 updates since the evaluation before.
    let falling = decide(&rule, &plateau(|u| 4.4 - 0.0003 * f64::from(u), constant), None);
    assert_eq!(falling.verdict, Wait);
    assert!((number(&falling, "train_ce_slope_times_window") + 0.03).abs() < 1e-9, "{falling:?}");
    assert_eq!(
        falling.reason,
        "the training loss is not flat: its slope over 100 updates makes -0.0300, flat is below 0.02; there is no reference to compare with"
    );
    // Over 50 updates it is 0.015, which is flat.
    let mut short = rule.clone();
    short.stop.window = 50;
    assert_eq!(decide(&short, &plateau(|u| 4.4 - 0.0003 * f64::from(u), constant), None).verdict, Stop);
    // The maximum load falls by 5 % in the fourth evaluation.
    let balancing = decide(&rule, &plateau(flat, [2.0, 2.0, 2.0, 1.9, 1.9]), None);
    assert_eq!(balancing.verdict, Wait);
    assert!(balancing.reason.starts_with("routing still improves: load entropy +0.0000, maximum load -5.0 %"), "{balancing:?}");
    // Better routing than an equal reference promotes, even on a plateau.
    let reference = Course { name: "reference".into(), ..plateau(flat, [2.2; 5]) };
    let decision = decide(&rule, &plateau(flat, constant), Some(&reference));
    assert_eq!(decision.verdict, Promote);
    assert!(decision.reason.contains("better routing (load entropy +0.0000, maximum load -9.1 %)"), "{decision:?}");
}

#[test]
fn early_stopping_as_in_exp8() {
    let runs = published("exp8");
    // It never triggered with a patience of 30.
    for run in runs.values() {
        assert!(decide_each(&options(GateRule::EarlyStopping), run, None).iter().all(|decision| decision.verdict == Wait));
    }
    let mut rule = options(GateRule::EarlyStopping);
    rule.early_stopping.patience = 1;
    let last = |name: &str| decide(&rule, &runs[name], None);
    assert_eq!((last("higher_dropout").verdict, last("baseline").verdict), (Wait, Stop));
    assert!(last("baseline").reason.ends_with("the result is the best evaluation, 5.1413 at update 237"), "{:?}", last("baseline"));
    // At 600 the loss is 0.00084 below that at 500, at 700 it rises, at 800 it is 0.00236 below that at 500.
    rule.early_stopping.patience = 2;
    let memorised = decide_each(&rule, &published("exp3_lr")["lr_3e-3"], None);
    let stops: Vec<u32> = memorised.iter().filter(|decision| decision.verdict == Stop).map(|decision| decision.update).collect();
    assert_eq!(stops, [700, 1000]);
}

#[test]
fn a_loss_that_is_not_finite_stops_under_every_rule() {
    let evals = vec![EvalPoint { update: 10, val_ce: f64::NAN, ..EvalPoint::default() }];
    let course = Course { name: "diverged".into(), evals, ..Course::default() };
    for rule in [GateRule::StopPromote, GateRule::Gap, GateRule::EarlyStopping, GateRule::HalfParameters] {
        assert_eq!(decide(&options(rule), &course, Some(&course)).verdict, Stop, "{rule:?}");
    }
    assert_eq!(decide(&options(GateRule::Off), &course, None).verdict, Wait);
}

fn arm(name: &str, losses: &[(u64, f64)]) -> Arm {
    Arm { name: name.into(), is_control: name == "baseline", losses: losses.iter().copied().collect() }
}

#[test]
fn halving_keeps_ties_and_the_control() {
    let runs = published("exp8");
    let arms: Vec<Arm> = runs.values().map(|run| arm(&run.name, &[(42, run.at(25).unwrap().val_ce)])).collect();
    let decisions = halving::rung(&HalvingOptions::default(), &arms, 25);
    // Half of the eight rivals are four: 6.9336, 8.7850, and of the four at 8.7858 all, because they tie.
    let kept: Vec<&str> =
        arms.iter().zip(&decisions).filter(|(_, decision)| decision.verdict == Promote).map(|(arm, _)| arm.name.as_str()).collect();
    assert_eq!(kept, ["baseline", "constant_lr", "early_stopping", "linear_decay", "lower_lb_weight", "no_lb", "short_run"]);
    let dropped = arms.iter().zip(&decisions).find(|(arm, _)| arm.name == "higher_dropout").unwrap().1;
    assert_eq!(dropped.reason, "8 of 8 by the mean 8.8729 over seeds 42; 4 are kept, up to 8.7858");
    assert_eq!((number(dropped, "rank"), number(dropped, "mean_val_ce")), (8.0, 8.8729));
}

#[test]
fn halving_judges_by_the_seeds_that_all_arms_have() {
    // Over its own seeds, b would win by an easy third one.
    let arms = [
        arm("baseline", &[(1, 9.0), (2, 9.0), (3, 9.0)]),
        arm("a", &[(1, 4.0), (2, 4.2)]),
        arm("b", &[(1, 4.1), (2, 4.3), (3, 1.0)]),
        arm("diverged", &[(1, f64::NAN), (2, 1.0)]),
        arm("failed", &[]),
    ];
    let decisions = halving::rung(&HalvingOptions { keep: 0.34, ..HalvingOptions::default() }, &arms, 100);
    let verdicts: Vec<Verdict> = decisions.iter().map(|decision| decision.verdict).collect();
    // A third of three rivals with results, rounded up, are two.
    assert_eq!(verdicts, [Promote, Promote, Promote, Stop, Stop]);
    assert_eq!(number(&decisions[1], "mean_val_ce"), 4.1);
    let one = halving::rung(&HalvingOptions { keep: 0.33, ..HalvingOptions::default() }, &arms, 100);
    assert_eq!((one[1].verdict, one[2].verdict), (Promote, Stop));
    let tied = halving::rung(&HalvingOptions { keep: 0.33, tie: 0.1 }, &arms, 100);
    assert_eq!(tied[2].verdict, Promote);
    let strangers = [arm("a", &[(1, 4.0)]), arm("b", &[(2, 4.0)])];
    assert!(halving::rung(&HalvingOptions::default(), &strangers, 100).iter().all(|decision| decision.verdict == Wait));
}

#[test]
fn routing_is_measured_over_the_layers() {
    let balanced = Routing::of(&[vec![0.25; 4], vec![0.25; 4]], 2).unwrap();
    assert!((balanced.entropy - 1.0).abs() < 1e-12 && (balanced.max_load - 1.0).abs() < 1e-12 && (balanced.spread - 1.0).abs() < 1e-12);
    // One of two layers sends all tokens to the same two of four experts: half the entropy, twice the fair share.
    let collapsed = Routing::of(&[vec![0.5, 0.5, 0.0, 0.0], vec![0.25; 4]], 2).unwrap();
    assert!(
        (collapsed.entropy - 0.75).abs() < 1e-12 && (collapsed.max_load - 2.0).abs() < 1e-12 && collapsed.spread < 1e-12,
        "{collapsed:?}"
    );
    assert_eq!(Routing::of(&[], 2), None);
}

#[test]
fn a_decision_is_one_line_that_reads_back() {
    let runs = published("rnn");
    let decision = decide(&options(GateRule::Gap), &runs["half_aux005"], Some(&runs["baseline"]));
    let record = DecisionRecord { run: "half-s1".into(), stage: "screen".into(), decision, time: 1.5 };
    let line = serde_json::to_string(&record).unwrap();
    assert!(
        line.starts_with(r#"{"run":"half-s1","stage":"screen","verdict":"stop","rule":"gap","update":500,"reason":"the first gap"#),
        "{line}"
    );
    assert_eq!(serde_json::from_str::<DecisionRecord>(&line).unwrap(), record);
}

#[test]
fn what_happens_without_a_decision_is_an_option() {
    let decision = decide(&options(GateRule::Gap), &published("rnn")["control"], None);
    assert_eq!(decision.verdict, Wait);
    let mut rule = options(GateRule::Gap);
    assert!(decision.continues(&rule));
    rule.undecided = Undecided::Stop;
    assert!(!decision.continues(&rule));
}

/// Six runs of 100 updates, evaluated every 10: `loss(update)`, and a thousandth of the seed's noise.
fn runs(loss: impl Fn(u32) -> f64) -> Runs {
    let noise = |seed: u64, update: u32| 0.001 * ((crate::runs::mix(1000 * seed + u64::from(update)) >> 11) as f64 * 2f64.powi(-53) - 0.5);
    let eval = |seed: u64, update: u32| EvalPoint { update, val_ce: loss(update) + noise(seed, update), ..EvalPoint::default() };
    let course = |seed: u64| Course { name: "run".into(), evals: (1..=10).map(|i| eval(seed, 10 * i)).collect(), ..Course::default() };
    (1..=6).map(|seed| (seed, course(seed))).collect()
}

#[test]
fn the_economy_of_gates_is_counted() {
    let fall = |update: u32| 5.0 - 0.01 * f64::from(update);
    let arms = [("better", -0.2), ("a", 0.2), ("b", 0.3), ("c", 0.4)];
    let arms = arms.map(|(name, difference)| (name.to_string(), runs(move |update| fall(update) + difference)));
    let truth = Truth { control: runs(fall), arms: arms.into_iter().collect(), stages: vec![20, 60] };
    let rows = economy(&truth, &options(GateRule::Gap), &Spec::default()).unwrap();
    // Six seeds of five runs of 100. Halving, a seed: 2 of the 4 arms make 20, 1 makes 60, 1 and the control make 100. The gap rule stops
    // three arms at 20. With adaptive repeats, it does so with three seeds, and a fourth pair settles the arm that is left.
    let updates: Vec<f64> = rows.iter().map(|row| row.updates).collect();
    assert_eq!(updates, [3000.0, 6.0 * 300.0, 6.0 * 260.0, 3.0 * 260.0 + 200.0]);
    assert!(rows.iter().all(|row| (row.right, row.wrong, row.open, row.keeps_best) == (1.0, 0.0, 0.0, 1.0)), "{rows:?}");
    let table = to_markdown(&rows);
    assert!(table.contains("| halving | 1800 | 60.0 % | 100.0 % | 0.0 % | 0.0 % | 100.0 % |"), "{table}");

    // An arm that overtakes the control only after the first stage.
    let late = runs(|update| if update <= 30 { fall(update) + 0.3 } else { fall(update) - 0.3 });
    let truth = Truth { arms: [("late".to_string(), late), ("a".to_string(), truth.arms["a"].clone())].into(), ..truth };
    let rows = economy(&truth, &options(GateRule::Gap), &Spec::default()).unwrap();
    let answers: Vec<(f64, f64, f64)> = rows.iter().map(|row| (row.right, row.wrong, row.keeps_best)).collect();
    assert_eq!(answers, [(1.0, 0.0, 1.0), (0.5, 0.5, 0.0), (0.5, 0.5, 0.0), (0.5, 0.5, 0.0)]);

    let few = |runs: &Runs| runs.clone().into_iter().take(3).collect::<Runs>();
    let truth = Truth { control: few(&truth.control), ..truth };
    assert_eq!(
        economy(&truth, &options(GateRule::Gap), &Spec::default()).unwrap_err().to_string(),
        "2 arms with 3 seeds in common: at least one arm and 4 seeds are needed"
    );
}
