//! Running a model on a device: an update from its micro-batches, the evaluation of a batch, the logits of some positions. Trainer,
//! generation, structure checks, interop and benches all use these.
//!
//! Each is a compiled program; the tensors that outlive a step are in a [`Memory`] that the programs of one run share by name.
//!
//! An update is one submission: the inputs of all its micro-batches are uploaded at once and copied to their tensors in turn, and the
//! measurements of each micro-batch are copied to one read-back buffer before the next one overwrites them. An update whose micro-batches, inputs
//! or commands exceed what a command buffer should hold ([`PlanOptions::most_replays`], [`MOST_UPLOAD_BYTES`], [`MOST_COMMANDS`]) is
//! split between micro-batches; the results are bit-equal.
//! After the first updates a step allocates nothing but the command encoder and what it records: inputs, results and read-back buffers
//! are reused.
//!
//! Long because the steps of training, evaluation and logits share one way to replay a plan.

use std::ops::Range;

use super::recording::{Evaluation, Logits, Training};
use crate::{
    data::dataset::Batch,
    gpu::{Device, Download, GpuError, Memory, Plan, PlanOptions, Program, Segment, Step, Submission, TensorId},
};

/// Maximum bytes of inputs per submission.
pub const MOST_UPLOAD_BYTES: u64 = 8 << 20;
/// Maximum commands per submission, so that recording it takes milliseconds.
pub const MOST_COMMANDS: usize = 1 << 13;

/// A compiled program whose micro-batches are replayed with separate inputs.
struct Replay {
    plan: Plan,
    /// Read after each micro-batch.
    outputs: Vec<TensorId>,
    /// Where each of them ends among the numbers of a micro-batch.
    ends: Vec<usize>,
    most_replays: usize,
}

/// The micro-batches of one submission.
struct Group<'a> {
    micro_batches: Range<u32>,
    /// Whether it starts an update: gradients are cleared first.
    begins: bool,
    /// The tensors to read after the update, if it ends one.
    ends: Option<&'a [TensorId]>,
}

impl Replay {
    fn new(
        device: &Device,
        memory: &mut Memory,
        program: &Program,
        outputs: Vec<TensorId>,
        options: PlanOptions,
    ) -> Result<Replay, GpuError> {
        let plan = Plan::compile(device, program, memory, options)?;
        let ends = (1..=outputs.len()).map(|count| plan.bytes_of(&outputs[..count]) as usize / size_of::<f32>()).collect();
        Ok(Replay { plan, outputs, ends, most_replays: options.most_replays })
    }

    /// The one loop over micro-batches. `write` sets the inputs of each.
    fn submit(
        &mut self,
        device: &Device,
        memory: &mut Memory,
        group: Group,
        mut write: impl FnMut(u32, &mut Submission),
    ) -> Result<Download, GpuError> {
        let replays = group.micro_batches.len();
        let last = group.ends.map_or(0, |outputs| self.plan.bytes_of(outputs));
        let read_bytes = replays as u64 * self.plan.bytes_of(&self.outputs) + last;
        let mut submission = self.plan.begin(device, memory, replays, read_bytes)?;
        if group.begins {
            submission.replay(Segment::ClearGradients);
        }
        for index in group.micro_batches {
            write(index, &mut submission);
            submission.replay(Segment::Micro);
            submission.read(&self.outputs);
        }
        if let Some(outputs) = group.ends {
            submission.replay(Segment::Update);
            submission.read(outputs);
        }
        Ok(submission.submit().expect("every program has an output"))
    }

    /// Maximum micro-batches per submission.
    fn most_micro_batches(&self) -> u32 {
        let by_upload = MOST_UPLOAD_BYTES / self.plan.input_bytes();
        let by_commands = MOST_COMMANDS / self.plan.commands(Segment::Micro).max(1);
        self.most_replays.min(by_upload as usize).min(by_commands).max(1) as u32
    }

    /// Splits off the bytes of each output of a micro-batch.
    fn split<'a>(&self, mut bytes: &'a [u8]) -> (Vec<&'a [u8]>, &'a [u8]) {
        let part = |output: &TensorId| {
            let (part, rest) = bytes.split_at(self.plan.bytes_of(&[*output]) as usize);
            bytes = rest;
            part
        };
        (self.outputs.iter().map(part).collect(), bytes)
    }
}

/// The inputs of a micro-batch of training.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroBatch {
    /// Tokens and targets.
    pub batch: Batch,
    /// `[B]`, 1 for sequences whose carried states are reset, else 0; read if the model carries states.
    pub fresh: Vec<f32>,
    /// The weight of the micro-batch in its update.
    pub loss_seed: f32,
    /// Scalars.
    pub step: Step,
}

