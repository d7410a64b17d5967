//! Tensors rounded to f16, for kernels with f16 operands.

use super::{Graph, kernels::halves::Round};
use crate::gpu::{DType, Role, Tensor};

impl Graph {
    /// The elements of an f32 tensor rounded to f16 (to even), of its shape: once after its last write. Weights are rounded once in a
    /// micro-batch, for forward and backward: 6 bytes of traffic a weight.
    pub(super) fn halves(&mut self, x: Tensor) -> Tensor {
        if let Some(known) = self.halves.get(&x.id) {
            return known.reshape(x.shape);
        }
        let name = format!("{}.f16", self.program().tensor(x.id).name);
        let y = self.create(&name, x.shape, DType::F16, Role::Activation);
        self.dispatch(Round { x, y });
        self.halves.insert(x.id, y);
        y
    }
}
