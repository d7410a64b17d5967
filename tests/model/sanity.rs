//! What must be true of any model.

use moelab::{
    data::Corpus,
    gpu::{Capabilities, PlanOptions},
};

use crate::harness::{SMALL, batch, config, device, drive, tiers, trainer};

fn one_batch(text: &str, tier: Capabilities, options: PlanOptions) -> crate::harness::Ran {
    let config = config(text, 64);
    let corpus = Corpus::Batches { training: vec![batch(&config, 1)], validation: vec![batch(&config, 2)] };
    drive(&mut trainer(&config, &device(tier), corpus, options))
}

#[test]
fn the_first_loss_is_ln_v() {
    for tier in tiers() {
        let ran = one_batch(SMALL, tier, PlanOptions::default());
        let (first, wanted) = (ran.updates[0].train_ce, 64f64.ln());
        // Measured: 0.86 % above, on either tier; half the variance of the logits is part of it.
        assert!((first / wanted - 1.0).abs() < 0.01, "{first} against {wanted}");
    }
}

#[test]
fn the_same_run_twice_and_with_memory_unplanned_gives_the_same_bits() {
    for tier in tiers() {
        let first = one_batch(SMALL, tier, PlanOptions::default());
        let again = one_batch(SMALL, tier, PlanOptions::default());
        let unplanned = one_batch(SMALL, tier, PlanOptions { share_memory: false, ..PlanOptions::default() });
        assert_eq!(first.updates, again.updates);
        assert_eq!(first.weights_sha256, again.weights_sha256);
        assert_eq!(first.updates, unplanned.updates);
        assert_eq!(first.weights_sha256, unplanned.weights_sha256);
        assert_eq!(first.weights_sha256.len(), 64);
    }
}

#[test]
fn one_batch_is_overfitted() {
    let text = SMALL.replace("updates = 10", "updates = 250");
    // On the adapter's own tier only: hundreds of updates of the other are slow, and the oracle compares the two.
    let tier = *tiers().last().unwrap();
    let ran = one_batch(&text, tier, PlanOptions::default());
    let last = ran.updates.last().unwrap().train_ce;
    assert!(last < 0.05, "{last} after {} updates", ran.updates.len());
}
