//! `moelab compare` and `moelab export-metrics`: finished runs side by side, and their metrics for other tools.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use moelab::{
    lab::{
        compare::{Options, compare as compare_runs},
        export::{csv, originals, tensorboard},
        files::EFFECTIVE_CONFIG,
        measured::{MeasuredRun, arm_of},
        reader::Reader,
    },
    run::suite::Axis,
};
use moelab_native::{atomic, out, print, store::Directory};
use serde_json::Value;

use crate::{Common, audit::stated_overrides, draw, open};

/// What runs are given the same amount of.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum At {
    /// Optimizer updates.
    Updates,
    /// Training tokens.
    Tokens,
    /// Floating-point operations of training.
    Flops,
    /// Seconds of training; comparable on one machine only.
    Seconds,
}

/// Compares finished runs.
#[derive(Args)]
pub struct CompareArgs {
    /// Run folders, or folders of runs. Runs that differ in nothing but the seed are repeats; those of the first run are the control.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// What the runs are given the same amount of.
    #[arg(long, default_value = "updates")]
    at: At,
    /// How much of it. Default: what all runs have reached.
    #[arg(long, value_name = "AMOUNT")]
    by: Option<f64>,
    /// Report when each run first reached this validation loss, nats per token.
    #[arg(long, value_name = "LOSS")]
    target: Option<f64>,
    /// The smallest difference that would change a decision, nats per token.
    #[arg(long, default_value_t = 0.02)]
    margin: f64,
    /// Why a finding of the audit does not matter; CHECK:SUBJECT for one subject. The reason is part of the result. May be repeated.
    #[arg(long = "override", value_name = "CHECK=REASON")]
    overrides: Vec<String>,
    /// Write the curves to this SVG file, and the intervals beside it.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The same as PNG.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
}

/// The format of exported metrics.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Event files, one folder a run.
    Tensorboard,
    /// `runs.csv`, one row a run, and `evaluations.csv`, one row an evaluation.
    Csv,
    /// The files of the original trainers: metrics.json, comparison_summary.json, ablation_results.json, lr_recommendation.json and others.
    Json,
}

/// Exports the metrics of runs for other tools.
#[derive(Args)]
pub struct ExportMetricsArgs {
    /// Run folders, or folders of runs.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The format.
    #[arg(long = "to", value_name = "FORMAT")]
    format: Format,
    /// A new folder for the files.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Compares finished runs.
pub fn compare(common: &Common, args: &CompareArgs) -> Result<()> {
    ensure!(args.margin > 0.0, "--margin {}: a difference that would change a decision is positive", args.margin);
    let runs = read(&args.runs)?;
    ensure!(runs.len() > 1, "one run is given: at least two are compared");
    let at = match args.at {
        At::Updates => Axis::Updates,
        At::Tokens => Axis::Tokens,
        At::Flops => Axis::Flops,
        At::Seconds => Axis::Seconds,
    };
    let overrides = stated_overrides(&args.overrides)?;
    let options = Options { at, x: args.by, target: args.target, margin: args.margin, overrides };
    let compared = compare_runs(&runs, &options)?;
    let figures = [Some(compared.curves(&runs)), compared.intervals()];
    for (path, format) in [(&args.svg, draw::svg as draw::Draw), (&args.png, draw::png)] {
        let Some(path) = path else { continue };
        for (figure, ending) in figures.iter().flatten().zip(["", "-intervals"]) {
            draw::write(&named(path, ending), figure, format)?;
        }
    }
    if common.json {
        print::json(&compared);
    } else {
        compared.lines().iter().for_each(|line| out!("{}", print::visible(line)));
    }
    Ok(())
}

/// `curves.svg` with `-intervals` is `curves-intervals.svg`.
fn named(path: &Path, ending: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |extension| format!(".{}", extension.to_string_lossy()));
    path.with_file_name(format!("{stem}{ending}{extension}"))
}

