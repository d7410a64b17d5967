//! The trainer: a state machine that never blocks. [`Trainer::advance`] submits work and collects completed work.
//!
//! Guarantees: runs with the same config, data and adapter are bit-equal, also when stopped and resumed; a step waits for
//! no read-back (up to [`IN_FLIGHT`] updates are in flight); evaluations, checkpoints and the end of a run happen
//! between updates, when everything before is complete. A non-finite gradient changes no parameter and no moment, and
//! a non-finite result of an update is detected with that update.
//! One call is one slice: one submission of an update, the batches of an evaluation in flight, and completed results of both.
//! A checkpoint is read piece by piece, which needs no memory for a second model. A driver with a budget calls while it has time.
//! The trainer has no clock and no files: it returns [`Progress`]; its driver adds times and stores what must persist.
//!
//! A front end drives runs by the commands and events of a [`Host`](crate::lab::host::Host). The trainer is for libraries and tests that
//! train without a run folder. [`Progress`] is therefore no second vocabulary for what happens in a run: the records in it are those of
//! the log and of the events. Its other variants are what the trainer asks of its driver (save now, load a checkpoint, stop calling), which no
//! event tells, because the session does it.
//!
//! Long because it is one state machine, with every phase and transition.

use std::{collections::VecDeque, ops::ControlFlow, rc::Rc};

use super::{
    builder::TrainerBuilder,
    encoder::SnapshotReader,
    engine::{EvalStep, TrainStep, UpdateOutputs, UpdateRun},
    error::TrainError,
    micro_batches::MicroBatches,
    recording,
    reduce::{MicroWeight, Reduced, Scratch},
    validation::ValidationPass,
};
use crate::{
    data::corpus::Corpus,
    run::{
        alarms::Alarm,
        checkpoint::{Expected, NamedTensor, Snapshot},
        config::Config,
        records::{EvalRecord, Incident, IncidentRecord, UpdateRecord},
        schedule::Schedule,
        state::{BestEval, Change, Identity, TrainState},
    },
};
use crate::{
    gpu::{Compilation, Device, Memory, PlanOptions},
    run::model::parameters::{self, ParamSpec},
};

/// Updates submitted but not yet read back.
pub const IN_FLIGHT: usize = 2;

/// What has happened.
#[derive(Clone, Debug)]
pub enum Progress {
    /// An update is complete.
    Update(UpdateRecord),
    /// An evaluation is complete.
    Eval(EvalRecord),
    /// An evaluation that [`Trainer::begin_requested_evaluation`] began is complete. The run does not depend on it.
    Requested(EvalRecord),
    /// An incident.
    Incident(IncidentRecord),
    /// A checkpoint is due, of the tensors from [`Trainer::snapshot_piece`] and of [`Trainer::state`]. They do not change until the
    /// next call of [`Trainer::advance`], which resumes training even if it was not saved.
    CheckpointDue,
    /// The run must be rolled back to its last good checkpoint: pass its tensors to
    /// [`Trainer::write_tensor`], and its state to [`Trainer::roll_back`].
    WantsRollback,
    /// The run has ended, after its last checkpoint was due.
    Done {
        /// The reason.
        end: End,
    },
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All updates were made.
    Completed,
    /// The validation loss no longer improved.
    EarlyStopped,
    /// [`Trainer::interrupt`] was called; the run can be resumed.
    Interrupted,
}

struct Flight {
    record: UpdateRecord,
    weights: Vec<MicroWeight>,
    run: UpdateRun,
}

/// What to do before the next update.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// No further update is made.
    is_over: bool,
    /// Whether the scheduled evaluation is still to be made.
    lacks_evaluation: bool,
    evaluation: bool,
    save: bool,
}

enum Phase {
    Training,
    Evaluating {
        pass: ValidationPass,
        /// Whether it was requested and is not part of the run.
        is_requested: bool,
    },
    /// Until the next [`Trainer::advance`].
    Saving {
        reader: SnapshotReader,
    },
    /// Until [`Trainer::roll_back`].
    WaitingForRollback,
    Finished {
        is_told: bool,
    },
}

