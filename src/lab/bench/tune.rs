//! Which kernels an adapter had better do without, in how many parts its products sum, and how many logits it computes at a time: measured
//! by whole updates of a config.
//!
//! A change is one kernel less, or another number of workgroups or of rows of logits. Each is tried on top of what was kept before: a
//! few rounds of updates with and without it in turn, and, unless that was slower, as many as asked for. It is kept if the confidence interval of the
//! difference leaves no doubt. With many changes some are kept by luck, so the table as a whole is measured once more against the fixed
//! choice, in rounds of its own: only that comparison is reported as a result.

use std::collections::VecDeque;

use serde::Serialize;

use super::{
    BenchError,
    step::{Ready, prepare, samples},
};
use crate::{
    gpu::{Command, Device, Dispatch, GpuError},
    lab::statistics::t_quantile,
    limits::{TILE_ROWS, rows_per_chunk},
    run::{Config, config::Kernels},
    train::{
        recording::{kernels_for, training},
        tuning::shaders,
    },
};

/// Rounds after which a change that is slower is given up.
const SCREENING_ROUNDS: u32 = 3;
/// The confidence with which a change is faster, and of the reported intervals: two-sided.
const CONFIDENCE: f64 = 0.95;
/// Factors of the numbers that can be changed: the workgroups that keep an adapter busy, and the rows of logits at a time.
const FACTORS: [f64; 4] = [0.25, 0.5, 2.0, 4.0];

/// A change of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// One more module to do without.
    Without(String),
    /// Another number of workgroups that keep the adapter busy.
    Workgroups(u32),
    /// Another number of rows of logits at a time.
    LogitRows(u32),
}

impl Change {
    /// In a line of a table.
    pub fn words(&self) -> String {
        match self {
            Change::Without(module) => format!("without {module}"),
            Change::Workgroups(workgroups) => format!("{workgroups} workgroups"),
            Change::LogitRows(rows) => format!("{rows} rows of logits"),
        }
    }

    fn apply(&self, kernels: &mut Kernels) {
        match self {
            Change::Without(module) => kernels.without.push(module.clone()),
            Change::Workgroups(workgroups) => kernels.workgroups = *workgroups,
            Change::LogitRows(rows) => kernels.logit_rows = *rows,
        }
    }
}

/// Updates with two choices of kernels, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Milliseconds of an update before: the mean of the rounds.
    pub before_ms: f64,
    /// With the change.
    pub after_ms: f64,
    /// Half the width of the confidence interval of the difference, paired by round.
    pub margin_ms: f64,
    /// Rounds.
    pub rounds: u32,
}

impl Comparison {
    /// Of seconds by round. The interval is infinite if there is only one.
    pub fn of(before: &[f64], after: &[f64]) -> Comparison {
        let rounds = before.len().min(after.len());
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / rounds as f64;
        let difference = || before.iter().zip(after).map(|(b, a)| a - b);
        let center = mean(&mut difference());
        let variance = difference().map(|d| (d - center).powi(2)).sum::<f64>() / (rounds as f64 - 1.0);
        let margin = t_quantile(0.5 + CONFIDENCE / 2.0, rounds as f64 - 1.0) * (variance / rounds as f64).sqrt();
        Comparison {
            before_ms: 1e3 * mean(&mut before.iter().copied()),
            after_ms: 1e3 * mean(&mut after.iter().copied()),
            margin_ms: if margin.is_finite() { 1e3 * margin } else { f64::INFINITY },
            rounds: rounds as u32,
        }
    }

    /// Milliseconds more than before.
    pub fn difference_ms(&self) -> f64 {
        self.after_ms - self.before_ms
    }

    /// In a line of a table.
    pub fn words(&self) -> String {
        let (difference, margin) = (self.difference_ms(), self.margin_ms);
        format!(
            "{:.2} -> {:.2} ms per update ({:+.1} %; difference {difference:+.2} ms, 95 % interval +- {margin:.2}, {} rounds)",
            self.before_ms,
            self.after_ms,
            100.0 * difference / self.before_ms,
            self.rounds
        )
    }

    /// Whether the change is faster beyond doubt.
    pub fn is_faster(&self) -> bool {
        self.difference_ms() + self.margin_ms < 0.0
    }
}

