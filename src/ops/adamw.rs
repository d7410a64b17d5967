//! AdamW (Loshchilov & Hutter, arXiv 1711.05101), in the order of operations of `torch.optim.AdamW`.

use super::{
    Graph,
    kernels::{
        adamw::{Params, Update, UpdateRagged},
        adamw_cpu,
    },
};
use crate::gpu::Tensor;

/// Constants of AdamW. The learning rate and the bias corrections are per-step scalars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decoupled: multiplies the learning rate and the weight.
    pub weight_decay: f32,
}

/// From this size on reading through images gains more than the copies cost.
const IMAGE_ELEMENTS: u32 = 8192;

impl Graph {
    /// Updates a parameter from its accumulated gradient, times the factor in `clip` (see [`Graph::grad_norm`]).
    /// Moments are the states `adamw.m.<name>` and `adamw.v.<name>`. Writes nothing if a gradient was not finite.
    pub fn adamw(&mut self, w: Tensor, clip: Tensor, constants: AdamW) {
        let AdamW { beta1, beta2, eps, weight_decay } = constants;
        let name = self.program().tensor(w.id).name.clone();
        let d_w = self.param_grad(w);
        let m = self.state(&format!("adamw.m.{name}"), w.shape);
        let v = self.state(&format!("adamw.v.{name}"), w.shape);
        let length = w.shape.len();
        if length >= IMAGE_ELEMENTS && self.tier.reads_images(&[w]) {
            let params = adamw_cpu::Params { n: length / 4, beta1, beta2, eps, weight_decay };
            let call = adamw_cpu::Update { params, clip, image_d_w: d_w, image_w: w, image_m: m, image_v: v, w, m, v };
            self.dispatch(call, [(length / 16).div_ceil(adamw_cpu::Update::WORKGROUP), 1, 1]);
        } else if length.is_multiple_of(4) {
            let n = length / 4;
            let params = Params { n, beta1, beta2, eps, weight_decay };
            let call = Update { params, clip, d_w4: d_w, w4: w, m4: m, v4: v };
            self.dispatch(call, [n.div_ceil(Update::WORKGROUP), 1, 1]);
        } else {
            let params = Params { n: length, beta1, beta2, eps, weight_decay };
            let call = UpdateRagged { params, clip, d_w, w, m, v };
            self.dispatch(call, [length.div_ceil(UpdateRagged::WORKGROUP), 1, 1]);
        }
    }
}
