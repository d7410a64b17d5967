//! The environment of the process, set before anything reads it. The only module of the workspace with `unsafe`.
#![allow(unsafe_code, reason = "setting a variable is unsafe while other threads may read the environment")]

/// Sets the variable that Mesa's Vulkan layer requires: on a machine without a desktop session it prints
/// `error: XDG_RUNTIME_DIR is invalid or not set` above the output of every command, although nothing is wrong.
///
/// Must be called first in `main`.
pub fn prepare() {
    const VARIABLE: &str = "XDG_RUNTIME_DIR";
    if cfg!(target_os = "linux") && std::env::var_os(VARIABLE).is_none_or(|folder| folder.is_empty()) {
        // SAFETY: `main` has started no thread yet, so nothing reads the environment at the same time.
        unsafe { std::env::set_var(VARIABLE, std::env::temp_dir()) };
    }
}
