//! Tensors as f16, for kernels with f16 operands.
//!
//! They are rounded once after their last write. Where nothing but that rounding reads what a kernel writes, a sibling of the kernel writes
//! the f16 itself ([`fold_roundings`]): the same bits without a launch and with 2 bytes of traffic an element instead of 10.

use std::collections::HashMap;

use super::{
    Graph,
    kernels::halves::{Round, Split, halves},
};
use crate::gpu::{Access, Capabilities, Command, DType, Dispatch, KernelInfo, Program, Role, Tensor, TensorId};

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
        let y = self.tensor_f16(&name, shape);
        if splits {
            self.dispatch(Split { x, y })
        } else {
            self.dispatch(Round { x, y })
        }
        self.halves.insert(x.id, y);
        y
    }
}

/// Replaces kernels of the micro-batch whose f32 results are only rounded by siblings that write f16, where there are any, and leaves the
/// roundings out.
pub(super) fn fold_roundings(program: &mut Program, capabilities: &Capabilities) {
    let rounded = only_rounded(program);
    let mut folded_away = Vec::new();
    for index in 0..program.micro.len() {
        let Command::Dispatch(dispatch) = &program.micro[index] else { continue };
        let is_allowed =
            |kernel: &KernelInfo| capabilities.satisfy(&kernel.module.requires) && !capabilities.without.contains(kernel.module);
        let replaced =
            dispatch.siblings.iter().filter(|kernel| is_allowed(kernel)).find_map(|kernel| with_halves(dispatch, kernel, &rounded));
        let Some((replacement, replaced)) = replaced else { continue };
        folded_away.extend(replaced);
        program.micro[index] = Command::Dispatch(replacement);
    }
    let mut index = 0;
    program.micro.retain(|_| {
        index += 1;
        !folded_away.contains(&(index - 1))
    });
}

/// The activations that one command writes and only a rounding reads, with that command's index and its result.
fn only_rounded(program: &Program) -> HashMap<TensorId, (usize, Tensor)> {
    let mut uses: HashMap<TensorId, Vec<(usize, Access)>> = HashMap::new();
    for (index, command) in program.micro.iter().chain(&program.update).enumerate() {
        for (id, access, _) in command.uses() {
            uses.entry(id).or_default().push((index, access));
        }
    }
    let mut rounded = HashMap::new();
    for (index, command) in program.micro.iter().enumerate() {
        if let Command::Dispatch(Dispatch { kernel, tensors, .. }) = command
            && std::ptr::eq(*kernel, &raw const halves::ROUND)
            && let [x, y] = tensors[..]
            && program.tensor(x.id).role == Role::Activation
            && matches!(uses[&x.id][..], [(_, Access::Write), (reader, Access::Read)] if reader == index)
        {
            rounded.insert(x.id, (index, y));
        }
    }
    rounded
}

/// The launch of `kernel` in the place of a sibling's, if it writes f16 where all that is written is only rounded, and the roundings that
/// makes needless.
fn with_halves(
    dispatch: &Dispatch,
    kernel: &'static KernelInfo,
    rounded: &HashMap<TensorId, (usize, Tensor)>,
) -> Option<(Dispatch, Vec<usize>)> {
    let shown = || dispatch.kernel.bindings.iter().zip(&dispatch.tensors);
    let fields = 1 + shown().map(|(b, _)| b.field).max()?;
    let mut tensors: Vec<Tensor> =
        (0..fields).map(|field| shown().find(|(b, _)| b.field == field).map(|(_, t)| *t)).collect::<Option<_>>()?;
    let mut needless = Vec::new();
    for b in kernel.bindings {
        let tensor = &mut tensors[b.field];
        if b.dtype == DType::F16 && b.access == Access::Write {
            let (rounding, y) = rounded.get(&tensor.id)?;
            *tensor = y.reshape(tensor.shape);
            needless.push(*rounding);
        }
        if b.dtype != tensor.dtype {
            return None;
        }
    }
    if needless.is_empty() || !(kernel.fits)(&dispatch.params, &tensors) {
        return None;
    }
    let constants = dispatch.constants.iter().filter(|(name, _)| kernel.overrides.contains(name)).copied().collect();
    let workgroups = kernel.folded((kernel.grid)(&dispatch.params, &tensors));
    let tensors = kernel.bindings.iter().map(|b| tensors[b.field]).collect();
    Some((Dispatch { kernel, constants, tensors, workgroups, ..dispatch.clone() }, needless))
}
