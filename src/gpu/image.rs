//! Where a program's texture images are refreshed: a pure function from commands to copies.
//!
//! An image is current once it is copied after its tensor's last write. A copy interrupts the compute pass, so at
//! each interruption every image that is complete and wanted later is copied along.

use std::collections::HashMap;

use super::{BindingKind, Command, TensorId};

/// An image of a tensor: the tensor seen as rows of `width` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageKey {
    /// The tensor.
    pub tensor: TensorId,
    /// Elements of a row; a texel holds four.
    pub width: u32,
}

/// Images that a command reads.
pub fn images_of(command: &Command) -> Vec<ImageKey> {
    let Command::Dispatch(d) = command else { return Vec::new() };
    let images = d.uses().filter(|(_, _, kind)| matches!(kind, BindingKind::Texels { .. }));
    images.map(|(t, _, _)| ImageKey { tensor: t.id, width: t.shape.last() }).collect()
}

/// For each command, the images to copy right before it. `is_current(key)` tells what is current at the start.
pub fn schedule_copies(commands: &[Command], is_current: impl Fn(ImageKey) -> bool) -> Vec<Vec<ImageKey>> {
    let mut writes: HashMap<TensorId, Vec<usize>> = HashMap::new();
    let mut reads: HashMap<ImageKey, Vec<usize>> = HashMap::new();
    for (index, command) in commands.iter().enumerate() {
        for (id, access, _) in command.uses() {
            if access.writes() {
                writes.entry(id).or_default().push(index);
            }
        }
        for key in images_of(command) {
            reads.entry(key).or_default().push(index);
        }
    }
    let mut keys: Vec<_> = reads.keys().copied().collect();
    keys.sort();
    // The command from which on the image is current (copied right before it).
    let mut copied_at: HashMap<ImageKey, usize> = HashMap::new();
    let last_write_before =
        |key: ImageKey, index: usize| writes.get(&key.tensor).and_then(|w| w.iter().rev().find(|w| **w < index)).copied();
    let is_stale =
        |copied_at: &HashMap<ImageKey, usize>, key: ImageKey, index: usize| match (last_write_before(key, index), copied_at.get(&key)) {
            (Some(write), Some(copy)) => *copy <= write,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => !is_current(key),
        };
    let mut copies = vec![Vec::new(); commands.len()];
    for (index, command) in commands.iter().enumerate() {
        if !images_of(command).iter().any(|key| is_stale(&copied_at, *key, index)) {
            continue;
        }
        for key in &keys {
            // Wanted at or after this command, with no write in between.
            let Some(next_read) = reads[key].iter().find(|r| **r >= index) else { continue };
            let is_rewritten = last_write_before(*key, *next_read).is_some_and(|w| w >= index);
            // Written already, or not written before it is read: then its elements come from an earlier list.
            let exists = last_write_before(*key, index).is_some() || last_write_before(*key, *next_read).is_none();
            if !is_rewritten && exists && is_stale(&copied_at, *key, index) {
                copies[index].push(*key);
                copied_at.insert(*key, index);
            }
        }
    }
    copies
}
