//! Memory planning: which activations share a slot. A pure function of the program.
//!
//! wgpu tracks the use of whole buffers and forbids reading and writing one buffer in one dispatch, so each slot is a separate
//! buffer, which a tensor owns from the command that writes it to the last one that reads it, inclusive.

use std::collections::{BTreeMap, BTreeSet};

use super::{Program, TensorId};

/// The slot of each tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Slot of each planned tensor, by tensor id; `None` for persistent and unused ones.
    pub slot_of: Vec<Option<usize>>,
    /// Bytes of each slot.
    pub slot_bytes: Vec<u64>,
}

impl MemoryPlan {
    /// Bytes of all slots.
    pub fn total_bytes(&self) -> u64 {
        self.slot_bytes.iter().sum()
    }
}

/// Slots that the plans over one memory share: they run one after another, and none reads what another run has left in a slot.
#[derive(Clone, Debug, Default)]
pub struct SlotPool {
    /// Bytes of each slot.
    pub bytes: Vec<u64>,
    /// (bytes, slot) of those that every plan may use.
    shared: BTreeSet<(u64, usize)>,
}

impl SlotPool {
    /// The slot of the pool for each of a plan's, adding those that it lacks. A plan whose update reads activations of the micro-batch shares
    /// none: something else may run between the two.
    pub fn take(&mut self, program: &Program, plan: &MemoryPlan) -> Vec<usize> {
        let update = program.micro.len();
        let is_shared = lifetimes(program).iter().flatten().all(|(first, last)| *last < update || *first >= update);
        let mut free = if is_shared { self.shared.clone() } else { BTreeSet::new() };
        let mut order: Vec<usize> = (0..plan.slot_bytes.len()).collect();
        order.sort_by_key(|slot| std::cmp::Reverse(plan.slot_bytes[*slot]));
        let mut taken = vec![0; plan.slot_bytes.len()];
        for slot in order {
            let bytes = plan.slot_bytes[slot];
            taken[slot] = match free.range((bytes, 0)..).next().copied() {
                Some(found) => {
                    free.remove(&found);
                    found.1
                }
                None => {
                    self.bytes.push(bytes);
                    self.bytes.len() - 1
                }
            };
        }
        if is_shared {
            self.shared.extend(taken.iter().map(|slot| (self.bytes[*slot], *slot)));
        }
        taken
    }

