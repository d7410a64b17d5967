//! Sums the outputs of a token's experts, weighted by its gates, in the order of k; optionally with dropout and the
//! residual. No atomics: a token reads its K slots.

use super::{
    Graph,
    kernels::{combine, combine_cpu},
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
        let params = combine::Params { tokens, experts_per_token, width, has_residual, p: dropout, stream };
        let quarter = width / 16;
        let cpu_params = combine_cpu::Params { tokens, experts_per_token, quarter, has_residual, p: dropout, stream };
        let images = self.capabilities.reads_images(&[out, y]);
        let added = residual.unwrap_or(out); // An absent residual is not read.
        if images {
            use combine_cpu::Forward;
            let grid = [(tokens * quarter).div_ceil(Forward::WORKGROUP), 1, 1];
            self.dispatch_on(Forward { params: cpu_params, has_dropout, out, gate, slot_of, residual: added, y }, grid);
        } else {
            use combine::Forward;
            let grid = [(tokens * width).div_ceil(4 * Forward::WORKGROUP), 1, 1];
            self.dispatch_on(Forward { params, has_dropout, out, gate, slot_of, residual: added, y }, grid);
        }
        self.on_backward(y, move |g, d_y| {
            let d_out = g.like("d_combine", out); // [A, D]
            let d_gate = g.like("d_router.gate", gate); // [N, K]
            if images {
                use combine_cpu::Backward;
                let call = Backward { params: cpu_params, has_dropout, out, gate, assignment_of, d_y, d_out, d_gate };
                g.dispatch_on(call, [assignments.div_ceil(Backward::WORKGROUP), 1, 1]);
            } else {
                g.dispatch_on(combine::Backward { params, has_dropout, out, gate, assignment_of, d_y, d_out, d_gate }, [assignments, 1, 1]);
            }
            g.add_grad(out, d_out);
            g.add_grad(gate, d_gate);
            if let Some(x) = residual {
                g.add_grad(x, d_y);
            }
        });
        y
    }
}
