//! Ctrl-C and SIGTERM while a run goes on.
//!
//! The first asks the run to end in order: it saves a checkpoint, and its summary says that it was interrupted. The second ends
//! the process at once, as a run that hangs must be; the run's folder is made for being killed at any moment.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Exit code of a process that a second signal ended, as of one that SIGINT killed.
const KILLED: i32 = 130;

/// Takes over the signals and returns the flag that the first one sets.
pub fn stop_requested() -> io::Result<Arc<AtomicBool>> {
    let is_requested = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal finds the flag not set.
        flag::register_conditional_shutdown(signal, KILLED, is_requested.clone())?;
        flag::register(signal, is_requested.clone())?;
    }
    Ok(is_requested)
}
