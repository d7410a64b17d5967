//! Parameters stored one after another, so that one launch of an optimizer updates many of them.
//!
//! A stack is a parameter like any other: it has a gradient, a stack of its parts' gradients, and states, stacks of theirs. Its parts keep
//! their names and handles, so that the model, checkpoints and exports know nothing of it. Kernels that read images do without: an
//! image of a stack would be a second copy of its parts' images.
//!
//! wgpu tracks the use of whole buffers: a launch may write several parts of a stack, but not read one and write another. None does, because
//! weights, gradients and each kind of state are stacks of their own.

use std::collections::HashMap;

use super::{Graph, graph::STACK_ALIGNMENT};
use crate::gpu::{Role, Tensor, TensorId};

impl Graph {
    /// For each of `parameters` the stack that holds it from now on, or itself if none does. Stacks are flat; where a part's size is no
    /// multiple of 256 bytes, zeros follow it.
    ///
    /// # Panics
    /// If one of them is in a stack already.
    pub fn stack_parameters(&mut self, parameters: &[Tensor]) -> Vec<Tensor> {
        self.stacked(parameters, |_| Some(()), |stack, _| stack)
    }

    /// As [`Graph::stack_parameters`], but of matrices [.., rows, columns] of one size, as a stack [.., rows, columns].
    ///
    /// # Panics
    /// If one of them is in a stack already.
    pub fn stack_matrices(&mut self, parameters: &[Tensor]) -> Vec<Tensor> {
        let size = |w: Tensor| match *w.shape.as_slice() {
            [.., rows, columns] if w.bytes().is_multiple_of(STACK_ALIGNMENT) => Some([rows, columns]),
            _ => None,
        };
        self.stacked(parameters, size, |stack, [rows, columns]| stack.reshape([stack.shape.len() / (rows * columns), rows, columns]))
    }

    /// The state of a parameter `<prefix><name>`, zero at first; that of a stack holds its parts'.
    pub(super) fn state_of(&mut self, prefix: &str, w: Tensor) -> Tensor {
        let name = format!("{prefix}{}", self.program().tensor(w.id).name);
        if self.program().tensor(w.id).role != Role::Stack {
            return self.state(&name, w.shape);
        }
        let parts = self.program().parts(w.id).into_iter().map(|part| {
            let part = self.program().tensor(part);
            (format!("{prefix}{}", part.name), part.shape)
        });
        let parts: Vec<_> = parts.collect();
        let states: Vec<Tensor> = parts.into_iter().map(|(name, shape)| self.state(&name, shape)).collect();
        self.stack(&name, &states).reshape(w.shape)
    }

    /// Stacks parameters of equal `class`, as many as fit a binding; those without a class, and single ones, remain as they are.
    fn stacked<C: Copy + PartialEq>(
        &mut self,
        parameters: &[Tensor],
        class: impl Fn(Tensor) -> Option<C>,
        shaped: impl Fn(Tensor, C) -> Tensor,
    ) -> Vec<Tensor> {
        if self.capabilities.images {
            return parameters.to_vec();
        }
        let mut groups: Vec<(C, Vec<Tensor>, u64)> = Vec::new(); // With their bytes.
        for &w in parameters {
            let Some(class) = class(w) else { continue };
            let bytes = w.bytes().next_multiple_of(STACK_ALIGNMENT);
            let has_room = |group: &&mut (C, Vec<Tensor>, u64)| group.0 == class && group.2 + bytes <= self.capabilities.binding_bytes;
            match groups.iter_mut().find(has_room) {
                Some((_, group, total)) => {
                    group.push(w);
                    *total += bytes;
                }
                None => groups.push((class, vec![w], bytes)),
            }
        }
        let mut stack_of: HashMap<TensorId, Tensor> = HashMap::new();
        for (class, group, _) in groups.iter().filter(|(_, group, _)| group.len() > 1) {
            let stack = self.stack_with_gradient(group);
            stack_of.extend(group.iter().map(|w| (w.id, shaped(stack, *class))));
        }
        parameters.iter().map(|w| stack_of.get(&w.id).copied().unwrap_or(*w)).collect()
    }

    fn stack_with_gradient(&mut self, parameters: &[Tensor]) -> Tensor {
        let first = &self.program().tensor(parameters[0].id).name;
        let name = format!("{first} and {} more", parameters.len() - 1);
        let gradients: Vec<Tensor> = parameters.iter().map(|w| self.param_grad(*w)).collect();
        self.stack(&format!("d_{name}"), &gradients);
        self.stack(&name, parameters)
    }
}
