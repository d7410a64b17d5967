//! Global gradient norm, clip factor, and the detection of non-finite values, without leaving the GPU.

use super::{
    Graph,
    kernels::{
        grad_norm::{BLOCK, CONSTANTS, Finish, LANE_BLOCK, LANES, Params, Squares, SquaresByLane},
        slot,
    },
};
use crate::gpu::Tensor;

/// Gradients per launch: a kernel may bind eight buffers.
const GRADIENTS: usize = 6;

/// The index of a value in the result of [`Graph::grad_norm`]: the constants `CLIP_*` of the shader. `None` if there is no such slot.
pub fn clip_slot(name: &str) -> Option<usize> {
    slot(CONSTANTS, "CLIP_", name)
}

impl Graph {
    /// L2 norm over the accumulated gradients of `parameters` and the factor that clips it to the step's `clip_norm`.
    ///
    /// Returns `clip`, u32 `[4]`: bits of the norm (infinity if not finite), bits of the factor, 1 if every gradient is
    /// finite, and the number of updates skipped so far because one was not (state `skipped_updates`). Clears
    /// [`Graph::update_damage`].
    pub fn grad_norm(&mut self, parameters: &[Tensor]) -> Tensor {
        let (mut by_lane, mut others) = (Vec::new(), Vec::new());
        for &w in parameters {
            let d = self.param_grad(w);
            // Only conditions on the gradient are checked here.
            let call = SquaresByLane { params: Params::default(), d0: d, d1: d, d2: d, d3: d, d4: d, d5: d, partials: d };
            if self.can_dispatch(&call) { by_lane.push(d) } else { others.push(d) }
        }
        let blocks = |list: &[Tensor], block: u32| list.iter().map(|d| d.shape.len().div_ceil(block)).sum::<u32>();
        let total = blocks(&by_lane, LANE_BLOCK) * LANES + blocks(&others, BLOCK);
        let launches = by_lane.len().div_ceil(GRADIENTS) + others.len().div_ceil(GRADIENTS);
        let partials = self.tensor_u32_in_parts("grad_norm.partials", [total, 2], launches as u32);
        let mut first = 0;
        for group in by_lane.chunks(GRADIENTS) {
            let (params, [d0, d1, d2, d3, d4, d5]) = operands(group, first);
            self.dispatch(SquaresByLane { params, d0, d1, d2, d3, d4, d5, partials });
            first += blocks(group, LANE_BLOCK) * LANES;
        }
        for group in others.chunks(GRADIENTS) {
            let (params, [d0, d1, d2, d3, d4, d5]) = operands(group, first);
            self.dispatch(Squares { params, d0, d1, d2, d3, d4, d5, partials });
            first += blocks(group, BLOCK);
        }
        let skipped = self.state_u32("skipped_updates", [1]);
        let clip = self.tensor_u32("clip", [4]);
        let params = Params { first: total, ..Default::default() };
        let damage = self.update_damage();
        self.dispatch(Finish { params, saved_partials: partials, skipped, clip, damage });
        clip
    }

    /// 1 if the last update made a parameter or a moment non-finite, else 0, u32 `[1]`: the optimizers check what they write,
    /// because a finite gradient does not guarantee a finite result.
    pub fn update_damage(&mut self) -> Tensor {
        const NAME: &str = "update_damage";
        self.find(NAME).unwrap_or_else(|| self.state_u32(NAME, [1]))
    }
}

/// Up to six gradients with their lengths; unused places repeat the first with length 0.
fn operands(group: &[Tensor], first: u32) -> (Params, [Tensor; GRADIENTS]) {
    let n = |i: usize| group.get(i).map_or(0, |t| t.shape.len());
    let params = Params { first, n0: n(0), n1: n(1), n2: n(2), n3: n(3), n4: n(4), n5: n(5) };
    (params, std::array::from_fn(|i| group.get(i).copied().unwrap_or(group[0])))
}
