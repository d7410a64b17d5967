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
    /// `dropout` acts on the inner layer. Rows whose inner layer [A, F] the adapter cannot bind whole pass in parts.
    pub fn expert_ffn(
        &mut self,
        x: Tensor,
        offsets: Tensor,
        weights: &FfnWeights,
        biases: &ExpertBiases,
        f: Activation,
        dropout: f32,
    ) -> Tensor {
        self.ffn_in_parts(x, weights, biases, f, dropout, |g, [first, rows], is_whole| {
            let offsets = if is_whole { offsets } else { g.segments(offsets, first, rows) };
            move |g: &mut Graph, x, w, b: Option<Tensor>| {
                let y = g.grouped_linear(x, w, offsets);
                b.map_or(y, |b| g.add_expert_bias(y, b, offsets))
            }
        })
    }

    /// Passes each row of `x` [.., D] through one FFN. `dropout` acts on the inner layer. As [`Graph::expert_ffn`], in parts if need be.
    pub fn ffn(&mut self, x: Tensor, weights: &FfnWeights, biases: &ExpertBiases, f: Activation, dropout: f32) -> Tensor {
        self.ffn_in_parts(x, weights, biases, f, dropout, |_, _, _| {
            |g: &mut Graph, x, w, b: Option<Tensor>| {
                let y = g.linear(x, w);
                b.map_or(y, |b| g.add_bias(y, b))
            }
        })
    }

    /// `layer_of(first row and rows, whether they are all)` makes the layer of a part from its input, weight and bias.
    fn ffn_in_parts<L: Fn(&mut Graph, Tensor, Tensor, Option<Tensor>) -> Tensor>(
        &mut self,
        x: Tensor,
        weights: &FfnWeights,
        biases: &ExpertBiases,
        f: Activation,
        dropout: f32,
        layer_of: impl Fn(&mut Graph, [u32; 2], bool) -> L,
    ) -> Tensor {
        let [all, _] = x.shape.matrix("ffn x"); // A, D
        let inner_width = weights.down.shape.last(); // F
        let rows = self.rows_of_parts(all, inner_width);
        let mask = self.dropout_mask(dropout);
        let mut outs = Vec::new();
        for (index, x) in self.cut_rows(x, rows).into_iter().enumerate() {
            let first = index as u32 * rows;
            let layer = layer_of(self, [first, rows.min(all - first)], rows >= all);
            let mask = mask.from(first * inner_width);
            let up = layer(self, x, weights.up, biases.up); // [A, F]
            let inner = match weights.gate {
                Some(w) => {
                    let gate = layer(self, x, w, biases.gate); // [A, F]
                    self.gated_activation_of_part(gate, up, f, mask)
                }
                None => self.activation_of_part(up, f, mask),
            }; // [A, F]
            outs.push(layer(self, inner, weights.down, biases.down)); // [A, D]
        }
        self.join_rows(&outs)
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
