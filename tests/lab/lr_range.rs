//! The learning-rate range test on curves whose answer is known.

use moelab::lab::lr_range::{recommend, test_of};
use moelab::run::{Config, schedule::ScheduleKind};

use crate::runs::mix;

/// 120 updates at rates from 1e-5 to 1, with noise of standard deviation about 0.03.
fn curve(loss: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let noise = |i: u64| (0..12).map(|j| (mix(100 * i + j) >> 11) as f64 * 2f64.powi(-53)).sum::<f64>() - 6.0;
    let rate = |i: u64| 1e-5 * 1e5f64.powf(i as f64 / 119.0);
    (0..120).map(|i| (rate(i), loss(rate(i)) + 0.03 * noise(i))).collect()
}

/// Falls from 5.5 to 3.5, fastest at `steepest`; rises by 5 with every doubling of the rate beyond `limit`.
fn fall(steepest: f64, limit: f64) -> impl Fn(f64) -> f64 {
    move |rate| 3.5 + 2.0 / (1.0 + (rate / steepest).powi(2)) + 5.0 * (rate / limit).max(1.0).log2()
}

#[test]
fn the_steepest_descent_and_the_divergence_are_found() {
    let found = recommend(&curve(fall(1e-3, 0.1)));
    let (best, steepest) = (found.best_learning_rate.unwrap(), found.steepest_learning_rate.unwrap());
    assert_eq!(best, steepest);
    assert!((5e-4..2e-3).contains(&steepest), "{steepest}");
    // A quarter of the descent of 2 is a rise by 0.5, at 1.07 times the limit; the window reaches 7 updates, a factor 2, ahead.
    let divergence = found.divergence_learning_rate.unwrap();
    assert!((0.05..0.15).contains(&divergence), "{divergence}");
    assert!(
        found.recommendation.contains("where the loss falls fastest") && found.recommendation.contains("rises again"),
        "{}",
        found.recommendation
    );
    assert_eq!((found.all_results.len(), found.best_result.unwrap().learning_rate), (120, best));
}

#[test]
fn the_rate_stays_below_the_divergence() {
    let found = recommend(&curve(fall(2e-2, 2.5e-2)));
    let divergence = found.divergence_learning_rate.unwrap();
    assert!(found.steepest_learning_rate.unwrap() > divergence / 3.0, "{}", found.recommendation);
    assert!((found.best_learning_rate.unwrap() / (divergence / 3.0) - 1.0).abs() < 1e-12);
    assert!(found.recommendation.contains("3 times below the rate at which the loss rises again"), "{}", found.recommendation);
}

#[test]
fn a_loss_that_is_not_finite_is_a_divergence() {
    let mut updates = curve(fall(1e-3, 10.0));
    updates[100..].iter_mut().for_each(|update| update.1 = f64::NAN);
    let found = recommend(&updates);
    assert_eq!(found.divergence_learning_rate, Some(updates[100].0));
    assert!((5e-4..2e-3).contains(&found.best_learning_rate.unwrap()));
    updates.truncate(100);
    let found = recommend(&updates);
    assert_eq!(found.divergence_learning_rate, None);
    assert!(found.recommendation.contains("higher rates than those tested may work"), "{}", found.recommendation);
}

#[test]
fn noise_alone_gives_no_recommendation() {
    for updates in [curve(|_| 5.5), curve(fall(1e-3, 0.1))[..10].to_vec(), vec![(1e-3, f64::NAN); 40], Vec::new()] {
        let found = recommend(&updates);
        assert_eq!(found.best_learning_rate, None, "{}", found.recommendation);
        assert!(found.recommendation.starts_with("no recommendation"), "{}", found.recommendation);
    }
}

#[test]
fn the_test_of_a_config_covers_the_range_from_its_first_update() {
    let mut config = Config::default();
    (config.optimizer.muon.lr, config.optimizer.adamw.lr) = (0.01, 0.001);
    config.train.early_stopping.patience = 3;
    let test = test_of(&config, 100, [0.001, 10.0]);
    let schedule = test.learning_rates();
    assert_eq!((schedule.kind, test.train.updates, test.train.early_stopping.patience), (ScheduleKind::Range, 100, 0));
    assert!((test.optimizer.muon.lr * schedule.at_update(0) - 1e-5).abs() < 1e-15);
    assert!((test.optimizer.adamw.lr * schedule.at_update(50) - 1e-4).abs() < 1e-15);
    assert!((test.optimizer.adamw.lr * schedule.at_update(100) - 1e-2).abs() < 1e-15);
}
