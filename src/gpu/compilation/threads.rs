//! Kernels compiled by several threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{Builder, JoinHandle, available_parallelism},
    time::Duration,
};

use crate::gpu::pipelines::{Kernel, Pipelines};

/// Maximum number of threads: drivers share locks.
const MAX_THREADS: usize = 8;
/// How long [`Ahead::finished`] waits for a kernel.
const WAIT: Duration = Duration::from_millis(5);

struct Work {
    pipelines: Arc<Pipelines>,
    kernels: Vec<Kernel>,
    /// Index of the next kernel that no thread has taken.
    next: AtomicUsize,
}

/// Kernels that are being compiled.
pub(super) struct Ahead {
    work: Arc<Work>,
    finished: Receiver<usize>,
    threads: Vec<JoinHandle<()>>,
}

impl Ahead {
    pub(super) fn start(pipelines: &Arc<Pipelines>, kernels: &[Kernel]) -> Ahead {
        let work = Arc::new(Work { pipelines: pipelines.clone(), kernels: kernels.to_vec(), next: AtomicUsize::new(0) });
        let (sender, finished) = channel();
        let count = available_parallelism().map_or(1, usize::from).min(MAX_THREADS).min(kernels.len());
        // A thread that cannot be started is not missed: `finished` compiles what nobody else does.
        let threads = (0..count).filter_map(|_| {
            let (work, sender) = (work.clone(), sender.clone());
            let compile = move || {
                loop {
                    let index = work.next.fetch_add(1, Ordering::Relaxed);
                    let Some(kernel) = work.kernels.get(index) else { return };
                    work.pipelines.get(kernel);
                    if sender.send(index).is_err() {
                        return;
                    }
                }
            };
            Builder::new().name("kernels".into()).spawn(compile).ok()
        });
        Ahead { threads: threads.collect(), work, finished }
    }

    /// The indices of the kernels that were finished since the last call; waits up to [`WAIT`] for one. `first` is the first that is not
    /// finished.
    pub(super) fn finished(&mut self, first: usize) -> Vec<usize> {
        match self.finished.recv_timeout(WAIT) {
            Ok(index) => std::iter::once(index).chain(self.finished.try_iter()).collect(),
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            // No thread is left: one has panicked, or none could be started.
            Err(RecvTimeoutError::Disconnected) => {
                self.work.pipelines.get(&self.work.kernels[first]);
                vec![first]
            }
        }
    }
}

impl Drop for Ahead {
    /// Leaves the rest uncompiled. A driver must not be compiling when the process ends.
    fn drop(&mut self) {
        self.work.next.store(self.work.kernels.len(), Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread.
            let _ = thread.join();
        }
    }
}
