//! Matrix products: the building block of other ops, and the linear layer with its backward.
//!
//! Weights are stored [out, in], so a linear layer is y = x w^T. Products take rank-2 operands, or rank-3 ones for a
//! batch of independent products in one launch.

use super::{
    Graph,
    kernels::matmul::{AccumulateParts, AddParts, Nn, NnAdd, NnParts, Nt, NtAdd, Params, TILE, Tn, TnAccumulate, TnParts},
};
use crate::gpu::{Role, Shape, Tensor};

/// The layout of the operands of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// a b with a [m, k], b [k, n].
    Nn,
    /// a b^T with a [m, k], b [n, k].
    Nt,
    /// a^T b with a [k, m], b [k, n].
    Tn,
}

/// Terms added to a product: alpha (product) + beta residual + diagonal I.
#[derive(Clone, Copy, Debug)]
pub struct Addend {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the residual.
    pub beta: f32,
    /// The residual, of the product's shape.
    pub residual: Tensor,
    /// Added on the diagonal.
    pub diagonal: f32,
}

/// The fewest elements of k in a part.
const SHORTEST_PART: u32 = 512;

/// Sizes of a product: y [batch, m, n], summed over k.
#[derive(Clone, Copy)]
struct Sizes {
    batch: u32,
    m: u32,
    n: u32,
    k: u32,
    has_batch: bool,
}

impl Sizes {
    fn new(a: Tensor, b: Tensor, form: Form) -> Sizes {
        let wrong = || panic!("matmul {form:?}: {:?} and {:?} do not match", a.shape, b.shape);
        let ([batch, a0, a1], [b_batch, b0, b1]) = match (a.shape.as_slice(), b.shape.as_slice()) {
            (&[a0, a1], &[b0, b1]) => ([1, a0, a1], [1, b0, b1]),
            (&[s, a0, a1], &[t, b0, b1]) => ([s, a0, a1], [t, b0, b1]),
            _ => wrong(),
        };
        let (m, k, b_k, n) = match form {
            Form::Nn => (a0, a1, b0, b1),
            Form::Nt => (a0, a1, b1, b0),
            Form::Tn => (a1, a0, b0, b1),
        };
        if batch != b_batch || k != b_k {
            wrong();
        }
        Sizes { batch, m, n, k, has_batch: a.shape.as_slice().len() == 3 }
    }

    /// Of k in each of the parts that are summed one after the other, where one workgroup per tile of the product would leave most of
    /// the adapter idle: gradients of weights, summed over all tokens, and of hidden states, summed over the vocabulary.
    fn k_part(self, workgroups: u32) -> Option<u32> {
        let tiles = self.batch * self.m.div_ceil(TILE) * self.n.div_ceil(TILE);
        let parts = (workgroups / tiles).min(self.k / SHORTEST_PART);
        (parts > 1 && self.batch == 1).then(|| self.k.div_ceil(parts).next_multiple_of(TILE))
    }

    fn shape(self) -> Shape {
        if self.has_batch { [self.batch, self.m, self.n].into() } else { [self.m, self.n].into() }
    }
}

impl Graph {
    /// The product of `a` and `b` in one of three forms, y [m, n] or [batch, m, n]. Records no backward.
    pub fn matmul(&mut self, a: Tensor, b: Tensor, form: Form) -> Tensor {
        let sizes = Sizes::new(a, b, form);
        let Sizes { m, n, k, .. } = sizes;
        let y = self.tensor("matmul", sizes.shape()); // [batch, m, n]
        let params = Params { m, n, k, ..Default::default() };
        if let Some((params, parts)) = self.product_in_parts(a, b, form) {
            self.dispatch(AddParts { params, parts, y });
            return y;
        }
        match form {
            Form::Nn => self.dispatch(Nn { params, a, b, y }),
            Form::Nt => self.dispatch(Nt { params, a, b, y }),
            Form::Tn => self.dispatch(Tn { params, a, b, y }),
        }
        y
    }

    /// Whether the kernels for the product of `a` and `b` (for the form tn, added to a gradient) read `a` as f16.
    pub(super) fn takes_halves(&self, a: Tensor, b: Tensor, form: Form) -> bool {
        let sizes = Sizes::new(a, b, form);
        let Sizes { m, n, k, .. } = sizes;
        let k_part = sizes.k_part(self.capabilities.workgroups).filter(|_| form != Form::Nt);
        let params = Params { m, n, k, k_part: k_part.unwrap_or_default(), ..Default::default() };
        let y = Tensor { shape: k_part.map_or(sizes.shape(), |k_part| [k.div_ceil(k_part), m, n].into()), ..b };
        match (form, k_part) {
            (Form::Tn, Some(_)) => self.can_dispatch(&TnParts { params, a, b, y }),
            (Form::Tn, None) => self.can_dispatch(&TnAccumulate { params, a, b, d_w: y }),
            (Form::Nn, Some(_)) => self.can_dispatch(&NnParts { params, a, b, y }),
            (Form::Nn, None) => self.can_dispatch(&Nn { params, a, b, y }),
            (Form::Nt, _) => self.can_dispatch(&Nt { params, a, b, y }),
        }
    }

