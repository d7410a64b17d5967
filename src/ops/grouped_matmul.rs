//! Linear layers of E experts over rows sorted by expert.
//!
//! `offsets` u32 [E + 1] lives on the GPU: the rows `offsets[e]..offsets[e + 1]` belong to expert e, `offsets[0]` is 0
//! and `offsets[E]` the number of rows A. Segments may be empty. As their lengths are not known to the host, the grid has
//! the maximum number of tiles, ceil(A / tile) + E, and those beyond the last return at once: no indirect
//! dispatch, no padding of rows.

use super::{
    Graph,
    kernels::grouped_matmul::{Nn, Nt, Params, TnAccumulate},
};
use crate::gpu::{DType, Role, Tensor};

/// The kind of product with an expert's weights [out, in].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupedForm {
    /// `a[r] w[e]^T`, a [A, in]: the layer.
    Nt,
    /// `a[r] w[e]`, a [A, out]: the gradient of its input.
    Nn,
}

impl Graph {
    /// Multiplies every row of `a` by the weights `w` [E, out, in] of its expert, y [A, out] or [A, in]. Records no backward.
    pub fn grouped_matmul(&mut self, a: Tensor, w: Tensor, offsets: Tensor, form: GroupedForm) -> Tensor {
        let [rows, k] = a.shape.matrix("grouped_matmul a"); // A, in or out
        let [experts, out, inner] = w.shape.dims("grouped_matmul w");
        let (n, w_k) = if form == GroupedForm::Nt { (out, inner) } else { (inner, out) };
        assert_eq!(k, w_k, "grouped_matmul {form:?}: a {:?} against w {:?}", a.shape, w.shape);
        check_offsets(offsets, experts);
        let y = self.tensor("grouped_matmul", [rows, n]); // [A, n]
        let params = Params { experts, n, k };
        match form {
            GroupedForm::Nt => self.dispatch(Nt { params, a, w, offsets, y }),
            GroupedForm::Nn => self.dispatch(Nn { params, a, w, offsets, y }),
        }
        y
    }

    /// `d_w[e] += sum over the rows r of expert e of d_y[r]^T x[r]`: d_y [A, out], x [A, in], d_w [E, out, in].
    pub fn grouped_matmul_accumulate(&mut self, d_y: Tensor, x: Tensor, offsets: Tensor, d_w: Tensor) {
        let [rows, k] = d_y.shape.matrix("grouped_matmul_accumulate d_y"); // A, out
        let [x_rows, n] = x.shape.matrix("grouped_matmul_accumulate x"); // A, in
        let [experts, out, inner] = d_w.shape.dims("grouped_matmul_accumulate d_w");
        assert_eq!(
            [rows, out, inner],
            [x_rows, k, n],
            "grouped_matmul_accumulate: d_y {:?}, x {:?}, d_w {:?}",
            d_y.shape,
            x.shape,
            d_w.shape
        );
        check_offsets(offsets, experts);
        self.dispatch(TnAccumulate { params: Params { experts, n, k }, a: d_y, b: x, offsets, d_w });
    }

    /// A linear layer for each expert: row r of `x` [A, in] times `w[e]` [out, in] transposed, y [A, out].
    pub fn grouped_linear(&mut self, x: Tensor, w: Tensor, offsets: Tensor) -> Tensor {
        let y = self.grouped_matmul(x, w, offsets, GroupedForm::Nt); // [A, out]
        self.on_backward(y, move |g, d_y| {
            if g.wants_grad(x) {
                let d_x = g.grouped_matmul(d_y, w, offsets, GroupedForm::Nn); // [A, in]
                g.add_grad(x, d_x);
            }
            if g.program().tensor(w.id).role == Role::Parameter {
                let d_w = g.param_grad(w); // [E, out, in]
                g.grouped_matmul_accumulate(d_y, x, offsets, d_w);
            } else if g.wants_grad(w) {
                let d_w = g.like("d_grouped_linear.w", w); // [E, out, in]
                g.clear(d_w);
                g.grouped_matmul_accumulate(d_y, x, offsets, d_w);
                g.add_grad(w, d_w);
            }
        });
        y
    }
}

fn check_offsets(offsets: Tensor, experts: u32) {
    let is_right = offsets.dtype == DType::U32 && offsets.shape.len() == experts + 1;
    assert!(is_right, "grouped_matmul: offsets {:?} {} for {experts} experts", offsets.shape, offsets.dtype.name());
}
