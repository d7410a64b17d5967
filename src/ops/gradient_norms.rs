//! The L2 norms of single gradients, for the log.

use super::{
    Graph,
    kernels::gradient_norms::{NormsOf, Params},
};
use crate::gpu::Tensor;

/// Gradients per launch: a kernel may bind eight buffers.
const GRADIENTS: usize = 6;

impl Graph {
    /// The L2 norm of the accumulated gradient of each of `parameters`, as the bits of an f32, u32 `[G]`; infinity if it is not
    /// finite. One workgroup reads a whole gradient, so it is meant for small ones. Belongs in the update program.
    ///
    /// # Panics
    /// If there are no parameters.
    pub fn gradient_norms(&mut self, parameters: &[Tensor]) -> Tensor {
        assert!(!parameters.is_empty(), "gradient_norms: wanted at least one parameter");
        let gradients: Vec<Tensor> = parameters.iter().map(|w| self.param_grad(*w)).collect();
        let launches = gradients.len().div_ceil(GRADIENTS) as u32;
        let norms = self.tensor_u32_in_parts("gradient_norms", [gradients.len() as u32], launches); // [G]
        for (launch, group) in (0..).zip(gradients.chunks(GRADIENTS)) {
            // Unused places repeat the first.
            let [d0, d1, d2, d3, d4, d5] = std::array::from_fn(|i| group.get(i).copied().unwrap_or(group[0]));
            let n = |i: usize| group.get(i).map_or(0, |d| d.shape.len());
            let (first, gradients) = (launch * GRADIENTS as u32, group.len() as u32);
            let params = Params { first, gradients, n0: n(0), n1: n(1), n2: n(2), n3: n(3), n4: n(4), n5: n(5) };
            self.dispatch(NormsOf { params, d0, d1, d2, d3, d4, d5, norms });
        }
        norms
    }
}