    /// Bytes of all slots.
    pub fn total_bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// First and last command that uses each planned tensor, over micro and then update.
pub fn lifetimes(program: &Program) -> Vec<Option<(usize, usize)>> {
    let mut spans = vec![None; program.tensors.len()];
    for (index, command) in program.micro.iter().chain(&program.update).enumerate() {
        for (id, _, _) in command.uses() {
            if program.tensor(id).role.is_planned() {
                let span = spans[id.0 as usize].get_or_insert((index, index));
                span.1 = index;
            }
        }
    }
    spans
}

/// The most tensors that are placed by size: for more, that takes too long.
const MOST_BY_SIZE: usize = 1 << 12;

/// Assigns slots. With `share` off every tensor has its own slot; results must be bit-equal either way.
///
/// Tensors of the micro-batch that the update reads keep their slot through all micro-batches, because lifetimes are computed
/// over one micro-batch followed by the update. Which order of placing wastes least depends on the program: the better of two is taken.
pub fn plan_memory(program: &Program, share: bool) -> MemoryPlan {
    let spans = lifetimes(program);
    let by_time = plan_by_time(program, &spans, share);
    if !share || spans.iter().flatten().count() > MOST_BY_SIZE {
        return by_time;
    }
    let by_size = plan_by_size(program, &spans);
    if by_size.total_bytes() < by_time.total_bytes() { by_size } else { by_time }
}

/// The bytes that are in use at once, at most: what no plan can do without.
pub fn live_bytes(program: &Program) -> u64 {
    let mut changes: Vec<(usize, bool, u64)> = Vec::new(); // command, whether it is a first one, bytes
    for (index, span) in lifetimes(program).into_iter().enumerate() {
        if let Some((first, last)) = span {
            let bytes = slot_bytes(program, index);
            changes.extend([(first, true, bytes), (last + 1, false, bytes)]);
        }
    }
    changes.sort_unstable(); // Of one command, ends come first.
    let (mut live, mut most) = (0, 0);
    for (_, begins, bytes) in changes {
        live = if begins { live + bytes } else { live - bytes };
        most = most.max(live);
    }
    most
}

fn slot_bytes(program: &Program, index: usize) -> u64 {
    program.tensor(TensorId(index as u32)).bytes().next_multiple_of(16)
}

/// The largest first: each takes the smallest slot that is free throughout its life, which is never too small (Pisarchyk and Lee, "Efficient
/// memory management for deep neural net inference", arXiv 2001.03288).
fn plan_by_size(program: &Program, spans: &[Option<(usize, usize)>]) -> MemoryPlan {
    let mut order: Vec<usize> = (0..spans.len()).filter(|i| spans[*i].is_some()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(slot_bytes(program, *i)), spans[*i]));
    let mut plan = MemoryPlan { slot_of: vec![None; spans.len()], slot_bytes: Vec::new() };
    let mut taken: Vec<BTreeMap<usize, usize>> = Vec::new(); // Of each slot, the last command of the lives by their first.
    for index in order {
        let Some((first, last)) = spans[index] else { continue };
        let is_free = |lives: &BTreeMap<usize, usize>| lives.range(..=last).next_back().is_none_or(|(_, until)| *until < first);
        // Later slots are smaller, or as small.
        let slot = taken.iter().rposition(is_free).unwrap_or(taken.len());
        if slot == taken.len() {
            taken.push(BTreeMap::new());
            plan.slot_bytes.push(slot_bytes(program, index));
        }
        taken[slot].insert(first, last);
        plan.slot_of[index] = Some(slot);
    }
    plan
}

/// In the order of their lives, best fit: a new tensor takes the free slot that wastes the least, growing it if none is large enough.
/// Free slots are sorted by size: deep models have a hundred thousand.
fn plan_by_time(program: &Program, spans: &[Option<(usize, usize)>], share: bool) -> MemoryPlan {
    let mut order: Vec<usize> = (0..spans.len()).filter(|i| spans[*i].is_some()).collect();
    order.sort_by_key(|i| spans[*i].map(|s| s.0));
    let mut plan = MemoryPlan { slot_of: vec![None; spans.len()], slot_bytes: Vec::new() };
    let mut busy: BTreeSet<(usize, usize)> = BTreeSet::new(); // (last command, slot)
    let mut free: BTreeSet<(u64, usize)> = BTreeSet::new(); // (bytes, slot)
    for index in order {
        let Some((first, last)) = spans[index] else { continue };
        let bytes = slot_bytes(program, index);
        while let Some(&(until, slot)) = busy.first().filter(|(until, _)| share && *until < first) {
            busy.remove(&(until, slot));
            free.insert((plan.slot_bytes[slot], slot));
        }
        let slot = match best_fit(&free, bytes) {
            Some((size, slot)) => {
                free.remove(&(size, slot));
                slot
            }
            None => {
                plan.slot_bytes.push(0);
                plan.slot_bytes.len() - 1
            }
        };
        plan.slot_bytes[slot] = plan.slot_bytes[slot].max(bytes);
        busy.insert((last, slot));
        plan.slot_of[index] = Some(slot);
    }
    plan
}

/// The free slot whose size is nearest to `bytes`; ties go to the larger, then to the first.
fn best_fit(free: &BTreeSet<(u64, usize)>, bytes: u64) -> Option<(u64, usize)> {
    let larger = free.range((bytes, 0)..).next().copied();
    let smaller = free.range(..(bytes, 0)).next_back().and_then(|(size, _)| free.range((*size, 0)..).next().copied());
    match (larger, smaller) {
        (Some(larger), Some(smaller)) => Some(if larger.0 - bytes <= bytes - smaller.0 { larger } else { smaller }),
        (larger, smaller) => larger.or(smaller),
    }
}
