//! Planned memory, refreshes of representations and the shapes of images as pure functions, on random programs.

mod select;
mod shader_build;
#[path = "../helpers/skipped.rs"]
mod skipped;
mod spirv;

use moelab::gpu::{
    Access, BindingInfo, BindingKind, Command, DType, Dispatch, ImageRow, KernelInfo, ModuleInfo, Program, Requirements, Role, Shape,
    Tensor, TensorId, TensorInfo, flat_image,
    memory::{SlotPool, lifetimes, live_bytes, plan_memory},
    representation::{Represented, image_bytes, plan_images, representations_of, schedule_refreshes, texels},
};
use proptest::prelude::*;

const NOTHING: Requirements =
    Requirements { images: false, buffers: false, f16: false, subgroup: 0, matrix: None, invocations: 0, workgroup_bytes: 0 };
static MODULE: ModuleInfo = ModuleInfo { name: "test", bit: None, source: "", requires: NOTHING, unchecked: false };

const fn binding(name: &'static str, field: usize, kind: BindingKind, access: Access) -> BindingInfo {
    BindingInfo { name, field, binding: 1, kind, dtype: DType::F32, element_bytes: 16, access }
}

const BUFFER: BindingKind = BindingKind::Storage { read_only: false };

static READS_BUFFER: KernelInfo = KernelInfo {
    module: &MODULE,
    entry: "buffer",
    params_bytes: 0,
    uses_step: false,
    overrides: &[],
    constants: &[],
    bindings: &[binding("x", 0, BUFFER, Access::Read), binding("y", 1, BUFFER, Access::Write)],
    fits: |_, _| true,
    grid: |_, _| [1, 1, 1],
};

static READS_IMAGE: KernelInfo = KernelInfo {
    entry: "image",
    bindings: &[binding("x", 0, BindingKind::Texels(ImageRow::Row), Access::Read), binding("y", 1, BUFFER, Access::Write)],
    ..READS_BUFFER
};

fn tensor(id: usize, width: u32) -> Tensor {
    Tensor { id: TensorId(id as u32), shape: Shape::from([4, width]), dtype: DType::F32, is_detached: false }
}

/// A program in SSA form: each command reads an earlier tensor and writes a new one. `(source, width, is_image)`.
fn program(steps: &[(usize, u32, bool)], update_from: usize) -> Program {
    let mut program = Program::default();
    let info = |name: String, width: u32, role: Role| TensorInfo {
        name,
        shape: Shape::from([4, width]),
        dtype: DType::F32,
        role,
        values: None,
        within: None,
    };
    program.tensors.push(info("input".into(), 64, Role::Input));
    for (index, (source, width, is_image)) in steps.iter().enumerate() {
        let source = source % (index + 1);
        let source = tensor(source, program.tensors[source].shape.last());
        program.tensors.push(info(format!("t{index}"), *width, Role::Activation));
        let kernel = if *is_image { &READS_IMAGE } else { &READS_BUFFER };
        let tensors = vec![source, tensor(index + 1, *width)];
        let command =
            Command::Dispatch(Dispatch { kernel, siblings: &[], constants: vec![], params: vec![], tensors, workgroups: [1, 1, 1] });
        if index < update_from { program.micro.push(command) } else { program.update.push(command) }
    }
    program
}

fn steps() -> impl Strategy<Value = (Vec<(usize, u32, bool)>, usize)> {
    let width = prop_oneof![Just(64u32), Just(128), Just(192)];
    (prop::collection::vec((0usize..40, width, any::<bool>()), 1..40), 0usize..40)
}

