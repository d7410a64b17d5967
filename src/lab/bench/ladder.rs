//! How the cost of an update grows with one size of a model at a time: tokens, experts, layers, vocabulary; and that of a suite with its
//! runs. Each is expected to be linear: a fixed cost and one per unit.

use serde::Serialize;

use super::{
    BenchError, median,
    step::{Ready, prepare, samples},
};
use crate::{
    gpu::{Device, GpuError},
    lab::{
        chart::{
            Scale, arm_color,
            lines::{DrawnLine, Lines},
        },
        figure::Figure,
    },
    run::Config,
};

/// Fewer sizes say nothing about a line.
pub const FEWEST_RUNGS: usize = 3;
/// Numbers of experts to time.
const EXPERTS: [u32; 4] = [4, 8, 40, 64];
/// Numbers of runs to time, and the updates of each.
const RUNS: [u32; 4] = [1, 2, 4, 8];
const UPDATES_OF_A_RUN: u32 = 4;

/// One size of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// Tokens of an update: sequences of a batch.
    Tokens,
    /// Experts of a layer, of which as many process a token as in the config.
    Experts,
    /// Layers.
    Layers,
    /// Vocabulary.
    Vocabulary,
    /// Runs of a suite, one after another in one process: each is planned and initialised, and makes a few updates with
    /// kernels that are already compiled.
    Runs,
}

impl Size {
    /// All of them, in the order in which they are timed.
    pub const ALL: [Size; 5] = [Size::Tokens, Size::Experts, Size::Layers, Size::Vocabulary, Size::Runs];

    /// In tables and charts.
    pub fn name(self) -> &'static str {
        match self {
            Size::Tokens => "tokens",
            Size::Experts => "experts",
            Size::Layers => "layers",
            Size::Vocabulary => "vocabulary",
            Size::Runs => "runs",
        }
    }

    /// One of what is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Size::Tokens => "token",
            Size::Experts => "expert",
            Size::Layers => "layer",
            Size::Vocabulary => "token of the vocabulary",
            Size::Runs => "run",
        }
    }

    /// The sizes to time, with what to set in the config for each: some sizes may contradict the rest of it.
    pub fn rungs(self, config: &Config) -> Vec<(u32, Vec<String>)> {
        let doubled = |own: u32| [1, 2, 4, 8].map(|factor| (own / 4).max(1) * factor);
        let set = |key: &str, sizes: [u32; 4]| sizes.map(|size| (size, vec![format!("{key}={size}")])).to_vec();
        match self {
            Size::Tokens => {
                let tokens = config.data.sequence_length * config.train.micro_batches;
                let rungs = set("data.batch", doubled(config.data.batch));
                rungs.into_iter().map(|(batch, sets)| (batch * tokens, sets)).collect()
            }
            Size::Experts if config.model.router_calls() == 0 => Vec::new(),
            Size::Experts => set("model.router.experts", EXPERTS),
            Size::Layers => set("model.depth.layers", doubled(config.model.depth.layers)),
            // From the config's on: a tokenizer's vocabulary is the least.
            Size::Vocabulary => set("model.vocabulary", [1, 2, 3, 4].map(|factor| factor * config.model.vocabulary)),
            Size::Runs => RUNS.map(|runs| (runs, Vec::new())).to_vec(),
        }
    }
}

/// One size and its cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// The size.
    pub size: u32,
    /// Milliseconds of an update, or of all runs: the median of the rounds.
    pub ms: f64,
    /// The fastest and the slowest round.
    pub range_ms: [f64; 2],
}

/// The cost over one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ladder {
    /// The size that differs.
    pub size: Size,
    /// From the smallest on.
    pub rungs: Vec<Rung>,
    /// The line through them that is the closest in relative terms: milliseconds at size 0, and per unit.
    pub fixed_ms: f64,
    /// See `fixed_ms`.
    pub ms_per_unit: f64,
    /// The largest difference of a rung from that line, as a fraction.
    pub deviation: f64,
}

/// Times updates of the models of `rungs`, or whole runs of them, by `now` (seconds).
///
/// # Errors
/// As [`super::step::measure`].
pub fn measure(device: &Device, size: Size, rungs: &[(u32, Config)], rounds: u32, now: &dyn Fn() -> f64) -> Result<Ladder, BenchError> {
    let seconds = match size {
        Size::Runs => time_runs(device, rungs, rounds, now)?,
        _ => time_updates(device, rungs, rounds, now)?,
    };
    Ok(Ladder::new(size, rungs.iter().zip(seconds).map(|((size, _), seconds)| rung(*size, seconds)).collect()))
}

fn time_updates(device: &Device, rungs: &[(u32, Config)], rounds: u32, now: &dyn Fn() -> f64) -> Result<Vec<Vec<f64>>, BenchError> {
    let mut ready: Vec<Ready> = rungs.iter().map(|(_, config)| prepare(device, config, true)).collect::<Result<_, _>>()?;
    for rung in &mut ready {
        rung.check()?;
    }
    let mut updates: Vec<_> = ready.iter_mut().map(|rung| || rung.update()).collect();
    let mut works: Vec<&mut dyn FnMut() -> Result<(), GpuError>> = Vec::new();
    for update in &mut updates {
        works.push(update);
    }
    Ok(samples(device, rounds, now, &mut works)?)
}

