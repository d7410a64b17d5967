//! What kernels read in place of a tensor's buffer, and where it is refreshed: a pure function from commands to refreshes.
//!
//! Tensors are f32 in buffers. A [`Representation`] holds the same elements in a form that some kernels read faster. It is current
//! once it is refreshed after its tensor's last write. A refresh interrupts the compute pass, so at each interruption everything that
//! is complete and wanted later is refreshed along. What represents a parameter is refreshed once an update.

use std::collections::HashMap;

use super::{BindingKind, Command, Tensor, TensorId};

/// A form of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Representation {
    /// An `rgba32float` texture, refreshed by a copy: the tensor seen as rows of `width` elements, a texel holding four.
    Texels {
        /// Elements of a row.
        width: u32,
    },
}

/// A representation of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Represented {
    /// The tensor.
    pub tensor: TensorId,
    /// In which form.
    pub form: Representation,
}

impl Represented {
    /// What a kernel binds for a tensor; `None`: its buffer.
    pub fn of(t: Tensor, kind: BindingKind) -> Option<Represented> {
        match kind {
            BindingKind::Storage { .. } => None,
            BindingKind::Texels { .. } => Some(Represented { tensor: t.id, form: Representation::Texels { width: t.shape.last() } }),
        }
    }
}

/// What a command reads in place of buffers.
pub fn representations_of(command: &Command) -> Vec<Represented> {
    let Command::Dispatch(d) = command else { return Vec::new() };
    d.uses().filter_map(|(t, _, kind)| Represented::of(t, kind)).collect()
}

/// For each command, what to refresh right before it. `is_current(key)` tells what is current at the start.
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
    // The command from which on the representation is current (refreshed right before it).
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
            // Wanted at or after this command, with no write in between.
            let Some(next_read) = reads[key].iter().find(|r| **r >= index) else { continue };
            let is_rewritten = last_write_before(*key, *next_read).is_some_and(|w| w >= index);
            // Written already, or not written before it is read: then its elements come from an earlier list.
            let exists = last_write_before(*key, index).is_some() || last_write_before(*key, *next_read).is_none();
            if !is_rewritten && exists && is_stale(&refreshed_at, *key, index) {
                refreshes[index].push(*key);
                refreshed_at.insert(*key, index);
            }
        }
    }
    refreshes
}
