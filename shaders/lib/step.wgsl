// The per-step scalars: the host writes them before each micro-step; schedules never touch the compiled plan.

struct Step {
    seed_low: u32,              // low half of the run's seed
    seed_high: u32,             // high half of the run's seed
    update: u32,                // updates done before this one
    micro_step: u32,            // micro-steps done before this one: the step of every random stream
    lr_adamw: f32,              // learning rate of AdamW
    lr_muon: f32,               // learning rate of Muon
    balance_coefficient: f32,   // coefficient of the load-balancing loss
    z_coefficient: f32,         // coefficient of the router's z-loss
    clip_norm: f32,             // largest gradient norm, 0: no clipping
    inverse_targets: f32,       // 1 / targets of this micro-batch
    loss_scale_exponent: u32,   // e: gradients are 2^e times what they stand for, so that f16 does not round them to zero
    real_tokens: u32,           // tokens of this micro-batch that are real, whole sequences from the first on; all if it is beyond the micro-batch's size; the rows after them are not counted, averaged or learned from
}

@group(1) @binding(0) var<uniform> step: Step;

// What turns computed gradients into those that they stand for; exact.
fn inverse_loss_scale() -> f32 {
    return bitcast<f32>((127u - step.loss_scale_exponent) << 23u);
}

// How many of a micro-batch's tokens are real.
fn real_of(tokens: u32) -> u32 {
    return min(step.real_tokens, tokens);
}