/// One run on one device.
pub struct Trainer {
    config: Config,
    device: Rc<Device>,
    memory: Memory,
    training: TrainStep,
    evaluation: EvalStep,
    corpus: Corpus,
    schedule: Schedule,
    state: TrainState,
    in_flight: VecDeque<Flight>,
    /// The update that is only partly submitted.
    submitting: Option<Flight>,
    /// The buffers of completed updates, for the next ones.
    spare: Vec<(Vec<MicroWeight>, UpdateRun)>,
    outputs: UpdateOutputs,
    scratch: Scratch,
    phase: Phase,
    evaluated_at: Option<u32>,
    saved_at: Option<u32>,
    /// Whether the newest evaluation changed the checkpoint of its update.
    evaluation_is_unsaved: bool,
    is_interrupted: bool,
    /// If set, no update after this one is submitted.
    limit: Option<u32>,
    /// Whether a checkpoint was requested although none is due.
    save_requested: bool,
    /// What the next call of [`Trainer::advance`] returns, so that the progress before it is not lost.
    failed: Option<TrainError>,
}

impl Trainer {
    /// Compiles the run's programs and sets the initial weights, like [`TrainerBuilder`] in one call.
    ///
    /// # Errors
    /// If the model does not fit the device.
    pub fn new(config: Config, device: Rc<Device>, corpus: Corpus, options: PlanOptions) -> Result<Trainer, TrainError> {
        let mut builder = TrainerBuilder::new(config, device, corpus, options);
        loop {
            match builder.proceed()? {
                ControlFlow::Continue(next) => builder = next,
                ControlFlow::Break(trainer) => return Ok(trainer),
            }
        }
    }

    /// A trainer of compiled programs, in a memory with the initial weights.
    pub(super) fn assemble(
        config: Config,
        device: Rc<Device>,
        corpus: Corpus,
        memory: Memory,
        training: TrainStep,
        evaluation: EvalStep,
    ) -> Trainer {
        let identity = Identity::new(&config, &corpus.hash(), &corpus.tokenizer_hash(), &device.adapter.name, &device.adapter.driver);
        Trainer {
            schedule: config.learning_rates(),
            state: TrainState::new(config.seed, identity),
            config,
            device,
            memory,
            training,
            evaluation,
            corpus,
            in_flight: VecDeque::new(),
            submitting: None,
            spare: Vec::new(),
            outputs: UpdateOutputs::default(),
            scratch: Scratch::default(),
            phase: Phase::Training,
            evaluated_at: None,
            saved_at: None,
            evaluation_is_unsaved: false,
            is_interrupted: false,
            limit: None,
            save_requested: false,
            failed: None,
        }
    }

    /// The kernels that [`Trainer::new`] needs and that no earlier run on the device did, to be compiled one at a time before it.
    pub fn compilation(config: &Config, device: &Device) -> Compilation {
        // Without the kernels there is nothing to compile: the builder says why.
        let kernels = recording::kernels_for(config, device).unwrap_or(device.capabilities);
        let training = recording::training(config, kernels);
        let evaluation = recording::evaluation(config, device.capabilities);
        Compilation::of(device, &[&training.program, &evaluation.program])
    }

    /// The device it trains on.
    pub fn device(&self) -> &Rc<Device> {
        &self.device
    }

    /// The state of the run.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// Records settings that changed when the run was resumed.
    pub fn note_changes(&mut self, changes: Vec<Change>) {
        self.state.changes.extend(changes);
    }

    /// Sets the hash of the config that this run was started with, from its log.
    pub fn keep_started_as(&mut self, config_hash: String) {
        self.state.identity.config = config_hash;
    }

    /// The run's config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The run's data.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// The device, and the memory that holds the run's parameters: for generating text.
    pub fn device_and_memory(&mut self) -> (&Rc<Device>, &mut Memory) {
        (&self.device, &mut self.memory)
    }

    /// The name and shape of every tensor of this run's checkpoints.
    pub fn expected(&self) -> Expected {
        self.training.recorded().expected()
    }

