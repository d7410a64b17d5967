//! Options of a recursive model, and the calls that they make: part of [`config`](super::config).

use crate::{choices, options};

options! {
    /// Recursion over a high state z_H and a low state z_L: in each of the high cycles z_L is updated `low_cycles` times
    /// and z_H once.
    pub struct Recursion: model {
        /// Cycles of the high state.
        high_cycles: u32 = 2 => 1..=16;
        /// Updates of the low state in each of them.
        low_cycles: u32 = 2 => 1..=16;
        /// Which networks update the two states.
        networks: Networks = Networks::Separate;
        /// What an update does with the network's output.
        update: StateUpdate = StateUpdate::Replace;
        /// How one state enters the update of the other.
        injection: Injection = Injection::Sum;
        /// Adds the embedding to the input of every update of the low state.
        embedding_injection: bool = false;
        /// Where the states start.
        start: RecursionStart = RecursionStart::Embedding;
        /// Which calls give gradients.
        #[class(optimisation)]
        gradient: RecursionGradient = RecursionGradient::LowSteps;
        /// Updates of the low state with gradient in the last high cycle; earlier high cycles have one.
        #[when("model.depth.recursion.gradient" = "low_steps")]
        #[class(optimisation)]
        low_gradient_steps: u32 = 2 => 1..=16;
        /// What the head reads.
        head: HeadReads = HeadReads::State;
        /// What becomes of the states after a micro-batch.
        carry: Carry = Carry::Dropped;
        /// Micro-batches after which a carried state starts anew.
        #[when("model.depth.recursion.carry" = "same_data" | "next_data")]
        halt_after: u32 = 3 => 1..=64;
        /// Has a head for halting [2, D] that no loss reaches, as the published reasoning study did: it only counts as parameters.
        halting_head: bool = false;
    }
}

choices! {
    /// Which networks update the two states.
    pub enum Networks {
        /// one for each state (HRM, HrmText).
        Separate = "separate",
        /// one for both (TRM).
        Single = "single",
    }
}

choices! {
    /// What an update does with the network's output.
    pub enum StateUpdate {
        /// the output is the new state.
        Replace = "replace",
        /// the output is added to the state.
        Residual = "residual",
    }
}

choices! {
    /// How one state enters the update of the other.
    pub enum Injection {
        /// the network reads z_L + z_H.
        Sum = "sum",
        /// the other state passes a D x D projection, and the sum a LayerNorm of the updated state's own.
        Projected = "projected",
    }
}

choices! {
    /// Where the states start.
    pub enum RecursionStart {
        /// z_H at the embedding, z_L at zero (HrmText).
        Embedding = "embedding",
        /// both at learned vectors.
        Learned = "learned",
    }
}

choices! {
    /// Which calls of a recursive model give gradients.
    pub enum RecursionGradient {
        /// all.
        All = "all",
        /// those of the last high cycle.
        LastCycle = "last_cycle",
        /// all updates of the high state, and the last updates of the low state in each high cycle (HrmText).
        LowSteps = "low_steps",
    }
}

choices! {
    /// What the head of a recursive model reads.
    pub enum HeadReads {
        /// the high state.
        State = "state",
        /// the output of the last call of the network.
        Call = "call",
    }
}

choices! {
    /// What becomes of a recursive model's states after a micro-batch.
    pub enum Carry {
        /// they are dropped: every micro-batch starts anew (HrmText).
        Dropped = "none",
        /// they are kept, without their gradient, while the same data are given again (deep supervision as in HRM).
        SameData = "same_data",
        /// they are kept, without their gradient, and the next data enter: states of unrelated text (as the published reasoning
        /// study ran).
        NextData = "next_data",
    }
}

/// One call of a network of a recursive model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Updates the high state, or else the low one.
    pub is_high: bool,
    /// Gradients pass back through it.
    pub has_gradient: bool,
}

impl Recursion {
    /// The calls of one forward pass, in order.
    pub fn plan(&self) -> Vec<Call> {
        let mut plan = Vec::new();
        for high in 0..self.high_cycles {
            let is_last = high + 1 == self.high_cycles;
            let low_with_gradient = match self.gradient {
                RecursionGradient::All => self.low_cycles,
                RecursionGradient::LastCycle => {
                    if is_last {
                        self.low_cycles
                    } else {
                        0
                    }
                }
                RecursionGradient::LowSteps => {
                    if is_last {
                        self.low_gradient_steps.min(self.low_cycles)
                    } else {
                        1
                    }
                }
            };
            let low = |step: u32| Call { is_high: false, has_gradient: step + low_with_gradient >= self.low_cycles };
            plan.extend((0..self.low_cycles).map(low));
            plan.push(Call { is_high: true, has_gradient: is_last || self.gradient != RecursionGradient::LastCycle });
        }
        plan
    }
}
