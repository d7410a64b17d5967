//! Activation functions of an FFN, gated (Shazeer, arXiv 2002.05202) or not, with the dropout of its inner layer fused.
//! Saves nothing: backward recomputes from the input and regenerates the mask.

use super::{
    Graph,
    elementwise::Rows,
    kernels::activation::{Backward, BackwardGated, Forward, ForwardGated, GELU, GELU_TANH, Params, RELU, RELU_SQUARED, SIGMOID, SILU},
};
use crate::{choices::Activation, gpu::Tensor};

/// `kind` of a function in `shaders/lib/activation.wgsl`.
fn kind_of(f: Activation) -> u32 {
    match f {
        Activation::Silu => SILU,
        Activation::Gelu => GELU,
        Activation::GeluTanh => GELU_TANH,
        Activation::ReluSquared => RELU_SQUARED,
        Activation::Relu => RELU,
    }
}

impl Graph {
    /// dropout(f(`x`)), of `x`'s shape; `dropout` is the probability of zero.
    pub fn activation(&mut self, x: Tensor, f: Activation, dropout: f32) -> Tensor {
        let mask = self.dropout_mask(dropout);
        self.activation_of_part(x, f, mask)
    }

    /// [`Graph::activation`] of a part of a layer.
    pub(super) fn activation_of_part(&mut self, x: Tensor, f: Activation, mask: Mask) -> Tensor {
        let Options { kind, has_dropout, params, rows } = options(x, kind_of(f), mask);
        let y = self.like("activation", x);
        let x_rows = rows.view(x);
        self.dispatch(Forward { params, kind, has_dropout, x: x_rows, y });
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_activation", x);
            g.dispatch(Backward { params, kind, has_dropout, x: x_rows, d_y: rows.view(d_y), d_x });
            g.add_grad(x, d_x);
        });
        y
    }

    /// dropout(f(`gate`) * `up`), all of one shape; `dropout` is the probability of zero.
    pub fn gated_activation(&mut self, gate: Tensor, up: Tensor, f: Activation, dropout: f32) -> Tensor {
        let mask = self.dropout_mask(dropout);
        self.gated_activation_of_part(gate, up, f, mask)
    }

    /// [`Graph::gated_activation`] of a part of a layer.
    pub(super) fn gated_activation_of_part(&mut self, gate: Tensor, up: Tensor, f: Activation, mask: Mask) -> Tensor {
        self.gated(gate, up, kind_of(f), mask)
    }

    /// `x` sigmoid(`gate`), of one shape: an output gate.
    pub fn sigmoid_gate(&mut self, x: Tensor, gate: Tensor) -> Tensor {
        let mask = self.dropout_mask(0.0);
        self.gated(gate, x, SIGMOID, mask)
    }

    fn gated(&mut self, gate: Tensor, up: Tensor, kind: u32, mask: Mask) -> Tensor {
        assert_eq!(gate.shape, up.shape, "gated_activation: gate {:?} against up {:?}", gate.shape, up.shape);
        let Options { kind, has_dropout, params, rows } = options(gate, kind, mask);
        let y = self.like("gated_activation", up);
        let (x, up_rows) = (rows.view(gate), rows.view(up));
        self.dispatch(ForwardGated { params, kind, has_dropout, x, up: up_rows, y });
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_activation.gate", gate);
            let d_up = g.like("d_activation.up", up);
            g.dispatch(BackwardGated { params, kind, has_dropout, x, up: up_rows, d_y: rows.view(d_y), d_x, d_up });
            g.add_grad(gate, d_x);
            g.add_grad(up, d_up);
        });
        y
    }

    /// The dropout of a layer, with random numbers of its own.
    pub(super) fn dropout_mask(&mut self, p: f32) -> Mask {
        assert!((0.0..1.0).contains(&p), "activation: dropout {p}, wanted 0 <= p < 1");
        Mask { p, stream: if p > 0.0 { self.next_stream() } else { 0 }, first: 0 }
    }
}

/// Dropout of a part of a layer: parts draw what the whole would.
#[derive(Clone, Copy)]
pub(super) struct Mask {
    /// The probability of zero.
    p: f32,
    stream: u32,
    /// Elements of the layer before the part, a multiple of 4.
    first: u32,
}

impl Mask {
    /// That of the part from element `first` on.
    pub(super) fn from(self, first: u32) -> Mask {
        Mask { first, ..self }
    }
}

fn options(x: Tensor, kind: u32, Mask { p, stream, first }: Mask) -> Options {
    assert!(p == 0.0 || first.is_multiple_of(4), "activation: a part begins at element {first}, wanted a multiple of 4");
    let rows = Rows::of(x);
    Options { kind, has_dropout: (p > 0.0).into(), params: Params { n: x.shape.len(), width: rows.width, p, stream, first }, rows }
}

/// The parameters of every launch over one inner layer.
#[derive(Clone, Copy)]
struct Options {
    kind: u32,
    has_dropout: u32,
    params: Params,
    rows: Rows,
}
