//! A run from start to finish: the trainer, its folder, its samples, its summary and report.
//!
//! A state machine: [`Session::advance`] never blocks. [`Host`](super::host::Host) opens sessions, passes them commands and forwards
//! their events; everything persistent is in the folder before the event is sent.
//!
//! A session that was opened ends with [`SessionEvent::Ended`], for any reason: an error becomes the reason in the run's summary.
//! [`Session::advance`] only returns an error if the summary itself cannot be written.
//!
//! **Requests.** To save, evaluate or sample on request, the session submits no further update until the work in flight is
//! complete and what is due has been done, executes the request, and continues. Requests do not affect the run: evaluations and
//! samples only read weights, and their results are sent but not logged. A pause does the same without a request. The times of a run
//! exclude pauses.
//!
//! Long because it is one state machine.

use std::collections::VecDeque;

use super::{
    ending::{self, Ending, Material},
    identity::{self, TakenUp},
    import::SOURCE_CONFIG,
    opening::{effective_config, start_files},
    publisher::{Activity, Clock, Publisher},
    rate::Rate,
    recovery::Loss,
    routes::{self, Routes},
    run_folder::{RunFolder, Save, SaveStep, Saved, Start},
    store::StoreError,
    text::{self, Text},
};
use crate::run::{
    protocol::{Command, Opened, Problem, SampleRequest, SessionEvent},
    records::{Event, Incident, IncidentRecord, RewoundRecord, SampleRecord, Time},
    summary::{Baselines, EpochSize, ExitReason},
};
use crate::{
    config_file::Class,
    data::tokenizer::Tokenizer,
    gpu::Compilation,
    run::series::Lengths,
    train::{
        generate::{Generator, Prompt},
        trainer::{End, Progress, Trainer},
        tuning,
    },
};

pub use super::{
    error::SessionError,
    opening::{Opening, Raster, RasterError, Rasterize},
};

enum Phase {
    Training,
    /// Training ended for this reason.
    Sampling {
        ended: ExitReason,
        /// Not complete, in order; `None` until the generator is compiled.
        texts: Option<VecDeque<Text>>,
    },
    /// Summary and report come next.
    Ending(Ending),
    /// They are being written.
    Writing(Box<ending::Files>),
    Finished,
}

/// A request that is executed between two updates.
enum Request {
    Save,
    Evaluate,
    Sample(SampleRequest),
    Route(Option<String>),
}

/// A request that is being executed.
enum Serving {
    Save,
    Evaluation,
    Sample(Text),
    Routes(Box<Routes>),
}

/// An open run.
pub struct Session {
    trainer: Trainer,
    folder: RunFolder,
    clock: Clock,
    started: f64,
    /// When the current pause began, and seconds of previous pauses.
    paused_at: Option<f64>,
    paused_seconds: f64,
    /// No update after this one is submitted: the run is paused, or about to be.
    limit: Option<u32>,
    /// Each with the update that was to be made before it, where steps were asked for before.
    requests: VecDeque<(Option<u32>, Request)>,
    serving: Option<Serving>,
    /// Compiled for the first text.
    generator: Option<Generator>,
    /// Of the generator's kernels.
    compilation: Option<Compilation>,
    rate: Rate,
    session: u32,
    rasterize: Option<Rasterize>,
    name: String,
    baselines: Option<Baselines>,
    /// Update and hash of the weights of the newest checkpoint.
    saved: Option<(u32, String)>,
    /// Why the newest save failed.
    unsaved: Option<StoreError>,
    /// The save in progress.
    save: Option<Save>,
    /// Most updates between two saves, and the update of the newest one, failed ones included.
    save_within: Option<u32>,
    save_tried: u32,
    phase: Phase,
    is_interrupted: bool,
    warnings: Vec<String>,
    /// The rewind caused by resuming; reported at the next call, like warnings.
    rewound: Option<RewoundRecord>,
}

