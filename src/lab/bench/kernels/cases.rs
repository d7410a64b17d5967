//! The kernels that are timed, at sizes of the small models that a CPU trains.

use super::{Fill, Operand, relative_error};
use crate::{
    gpu::Tensor,
    ops::{Activation, AdamW, Form, Graph, GroupedForm, Heads, Muon, MuonScale},
    random::Stream,
};

/// Largest relative L2 error of a matrix product.
pub(super) const PRODUCT_TOLERANCE: f64 = 1e-5;

/// Rows of tokens, their width, the experts' inner width, their number.
const TOKENS: u32 = 512;
const WIDTH: u32 = 128;
const INNER: u32 = 512;
const EXPERTS: u32 = 4;
/// Rows of the experts: two experts per token.
const ROWS: u32 = 2 * TOKENS;

/// Records an op on operands; returns its outputs, without parameters and their gradients.
type RecordOp = Box<dyn Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>>;

/// An op at a given size.
pub struct Case {
    /// The op.
    pub kernel: &'static str,
    /// Its sizes, as shown in records.
    pub shape: String,
    /// Useful floating-point operations.
    pub flops: f64,
    /// Elements read and written, each once.
    pub(super) elements: f64,
    pub(super) operands: Vec<Operand>,
    /// Parameters' gradients are operands.
    pub(super) needs_gradients: bool,
    /// The first output is this product of the first two operands.
    pub(super) product: Option<Product>,
    pub(super) record: RecordOp,
}

impl Case {
    /// Bytes read and written, each tensor once.
    pub fn bytes(&self) -> f64 {
        4.0 * self.elements
    }
}

/// A product that the host can check: `groups` weights, the rows of `a` split among them evenly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    form: Form,
    m: usize,
    n: usize,
    k: usize,
    groups: usize,
}

impl Product {
    /// Relative L2 error of y v against a (b v) in f64, for a random vector v: every element of y counts, at the cost
    /// of three matrix-vector products instead of a matrix product (Freivalds 1977).
    pub(super) fn error(&self, operands: &[Vec<f32>], y: &[f64]) -> f64 {
        let Product { form, m, n, k, groups } = *self;
        let stream = Stream { seed: 7, step: 0, stream: 0 };
        let v: Vec<f64> = (0..n as u32).map(|i| f64::from(stream.normal(i))).collect();
        let (a, b) = (&operands[0], &operands[1]);
        let at = |row: usize, inner: usize| f64::from(if form == Form::Tn { a[inner * m + row] } else { a[row * k + inner] });
        let weight = |group: usize, inner: usize, column: usize| {
            let b = &b[group * n * k..];
            f64::from(if form == Form::Nt { b[column * k + inner] } else { b[inner * n + column] })
        };
        let mut wanted = Vec::with_capacity(m);
        for group in 0..groups {
            let b_v: Vec<f64> = (0..k).map(|i| (0..n).map(|j| weight(group, i, j) * v[j]).sum()).collect();
            let rows = group * m / groups..(group + 1) * m / groups;
            wanted.extend(rows.map(|row| (0..k).map(|i| at(row, i) * b_v[i]).sum::<f64>()));
        }
        let found: Vec<f64> = y.chunks(n).map(|row| row.iter().zip(&v).map(|(y, v)| y * v).sum()).collect();
        relative_error(&found, &wanted)
    }
}

fn operand(shape: &[u32], fill: Fill) -> Operand {
    Operand { shape: shape.to_vec(), fill, is_parameter: false }
}

fn normal(shape: &[u32]) -> Operand {
    operand(shape, Fill::Normal(1.0))
}

fn parameter(shape: &[u32], fill: Fill) -> Operand {
    Operand { is_parameter: true, ..operand(shape, fill) }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for [m, n, k] in [[512, 512, 512], [512, 128, 64]] {
        all.extend([Form::Nt, Form::Nn, Form::Tn].map(|form| matmul(form, m, n, k)));
    }
    all.extend([grouped_matmul(), loss_head(), attention(), muon(), rms_norm(), activation(), adamw()]);
    all
}

pub(super) fn matmul(form: Form, m: u32, n: u32, k: u32) -> Case {
    let (kernel, a, b) = match form {
        Form::Nt => ("matmul nt", [m, k], [n, k]),
        Form::Nn => ("matmul nn", [m, k], [k, n]),
        Form::Tn => ("matmul tn", [k, m], [k, n]),
    };
    Case {
        kernel,
        shape: format!("{m}x{n}x{k}"),
        flops: 2.0 * f64::from(m) * f64::from(n) * f64::from(k),
        elements: f64::from(m * k + k * n + m * n),
        operands: vec![normal(&a), normal(&b)],
        needs_gradients: false,
        product: Some(Product { form, m: m as usize, n: n as usize, k: k as usize, groups: 1 }),
        record: Box::new(move |g, t| vec![g.matmul(t[0], t[1], form)]),
    }
}

fn grouped_matmul() -> Case {
    let offsets = (0..=EXPERTS).map(|e| e * ROWS / EXPERTS).collect();
    let product = Product { form: Form::Nt, m: ROWS as usize, n: INNER as usize, k: WIDTH as usize, groups: EXPERTS as usize };
    Case {
        kernel: "grouped_matmul nt",
        shape: format!("{ROWS} rows, {EXPERTS} experts, {WIDTH}->{INNER}"),
        flops: 2.0 * f64::from(ROWS * INNER * WIDTH),
        elements: f64::from(ROWS * WIDTH + EXPERTS * INNER * WIDTH + ROWS * INNER),
        operands: vec![normal(&[ROWS, WIDTH]), normal(&[EXPERTS, INNER, WIDTH]), operand(&[EXPERTS + 1], Fill::Integers(offsets))],
        needs_gradients: false,
        product: Some(product),
        record: Box::new(|g, t| vec![g.grouped_matmul(t[0], t[1], t[2], GroupedForm::Nt)]),
    }
}

