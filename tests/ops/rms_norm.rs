//! Root-mean-square norm against its twin.

use moelab::{
    gpu::{Capabilities, Command},
    ops::Graph,
};

use crate::{
    elementwise::sum,
    harness::{Array, Case, Input, catches, check, device, run_bytes},
};

pub fn twin(x: &Array, w: &Array, eps: f64) -> Array {
    let mut y = Array::zeros(x.shape.clone());
    for (row, out) in x.rows().zip(y.data.chunks_mut(x.width())) {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        let r = 1.0 / (mean + eps).sqrt();
        for ((o, v), w) in out.iter_mut().zip(row).zip(&w.data) {
            *o = v * r * w;
        }
    }
    y
}

#[test]
fn follows_the_twin() {
    let blocks = [[7, 31], [8, 32], [9, 300], [261, 20]]; // of a workgroup's rows and lanes, and of as many as meet in a column
    for [rows, width] in [[1, 1], [1, 7], [3, 48], [33, 48], [5, 64], [67, 131], [129, 64], [19, 192]].into_iter().chain(blocks) {
        // At width 1 the gradient is eps r^3: with a small eps it is a difference of equal numbers.
        let eps: f32 = if width == 1 { 0.1 } else { 1e-6 };
        check(
            &format!("rms_norm {rows}x{width}"),
            &[Input::normal("x", [rows, width]), Input::normal("w", [width]).param()],
            |g, t| vec![g.rms_norm(t[0], t[1], eps)],
            |a| vec![twin(&a[0], &a[1], f64::from(eps))],
        );
    }
}

#[test]
fn adds_the_gradient_of_a_residual_connection() {
    for [rows, width] in [[1, 3], [13, 48], [9, 64], [67, 128]] {
        let inputs = [Input::normal("x", [rows, width]), Input::normal("w", [width]).param()];
        check(
            &format!("residual rms_norm {rows}x{width}"),
            &inputs,
            |g, t| {
                let y = g.rms_norm(t[0], t[1], 1e-3);
                vec![g.add(t[0], y)]
            },
            |a| vec![sum(&a[0], &twin(&a[0], &a[1], 1e-3))],
        );
        two_norms(Case::new(format!("two rms_norms {rows}x{width}")), [rows, width]).unwrap();
    }
}

/// Two norms of one x with one w: the second takes what the first has handed over, and d_w accumulates.
fn two_norms(case: Case, [rows, width]: [u32; 2]) -> Result<(), String> {
    case.try_check(
        &[Input::normal("x", [rows, width]), Input::normal("w", [width]).param()],
        |g, t| {
            let a = g.rms_norm(t[0], t[1], 1e-3);
            let b = g.rms_norm(t[0], t[1], 1.0);
            vec![g.add(a, b)]
        },
        |a| vec![sum(&twin(&a[0], &a[1], 1e-3), &twin(&a[0], &a[1], 1.0))],
    )
}

#[test]
fn a_constant_gain_gets_no_gradient() {
    for [rows, width] in [[1, 3], [67, 131], [9, 64]] {
        let gain: Vec<f32> = (0..width).map(|i| 0.5 + (i % 3) as f32).collect();
        let w = Array::new([width as usize], gain.iter().map(|v| f64::from(*v)).collect());
        check(
            &format!("rms_norm of constant gain {rows}x{width}"),
            &[Input::normal("x", [rows, width])],
            |g, t| {
                let w = g.constant("w", [width], gain.clone());
                let y = g.rms_norm(t[0], w, 1e-3);
                vec![g.rms_norm(y, w, 1.0)]
            },
            |a| vec![twin(&twin(&a[0], &w, 1e-3), &w, 1.0)],
        );
    }
}

/// A norm of x with a constant gain beside one of its residual connection.
fn constant_gains(case: Case, [rows, width]: [u32; 2]) -> Result<(), String> {
    let ones = Array::new([width as usize], vec![1.0; width as usize]);
    case.try_check(
        &[Input::normal("x", [rows, width])],
        |g, t| {
            let w = g.ones(width);
            let y = g.rms_norm(t[0], w, 1e-3);
            vec![g.add(t[0], y)]
        },
        |a| vec![sum(&a[0], &twin(&a[0], &ones, 1e-3))],
    )
}