/// A change that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// `tune`.
    pub kernel: &'static str,
    /// On top of what was kept before.
    pub change: Change,
    /// What it changed.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Whether it was kept.
    pub is_kept: bool,
}

/// The table that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Tuned {
    /// The table; the fixed choice if no change was kept.
    pub kernels: Kernels,
    /// The table against the fixed choice, in rounds of its own; `None` without a change.
    pub result: Option<Comparison>,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort<'a> {
    /// Rounds of a comparison.
    pub rounds: u32,
    /// Only changes whose [words](Change::words) contain this.
    pub only: &'a str,
}

/// How choices of kernels are compared.
pub trait Contest {
    /// What an update launches with a choice.
    ///
    /// # Errors
    /// A choice that the device refuses.
    fn launches(&self, kernels: &Kernels) -> Result<Launches, BenchError>;

    /// Updates with two choices in turn.
    ///
    /// # Errors
    /// A choice that computes something else, or a device error.
    fn compare(&mut self, before: &Kernels, after: &Kernels, rounds: u32) -> Result<Comparison, BenchError>;
}

/// What an update launches with a choice of kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct Launches {
    /// Each kernel with its workgroups, in order.
    pub kernels: Vec<(String, [u32; 3])>,
    /// The modules that others could replace, in the order of their first launch.
    pub replaceable: Vec<String>,
    /// Launches of products on cooperative matrices: with fewer of them, the precision would be another.
    pub with_matrices: usize,
}

/// Finds the table for a config's model on a device, and tells every trial.
///
/// # Errors
/// A choice of kernels that computes something else, or a device error.
pub fn tune(
    device: &Device,
    config: &Config,
    effort: Effort,
    now: &dyn Fn() -> f64,
    tell: &mut dyn FnMut(&Trial),
) -> Result<Tuned, BenchError> {
    let (adapter, own) = (&device.adapter, device.capabilities.workgroups);
    let fixed = Kernels { adapter: adapter.name.clone(), driver: adapter.driver.clone(), shaders: shaders().into(), ..Kernels::default() };
    let others = FACTORS.map(|factor| (f64::from(own) * factor) as u32);
    let workgroups = others.into_iter().filter(|other| *other > 0 && own > 1).map(Change::Workgroups);
    let numbers: Vec<Change> = workgroups.chain(logit_rows(device, config).map(Change::LogitRows)).collect();
    search(&mut OnDevice { device, config, now, ready: Vec::new() }, &fixed, &numbers, effort, tell)
}

/// Other numbers of rows of logits at a time than the fixed one: whole tiles, of which the device can bind the logits.
fn logit_rows(device: &Device, config: &Config) -> impl Iterator<Item = u32> {
    let (vocabulary, tokens) = (config.model.vocabulary, config.data.batch * config.data.sequence_length);
    let own = rows_per_chunk(vocabulary).min(tokens);
    let most = (device.capabilities.binding_bytes / (4 * u64::from(vocabulary))).min(u64::from(tokens)) as u32;
    let other = move |factor: f64| ((f64::from(own) * factor) as u32).next_multiple_of(TILE_ROWS as u32);
    FACTORS.into_iter().map(other).filter(move |rows| *rows <= most && *rows != own)
}

/// Tries every change of a choice, each on top of those that were kept: kernels to do without, then other `numbers`.
///
/// # Errors
/// Those of the contest.
pub fn search(
    contest: &mut dyn Contest,
    fixed: &Kernels,
    numbers: &[Change],
    Effort { rounds, only }: Effort,
    tell: &mut dyn FnMut(&Trial),
) -> Result<Tuned, BenchError> {
    let own = contest.launches(fixed)?;
    let without = |launches: &Launches| launches.replaceable.iter().cloned().map(Change::Without).collect::<Vec<_>>();
    let mut changes = VecDeque::from(without(&own));
    changes.extend(numbers.iter().cloned());
    let (mut kept, mut tried) = (fixed.clone(), vec![own.kernels]);
    while let Some(change) = changes.pop_front() {
        if !change.words().contains(only) {
            continue;
        }
        let mut kernels = kept.clone();
        change.apply(&mut kernels);
        let launches = contest.launches(&kernels)?;
        let is_less_precise = matches!(change, Change::Without(_)) && launches.with_matrices != own.with_matrices;
        if is_less_precise || tried.contains(&launches.kernels) {
            continue;
        }
        tried.push(launches.kernels.clone());
        let screening = contest.compare(&kept, &kernels, SCREENING_ROUNDS)?;
        let is_promising = screening.difference_ms() < 0.0;
        let comparison = if is_promising { contest.compare(&kept, &kernels, rounds)? } else { screening };
        let is_kept = is_promising && comparison.is_faster();
        tell(&Trial { kernel: "tune", change, comparison, is_kept });
        if is_kept {
            // Those that took its place.
            let new: Vec<_> = without(&launches).into_iter().filter(|new| !changes.contains(new)).collect();
            changes.extend(new);
            kept = kernels;
        }
    }
    let result = if kept == *fixed { None } else { Some(contest.compare(fixed, &kept, rounds)?) };
    Ok(Tuned { kernels: kept, result })
}

