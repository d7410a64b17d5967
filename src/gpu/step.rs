//! The per-step scalars that every kernel may read (`shaders/lib/step.wgsl`, group 1).

include!(concat!(env!("OUT_DIR"), "/step.rs"));

impl Default for Step {
    /// Zeros, and a full micro-batch.
    fn default() -> Step {
        Step { real_tokens: u32::MAX, ..bytemuck::Zeroable::zeroed() }
    }
}
