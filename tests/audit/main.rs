//! The audit: every item of its table finds a planted fault, and nothing in clean studies.

mod clean;
mod faults;
mod published;

use std::collections::BTreeMap;

use moelab::lab::audit::Arm;
use moelab::run::Config;
use moelab::run::config;

/// Loads a config of the repository by its path under `configs/`, without `.toml`.
fn load(name: &str, sets: &[&str]) -> Config {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/configs/{path}")).map_err(|error| error.to_string().into());
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    config::load(&read, &format!("{name}.toml"), &sets).unwrap_or_else(|problems| panic!("{problems}"))
}

/// An arm from a config file, named as the file, that declares the keys in `changes`.
fn arm(file: &str, changes: &[(&str, &str)]) -> Arm {
    named(file.rsplit('/').next().unwrap(), load(file, &[]), changes)
}

fn named(name: &str, config: Config, changes: &[(&str, &str)]) -> Arm {
    let changes: BTreeMap<String, String> = changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Arm { name: name.into(), config, changes }
}

/// A fixture's text.
fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/fixtures/audit/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}
