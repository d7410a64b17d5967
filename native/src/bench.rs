//! Checks kernels, or whole updates, then times them.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use moelab::lab::bench::{
    BenchError, capability_sets,
    kernels::{Effort, cases, chosen, measure},
    ladder::{self, Ladder, Size},
    step,
};
use moelab_native::{err, out, print};

use crate::{Common, ConfigArgs, draw, open};

/// What to measure.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum What {
    /// Individual kernels over a list of shapes.
    Kernels,
    /// A whole update, with the share of each kernel.
    Step,
    /// How the cost of an update grows with tokens, experts, layers and vocabulary, and that of a suite with its runs.
    Ladder,
}

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// What to measure.
    #[arg(value_enum, default_value = "kernels")]
    what: What,
    /// The model of `step` and `ladder`.
    #[arg(long, default_value = "configs/bench/twin.toml")]
    config: PathBuf,
    /// Change one key of that config. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Only kernels whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Number of rounds, of which the median is reported.
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Draw the ladder into this SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The same as PNG.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
}

/// Repetitions of a kernel per submission, and of one that is meant for other adapters and may be slow on this one.
const COPIES: u32 = 4;
const FOREIGN_COPIES: u32 = 1;
/// Maximum number of rounds for the latter.
const FOREIGN_ROUNDS: u32 = 3;

/// Times kernels, a step or a ladder.
pub fn bench(common: &Common, args: &BenchArgs) -> Result<()> {
    match args.what {
        What::Kernels => kernels(common, args),
        What::Step => whole_step(common, args),
        What::Ladder => ladders(common, args),
    }
}

/// A device error keeps its exit code.
pub fn unwrapped(error: BenchError) -> anyhow::Error {
    match error {
        BenchError::Gpu(error) => error.into(),
        wrong => wrong.into(),
    }
}

fn kernels(common: &Common, args: &BenchArgs) -> Result<()> {
    let only = args.only.as_deref().unwrap_or_default();
    let cases: Vec<_> = cases().into_iter().filter(|c| c.kernel.contains(only)).collect();
    ensure!(!cases.is_empty(), "no kernel has `{only}` in its name: omit --only to list all");
    let device = open::device(common)?;
    let now = open::clock();
    if !common.json {
        out!("{} ({})", device.adapter.name, device.adapter.driver);
        out!("{:28} {:34} {:9} {:>9} {:>9} {:>7}", "kernel", "shape", "tier", "ms", "GFLOP/s", "GB/s");
    }
    let mut timed: Vec<Vec<_>> = vec![vec![Vec::new()]; cases.len()];
    for (tier, set) in capability_sets(&device) {
        let own = Effort { copies: COPIES, rounds: args.rounds };
        let foreign = Effort { copies: FOREIGN_COPIES, rounds: args.rounds.min(FOREIGN_ROUNDS) };
        let effort = if set == device.capabilities { own } else { foreign };
        for (case, timed) in cases.iter().zip(&mut timed) {
            let kernels = chosen(case, set);
            if timed.contains(&kernels) {
                continue;
            }
            timed.push(kernels);
            let record = measure(&device, case, (&tier, set), effort, &*now).map_err(unwrapped)?;
            if common.json {
                print::json(&record);
            } else {
                let gflops = if record.gflops > 0.0 { format!("{:.2}", record.gflops) } else { "-".into() };
                out!(
                    "{:28} {:34} {:9} {:9.3} {gflops:>9} {:7.2}",
                    record.kernel,
                    record.shape,
                    record.tier,
                    record.ms,
                    record.gbytes_per_second
                );
            }
        }
    }
    Ok(())
}