/// Loss and both gradients: three products over the vocabulary.
fn loss_head() -> Case {
    let vocabulary = 4096;
    let targets = (0..TOKENS).map(|i| i.wrapping_mul(2_654_435_761) % vocabulary).collect();
    Case {
        kernel: "loss_head",
        shape: format!("N {TOKENS}, D {WIDTH}, V {vocabulary}"),
        flops: 6.0 * f64::from(TOKENS * WIDTH) * f64::from(vocabulary),
        elements: f64::from(2 * TOKENS * WIDTH + 2 * WIDTH * vocabulary + TOKENS),
        operands: vec![
            normal(&[TOKENS, WIDTH]),
            parameter(&[vocabulary, WIDTH], Fill::Normal(0.1)),
            operand(&[TOKENS], Fill::Integers(targets)),
        ],
        needs_gradients: false,
        product: None,
        record: Box::new(|g, t| {
            let head = g.loss_head(t[0], t[1], t[2], true);
            g.backward(head.loss);
            vec![head.loss, g.grad(t[0]).expect("the loss head gives its input a gradient")]
        }),
    }
}

/// Two products forward, five backward, over the causal half of the scores.
fn attention() -> Case {
    let (sequences, tokens, heads, width) = (4, 128, 4, 32);
    let (rows, columns) = (sequences * tokens, heads * width);
    let heads_of = Heads { tokens, query: heads, key_value: heads, width };
    let scale = 1.0 / (width as f32).sqrt();
    Case {
        kernel: "attention forward+backward",
        shape: format!("B {sequences}, T {tokens}, H {heads}, hd {width}"),
        flops: 7.0 * f64::from(rows * columns) * f64::from(tokens + 1),
        elements: f64::from(8 * rows * columns),
        operands: vec![normal(&[rows, columns]), normal(&[rows, 2 * columns]), normal(&[rows, columns])],
        needs_gradients: false,
        product: None,
        record: Box::new(move |g, t| {
            let y = g.attention(t[0], t[1], heads_of, scale, 0.0);
            g.backward_from(&[(y, t[2])]);
            let grad = |g: &Graph, x| g.grad(x).expect("attention gives its inputs gradients");
            vec![y, grad(g, t[0]), grad(g, t[1])]
        }),
    }
}

/// A whole update. Weights are initially zero, so that the comparison is of the orthogonal matrix.
fn muon() -> Case {
    let (matrices, short, long) = (8, 128, 512);
    let (s, l) = (f64::from(short), f64::from(long));
    let constants = Muon { momentum: 0.95, scale: MuonScale::MaxOneRowsOverCols, weight_decay: 0.0 };
    Case {
        kernel: "muon",
        shape: format!("{matrices} of {short}x{long}"),
        flops: 5.0 * f64::from(matrices) * (4.0 * s * s * l + 2.0 * s * s * s),
        elements: f64::from(5 * matrices * short * long),
        operands: vec![parameter(&[matrices, short, long], Fill::Zero), clip()],
        needs_gradients: true,
        product: None,
        record: Box::new(move |g, t| {
            g.muon(&[t[0].into()], t[1], constants);
            Vec::new()
        }),
    }
}

/// As returned by [`Graph::grad_norm`]: norm 1, factor 1, finite, nothing skipped.
fn clip() -> Operand {
    operand(&[4], Fill::Integers(vec![1.0_f32.to_bits(), 1.0_f32.to_bits(), 1, 0]))
}

fn rms_norm() -> Case {
    Case {
        kernel: "rms_norm forward+backward",
        shape: format!("{TOKENS}x{WIDTH}"),
        flops: 0.0,
        elements: f64::from(5 * TOKENS * WIDTH),
        operands: vec![normal(&[TOKENS, WIDTH]), parameter(&[WIDTH], Fill::Normal(1.0)), normal(&[TOKENS, WIDTH])],
        needs_gradients: false,
        product: None,
        record: Box::new(|g, t| {
            let y = g.rms_norm(t[0], t[1], 1e-6);
            g.backward_from(&[(y, t[2])]);
            vec![y, g.grad(t[0]).expect("a norm gives its input a gradient")]
        }),
    }
}

fn activation() -> Case {
    Case {
        kernel: "activation forward+backward",
        shape: format!("GELU {ROWS}x{INNER}"),
        flops: 0.0,
        elements: f64::from(5 * ROWS * INNER),
        operands: vec![normal(&[ROWS, INNER]), normal(&[ROWS, INNER])],
        needs_gradients: false,
        product: None,
        record: Box::new(|g, t| {
            let y = g.activation(t[0], Activation::Gelu, 0.0);
            g.backward_from(&[(y, t[1])]);
            vec![y, g.grad(t[0]).expect("an activation gives its input a gradient")]
        }),
    }
}

fn adamw() -> Case {
    let (rows, columns) = (4096, WIDTH);
    let constants = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    Case {
        kernel: "adamw",
        shape: format!("{rows}x{columns}"),
        flops: 0.0,
        elements: f64::from(7 * rows * columns),
        operands: vec![parameter(&[rows, columns], Fill::Normal(1.0)), clip()],
        needs_gradients: true,
        product: None,
        record: Box::new(move |g, t| {
            g.adamw(t[0], t[1], constants);
            Vec::new()
        }),
    }
}
