//! Global gradient norm, clip factor, and the watch for values that are not finite, without leaving the GPU.

use super::{
    Graph,
    kernels::{
        grad_norm::{Finish, Params, Squares},
        grad_norm_cpu,
    },
};
use crate::gpu::Tensor;

/// Gradients that one launch takes: a kernel may bind eight buffers.
const GRADIENTS: usize = 6;
/// Elements of a gradient that a workgroup takes, and the partial sums that it leaves.
const BLOCK: u32 = 4096;
const IMAGE_BLOCK: u32 = 8192;
const IMAGE_PARTIALS: u32 = grad_norm_cpu::Squares::WORKGROUP;
/// From this size on reading through images gains more than the copies cost.
const IMAGE_ELEMENTS: u32 = 8192;

impl Graph {
    /// L2 norm over the accumulated gradients of `parameters` and the factor that clips it to the step's `clip_norm`.
    ///
    /// Returns `clip`, u32 `[4]`: bits of the norm (infinity if not finite), bits of the factor, 1 if every gradient is
    /// finite, and the number of updates skipped so far because one was not (state `skipped_updates`). Clears
    /// [`Graph::update_damage`].
    pub fn grad_norm(&mut self, parameters: &[Tensor]) -> Tensor {
        let has_image = |w: &&Tensor| w.shape.len() >= IMAGE_ELEMENTS && self.capabilities.reads_images(&[**w]);
        let (images, buffers): (Vec<Tensor>, Vec<Tensor>) = parameters.iter().partition(has_image);
        let blocks = |list: &[Tensor], block: u32| list.iter().map(|w| w.shape.len().div_ceil(block)).sum::<u32>();
        let total = blocks(&images, IMAGE_BLOCK) * IMAGE_PARTIALS + blocks(&buffers, BLOCK);
        let launches = images.len().div_ceil(GRADIENTS) + buffers.len().div_ceil(GRADIENTS);
        let partials = self.tensor_u32_in_parts("grad_norm.partials", [total, 2], launches as u32);
        let mut first = 0;
        for group in images.chunks(GRADIENTS) {
            let (params, [image0, image1, image2, image3, image4, image5]) = self.gradients(group, first);
            let workgroups = blocks(group, IMAGE_BLOCK);
            let params = bytemuck::cast(params);
            let call = grad_norm_cpu::Squares { params, image0, image1, image2, image3, image4, image5, partials };
            self.dispatch_on(call, [workgroups, 1, 1]);
            first += workgroups * IMAGE_PARTIALS;
        }
        for group in buffers.chunks(GRADIENTS) {
            let (params, [d0, d1, d2, d3, d4, d5]) = self.gradients(group, first);
            let workgroups = blocks(group, BLOCK);
            self.dispatch_on(Squares { params, d0, d1, d2, d3, d4, d5, partials }, [workgroups, 1, 1]);
            first += workgroups;
        }
        let skipped = self.state_u32("skipped_updates", [1]);
        let clip = self.tensor_u32("clip", [4]);
        let params = Params { first: total, ..Default::default() };
        let damage = self.update_damage();
        self.dispatch_on(Finish { params, saved_partials: partials, skipped, clip, damage }, [1, 1, 1]);
        clip
    }

    /// 1 if the last update made a parameter or a moment that is not finite, else 0, u32 `[1]`: the optimizers look at what they
    /// write, as a finite gradient does not vouch for it.
    pub fn update_damage(&mut self) -> Tensor {
        const NAME: &str = "update_damage";
        self.find(NAME).unwrap_or_else(|| self.state_u32(NAME, [1]))
    }

    /// The gradients of up to six parameters with their lengths; unused places repeat the first with length 0.
    fn gradients(&mut self, group: &[Tensor], first: u32) -> (Params, [Tensor; GRADIENTS]) {
        let gradients: Vec<_> = group.iter().map(|w| self.param_grad(*w)).collect();
        let n = |i: usize| gradients.get(i).map_or(0, |t| t.shape.len());
        let params = Params { first, n0: n(0), n1: n(1), n2: n(2), n3: n(3), n4: n(4), n5: n(5) };
        (params, std::array::from_fn(|i| gradients.get(i).copied().unwrap_or(gradients[0])))
    }
}
