//! Compiles kernels ahead of [`Plan::compile`](super::Plan::compile): several at a time, and so that progress can be reported. A
//! driver takes milliseconds to seconds for each.

use std::collections::HashSet;

use super::{Device, Program, pipelines::Kernel, program::Command};

#[cfg_attr(target_arch = "wasm32", path = "promises.rs")]
#[cfg_attr(not(target_arch = "wasm32"), path = "threads.rs")]
mod ahead;
use ahead::Ahead;

/// Kernels with the values of their constants, to be compiled.
pub struct Compilation {
    kernels: Vec<Kernel>,
    is_done: Vec<bool>,
    ahead: Option<Ahead>,
}

impl Compilation {
    /// The kernels of some programs that the device has not compiled yet, without duplicates, in the order of first use.
    pub fn of(device: &Device, programs: &[&Program]) -> Compilation {
        let mut seen = HashSet::new();
        let commands = programs.iter().flat_map(|program| program.micro.iter().chain(&program.update));
        let dispatches = commands.filter_map(|command| if let Command::Dispatch(dispatch) = command { Some(dispatch) } else { None });
        let kernels = dispatches.map(|dispatch| Kernel { info: dispatch.kernel, constants: dispatch.constants.clone() });
        let kernels: Vec<_> = kernels.filter(|kernel| seen.insert(kernel.key()) && !device.pipelines.has(kernel)).collect();
        Compilation { is_done: vec![false; kernels.len()], kernels, ahead: None }
    }

    /// Number of kernels.
    pub fn total(&self) -> usize {
        self.kernels.len()
    }

    /// Number of compiled kernels.
    pub fn done(&self) -> usize {
        self.is_done.iter().filter(|is_done| **is_done).count()
    }

    /// Name of the first kernel that is not compiled; `None` when all are.
    pub fn next(&self) -> Option<String> {
        let at = self.is_done.iter().position(|is_done| !is_done)?;
        Some(self.kernels[at].info.name())
    }

    /// Compiles what is left, with several threads. In a browser, which must not wait, it is left to the first use of each.
    pub(super) fn complete(&mut self, device: &Device) {
        while cfg!(not(target_arch = "wasm32")) && self.next().is_some() {
            self.proceed(device);
        }
    }

    /// Starts to compile at the first call; returns whether kernels were finished since the last call. Waits for a few milliseconds at
    /// most, in a browser not at all. If the system refuses threads, it compiles a kernel itself.
    pub fn proceed(&mut self, device: &Device) -> bool {
        let Some(first) = self.is_done.iter().position(|is_done| !is_done) else { return false };
        let ahead = self.ahead.get_or_insert_with(|| Ahead::start(&device.pipelines, &self.kernels));
        let finished = ahead.finished(first);
        for index in &finished {
            self.is_done[*index] = true;
        }
        !finished.is_empty()
    }
}
