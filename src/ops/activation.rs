//! Activation functions of an FFN, gated (Shazeer, arXiv 2002.05202) or not, with the dropout of its inner layer fused.
//! Saves nothing: backward recomputes from the input and regenerates the mask; for an op that needs the result again, it computes that, too.

use super::{
    Graph,
    elementwise::Rows,
    kernels::activation::{
        Backward, BackwardAgain, BackwardGated, BackwardGatedAgain, Forward, ForwardGated, GELU, GELU_TANH, Params, RELU, RELU_SQUARED,
        SIGMOID, SILU,
    },
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
        let function = self.function(f, dropout);
        self.activation_by(x, function)
    }

    /// [`Graph::activation`] of a part of a layer.
    pub(super) fn activation_by(&mut self, x: Tensor, function: Function) -> Tensor {
        let Options { kind, has_dropout, params, rows } = options(x, function);
        let x_rows = rows.view(x);
        let y = self.activated(x, None, function);
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_activation", x);
            g.dispatch(Backward { params, kind, has_dropout, x: x_rows, d_y: rows.view(d_y), d_x });
            g.add_grad(x, d_x);
        });
        y
    }

    /// dropout(f(`gate`) * `up`), all of one shape; `dropout` is the probability of zero.
    pub fn gated_activation(&mut self, gate: Tensor, up: Tensor, f: Activation, dropout: f32) -> Tensor {
        let function = self.function(f, dropout);
        self.gated_activation_by(gate, up, function)
    }

    /// `x` sigmoid(`gate`), of one shape: an output gate.
    pub fn sigmoid_gate(&mut self, x: Tensor, gate: Tensor) -> Tensor {
        self.gated_activation_by(gate, x, Function { kind: SIGMOID, p: 0.0, stream: 0, first: 0 })
    }

    /// [`Graph::gated_activation`] of a part of a layer.
    pub(super) fn gated_activation_by(&mut self, gate: Tensor, up: Tensor, function: Function) -> Tensor {
        let y = self.activated(gate, Some(up), function);
        let Options { kind, has_dropout, params, rows } = options(gate, function);
        let (x, up_rows) = (rows.view(gate), rows.view(up));
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_activation.gate", gate);
            let d_up = g.like("d_activation.up", up);
            g.dispatch(BackwardGated { params, kind, has_dropout, x, up: up_rows, d_y: rows.view(d_y), d_x, d_up });
            g.add_grad(gate, d_x);
            g.add_grad(up, d_up);
        });
        y
    }

    /// The activation of `x` for an op that records the backward of both. If it is gated, `x` is the gate of `up`.
    pub(super) fn activated(&mut self, x: Tensor, up: Option<Tensor>, function: Function) -> Tensor {
        let Options { kind, has_dropout, params, rows } = options(x, function);
        let Some(up) = up else {
            let y = self.like("activation", x);
            self.dispatch(Forward { params, kind, has_dropout, x: rows.view(x), y });
            return y;
        };
        assert_eq!(x.shape, up.shape, "gated_activation: gate {:?} against up {:?}", x.shape, up.shape);
        let y = self.like("gated_activation", up);
        self.dispatch(ForwardGated { params, kind, has_dropout, x: rows.view(x), up: rows.view(up), y });
        y
    }

    /// The gradients of `x`, and of `up` if [`Graph::activated`] was gated, from `d_y`; and its result again.
    pub(super) fn activated_again(&mut self, x: Tensor, up: Option<Tensor>, function: Function, d_y: Tensor) -> Again {
        let Options { kind, has_dropout, params, rows } = options(x, function);
        let again = Again::new(self, x, up);
        let (x, d_y) = (rows.view(x), rows.view(d_y));
        match (up, again) {
            (Some(up), Again { d_x, d_up: Some(d_up), y }) => {
                self.dispatch(BackwardGatedAgain { params, kind, has_dropout, x, up: rows.view(up), d_y, d_x, d_up, y });
            }
            (_, Again { d_x, y, .. }) => self.dispatch(BackwardAgain { params, kind, has_dropout, x, d_y, d_x, y }),
        }
        again
    }

    /// An activation of a whole layer, with random numbers of its own for its dropout.
    pub(super) fn function(&mut self, f: Activation, p: f32) -> Function {
        assert!((0.0..1.0).contains(&p), "activation: dropout {p}, wanted 0 <= p < 1");
        Function { kind: kind_of(f), p, stream: if p > 0.0 { self.next_stream() } else { 0 }, first: 0 }
    }
}

/// What the backward of an activation gives, all of one shape.
#[derive(Clone, Copy)]
pub(super) struct Again {
    /// The gradient of what the function was applied to.
    pub d_x: Tensor,
    /// That of what it was multiplied by, if it was gated.
    pub d_up: Option<Tensor>,
    /// The activation.
    pub y: Tensor,
}

impl Again {
    /// Tensors that are yet to be written.
    pub fn new(g: &mut Graph, x: Tensor, up: Option<Tensor>) -> Again {
        Again { d_x: g.like("d_activation", x), d_up: up.map(|up| g.like("d_activation.up", up)), y: g.like("activation", x) }
    }
}

/// An activation with the dropout of a part of a layer: parts draw what the whole would.
#[derive(Clone, Copy)]
pub(super) struct Function {
    /// Of `shaders/lib/activation.wgsl`.
    pub kind: u32,
    /// The probability of zero.
    pub p: f32,
    pub stream: u32,
    /// Elements of the layer before the part, a multiple of 4.
    pub first: u32,
}

impl Function {
    /// That of the part from element `first` on.
    pub fn from(self, first: u32) -> Function {
        Function { first, ..self }
    }

    /// The constant of kernels that tells whether there is dropout.
    pub fn has_dropout(self) -> u32 {
        (self.p > 0.0).into()
    }
}

fn options(x: Tensor, function: Function) -> Options {
    let Function { kind, p, stream, first } = function;
    assert!(p == 0.0 || first.is_multiple_of(4), "activation: a part begins at element {first}, wanted a multiple of 4");
    let rows = Rows::of(x);
    Options { kind, has_dropout: function.has_dropout(), params: Params { n: x.shape.len(), width: rows.width, p, stream, first }, rows }
}

/// The parameters of every launch over one inner layer.
#[derive(Clone, Copy)]
struct Options {
    kind: u32,
    has_dropout: u32,
    params: Params,
    rows: Rows,
}
