//! The statistics agree with SciPy, and give the figures that the audit of the published studies derives.

use moelab::lab::statistics::correlation::{Kind, correlation};
use moelab::lab::statistics::grid::grid;
use moelab::lab::statistics::sequential::SequentialT;
use moelab::lab::statistics::unpaired::{Difference, Noise, repeats_per_arm};
use moelab::lab::statistics::{Moments, quantile, t_cdf, t_quantile};
use serde_json::Value;

/// The final loss and dropout of the nine published runs of exp8, its load-balancing weight, and best minus final in percent.
pub const EXP8: [(&str, f64, f64, f64, f64); 9] = [
    ("baseline", 5.1649, 0.1, 0.01, 0.46),
    ("early_stopping", 5.1588, 0.1, 0.01, 0.37),
    ("constant_lr", 5.1641, 0.1, 0.01, 0.89),
    ("lower_lb_weight", 5.1478, 0.1, 0.001, 0.33),
    ("no_lb", 5.1482, 0.1, 0.0, 0.29),
    ("higher_dropout", 5.1865, 0.2, 0.01, 0.0),
    ("linear_decay", 5.1736, 0.1, 0.01, 0.16),
    ("slower_min_lr", 5.1512, 0.1, 0.01, 0.36),
    ("short_run", 5.1563, 0.1, 0.01, 0.25),
];

fn scipy() -> Value {
    serde_json::from_str(include_str!("../fixtures/statistics/scipy_values.json")).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

#[track_caller]
fn close(found: f64, expected: &Value, tolerance: f64) {
    let expected = number(expected);
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1e-3), "{found} against {expected} of SciPy");
}

#[test]
fn students_t_is_that_of_scipy() {
    let scipy = scipy();
    for case in scipy["t"].as_array().unwrap() {
        close(t_cdf(number(&case["t"]), number(&case["freedom"])), &case["cdf"], 1e-11);
    }
    for case in scipy["quantiles_of_t"].as_array().unwrap() {
        close(t_quantile(number(&case["p"]), number(&case["freedom"])), &case["t"], 1e-9);
    }
    assert!(t_cdf(1.0, 0.0).is_nan() && t_quantile(1.5, 3.0).is_nan());
}

#[test]
fn moments_quantiles_and_correlations_are_those_of_scipy() {
    for case in scipy()["samples"].as_array().unwrap() {
        let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
        let moments = Moments::of(x.iter().copied());
        close(moments.mean, &case["mean"], 1e-12);
        close(moments.sd().unwrap(), &case["sd"], 1e-12);
        for (q, expected) in [0.1, 0.25, 0.5, 0.9].into_iter().zip(case["quartiles"].as_array().unwrap()) {
            close(quantile(&x, q).unwrap(), expected, 1e-12);
        }
        let points: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
        for (kind, expected) in [(Kind::Pearson, &case["pearson"]), (Kind::Spearman, &case["spearman"])] {
            let found = correlation(kind, &points);
            close(found.r.unwrap(), &expected[0], 1e-12);
            close(found.p().unwrap(), &expected[1], 1e-9);
        }
    }
}

#[test]
fn unpaired_groups_are_compared_as_by_scipy() {
    let scipy = scipy();
    for case in scipy["groups"].as_array().unwrap() {
        let found = Difference::of(&numbers(&case["a"]), &numbers(&case["b"]), None).unwrap();
        let [low, high] = found.interval().unwrap();
        close(low, &case["interval"][0], 1e-9);
        close(high, &case["interval"][1], 1e-9);
    }
    // A sample of 100 per arm makes the rounding up invisible.
    let sd = (100.0 / number(&scipy["power"])).sqrt();
    assert_eq!((repeats_per_arm(sd * 0.999999, 1.0), repeats_per_arm(sd * 1.0001, 1.0)), (Some(100), Some(101)));
}

#[test]
fn the_bayes_factor_is_the_integral_that_defines_it() {
    let scipy = scipy();
    for case in scipy["bayes_factors"].as_array().unwrap() {
        let test = SequentialT { alpha: 0.05, effect: number(&case["c"]) };
        close(test.bayes_factor(case["n"].as_u64().unwrap() as usize, number(&case["t"])), &case["value"], 1e-8);
    }
    for case in scipy["thresholds"].as_array().unwrap() {
        let test = SequentialT { alpha: number(&case["alpha"]), effect: number(&case["c"]) };
        close(test.threshold(case["n"].as_u64().unwrap() as usize).unwrap(), &case["t"], 1e-8);
    }
}

