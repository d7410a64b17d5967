//! Sums the outputs of a token's experts, weighted by its gates, in the order of k; optionally with dropout and the
//! residual. No atomics: each token reads its K slots.

use super::{
    Graph,
    kernels::combine::{Backward, Forward, Params},
    permute::Permutation,
    router::Routing,
};
use crate::gpu::Tensor;

impl Graph {
    /// `residual` [.., D] + dropout(sum over k of gate * `out`), [N, D] (the shape of the residual if there is one).
    /// `out` [A, D] is in the experts' order; `dropout` is the probability of zero.
    pub fn combine(&mut self, out: Tensor, routing: &Routing, permutation: &Permutation, residual: Option<Tensor>, dropout: f32) -> Tensor {
        let [assignments, width] = out.shape.matrix("combine out"); // A, D
        let [tokens, _, experts_per_token] = routing.dims();
        assert_eq!(assignments, tokens * experts_per_token, "combine: out {:?} for {tokens} tokens", out.shape);
        let y = match residual {
            Some(x) => self.like("combine", x),
            None => self.tensor("combine", [tokens, width]),
        }; // [N, D]
        assert_eq!(y.shape.len(), tokens * width, "combine: residual {:?} against out {:?}", y.shape, out.shape);
        let gate = routing.gate;
        let Permutation { slot_of, assignment_of, .. } = *permutation;
        let stream = if dropout > 0.0 { self.next_stream() } else { 0 };
        let has_dropout = u32::from(dropout > 0.0);
        let has_residual = u32::from(residual.is_some());
        let params = Params { tokens, experts_per_token, width, has_residual, p: dropout, stream };
        let added = residual.unwrap_or(out); // An absent residual is not read.
        self.dispatch(Forward { params, has_dropout, out, gate, slot_of, residual: added, y });
        self.on_backward(y, move |g, d_y| {
            let d_out = g.like("d_combine", out); // [A, D]
            let d_gate = g.like("d_router.gate", gate); // [N, K]
            g.dispatch(Backward { params, has_dropout, saved_out: out, gate, assignment_of, d_y, d_out, d_gate });
            g.add_grad(out, d_out);
            g.add_grad(gate, d_gate);
            if let Some(x) = residual {
                g.add_grad(x, d_y);
            }
        });
        y
    }
}
