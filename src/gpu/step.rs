//! The per-step scalars that every kernel may read (`shaders/lib/step.wgsl`, group 1).

/// What the host sets before each micro-step. Schedules never touch the compiled plan.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Step {
    /// Low half of the run's seed.
    pub seed_low: u32,
    /// High half of the run's seed.
    pub seed_high: u32,
    /// Updates done before this one.
    pub update: u32,
    /// Micro-steps done before this one; the step of every random stream.
    pub micro_step: u32,
    /// Learning rate of AdamW.
    pub lr_adamw: f32,
    /// Learning rate of Muon.
    pub lr_muon: f32,
    /// Coefficient of the load-balancing loss.
    pub balance_coefficient: f32,
    /// Coefficient of the router's z-loss.
    pub z_coefficient: f32,
    /// Largest gradient norm; 0 = no clipping.
    pub clip_norm: f32,
    /// 1 / targets of this micro-batch.
    pub inverse_targets: f32,
    /// Tokens of this micro-batch that are real, whole sequences from the first on; any number beyond its size stands for all.
    /// The rows after them fill it up: they pass through the model, and nothing is counted, averaged or learned from them.
    pub real_tokens: u32,
}

impl Default for Step {
    /// Zeros, and a full micro-batch.
    fn default() -> Step {
        Step { real_tokens: u32::MAX, ..bytemuck::Zeroable::zeroed() }
    }
}
