//! What a test says that lacks something of the machine: a package of Python, a file of `/proc`.

use std::io::{self, Write};

/// Says why the rest of a test is skipped. It goes past the capture of the harness, which shows what `println!` prints for failed tests alone,
/// so that `cargo test` shows it and `cargo xtask test`, which reads stdout, counts the test as skipped: see `xtask::steps::Tally`.
pub fn skipped(reason: &str) {
    // Lost with a closed stdout, as all that the harness prints.
    drop(writeln!(io::stdout(), "skipped: {reason}"));
}
