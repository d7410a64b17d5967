//! `moelab tune`: the kernels that train a config's model fastest on this machine.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use moelab::lab::bench::tune::{self, Comparison, Effort, Trial, to_toml};
use moelab_native::{atomic, err, out, print};

use crate::{Common, ConfigArgs, bench::unwrapped, derived, open};

/// Arguments of `tune`.
#[derive(Args)]
pub struct TuneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Rounds in which updates with two choices of kernels are timed in turn.
    #[arg(long, default_value = "14", value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
    /// Only changes that contain this, such as `without adamw` or `workgroups`.
    #[arg(long, default_value = "")]
    only: String,
    /// The file to write. Default: stdout.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Measures, and writes a config that extends the one measured.
pub fn tune(common: &Common, args: &TuneArgs) -> Result<()> {
    let mut config = open::config(&args.config)?;
    open::fill_vocabulary(&mut config)?;
    let device = open::device(common)?;
    let now = open::clock();
    let name = print::path(&args.config.config);
    err!(
        "{} ({}), {name}: updates with and without each kernel, in turn; nothing else should run",
        device.adapter.name,
        device.adapter.driver
    );
    let mut tell = |trial: &Trial| {
        if common.json {
            print::json(trial);
        }
        err!("{:40} {}{}", trial.change.words(), trial.comparison.words(), if trial.is_kept { ", kept" } else { "" });
    };
    let tuned = tune::tune(&device, &config, Effort { rounds: args.rounds, only: &args.only }, &*now, &mut tell).map_err(unwrapped)?;
    if common.json {
        print::json(&tuned);
    }
    let Some(result) = tuned.result.filter(Comparison::is_faster) else {
        err!("no choice of kernels is faster than the fixed one beyond doubt: nothing is written");
        return Ok(());
    };
    err!("all that was kept, measured again: {}", result.words());
    let head = derived::head(&args.config, args.out.as_deref(), &config, |key| key.starts_with("kernels."))?;
    let text = to_toml(&tuned.kernels, &result, &head);
    if let Some(path) = &args.out {
        atomic::write(path, text.as_bytes()).with_context(|| print::path(path))?;
        err!("wrote {}: train with it in place of {name}", print::path(path));
    } else if !common.json {
        out!("{}", text.trim_end());
    }
    Ok(())
}