impl Session {
    /// Starts a new run in an empty folder.
    ///
    /// # Errors
    /// If the folder is occupied or cannot be written.
    pub fn start(opening: Opening) -> Result<Session, SessionError> {
        let Opening { trainer, store, tag, clock, baselines, rasterize, name } = opening;
        let effective = effective_config(&trainer);
        let tokenizer = trainer.corpus().tokenizer().map(Tokenizer::to_json);
        let hash = trainer.config().hash();
        let files = start_files(&effective, tokenizer.as_deref());
        let lengths = Lengths::of(&trainer.config().model);
        let folder = RunFolder::create(store, &tag, &Start { config: &hash, files: &files, checkpoint: None, lengths })?;
        Ok(Session { baselines, ..Session::assemble(trainer, folder, clock, rasterize, name) })
    }

    /// Resumes a run from its newest intact checkpoint, or from its start if it has none yet. Its settings are the trainer's, if
    /// those may differ from what it was trained with: `allowed` are the classes that the user allows.
    ///
    /// # Errors
    /// If no checkpoint is intact, or config, data or tokenizer are not those of the run.
    pub fn resume(opening: Opening, allowed: &[Class]) -> Result<Session, SessionError> {
        let Opening { mut trainer, store, tag, clock, baselines, rasterize, name } = opening;
        let effective = effective_config(&trainer);
        let keep = keep(&trainer);
        let mut folder = RunFolder::open(store, &tag)?;
        let found = folder.read_newest(&trainer.expected(), &mut |name, offset, bytes| trainer.write_tensor(name, offset, bytes))?;
        if found.is_none() && folder.read(SOURCE_CONFIG)?.is_some() {
            let problem = "its weights were imported and no checkpoint holds them: import the model again";
            return Err(SessionError::Mismatch(problem.into()));
        }
        let TakenUp { update, saved, mut warnings, lines } = identity::take_up(&mut trainer, &mut folder, found, &effective, allowed)?;
        warnings.extend(folder.rewind(update, &trainer.state().identity.config, keep)?);
        let session = folder.sessions();
        for mut line in lines {
            line.time.session = session;
            folder.append(&Event::Incident(line))?;
        }
        let rewound = folder.rewound();
        let assembled = Session::assemble(trainer, folder, clock, rasterize, name);
        warnings.extend(assembled.warnings);
        Ok(Session { session, saved, warnings, baselines, rewound, ..assembled })
    }

    fn assemble(trainer: Trainer, folder: RunFolder, clock: Clock, rasterize: Option<Rasterize>, name: String) -> Session {
        let started = clock();
        let untuned = tuning::why_not(&trainer.config().kernels, trainer.device());
        Session {
            rate: Rate::default(),
            baselines: None,
            trainer,
            folder,
            clock,
            started,
            paused_at: None,
            paused_seconds: 0.0,
            limit: None,
            requests: VecDeque::new(),
            serving: None,
            generator: None,
            compilation: None,
            session: 0,
            rasterize,
            name,
            saved: None,
            unsaved: None,
            save: None,
            save_within: None,
            save_tried: 0,
            phase: Phase::Training,
            is_interrupted: false,
            warnings: untuned.into_iter().collect(),
            rewound: None,
        }
    }

    /// Facts about the run.
    pub fn opened(&self) -> Opened {
        let (config, adapter) = (self.trainer.config(), &self.trainer.device().adapter);
        Opened {
            name: self.name.clone(),
            update: self.trainer.state().update,
            updates: config.train.updates,
            session: self.session,
            adapter: adapter.name.clone(),
            driver: adapter.driver.clone(),
            config: config.to_effective_toml(),
            baselines: self.baselines,
        }
    }

