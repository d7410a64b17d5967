//! Sums of columns that are added to a tensor, against their twin. The gradients that end in them are tested with `add_bias` and
//! `broadcast_rows`, mutants included.

use moelab::gpu::{Capabilities, Tensor};

use crate::harness::{Input, device, run, tiers};

/// 1 in every sum, plus the sums of `x` [rows, width] over rows that are `period` apart.
fn sums(capabilities: Capabilities, [rows, width, period]: [u32; 3]) -> (Vec<f32>, Vec<f64>) {
    let x = Input::normal("x", [rows, width]);
    let mut wanted = vec![1.0; (period * width) as usize];
    for (n, row) in x.array().rows().enumerate() {
        let first = n % period as usize * width as usize;
        wanted[first..].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let ones = Input::values("ones", [period, width], vec![1.0; (period * width) as usize]);
    let found = run(capabilities, &[x, ones], |g, t: &[Tensor]| {
        let sums = g.tensor("sums", [period, width]);
        g.clear(sums);
        g.add_column_sums(t[1], sums, period);
        g.add_column_sums(t[0], sums, period);
        vec![sums]
    });
    (found[0].clone(), wanted)
}

#[test]
fn follows_the_twin() {
    let tiers = tiers(&device()); // not in the loop's head, which would hold the device
    for tier in tiers {
        for shape in [[1, 1, 1], [7, 3, 1], [130, 5, 2], [130, 64, 13], [513, 64, 1], [67, 128, 67], [4097, 33, 1]] {
            let (found, wanted) = sums(tier, shape);
            for (element, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let error = (f64::from(*found) - wanted).abs();
                assert!(error < 1e-6 * f64::from(shape[0]).sqrt() * 10.0, "{tier:?} {shape:?} [{element}]: wanted {wanted}, found {found}");
            }
        }
    }
}
