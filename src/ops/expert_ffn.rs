//! The experts' FFN over rows in the experts' order, and the dense FFN of the same form:
//! down(dropout(f(up x))), gated: down(dropout(f(gate x) * up x)).

use super::{
    Activation, Form, Graph, GroupedForm,
    activation::Function,
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

/// The weights that a row of an FFN passes.
#[derive(Clone, Copy)]
enum Layer {
    /// The same for all rows.
    Dense,
    /// Those of its expert, which owns the rows between two of these offsets.
    ByExpert(Tensor),
}

/// An FFN, without its input.
#[derive(Clone, Copy)]
struct Ffn<'a> {
    layer: Layer,
    weights: &'a FfnWeights,
    biases: &'a ExpertBiases,
    inner: Function,
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
        let ffn = Ffn { layer: Layer::ByExpert(offsets), weights, biases, inner: self.function(f, dropout) };
        self.ffn_in_parts(x, ffn, |g, first, rows| Layer::ByExpert(g.segments(offsets, first, rows)))
    }

    /// Passes each row of `x` [.., D] through one FFN. `dropout` acts on the inner layer. As [`Graph::expert_ffn`], in parts if need be.
    pub fn ffn(&mut self, x: Tensor, weights: &FfnWeights, biases: &ExpertBiases, f: Activation, dropout: f32) -> Tensor {
        let ffn = Ffn { layer: Layer::Dense, weights, biases, inner: self.function(f, dropout) };
        self.ffn_in_parts(x, ffn, |_, _, _| Layer::Dense)
    }

    /// `layer_of(first row, rows)` makes the layer of a part.
    fn ffn_in_parts(&mut self, x: Tensor, ffn: Ffn, layer_of: impl Fn(&mut Graph, u32, u32) -> Layer) -> Tensor {
        let [all, _] = x.shape.matrix("ffn x"); // A, D
        let inner_width = ffn.weights.down.shape.last(); // F
        let rows = self.rows_of_parts(all, inner_width);
        let mut outs = Vec::new();
        for (index, x) in self.cut_rows(x, rows).into_iter().enumerate() {
            let first = index as u32 * rows;
            let layer = if rows >= all { ffn.layer } else { layer_of(self, first, rows.min(all - first)) };
            let part = Ffn { layer, inner: ffn.inner.from(first * inner_width), ..ffn };
            // On rasterisers, a second copy of the inner layer to an image costs more than its first computation.
            let out = if self.capabilities.images { self.ffn_that_keeps(x, part) } else { self.ffn_that_recomputes(x, part) };
            outs.push(out); // [A, D]
        }
        self.join_rows(&outs)
    }

    /// An FFN that keeps its inner layer for backward.
    fn ffn_that_keeps(&mut self, x: Tensor, Ffn { layer, weights, biases, inner }: Ffn) -> Tensor {
        let up = self.ffn_layer(x, weights.up, biases.up, layer); // [A, F]
        let gate = weights.gate.map(|w| self.ffn_layer(x, w, biases.gate, layer)); // [A, F]
        let inner = match gate {
            Some(gate) => self.gated_activation_by(gate, up, inner),
            None => self.activation_by(up, inner),
        }; // [A, F]
        self.ffn_layer(inner, weights.down, biases.down, layer)
    }

    /// An FFN whose backward computes its inner layer again: half the memory (gated: a third less), for a few operations an element.
    fn ffn_that_recomputes(&mut self, x: Tensor, Ffn { layer, weights, biases, inner: function }: Ffn) -> Tensor {
        let down = weights.down;
        let gate = weights.gate.map(|w| self.ffn_layer(x, w, biases.gate, layer)); // [A, F]
        let together = match layer {
            Layer::ByExpert(offsets) => self.grouped_linear_activated(x, weights.up, biases.up, offsets, gate, function),
            Layer::Dense => None,
        };
        let (up, inner) = together.unwrap_or_else(|| {
            let up = self.ffn_layer(x, weights.up, biases.up, layer);
            let (argument, factor) = gate.map_or((up, None), |gate| (gate, Some(up)));
            (up, self.activated(argument, factor, function))
        }); // [A, F]
        let (argument, factor) = gate.map_or((up, None), |gate| (gate, Some(up)));
        let y = match layer {
            Layer::Dense => self.matmul(inner, down, Form::Nt),
            Layer::ByExpert(offsets) => self.grouped_matmul(inner, down, offsets, GroupedForm::Nt),
        }; // [A, D]
        self.on_backward(y, move |g, d_y| {
            let again = match layer {
                Layer::Dense => {
                    let d_inner = g.matmul(d_y, down, Form::Nn); // [A, F]
                    g.activated_again(argument, factor, function, d_inner)
                }
                Layer::ByExpert(offsets) => g.grouped_activated_again(d_y, down, offsets, argument, factor, function),
            };
            match layer {
                Layer::Dense => g.weight_gradient(d_y, again.y, down),
                Layer::ByExpert(offsets) => g.grouped_weight_gradient(d_y, again.y, down, offsets),
            }
            g.add_grad(argument, again.d_x);
            if let (Some(factor), Some(d_up)) = (factor, again.d_up) {
                g.add_grad(factor, d_up);
            }
        });
        self.ffn_biased(y, biases.down, layer)
    }

    /// `x` times the weights of a layer, plus its bias.
    fn ffn_layer(&mut self, x: Tensor, w: Tensor, b: Option<Tensor>, layer: Layer) -> Tensor {
        let y = match layer {
            Layer::Dense => self.linear(x, w),
            Layer::ByExpert(offsets) => self.grouped_linear(x, w, offsets),
        };
        self.ffn_biased(y, b, layer)
    }

    fn ffn_biased(&mut self, y: Tensor, b: Option<Tensor>, layer: Layer) -> Tensor {
        let Some(b) = b else { return y };
        match layer {
            Layer::Dense => self.add_bias(y, b),
            Layer::ByExpert(offsets) => self.add_expert_bias(y, b, offsets),
        }
    }

    /// Records `up` = `x` times the weights of each expert plus their bias, and what `function` makes of it (of `gate` and it), in one
    /// launch; `None` if there is no such kernel. The backward is `up`'s alone.
    fn grouped_linear_activated(
        &mut self,
        x: Tensor,
        w: Tensor,
        b: Option<Tensor>,
        offsets: Tensor,
        gate: Option<Tensor>,
        function: Function,
    ) -> Option<(Tensor, Tensor)> {
        let (up, inner) = self.grouped_matmul_activated(x, w, b, offsets, gate, function)?; // [A, F]
        self.grouped_linear_backward(x, w, offsets, up);
        if let Some(b) = b {
            self.expert_bias_backward(b, offsets, up);
        }
        Some((up, inner))
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
        self.on_backward(y, move |g, d_y| g.add_grad(x, d_y));
        self.expert_bias_backward(b, offsets, y);
        y
    }

    /// Adds the gradient of the biases `b` [E, F] in `y` [A, F].
    fn expert_bias_backward(&mut self, b: Tensor, offsets: Tensor, y: Tensor) {
        let [rows, width] = y.shape.matrix("expert_bias y"); // A, F
        self.on_backward(y, move |g, d_y| {
            let d_b = g.param_grad(b); // [E, F]
            g.dispatch(BackwardBias { params: Params { rows, width }, offsets, d_y, d_b });
        });
    }
}
