//! Linear layers of E experts over rows sorted by expert.
//!
//! `offsets` u32 [E + 1] lives on the GPU: the rows `offsets[e]..offsets[e + 1]` belong to expert e, `offsets[0]` is 0
//! and `offsets[E]` the number of rows A. Segments may be empty. As their lengths are not known to the host, the grid has
//! the maximum number of tiles, ceil(A / tile) + E, and those beyond the last return at once: no indirect
//! dispatch, no padding of rows.

use super::{
    Graph,
    activation::{Again, Function},
    kernels::grouped_matmul::{Nn, NnActivated, NnGated, Nt, NtActivated, NtGated, Params, TnAccumulate},
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
        let params = Params { experts, n, k, ..Default::default() };
        match form {
            GroupedForm::Nt => self.dispatch(Nt { params, a, w, offsets, y }),
            GroupedForm::Nn => self.dispatch(Nn { params, a, w, offsets, y }),
        }
        y
    }

    /// `y[r] = a[r] w[e]^T` plus the bias of its expert, and what `function` makes of y (of `gate` and y), both [A, out], in one launch.
    /// `None` if there is no such kernel. Records no backward.
    pub(super) fn grouped_matmul_activated(
        &mut self,
        a: Tensor,
        w: Tensor,
        bias: Option<Tensor>,
        offsets: Tensor,
        gate: Option<Tensor>,
        function: Function,
    ) -> Option<(Tensor, Tensor)> {
        let [rows, _] = a.shape.matrix("grouped_matmul a"); // A, in
        let [_, out, inner] = w.shape.dims("grouped_matmul w");
        let Activated { params, kind, has_dropout } = self.activated_product(w, [out, inner], function)?;
        let params = Params { has_bias: bias.is_some().into(), ..params };
        let bias = bias.unwrap_or(w); // An absent bias is not read.
        let [y, activated] = ["grouped_matmul", "activation"].map(|name| self.tensor(name, [rows, out])); // [A, out]
        let is_recorded = match gate {
            Some(pre) => self.try_dispatch(&NtGated { params, kind, has_dropout, a, w, offsets, y, bias, pre, activated }),
            None => self.try_dispatch(&NtActivated { params, kind, has_dropout, a, w, offsets, y, bias, activated }),
        };
        is_recorded.then_some((y, activated))
    }

    /// [`Graph::activated_again`] of `d_y[r] w[e]`, d_y [A, out]: in one launch if there is such a kernel.
    pub(super) fn grouped_activated_again(
        &mut self,
        d_y: Tensor,
        w: Tensor,
        offsets: Tensor,
        pre: Tensor,
        up: Option<Tensor>,
        function: Function,
    ) -> Again {
        let [_, out, inner] = w.shape.dims("grouped_matmul w");
        if let Some(Activated { params, kind, has_dropout }) = self.activated_product(w, [inner, out], function) {
            let again = Again::new(self, pre, up); // [A, in]
            let (a, y, activated) = (d_y, again.d_x, again.y);
            let is_recorded = match (up, again.d_up) {
                (Some(up), Some(d_up)) => {
                    self.try_dispatch(&NnGated { params, kind, has_dropout, a, w, offsets, y, pre, up, d_up, activated })
                }
                _ => self.try_dispatch(&NnActivated { params, kind, has_dropout, a, w, offsets, y, pre, activated }),
            };
            if is_recorded {
                return again;
            }
        }
        let d_inner = self.grouped_matmul(d_y, w, offsets, GroupedForm::Nn); // [A, in]
        self.activated_again(pre, up, function, d_inner)
    }

    /// What the kernels with an activation have in common, for sizes [n, k]; `None` where products on cooperative matrices or images are
    /// faster by more than a launch.
    fn activated_product(&self, w: Tensor, [n, k]: [u32; 2], function: Function) -> Option<Activated> {
        let [experts, ..] = w.shape.dims::<3>("grouped_matmul w");
        let Function { kind, p, stream, first } = function;
        let params = Params { experts, n, k, has_bias: 0, p, stream, first };
        self.capabilities.multiplies_in_registers().then_some(Activated { params, kind, has_dropout: function.has_dropout() })
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
        let params = Params { experts, n, k, ..Default::default() };
        self.dispatch(TnAccumulate { params, a: d_y, b: x, offsets, d_w });
    }

    /// A linear layer for each expert: row r of `x` [A, in] times `w[e]` [out, in] transposed, y [A, out].
    pub fn grouped_linear(&mut self, x: Tensor, w: Tensor, offsets: Tensor) -> Tensor {
        let y = self.grouped_matmul(x, w, offsets, GroupedForm::Nt); // [A, out]
        self.grouped_linear_backward(x, w, offsets, y);
        y
    }

    /// The backward of [`Graph::grouped_linear`], wherever `y` was computed.
    pub(super) fn grouped_linear_backward(&mut self, x: Tensor, w: Tensor, offsets: Tensor, y: Tensor) {
        self.on_backward(y, move |g, d_y| {
            if g.wants_grad(x) {
                let d_x = g.grouped_matmul(d_y, w, offsets, GroupedForm::Nn); // [A, in]
                g.add_grad(x, d_x);
            }
            g.grouped_weight_gradient(d_y, x, w, offsets);
        });
    }

    /// Adds the gradient of the weights `w` [E, out, in] that have made rows of `d_y` [A, out] from those of `x` [A, in].
    pub(super) fn grouped_weight_gradient(&mut self, d_y: Tensor, x: Tensor, w: Tensor, offsets: Tensor) {
        let x = if self.wants_grad(w) { self.saved(x) } else { x };
        if self.program().tensor(w.id).role == Role::Parameter {
            let d_w = self.param_grad(w); // [E, out, in]
            self.grouped_matmul_accumulate(d_y, x, offsets, d_w);
        } else if self.wants_grad(w) {
            let d_w = self.like("d_grouped_linear.w", w); // [E, out, in]
            self.clear(d_w);
            self.grouped_matmul_accumulate(d_y, x, offsets, d_w);
            self.add_grad(w, d_w);
        }
    }
}

/// The parameters of a product with an activation.
struct Activated {
    params: Params,
    kind: u32,
    has_dropout: u32,
}

fn check_offsets(offsets: Tensor, experts: u32) {
    let is_right = offsets.dtype == DType::U32 && offsets.shape.len() == experts + 1;
    assert!(is_right, "grouped_matmul: offsets {:?} {} for {experts} experts", offsets.shape, offsets.dtype.name());
}