fn time_runs(device: &Device, rungs: &[(u32, Config)], rounds: u32, now: &dyn Fn() -> f64) -> Result<Vec<Vec<f64>>, BenchError> {
    let all = |(runs, config): &(u32, Config)| {
        for _ in 0..*runs {
            let mut run = prepare(device, config, true)?;
            for _ in 0..UPDATES_OF_A_RUN {
                run.update()?;
            }
        }
        Ok(())
    };
    let mut suites: Vec<_> = rungs.iter().map(|rung| || all(rung)).collect();
    let mut works: Vec<&mut dyn FnMut() -> Result<(), GpuError>> = Vec::new();
    for suite in &mut suites {
        works.push(suite);
    }
    Ok(samples(device, rounds, now, &mut works)?)
}

fn rung(size: u32, seconds: Vec<f64>) -> Rung {
    let ms: Vec<f64> = seconds.into_iter().map(|seconds| 1e3 * seconds).collect();
    let range_ms = [ms.iter().copied().fold(f64::INFINITY, f64::min), ms.iter().copied().fold(0.0, f64::max)];
    Rung { size, ms: median(ms), range_ms }
}

impl Ladder {
    /// Fits the line: least squares of relative differences, so that small sizes count as much as large ones.
    fn new(size: Size, rungs: Vec<Rung>) -> Ladder {
        // ms_i = a + b x_i, each divided by ms_i.
        let mut sums = [0.0; 5];
        for rung in &rungs {
            let (constant, slope) = (1.0 / rung.ms, f64::from(rung.size) / rung.ms);
            let terms = [constant * constant, constant * slope, slope * slope, constant, slope];
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
        let [cc, cs, ss, c, s] = sums;
        let determinant = cc * ss - cs * cs;
        let fixed_ms = (c * ss - s * cs) / determinant;
        let ms_per_unit = (s * cc - c * cs) / determinant;
        let off = |rung: &Rung| ((fixed_ms + ms_per_unit * f64::from(rung.size)) / rung.ms - 1.0).abs();
        let deviation = rungs.iter().map(off).fold(0.0, f64::max);
        Ladder { size, rungs, fixed_ms, ms_per_unit, deviation }
    }
}

/// The ladders in one chart, each relative to its smallest size: a cost that is proportional to a size lies on the diagonal, and one with
/// a fixed part below it.
pub fn figure(adapter: &str, ladders: &[Ladder]) -> Figure {
    let relative = |ladder: &Ladder| -> Vec<[f64; 2]> {
        let first = &ladder.rungs[0];
        ladder.rungs.iter().map(|rung| [f64::from(rung.size) / f64::from(first.size), rung.ms / first.ms]).collect()
    };
    let line = |(index, ladder): (usize, &Ladder)| {
        let points = relative(ladder);
        DrawnLine {
            name: format!("{} \u{d7} {}: time \u{d7}", ladder.size.name(), points[points.len() - 1][0]),
            color: arm_color(index),
            points,
            band: Vec::new(),
            raw: Vec::new(),
            is_dotted: true,
        }
    };
    let lines: Vec<DrawnLine> = ladders.iter().enumerate().map(line).collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let longest = points().map(|p| p[0]).fold(1.0, f64::max);
    let highest = points().map(|p| p[1]).fold(1.0, f64::max);
    let said: Vec<String> = lines.iter().map(|line| format!("{} {:.2}", line.name, line.points[line.points.len() - 1][1])).collect();
    let description = format!("The cost of an update over each size of the model, relative to the smallest size: {}.", said.join("; "));
    let x_title = "size, relative to the smallest".into();
    let levels = Vec::new();
    let lines = Lines {
        title: format!("Cost of an update over the sizes of a model: {adapter}"),
        y_title: "time, relative to that of the smallest".into(),
        x_title,
        x: (Scale::Linear, [1.0, longest]),
        y: (Scale::Linear, [0.0, 1.05 * highest]),
        lines,
        levels,
        marks: Vec::new(),
        description,
    };
    lines.figure()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(ms: impl Fn(f64) -> f64) -> Ladder {
        let rungs = [1, 2, 4, 8].map(|size| rung(size, vec![1e-3 * ms(f64::from(size))])).to_vec();
        Ladder::new(Size::Layers, rungs)
    }

    #[test]
    fn a_linear_cost_has_no_deviation() {
        let found = ladder(|size| 5.0 + 3.0 * size);
        assert!((found.fixed_ms - 5.0).abs() < 1e-9 && (found.ms_per_unit - 3.0).abs() < 1e-9 && found.deviation < 1e-9, "{found:?}");
    }

    #[test]
    fn a_quadratic_cost_deviates() {
        let found = ladder(|size| size * size);
        assert!(found.deviation > 0.2, "{found:?}");
    }
}
