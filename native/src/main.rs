//! The command line of moelab. Progress goes to stderr; results to stdout, with `--json` one JSON object per line.
//!
//! Exit codes: see [`exit`].
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod audit;
mod bench;
mod compare;
mod derived;
mod draw;
mod environment;
mod exit;
mod gates;
mod inspect;
mod interop;
mod matching;
mod open;
mod probe;
mod search;
mod serve;
mod signals;
mod suite;
mod train;
mod tune;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use moelab::{gpu::AdapterChoice, run::protocol::SampleRequest};
use moelab_native::{machine::Resources, print};

/// Trains small Mixture-of-Experts language models on any GPU.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options common to all commands.
#[derive(Args, Clone)]
pub struct Common {
    /// Print results as JSON, one object per line.
    #[arg(long, global = true)]
    json: bool,
    /// The GPU to use: name:TEXT, index:NUMBER or pci:ADDRESS (see `moelab adapters`).
    #[arg(long, global = true, value_name = "CHOICE")]
    adapter: Option<AdapterChoice>,
    /// Folder in which tokenized text and trained tokenizers are cached.
    #[arg(long, global = true, value_name = "DIR", default_value = ".cache/tokens")]
    cache: PathBuf,
}

impl Common {
    /// What the options choose of the machine.
    pub fn resources(&self) -> Resources {
        Resources { adapter: self.adapter.clone().unwrap_or_default(), cache: self.cache.clone() }
    }
}

/// A config file and overrides.
#[derive(Args, Clone)]
pub struct ConfigArgs {
    /// A TOML file.
    pub config: PathBuf,
    /// Set one key, for example train.updates=12. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Reduce the model to small widths and counts, for ten updates on the embedded corpus.
    #[arg(long)]
    pub reduced: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model.
    Train {
        #[command(flatten)]
        config: ConfigArgs,
        /// The run folder. Default: runs/NAME-NUMBER.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Resume a run from its newest intact checkpoint.
    Resume(train::ResumeArgs),
    /// Evaluate a run's best checkpoint.
    Eval {
        /// The run folder.
        run: PathBuf,
        /// Evaluate on other text than the run's validation set: a file, a folder or a glob pattern.
        #[arg(long)]
        data: Option<String>,
    },
    /// Generate text from a run's best checkpoint.
    Sample {
        /// The run folder.
        run: PathBuf,
        /// The text to continue.
        #[arg(long, default_value = "")]
        prompt: String,
        /// Number of tokens to generate. Default: the config's.
        #[arg(long, allow_hyphen_values = true)]
        tokens: Option<u32>,
        /// Sampling temperature, which divides the logits; 0 picks the most likely token. Default: the config's.
        #[arg(long, allow_hyphen_values = true)]
        temperature: Option<f64>,
        /// Nucleus sampling: sample from the fewest most likely tokens with this total probability. Default: the config's.
        #[arg(long, allow_hyphen_values = true)]
        top_p: Option<f64>,
    },
    /// Export a run's best checkpoint for other tools.
    Export(interop::ExportArgs),
    /// Compare finished runs: what differs, what they reached with equal means, what may be concluded.
    Compare(compare::CompareArgs),
    /// Export the metrics of runs for other tools: TensorBoard, CSV, and the JSON files of the original trainers.
    ExportMetrics(compare::ExportMetricsArgs),
    /// Create a run from an external model, to evaluate, sample from or train further.
    Import(interop::ImportArgs),
    /// Report every problem of a config, and compare the memory it needs with the adapter's.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print the parameters, FLOP and bytes of a model.
    Params {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Check the structure of a config's model: causality, leaks, sharing, gradients.
    Probe {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print the compiled step: every kernel with its tensors.
    Listing {
        #[command(flatten)]
        config: ConfigArgs,
        /// The kernels to list: those of a GPU (portable), of a CPU rasteriser (cpu), or of a GPU with cooperative matrices in f16 (matrices).
        #[arg(long, default_value = "portable")]
        tier: open::TierName,
    },
    /// List the adapters.
    Adapters,
    /// Check kernels or a whole step, then time them.
    Bench(bench::BenchArgs),
    /// Measure which kernels train a config's model fastest on this machine, and write them as a config.
    Tune(tune::TuneArgs),
    /// Show what a rule would have decided about finished runs, at each evaluation.
    Gates(gates::GatesArgs),
    /// Make one run of a study's plan: for engines that distribute runs. Does nothing if it is made.
    Run {
        /// The plan, in the folder of the study's runs.
        #[arg(long, value_name = "PLAN.JSONL")]
        plan: PathBuf,
        /// The run's place in the plan, from 0.
        #[arg(long)]
        index: usize,
    },
    /// Audit a study: its arms before they run, its runs afterwards.
    Audit(audit::AuditArgs),
    /// Run studies: arms that are compared, each with several seeds.
    #[command(subcommand)]
    Suite(suite::SuiteCommand),
    /// Change a size of a config until it has as many parameters, as much arithmetic or as long an update as another.
    Match(matching::MatchArgs),
    /// Recommend a learning rate from one short run in which it rises.
    LrRange(search::LrRangeArgs),
    /// Show the runs and studies of a folder in a browser, live or finished: prints the address to open.
    Serve(serve::ServeArgs),
}

fn main() -> ExitCode {
    environment::prepare();
    let logs = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(logs).with_ansi(false).with_writer(|| print::Stderr).init();
    let Cli { common, command } = Cli::parse();
    let outcome = match command {
        Command::Train { config, out } => train::train(&common, &config, out.as_deref()),
        Command::Resume(args) => train::resume(&common, &args),
        Command::Eval { run, data } => train::eval(&common, &run, data.as_deref()).and_then(exit::result),
        Command::Sample { run, prompt, tokens, temperature, top_p } => {
            let request = SampleRequest { prompt, tokens, temperature, top_p, number: 0 };
            train::sample(&common, &run, request).and_then(exit::result)
        }
        Command::Export(args) => interop::export(&common, &args).and_then(exit::result),
        Command::Compare(args) => compare::compare(&common, &args).and_then(exit::result),
        Command::ExportMetrics(args) => compare::export_metrics(&common, &args).and_then(exit::result),
        Command::Import(args) => interop::import(&common, &args).and_then(exit::result),
        Command::Check { config } => inspect::check(&common, &config).and_then(exit::result),
        Command::Params { config } => inspect::params(&common, &config).and_then(exit::result),
        Command::Probe { config } => probe::probe(&common, &config).and_then(exit::result),
        Command::Listing { config, tier } => inspect::listing(&common, &config, tier).and_then(exit::result),
        Command::Adapters => inspect::adapters(&common).and_then(exit::result),
        Command::Bench(args) => bench::bench(&common, &args).and_then(exit::result),
        Command::Tune(args) => tune::tune(&common, &args).and_then(exit::result),
        Command::Audit(args) => return exit::audited(audit::audit(&common, &args)),
        Command::Gates(args) => gates::gates(&common, &args).and_then(exit::result),
        Command::Run { plan, index } => suite::run_planned(&common, &plan, index),
        Command::Suite(command) => suite::suite(&common, command),
        Command::Match(args) => matching::match_configs(&common, &args).and_then(exit::result),
        Command::LrRange(args) => search::lr_range(&common, &args).and_then(exit::result),
        Command::Serve(args) => serve::serve(&common, &args).and_then(exit::result),
    };
    exit::report(outcome)
}
