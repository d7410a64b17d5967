//! The self-test of products on cooperative matrices, which drivers and compilers still get wrong: numbers of few bits, whose sums are
//! exact, in every form and with every shape of tile, and rows that no product may touch.

use super::{Form, Graph, GroupedForm};
use crate::{
    gpu::{Capabilities, DType, Device, GpuError, Memory, Plan, PlanOptions, Segment, Step, Tensor},
    random::Stream,
};

/// (m, n, k): ragged; and enough tiles for the larger ones.
const SIZES: [[u32; 3]; 3] = [[136, 200, 104], [1536, 1408, 32], [1536, 2816, 32]];
/// Rows of `y` that are compared with the host.
const ROWS: u32 = 8;

/// Whether an adapter with these capabilities multiplies correctly.
///
/// # Errors
/// The first wrong result, or an error of the device.
pub fn self_test(device: &Device, capabilities: Capabilities) -> Result<(), GpuError> {
    for size in SIZES {
        for form in [Form::Nt, Form::Nn, Form::Tn] {
            products(device, capabilities, size, form)?;
        }
    }
    grouped(device, capabilities)
}

fn wrong(device: &Device, what: String) -> GpuError {
    GpuError::NoMatrices { adapter: device.adapter.name.clone(), reason: format!("fail the self-test: {what}") }
}

/// Whole numbers from -4 to 4, but for 0; for operands that are split with a low half, of -4 to 4 times 2^-15.
fn numbers(capabilities: Capabilities, stream: u32, count: u32) -> Vec<f32> {
    let stream = Stream { seed: 1, step: 0, stream };
    let number = |bits: u32| [-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0][bits as usize % 8];
    let low = if capabilities.splits_operands { 1.0 / 32_768.0 } else { 0.0 };
    (0..count).map(|i| number(stream.bits(i)[0]) + low * number(stream.bits(i)[1])).collect()
}

/// The product of two of these, without that of their low halves.
fn term(left: f32, right: f32) -> f64 {
    let low = |x: f32| f64::from(x - x.round());
    f64::from(left) * f64::from(right) - low(left) * low(right)
}

/// Runs a recorded product on poisoned memory.
fn run(device: &Device, mut g: Graph, inputs: &[(Tensor, &[u8])], y: Tensor) -> Result<Vec<f32>, GpuError> {
    g.output("y", y);
    let (program, mut memory) = (g.finish(), Memory::default());
    let plan = Plan::compile(device, &program, &mut memory, PlanOptions::default())?;
    plan.poison(device);
    for (tensor, bytes) in inputs {
        plan.write(device, tensor.id, bytes);
    }
    plan.submit(device, &mut memory, &Step::default(), &[Segment::Micro])?;
    Ok(plan.download(device, &[y.id]).wait(device)?.first().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).unwrap_or_default())
}

fn products(device: &Device, capabilities: Capabilities, [m, n, k]: [u32; 3], form: Form) -> Result<(), GpuError> {
    let mut g = Graph::new(capabilities);
    let (a_shape, b_shape) = match form {
        Form::Nt => ([m, k], [n, k]),
        Form::Nn => ([m, k], [k, n]),
        Form::Tn => ([k, m], [k, n]),
    };
    let (a, b) = (g.input("a", a_shape, DType::F32), g.input("b", b_shape, DType::F32));
    let y = g.matmul(a, b, form);
    let (left, right) = (numbers(capabilities, 1, m * k), numbers(capabilities, 2, n * k));
    let found = run(device, g, &[(a, bytemuck::cast_slice(&left)), (b, bytemuck::cast_slice(&right))], y)?;
    for row in (0..ROWS).map(|i| i * (m - 1) / (ROWS - 1)) {
        for column in 0..n {
            let a_at = |l: u32| left[if form == Form::Tn { l * m + row } else { row * k + l } as usize];
            let b_at = |l: u32| right[if form == Form::Nt { column * k + l } else { l * n + column } as usize];
            let wanted = (0..k).map(|l| term(a_at(l), b_at(l))).sum::<f64>() as f32;
            let found = found.get((row * n + column) as usize).copied().unwrap_or(f32::NAN);
            if found != wanted {
                return Err(wrong(
                    device,
                    format!("{form:?} of {m}x{n}x{k}, row {row}, column {column}: expected {wanted}, found {found}"),
                ));
            }
        }
    }
    Ok(())
}

/// Experts of no, one and several tiles of rows; the rows after the last expert's keep what was there.
fn grouped(device: &Device, capabilities: Capabilities) -> Result<(), GpuError> {
    let (rows, n, k, offsets) = (160, 72, 40, [0_u32, 37, 37, 101, 103]);
    let experts = offsets.len() as u32 - 1;
    let mut g = Graph::new(capabilities);
    let (x, w) = (g.input("x", [rows, k], DType::F32), g.input("w", [experts, n, k], DType::F32));
    let segments = g.input("offsets", [experts + 1], DType::U32);
    let y = g.grouped_matmul(x, w, segments, GroupedForm::Nt);
    let (left, right) = (numbers(capabilities, 1, rows * k), numbers(capabilities, 2, experts * n * k));
    let inputs = [(x, bytemuck::cast_slice(&left)), (w, bytemuck::cast_slice(&right)), (segments, bytemuck::cast_slice(&offsets))];
    let found = run(device, g, &inputs, y)?;
    for (index, found) in found.iter().enumerate() {
        let (row, column) = (index as u32 / n, index as u32 % n);
        let Some(expert) = (0..experts).find(|e| (offsets[*e as usize]..offsets[*e as usize + 1]).contains(&row)) else {
            if !found.is_nan() {
                return Err(wrong(device, format!("row {row} belongs to no expert and was written: {found}")));
            }
            continue;
        };
        let at = |l: u32| term(left[(row * k + l) as usize], right[((expert * n + column) * k + l) as usize]);
        let wanted = (0..k).map(at).sum::<f64>() as f32;
        if *found != wanted {
            return Err(wrong(device, format!("expert {expert}, row {row}, column {column}: expected {wanted}, found {found}")));
        }
    }
    Ok(())
}
