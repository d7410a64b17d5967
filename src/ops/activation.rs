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
        let Options { kind, has_dropout, params, rows } = self.activation_options(x, kind_of(f), dropout);
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
        self.gated(gate, up, kind_of(f), dropout)
    }

    /// `x` sigmoid(`gate`), of one shape: an output gate.
    pub fn sigmoid_gate(&mut self, x: Tensor, gate: Tensor) -> Tensor {
        self.gated(gate, x, SIGMOID, 0.0)
    }

    fn gated(&mut self, gate: Tensor, up: Tensor, kind: u32, dropout: f32) -> Tensor {
        assert_eq!(gate.shape, up.shape, "gated_activation: gate {:?} against up {:?}", gate.shape, up.shape);
        let Options { kind, has_dropout, params, rows } = self.activation_options(gate, kind, dropout);
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

    fn activation_options(&mut self, x: Tensor, kind: u32, p: f32) -> Options {
        assert!((0.0..1.0).contains(&p), "activation: dropout {p}, wanted 0 <= p < 1");
        let rows = Rows::of(x);
        let stream = if p > 0.0 { self.next_stream() } else { 0 };
        Options { kind, has_dropout: (p > 0.0).into(), params: Params { n: x.shape.len(), width: rows.width, p, stream }, rows }
    }
}

/// The parameters of every launch over one inner layer.
#[derive(Clone, Copy)]
struct Options {
    kind: u32,
    has_dropout: u32,
    params: Params,
    rows: Rows,
}
