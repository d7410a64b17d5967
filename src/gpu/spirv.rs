//! SPIR-V of kernels with cooperative matrices, with naga's memory accesses repaired.
//!
//! naga 30 declares the Vulkan memory model for them, under which an access is private to its invocation unless it says otherwise, and
//! says nothing (gfx-rs/wgpu#8805; the fix, PR #10016, is not released): what one invocation stages in workgroup memory for another is
//! undefined. [`repaired`] marks every access to workgroup and storage memory as not private, and lets barriers make writes available
//! and visible. On an NVIDIA H200 (driver 580) and on lavapipe (Mesa 26.1.6) products are right and equally fast with and without it: it
//! is here because nothing promises that. To be deleted when wgpu has the fix.

use std::collections::{HashMap, HashSet};

use naga::{
    back::{pipeline_constants::process_overrides, spv},
    valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator},
};

use super::{KernelInfo, unchecked};

/// The module of a kernel with cooperative matrices, which has the values of its constants; `None` for other kernels.
///
/// # Panics
/// As [`spirv`].
pub(super) fn module(device: &wgpu::Device, info: &KernelInfo, constants: &[(&'static str, f64)]) -> Option<wgpu::ShaderModule> {
    info.module.requires.matrix?;
    let Spirv { words, workgroup_size } = spirv(info, constants);
    Some(unchecked::create_spirv_module(device, info.entry, workgroup_size, words))
}

/// The SPIR-V of one entry point.
pub struct Spirv {
    /// The words.
    pub words: Vec<u32>,
    /// Invocations of a workgroup.
    pub workgroup_size: [u32; 3],
}

/// The SPIR-V of a kernel with the values of its constants, repaired if it has cooperative matrices.
///
/// # Panics
/// If naga refuses a source that the build script accepted, or a constant has no value.
pub fn spirv(info: &KernelInfo, constants: &[(&'static str, f64)]) -> Spirv {
    let refused = |stage: &str, why: String| -> ! { panic!("{}: naga refuses its {stage}: {why}", info.name()) };
    let module = naga::front::wgsl::parse_str(info.module.source).unwrap_or_else(|e| refused("source", e.to_string()));
    let capabilities = Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX;
    let valid = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|e| refused("module", e.to_string()));
    let constants = info.constants.iter().chain(constants).map(|(name, value)| (name.to_string(), *value)).collect();
    let (module, valid) = process_overrides(&module, &valid, None, &constants).unwrap_or_else(|e| refused("constants", e.to_string()));
    let entry = module.entry_points.iter().find(|entry| entry.name == info.entry);
    let workgroup_size = entry.map(|entry| entry.workgroup_size).unwrap_or_default();
    // wgpu numbers the bindings of a layout without gaps.
    let own = (info.params_bytes > 0).then_some(0).into_iter().chain(info.bindings.iter().map(|b| b.binding));
    let binding = |(place, binding): (usize, u32)| {
        let at = spv::BindingInfo { descriptor_set: 0, binding: place as u32, binding_array_size: None };
        (naga::ResourceBinding { group: 0, binding }, at)
    };
    let mut options = spv::Options {
        lang_version: (1, 3),
        binding_map: own.enumerate().map(binding).collect(),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..Default::default()
    };
    options.flags.remove(spv::WriterFlags::DEBUG);
    let entry = spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: info.entry.into() };
    let words = spv::write_vec(&module, &valid, &options, Some(&entry)).unwrap_or_else(|e| refused("SPIR-V", e.to_string()));
    let words = if info.module.requires.matrix.is_some() { repaired(&words) } else { words };
    Spirv { words, workgroup_size }
}

// Of the SPIR-V specification.
const HEADER_WORDS: usize = 5;
const BOUND: usize = 3;
const OP_TYPE_POINTER: u32 = 32;
const OP_CONSTANT: u32 = 43;
const OP_FUNCTION_PARAMETER: u32 = 55;
const OP_VARIABLE: u32 = 59;
const OP_LOAD: u32 = 61;
const OP_STORE: u32 = 62;
const OP_ACCESS_CHAIN: u32 = 65;
const OP_IN_BOUNDS_ACCESS_CHAIN: u32 = 66;
const OP_COPY_OBJECT: u32 = 83;
const OP_CONTROL_BARRIER: u32 = 224;
const OP_MEMORY_BARRIER: u32 = 225;
const OP_COOPERATIVE_MATRIX_LOAD: u32 = 4457;
const OP_COOPERATIVE_MATRIX_STORE: u32 = 4458;
const WORKGROUP: u32 = 4;
const STORAGE_BUFFER: u32 = 12;
const NON_PRIVATE_POINTER: u32 = 0x20;
const MAKE_AVAILABLE_AND_VISIBLE: u32 = 0x6000;

/// SPIR-V whose accesses to shared memory are not private.
fn repaired(spirv: &[u32]) -> Vec<u32> {
    let instructions = || {
        let mut rest = spirv.get(HEADER_WORDS..).unwrap_or_default();
        std::iter::from_fn(move || {
            let first = *rest.first()?;
            let (words, after) = rest.split_at(((first >> 16).max(1) as usize).min(rest.len()));
            rest = after;
            Some((first & 0xffff, words))
        })
    };
    let (mut storage_class, mut shared, mut semantics) = (HashMap::new(), HashSet::new(), HashMap::new());
    let mut bound = spirv[BOUND];
    let mut semantics_of = |id: u32, bound: &mut u32| {
        semantics.entry(id).or_insert_with(|| {
            *bound += 1;
            *bound - 1
        });
    };
    for (op, words) in instructions() {
        match (op, words) {
            (OP_TYPE_POINTER, [_, id, class, ..]) => drop(storage_class.insert(*id, *class)),
            (OP_FUNCTION_PARAMETER | OP_VARIABLE | OP_ACCESS_CHAIN | OP_IN_BOUNDS_ACCESS_CHAIN | OP_COPY_OBJECT, [_, ty, id, ..])
                if matches!(storage_class.get(ty), Some(&(WORKGROUP | STORAGE_BUFFER))) =>
            {
                shared.insert(*id);
            }
            (OP_CONTROL_BARRIER, [_, _, _, id]) | (OP_MEMORY_BARRIER, [_, _, id]) => semantics_of(*id, &mut bound),
            _ => {}
        }
    }
    let mut out = spirv[..HEADER_WORDS].to_vec();
    out[BOUND] = bound;
    for (op, words) in instructions() {
        let mut words = words.to_vec();
        // Where the pointer and the memory operands stand.
        let place = match op {
            OP_LOAD => Some((3, 4)),
            OP_STORE => Some((1, 3)),
            OP_COOPERATIVE_MATRIX_LOAD => Some((3, 6)),
            OP_COOPERATIVE_MATRIX_STORE => Some((1, 5)),
            _ => None,
        };
        if let Some((pointer, operands)) = place
            && shared.contains(&words[pointer])
        {
            match words.get_mut(operands) {
                Some(mask) => *mask |= NON_PRIVATE_POINTER,
                None => words.push(NON_PRIVATE_POINTER),
            }
            words[0] = (words.len() as u32) << 16 | op;
        }
        match op {
            OP_CONTROL_BARRIER => words[3] = semantics[&words[3]],
            OP_MEMORY_BARRIER => words[2] = semantics[&words[2]],
            _ => {}
        }
        out.extend(&words);
        // A barrier's semantics are a constant that others may share: it gets one of its own.
        if op == OP_CONSTANT
            && let Some(id) = semantics.get(&words[2])
        {
            out.extend([words[0], words[1], *id, words[3] | MAKE_AVAILABLE_AND_VISIBLE]);
        }
    }
    out
}
