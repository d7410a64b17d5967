//! Element by element: residual adds and scaling by a constant.

use super::{
    Graph,
    kernels::{elementwise, elementwise_cpu},
};
use crate::gpu::Tensor;

/// Rows and columns of texels that a workgroup of the CPU kernels owns.
const CPU_TILE: [u32; 2] = [16, 16];

impl Graph {
    /// a + b, of one shape.
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Tensor {
        let y = self.sum("add", a, b);
        self.on_backward(y, move |g, d_y| {
            for operand in [a, b] {
                if g.wants_grad(operand) {
                    g.add_grad(operand, d_y);
                }
            }
        });
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

    /// a + b without a backward: gradients meet here.
    pub(super) fn sum(&mut self, name: &str, a: Tensor, b: Tensor) -> Tensor {
        assert_eq!(a.shape.len(), b.shape.len(), "{name}: {:?} against {:?}", a.shape, b.shape);
        let y = self.like(name, a);
        if self.capabilities.reads_images(&[a, b]) {
            let (params, grid) = cpu_params(a, 0.0);
            self.dispatch_on(elementwise_cpu::Add { params, image_a: a, image_b: b.reshape(a.shape), y }, grid);
        } else {
            let n = a.shape.len();
            let params = elementwise::Params { n, factor: 0.0 };
            self.dispatch_on(elementwise::Add { params, a, b, y }, [n.div_ceil(elementwise::Add::WORKGROUP), 1, 1]);
        }
        y
    }

    fn scaled(&mut self, name: &str, a: Tensor, factor: f32) -> Tensor {
        let y = self.like(name, a);
        if self.capabilities.reads_images(&[a]) {
            let (params, grid) = cpu_params(a, factor);
            self.dispatch_on(elementwise_cpu::Scale { params, image_a: a, y }, grid);
        } else {
            let n = a.shape.len();
            let params = elementwise::Params { n, factor };
            self.dispatch_on(elementwise::Scale { params, a, y }, [n.div_ceil(elementwise::Scale::WORKGROUP), 1, 1]);
        }
        y
    }
}

fn cpu_params(a: Tensor, factor: f32) -> (elementwise_cpu::Params, [u32; 3]) {
    let [rows, width] = a.shape.matrix("elementwise a");
    let texels = width / 4;
    let grid = [texels / CPU_TILE[0], rows.div_ceil(CPU_TILE[1]), 1];
    (elementwise_cpu::Params { rows, texels, factor }, grid)
}
