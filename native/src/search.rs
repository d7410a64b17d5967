//! `moelab lr-range`: a learning-rate range test.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use moelab::{
    lab::{lr_range, reader::Reader},
    run::protocol::Command,
};
use moelab_native::{err, out, print, store::Directory};
use serde_json::json;

use crate::{Common, ConfigArgs, open, train};

/// Recommend a learning rate from one short run in which it rises.
#[derive(Args)]
pub struct LrRangeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Number of updates of the test.
    #[arg(long, default_value_t = 100)]
    updates: u32,
    /// The rates start at this multiple of the config's.
    #[arg(long, default_value_t = 0.001)]
    lowest: f64,
    /// The rates end at this multiple of the config's.
    #[arg(long, default_value_t = 10.0)]
    highest: f64,
    /// The run folder of the test. Default: runs/NAME-lr-range-NUMBER.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Name of the result in the run folder.
const RESULT: &str = "lr_recommendation.json";

/// Runs the test and writes `lr_recommendation.json` into its folder.
pub fn lr_range(common: &Common, args: &LrRangeArgs) -> Result<()> {
    let LrRangeArgs { updates, lowest, highest, .. } = *args;
    ensure!(
        lowest > 0.0 && lowest < highest && highest.is_finite(),
        "--lowest {lowest} --highest {highest}: rates must rise from above 0, for example --lowest 0.001 --highest 10"
    );
    ensure!(updates as usize >= lr_range::LEAST_UPDATES, "--updates {updates}: at least {} are needed", lr_range::LEAST_UPDATES);
    let config = open::config(&args.config)?;
    let test = lr_range::test_of(&config, updates, [lowest, highest]);
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => {
            let name = args.config.config.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
            train::free_folder(&PathBuf::from(format!("{name}-lr-range")))?
        }
    };
    let start = Instant::now();
    let command = Command::Start { run: folder.display().to_string(), config: test.to_effective_toml(), sets: Vec::new() };
    // The result is the recommendation; the run's own lines are in its folder.
    let reason = train::drive(&Common { json: false, ..common.clone() }, command, &folder)?;
    ensure!(!reason.is_resumable(), "the test {}", reason.words());
    let store = Directory::read_only(&folder).with_context(|| print::path(&folder))?;
    let result = lr_range::read(&Reader::open(&store)?, &open::config_of_run(&folder, &[])?)?;
    let mut file = serde_json::to_value(&result)?;
    file["search_time_minutes"] = json!(start.elapsed().as_secs_f64() / 60.0);
    let path = folder.join(RESULT);
    fs::write(&path, serde_json::to_string_pretty(&file)? + "\n").with_context(|| print::path(&path))?;
    if common.json {
        print::json(&file);
        return Ok(());
    }
    out!("{}", result.recommendation);
    result.settings.iter().for_each(|setting| out!("  --set {setting}"));
    out!("{}", result.caveat);
    err!("\nresult  {}", print::path(&path));
    Ok(())
}
