//! Representations that kernels read instead of a tensor's buffer, and when they are refreshed: a pure function of the commands.
//!
//! Tensors are f32 in buffers. A [`Representation`] has the same elements in a form that some kernels read faster. It is current
//! once it is refreshed after its tensor's last write. A refresh interrupts the compute pass, so each interruption refreshes
//! everything that is complete and needed later. Representations of parameters are refreshed once per update.

use std::collections::{BTreeSet, HashMap};

use super::{BindingKind, Command, Program, Tensor, TensorId};

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
            BindingKind::Texels(_) => Some(Represented { tensor: t.id, form: Representation::Texels { width: t.shape.last() } }),
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

/// Width and height of a representation, in texels.
pub fn texels(program: &Program, key: Represented) -> [u32; 2] {
    let Representation::Texels { width } = key.form;
    [width / 4, program.tensor(key.tensor).shape.len() / width]
}

/// The textures of what a list of commands reads as images, but for those of kept tensors.
#[derive(Clone, Debug, Default)]
pub struct ImagePlan {
    /// Width and height of each texture, in texels.
    pub textures: Vec<[u32; 2]>,
    /// The texture of a representation that is refreshed before a command.
    pub texture_of: HashMap<(Represented, usize), usize>,
}

/// Plans the textures of a list. With `share`, representations of equal extent whose lifetimes do not overlap have one.
pub fn plan_images(program: &Program, commands: &[Command], refreshes: &[Vec<Represented>], share: bool) -> ImagePlan {
    let mut reads: HashMap<Represented, Vec<usize>> = HashMap::new();
    for (index, command) in commands.iter().enumerate() {
        for key in representations_of(command) {
            reads.entry(key).or_default().push(index);
        }
    }
    let mut plan = ImagePlan::default();
    let mut used_until = Vec::new();
    for (index, list) in refreshes.iter().enumerate() {
        for key in list.iter().filter(|key| !program.tensor(key.tensor).role.is_kept()) {
            let next = (index + 1..refreshes.len()).find(|i| refreshes[*i].contains(key)).unwrap_or(usize::MAX);
            let last = reads[key].iter().copied().rfind(|r| *r < next).unwrap_or(index);
            let extent = texels(program, *key);
            let is_free = |slot: &usize| share && used_until[*slot] < index && plan.textures[*slot] == extent;
            let slot = (0..plan.textures.len()).find(is_free).unwrap_or(plan.textures.len());
            if slot == plan.textures.len() {
                plan.textures.push(extent);
                used_until.push(last);
            }
            used_until[slot] = last;
            plan.texture_of.insert((*key, index), slot);
        }
    }
    plan
}

/// Bytes of the images that plans of `programs` over one memory have: those of kept tensors, and what the list that needs the most of an
/// extent has of it.
pub fn image_bytes(programs: &[&Program]) -> u64 {
    let bytes = |[width, height]: [u32; 2]| 16 * u64::from(width) * u64::from(height);
    let mut kept = BTreeSet::new();
    let mut shared: HashMap<[u32; 2], u64> = HashMap::new();
    for program in programs {
        let is_current = |key: Represented| program.tensor(key.tensor).role.is_kept();
        for commands in [&program.micro, &program.update] {
            let refreshes = schedule_refreshes(commands, is_current);
            let mut own: HashMap<[u32; 2], u64> = HashMap::new();
            plan_images(program, commands, &refreshes, true).textures.iter().for_each(|extent| *own.entry(*extent).or_default() += 1);
            for (extent, count) in own {
                let most = shared.entry(extent).or_default();
                *most = count.max(*most);
            }
            let all = commands.iter().flat_map(representations_of).filter(|key| is_current(*key));
            kept.extend(all.map(|key| (&program.tensor(key.tensor).name, key.form, texels(program, key))));
        }
    }
    let shared: u64 = shared.into_iter().map(|(extent, count)| count * bytes(extent)).sum();
    shared + kept.into_iter().map(|(_, _, extent)| bytes(extent)).sum::<u64>()
}
