//! Options of a recursive model, and the calls that result from them.

use crate::{choices, options};

options! {
    /// Recursion over a high state z_H and a low state z_L: in each high cycle z_L is updated `low_cycles` times
    /// and z_H once.
    pub struct Recursion: model {
        /// Cycles of the high state.
        high_cycles: u32 = 2 => 1..=16;
        /// Updates of the low state per high cycle.
        low_cycles: u32 = 2 => 1..=16;
        /// The networks that update the two states.
        networks: Networks = Networks::Separate;
        /// How the network's output updates a state.
        update: StateUpdate = StateUpdate::Replace;
        /// How one state is injected into the update of the other.
        injection: Injection = Injection::Sum;
        /// Adds the embedding to the input of every update of the low state.
        embedding_injection: bool = false;
        /// Initial states.
        start: RecursionStart = RecursionStart::Embedding;
        /// Which calls have gradients.
        #[class(optimisation)]
        gradient: RecursionGradient = RecursionGradient::LowSteps;
        /// Updates of the low state with gradient in the last high cycle; earlier high cycles have one.
        #[when("model.depth.recursion.gradient" = "low_steps")]
        #[class(optimisation)]
        low_gradient_steps: u32 = 2 => 1..=16;
        /// The input of the head.
        head: HeadReads = HeadReads::State;
        /// What happens to the states after a micro-batch.
        carry: Carry = Carry::Dropped;
        /// Micro-batches after which a carried state is reset.
        #[when("model.depth.recursion.carry" = "same_data" | "next_data")]
        halt_after: u32 = 3 => 1..=64;
        /// Adds a halting head [2, D] without a loss, as in the published reasoning study: it only counts towards the parameters.
        halting_head: bool = false;
    }
}

choices! {
    /// The networks that update the two states.
    pub enum Networks {
        /// one for each state (HRM, HrmText).
        Separate = "separate",
        /// one for both (TRM).
        Single = "single",
    }
}

choices! {
    /// How the network's output updates a state.
    pub enum StateUpdate {
        /// the output is the new state.
        Replace = "replace",
        /// the output is added to the state.
        Residual = "residual",
    }
}

choices! {
    /// How one state is injected into the update of the other.
    pub enum Injection {
        /// the network reads z_L + z_H.
        Sum = "sum",
        /// the other state passes through a D x D projection, and the sum through a separate LayerNorm for each state.
        Projected = "projected",
    }
}

choices! {
    /// Initial states.
    pub enum RecursionStart {
        /// z_H is the embedding, z_L is zero (HrmText).
        Embedding = "embedding",
        /// both are learned vectors.
        Learned = "learned",
    }
}

choices! {
    /// Which calls of a recursive model have gradients.
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
    /// The input of the head of a recursive model.
    pub enum HeadReads {
        /// the high state.
        State = "state",
        /// the output of the last call of the network.
        Call = "call",
    }
}

choices! {
    /// What happens to a recursive model's states after a micro-batch.
    pub enum Carry {
        /// they are discarded: every micro-batch starts from the initial states (HrmText).
        Dropped = "none",
        /// they are kept, without gradient, while the same data are repeated (deep supervision as in HRM).
        SameData = "same_data",
        /// they are kept, without gradient, for the next data: states of unrelated text (as in the runs of the published reasoning
        /// study).
        NextData = "next_data",
    }
}

/// One call of a network of a recursive model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whether it updates the high state or the low one.
    pub is_high: bool,
    /// Whether it has a gradient.
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
