//! A whole update on random tokens: its time, the share of each kernel in time and in arithmetic, and the cost of what is measured of
//! the routing for the log alone.
//!
//! Long because preparing, timing and splitting an update share its compiled form.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::{BenchError, Ceilings, floats, median};
use crate::{
    data::dataset::Batch,
    gpu::{Access, Command, Device, Dispatch, GpuError, KernelTime, Memory, PlanOptions, Segment, Step, Tensor},
    random::Stream,
    run::{
        Config,
        model::{cost::cost, parameters::initial_values},
    },
    train::{
        engine::{EvalStep, MicroBatch, TrainStep, UpdateOutputs, UpdateRun},
        recording::{evaluation_with, kernels_for, training, training_with},
        trainer::IN_FLIGHT,
    },
};

/// Updates between two clock readings take about this many seconds.
const ROUND_SECONDS: f64 = 0.3;
/// Replays of a segment kernel by kernel, of which the median is taken for each launch.
const PROFILES: usize = 5;
/// Maximum relative difference of the first loss from ln V: random tokens cannot be predicted.
const LOSS_TOLERANCE: f64 = 0.1;

/// A timed update.
#[derive(Clone, Debug, Serialize)]
pub struct StepRecord {
    /// `step`.
    pub kernel: &'static str,
    /// Sizes of the model and the batch.
    pub shape: String,
    /// The set of kernels.
    pub tier: &'static str,
    /// Milliseconds per update: the median of the rounds.
    pub ms: f64,
    /// Useful arithmetic of model (forward and backward, nothing recomputed) and Muon.
    pub gflops: f64,
    /// Trained tokens.
    pub tokens_per_second: f64,
    /// Launches of forward and backward.
    pub micro_dispatches: usize,
    /// Launches of clip and optimizers.
    pub update_dispatches: usize,
    /// Launches that one more layer adds to both.
    pub dispatches_per_layer: usize,
}

/// All launches of one kernel in a part of an update, timed one by one.
#[derive(Clone, Debug, Serialize)]
pub struct KernelShare {
    /// `clear`, `micro` or `update`.
    pub part: &'static str,
    /// `module.entry`, or the kind of another command.
    pub kernel: String,
    /// How often.
    pub launches: usize,
    /// Milliseconds of all launches in an update, without the cost of a wait.
    pub ms: f64,
    /// Share of the time of all kernels, 0 to 1.
    pub share: f64,
    /// Its GFLOP/s, if it is a product or attention.
    pub gflops: Option<f64>,
    /// Share of the arithmetic of all kernels, 0 to 1.
    pub share_of_flops: Option<f64>,
    /// Bytes of the tensors that it reads and writes, each once a launch.
    pub bytes: f64,
    /// Milliseconds that its arithmetic or its bytes take at least, at the [`Ceilings`]; 0 for what is no kernel: it need not be.
    pub floor_ms: f64,
}

/// What it costs to measure the routing: medians of rounds with and without, in turn.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RoutingCost {
    /// `routing health`.
    pub kernel: &'static str,
    /// Milliseconds per update.
    pub update_ms: f64,
    /// The same without the gradient norms of the routers.
    pub update_without_ms: f64,
    /// Milliseconds per batch of an evaluation.
    pub eval_ms: f64,
    /// The same without gate weights and domains.
    pub eval_without_ms: f64,
}

/// An update and its kernels, those first that are farthest from their floors.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The whole.
    pub step: StepRecord,
    /// What the adapter can do at best.
    pub ceilings: Ceilings,
    /// The parts.
    pub kernels: Vec<KernelShare>,
    /// For a model with routers.
    pub routing: Option<RoutingCost>,
}

/// A compiled update with its weights and tokens set.
pub(super) struct Ready<'a> {
    device: &'a Device,
    config: Config,
    train: TrainStep,
    evaluation: EvalStep,
    memory: Memory,
    inputs: MicroBatch,
    in_flight: VecDeque<UpdateRun>,
    outputs: UpdateOutputs,
}

