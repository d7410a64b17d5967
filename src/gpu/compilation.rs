//! Kernels compiled one at a time, ahead of [`Plan::compile`](super::Plan::compile), which then finds them: a driver takes
//! milliseconds to seconds for each, and whoever waits is told how far it is.

use std::collections::HashSet;

use super::{Device, KernelInfo, Program, program::Command};

/// Kernels with the values of their constants, compiled or not.
pub struct Compilation {
    kernels: Vec<(&'static KernelInfo, Vec<(&'static str, f64)>)>,
    done: usize,
}

impl Compilation {
    /// Of all kernels of some programs, each once, in the order in which they are first used.
    pub fn of(programs: &[&Program]) -> Compilation {
        let mut seen = HashSet::new();
        let commands = programs.iter().flat_map(|program| program.micro.iter().chain(&program.update));
        let dispatches = commands.filter_map(|command| if let Command::Dispatch(dispatch) = command { Some(dispatch) } else { None });
        let first = dispatches.filter(|d| {
            let constants: Vec<_> = d.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect();
            seen.insert((std::ptr::from_ref(d.kernel).addr(), constants))
        });
        Compilation { kernels: first.map(|d| (d.kernel, d.constants.clone())).collect(), done: 0 }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.kernels.len()
    }

    /// How many are compiled.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Name of the kernel that is next; `None` when all are compiled.
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
