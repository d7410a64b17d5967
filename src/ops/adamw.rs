//! AdamW (Loshchilov & Hutter, arXiv 1711.05101), in the order of operations of `torch.optim.AdamW`.

use std::ops::RangeInclusive;

use super::{
    Graph,
    kernels::adamw::{Correct, Params, Update},
};
use crate::gpu::Tensor;

/// A parameter to be updated by an optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Trained {
    /// The parameter, for experts [E, ..].
    pub w: Tensor,
    /// Assignments of each expert over the update's micro-batches, u32 `[E]`: an expert that has none keeps
    /// its weights and moments, as in PyTorch if a gradient is None. Without counts, its gradient is zero.
    pub assignments: Option<Tensor>,
}

impl From<Tensor> for Trained {
    fn from(w: Tensor) -> Trained {
        Trained { w, assignments: None }
    }
}

/// Constants of AdamW. The learning rate is a per-step scalar.
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

/// Prefixes of the states: the means, their squares', which are bounded, and 1 - beta^t, which are as well.
const MEAN: &str = "adamw.m.";
const MEAN_SQUARE: &str = "adamw.v.";
const CORRECTIONS: &str = "adamw.corrections";

/// The range of the values of an optimizer state of this name: a value outside would turn a finite gradient into a non-finite
/// weight.
pub fn state_range(name: &str) -> RangeInclusive<f32> {
    match name {
        name if name.starts_with(MEAN_SQUARE) => 0.0..=f32::MAX,
        name if name.starts_with(CORRECTIONS) => 0.0..=1.001, // 1, with a margin for rounding.
        _ => f32::MIN..=f32::MAX,
    }
}

impl Graph {
    /// Updates a parameter, or a [stack](Graph::stack_parameters) of them, from its accumulated gradient, times the factor in `clip` (see [`Graph::grad_norm`]).
    /// Moments are the states `adamw.m.<name>` and `adamw.v.<name>`. Writes nothing if a gradient is not finite.
    ///
    /// Bias corrections count the updates that were applied: the state `adamw.corrections(<beta1>, <beta2>)` [1, 2],
    /// one for all parameters. If experts without assignments are left unchanged, each expert counts the updates in which it
    /// was updated, like a separate parameter in PyTorch: the state `adamw.corrections.<name>` [E, 2].
    ///
    /// # Panics
    /// If assignments are given and their number differs from the slices of the parameter.
    pub fn adamw(&mut self, trained: impl Into<Trained>, clip: Tensor, constants: AdamW) {
        let AdamW { beta1, beta2, eps, weight_decay } = constants;
        let Trained { w, assignments } = trained.into();
        let name = self.program().tensor(w.id).name.clone();
        let (d_w, damage) = (self.param_grad(w), self.update_damage());
        let (m, v) = (self.state_of(MEAN, w), self.state_of(MEAN_SQUARE, w));
        let length = w.shape.len();
        // Elements of an expert, if each has its own corrections, and the corrections.
        let (expert, corrections) = match assignments {
            Some(counts) => {
                let [experts, ..] = *w.shape.as_slice() else { panic!("adamw: {name} has no experts") };
                assert_eq!(counts.shape.as_slice(), [experts], "adamw: counts of {name} {:?}", w.shape);
                (length / experts, self.adamw_corrections(&format!("{CORRECTIONS}.{name}"), Some(counts), clip, constants))
            }
            None => (0, self.common_corrections(clip, constants)),
        };
        let params = Params { n: length, expert, beta1, beta2, eps, weight_decay };
        self.dispatch(Update { params, clip, corrections, d_w, w, m, v, damage });
    }

    /// The shared corrections, of parameters whose experts have no separate ones; advanced once per update.
    fn common_corrections(&mut self, clip: Tensor, constants: AdamW) -> Tensor {
        // The name includes the betas, because parameters with different betas must not share corrections.
        let name = format!("{CORRECTIONS}({}, {})", constants.beta1, constants.beta2);
        match self.find(&new_of(&name)) {
            Some(corrections) => corrections,
            None => self.adamw_corrections(&name, None, clip, constants),
        }
    }

    /// 1 - beta^t, t the updates so far with this one [1, 2]; with counts, for each expert [E, 2], t the updates
    /// in which it was updated, 0 for experts that are not updated in this one.
    fn adamw_corrections(&mut self, name: &str, counts: Option<Tensor>, clip: Tensor, constants: AdamW) -> Tensor {
        let AdamW { beta1, beta2, .. } = constants;
        let n = counts.map_or(1, |counts| counts.shape.len());
        let saved_corrections = self.state(name, [n, 2]);
        let new_corrections = self.tensor(&new_of(name), [n, 2]); // [n, 2]
        let params = Params { n, expert: u32::from(counts.is_some()), beta1, beta2, ..Default::default() };
        let call = Correct { params, clip, counts: counts.unwrap_or(clip), saved_corrections, new_corrections };
        self.dispatch(call);
        new_corrections
    }
}

fn new_of(corrections: &str) -> String {
    format!("new {corrections}")
}
