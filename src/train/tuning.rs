//! Kernels chosen by measurement: the table [`Kernels`] of a config holds for the adapter, the driver and the shaders that were
//! measured, and for no others.

use std::sync::OnceLock;

use crate::{
    gpu::{Capabilities, Device, GpuError, ModuleInfo},
    ops::kernels::MODULES,
    run::{config::Kernels, digest::sha256_hex},
};

/// Digits of a hash in a config.
const DIGITS: usize = 16;

/// The hash of every shader of this build.
pub fn shaders() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let all: String = MODULES.iter().flat_map(|m| [m.name, "\n", m.source, "\n"]).collect();
        sha256_hex(all.as_bytes()).chars().take(DIGITS).collect()
    })
}

/// What the device runs, changed by the table if it holds for it.
///
/// # Errors
/// If the table names a module that there is not, or one that no other can replace.
pub fn tuned(kernels: &Kernels, device: &Device) -> Result<Capabilities, GpuError> {
    let mut tuned = device.capabilities;
    if kernels.adapter.is_empty() || why_not(kernels, device).is_some() {
        return Ok(tuned);
    }
    for name in &kernels.without {
        let unknown = || GpuError::UnknownKernels { name: name.clone() };
        tuned.without = tuned.without.with(replaceable(name).ok_or_else(unknown)?);
    }
    if kernels.workgroups > 0 {
        tuned.workgroups = kernels.workgroups;
    }
    tuned.logit_rows = kernels.logit_rows;
    Ok(tuned)
}

fn replaceable(name: &str) -> Option<&'static ModuleInfo> {
    MODULES.iter().copied().find(|m| m.name == name && m.bit.is_some())
}

/// Why a config's table does not hold for a device, as a sentence for its user; `None` if it does, or if there is none.
pub fn why_not(kernels: &Kernels, device: &Device) -> Option<String> {
    if kernels.adapter.is_empty() {
        return None;
    }
    let adapter = &device.adapter;
    let pairs = [
        ("adapter", &*kernels.adapter, &*adapter.name),
        ("driver", &*kernels.driver, &*adapter.driver),
        ("shaders", &*kernels.shaders, shaders()),
    ];
    let (what, measured, found) = pairs.into_iter().find(|(_, measured, found)| measured != found)?;
    Some(format!(
        "`kernels` was measured with {what} `{measured}`, this is `{found}`: the fixed choice of kernels trains. Measure again with `moelab tune`"
    ))
}
