//! Element-wise ops: residual adds and scaling by a constant.

use super::{
    Graph,
    kernels::elementwise::{Add, Params, Scale},
};
use crate::gpu::{MAX_IMAGE_SIDE, Tensor, fits_image};

impl Graph {
    /// a + b, of one shape.
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Tensor {
        let y = self.sum("add", a, b);
        self.pass_on_gradient(y, [a, b]);
        y
    }

    /// factor * x.
    pub fn scale(&mut self, x: Tensor, factor: f32) -> Tensor {
        let y = self.scaled("scale", x, factor);
        self.on_backward(y, move |g, d_y| {
            let d_x = g.scaled("d_scale", d_y, factor);
            g.add_grad(x, d_x);
        });
        y
    }

    /// The backward of a sum `y`: the gradient of its operands is its own.
    pub(super) fn pass_on_gradient(&mut self, y: Tensor, operands: [Tensor; 2]) {
        self.on_backward(y, move |g, d_y| {
            for operand in operands {
                if g.wants_grad(operand) {
                    g.add_grad(operand, d_y);
                }
            }
        });
    }

    /// a + b without a backward, for adding gradients.
    pub(super) fn sum(&mut self, name: &str, a: Tensor, b: Tensor) -> Tensor {
        assert_eq!(a.shape.len(), b.shape.len(), "{name}: {:?} against {:?}", a.shape, b.shape);
        let y = self.like(name, a);
        let (n, rows) = (a.shape.len(), Rows::of(a));
        let params = Params { n, width: rows.width, factor: 0.0 };
        self.dispatch(Add { params, a: rows.view(a), b: rows.view(b), y });
        y
    }

    fn scaled(&mut self, name: &str, a: Tensor, factor: f32) -> Tensor {
        let y = self.like(name, a);
        let (n, rows) = (a.shape.len(), Rows::of(a));
        self.dispatch(Scale { params: Params { n, width: rows.width, factor }, a: rows.view(a), y });
        y
    }
}

/// How element-wise kernels view a tensor: as rows of a multiple of 64 elements, of which the last may be short. These are the
/// tensor's own rows if it can have an image with them.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Elements per row.
    pub width: u32,
}

impl Rows {
    pub fn of(x: Tensor) -> Rows {
        if fits_image(x) {
            return Rows { width: x.shape.last() };
        }
        let mut width = 64;
        while x.shape.len() / width > MAX_IMAGE_SIDE {
            width *= 2;
        }
        Rows { width }
    }

    /// A tensor reshaped to these rows, or unchanged if they do not divide it.
    pub fn view(self, t: Tensor) -> Tensor {
        let n = t.shape.len();
        if n.is_multiple_of(self.width) { t.reshape([n / self.width, self.width]) } else { t }
    }
}
