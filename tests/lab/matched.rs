//! Two runs are compared by what each had by then.

use moelab::lab::matched::{Evaluation, Matched, Reached, last_at, time_to};
use moelab::lab::verdict::Better;
use moelab::run::suite::Axis;

fn evaluations(points: &[(f64, f64)]) -> Vec<Evaluation> {
    points.iter().map(|(x, value)| Evaluation { x: *x, value: *value }).collect()
}

#[test]
fn the_value_at_equal_tokens_is_the_last_by_then() {
    let run = evaluations(&[(100.0, 5.0), (200.0, 4.0), (300.0, 3.5)]);
    let control = evaluations(&[(150.0, 4.8), (290.0, 4.2)]);
    assert_eq!(last_at(&run, 299.9).unwrap().value, 4.0);
    assert_eq!(last_at(&run, 300.0).unwrap().value, 3.5);
    assert_eq!(last_at(&run, 99.0), None);
    let matched = Matched::of(Axis::Tokens, [&run, &control], None).unwrap();
    assert_eq!((matched.x, matched.evaluations[0].x, matched.evaluations[1].x), (290.0, 200.0, 290.0));
    assert_eq!(
        matched.sentence("val_ce", ["run", "control"]),
        "At 290 tokens: val_ce 4.0000 (evaluated at 200) of run against 4.2000 of control, difference -0.2000."
    );
    // The control never got to 300; the run had nothing by 99.
    assert_eq!(Matched::of(Axis::Tokens, [&run, &control], Some(300.0)), None);
    assert_eq!(Matched::of(Axis::Flops, [&run, &control], Some(99.0)), None);
    assert_eq!(Matched::of(Axis::Flops, [&run, &[]], None), None);
}

#[test]
fn the_time_to_a_target_says_whether_the_run_stays_there() {
    let run = evaluations(&[(10.0, 5.0), (20.0, 4.0), (30.0, 4.1), (40.0, f64::NAN), (50.0, 3.9)]);
    assert_eq!(time_to(&run, 4.0, Better::Lower), Some(Reached { x: 20.0, lost_at: Some(40.0) }));
    assert_eq!(time_to(&run[..2], 4.0, Better::Lower), Some(Reached { x: 20.0, lost_at: None }));
    assert_eq!(time_to(&run, 3.0, Better::Lower), None);
    assert_eq!(time_to(&run, 4.5, Better::Higher), Some(Reached { x: 10.0, lost_at: Some(50.0) }));
    assert_eq!(
        time_to(&run, 4.0, Better::Lower).unwrap().sentence("run", "val_ce", 4.0, Axis::Seconds),
        "run reaches val_ce 4 by 20 seconds, but is worse again up to 40."
    );
}