    /// Executes a command.
    ///
    /// # Errors
    /// Why it was rejected; the run is unchanged.
    pub fn command(&mut self, command: Command, out: &mut Publisher) -> Result<(), Problem> {
        match command {
            Command::Stop => {
                self.interrupt();
                return Ok(());
            }
            // A subscription is the host's, and holds for the runs after this one.
            Command::Start { .. } | Command::Resume { .. } | Command::Inspect { .. } | Command::Subscribe(_) => {
                return Err(Problem::new("a run is open: stop it first"));
            }
            _ if !matches!(self.phase, Phase::Training) => return Err(Problem::new("the run has made its last update")),
            Command::Pause => self.limit = Some(self.limit.unwrap_or(u32::MAX).min(self.trainer.submitted_updates())),
            Command::PauseAt { update } => {
                self.limit = Some(update.max(self.trainer.submitted_updates()));
                if self.trainer.submitted_updates() < update {
                    self.end_pause(out);
                }
            }
            Command::Step => {
                let from = self.limit.unwrap_or_else(|| self.trainer.submitted_updates());
                self.limit = Some(from.max(self.trainer.submitted_updates()) + 1);
                self.end_pause(out);
            }
            Command::Continue => {
                self.limit = None;
                self.end_pause(out);
            }
            Command::Save if self.trainer.submitted_updates() == 0 => {
                return Err(Problem::new("no update was made yet: a checkpoint would only have the initial weights"));
            }
            Command::Save => self.requests.push_back((self.limit, Request::Save)),
            Command::Evaluate => self.requests.push_back((self.limit, Request::Evaluate)),
            Command::Sample(request) => {
                self.prompt(&request)?;
                self.requests.push_back((self.limit, Request::Sample(request)));
            }
            Command::Route { text } => {
                self.routes(text.as_deref())?;
                self.requests.push_back((self.limit, Request::Route(text)));
            }
        }
        Ok(())
    }

    /// Asks the run to stop: the updates in flight complete, a checkpoint is saved, and the summary says that the run was
    /// interrupted. An evaluation or sample in progress is dropped; a resumed run makes it again.
    pub fn interrupt(&mut self) {
        self.is_interrupted = true;
        self.trainer.interrupt();
    }

    /// Submits work and collects completed work.
    ///
    /// # Errors
    /// If the run has ended and its summary cannot be written.
    pub fn advance(&mut self, out: &mut Publisher) -> Result<Activity, SessionError> {
        self.rewound.take().into_iter().for_each(|record| out.push(SessionEvent::Rewound(record)));
        std::mem::take(&mut self.warnings).into_iter().for_each(|text| out.warn(text));
        match &self.phase {
            Phase::Ending(ending) => {
                self.phase = Phase::Writing(Box::new(ending::Files::new(ending.clone())));
                Ok(Activity::Busy)
            }
            Phase::Writing(_) => self.finish(out),
            Phase::Finished => Ok(Activity::Idle),
            Phase::Training | Phase::Sampling { .. } => Ok(self.proceed(out).unwrap_or_else(|error| {
                self.phase = Phase::Ending(Ending::from(&error));
                Activity::Busy
            })),
        }
    }

    /// Saves a checkpoint after so many updates without one, besides those of the config.
    pub fn save_within(&mut self, updates: Option<u32>) {
        self.save_within = updates.map(|updates| updates.max(1));
        self.save_tried = self.trainer.state().update;
    }

    /// The loss of the device, if that is why the run is about to end, under this name.
    pub(super) fn lost(&self, run: &str) -> Option<Loss> {
        let Phase::Ending(Ending { reason: ExitReason::DeviceLost, detail }) = &self.phase else { return None };
        let detail = detail.clone().unwrap_or_default();
        let loss = Loss { run: run.into(), update: self.trainer.state().update, detail, limit: self.limit };
        (!self.is_interrupted).then_some(loss)
    }

