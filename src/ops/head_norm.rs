//! Root-mean-square norm of every query and key head (QK norm: Henry et al., arXiv 2010.04245; with this norm, Qwen3 and
//! GLM-4.5). Saves the reciprocal root mean square of each head.

use super::{
    Graph, Heads,
    kernels::head_norm::{BLOCK_ROWS, Backward, BackwardWeight, Forward, Params, ReduceWeight},
};
use crate::gpu::Tensor;

impl Graph {
    /// Scales every q and k head of `qkv` [N, (H + 2 KV) hd] to unit root mean square, then by the parameters `w_q` `[hd]`
    /// and `w_k` `[hd]`, each shared by its heads; v heads are unchanged. [`Graph::rope`] follows it.
    pub fn head_norm(&mut self, qkv: Tensor, w_q: Tensor, w_k: Tensor, heads: Heads, eps: f32) -> Tensor {
        let [rows, row_width] = qkv.shape.matrix("head_norm qkv"); // N, (H + 2 KV) hd
        let row_heads = heads.query + 2 * heads.key_value;
        assert_eq!(row_width, row_heads * heads.width, "head_norm: qkv {:?} against {heads:?}", qkv.shape);
        let fits = w_q.shape.len() == heads.width && w_k.shape.len() == heads.width && w_q.id != w_k.id;
        assert!(fits, "head_norm: w_q {:?} and another w_k {:?} against {heads:?}", w_q.shape, w_k.shape);
        let normed_heads = heads.query + heads.key_value;
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let params = Params { rows, row_heads, normed_heads, q_heads: heads.query, width: heads.width, eps, blocks };
        let y = self.like("head_norm", qkv); // [N, (H + 2 KV) hd]
        let r = self.tensor("head_norm.r", [rows, normed_heads]); // [N, H + KV]
        self.dispatch(Forward { params, qkv, w_q, w_k, y, r });
        self.on_backward(y, move |g, d_y| {
            let d_qkv = g.like("d_head_norm", qkv); // [N, (H + 2 KV) hd]
            g.dispatch(Backward { params, qkv, w_q, w_k, r, d_y, d_qkv });
            g.add_grad(qkv, d_qkv);
            let partial = g.tensor("head_norm.partial", [blocks, 2 * heads.width]); // [N / block, 2 hd]
            let (d_w_q, d_w_k) = (g.param_grad(w_q), g.param_grad(w_k)); // [hd], [hd]
            g.dispatch(BackwardWeight { params, qkv, r, d_y, partial });
            g.dispatch(ReduceWeight { params, partial, d_w_q, d_w_k });
        });
        y
    }
}