/// The sum and its norm, both with readers; `b` may have another shape of as many elements.
fn sum_and_norm(case: Case, [rows, width]: [u32; 2], b: Vec<u32>) -> Result<(), String> {
    case.try_check(
        &[Input::normal("a", [rows, width]), Input::normal("b", b), Input::normal("w", [width]).param()],
        |g, t| {
            let (x, y) = g.add_rms_norm(t[0], t[1], t[2], 1e-3);
            vec![x, y]
        },
        |a| {
            let x = sum(&a[0], &a[1]);
            let y = twin(&x, &a[2], f64::from(1e-3_f32));
            vec![x, y]
        },
    )
}

#[test]
fn the_norm_of_a_sum_follows_the_twin() {
    for [rows, width] in [[1, 1], [1, 7], [3, 48], [7, 64], [8, 64], [9, 64], [67, 131], [19, 192], [9, 300]] {
        for b in [vec![rows, width], vec![rows * width]] {
            sum_and_norm(Case::new(format!("add_rms_norm {rows}x{width}, b {b:?}")), [rows, width], b).unwrap();
        }
    }
}

#[test]
fn the_operands_of_a_sum_get_what_they_want() {
    for [rows, width] in [[13, 48], [9, 64]] {
        let inputs = [Input::normal("x", [rows, width]), Input::normal("w", [width]).param()];
        check(
            &format!("norm of x + x {rows}x{width}"),
            &inputs,
            |g, t| vec![g.add_rms_norm(t[0], t[0], t[1], 1e-3).1],
            |a| vec![twin(&sum(&a[0], &a[0]), &a[1], 1e-3)],
        );
        let frozen = inputs[0].array();
        check(
            &format!("norm of detach(x) + x {rows}x{width}"),
            &inputs,
            |g, t| {
                let constant = g.detach(t[0]);
                let (x, y) = g.add_rms_norm(constant, t[0], t[1], 1e-3);
                vec![x, y]
            },
            |a| {
                let x = sum(&frozen, &a[0]);
                let y = twin(&x, &a[1], 1e-3);
                vec![x, y]
            },
        );
    }
}

/// On GPUs drivers may contract the products and sums of one kernel otherwise than those of another.
#[test]
fn a_rasteriser_computes_the_bits_of_an_add_and_a_norm() {
    let own = device().capabilities;
    if !own.images {
        eprintln!("skipped: not a rasteriser");
        return;
    }
    for [rows, width] in [[13, 32], [67, 131], [131, 64], [9, 256]] {
        let inputs = [Input::normal("a", [rows, width]), Input::normal("b", [rows, width]), Input::normal("w", [width]).param()];
        for tier in [own, Capabilities::CPU, Capabilities::PORTABLE] {
            let apart = run_bytes(tier, &inputs, |g, t| {
                let x = g.add(t[0], t[1]);
                vec![x, g.rms_norm(x, t[2], 1e-6)]
            });
            let fused = run_bytes(tier, &inputs, |g, t| {
                let (x, y) = g.add_rms_norm(t[0], t[1], t[2], 1e-6);
                vec![x, y]
            });
            assert!(apart == fused, "{rows}x{width}, {}", tier.name());
        }
    }
}

/// The kernels of a program on an adapter with `tier`.
fn kernels(tier: Capabilities, record: impl Fn(&mut Graph)) -> Vec<String> {
    let mut g = Graph::new(tier);
    record(&mut g);
    let name = |command: &Command| match command {
        Command::Dispatch(d) => Some(d.kernel.name()),
        _ => None,
    };
    g.finish().micro.iter().filter_map(name).collect()
}

#[test]
fn the_backward_of_a_gpu_is_two_launches() {
    let record = |g: &mut Graph| {
        let (x, w) = (g.leaf("x", [8, 64]), g.param("w", [64]));
        let y = g.rms_norm(x, w, 1e-6);
        g.backward_from(&[(y, x)]);
    };
    assert_eq!(kernels(Capabilities::PORTABLE, record), ["rms_norm.forward", "rms_norm.backward_block", "rms_norm.reduce_blocks"]);
    let of_rasterisers = ["rms_norm_cpu.forward", "rms_norm_cpu.backward", "rms_norm_cpu.backward_weight_in_order"];
    assert_eq!(kernels(Capabilities::CPU, record), of_rasterisers);
}