fn whole_step(common: &Common, args: &BenchArgs) -> Result<()> {
    let mut config = open::config(&ConfigArgs { config: args.config.clone(), sets: args.sets.clone(), reduced: false })?;
    open::fill_vocabulary(&mut config)?;
    let device = open::device(common)?;
    let now = open::clock();
    let measured = step::measure(&device, &config, args.rounds, &*now).map_err(unwrapped)?;
    if common.json {
        print::json(&measured.step);
        print::json(&measured.ceilings);
        for kernel in &measured.kernels {
            print::json(&kernel);
        }
        measured.routing.iter().for_each(print::json);
        return Ok(());
    }
    let step = &measured.step;
    out!("{} ({}), {}, {} kernels", device.adapter.name, device.adapter.driver, print::path(&args.config), step.tier);
    out!("{}: {:.1} ms per update, {:.0} tokens/s, {:.2} useful GFLOP/s", step.shape, step.ms, step.tokens_per_second, step.gflops);
    out!(
        "dispatches: {} per micro-batch, {} per update; {} per additional layer",
        step.micro_dispatches,
        step.update_dispatches,
        step.dispatches_per_layer
    );
    out!(
        "ceilings, measured: {:.2} GFLOP/s of a large product, {:.2} GB/s of a copy",
        measured.ceilings.gflops,
        measured.ceilings.gbytes_per_second
    );
    out!("\nKernels timed one by one; floor: the time of their arithmetic or bytes at the ceilings; the most above it first.\n");
    out!(
        "{:6} {:32} {:>8} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "part",
        "kernel",
        "launches",
        "ms",
        "% time",
        "GFLOP/s",
        "MB",
        "floor ms",
        "above ms",
        "floor %"
    );
    for k in &measured.kernels {
        let gflops = k.gflops.map_or("-".into(), |v| format!("{v:.2}"));
        out!(
            "{:6} {:32} {:8} {:9.3} {:7.1} {gflops:>9} {:9.2} {:9.3} {:9.3} {:7.0}",
            k.part,
            k.kernel,
            k.launches,
            k.ms,
            100.0 * k.share,
            1e-6 * k.bytes,
            k.floor_ms,
            k.ms - k.floor_ms,
            100.0 * k.floor_ms / k.ms.max(1e-9)
        );
    }
    if let Some(cost) = &measured.routing {
        let share = |with: f64, without: f64| format!("{with:.2} ms, {without:.2} ms without ({:+.1} %)", 100.0 * (with / without - 1.0));
        out!(
            "routing health: {} per update; {} per batch of an evaluation",
            share(cost.update_ms, cost.update_without_ms),
            share(cost.eval_ms, cost.eval_without_ms)
        );
    }
    let sum = |of: fn(&step::KernelShare) -> f64| measured.kernels.iter().map(of).sum::<f64>();
    out!("sum of the kernels timed individually: {:.1} ms", sum(|k| k.ms));
    let (floors, bytes) = (sum(|k| k.floor_ms), sum(|k| k.bytes));
    out!("sum of the floors: {floors:.1} ms, {:.0} % of the update, which moves {:.1} MB", 100.0 * floors / step.ms, 1e-6 * bytes);
    Ok(())
}

fn ladders(common: &Common, args: &BenchArgs) -> Result<()> {
    let config = |more: &[String]| {
        let sets = args.sets.iter().chain(more).cloned().collect();
        let mut config = open::config(&ConfigArgs { config: args.config.clone(), sets, reduced: false })?;
        open::fill_vocabulary(&mut config)?;
        anyhow::Ok(config)
    };
    let own = config(&[])?;
    let device = open::device(common)?;
    let now = open::clock();
    if !common.json {
        out!("{} ({}), {}, {} kernels", device.adapter.name, device.adapter.driver, print::path(&args.config), device.capabilities.name());
    }
    let only = args.only.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for size in Size::ALL.into_iter().filter(|size| size.name().contains(only)) {
        let mut rungs = Vec::new();
        for (rung, sets) in size.rungs(&own) {
            match config(&sets) {
                Ok(config) => rungs.push((rung, config)),
                Err(error) => err!("{} {rung}: left out, the config does not allow it\n{error}", size.name()),
            }
        }
        if rungs.len() < ladder::FEWEST_RUNGS {
            err!("{}: not timed, the config allows {} of at least {} sizes", size.name(), rungs.len(), ladder::FEWEST_RUNGS);
            continue;
        }
        let ladder = ladder::measure(&device, size, &rungs, args.rounds, &*now).map_err(unwrapped)?;
        if common.json {
            print::json(&ladder)
        } else {
            show(&ladder)
        }
        found.push(ladder);
    }
    ensure!(!found.is_empty(), "nothing to time: --only takes {}", Size::ALL.map(Size::name).join(", "));
    let figure = ladder::figure(&device.adapter.name, &found);
    for (path, draw) in [(&args.svg, draw::svg as draw::Draw), (&args.png, draw::png)] {
        let Some(path) = path else { continue };
        draw::write(path, &figure, draw)?;
    }
    Ok(())
}

fn show(ladder: &Ladder) {
    let what = if ladder.size == Size::Runs { "ms in all" } else { "ms per update" };
    out!("\n{:>12} {what:>14}  fastest to slowest round", ladder.size.name());
    for rung in &ladder.rungs {
        out!("{:12} {:14.2}  {:.2} to {:.2}", rung.size, rung.ms, rung.range_ms[0], rung.range_ms[1]);
    }
    let (unit, percent) = (ladder.size.unit(), 100.0 * ladder.deviation);
    out!("{:.2} ms, and {:.4} ms per {unit}: linear within {percent:.0} %", ladder.fixed_ms, ladder.ms_per_unit);
}