/// Times updates of a config's model, then each of its kernels, by `now` (seconds).
///
/// # Errors
/// A first loss that is not that of random tokens, a gradient that is not finite, or a device error.
pub fn measure(device: &Device, config: &Config, rounds: u32, now: &dyn Fn() -> f64) -> Result<Measured, BenchError> {
    let mut ready = prepare(device, config, true)?;
    let step = ready.time(rounds, now)?;
    let ceilings = Ceilings::measure(device, kernels_for(config, device)?, now)?;
    let kernels = ready.shares(&ceilings, now)?;
    ready.check_finite()?;
    let routing = if config.model.router_calls() > 0 { Some(routing_cost(&mut ready, rounds, now)?) } else { None };
    Ok(Measured { step, ceilings, kernels, routing })
}

/// Times updates of a config's model, without its kernels.
///
/// # Errors
/// As [`measure`].
pub fn time(device: &Device, config: &Config, rounds: u32, now: &dyn Fn() -> f64) -> Result<StepRecord, BenchError> {
    let mut ready = prepare(device, config, true)?;
    let step = ready.time(rounds, now)?;
    ready.check_finite()?;
    Ok(step)
}

/// Seconds of each of some pieces of work: the median of rounds of all of them in turn.
fn in_rounds<const W: usize>(
    device: &Device,
    rounds: u32,
    now: &dyn Fn() -> f64,
    mut works: [&mut dyn FnMut() -> Result<(), GpuError>; W],
) -> Result<[f64; W], GpuError> {
    let medians: Vec<f64> = samples(device, rounds, now, &mut works)?.into_iter().map(median).collect();
    Ok(std::array::from_fn(|index| medians[index]))
}

/// Seconds of each of some pieces of work in each of the rounds, which do all of them in turn, each repeated for [`ROUND_SECONDS`].
pub(super) fn samples(
    device: &Device,
    rounds: u32,
    now: &dyn Fn() -> f64,
    works: &mut [&mut dyn FnMut() -> Result<(), GpuError>],
) -> Result<Vec<Vec<f64>>, GpuError> {
    let mut repeats = Vec::new();
    for work in works.iter_mut() {
        let start = now();
        work()?;
        device.wait_idle()?;
        repeats.push((ROUND_SECONDS / (now() - start).max(1e-6)).clamp(1.0, 100.0) as u32);
    }
    let mut seconds = vec![Vec::new(); works.len()];
    for _ in 0..rounds.max(1) {
        for ((work, repeats), seconds) in works.iter_mut().zip(&repeats).zip(&mut seconds) {
            let start = now();
            for _ in 0..*repeats {
                work()?;
            }
            device.wait_idle()?;
            seconds.push((now() - start) / f64::from(*repeats));
        }
    }
    Ok(seconds)
}

/// Times updates and evaluations with everything that is measured of the routing, and with only what the losses need.
fn routing_cost(ready: &mut Ready, rounds: u32, now: &dyn Fn() -> f64) -> Result<RoutingCost, GpuError> {
    let device = ready.device;
    let mut without = prepare(device, &ready.config, false)?;
    let [update, update_without] = in_rounds(device, rounds, now, [&mut || ready.update(), &mut || without.update()])?;
    let [eval, eval_without] = in_rounds(device, rounds, now, [&mut || ready.evaluate(), &mut || without.evaluate()])?;
    let [update_ms, update_without_ms, eval_ms, eval_without_ms] =
        [update, update_without, eval, eval_without].map(|seconds| 1e3 * seconds);
    Ok(RoutingCost { kernel: "routing health", update_ms, update_without_ms, eval_ms, eval_without_ms })
}

