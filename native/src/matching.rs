//! `moelab match`: a config that has as much of something as another.

use std::{fs, path::PathBuf};

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

use crate::{Common, ConfigArgs, derived, open};

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
    let is_varied = |key: &str| matched.changes.iter().any(|(varied, ..)| key == *varied);
    let head = derived::head(&args.config, args.out.as_deref(), &matched.config, is_varied)?;
    let text = to_toml(&matched, args.on, (&print::path(&args.to), &other), args.tolerance, &head);
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
