//! Documentation without warnings, from what the tests have compiled.
//!
//! `cargo doc` checks every dependency anew, which takes minutes. `cargo test --doc` hands rustdoc the crates that the tests use; so xtask stands in
//! for rustdoc there, and writes the documentation with the same arguments instead of running its examples.

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

/// Set where xtask is called as rustdoc; its value is the crate to document. Others are left out.
pub const DOCUMENTED: &str = "MOELAB_DOCUMENTED";

/// Set to the real rustdoc, if it is not the usual one.
pub const REAL: &str = "MOELAB_RUSTDOC";

/// What `cargo test --doc` adds for examples.
const OF_EXAMPLES: [&str; 2] = ["--test-run-directory", "--test-args"];

/// Documents the crate, if it is the one.
///
/// # Errors
/// If rustdoc cannot be started.
pub fn run(documented: &str, arguments: &[String]) -> Result<ExitCode> {
    let rustdoc = env::var_os(REAL).unwrap_or_else(|| "rustdoc".into());
    let Some(arguments) = of_documentation(documented, arguments) else { return Ok(ExitCode::SUCCESS) };
    let status = Command::new(rustdoc).args(arguments).status().context("starting rustdoc")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The arguments that document what `arguments` would test; those of other calls, such as for the version, as they are. `None` for another crate.
pub fn of_documentation(documented: &str, arguments: &[String]) -> Option<Vec<String>> {
    if !arguments.iter().any(|argument| argument == "--test") {
        return Some(arguments.to_vec());
    }
    let name = arguments.iter().position(|argument| argument == "--crate-name").and_then(|at| arguments.get(at + 1));
    if name.is_none_or(|name| name != documented) {
        return None;
    }
    let mut kept = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if OF_EXAMPLES.contains(&argument.as_str()) {
            rest.next();
        } else if argument != "--test" {
            kept.push(argument.clone());
        }
    }
    kept.extend(["--out-dir", "target/doc", "-D", "warnings"].map(String::from));
    Some(kept)
}