    /// Takes note of the loss after which the run was resumed.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(super) fn go_on_after(&mut self, loss: &Loss, out: &mut Publisher) -> Result<(), SessionError> {
        self.limit = loss.limit;
        self.note_incident(loss.incident(self.trainer.state().update), out)
    }

    /// Rejects what was asked for and is not done.
    pub(super) fn reject_requests(&mut self, why: &str, out: &mut Publisher) {
        let unfinished = match self.serving.take() {
            Some(Serving::Evaluation) => Some("evaluate"),
            Some(Serving::Sample(_)) => Some("sample"),
            Some(Serving::Routes(_)) => Some("route"),
            Some(Serving::Save) | None => None,
        };
        for request in unfinished.into_iter().chain(self.requests.drain(..).map(|(_, request)| request.name())) {
            out.push(SessionEvent::Rejected { command: request.into(), problem: Box::new(Problem::new(why)) });
        }
    }

    /// Whether its summary and report are written.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    fn proceed(&mut self, out: &mut Publisher) -> Result<Activity, SessionError> {
        if let Phase::Sampling { .. } = self.phase {
            return self.sample(out);
        }
        if let Some(Serving::Sample(text)) = self.serving.take_if(|serving| matches!(serving, Serving::Sample(_))) {
            return self.serve_sample(text, out);
        }
        if let Some(Serving::Routes(routes)) = self.serving.take_if(|serving| matches!(serving, Serving::Routes(_))) {
            return self.serve_routes(routes, out);
        }
        if let Some(save) = &mut self.save {
            return Ok(match save.proceed(&mut self.folder, &mut self.trainer)? {
                SaveStep::Waiting => Activity::Waiting,
                SaveStep::Working => Activity::Busy,
                SaveStep::Ended(outcome) => {
                    self.end_save(outcome, out)?;
                    Activity::Busy
                }
            });
        }
        let submitted = self.trainer.submitted_updates();
        let is_next = self.requests.front().is_some_and(|(after, _)| after.is_none_or(|after| after <= submitted));
        let updates = self.trainer.config().train.updates;
        let save_due = self.save_within.map(|most| self.save_tried + most).filter(|due| *due < updates);
        let limit = self.limit.into_iter().chain(save_due).min();
        self.trainer.set_limit(if is_next || self.serving.is_some() { Some(submitted) } else { limit });
        let progress = self.trainer.advance()?;
        if !progress.is_empty() {
            for progress in progress {
                self.take(progress, out)?;
            }
            return Ok(Activity::Busy);
        }
        if self.trainer.is_settled() && self.serving.is_none() {
            let needs_generator = matches!(self.requests.front(), Some((_, Request::Sample(_))));
            if is_next
                && needs_generator
                && let Some(activity) = self.compile_generator()?
            {
                return Ok(activity);
            }
            if let Some((_, request)) = self.requests.pop_front_if(|_| is_next) {
                self.serve(request, out)?;
                return Ok(Activity::Busy);
            }
            if save_due.is_some_and(|due| submitted >= due) {
                self.serve(Request::Save, out)?;
                return Ok(Activity::Busy);
            }
            if self.limit.is_some_and(|limit| self.trainer.submitted_updates() >= limit) {
                self.begin_pause(out);
                return Ok(Activity::Idle);
            }
        }
        Ok(Activity::Waiting)
    }

    fn begin_pause(&mut self, out: &mut Publisher) {
        if self.paused_at.is_none() {
            self.paused_at = Some((self.clock)());
            out.push(SessionEvent::Paused { update: self.trainer.state().update });
        }
    }

    fn end_pause(&mut self, out: &mut Publisher) {
        if let Some(since) = self.paused_at.take() {
            self.paused_seconds += (self.clock)() - since;
            self.rate = Rate::default();
            out.push(SessionEvent::Continued);
        }
    }

    /// Starts executing a request. The trainer is settled.
    fn serve(&mut self, request: Request, out: &mut Publisher) -> Result<(), SessionError> {
        match request {
            Request::Save => {
                let update = self.trainer.state().update;
                match &self.saved {
                    Some((saved, _)) if *saved == update => self.tell_saved(out),
                    _ => {
                        self.serving = Some(Serving::Save);
                        self.trainer.request_checkpoint();
                    }
                }
            }
            Request::Evaluate => {
                self.serving = Some(Serving::Evaluation);
                self.trainer.begin_requested_evaluation();
            }
            Request::Sample(request) => {
                let Ok(prompt) = self.prompt(&request) else { return Ok(()) };
                prompt.warning().into_iter().for_each(|warning| out.warn(warning));
                let Some(generator) = &self.generator else { return Ok(()) };
                self.serving = Some(Serving::Sample(Text::start(generator, self.trainer.config(), request, prompt)));
            }
            Request::Route(text) => self.serving = self.routes(text.as_deref()).ok().map(|routes| Serving::Routes(Box::new(routes))),
        }
        Ok(())
    }

    /// The routes of a text, or of the validation set.
    fn routes(&self, text: Option<&str>) -> Result<Routes, Problem> {
        let (config, device, corpus) = (self.trainer.config(), self.trainer.device(), self.trainer.corpus());
        routes::check(config)?;
        match (text, corpus.tokenizer()) {
            (None, _) => Ok(Routes::of_validation(config, device, corpus)),
            (Some(text), Some(tokenizer)) => Routes::of_text(config, device, tokenizer, text),
            (Some(_), None) => Err(Problem::new("the run's data have no tokenizer, which is needed to encode text")),
        }
    }

    /// Continues the routes of a request.
    fn serve_routes(&mut self, mut routes: Box<Routes>, out: &mut Publisher) -> Result<Activity, SessionError> {
        if self.is_interrupted {
            return Ok(Activity::Busy);
        }
        let config = self.trainer.config().clone();
        let (device, memory) = self.trainer.device_and_memory();
        let activity = routes.advance(&config, device, memory)?;
        if routes.is_done() {
            let found = routes.found(self.trainer.corpus().tokenizer(), self.trainer.state().update);
            out.push(SessionEvent::Routed(Box::new(found)));
        } else {
            self.serving = Some(Serving::Routes(routes));
        }
        Ok(activity)
    }

    /// The tokens of a request's prompt.
    fn prompt(&self, request: &SampleRequest) -> Result<Prompt, Problem> {
        text::prompt(self.trainer.config(), self.trainer.corpus().tokenizer(), request)
    }

    /// Continues the text of a request.
    fn serve_sample(&mut self, mut text: Text, out: &mut Publisher) -> Result<Activity, SessionError> {
        let Some(generator) = self.generator.as_mut().filter(|_| !self.is_interrupted) else { return Ok(Activity::Busy) };
        let (device, memory) = self.trainer.device_and_memory();
        let activity = text.advance(generator, device, memory)?;
        if !text.is_done() {
            self.serving = Some(Serving::Sample(text));
        } else if let Some(record) = self.sample_record(&text) {
            out.push(SessionEvent::Sampled { record: Box::new(record), requested: true });
        }
        Ok(activity)
    }

    /// The record of a complete text. Without a tokenizer there is none.
    fn sample_record(&self, text: &Text) -> Option<SampleRecord> {
        Some(text.record(self.trainer.corpus().tokenizer()?, self.trainer.state().update, self.time()))
    }

    /// Blocks until work completes. Only works natively. A lost device ends the run at the next
    /// [`Session::advance`].
    pub fn wait(&mut self) {
        let device = self.trainer.device();
        let waited = match (&self.phase, &self.serving) {
            (Phase::Training, Some(Serving::Sample(text))) => text.wait(device),
            (Phase::Training, Some(Serving::Routes(routes))) => routes.wait(device),
            (Phase::Training, _) => self.trainer.wait(),
            (Phase::Sampling { texts, .. }, _) => texts.iter().flat_map(VecDeque::front).try_for_each(|text| text.wait(device)),
            (Phase::Ending(_) | Phase::Writing(_) | Phase::Finished, _) => Ok(()),
        };
        if let Err(error) = waited {
            self.phase = Phase::Ending(Ending::from(&SessionError::from(error)));
        }
    }

    /// The time of a line other than an update.
    fn time(&self) -> Time {
        let now = self.paused_at.unwrap_or_else(|| (self.clock)());
        Time { session: self.session, seconds: now - self.started - self.paused_seconds, tokens_per_second: None }
    }

    fn take(&mut self, progress: Progress, out: &mut Publisher) -> Result<(), SessionError> {
        match progress {
            Progress::Update(mut record) => {
                record.time = self.time();
                record.time.tokens_per_second = self.rate.note(record.time.seconds, record.tokens);
                let train = &self.trainer.config().train;
                let is_logged = record.update.is_multiple_of(train.log_every) || record.update == train.updates;
                if is_logged {
                    self.folder.append(&Event::Update(record.clone()))?;
                }
                out.update(record, is_logged);
                Ok(())
            }
            Progress::Eval(mut record) => {
                record.time = self.time();
                self.folder.append(&Event::Eval(record.clone()))?;
                out.push(SessionEvent::Evaluated { record: Box::new(record), requested: false });
                Ok(())
            }
            Progress::Requested(mut record) => {
                record.time = self.time();
                self.serving = None;
                out.push(SessionEvent::Evaluated { record: Box::new(record), requested: true });
                Ok(())
            }
            Progress::Incident(record) => self.note_incident(record, out),
            Progress::CheckpointDue => self.begin_save(out),
            Progress::WantsRollback => self.roll_back(out),
            Progress::Done { end } => self.end(end, out),
        }
    }

    fn note_incident(&mut self, mut record: IncidentRecord, out: &mut Publisher) -> Result<(), SessionError> {
        record.time = self.time();
        self.folder.append(&Event::Incident(record.clone()))?;
        out.push(SessionEvent::Incident(Box::new(record)));
        Ok(())
    }

    fn begin_save(&mut self, out: &mut Publisher) -> Result<(), SessionError> {
        self.save_tried = self.trainer.state().update;
        match self.folder.begin_save(&self.trainer.expected(), self.trainer.state(), keep(&self.trainer)) {
            Ok(save) => self.save = Some(save),
            Err(error) => self.end_save(Err(error), out)?,
        }
        Ok(())
    }

    /// A failed save is reported; the previous checkpoint is untouched and the run continues.
    fn end_save(&mut self, outcome: Result<Saved, StoreError>, out: &mut Publisher) -> Result<(), SessionError> {
        self.save = None;
        if let Some(Serving::Save) = self.serving {
            self.serving = None;
        }
        match outcome {
            Ok(saved) => {
                (self.saved, self.unsaved) = (Some((saved.update, saved.weights_sha256)), None);
                self.tell_saved(out);
                Ok(())
            }
            Err(error) => {
                let (update, detail) = (self.trainer.state().update, error.to_string());
                self.unsaved = Some(error);
                let incident = Incident::CheckpointFailed;
                self.note_incident(IncidentRecord { update, incident, detail, since: None, time: Time::default() }, out)
            }
        }
    }

    fn tell_saved(&self, out: &mut Publisher) {
        if let Some((update, weights_sha256)) = self.saved.clone() {
            out.push(SessionEvent::Saved { update, folder: RunFolder::checkpoint_folder(update), weights_sha256 });
        }
    }

    /// After the last checkpoint. A run whose last weights are not saved does not count as completed.
    fn end(&mut self, end: End, out: &mut Publisher) -> Result<(), SessionError> {
        let reason = match end {
            End::Completed => ExitReason::Completed,
            End::EarlyStopped => ExitReason::EarlyStopped,
            End::Interrupted => ExitReason::Interrupted,
        };
        self.end_pause(out);
        self.reject_requests("the run has made its last update", out);
        if let Some(error) = &self.unsaved {
            self.phase = Phase::Ending(Ending::unsaved(error));
        } else if reason == ExitReason::Interrupted {
            self.phase = Phase::Ending(reason.into());
        } else {
            let prompts = self.trainer.config().sample.prompts.len();
            out.push(SessionEvent::Finishing { texts: prompts as u32 });
            self.phase = Phase::Sampling { ended: reason, texts: None };
        }
        Ok(())
    }

    fn roll_back(&mut self, out: &mut Publisher) -> Result<(), SessionError> {
        let expected = self.trainer.expected();
        let (folder, trainer) = (&self.folder, &mut self.trainer);
        let found = folder.read_newest(&expected, &mut |name, offset, bytes| trainer.write_tensor(name, offset, bytes))?;
        let state = found.map(|found| found.state).unwrap_or_else(|| self.trainer.write_initial());
        let (from, to) = (self.trainer.state().update, state.update);
        let keep = keep(&self.trainer);
        let warnings = self.folder.rewind(to, &self.trainer.state().identity.config, keep)?;
        warnings.into_iter().for_each(|warning| out.warn(warning));
        let progress = self.trainer.roll_back(&state);
        self.limit = self.limit.map(|limit| limit.min(to));
        self.save_tried = to;
        let lines = self.folder.rewound().map_or(0, |record| record.lines);
        out.push(SessionEvent::Rewound(RewoundRecord { to, from, lines }));
        self.take(progress, out)
    }

    /// Compiles the generator, as many kernels in a call as are ready; `None` when it is complete. Without a tokenizer there is none.
    fn compile_generator(&mut self) -> Result<Option<Activity>, SessionError> {
        let config = self.trainer.config().clone();
        let (None, Some(tokenizer)) = (&self.generator, self.trainer.corpus().tokenizer().cloned()) else { return Ok(None) };
        let (device, memory) = self.trainer.device_and_memory();
        let compilation = self.compilation.get_or_insert_with(|| Generator::compilation(&config, device));
        if compilation.next().is_some() {
            return Ok(Some(Activity::of(compilation.proceed(device))));
        }
        self.generator = Some(Generator::new(&config, device, memory)?.for_text(&tokenizer, &config));
        Ok(None)
    }

    /// The texts of the end of the run; none without prompts or a tokenizer.
    fn texts(&mut self) -> VecDeque<Text> {
        let config = self.trainer.config();
        let (Some(tokenizer), Some(generator)) = (self.trainer.corpus().tokenizer(), &self.generator) else { return VecDeque::new() };
        let mut texts = VecDeque::new();
        for (number, text) in config.sample.prompts.iter().enumerate() {
            // A bad prompt must not lose trained weights.
            match Prompt::new(config, tokenizer, text) {
                Ok(prompt) => {
                    self.warnings.extend(prompt.warning().map(|warning| format!("sample.prompts[{number}]: {warning}")));
                    let request = SampleRequest { prompt: text.clone(), number: number as u32, ..SampleRequest::default() };
                    texts.push_back(Text::start(generator, config, request, prompt));
                }
                Err(error) => self.warnings.push(format!("sample.prompts[{number}] is skipped: {error}")),
            }
        }
        texts
    }

    fn sample(&mut self, out: &mut Publisher) -> Result<Activity, SessionError> {
        if self.is_interrupted {
            self.phase = Phase::Ending(ExitReason::Interrupted.into());
            return Ok(Activity::Busy);
        }
        if let Phase::Sampling { texts: None, ended } = self.phase {
            if !self.trainer.config().sample.prompts.is_empty()
                && let Some(activity) = self.compile_generator()?
            {
                return Ok(activity);
            }
            self.phase = Phase::Sampling { ended, texts: Some(self.texts()) };
            return Ok(Activity::Busy);
        }
        let Phase::Sampling { ended, texts: Some(texts) } = &mut self.phase else { return Ok(Activity::Busy) };
        let (Some(text), Some(generator)) = (texts.front_mut(), &mut self.generator) else {
            self.phase = Phase::Ending((*ended).into());
            return Ok(Activity::Busy);
        };
        let (device, memory) = self.trainer.device_and_memory();
        let activity = text.advance(generator, device, memory)?;
        let complete = texts.pop_front_if(|text| text.is_done());
        if let Some(record) = complete.and_then(|text| self.sample_record(&text)) {
            self.folder.append(&Event::Sample(record.clone()))?;
            out.push(SessionEvent::Sampled { record: Box::new(record), requested: false });
        }
        Ok(activity)
    }

    /// Continues with the files of the run's end.
    fn finish(&mut self, out: &mut Publisher) -> Result<Activity, SessionError> {
        let Phase::Writing(mut files) = std::mem::replace(&mut self.phase, Phase::Finished) else { return Ok(Activity::Idle) };
        let Session { trainer, folder, name, baselines, saved, rasterize, .. } = self;
        let of = material(trainer, name, *baselines, saved.as_ref(), *rasterize);
        match files.proceed(folder, &of, &mut |warning| out.warn(warning)) {
            Ok(None) => {
                self.phase = Phase::Writing(files);
                Ok(Activity::Busy)
            }
            Ok(Some(summary)) => {
                out.push(SessionEvent::Ended(Box::new(summary)));
                Ok(Activity::Idle)
            }
            Err(error) => Err(SessionError::Unwritten { ended: files.ending().to_string(), error: Box::new(error) }),
        }
    }
}

impl Request {
    fn name(&self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Evaluate => "evaluate",
            Self::Sample(_) => "sample",
            Self::Route(_) => "route",
        }
    }
}

/// The inputs of the final files.
fn material<'a>(
    trainer: &'a Trainer,
    name: &'a str,
    baselines: Option<Baselines>,
    saved: Option<&'a (u32, String)>,
    rasterize: Option<Rasterize>,
) -> Material<'a> {
    let windows = trainer.corpus().dataset().and_then(|dataset| dataset.training_windows());
    let epoch = windows.map(|windows| EpochSize { windows: windows.len() as u64, tokens: windows.stream().len() as u64 });
    Material { name, config: trainer.config(), state: trainer.state(), baselines, epoch, saved, rasterize }
}

/// Number of checkpoints kept besides the best.
fn keep(trainer: &Trainer) -> usize {
    trainer.config().train.checkpoint.keep as usize
}