proptest! {
    // A failure prints its least input; it leaves no file behind.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_live_tensors_share_a_slot((steps, update_from) in steps()) {
        let program = program(&steps, update_from);
        let (plan, spans) = (plan_memory(&program, true), lifetimes(&program));
        for a in 0..spans.len() {
            if let (Some(slot), Some(span)) = (plan.slot_of[a], spans[a]) {
                prop_assert!(plan.slot_bytes[slot] >= program.tensors[a].bytes());
                for (b, other) in spans[..a].iter().enumerate() {
                    if plan.slot_of[b] == Some(slot) {
                        let other = other.expect("a planned tensor is used");
                        prop_assert!(span.0 > other.1 || other.0 > span.1, "{a} {span:?} and {b} {other:?} share slot {slot}");
                    }
                }
            }
        }
        let off = plan_memory(&program, false);
        prop_assert_eq!(off.slot_bytes.len(), spans.iter().flatten().count());
        prop_assert!((live_bytes(&program)..=off.total_bytes()).contains(&plan.total_bytes()));
    }

    /// Replays a list with version numbers: what a kernel reads through an image is what was last written.
    #[test]
    fn representations_are_current_wherever_they_are_read((steps, _) in steps()) {
        let program = program(&steps, usize::MAX);
        let refreshes = schedule_refreshes(&program.micro, |_| false);
        let mut versions = vec![0usize; program.tensors.len()];
        let images = plan_images(&program, &program.micro, &refreshes, true);
        // What each texture holds, and the texture that a kernel reads.
        let mut holds = vec![None; images.textures.len()];
        let mut read = std::collections::HashMap::<Represented, usize>::new();
        for (index, command) in program.micro.iter().enumerate() {
            for key in &refreshes[index] {
                let texture = images.texture_of[&(*key, index)];
                prop_assert_eq!(images.textures[texture], texels(&program, *key));
                holds[texture] = Some((*key, versions[key.tensor.0 as usize]));
                read.insert(*key, texture);
            }
            for key in representations_of(command) {
                prop_assert_eq!(holds[read[&key]], Some((key, versions[key.tensor.0 as usize])), "{:?} at {}", key, index);
            }
            for (id, access, _) in command.uses() {
                if access.writes() {
                    versions[id.0 as usize] = index + 1;
                }
            }
        }
    }
}

#[test]
fn a_chain_of_equal_sizes_needs_two_slots() {
    let chain: Vec<_> = (0..10).map(|i| (i, 64, false)).collect();
    let plan = plan_memory(&program(&chain, usize::MAX), true);
    assert_eq!(plan.slot_bytes.len(), 2);
}

/// Plans run one after another, but something may run between a micro-batch and the update that reads its activations.
#[test]
fn plans_share_slots_unless_an_update_reads_the_micro_batch() {
    let chain: Vec<_> = (0..10).map(|i| (i, 64, false)).collect();
    let [apart, reading] = [usize::MAX, 5].map(|update_from| program(&chain, update_from));
    let mut pool = SlotPool::default();
    let mut take = |program: &Program| pool.take(program, &plan_memory(program, true));
    let first = take(&apart);
    let own = take(&reading);
    assert!(own.iter().all(|slot| !first.contains(slot)), "{own:?}");
    let mut second = take(&apart);
    second.sort();
    assert_eq!(second, [0, 1], "a slot of its own, and none of {own:?}");
    assert_eq!(pool.bytes.len(), 4);
}

#[test]
fn one_interruption_refreshes_all_that_is_complete() {
    // Three tensors are made from the input, then read through images one after the other.
    let list = [(0, 64, false), (0, 64, false), (0, 64, false), (1, 64, true), (2, 64, true), (3, 64, true)];
    let refreshes = schedule_refreshes(&program(&list, usize::MAX).micro, |_| false);
    let counts: Vec<usize> = refreshes.iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 0, 0, 3, 0, 0]);
}

#[test]
fn bytes_of_images_are_those_of_their_textures() {
    // Read one after the other: [4, 64] and [4, 128] have a texture each, and the third that of the first.
    let list = [(0, 64, true), (1, 128, false), (2, 64, true), (3, 64, true)];
    assert_eq!(image_bytes(&[&program(&list, usize::MAX)]), 4 * 4 * (64 + 128));
}

#[test]
fn flat_images_have_rows_of_a_power_of_two() {
    let shape = |dims: [u32; 2]| {
        let t = Tensor { shape: Shape::from(dims), ..tensor(0, 64) };
        flat_image(t).map(|t| t.shape.matrix("flat"))
    };
    assert_eq!(shape([16, 20]), Some([5, 64]));
    assert_eq!(shape([8192, 64]), Some([8192, 64]));
    assert_eq!(shape([8192, 192]), Some([6144, 256]));
    assert_eq!(shape([8193, 64]), None); // an odd number of rows cannot be halved
    assert_eq!(shape([7, 20]), None);
}