impl Default for MicroBatch {
    fn default() -> MicroBatch {
        MicroBatch { batch: Batch::default(), fresh: Vec::new(), loss_seed: 1.0, step: Step::default() }
    }
}

/// Training updates: forward and backward of micro-batches, then clip and optimizers.
pub struct TrainStep {
    replay: Replay,
    recorded: Training,
    /// Read after each update: clip, damage, then the norms of the routers.
    of_update: Vec<TensorId>,
    /// Reused from micro-batch to micro-batch.
    inputs: MicroBatch,
}

/// An update in flight.
pub struct UpdateRun {
    micro_batches: u32,
    submitted: u32,
    downloads: Vec<Download>,
}

impl UpdateRun {
    /// Starts another update of the given number of micro-batches in its place.
    pub fn restart(&mut self, micro_batches: u32) {
        (self.micro_batches, self.submitted) = (micro_batches, 0);
        self.downloads.clear();
    }
}

/// The measurements of an update, in buffers that those of the next replace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateOutputs {
    /// The outputs of all micro-batches, one after another.
    values: Vec<f32>,
    /// Where each output of a micro-batch ends.
    ends: Vec<usize>,
    /// See [`Training::clip`].
    pub clip: Vec<f32>,
    /// See [`Training::damage`].
    pub is_damaged: bool,
    /// The gradient norm of the router of each call, see [`Training::router_norms`].
    pub router_norms: Vec<f32>,
}

impl UpdateOutputs {
    /// Of each micro-batch.
    pub fn micro_batches(&self) -> impl Iterator<Item = MicroOutputs<'_>> {
        let values = self.ends.last().copied().unwrap_or_default().max(1);
        self.values.chunks(values).map(|values| MicroOutputs { values, ends: &self.ends })
    }

    /// Number of MoE layers.
    pub fn layers(&self) -> usize {
        self.ends.len().saturating_sub(1)
    }
}

/// The measurements of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct MicroOutputs<'a> {
    values: &'a [f32],
    ends: &'a [usize],
}

impl<'a> MicroOutputs<'a> {
    /// Of the loss head, see [`Training::statistics`].
    pub fn statistics(self) -> &'a [f32] {
        &self.values[..self.ends[0]]
    }

    /// The routing metrics of each MoE layer, see [`Training::routing`].
    pub fn routing(self) -> impl Iterator<Item = &'a [f32]> {
        self.ends.windows(2).map(move |ends| &self.values[ends[0]..ends[1]])
    }
}

impl TrainStep {
    /// Compiles a recorded training program on a memory.
    ///
    /// # Errors
    /// If it does not fit the device.
    pub fn new(device: &Device, memory: &mut Memory, recorded: Training, options: PlanOptions) -> Result<TrainStep, GpuError> {
        let mut outputs = vec![recorded.statistics];
        outputs.extend(&recorded.routing);
        let replay = Replay::new(device, memory, &recorded.program, outputs, options)?;
        let mut of_update = vec![recorded.clip, recorded.damage];
        of_update.extend(recorded.router_norms.as_ref().map(|routers| routers.norms));
        Ok(TrainStep { replay, recorded, of_update, inputs: MicroBatch::default() })
    }

    /// The program.
    pub fn recorded(&self) -> &Training {
        &self.recorded
    }

    /// Starts an update of the given number of micro-batches; [`TrainStep::proceed`] submits it.
    pub fn begin(&self, micro_batches: u32) -> UpdateRun {
        let submissions = micro_batches.div_ceil(self.replay.most_micro_batches());
        UpdateRun { micro_batches, submitted: 0, downloads: Vec::with_capacity(submissions as usize) }
    }

    /// Makes the next submission of an update: all of it, unless it is too large for one. `fill` sets the inputs of the micro-batch
    /// with this index in the update, overwriting those of the one before. Returns whether the update is complete.
    ///
    /// # Errors
    /// Any device error reported so far.
    pub fn proceed(
        &mut self,
        device: &Device,
        memory: &mut Memory,
        update: &mut UpdateRun,
        fill: impl FnMut(u32, &mut MicroBatch),
    ) -> Result<bool, GpuError> {
        let end = update.micro_batches.min(update.submitted + self.replay.most_micro_batches());
        let micro_batches = update.submitted..end;
        let is_complete = end == update.micro_batches;
        let download = self.submit(device, memory, micro_batches, update.submitted == 0, is_complete, fill)?;
        update.downloads.push(download);
        update.submitted = end;
        Ok(is_complete)
    }