    /// Submits work and collects completed work. An empty result means that the device is busy: call
    /// again later, or [`Trainer::wait`] if blocking is allowed.
    ///
    /// # Errors
    /// The device is lost or has failed, or the run diverged. The trainer is not usable afterwards.
    pub fn advance(&mut self) -> Result<Vec<Progress>, TrainError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut progress = Vec::new();
        match self.proceed(&mut progress) {
            Err(error) if progress.is_empty() => Err(error),
            Err(error) => {
                self.failed = Some(error);
                Ok(progress)
            }
            Ok(()) => Ok(progress),
        }
    }

    fn proceed(&mut self, progress: &mut Vec<Progress>) -> Result<(), TrainError> {
        self.collect(progress)?;
        if self.is_interrupted && matches!(self.phase, Phase::Evaluating { .. }) {
            self.phase = Phase::Training;
        }
        match &mut self.phase {
            Phase::Training => self.train(progress)?,
            Phase::Evaluating { .. } => self.evaluate(progress)?,
            Phase::Saving { .. } => {
                self.phase = Phase::Training;
                self.train(progress)?;
            }
            Phase::WaitingForRollback => {}
            Phase::Finished { is_told } => {
                if !std::mem::replace(is_told, true) {
                    progress.push(Progress::Done { end: self.end() });
                }
            }
        }
        Ok(())
    }

    /// Stops the run: the updates in flight complete, a checkpoint becomes due, then [`Progress::Done`]. An evaluation in flight is
    /// dropped; a run that is resumed from the checkpoint makes it first.
    pub fn interrupt(&mut self) {
        self.is_interrupted = true;
    }

    /// Submits no update after `limit`, until another limit is set; what is due after that update is still done. `None` removes the limit.
    pub fn set_limit(&mut self, limit: Option<u32>) {
        self.limit = limit;
    }

    /// Number of updates submitted so far; [`Trainer::state`] has the number of completed ones.
    pub fn submitted_updates(&self) -> u32 {
        self.state.update + self.in_flight.len() as u32
    }

    /// Whether nothing is in flight and nothing is due before the next update.
    pub fn is_settled(&self) -> bool {
        let due = self.due();
        matches!(self.phase, Phase::Training)
            && self.in_flight.is_empty()
            && self.submitting.is_none()
            && !(due.is_over || due.evaluation || due.save)
    }

    /// Evaluates next, regardless of the schedule and without changing the run: [`Trainer::advance`] then returns
    /// [`Progress::Requested`]. Only while the trainer [is settled](Trainer::is_settled).
    pub fn begin_requested_evaluation(&mut self) {
        self.phase = Phase::Evaluating { pass: ValidationPass::default(), is_requested: true };
    }

    /// Makes a checkpoint of the newest update due next.
    pub fn request_checkpoint(&mut self) {
        self.save_requested = true;
    }

    /// Blocks until the oldest work in flight is complete. Only works natively.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn wait(&self) -> Result<(), TrainError> {
        if self.failed.is_some() {
            return Ok(());
        }
        let oldest = match &self.phase {
            Phase::Saving { reader } => reader.oldest(),
            Phase::Evaluating { pass, .. } => pass.oldest(),
            _ if self.submitting.is_some() => None,
            _ => return Ok(self.in_flight.front().map_or(Ok(()), |flight| self.training.wait(&self.device, &flight.run))?),
        };
        Ok(oldest.map_or(Ok(()), |download| download.wait_ready(&self.device))?)
    }

    /// What to do before the next update is submitted.
    fn due(&self) -> Due {
        let submitted = self.submitted_updates();
        let is_over = submitted >= self.config.train.updates || self.is_stopped_early() || self.is_interrupted;
        let lacks_evaluation = submitted > 0 && self.config.evaluation_due(submitted) && self.evaluated_at != Some(submitted);
        let every = self.config.train.checkpoint.every;
        let scheduled = is_over || self.save_requested || (every > 0 && submitted.is_multiple_of(every));
        Due {
            is_over,
            lacks_evaluation,
            evaluation: lacks_evaluation && !self.is_interrupted,
            save: submitted > 0 && (self.evaluation_is_unsaved || scheduled && self.saved_at != Some(submitted)),
        }
    }

    fn train(&mut self, progress: &mut Vec<Progress>) -> Result<(), TrainError> {
        let due = self.due();
        if !(due.is_over || due.evaluation || due.save) || self.submitting.is_some() {
            let may_submit = self.submitting.is_some() || self.limit.is_none_or(|limit| self.submitted_updates() < limit);
            if may_submit && self.in_flight.len() < IN_FLIGHT {
                self.submit_update()?;
            }
            return Ok(());
        }
        if !self.in_flight.is_empty() {
            return Ok(());
        }
        if due.evaluation {
            self.phase = Phase::Evaluating { pass: ValidationPass::default(), is_requested: false };
            return self.evaluate(progress);
        }
        if due.save {
            self.evaluation_is_unsaved = false;
            self.save_requested = false;
            self.state.evaluation_pending = due.lacks_evaluation;
            self.saved_at = Some(self.state.update);
            self.phase = Phase::Saving { reader: SnapshotReader::new(&self.expected()) };
            progress.push(Progress::CheckpointDue);
            return Ok(());
        }
        self.phase = Phase::Finished { is_told: false };
        Ok(())
    }

    /// Whether the newest evaluations end the run. It depends only on the state, so that a finished run that is resumed has nothing
    /// left to do.
    fn is_stopped_early(&self) -> bool {
        let patience = self.config.train.early_stopping.patience;
        patience > 0 && self.state.evaluations_since_best >= patience
    }

    fn end(&self) -> End {
        match () {
            () if self.is_interrupted && self.state.evaluation_pending => End::Interrupted,
            () if self.state.update >= self.config.train.updates => End::Completed,
            () if self.is_stopped_early() => End::EarlyStopped,
            () => End::Interrupted,
        }
    }

    /// ln V, the loss of a uniform guess among all ids.
    fn uniform(&self) -> f64 {
        f64::from(self.config.model.vocabulary).ln()
    }

    fn raise(&self, alarm: Alarm, progress: &mut Vec<Progress>) {
        let Alarm { incident, since, detail } = alarm;
        let update = self.state.update;
        progress.push(Progress::Incident(IncidentRecord { update, incident, detail, since: Some(since), time: Default::default() }));
    }

    /// Records an update in the alarms; returns those that it raises.
    fn watch(&mut self, loss: f64, load: &[Vec<f32>]) -> Vec<Alarm> {
        let (update, uniform) = (self.state.update, self.uniform());
        let is_warm = self.schedule.is_warm(update.saturating_sub(1));
        let mut alarms = self.state.alarms.note_update(&self.config.alarms, update, loss, uniform, is_warm);
        alarms.extend(self.state.alarms.routing.note_update(&self.config, update, load));
        alarms
    }

    /// Makes one submission of the next update, which is the whole of it unless it is too large for one.
    fn submit_update(&mut self) -> Result<(), TrainError> {
        let accumulation = self.config.train.micro_batches;
        let update = self.submitted_updates();
        let feed = MicroBatches::new(&self.config, &self.corpus, &self.schedule, self.state.data.offset, update);
        let flight = match &mut self.submitting {
            Some(flight) => flight,
            None => {
                let tokens = self.in_flight.back().map_or(self.state.tokens, |flight| flight.record.tokens);
                let update = update + 1;
                let record =
                    UpdateRecord { update, micro_steps: u64::from(update) * u64::from(accumulation), tokens, ..UpdateRecord::default() };
                let new = || (Vec::new(), self.training.begin(accumulation));
                let (mut weights, mut run) = self.spare.pop().unwrap_or_else(new);
                feed.weights(&mut weights);
                run.restart(accumulation);
                self.submitting.insert(Flight { record, weights, run })
            }
        };
        let Flight { record, weights, run } = flight;
        let is_complete = self.training.proceed(&self.device, &mut self.memory, run, |index, inputs| {
            feed.fill(index, &weights[index as usize], inputs);
            record.tokens += u64::from(inputs.step.real_tokens);
            record.lr_adamw = f64::from(inputs.step.lr_adamw);
            record.lr_muon = f64::from(inputs.step.lr_muon);
        })?;
        if is_complete {
            self.in_flight.extend(self.submitting.take());
        }
        Ok(())
    }

    /// Collects completed updates, in order.
    fn collect(&mut self, progress: &mut Vec<Progress>) -> Result<(), TrainError> {
        while let Some(flight) = self.in_flight.front() {
            if !self.training.poll(&self.device, &flight.run, &mut self.outputs)? {
                return Ok(());
            }
            let Some(Flight { mut record, weights, mut run }) = self.in_flight.pop_front() else { return Ok(()) };
            Reduced { outputs: &self.outputs, weights: &weights, config: &self.config }.write(&mut record, &mut self.scratch);
            run.restart(0);
            self.spare.push((weights, run));
            self.state.update = record.update;
            self.state.micro_step = record.micro_steps;
            self.state.tokens = record.tokens;
            self.state.schedule.updates = record.update;
            self.state.schedule.micro_steps = record.micro_steps;
            let (skipped, is_damaged) = (record.skipped, self.outputs.is_damaged);
            let alarms = if skipped || is_damaged { Vec::new() } else { self.watch(record.train_ce, &record.expert_load) };
            progress.push(Progress::Update(record));
            alarms.into_iter().for_each(|alarm| self.raise(alarm, progress));
            if is_damaged {
                self.note_damage(progress)?;
            } else {
                self.note_skip(skipped, progress)?;
            }
        }
        Ok(())
    }

    fn note_skip(&mut self, skipped: bool, progress: &mut Vec<Progress>) -> Result<(), TrainError> {
        if !skipped {
            self.state.skipped.in_a_row = 0;
            return Ok(());
        }
        let counts = &mut self.state.skipped;
        counts.non_finite += 1;
        counts.in_a_row += 1;
        let detail = format!("the gradient of update {} is not finite: parameters and moments are unchanged", self.state.update);
        progress.push(self.incident(Incident::NonFinite, detail));
        let policy = &self.config.nan;
        if policy.roll_back_after == 0 || self.state.skipped.in_a_row < policy.roll_back_after {
            return Ok(());
        }
        let what = format!("{} consecutive updates had a gradient that is not finite", self.state.skipped.in_a_row);
        self.want_rollback(what, progress)
    }

    /// Handles an update whose result is not finite, which requires an older checkpoint.
    fn note_damage(&mut self, progress: &mut Vec<Progress>) -> Result<(), TrainError> {
        let update = self.state.update;
        let detail = format!("the gradient of update {update} is finite, the resulting parameters or moments are not");
        progress.push(self.incident(Incident::NonFinite, detail));
        let what = "its gradient is finite, the resulting parameters or moments are not".to_string();
        if self.config.nan.roll_back_after == 0 {
            return Err(self.diverged(what));
        }
        self.want_rollback(what, progress)
    }

    fn diverged(&self, what: String) -> TrainError {
        TrainError::Diverged { update: self.state.update, what, rollbacks: self.state.skipped.rollbacks }
    }

    fn want_rollback(&mut self, what: String, progress: &mut Vec<Progress>) -> Result<(), TrainError> {
        if self.state.skipped.rollbacks >= self.config.nan.stop_after {
            return Err(self.diverged(what));
        }
        // Work in flight is dropped, so that its progress makes no difference.
        self.in_flight.clear();
        self.submitting = None;
        self.phase = Phase::WaitingForRollback;
        progress.push(Progress::WantsRollback);
        Ok(())
    }

    fn incident(&self, incident: Incident, detail: String) -> Progress {
        Progress::Incident(IncidentRecord { update: self.state.update, incident, detail, since: None, time: Default::default() })
    }

    fn evaluate(&mut self, progress: &mut Vec<Progress>) -> Result<(), TrainError> {
        let Phase::Evaluating { pass, is_requested } = &mut self.phase else { return Ok(()) };
        let found = pass.advance(&mut self.evaluation, &self.device, &mut self.memory, &self.corpus, &self.config)?;
        let Some(record) = found else { return Ok(()) };
        let record = EvalRecord { update: self.state.update, ..record };
        if *is_requested {
            progress.push(Progress::Requested(record));
            self.phase = Phase::Training;
            return Ok(());
        }
        let alarm = self.judge(&record);
        progress.push(Progress::Eval(record));
        alarm.into_iter().for_each(|alarm| self.raise(alarm, progress));
        self.phase = Phase::Training;
        Ok(())
    }

    /// Updates the best evaluation and early stopping, and may raise an alarm.
    ///
    /// An evaluation improves if it is more than `min_delta` below the last one that did; that reference does not change in
    /// between, so that small gains accumulate.
    fn judge(&mut self, record: &EvalRecord) -> Option<Alarm> {
        self.evaluated_at = Some(record.update);
        let state = &mut self.state;
        let reference = state.improved_to.or(state.best.map(|best| best.val_ce)).unwrap_or(f64::INFINITY);
        if record.val_ce < reference - self.config.train.early_stopping.min_delta {
            state.improved_to = Some(record.val_ce);
            state.evaluations_since_best = 0;
        } else {
            state.evaluations_since_best += 1;
        }
        if record.val_ce.is_finite() && state.best.is_none_or(|best| record.val_ce < best.val_ce) {
            state.best = Some(BestEval { update: record.update, val_ce: record.val_ce });
            self.evaluation_is_unsaved = self.config.train.checkpoint.best;
        }
        // A checkpoint that was saved before this evaluation is outdated.
        self.evaluation_is_unsaved |= std::mem::take(&mut self.state.evaluation_pending);
        let is_warm = self.schedule.is_warm(record.update.saturating_sub(1));
        let uniform = self.uniform();
        self.state.alarms.note_evaluation(&self.config.alarms, record.update, record.val_ce, uniform, is_warm)
    }

    /// While a checkpoint is due, the next piece of its tensors' data, in the order of [`Encoder`](super::encoder::Encoder). `None` if it
    /// is not available yet, or after the last piece.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn snapshot_piece(&mut self) -> Result<Option<Vec<u8>>, TrainError> {
        match &mut self.phase {
            Phase::Saving { reader } => Ok(reader.poll(&self.device, &self.memory)?),
            _ => Ok(None),
        }
    }

    /// The state and weights before the first update.
    pub fn initial_snapshot(&self) -> Snapshot {
        let value = |spec: ParamSpec| NamedTensor {
            data: parameters::initial_values(&spec, self.config.seed),
            shape: spec.shape.iter().map(|d| *d as usize).collect(),
            name: spec.name,
        };
        let zero = |(name, shape): (String, Vec<usize>)| NamedTensor { name, data: vec![0.0; shape.iter().product()], shape };
        Snapshot {
            tensors: self.config.parameters().into_iter().map(value).collect(),
            optimizer: self.expected().optimizer.into_iter().map(zero).collect(),
            state: self.initial_state(),
        }
    }

    /// Sets a part of a tensor of this run's checkpoints: name, offset in bytes, and its bytes. [`Trainer::restore_state`] comes next.
    pub fn write_tensor(&mut self, name: &str, offset: u64, bytes: &[u8]) {
        self.memory.write_at(&self.device, name, offset, bytes);
    }

    /// Resets all tensors to their values before the first update, and returns the corresponding state, as if
    /// loaded from a checkpoint.
    pub fn write_initial(&mut self) -> TrainState {
        for spec in self.config.parameters() {
            let values = parameters::initial_values(&spec, self.config.seed);
            self.write_tensor(&spec.name, 0, bytemuck::cast_slice(&values));
        }
        for (name, shape) in self.expected().optimizer {
            self.write_tensor(&name, 0, bytemuck::cast_slice(&vec![0.0f32; shape.iter().product()]));
        }
        self.initial_state()
    }

    fn initial_state(&self) -> TrainState {
        TrainState::new(self.config.seed, self.state.identity.clone())
    }

    /// Resumes from a checkpoint of this run whose tensors were written before ([`Trainer::write_tensor`]). Work in flight is dropped.
    pub fn restore_state(&mut self, state: &TrainState) {
        self.in_flight.clear();
        self.submitting = None;
        self.phase = Phase::Training;
        // The identity is now that of this process, except for the config that the run was started with.
        let identity = Identity { config: state.identity.config.clone(), ..self.state.identity.clone() };
        self.state = TrainState { identity, ..state.clone() };
        // A checkpoint is saved after the evaluation of its update, unless that was interrupted.
        self.evaluated_at = (!self.state.evaluation_pending).then_some(self.state.update);
        self.saved_at = Some(self.state.update);
        self.evaluation_is_unsaved = false;
    }

    /// Like [`Trainer::restore_state`], after too many skipped updates: resumes with data that the run has not seen, because the
    /// same data would reproduce the failure.
    pub fn roll_back(&mut self, state: &TrainState) -> Progress {
        let (from, skipped, offset) = (self.state.update, self.state.skipped, self.state.data.offset);
        self.restore_state(state);
        let dropped = u64::from(from - self.state.update) * u64::from(self.config.train.micro_batches);
        self.state.data.offset = offset + dropped;
        self.state.skipped = skipped;
        self.state.skipped.in_a_row = 0;
        self.state.skipped.rollbacks += 1;
        let detail = format!("from update {from} to {}, continuing with the data after that", self.state.update);
        self.incident(Incident::RolledBack, detail)
    }
}
