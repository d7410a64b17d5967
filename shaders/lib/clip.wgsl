// What grad_norm leaves for the optimizers, in a u32 array so that no float that may be infinite is handled as one.

const CLIP_NORM = 0u;    // bits of the global L2 norm of the gradients before clipping; infinity if not finite
const CLIP_FACTOR = 1u;  // bits of the factor that gradients are multiplied by
const CLIP_FINITE = 2u;  // 1 if every gradient is finite, 0: skip the update
const CLIP_SKIPPED = 3u; // updates skipped so far, this one included
