//! `moelab match`: a config that has as much of something as another.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use moelab::{
    lab::{
        bench::step,
        matching::{Matched, Quantity, Vary, compare, solve, solve_measured, to_toml},
    },
    run::Config,
};
use moelab_native::{err, out, print};
use serde_json::{Map, json};

use crate::{Common, ConfigArgs, open};

/// Change a size of a config until it has as many parameters, as much arithmetic or as long an update as another.
#[derive(Args)]
pub struct MatchArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The config to match.
    #[arg(long, value_name = "CONFIG")]
    to: PathBuf,
    /// What to match: total, active, active-per-layer, unique-active, flops or wall-clock.
    #[arg(long, value_name = "QUANTITY", value_parser = Quantity::parse)]
    on: Quantity,
    /// The size to change, with an optional range, for example expert_width or experts=16..48. May be repeated: the last is solved for
    /// every combination of the others.
    #[arg(long, required = true, value_name = "SIZE[=RANGE]", value_parser = Vary::parse)]
    vary: Vec<Vary>,
    /// The largest relative difference that counts as matched.
    #[arg(long, default_value_t = 0.01)]
    tolerance: f64,
    /// Does not exceed the other config.
    #[arg(long)]
    at_most: bool,
    /// The file to write. Default: stdout.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Rounds of timed updates per candidate.
const ROUNDS: u32 = 3;

/// Emits the config, and fails if it is not within the tolerance.
pub fn match_configs(common: &Common, args: &MatchArgs) -> Result<()> {
    let read = |args: &ConfigArgs| {
        let mut config = open::config(args)?;
        open::fill_vocabulary(&mut config)?;
        anyhow::Ok(config)
    };
    let base = read(&args.config)?;
    let other = read(&ConfigArgs { config: args.to.clone(), sets: Vec::new(), reduced: args.config.reduced })?;
    let matched = if args.on == Quantity::WallClock {
        ensure!(!args.at_most, "--at-most cannot be kept for a duration, which is measured");
        measured(common, args, &base, &other)?
    } else {
        let of = |config: &Config| args.on.of(config);
        solve(&base, of(&other), &args.vary, args.at_most, &of)?
    };
    let text = to_toml(&matched, args.on, (&print::path(&args.to), &other), args.tolerance, &head(args, &matched)?);
    if let Some(path) = &args.out {
        fs::write(path, &text).with_context(|| print::path(path))?;
    }
    let is_matched = matched.error().abs() <= args.tolerance;
    if common.json {
        let changes: Map<String, _> =
            matched.changes.iter().map(|(key, from, to)| ((*key).into(), json!({ "from": from, "to": to }))).collect();
        let neighbours: Vec<_> = matched.neighbours.iter().map(|(size, value)| json!({ "size": size, "value": value })).collect();
        let quantities: Map<String, _> = compare(&matched.config, &other)
            .iter()
            .map(|row| (row.quantity.name().into(), json!({ "own": row.own, "other": row.other, "ratio": row.ratio() })))
            .collect();
        print::json(&json!({
            "on": args.on.name(), "target": matched.target, "value": matched.value, "error": matched.error(), "is_matched": is_matched,
            "changes": changes, "neighbours": neighbours, "quantities": quantities,
        }));
    } else if args.out.is_none() {
        out!("{}", text.trim_end());
    }
    ensure!(
        is_matched,
        "not matched within {} %: the closest {} are {:+.2} % off; vary another size, or raise --tolerance",
        100.0 * args.tolerance,
        args.on.words(),
        100.0 * matched.error()
    );
    Ok(())
}

/// Matches the duration of an update on this machine.
fn measured(common: &Common, args: &MatchArgs, base: &Config, other: &Config) -> Result<Matched> {
    let device = open::device(common)?;
    let now = open::clock();
    let measure = |config: &Config| -> Result<f64> {
        let record = step::time(&device, config, ROUNDS, &*now)?;
        err!("measured {:.2} ms per update: {}", record.ms, record.shape);
        Ok(record.ms)
    };
    let target = measure(other)?;
    Ok(solve_measured(base, target, &args.vary, measure)??)
}

/// What the changed keys are written over: the config that is extended, with its own overrides, or the whole config.
fn head(args: &MatchArgs, matched: &Matched) -> Result<String> {
    let folder = match &args.out {
        Some(file) => file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        None => Path::new("."),
    };
    let is_varied = |key: &str| matched.changes.iter().any(|(varied, ..)| key == *varied);
    let extends = relative(&args.config.config, folder).filter(|_| !args.config.reduced);
    let Some(extends) = extends else {
        let effective: toml::Table = matched.config.to_effective_toml().parse()?;
        let mut lines = Vec::new();
        flatten(&effective, "", &mut lines);
        return Ok(lines.into_iter().filter(|(key, _)| !is_varied(key)).map(|(key, value)| format!("{key} = {value}\n")).collect());
    };
    let mut text = format!("extends = {}\n", toml::Value::from(extends));
    for set in &args.config.sets {
        let (key, value) = set.split_once('=').context("--set needs key=value")?;
        if !is_varied(key.trim()) {
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