    /// Forward and backward of one micro-batch without an update: gradients accumulate from the one that `clears` them. Blocks, and
    /// returns cross-entropy sum, targets and correct predictions.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn accumulate(
        &mut self,
        device: &Device,
        memory: &mut Memory,
        clears: bool,
        fill: impl FnMut(u32, &mut MicroBatch),
    ) -> Result<Vec<f32>, GpuError> {
        let download = self.submit(device, memory, 0..1, clears, false, fill)?;
        download.wait_ready(device)?;
        let statistics = download.poll_with(device, |bytes| floats(self.replay.split(bytes).0[0]))?;
        Ok(statistics.unwrap_or_default())
    }

    fn submit(
        &mut self,
        device: &Device,
        memory: &mut Memory,
        micro_batches: Range<u32>,
        begins: bool,
        ends: bool,
        mut fill: impl FnMut(u32, &mut MicroBatch),
    ) -> Result<Download, GpuError> {
        let TrainStep { replay, recorded, of_update, inputs } = self;
        let group = Group { micro_batches, begins, ends: ends.then_some(&of_update[..]) };
        replay.submit(device, memory, group, |index, submission| {
            fill(index, inputs);
            submission.write(recorded.tokens, bytemuck::cast_slice(&inputs.batch.tokens));
            submission.write(recorded.targets, bytemuck::cast_slice(&inputs.batch.targets));
            submission.write(recorded.loss_seed, bytemuck::bytes_of(&inputs.loss_seed));
            if let Some(fresh) = recorded.fresh {
                submission.write(fresh, bytemuck::cast_slice(&inputs.fresh));
            }
            submission.set_step(&inputs.step);
        })
    }

    /// Replaces `outputs` by the measurements of a submitted update. Returns whether they are available yet; if not, `outputs` is
    /// undefined. Never blocks.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn poll(&self, device: &Device, update: &UpdateRun, outputs: &mut UpdateOutputs) -> Result<bool, GpuError> {
        let Some((last, before)) = update.downloads.split_last() else { return Ok(false) };
        // The last submission completes last.
        if last.poll_with(device, |_| ())?.is_none() {
            return Ok(false);
        }
        let UpdateOutputs { values, ends, clip, is_damaged, router_norms } = outputs;
        values.clear();
        ends.clone_from(&self.replay.ends);
        for download in before {
            if download.poll_with(device, |bytes| values.extend(numbers(bytes)))?.is_none() {
                return Ok(false);
            }
        }
        let bytes_of = |outputs: &[TensorId]| self.replay.plan.bytes_of(outputs) as usize;
        let read = last.poll_with(device, |bytes| {
            let (of_micro_batches, bytes) = bytes.split_at(bytes.len() - bytes_of(&self.of_update));
            values.extend(numbers(of_micro_batches));
            let (of_clip, bytes) = bytes.split_at(bytes_of(&self.of_update[..1]));
            clip.clear();
            clip.extend(numbers(of_clip));
            let (damage, norms) = bytes.split_at(bytes_of(&self.of_update[1..2]));
            *is_damaged = damage.iter().any(|byte| *byte != 0);
            let router_of = self.recorded.router_norms.iter().flat_map(|routers| &routers.router_of);
            router_norms.clear();
            router_norms.extend(router_of.filter_map(|router| numbers(&norms[size_of::<f32>() * *router..]).next()));
        })?;
        Ok(read.is_some())
    }

    /// Blocks until a completely submitted update can be polled. Only works natively.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn wait(&self, device: &Device, update: &UpdateRun) -> Result<(), GpuError> {
        update.downloads.last().map_or(Ok(()), |download| download.wait_ready(device))
    }

    /// The compiled program, for benches and checks that inspect it.
    pub fn plan(&self) -> &Plan {
        &self.replay.plan
    }
}

/// Evaluation of batches: forward, without dropout or noise.
pub struct EvalStep {
    replay: Replay,
    recorded: Evaluation,
}

/// The measurements of the evaluation of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalOutputs {
    /// Cross-entropy sum, targets, correct predictions `[3]`.
    pub statistics: Vec<f32>,
    /// Routing metrics of each router call, as [`Training::routing`].
    pub routing: Vec<Vec<f32>>,
    /// Assignments by domain and expert of each router call, see [`Evaluation::domain_counts`].
    pub domain_counts: Vec<Vec<f32>>,
}

impl EvalStep {
    /// Compiles a recorded evaluation program on a memory.
    ///
    /// # Errors
    /// If it does not fit the device.
    pub fn new(device: &Device, memory: &mut Memory, recorded: Evaluation, options: PlanOptions) -> Result<EvalStep, GpuError> {
        let mut outputs = vec![recorded.statistics];
        outputs.extend(recorded.routing.iter().chain(&recorded.domain_counts));
        let replay = Replay::new(device, memory, &recorded.program, outputs, options)?;
        Ok(EvalStep { replay, recorded })
    }

