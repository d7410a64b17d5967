//! Sorts the N K assignments of tokens to experts into contiguous segments, one per expert.
//!
//! Guarantees: a stable sort (slots of one expert are in the order of the assignments n K + k), deterministic;
//! nothing is dropped and nothing padded. Routing never leaves the GPU: the sizes are fixed, only the content depends on
//! the data. Padding tokens come last, so that results of real tokens do not depend on them.

use super::{
    Graph,
    kernels::permute::{Count, INVOCATIONS, Params, Scatter},
    router::Routing,
};
use crate::{gpu::Tensor, limits::MAX_EXPERTS};

// An invocation for each expert's counts.
const _: () = assert!(MAX_EXPERTS <= INVOCATIONS);

/// The position of each assignment in the experts' order. All u32.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    /// Expert e owns the slots offsets_e .. offsets_{e+1} - 1 [E + 1].
    pub offsets: Tensor,
    /// Assignment (n, k) -> slot [N, K].
    pub slot_of: Tensor,
    /// Slot -> assignment n K + k `[A]`, A = N K.
    pub assignment_of: Tensor,
}

impl Graph {
    /// The experts' order of a routing's assignments.
    pub fn permute(&mut self, routing: &Routing) -> Permutation {
        const MOST_BLOCKS: u32 = 256; // Every workgroup reads the counts of all blocks.
        let [tokens, experts, experts_per_token] = routing.dims();
        let expert = routing.expert;
        let assignments = tokens * experts_per_token; // A
        let block = assignments.div_ceil(MOST_BLOCKS).max(32);
        let blocks = assignments.div_ceil(block);
        let params = Params { assignments, experts, experts_per_token, block, blocks };
        let counts = self.tensor_u32("permute.counts", [blocks, experts]);
        let offsets = self.tensor_u32("permute.offsets", [experts + 1]);
        let slot_of = self.tensor_u32("permute.slot_of", [tokens, experts_per_token]);
        let assignment_of = self.tensor_u32("permute.assignment_of", [assignments]);
        self.dispatch(Count { params, expert, counts });
        self.dispatch(Scatter { params, expert, saved_counts: counts, offsets, slot_of, assignment_of });
        Permutation { offsets, slot_of, assignment_of }
    }
}
