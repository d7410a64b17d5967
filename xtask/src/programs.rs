//! Programs on the search path.

use std::{env, path::PathBuf};

/// The first executable of this name on the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|folder| folder.join(name).with_extension(env::consts::EXE_EXTENSION)).find(|p| p.is_file())
}
