//! Tensors as f16, for kernels with f16 operands.

use super::{
    Graph,
    kernels::halves::{Round, Split},
};
use crate::gpu::{DType, Role, Tensor};

impl Graph {
    /// The elements of an f32 tensor as f16, once after its last write: rounded (to even), of its shape, or split into high and low
    /// halves, [2, ..]. Those of weights are made once in a micro-batch, for forward and backward: 6 or 8 bytes of traffic a weight.
    pub(super) fn halves(&mut self, x: Tensor) -> Tensor {
        let splits = self.capabilities.splits_operands;
        if let Some(known) = self.halves.get(&x.id) {
            return if splits { *known } else { known.reshape(x.shape) };
        }
        let name = format!("{}.f16", self.program().tensor(x.id).name);
        let shape = if splits { [2, x.shape.len()].into() } else { x.shape };
        let y = self.create(&name, shape, DType::F16, Role::Activation);
        if splits {
            self.dispatch(Split { x, y })
        } else {
            self.dispatch(Round { x, y })
        }
        self.halves.insert(x.id, y);
        y
    }
}
