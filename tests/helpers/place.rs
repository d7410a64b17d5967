//! A folder of a test, in which the binary works.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The folder, which goes with the test. Each test program adds what its tests do there.
pub struct Place(tempfile::TempDir);

impl Place {
    /// A new folder with these files: name and content.
    pub fn with(files: &[(&str, &str)]) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, content)| fs::write(place.path(name), content).unwrap());
        place
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The binary with these arguments, started in it.
    pub fn moelab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
        command.current_dir(&self.0).args(arguments).stdin(Stdio::null());
        command
    }
}
