//! What backward computes again is what forward computed, bit for bit, and is not kept in between.

use moelab::gpu::{Capabilities, Command, Program, memory::live_bytes};

use crate::halves::{gradients_of_layer, layer};

fn launches(program: &Program, kernel: &str) -> usize {
    program.micro.iter().filter(|command| matches!(command, Command::Dispatch(d) if d.kernel.name() == kernel)).count()
}

#[test]
fn a_large_activation_is_computed_again() {
    let with = |recomputed_bytes| {
        let (g, inputs, gradients) = layer(Capabilities { recomputed_bytes, ..Capabilities::PORTABLE });
        (g.finish(), inputs, gradients)
    };
    let (kept, inputs, gradients) = with(u64::MAX);
    let (again, ..) = with(0);
    // The rows of 128 tokens for two experts each are the largest.
    let (largest, ..) = with(256 * 64 * 4);
    let counts = |program: &Program| ["rms_norm.forward_again", "gather_rows_vec4.forward"].map(|kernel| launches(program, kernel));
    assert_eq!([&kept, &again, &largest].map(counts), [[0, 1], [2, 2], [0, 2]]);
    assert!(live_bytes(&again) < live_bytes(&largest) && live_bytes(&largest) < live_bytes(&kept));
    let wanted = gradients_of_layer(kept, &inputs, &gradients);
    assert_eq!(gradients_of_layer(again, &inputs, &gradients), wanted);
    assert_eq!(gradients_of_layer(largest, &inputs, &gradients), wanted);
}
