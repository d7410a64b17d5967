//! The experts' FFN over rows in the experts' order, and the dense FFN of the same form:
//! down(dropout(f(up x))), gated: down(dropout(f(gate x) * up x)).

use super::{
    Activation, Graph,
    kernels::expert_ffn::{AddBias, BackwardBias, Params},
};
use crate::gpu::Tensor;

/// Weights of an FFN: [E, F, D] and [E, D, F] for E experts, [F, D] and [D, F] for a dense one.
#[derive(Clone, Copy, Debug)]
pub struct FfnWeights {
    /// D -> F.
    pub up: Tensor,
    /// D -> F, if the FFN is gated.
    pub gate: Option<Tensor>,
    /// F -> D.
    pub down: Tensor,
}

/// Biases of an FFN, each optional: as stated below for E experts, `[F]` and `[D]` for a dense one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpertBiases {
    /// [E, F].
    pub up: Option<Tensor>,
    /// [E, F].
    pub gate: Option<Tensor>,
    /// [E, D].
    pub down: Option<Tensor>,
}

impl Graph {
    /// Passes each row of `x` [A, D] through the FFN of its expert; expert e owns the rows `offsets`_e .. `offsets`_{e+1} - 1.
    /// `dropout` acts on the inner layer.
    pub fn expert_ffn(
        &mut self,
        x: Tensor,
        offsets: Tensor,
        weights: &FfnWeights,
        biases: &ExpertBiases,
        f: Activation,
        dropout: f32,
    ) -> Tensor {
        let layer = |g: &mut Graph, x, w, b: Option<Tensor>| {
            let y = g.grouped_linear(x, w, offsets);
            b.map_or(y, |b| g.add_expert_bias(y, b, offsets))
        };
        let up = layer(self, x, weights.up, biases.up); // [A, F]
        let inner = match weights.gate {
            Some(w) => {
                let gate = layer(self, x, w, biases.gate); // [A, F]
                self.gated_activation(gate, up, f, dropout)
            }
            None => self.activation(up, f, dropout),
        }; // [A, F]
        layer(self, inner, weights.down, biases.down) // [A, D]
    }

    /// Passes each row of `x` [.., D] through one FFN. `dropout` acts on the inner layer.
    pub fn ffn(&mut self, x: Tensor, weights: &FfnWeights, biases: &ExpertBiases, f: Activation, dropout: f32) -> Tensor {
        let layer = |g: &mut Graph, x, w, b: Option<Tensor>| {
            let y = g.linear(x, w);
            b.map_or(y, |b| g.add_bias(y, b))
        };
        let up = layer(self, x, weights.up, biases.up); // [N, F]
        let inner = match weights.gate {
            Some(w) => {
                let gate = layer(self, x, w, biases.gate); // [N, F]
                self.gated_activation(gate, up, f, dropout)
            }
            None => self.activation(up, f, dropout),
        }; // [N, F]
        layer(self, inner, weights.down, biases.down) // [N, D]
    }

    /// `x` [A, F] plus, for each row, the bias of its expert, `b` [E, F].
    pub fn add_expert_bias(&mut self, x: Tensor, b: Tensor, offsets: Tensor) -> Tensor {
        let [rows, width] = x.shape.matrix("add_expert_bias x"); // A, F
        let [experts, b_width] = b.shape.dims("add_expert_bias b");
        assert_eq!(width, b_width, "add_expert_bias: b {:?} against x {:?}", b.shape, x.shape);
        assert_eq!(offsets.shape.len(), experts + 1, "add_expert_bias: offsets {:?} for b {:?}", offsets.shape, b.shape);
        let params = Params { rows, width };
        let y = self.like("expert_bias", x); // [A, F]
        self.dispatch(AddBias { params, x, b, offsets, y });
        self.on_backward(y, move |g, d_y| {
            let d_b = g.param_grad(b); // [E, F]
            g.dispatch(BackwardBias { params, offsets, d_y, d_b });
            g.add_grad(x, d_y);
        });
        y
    }
}