    /// The product over parts of k, [parts, m, n], where that is worth it. k of the form nt is the width of a layer, never long.
    fn product_in_parts(&mut self, a: Tensor, b: Tensor, form: Form) -> Option<(Params, Tensor)> {
        let sizes = Sizes::new(a, b, form);
        let Sizes { m, n, k, .. } = sizes;
        let k_part = sizes.k_part(self.capabilities.workgroups).filter(|_| form != Form::Nt)?;
        let params = Params { m, n, k, k_part, ..Default::default() };
        let y = self.tensor("matmul.parts", [k.div_ceil(k_part), m, n]);
        match form {
            Form::Tn => self.dispatch(TnParts { params, a, b, y }),
            _ => self.dispatch(NnParts { params, a, b, y }),
        }
        Some((params, y))
    }

    /// Like [`Graph::matmul`], with additional terms; only for the forms nn and nt. Records no backward.
    ///
    /// # Panics
    /// For the form tn, which no op needs.
    pub fn matmul_add(&mut self, a: Tensor, b: Tensor, form: Form, addend: Addend) -> Tensor {
        let sizes = Sizes::new(a, b, form);
        let Sizes { m, n, k, .. } = sizes;
        let Addend { alpha, beta, residual, diagonal } = addend;
        assert_eq!(residual.shape.len(), sizes.shape().len(), "matmul_add: residual {:?} for {:?}", residual.shape, sizes.shape());
        let y = self.tensor("matmul_add", sizes.shape()); // [batch, m, n]
        let params = Params { m, n, k, alpha, beta, diagonal, ..Default::default() };
        match form {
            Form::Nn => self.dispatch(NnAdd { params, a, b, y, residual }),
            Form::Nt => self.dispatch(NtAdd { params, a, b, y, residual }),
            Form::Tn => panic!("matmul_add: there is no form tn"),
        }
        y
    }

    /// d_w += a^T b, into a parameter's gradient.
    pub fn matmul_accumulate(&mut self, a: Tensor, b: Tensor, d_w: Tensor) {
        let sizes = Sizes::new(a, b, Form::Tn);
        let Sizes { m, n, k, .. } = sizes;
        assert_eq!(d_w.shape.len(), sizes.shape().len(), "matmul_accumulate: d_w {:?} for {:?}", d_w.shape, sizes.shape());
        if let Some((_, parts)) = self.product_in_parts(a, b, Form::Tn) {
            self.accumulate_parts(parts, d_w);
            return;
        }
        let params = Params { m, n, k, ..Default::default() };
        self.dispatch(TnAccumulate { params, a, b, d_w });
    }

    /// d_w [m, n] += the sum of `parts` [parts, m, n] in order, into a parameter's gradient.
    pub(super) fn accumulate_parts(&mut self, parts: Tensor, d_w: Tensor) {
        let [_, m, n] = parts.shape.dims("accumulate_parts");
        self.dispatch(AccumulateParts { params: Params { m, n, ..Default::default() }, parts, d_w });
    }

    /// A linear layer without bias: `x` [.., in] times `w` [out, in] transposed, y [.., out].
    pub fn linear(&mut self, x: Tensor, w: Tensor) -> Tensor {
        let [rows, _] = x.shape.matrix("linear x"); // N, in
        let y = self.matmul(flat(x), flat(w), Form::Nt); // [N, out]
        self.linear_backward(x, w, y, None);
        with_last(y, x, rows)
    }

    /// [`Graph::linear`] plus `residual` [.., out] in one kernel.
    pub fn linear_add(&mut self, x: Tensor, w: Tensor, residual: Tensor) -> Tensor {
        let [rows, _] = x.shape.matrix("linear_add x"); // N, in
        let addend = Addend { alpha: 1.0, beta: 1.0, residual, diagonal: 0.0 };
        let y = self.matmul_add(flat(x), flat(w), Form::Nt, addend); // [N, out]
        self.linear_backward(x, w, y, Some(residual));
        with_last(y, x, rows)
    }

    fn linear_backward(&mut self, x: Tensor, w: Tensor, y: Tensor, residual: Option<Tensor>) {
        self.on_backward(y, move |g, d_y| {
            if g.wants_grad(x) {
                let d_x = g.matmul(d_y, flat(w), Form::Nn); // [N, in]
                g.add_grad(x, d_x);
            }
            g.weight_gradient(d_y, x, w);
            if let Some(residual) = residual.filter(|r| g.wants_grad(*r)) {
                g.add_grad(residual, d_y);
            }
        });
    }

    /// Adds the gradient of the weights `w` [out, in] that have made the rows of `d_y` [N, out] from those of `x` [.., in].
    pub(super) fn weight_gradient(&mut self, d_y: Tensor, x: Tensor, w: Tensor) {
        let x = if self.wants_grad(w) { self.saved(x) } else { x };
        if self.program().tensor(w.id).role == Role::Parameter {
            let d_w = self.param_grad(w); // [out, in]
            self.matmul_accumulate(d_y, flat(x), d_w);
        } else if self.wants_grad(w) {
            let d_w = self.matmul(d_y, flat(x), Form::Tn); // [out, in]
            self.add_grad(w, d_w);
        }
    }
}

/// Leading dimensions collapsed into one.
fn flat(t: Tensor) -> Tensor {
    t.reshape(t.shape.matrix("linear"))
}

/// `y` [N, out] with the leading dimensions of `x` [.., in].
fn with_last(y: Tensor, x: Tensor, rows: u32) -> Tensor {
    let mut dims = x.shape.as_slice().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = y.shape.len() / rows;
    }
    y.reshape(dims.as_slice())
}