#[test]
fn differences_below_the_noise_of_replicas_are_not_significant() {
    let replicas: Vec<f64> = [0, 1, 3, 4, 8].map(|index: usize| EXP8[index].1).to_vec();
    let noise = Noise::pooled([replicas.as_slice()]).unwrap();
    assert_eq!((format!("{:.4}", noise.sd), noise.freedom), ("0.0073".into(), 4));
    assert_eq!((repeats_per_arm(0.0073, 0.01), repeats_per_arm(0.0073, 0.0), repeats_per_arm(0.0, 0.1)), (Some(9), None, Some(2)));
    let no_lb = Difference::of(&[EXP8[4].1], &[EXP8[0].1], Some(noise)).unwrap();
    assert!(!no_lb.is_significant());
    let [low, high] = no_lb.interval().unwrap();
    assert_eq!(format!("{:.4} ({low:.4} to {high:.4})", no_lb.difference), "-0.0167 (-0.0453 to 0.0119)");
    let alone = Difference::of(&[5.1], &[5.2], None).unwrap();
    assert!(alone.interval().is_none() && !alone.is_significant());
    let against_five = Difference::of(&[EXP8[5].1], &replicas, None).unwrap();
    assert!(against_five.is_significant(), "{against_five:?}");
}

#[test]
fn a_correlation_that_hangs_on_one_point_is_not_evidence() {
    let dropout: Vec<(f64, f64)> = EXP8.iter().map(|(_, _, dropout, _, degradation)| (*dropout, *degradation)).collect();
    let found = correlation(Kind::Pearson, &dropout);
    assert_eq!((found.n, found.distinct_x, found.leave_one_out), (9, 2, None));
    assert_eq!(
        found.sentence("dropout", "degradation", false),
        "corr(dropout, degradation) = -0.53, n = 9, only 1 point has dropout other than 0.1; undefined without one point. \
         Not reported as evidence."
    );
    let weight: Vec<(f64, f64)> = EXP8.iter().map(|(_, _, _, weight, degradation)| (*weight, *degradation)).collect();
    let weight = correlation(Kind::Pearson, &weight);
    assert_eq!(format!("{:.2}", weight.r.unwrap()), "0.08");
    assert!(weight.fragile().is_some_and(|why| why.contains("sign")), "{:?}", weight.fragile());
    let steady: Vec<(f64, f64)> = (0..8).map(|i| (f64::from(i), f64::from(i) + f64::from(i % 2))).collect();
    let steady = correlation(Kind::Spearman, &steady);
    assert!(steady.fragile().is_none());
    assert!(steady.sentence("lr", "loss", true).contains("Not reported"));
    assert!(steady.sentence("lr", "loss", false).contains("n = 8, 8 distinct values of lr"), "{}", steady.sentence("lr", "loss", false));
    // Its value does not, but its sign hangs on the last point.
    let hangs = correlation(Kind::Pearson, &[(0.0, 0.1), (1.0, 0.0), (2.0, 0.1), (3.0, 0.0), (9.0, 5.0)]);
    assert!(hangs.r.unwrap() > 0.9 && hangs.fragile().is_some());
    assert_eq!(correlation(Kind::Pearson, &[(1.0, 2.0), (1.0, 3.0)]).r, None);
}

#[test]
fn a_grid_is_found_where_there_is_one() {
    // Losses of bfloat16, averaged over ten batches.
    let losses =
        [7.078125, 7.640625, 8.35, 6.66875, 7.015625, 6.915625, 7.7, 7.071875, 7.103125, 6.9875, 7.078125, 8.4625, 9.4625, 6.925, 6.99375];
    assert_eq!(grid(&losses), Some(1.0 / 320.0));
    let single: Vec<f64> = losses.iter().map(|loss| f64::from(*loss as f32)).collect();
    assert_eq!(grid(&single), Some(1.0 / 320.0));
    let printed: Vec<f64> = EXP8.iter().map(|run| run.1).collect();
    assert_eq!(grid(&printed), Some(1.0 / 10_000.0));
    // A loss in single precision, and too few values to tell.
    let stream = moelab::random::Stream { seed: 1, step: 0, stream: 0 };
    let losses: Vec<f64> = (0..30).map(|i| f64::from(5.0 + stream.normal(i))).collect();
    assert_eq!((grid(&losses), grid(&losses[..3]), grid(&[5.0]), grid(&[])), (None, None, None, None));
}
