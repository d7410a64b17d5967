//! Global gradient norm and clip factor against sums in f64, and the watch for values that are not finite.

use moelab::gpu::Step;

use crate::{
    harness::{Array, Input},
    update::{clip, on_every_tier, update},
};

/// More parameters than a launch takes, lengths about a block of either tier; seven of them have images.
const LENGTHS: [u32; 15] = [1, 7, 4095, 4096, 4097, 64, 9001, 3, 8192, 8256, 16_384, 16_448, 8320, 8384, 24_640];

fn parameters() -> Vec<Input> {
    (0..LENGTHS.len()).map(|i| Input::normal(&format!("w{i}"), [LENGTHS[i]]).param()).collect()
}

fn gradients(scale: f32) -> Vec<Vec<f32>> {
    let draw = |i: usize| Input::normal(&format!("g{i}"), [LENGTHS[i]]).scaled(scale).array();
    let cast = |a: Array| a.data.iter().map(|v| *v as f32).collect();
    (0..LENGTHS.len()).map(|i| cast(draw(i))).collect()
}

fn named<'a>(names: &'a [String], gradients: &'a [Vec<f32>]) -> Vec<(&'a str, &'a [f32])> {
    names.iter().map(String::as_str).zip(gradients.iter().map(Vec::as_slice)).collect()
}

fn names() -> Vec<String> {
    (0..LENGTHS.len()).map(|i| format!("w{i}")).collect()
}

#[test]
fn norm_and_factor_follow_the_sum() {
    let (names, scaled, gradients) = (names(), gradients(512.0), gradients(0.5));
    let norm = gradients.iter().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    on_every_tier(
        &parameters(),
        |g, t| g.grad_norm(t),
        |tier, fixture| {
            for (clip_norm, factor) in [(1.0, 1.0 / (norm + 1e-6)), (1e6, 1.0), (0.0, 1.0)] {
                // Scaled gradients have the norm of those that they stand for, and the factor scales them back.
                for (loss_scale_exponent, gradients) in [(0, &gradients), (10, &scaled)] {
                    update(fixture, &Step { clip_norm, loss_scale_exponent, ..Step::default() }, &named(&names, gradients));
                    let (found_norm, found_factor, is_finite, skipped) = clip(fixture);
                    let factor = factor / f64::from(1 << loss_scale_exponent);
                    assert!((f64::from(found_norm) / norm - 1.0).abs() < 1e-6, "{tier:?}: norm {found_norm}, wanted {norm}");
                    assert!((f64::from(found_factor) / factor - 1.0).abs() < 1e-6, "{tier:?}: factor {found_factor}, wanted {factor}");
                    assert!(is_finite && skipped == 0);
                }
            }
        },
    );
}

/// The same gradients twice give the same bits.
#[test]
fn the_order_of_the_sum_is_fixed() {
    let (names, gradients) = (names(), gradients(0.5));
    on_every_tier(
        &parameters(),
        |g, t| g.grad_norm(t),
        |_, fixture| {
            let mut norm = || {
                update(fixture, &Step::default(), &named(&names, &gradients));
                clip(fixture).0.to_bits()
            };
            assert_eq!(norm(), norm());
        },
    );
}

#[test]
fn one_value_that_is_not_finite_is_found_anywhere() {
    let names = names();
    on_every_tier(
        &parameters(),
        |g, t| g.grad_norm(t),
        |_, fixture| {
            let mut wanted_skipped = 0;
            for (value, which, place) in [
                (f32::NAN, 0, 0),
                (f32::INFINITY, 4, 4096),
                (f32::NEG_INFINITY, 8, 8191),
                (f32::NAN, 14, 24_639),
                (f32::INFINITY, 9, 8192),
                (f32::from_bits(0xffc0_0001), 6, 4097),
                (1e30, 1, 3), // Finite, but its square is not.
            ] {
                let mut gradients = gradients(0.5);
                gradients[which][place] = value;
                update(fixture, &Step { clip_norm: 1.0, ..Step::default() }, &named(&names, &gradients));
                wanted_skipped += 1;
                let (norm, factor, is_finite, skipped) = clip(fixture);
                assert!(norm.is_infinite() && factor == 0.0 && !is_finite, "{value} at {place} of w{which}: {norm} {factor}");
                assert_eq!(skipped, wanted_skipped);
            }
            update(fixture, &Step { clip_norm: 1.0, ..Step::default() }, &named(&names, &gradients(0.5)));
            let (_, _, is_finite, skipped) = clip(fixture);
            assert!(is_finite && skipped == wanted_skipped);
        },
    );
}
