//! Activation functions of an FFN, gated (Shazeer, arXiv 2002.05202) or not, with the dropout of its inner layer fused.
//! Saves nothing: backward recomputes from the input and draws the mask again.

use super::{
    Graph,
    kernels::{activation, activation_cpu},
};
use crate::{choices::Activation, gpu::Tensor};

/// `kind` of the function of a gate, 1 / (1 + exp(-x)), in `shaders/lib/activation.wgsl`.
const SIGMOID: u32 = 5;

/// `kind` of a function there.
fn kind_of(f: Activation) -> u32 {
    match f {
        Activation::Silu => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::ReluSquared => 3,
        Activation::Relu => 4,
    }
}

impl Graph {
    /// dropout(f(`x`)), of `x`'s shape; `dropout` is the probability of zero.
    pub fn activation(&mut self, x: Tensor, f: Activation, dropout: f32) -> Tensor {
        let Launch { kind, has_dropout, params, cpu_params, grid, images } = self.launch(x, kind_of(f), dropout);
        let y = self.like("activation", x);
        if images {
            self.dispatch_on(activation_cpu::Forward { params: cpu_params, kind, has_dropout, x, y }, grid);
        } else {
            self.dispatch_on(activation::Forward { params, kind, has_dropout, x, y }, grid);
        }
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_activation", x);
            if images {
                g.dispatch_on(activation_cpu::Backward { params: cpu_params, kind, has_dropout, x, d_y, d_x }, grid);
            } else {
                g.dispatch_on(activation::Backward { params, kind, has_dropout, x, d_y, d_x }, grid);
            }
            g.add_grad(x, d_x);
        });
        y
    }

    /// dropout(f(`gate`) * `up`), all of one shape; `dropout` is the probability of zero.
    pub fn gated_activation(&mut self, gate: Tensor, up: Tensor, f: Activation, dropout: f32) -> Tensor {
        self.gated(gate, up, kind_of(f), dropout)
    }

    fn gated(&mut self, gate: Tensor, up: Tensor, kind: u32, dropout: f32) -> Tensor {
        assert_eq!(gate.shape, up.shape, "gated_activation: gate {:?} against up {:?}", gate.shape, up.shape);
        let Launch { kind, has_dropout, params, cpu_params, grid, images } = self.launch(gate, kind, dropout);
        let y = self.like("gated_activation", up);
        if images {
            self.dispatch_on(activation_cpu::ForwardGated { params: cpu_params, kind, has_dropout, x: gate, up, y }, grid);
        } else {
            self.dispatch_on(activation::ForwardGated { params, kind, has_dropout, x: gate, up, y }, grid);
        }
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_activation.gate", gate);
            let d_up = g.like("d_activation.up", up);
            if images {
                g.dispatch_on(activation_cpu::BackwardGated { params: cpu_params, kind, has_dropout, x: gate, up, d_y, d_x, d_up }, grid);
            } else {
                g.dispatch_on(activation::BackwardGated { params, kind, has_dropout, x: gate, up, d_y, d_x, d_up }, grid);
            }
            g.add_grad(gate, d_x);
            g.add_grad(up, d_up);
        });
        y
    }

    /// `x` sigmoid(`gate`), of one shape: an output gate.
    pub fn sigmoid_gate(&mut self, x: Tensor, gate: Tensor) -> Tensor {
        self.gated(gate, x, SIGMOID, 0.0)
    }

    fn launch(&mut self, x: Tensor, kind: u32, p: f32) -> Launch {
        assert!((0.0..1.0).contains(&p), "activation: dropout {p}, wanted 0 <= p < 1");
        let [rows, width] = x.shape.matrix("activation x");
        let n = x.shape.len();
        let stream = if p > 0.0 { self.next_stream() } else { 0 };
        let images = self.capabilities.reads_images(&[x]);
        Launch {
            kind,
            has_dropout: (p > 0.0).into(),
            params: activation::Params { n, p, stream },
            cpu_params: activation_cpu::Params { rows, texels: width / 4, p, stream },
            grid: match images {
                true => [width.div_ceil(64), rows.div_ceil(16), 1], // 16 texels of 16 rows a workgroup.
                false => [n.div_ceil(4 * activation::Forward::WORKGROUP), 1, 1], // Four elements an invocation.
            },
            images,
        }
    }
}

/// What every launch over one inner layer has in common.
#[derive(Clone, Copy)]
struct Launch {
    kind: u32,
    has_dropout: u32,
    params: activation::Params,
    cpu_params: activation_cpu::Params,
    grid: [u32; 3],
    images: bool,
}
