//! A config that is another with some keys changed, as a file.

use std::{
    fs,
    path::{Component, Path},
};

use anyhow::{Context, Result};
use moelab::run::Config;

use crate::ConfigArgs;

/// What the changed keys are written over in the file `out` (or in the current folder): the config that is extended, with its own
/// overrides, or all of `whole` if it cannot be extended.
pub fn head(args: &ConfigArgs, out: Option<&Path>, whole: &Config, is_changed: impl Fn(&str) -> bool) -> Result<String> {
    let folder = out.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let extends = relative(&args.config, folder).filter(|_| !args.reduced);
    let Some(extends) = extends else {
        let effective: toml::Table = whole.to_effective_toml().parse()?;
        let mut lines = Vec::new();
        flatten(&effective, "", &mut lines);
        return Ok(lines.into_iter().filter(|(key, _)| !is_changed(key)).map(|(key, value)| format!("{key} = {value}\n")).collect());
    };
    let mut text = format!("extends = {}\n", toml::Value::from(extends));
    for set in &args.sets {
        let (key, value) = set.split_once('=').context("--set needs key=value")?;
        if !is_changed(key.trim()) {
            // As `--set` reads it: what is not TOML is a string.
            let value = format!("v={}", value.trim())
                .parse::<toml::Table>()
                .map_or(toml::Value::from(value.trim()), |mut table| table.remove("v").unwrap_or(toml::Value::from(value)));
            text += &format!("{} = {value}\n", key.trim());
        }
    }
    Ok(text)
}

fn flatten(table: &toml::Table, above: &str, lines: &mut Vec<(String, String)>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(below) => flatten(below, &format!("{above}{key}."), lines),
            _ => lines.push((format!("{above}{key}"), value.to_string())),
        }
    }
}

/// A file as seen from a folder, with `/` between folders; `None` if there is no such path.
fn relative(file: &Path, folder: &Path) -> Option<String> {
    let (file, folder) = (fs::canonicalize(file).ok()?, fs::canonicalize(folder).ok()?);
    let shared = file.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(shared).map(|_| "..".to_owned());
    let down = file.components().skip(shared).map(|part| match part {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    });
    let parts: Option<Vec<String>> = up.map(Some).chain(down).collect();
    parts.map(|parts| parts.join("/"))
}