/// Exports the metrics of runs for other tools.
pub fn export_metrics(common: &Common, args: &ExportMetricsArgs) -> Result<()> {
    let out = &args.out;
    ensure!(!out.exists(), "{}: it already exists, choose a new folder", print::path(out));
    let files = match args.format {
        Format::Tensorboard => event_files(&args.runs)?,
        Format::Csv => {
            let runs = read(&args.runs)?;
            vec![("runs.csv".to_string(), csv::runs(&runs)), ("evaluations.csv".to_string(), csv::evaluations(&runs))]
                .into_iter()
                .map(|(name, text)| (name, text.into_bytes()))
                .collect()
        }
        Format::Json => originals_of(&read(&args.runs)?),
    };
    write(out, &files)?;
    if common.json {
        print::json(&serde_json::json!({ "folder": print::path(out), "files": files.iter().map(|(name, _)| name).collect::<Vec<_>>() }));
    } else {
        out!("{}: {} files", print::path(out), files.len());
    }
    Ok(())
}

/// Writes the files, the folders of their names included. The folder appears with all of them or not at all.
fn write(out: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    let draft = out.with_file_name(format!("{}{}{}", open::name(out), atomic::DRAFT, std::process::id()));
    let written = (|| {
        for (name, bytes) in files {
            let path = draft.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&draft))?;
            fs::write(&path, bytes)?;
        }
        atomic::sync_folder(&draft)?;
        fs::rename(&draft, out)
    })();
    written.inspect_err(|_| drop(fs::remove_dir_all(&draft))).with_context(|| print::path(out))
}

fn event_files(folders: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for folder in run_folders(folders)? {
        let store = Directory::read_only(&folder).with_context(|| print::path(&folder))?;
        let reader = Reader::open(&store).with_context(|| print::path(&folder))?;
        let scalars = tensorboard::scalars(&reader).with_context(|| print::path(&folder))?;
        files.push((format!("{}/{}", open::name(&folder), tensorboard::FILE), tensorboard::event_file(&scalars)));
    }
    Ok(files)
}

fn originals_of(runs: &[MeasuredRun]) -> Vec<(String, Vec<u8>)> {
    let file = |name: String, value: &Value| (name, format!("{value:#}\n").into_bytes());
    let mut files: Vec<(String, Vec<u8>)> =
        runs.iter().map(|run| file(format!("{}/metrics.json", run.id), &originals::metrics(run))).collect();
    files.push(file("comparison_summary.json".into(), &originals::comparison_summary(runs)));
    files.push(file("ablation_results.json".into(), &originals::ablation_results(runs)));
    files.push(file("lr_search_results.json".into(), &originals::lr_search_results(runs)));
    files.push(file("lr_recommendation.json".into(), &originals::lr_recommendation(runs)));
    for run in runs {
        let name = format!("lr_{}_result.json", originals::lr_name(run));
        files.retain(|(other, _)| *other != name);
        files.push(file(name, &originals::lr_result(run)));
    }
    files
}

/// Reads runs.
fn read(folders: &[PathBuf]) -> Result<Vec<MeasuredRun>> {
    let run = |folder: PathBuf| {
        let store = Directory::read_only(&folder).with_context(|| print::path(&folder))?;
        let id = open::name(&folder);
        MeasuredRun::read(&store, &id, arm_of(&id)).with_context(|| print::path(&folder))
    };
    run_folders(folders)?.into_iter().map(run).collect()
}

/// The run folders among these and in them, each once.
fn run_folders(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_run = |folder: &Path| folder.join(EFFECTIVE_CONFIG).is_file();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in folders {
        if is_run(folder) {
            found.push(folder.clone());
            continue;
        }
        let entries = fs::read_dir(folder).with_context(|| print::path(folder))?;
        let mut inside: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_run(path)).collect();
        if inside.is_empty() {
            bail!("{}: neither a run nor a folder of runs: there is no {EFFECTIVE_CONFIG} in it", print::path(folder));
        }
        inside.sort();
        found.extend(inside);
    }
    let mut seen = Vec::new();
    found.retain(|folder| {
        let is_new = !seen.contains(folder);
        seen.push(folder.clone());
        is_new
    });
    let names: Vec<String> = found.iter().map(|folder| open::name(folder)).collect();
    for (index, name) in names.iter().enumerate() {
        ensure!(!names[..index].contains(name), "two runs are named {}: rename a folder", print::name(name));
    }
    Ok(found)
}
