//! A draw from logits: frequencies over evenly spread uniform numbers against shares worked out by hand.

use moelab::train::generate::{Sampling, choose};

/// Shares of 0.1, 0.4, 0.2 and 0.3.
fn logits() -> [f32; 4] {
    [0.1f32, 0.4, 0.2, 0.3].map(|share| share.ln() + 2.0)
}

/// How often each token is drawn.
fn frequencies(temperature: f64, top_p: f64) -> [f64; 4] {
    const DRAWS: u32 = 18_000;
    let mut found = [0.0; 4];
    for i in 0..DRAWS {
        let token = choose(&logits(), Sampling { temperature, top_p }, (f64::from(i) + 0.5) / f64::from(DRAWS));
        found[token as usize] += 1.0 / f64::from(DRAWS);
    }
    found
}

fn assert_frequencies(temperature: f64, top_p: f64, weights: [f64; 4]) {
    let found = frequencies(temperature, top_p);
    let total: f64 = weights.iter().sum();
    for (found, weight) in found.iter().zip(weights) {
        assert!((found - weight / total).abs() < 2e-4, "{found} for {weight} of {total} at {temperature}, {top_p}");
    }
}

#[test]
fn a_nucleus_is_the_fewest_likeliest_tokens_and_keeps_their_odds() {
    assert_frequencies(1.0, 1.0, [1.0, 4.0, 2.0, 3.0]);
    assert_frequencies(1.0, 0.95, [1.0, 4.0, 2.0, 3.0]);
    assert_frequencies(1.0, 0.85, [0.0, 4.0, 2.0, 3.0]);
    assert_frequencies(1.0, 0.75, [0.0, 4.0, 2.0, 3.0]);
    assert_frequencies(1.0, 0.65, [0.0, 4.0, 0.0, 3.0]);
    assert_frequencies(1.0, 0.45, [0.0, 4.0, 0.0, 3.0]);
    assert_frequencies(1.0, 0.35, [0.0, 1.0, 0.0, 0.0]);
    assert_frequencies(1.0, 0.0, [0.0, 1.0, 0.0, 0.0]);
}

/// Temperature first, the nucleus then: of squared shares 16 + 9 of 30 make 0.83.
#[test]
fn a_temperature_is_a_power_on_the_shares() {
    assert_frequencies(0.5, 1.0, [1.0, 16.0, 4.0, 9.0]);
    assert_frequencies(0.5, 0.8, [0.0, 16.0, 0.0, 9.0]);
    assert_frequencies(0.5, 0.85, [0.0, 16.0, 4.0, 9.0]);
    assert_frequencies(2.0, 1.0, [1.0f64, 4.0, 2.0, 3.0].map(f64::sqrt));
    assert_frequencies(0.0, 1.0, [0.0, 1.0, 0.0, 0.0]);
}

/// Likeliest first; the ends of [0, 1) belong to the first and the last token of the nucleus.
#[test]
fn a_uniform_number_names_one_token() {
    let token = |uniform| choose(&logits(), Sampling { temperature: 1.0, top_p: 1.0 }, uniform);
    let wanted = [(0.0, 1), (0.399, 1), (0.401, 3), (0.699, 3), (0.701, 2), (0.899, 2), (0.901, 0), (1.0 - 2f64.powi(-24), 0)];
    assert_eq!(wanted.map(|(uniform, _)| (uniform, token(uniform))), wanted);
    let ties = choose(&[1.0; 3], Sampling { temperature: 1.0, top_p: 0.1 }, 0.99);
    assert_eq!(ties, 0, "of equals the first");
}
