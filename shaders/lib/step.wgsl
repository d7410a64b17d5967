// The per-step scalars: the host writes them before each micro-step; schedules never touch the compiled plan.

struct Step {
    seed_low: u32,
    seed_high: u32,
    update: u32,                // updates done before this one
    micro_step: u32,            // micro-steps done before this one: the step of every random stream
    lr_adamw: f32,
    lr_muon: f32,
    adamw_correction1: f32,     // 1 - beta1^t, t = update + 1
    adamw_correction2: f32,     // 1 - beta2^t
    balance_coefficient: f32,
    z_coefficient: f32,
    clip_norm: f32,             // 0 = no clipping
    inverse_targets: f32,       // 1 / targets of this micro-batch
    inverse_accumulation: f32,  // 1 / micro-batches of an update
}

@group(1) @binding(0) var<uniform> step: Step;
