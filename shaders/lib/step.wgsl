// The per-step scalars: the host writes them before each micro-step; schedules never touch the compiled plan.

struct Step {
    seed_low: u32,
    seed_high: u32,
    update: u32,                // updates done before this one
    micro_step: u32,            // micro-steps done before this one: the step of every random stream
    lr_adamw: f32,
    lr_muon: f32,
    balance_coefficient: f32,
    z_coefficient: f32,
    clip_norm: f32,             // 0 = no clipping
    inverse_targets: f32,       // 1 / targets of this micro-batch
    real_tokens: u32,           // of this micro-batch, whole sequences from the first on; the rest only fills it up
}

@group(1) @binding(0) var<uniform> step: Step;

// How many of a micro-batch's tokens are real.
fn real_of(tokens: u32) -> u32 {
    return min(step.real_tokens, tokens);
}
