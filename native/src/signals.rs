//! Ctrl-C and SIGTERM during a run.
//!
//! The first signal asks the run to stop: it saves a checkpoint, and its summary says that it was interrupted. The second ends
//! the process at once, in case the run hangs; a run folder survives being killed at any moment.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Exit code after a second signal, the same as after a kill by SIGINT.
const KILLED: i32 = 130;

/// Installs the handlers and returns the flag that the first signal sets.
pub fn stop_requested() -> io::Result<Arc<AtomicBool>> {
    let is_requested = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the flag is not set yet at the first signal.
        flag::register_conditional_shutdown(signal, KILLED, is_requested.clone())?;
        flag::register(signal, is_requested.clone())?;
    }
    Ok(is_requested)
}
