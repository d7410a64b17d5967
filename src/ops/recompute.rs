//! Activations that backward computes again instead of keeping them (Chen et al., "Training deep nets with sublinear memory cost",
//! arXiv 1604.06174).
//!
//! An op whose result costs a pass over memory, such as a norm or a copy into another order, tells how to compute it again. Where it is large,
//! ops whose backward reads it get it from [`Graph::saved`], so that its storage is free in between. Launches are what small models
//! wait for, so small activations are kept; and so are those that forward has rounded to f16: a product reads these.

use std::rc::Rc;

use super::Graph;
use crate::gpu::Tensor;

/// Records the launch that computes an activation again.
pub(super) type Recipe = Rc<dyn Fn(&mut Graph) -> Tensor>;

impl Graph {
    /// States how `y` is computed again: by a kernel that gives the same bits.
    pub(super) fn computed_again_by(&mut self, y: Tensor, recipe: impl Fn(&mut Graph) -> Tensor + 'static) {
        if y.bytes() >= self.capabilities.recomputed_bytes {
            self.recipes.insert(y.id, Rc::new(recipe));
        }
    }

    /// `y` as backward reads it: itself, or computed again, once.
    pub(super) fn saved(&mut self, y: Tensor) -> Tensor {
        if self.halves.contains_key(&y.id) {
            return y;
        }
        if let Some(again) = self.again.get(&y.id) {
            return again.reshape(y.shape);
        }
        let Some(recipe) = self.recipes.get(&y.id).cloned() else { return y };
        let again = recipe(self).reshape(y.shape);
        self.again.insert(y.id, again);
        again
    }
}
