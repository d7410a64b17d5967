//! Activation functions of an FFN, gated (Shazeer, arXiv 2002.05202) or not, with the dropout of its inner layer fused.
//! Saves nothing: backward recomputes from the input and draws the mask again.

use super::{
    Graph,
    kernels::{activation, activation_cpu},
};
use crate::gpu::Tensor;

/// The function of one element. The values are the `kind` of `shaders/lib/activation.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// x sigmoid(x).
    Silu = 0,
    /// x Phi(x), exact, by erf.
    Gelu = 1,
    /// The tanh approximation of GELU (GPT-2's).
    GeluTanh = 2,
    /// max(x, 0)^2.
    ReluSquared = 3,
    /// max(x, 0).
    Relu = 4,
    /// 1 / (1 + exp(-x)), the function of a gate.
    Sigmoid = 5,
}

impl Graph {
    /// dropout(f(`x`)), of `x`'s shape; `dropout` is the probability of zero.
    pub fn activation(&mut self, x: Tensor, f: Activation, dropout: f32) -> Tensor {
        let Launch { kind, has_dropout, params, cpu_params, grid, images } = self.launch(x, f, dropout);
        let y = self.like("activation", x);
        if images {
            self.dispatch(activation_cpu::Forward { params: cpu_params, kind, has_dropout, x, y }, grid);
        } else {
            self.dispatch(activation::Forward { params, kind, has_dropout, x, y }, grid);
        }
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_activation", x);
            if images {
                g.dispatch(activation_cpu::Backward { params: cpu_params, kind, has_dropout, x, d_y, d_x }, grid);
            } else {
                g.dispatch(activation::Backward { params, kind, has_dropout, x, d_y, d_x }, grid);
            }
            g.add_grad(x, d_x);
        });
        y
    }

    /// dropout(f(`gate`) * `up`), all of one shape; `dropout` is the probability of zero.
    pub fn gated_activation(&mut self, gate: Tensor, up: Tensor, f: Activation, dropout: f32) -> Tensor {
        assert_eq!(gate.shape, up.shape, "gated_activation: gate {:?} against up {:?}", gate.shape, up.shape);
        let Launch { kind, has_dropout, params, cpu_params, grid, images } = self.launch(gate, f, dropout);
        let y = self.like("gated_activation", up);
        if images {
            self.dispatch(activation_cpu::ForwardGated { params: cpu_params, kind, has_dropout, x: gate, up, y }, grid);
        } else {
            self.dispatch(activation::ForwardGated { params, kind, has_dropout, x: gate, up, y }, grid);
        }
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_activation.gate", gate);
            let d_up = g.like("d_activation.up", up);
            if images {
                g.dispatch(activation_cpu::BackwardGated { params: cpu_params, kind, has_dropout, x: gate, up, d_y, d_x, d_up }, grid);
            } else {
                g.dispatch(activation::BackwardGated { params, kind, has_dropout, x: gate, up, d_y, d_x, d_up }, grid);
            }
            g.add_grad(gate, d_x);
            g.add_grad(up, d_up);
        });
        y
    }

    /// `x` sigmoid(`gate`), of one shape: an output gate.
    pub fn sigmoid_gate(&mut self, x: Tensor, gate: Tensor) -> Tensor {
        self.gated_activation(gate, x, Activation::Sigmoid, 0.0)
    }

    fn launch(&mut self, x: Tensor, f: Activation, p: f32) -> Launch {
        assert!((0.0..1.0).contains(&p), "activation: dropout {p}, wanted 0 <= p < 1");
        let [rows, width] = x.shape.matrix("activation x");
        let n = x.shape.len();
        let stream = if p > 0.0 { self.next_stream() } else { 0 };
        let images = self.tier.reads_images(&[x]);
        Launch {
            kind: f as u32,
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
