//! The per-step scalars that every kernel may read (`shaders/lib/step.wgsl`, group 1).

/// What the host sets before each micro-step. Schedules never touch the compiled plan.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
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
    /// 1 / micro-batches of an update.
    pub inverse_accumulation: f32,
}