pub(super) fn prepare<'a>(device: &'a Device, config: &Config, measures_routing: bool) -> Result<Ready<'a>, GpuError> {
    let mut memory = Memory::default();
    let recorded = training_with(config, kernels_for(config, device)?, measures_routing);
    let train = TrainStep::new(device, &mut memory, recorded, PlanOptions::default())?;
    let evaluation = evaluation_with(config, device.capabilities, measures_routing);
    let evaluation = EvalStep::new(device, &mut memory, evaluation, PlanOptions::default())?;
    for spec in config.parameters() {
        memory.write(device, &spec.name, bytemuck::cast_slice(&initial_values(&spec, config.seed)));
    }
    let count = config.tokens_per_micro_batch();
    let draw = |stream: u32| -> Vec<u32> {
        let stream = Stream { seed: config.seed, step: 0, stream };
        (0..count).map(|i| stream.bits(i)[0] % config.model.vocabulary).collect()
    };
    let mut inputs = MicroBatch {
        batch: Batch { tokens: draw(1), targets: draw(2) },
        fresh: vec![1.0; config.data.batch as usize],
        loss_seed: (1_u64 << config.loss_scale_exponent()) as f32 / config.train.micro_batches as f32,
        ..MicroBatch::default()
    };
    inputs.step = Step {
        seed_low: config.seed as u32,
        seed_high: (config.seed >> 32) as u32,
        lr_adamw: config.optimizer.adamw.lr as f32,
        lr_muon: config.optimizer.muon.lr as f32,
        balance_coefficient: config.model.balance.coefficient as f32,
        z_coefficient: config.model.balance.z_coefficient as f32,
        clip_norm: config.optimizer.clip_norm as f32,
        inverse_targets: 1.0 / count as f32,
        loss_scale_exponent: config.loss_scale_exponent(),
        ..Step::default()
    };
    let config = config.clone();
    Ok(Ready { device, config, train, evaluation, memory, inputs, in_flight: VecDeque::new(), outputs: UpdateOutputs::default() })
}

