//! Norms of single gradients against sums in f64.

use moelab::gpu::Step;

use crate::{
    harness::{Array, Input},
    update::{on_every_tier, update},
};

/// More than a launch takes; lengths about a workgroup.
const LENGTHS: [u32; 8] = [1, 63, 64, 65, 7, 3072, 129, 300];

#[test]
fn norms_follow_the_sums_and_are_infinite_where_a_gradient_is_not_finite() {
    let parameters: Vec<Input> = (0..LENGTHS.len()).map(|i| Input::normal(&format!("w{i}"), [LENGTHS[i]]).param()).collect();
    let draw = |i: usize| Input::normal(&format!("g{i}"), [LENGTHS[i]]).scaled(0.5 + i as f32).array();
    let cast = |a: Array| a.data.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let names: Vec<String> = (0..LENGTHS.len()).map(|i| format!("w{i}")).collect();
    on_every_tier(
        &parameters,
        |g, t| {
            let norms = g.gradient_norms(t);
            g.output("norms", norms);
            g.grad_norm(t)
        },
        |tier, fixture| {
            let mut gradients: Vec<Vec<f32>> = (0..LENGTHS.len()).map(|i| cast(draw(i))).collect();
            // The last one's squares overflow.
            for (value, place) in [(None, 0), (Some(f32::NAN), 3), (Some(f32::INFINITY), 6), (Some(1e30), 7)] {
                if let Some(value) = value {
                    gradients[place][0] = value;
                }
                let named: Vec<(&str, &[f32])> = names.iter().map(String::as_str).zip(gradients.iter().map(Vec::as_slice)).collect();
                update(fixture, &Step::default(), &named);
                let found = fixture.read_named("norms");
                for (index, gradient) in gradients.iter().enumerate() {
                    let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                    let found = f64::from(found[index]);
                    let is_right = if norm < 1e19 { (found / norm - 1.0).abs() < 1e-6 } else { found == f64::INFINITY };
                    assert!(is_right, "{tier:?}: gradient {index}: wanted {norm}, found {found}");
                }
            }
        },
    );
}