#[test]
fn a_norm_of_a_sum_is_one_launch() {
    let record = |g: &mut Graph| {
        let (a, b, w) = (g.leaf("a", [8, 64]), g.leaf("b", [8, 64]), g.param("w", [64]));
        g.add_rms_norm(a, b, w, 1e-6);
    };
    assert_eq!(kernels(Capabilities::PORTABLE, record), ["rms_norm.add_forward"]);
    assert_eq!(kernels(Capabilities::CPU, record), ["rms_norm_cpu.add_forward"]);
}

#[test]
fn catches_mutants_of_the_portable_backward() {
    let mutants = [
        ("rms_norm", "- x[at] * sh_mean[7u]", ""),
        ("rms_norm", "r[row] * r[row]", "r[row]"),
        ("rms_norm", "d[7u] += d_residual", "d[7u] = d_residual"),
        ("rms_norm", "first + 5u < params.rows", "true"),
        ("rms_norm", "block < params.blocks", "block < 1u"),
        ("rms_norm", "block += LANES", "block += params.blocks"),
        ("rms_norm", "sh_wide[local + half * COLUMNS]", "0.0"),
        ("rms_norm", "d_w[column] += sh_wide[local]", "d_w[column] = sh_wide[local]"),
    ];
    catches(&mutants, |case| two_norms(case, [141, 15]));
    let mutants = [
        ("rms_norm", "- x[base + i] * mean", ""),
        ("rms_norm", "* scale * scale;", "* scale;"),
        ("rms_norm", "d_residual[base + i] +", ""),
    ];
    catches(&mutants, |case| constant_gains(case, [67, 15]));
}

#[test]
fn catches_mutants_of_the_portable_backward_of_rasterisers() {
    if !device().capabilities.images {
        eprintln!("skipped: GPUs have another backward");
        return;
    }
    let mutants =
        [("rms_norm", "i < params.blocks * params.width", "i < params.width"), ("rms_norm", "d_w[id.x] += sum", "d_w[id.x] = sum")];
    catches(&mutants, |case| two_norms(case, [67, 15]));
}

#[test]
fn catches_mutants_of_the_cpu_backward() {
    let mutants = [
        ("rms_norm_cpu", "- textureLoad(x, at, 0) * mean", ""),
        ("rms_norm_cpu", "* scale * scale;", "* scale;"),
        ("rms_norm_cpu", "residual + input_gradient(column + 3u", "input_gradient(column + 3u"),
        ("rms_norm_cpu", "row < params.rows; row++", "row < params.rows - 1u; row++"),
        ("rms_norm_cpu", "d_w[id.x] += sum", "d_w[id.x] = sum"),
    ];
    catches(&mutants, |case| two_norms(case, [11, 64]));
}

#[test]
fn catches_mutants_of_the_norm_of_a_sum() {
    let mutants = [
        ("rms_norm", "a[base + i] + b[base + i]", "a[base + i]"),
        ("rms_norm", "sum += value * value", "sum += value"),
        ("rms_norm", "added[base + i] = value", "added[base + i] = a[base + i]"),
        ("rms_norm", "y[base + i] = value * scale * w[i]", "y[base + i] = value * scale"),
    ];
    catches(&mutants, |case| sum_and_norm(case, [13, 48], vec![13, 48]));
    let mutants = [
        ("rms_norm_cpu", "textureLoad(a, at, 0) + textureLoad(b, at, 0)", "textureLoad(a, at, 0)"),
        ("rms_norm_cpu", "sum += value * value", "sum += value"),
        ("rms_norm_cpu", "column + 3u] = value;", "column + 3u] = sum;"),
        ("rms_norm_cpu", "column + 3u] = value * scale", "column + 3u] = value"),
    ];
    catches(&mutants, |case| sum_and_norm(case, [11, 64], vec![11, 64]));
}