impl Ready<'_> {
    /// The median time of an update, after a check of the first.
    fn time(&mut self, rounds: u32, now: &dyn Fn() -> f64) -> Result<StepRecord, BenchError> {
        self.check()?;
        let [seconds] = in_rounds(self.device, rounds, now, [&mut || self.update()])?;
        Ok(self.record(seconds))
    }

    /// Submits one update as the trainer does: with the measurements read back, and only a few in flight.
    pub(super) fn update(&mut self) -> Result<(), GpuError> {
        while self.in_flight.len() >= IN_FLIGHT
            && let Some(oldest) = self.in_flight.pop_front()
        {
            self.train.wait(self.device, &oldest)?;
            self.train.poll(self.device, &oldest, &mut self.outputs)?;
        }
        let mut update = self.train.begin(self.config.train.micro_batches);
        let inputs = &self.inputs;
        let mut fill = |_: u32, micro: &mut MicroBatch| {
            micro.batch.copy_from(&inputs.batch);
            micro.fresh.clone_from(&inputs.fresh);
            (micro.loss_seed, micro.step) = (inputs.loss_seed, inputs.step);
        };
        while !self.train.proceed(self.device, &mut self.memory, &mut update, &mut fill)? {}
        self.in_flight.push_back(update);
        Ok(())
    }

    /// Evaluates the batch, all of it of one domain, and waits for the result.
    fn evaluate(&mut self) -> Result<(), GpuError> {
        let batch = &self.inputs.batch;
        let domains = vec![0; batch.tokens.len()];
        let download = self.evaluation.submit(self.device, &mut self.memory, batch, u32::MAX, Some(&domains))?;
        download.wait_ready(self.device)?;
        self.evaluation.poll(self.device, &download).map(drop)
    }

    fn wrong(&self, problem: String) -> BenchError {
        BenchError::Wrong { kernel: "step".into(), shape: self.shape(), tier: self.device.capabilities.name().into(), problem }
    }

    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        self.update()?;
        let parts = self.train.plan().download(self.device, &[self.train.recorded().statistics]).wait(self.device)?;
        let statistics = floats(&parts[0]);
        let (found, wanted) = (statistics[0] / statistics[1], f64::from(self.config.model.vocabulary).ln());
        if (found / wanted - 1.0).abs() < LOSS_TOLERANCE {
            return self.check_finite();
        }
        Err(self.wrong(format!("expected a first loss within 10 % of ln V = {wanted:.3}, found {found:.3}")))
    }

    /// The third word of `clip` reports non-finite gradients.
    fn check_finite(&self) -> Result<(), BenchError> {
        let parts = self.train.plan().download(self.device, &[self.train.recorded().clip]).wait(self.device)?;
        let clip: Vec<u32> = bytemuck::pod_collect_to_vec(&parts[0]);
        if clip[2] == 1 { Ok(()) } else { Err(self.wrong("expected finite gradients, found one that is not".into())) }
    }

    fn shape(&self) -> String {
        let (model, data) = (&self.config.model, &self.config.data);
        let (experts, taken) = model.experts();
        format!(
            "D {}, L {}, H {}, F {}, E {experts}, K {taken}, V {}, T {}, B {} x {}",
            model.width,
            model.depth.layers,
            model.attention.heads,
            model.ffn.width,
            model.vocabulary,
            data.sequence_length,
            data.batch,
            self.config.train.micro_batches
        )
    }

    fn record(&self, seconds: f64) -> StepRecord {
        let config = &self.config;
        let cost = cost(&config.model, &config.parameters(), config.data.sequence_length);
        let tokens = config.tokens_per_update();
        let flops = tokens * (cost.forward_flops_per_token + cost.backward_flops_per_token) + cost.muon_flops_per_update;
        let (micro, update) = self.train.recorded().program.dispatches();
        let mut deeper = config.clone();
        deeper.model.depth.layers += 1;
        let (deeper_micro, deeper_update) =
            training(&deeper, kernels_for(config, self.device).unwrap_or(self.device.capabilities)).program.dispatches();
        StepRecord {
            kernel: "step",
            shape: self.shape(),
            tier: self.device.capabilities.name(),
            ms: seconds * 1e3,
            gflops: flops as f64 / seconds * 1e-9,
            tokens_per_second: tokens as f64 / seconds,
            micro_dispatches: micro,
            update_dispatches: update,
            dispatches_per_layer: (deeper_micro + deeper_update) - (micro + update),
        }
    }

    /// Milliseconds of a submission that does nothing, and the wait for it.
    fn overhead(&mut self, now: &dyn Fn() -> f64) -> Result<f64, GpuError> {
        let mut times = Vec::new();
        for _ in 0..50 {
            self.device.wait_idle()?;
            let start = now();
            self.train.plan().submit(self.device, &mut self.memory, &self.inputs.step, &[])?;
            self.device.wait_idle()?;
            times.push((now() - start) * 1e3);
        }
        Ok(median(times))
    }

    fn shares(&mut self, ceilings: &Ceilings, now: &dyn Fn() -> f64) -> Result<Vec<KernelShare>, GpuError> {
        let overhead = self.overhead(now)?;
        let mut profiles = Vec::new();
        for _ in 0..PROFILES {
            let mut segment = |s: Segment| self.train.plan().profile(self.device, &mut self.memory, &self.inputs.step, s, now);
            profiles.push([segment(Segment::ClearGradients)?, segment(Segment::Micro)?, segment(Segment::Update)?]);
        }
        let micro_batches = self.config.train.micro_batches as usize;
        let program = &self.train.recorded().program;
        let parts: [(&str, &[Command], usize); 3] =
            [("clear", &[], 1), ("micro", &program.micro, micro_batches), ("update", &program.update, 1)];
        let mut all = Vec::new();
        for (index, (part, commands, times)) in parts.into_iter().enumerate() {
            let runs: Vec<&[KernelTime]> = profiles.iter().map(|p| p[index].as_slice()).collect();
            let dispatch = |command: &Command| match command {
                Command::Dispatch(d) => Some(Work { flops: flops_of(d, self.config.data.sequence_length), bytes: bytes_of(d) }),
                _ => None,
            };
            let works: Vec<Work> = commands.iter().filter_map(dispatch).collect();
            all.extend(sums(part, &runs, &works, ceilings, overhead).into_iter().map(|s| s.times(times)));
        }
        Ok(shares(all))
    }
}

/// What a launch has to do.
#[derive(Clone, Copy)]
struct Work {
    flops: Option<f64>,
    bytes: f64,
}

/// All launches of a kernel.
struct Sum {
    part: &'static str,
    kernel: String,
    launches: usize,
    ms: f64,
    flops: Option<f64>,
    bytes: f64,
    floor_ms: f64,
}

impl Sum {
    fn times(mut self, n: usize) -> Sum {
        self.launches *= n;
        for value in [&mut self.ms, &mut self.bytes, &mut self.floor_ms].into_iter().chain(&mut self.flops) {
            *value *= n as f64;
        }
        self
    }
}

