//! The self-test of products on cooperative matrices passes with the shape that the adapter lists, and finds one that is not its.

use moelab::{
    gpu::{Capabilities, GpuError},
    ops::{kernels::MODULES, self_test},
};

use crate::{harness::device, skipped::skipped};

#[test]
fn a_shape_of_another_adapter_is_found() {
    let device = device();
    let Some(own) = device.with_matrices(MODULES) else {
        skipped(&format!("{} has no cooperative matrices", device.adapter.name));
        return;
    };
    self_test(&device, own).expect("its own shape");
    self_test(&device, Capabilities { splits_operands: true, ..own }).expect("its own shape, with operands of two halves");
    let [size, _] = own.subgroup_sizes;
    // NVIDIA's matrices are spread over 32 invocations, lavapipe's over 8.
    let (foreign, side) = if size == 32 { (8, 8) } else { (32, 16) };
    let mut other = Capabilities { subgroup_sizes: [foreign; 2], ..own };
    other.matrices[0] = [side; 3];
    let outcome = self_test(&device, other);
    assert!(matches!(&outcome, Err(GpuError::NoMatrices { reason, .. }) if reason.contains("expected")), "{outcome:?}");
}