/// A config with a table of kernels over the lines of `head`, after what the table gains.
pub fn to_toml(kernels: &Kernels, result: &Comparison, head: &str) -> String {
    let Kernels { adapter, driver, shaders, workgroups, logit_rows, without } = kernels;
    // A string of JSON is one of TOML, and stays on its line: names come from drivers, and must not end the comment.
    let literal = |text: &str| serde_json::Value::from(text).to_string();
    let without: String = without.iter().map(|module| format!("    {},\n", literal(module))).collect();
    let named = literal(&format!("{adapter} ({driver})"));
    format!(
        "# Written by `moelab tune` on {named}, against the fixed choice of kernels:\n# {}.\n{head}\n[kernels]\nadapter = {}\ndriver = {}\nshaders = {}\nworkgroups = {workgroups}\nlogit_rows = {logit_rows}\nwithout = [\n{without}]\n",
        result.words(),
        literal(adapter),
        literal(driver),
        literal(shaders),
    )
}

struct OnDevice<'a> {
    device: &'a Device,
    config: &'a Config,
    now: &'a dyn Fn() -> f64,
    /// Compiled and checked, at most two.
    ready: Vec<(Kernels, Ready<'a>)>,
}

impl OnDevice<'_> {
    fn config(&self, kernels: &Kernels) -> Config {
        Config { kernels: kernels.clone(), ..self.config.clone() }
    }
}

impl Contest for OnDevice<'_> {
    fn launches(&self, kernels: &Kernels) -> Result<Launches, BenchError> {
        let config = self.config(kernels);
        let program = training(&config, kernels_for(&config, self.device)?).program;
        let commands = program.micro.iter().chain(&program.update);
        let launches: Vec<&Dispatch> = commands.filter_map(|c| if let Command::Dispatch(d) = c { Some(d) } else { None }).collect();
        let mut replaceable: Vec<String> = Vec::new();
        for module in launches.iter().map(|d| d.kernel.module).filter(|m| m.bit.is_some()) {
            if replaceable.iter().all(|name| name != module.name) {
                replaceable.push(module.name.into());
            }
        }
        Ok(Launches {
            kernels: launches.iter().map(|d| (d.kernel.name(), d.workgroups)).collect(),
            replaceable,
            with_matrices: launches.iter().filter(|d| d.kernel.module.requires.matrix.is_some()).count(),
        })
    }

    fn compare(&mut self, before: &Kernels, after: &Kernels, rounds: u32) -> Result<Comparison, BenchError> {
        self.ready.retain(|(kernels, _)| kernels == before || kernels == after);
        for kernels in [before, after] {
            if self.ready.iter().all(|(known, _)| known != kernels) {
                let mut ready = prepare(self.device, &self.config(kernels), true)?;
                ready.check()?;
                self.ready.push((kernels.clone(), ready));
            }
        }
        self.ready.sort_by_key(|(kernels, _)| kernels != before);
        let [(_, before), (_, after)] = &mut self.ready[..] else { unreachable!("two choices are compared, which differ") };
        let works: &mut [&mut dyn FnMut() -> Result<(), GpuError>] = &mut [&mut || before.update(), &mut || after.update()];
        let seconds = samples(self.device, rounds, self.now, works)?;
        Ok(Comparison::of(&seconds[0], &seconds[1]))
    }
}