/// The launches of a part by kernel; `works` has one entry per launch.
fn sums(part: &'static str, runs: &[&[KernelTime]], works: &[Work], ceilings: &Ceilings, overhead: f64) -> Vec<Sum> {
    let mut by_kernel: BTreeMap<&str, Sum> = BTreeMap::new();
    let mut works = works.iter();
    for (index, first) in runs[0].iter().enumerate() {
        let ms = (median(runs.iter().map(|run| run[index].milliseconds).collect()) - overhead).max(0.0);
        let is_launch = first.label.contains('.');
        let work = if is_launch { works.next().copied() } else { None };
        let new = || Sum { part, kernel: first.label.clone(), launches: 0, ms: 0.0, flops: None, bytes: 0.0, floor_ms: 0.0 };
        let sum = by_kernel.entry(&first.label).or_insert_with(new);
        sum.launches += 1;
        sum.ms += ms;
        if let Some(Work { flops, bytes }) = work {
            sum.flops = flops.map(|f| f + sum.flops.unwrap_or(0.0)).or(sum.flops);
            sum.bytes += bytes;
            sum.floor_ms += ceilings.floor_ms(flops.unwrap_or(0.0), bytes);
        }
    }
    by_kernel.into_values().collect()
}

fn shares(all: Vec<Sum>) -> Vec<KernelShare> {
    let total_ms: f64 = all.iter().map(|s| s.ms).sum();
    let total_flops: f64 = all.iter().filter_map(|s| s.flops).sum();
    let share = |s: Sum| KernelShare {
        part: s.part,
        kernel: s.kernel,
        launches: s.launches,
        ms: s.ms,
        share: s.ms / total_ms,
        gflops: s.flops.map(|f| f / s.ms.max(1e-9) * 1e-6),
        share_of_flops: s.flops.map(|f| f / total_flops),
        bytes: s.bytes,
        floor_ms: s.floor_ms,
    };
    let mut shares: Vec<KernelShare> = all.into_iter().map(share).collect();
    shares.sort_by(|a, b| (b.ms - b.floor_ms).total_cmp(&(a.ms - a.floor_ms)));
    shares
}

/// The bytes of a launch's tensors, each read or written once. Of a table only the rows that are looked up count, as many as come out.
fn bytes_of(d: &Dispatch) -> f64 {
    let tensors = d.tensors.iter().zip(d.kernel.bindings);
    let rows = if d.kernel.module.name.starts_with("embedding") {
        tensors.clone().filter(|(_, b)| b.access.writes()).map(|(t, _)| t.bytes()).max()
    } else {
        None
    };
    let moved = tensors.map(|(t, b)| match b.access {
        Access::Read => t.bytes().min(rows.unwrap_or(u64::MAX)),
        Access::Write => t.bytes(),
        Access::ReadWrite => 2 * t.bytes(),
    });
    moved.sum::<u64>() as f64
}

/// The arithmetic of a matrix product or an attention kernel, recomputed scores included, `None` for others.
fn flops_of(d: &Dispatch, tokens: u32) -> Option<f64> {
    let operand = |names: &[&str]| -> Option<Tensor> {
        let found = d.tensors.iter().zip(d.kernel.bindings).find(|(_, b)| names.contains(&b.name));
        found.map(|(t, _)| *t)
    };
    let product = |x: Tensor, n: u32| 2.0 * f64::from(x.shape.len()) * f64::from(n);
    let module = d.kernel.module.name;
    if module.starts_with("attention") {
        // A product over the causal half of the scores.
        let q = operand(&["d_q", "y", "saved_y", "d_y"])?;
        let products = match d.kernel.entry {
            "forward" => 2.0,
            "backward_query" => 3.0,
            "backward_key" => 4.0,
            _ => return None,
        };
        return Some(products * f64::from(q.shape.len()) * f64::from(tokens + 1));
    }
    if !(module.starts_with("matmul") || module.starts_with("grouped_matmul")) {
        return None;
    }
    let a = operand(&["a"])?;
    // Every element of a meets every column of y; y may be in parts.
    let y = operand(&["y"]).or(operand(&["b"]))?;
    Some(product(a, y.shape.last()))
}
