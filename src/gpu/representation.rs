//! Representations that kernels read instead of a tensor's buffer, and when they are refreshed: a pure function of the commands.
//!
//! Tensors are f32 in buffers. A [`Representation`] has the same elements in a form that some kernels read faster. It is current
//! once it is refreshed after its tensor's last write. A refresh interrupts the compute pass, so each interruption refreshes
//! everything that is complete and needed later. Representations of parameters are refreshed once per update.

use std::collections::HashMap;

use super::{BindingKind, Command, Tensor, TensorId};

/// A form of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Representation {
    /// An `rgba32float` texture, refreshed by a copy: the tensor viewed as rows of `width` elements, four per texel.
    Texels {
        /// Elements per row.
        width: u32,
    },
}

/// A representation of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Represented {
    /// The tensor.
    pub tensor: TensorId,
    /// The form.
    pub form: Representation,
}

impl Represented {
    /// The representation that a kernel binds for a tensor; `None` for its buffer.
    pub fn of(t: Tensor, kind: BindingKind) -> Option<Represented> {
        match kind {
            BindingKind::Storage { .. } => None,
            BindingKind::Texels { .. } => Some(Represented { tensor: t.id, form: Representation::Texels { width: t.shape.last() } }),
        }
    }
}

/// The representations that a command reads.
pub fn representations_of(command: &Command) -> Vec<Represented> {
    let Command::Dispatch(d) = command else { return Vec::new() };
    d.uses().filter_map(|(t, _, kind)| Represented::of(t, kind)).collect()
}

/// For each command, the representations to refresh right before it. `is_current(key)` states whether one is current at the start.
pub fn schedule_refreshes(commands: &[Command], is_current: impl Fn(Represented) -> bool) -> Vec<Vec<Represented>> {
    let mut writes: HashMap<TensorId, Vec<usize>> = HashMap::new();
    let mut reads: HashMap<Represented, Vec<usize>> = HashMap::new();
    for (index, command) in commands.iter().enumerate() {
        for (id, access, _) in command.uses() {
            if access.writes() {
                writes.entry(id).or_default().push(index);
            }
        }
        for key in representations_of(command) {
            reads.entry(key).or_default().push(index);
        }
    }
    let mut keys: Vec<_> = reads.keys().copied().collect();
    keys.sort();
    // The command before which the representation is refreshed.
    let mut refreshed_at: HashMap<Represented, usize> = HashMap::new();
    let last_write_before =
        |key: Represented, index: usize| writes.get(&key.tensor).and_then(|w| w.iter().rev().find(|w| **w < index)).copied();
    let is_stale = |refreshed_at: &HashMap<Represented, usize>, key: Represented, index: usize| match (
        last_write_before(key, index),
        refreshed_at.get(&key),
    ) {
        (Some(write), Some(refresh)) => *refresh <= write,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => !is_current(key),
    };
    let mut refreshes = vec![Vec::new(); commands.len()];
    for (index, command) in commands.iter().enumerate() {
        if !representations_of(command).iter().any(|key| is_stale(&refreshed_at, *key, index)) {
            continue;
        }
        for key in &keys {
            // Needed at or after this command, with no write in between.
            let Some(next_read) = reads[key].iter().find(|r| **r >= index) else { continue };
            let is_rewritten = last_write_before(*key, *next_read).is_some_and(|w| w >= index);
            // Already written, or not written before it is read: then its elements come from an earlier list.
            let exists = last_write_before(*key, index).is_some() || last_write_before(*key, *next_read).is_none();
            if !is_rewritten && exists && is_stale(&refreshed_at, *key, index) {
                refreshes[index].push(*key);
                refreshed_at.insert(*key, index);
            }
        }
    }
    refreshes
}
