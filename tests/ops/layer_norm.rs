//! Layer norm against its twin.

use crate::{
    elementwise::sum,
    harness::{Array, Case, Input, catches, check, device},
};

pub fn twin(x: &Array, w: &Array, b: &Array, eps: f64) -> Array {
    let mut y = Array::zeros(x.shape.clone());
    for (row, out) in x.rows().zip(y.data.chunks_mut(x.width())) {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
        for (i, out) in out.iter_mut().enumerate() {
            *out = (row[i] - mean) / (variance + eps).sqrt() * w.data[i] + b.data[i];
        }
    }
    y
}

fn inputs([rows, width]: [u32; 2]) -> [Input; 3] {
    [Input::normal("x", [rows, width]), Input::normal("w", [width]).param(), Input::normal("b", [width]).param()]
}

#[test]
fn follows_the_twin() {
    let blocks = [[7, 31], [8, 32], [9, 300], [261, 20]]; // of a workgroup's rows and lanes, and of as many as meet in a column
    for shape in [[1, 1], [1, 7], [3, 48], [33, 48], [5, 64], [67, 131], [129, 64], [19, 192]].into_iter().chain(blocks) {
        check(
            &format!("layer_norm {shape:?}"),
            &inputs(shape),
            |g, t| vec![g.layer_norm(t[0], t[1], t[2], 1e-5)],
            |a| vec![twin(&a[0], &a[1], &a[2], f64::from(1e-5_f32))],
        );
    }
}

#[test]
fn a_large_mean_does_not_hide_the_variance() {
    for width in [48, 64] {
        let values: Vec<f32> = (0..7 * width).map(|i| 1000.0 + (i * i % 31) as f32 / 8.0).collect(); // exact in f32
        let [_, w, b] = inputs([7, width]);
        let case = Case::new(format!("layer_norm about 1000, width {width}"));
        case.tolerance(1e-4, "a mean of 1000 is itself rounded at 3e-5").check(
            &[Input::values("x", [7, width], values), w, b],
            |g, t| vec![g.layer_norm(t[0], t[1], t[2], 1e-5)],
            |a| vec![twin(&a[0], &a[1], &a[2], f64::from(1e-5_f32))],
        );
    }
}

#[test]
fn adds_the_gradient_of_a_residual_connection() {
    for shape in [[1, 3], [13, 48], [9, 64], [67, 128]] {
        check(
            &format!("residual layer_norm {shape:?}"),
            &inputs(shape),
            |g, t| {
                let y = g.layer_norm(t[0], t[1], t[2], 1e-3);
                vec![g.add(t[0], y)]
            },
            |a| vec![sum(&a[0], &twin(&a[0], &a[1], &a[2], f64::from(1e-3_f32)))],
        );
        two_norms(Case::new(format!("two layer_norms {shape:?}")), shape).unwrap();
    }
}

/// Two norms of one x with one w and b: the second takes what the first has handed over, and d_w and d_b accumulate.
fn two_norms(case: Case, shape: [u32; 2]) -> Result<(), String> {
    case.try_check(
        &inputs(shape),
        |g, t| {
            let y = g.layer_norm(t[0], t[1], t[2], 1e-3);
            let z = g.layer_norm(t[0], t[1], t[2], 1.0);
            vec![g.add(y, z)]
        },
        |a| {
            let norm = |eps: f32| twin(&a[0], &a[1], &a[2], f64::from(eps));
            vec![sum(&norm(1e-3), &norm(1.0))]
        },
    )
}

#[test]
fn catches_mutants_of_the_portable_backward() {
    let mutants = [
        ("layer_norm", "- sh_means[7u].x", ""),
        ("layer_norm", "- u * sh_means[7u].y", ""),
        ("layer_norm", "d[7u] += d_residual", "d[7u] = d_residual"),
        ("layer_norm", "first + 5u < params.rows", "true"),
        ("layer_norm", "block < params.blocks", "block < 1u"),
        ("layer_norm", "block += LANES", "block += params.blocks"),
        ("layer_norm", "sh_column[local + half * COLUMNS]", "0.0"),
        ("layer_norm", "d_w[column] += sh_column[local]", "d_w[column] = sh_column[local]"),
        ("layer_norm", "d_b[column - params.width] += sh_column", "d_b[column - params.width] = sh_column"),
    ];
    catches(&mutants, |case| two_norms(case, [141, 15]));
}

#[test]
fn catches_mutants_of_the_portable_backward_of_rasterisers() {
    if !device().capabilities.images {
        eprintln!("skipped: GPUs have another backward");
        return;
    }
    let mutants = [
        ("layer_norm", "- means.x", ""),
        ("layer_norm", "- u * means.y", ""),
        ("layer_norm", "d_residual[at] +", ""),
        ("layer_norm", "i < params.blocks * params.width", "i < params.width"),
        ("layer_norm", "d_w[id.x] += sums.x", "d_w[id.x] = sums.x"),
        ("layer_norm", "d_b[id.x] += sums.y", "d_b[id.x] = sums.y"),
    ];
    catches(&mutants, |case| two_norms(case, [67, 15]));
}

#[test]
fn catches_mutants_of_the_cpu_backward() {
    let mutants = [
        ("layer_norm_cpu", "- whole.mean_g -", "-"),
        ("layer_norm_cpu", "- u * whole.mean_gu", ""),
        ("layer_norm_cpu", "residual + input_gradient(column + 3u", "input_gradient(column + 3u"),
        ("layer_norm_cpu", "row < params.rows; row++", "row < params.rows - 1u; row++"),
        ("layer_norm_cpu", "d_w[id.x] += sum_w", "d_w[id.x] = sum_w"),
        ("layer_norm_cpu", "d_b[id.x] += sum_b", "d_b[id.x] = sum_b"),
    ];
    catches(&mutants, |case| two_norms(case, [11, 64]));
}
