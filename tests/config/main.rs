//! Configs: the messages of broken ones, the committed ones, schedules and parameter vectors.

mod broken;
mod committed;
mod ends;
mod numbers;
mod ranges;
mod studies;

use moelab::config_file::Problems;
use moelab::run::config::{self, Config};

/// The repository's root.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Loads `path`, relative to `folder` in the repository.
fn load(folder: &str, path: &str, sets: &[&str]) -> Result<Config, Problems> {
    let read = |name: &str| {
        std::fs::read_to_string(format!("{ROOT}/{folder}/{name}")).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".into(),
            _ => error.to_string().into(),
        })
    };
    config::load(&read, path, &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>())
}

/// Loads a text that extends nothing.
fn load_text(text: &str, sets: &[&str]) -> Result<Config, Problems> {
    let read = |_: &str| Ok(text.to_owned());
    config::load(&read, "run.toml", &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>())
}
