//! Compiles kernels one at a time, ahead of [`Plan::compile`](super::Plan::compile), so that progress can be reported: a driver
//! takes milliseconds to seconds for each.

use std::collections::HashSet;

use super::{Device, KernelInfo, Program, program::Command};

/// Kernels with the values of their constants, to be compiled.
pub struct Compilation {
    kernels: Vec<(&'static KernelInfo, Vec<(&'static str, f64)>)>,
    done: usize,
}

impl Compilation {
    /// The kernels of some programs that the device has not compiled yet, without duplicates, in the order of first use.
    pub fn of(device: &Device, programs: &[&Program]) -> Compilation {
        let mut seen = HashSet::new();
        let commands = programs.iter().flat_map(|program| program.micro.iter().chain(&program.update));
        let dispatches = commands.filter_map(|command| if let Command::Dispatch(dispatch) = command { Some(dispatch) } else { None });
        let first = dispatches.filter(|d| {
            let constants: Vec<_> = d.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect();
            seen.insert((std::ptr::from_ref(d.kernel).addr(), constants)) && !device.has_pipeline(d.kernel, &d.constants)
        });
        Compilation { kernels: first.map(|d| (d.kernel, d.constants.clone())).collect(), done: 0 }
    }

    /// Number of kernels.
    pub fn total(&self) -> usize {
        self.kernels.len()
    }

    /// Number of compiled kernels.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Name of the next kernel; `None` when all are compiled.
    pub fn next(&self) -> Option<String> {
        self.kernels.get(self.done).map(|(kernel, _)| kernel.name())
    }

    /// Compiles the next one.
    pub fn proceed(&mut self, device: &Device) {
        if let Some((kernel, constants)) = self.kernels.get(self.done) {
            device.pipeline(kernel, constants);
            self.done += 1;
        }
    }
}