    /// Submits a batch, of which the first `real_tokens` tokens count in the routing. `domains` `[N]` are those of its tokens, if they are
    /// known.
    ///
    /// # Errors
    /// Any device error reported so far.
    pub fn submit(
        &mut self,
        device: &Device,
        memory: &mut Memory,
        batch: &Batch,
        real_tokens: u32,
        domains: Option<&[u32]>,
    ) -> Result<Download, GpuError> {
        // Without dropout, noise and updates nothing else of a step is read.
        let step = Step { inverse_targets: 1.0 / batch.target_count().max(1) as f32, real_tokens, ..Step::default() };
        let EvalStep { replay, recorded } = self;
        replay.submit(device, memory, Group { micro_batches: 0..1, begins: false, ends: None }, |_, submission| {
            submission.write(recorded.tokens, bytemuck::cast_slice(&batch.tokens));
            submission.write(recorded.targets, bytemuck::cast_slice(&batch.targets));
            if let Some(input) = recorded.domains {
                match domains {
                    Some(domains) => submission.write(input, bytemuck::cast_slice(domains)),
                    None => submission.write(input, bytemuck::cast_slice(&vec![Batch::IGNORED; batch.tokens.len()])),
                }
            }
            submission.set_step(&step);
        })
    }

    /// The measurements of a submitted batch, or `None` if they are not available yet. Never blocks.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn poll(&self, device: &Device, download: &Download) -> Result<Option<EvalOutputs>, GpuError> {
        download.poll_with(device, |bytes| {
            let mut outputs = self.replay.split(bytes).0.into_iter().map(floats);
            let statistics = outputs.next().unwrap_or_default();
            let routing = outputs.by_ref().take(self.recorded.routing.len()).collect();
            EvalOutputs { statistics, routing, domain_counts: outputs.collect() }
        })
    }
}

/// Logits of some positions of some sequences.
pub struct LogitsStep {
    replay: Replay,
    recorded: Logits,
}

impl LogitsStep {
    /// Compiles a recorded program on a memory.
    ///
    /// # Errors
    /// If it does not fit the device.
    pub fn new(device: &Device, memory: &mut Memory, recorded: Logits, options: PlanOptions) -> Result<LogitsStep, GpuError> {
        let replay = Replay::new(device, memory, &recorded.program, vec![recorded.logits], options)?;
        Ok(LogitsStep { replay, recorded })
    }

    /// The same, but the experts of each token are read instead of logits.
    ///
    /// # Errors
    /// As [`LogitsStep::new`].
    pub fn of_experts(device: &Device, memory: &mut Memory, recorded: Logits, options: PlanOptions) -> Result<LogitsStep, GpuError> {
        let replay = Replay::new(device, memory, &recorded.program, recorded.experts.clone(), options)?;
        Ok(LogitsStep { replay, recorded })
    }

    /// The program.
    pub fn recorded(&self) -> &Logits {
        &self.recorded
    }

    /// Submits the sequences `tokens` `[N]`; the logits are those of the `positions` `[P]`, indices into them.
    ///
    /// # Errors
    /// Any device error reported so far.
    pub fn submit(&mut self, device: &Device, memory: &mut Memory, tokens: &[u32], positions: &[u32]) -> Result<Download, GpuError> {
        let LogitsStep { replay, recorded } = self;
        replay.submit(device, memory, Group { micro_batches: 0..1, begins: false, ends: None }, |_, submission| {
            submission.write(recorded.tokens, bytemuck::cast_slice(tokens));
            submission.write(recorded.positions, bytemuck::cast_slice(positions));
            submission.set_step(&Step::default());
        })
    }

    /// The logits [P, V], or `None` if they are not available yet. Never blocks.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn poll(&self, device: &Device, download: &Download) -> Result<Option<Vec<f32>>, GpuError> {
        download.poll_with(device, floats)
    }

    /// For each router call, the experts of each token [N, K], of a step that reads [them](LogitsStep::of_experts), or `None` if they are not
    /// available yet. Never blocks.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn poll_experts(&self, device: &Device, download: &Download) -> Result<Option<Vec<Vec<u32>>>, GpuError> {
        download.poll_with(device, |bytes| {
            self.replay.split(bytes).0.into_iter().map(|part| floats(part).into_iter().map(f32::to_bits).collect()).collect()
        })
    }
}

/// Little-endian bytes as numbers.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    numbers(bytes).collect()
}

fn numbers(bytes: &[u8]) -> impl ExactSizeIterator<Item = f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}
