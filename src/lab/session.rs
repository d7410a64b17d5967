//! A run from start to finish: the trainer, its folder, its samples, its summary and report.
//!
//! A state machine: [`Session::advance`] never blocks; the command line drives it in a loop, a desktop on a thread of
//! its own, a browser in a worker. What happened comes out as [`Happened`]; everything that must last is in the folder
//! before it is told. Clocks belong to the driver: it gives one.
//!
//! A session that was opened ends with [`Happened::Finished`], whatever ends it: an error on the way becomes the reason in the
//! run's summary. The one error that [`Session::advance`] returns is that the summary itself cannot be written.
//!
//! Long because it is one state machine.

use super::{
    ending::{self, Ending, Material},
    identity::{self, TakenUp},
    import::SOURCE_CONFIG,
    opening::{effective_config, start_files},
    rate::Rate,
    run_folder::{RunFolder, Start},
    store::StoreError,
};
use crate::run::summary::{Baselines, ExitReason, Summary};
use crate::{
    config_file::Class,
    data::tokenizer::Tokenizer,
    gpu::PlanOptions,
    run::records::{Event, Incident, IncidentRecord, SampleRecord, Time, UpdateRecord},
    train::{
        checkpoint::{self, Snapshot},
        generate::{Draw, Generation, Generator, Prompt},
        trainer::{End, Progress, Trainer},
    },
};

pub use super::{
    error::SessionError,
    opening::{Opening, Rasterize},
};

/// What the driver should know of.
#[derive(Clone, Debug)]
pub enum Happened {
    /// A line was added to the metrics.
    Logged(Event),
    /// An update between two lines of the metrics.
    Unlogged(UpdateRecord),
    /// A checkpoint was saved, in this folder of the run.
    Saved(String),
    /// Something that the user should read.
    Warning(String),
    /// The run is over and its summary and report are written.
    Finished(Box<Summary>),
}

enum Phase {
    Training,
    /// Training ended for this reason.
    Sampling {
        ended: ExitReason,
        generator: Box<Generator>,
        texts: Vec<(String, Generation)>,
        next: usize,
    },
    /// Summary and report come next.
    Ending(Ending),
    Finished,
}

/// One run under way.
pub struct Session {
    trainer: Trainer,
    folder: RunFolder,
    clock: Box<dyn Fn() -> f64>,
    started: f64,
    rate: Rate,
    session: u32,
    rasterize: Option<Rasterize>,
    name: String,
    baselines: Option<Baselines>,
    /// Update and hash of the weights of the newest checkpoint.
    saved: Option<(u32, String)>,
    /// Why the newest save failed.
    unsaved: Option<StoreError>,
    phase: Phase,
    is_interrupted: bool,
    warnings: Vec<String>,
}

impl Session {
    /// Starts a new run in an empty folder.
    ///
    /// # Errors
    /// If the model does not fit the device or the folder is occupied.
    pub fn start(opening: Opening) -> Result<Session, SessionError> {
        let Opening { config, device, corpus, store, tag, clock, rasterize, name } = opening;
        let effective = effective_config(&config, &device, &corpus);
        let tokenizer = corpus.tokenizer().map(Tokenizer::to_json);
        let hash = config.hash();
        let trainer = Trainer::new(config, device, corpus, PlanOptions::default())?;
        let files = start_files(&effective, tokenizer.as_deref());
        let folder = RunFolder::create(store, &tag, &Start { config: &hash, files: &files, checkpoint: None })?;
        Ok(Session::assemble(trainer, folder, clock, rasterize, name))
    }

    /// Goes on with a run from its newest good checkpoint, or from its start if it has none yet. Its settings are the opening's, if
    /// those may differ from what it was trained with: `allowed` are the classes that may because the user said so.
    ///
    /// # Errors
    /// If no checkpoint is good, or config, data or tokenizer are not those of the run.
    pub fn resume(opening: Opening, allowed: &[Class]) -> Result<Session, SessionError> {
        let Opening { config, device, corpus, store, tag, clock, rasterize, name } = opening;
        let effective = effective_config(&config, &device, &corpus);
        let keep = config.train.checkpoint.keep as usize;
        let mut trainer = Trainer::new(config, device, corpus, PlanOptions::default())?;
        let mut folder = RunFolder::open(store, &tag)?;
        let loaded = folder.load_newest(&trainer.expected())?;
        if loaded.is_none() && folder.read(SOURCE_CONFIG)?.is_some() {
            let problem = "its weights were imported and no checkpoint holds them: import the model again";
            return Err(SessionError::Mismatch(problem.into()));
        }
        let TakenUp { update, saved, mut warnings, lines } = identity::take_up(&mut trainer, &mut folder, loaded, &effective, allowed)?;
        warnings.extend(folder.rewind(update, &trainer.state().identity.config, keep)?);
        let session = folder.sessions();
        for mut line in lines {
            line.time.session = session;
            folder.append(&Event::Incident(line))?;
        }
        Ok(Session { session, saved, warnings, ..Session::assemble(trainer, folder, clock, rasterize, name) })
    }

    fn assemble(trainer: Trainer, folder: RunFolder, clock: Box<dyn Fn() -> f64>, rasterize: Option<Rasterize>, name: String) -> Session {
        let started = clock();
        Session {
            rate: Rate::default(),
            baselines: trainer.corpus().baselines(),
            trainer,
            folder,
            clock,
            started,
            session: 0,
            rasterize,
            name,
            saved: None,
            unsaved: None,
            phase: Phase::Training,
            is_interrupted: false,
            warnings: Vec::new(),
        }
    }

    /// The run's trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Asks the run to end soon: the updates under way end, a checkpoint is saved, and the summary says that the run was
    /// interrupted. An evaluation or sample under way is left; a resumed run makes it again.
    pub fn interrupt(&mut self) {
        self.is_interrupted = true;
        self.trainer.interrupt();
    }

    /// Submits and takes what there is. Empty: the device is busy.
    ///
    /// # Errors
    /// If the run is over and its summary cannot be written.
    pub fn advance(&mut self) -> Result<Vec<Happened>, SessionError> {
        let mut happened: Vec<Happened> = std::mem::take(&mut self.warnings).into_iter().map(Happened::Warning).collect();
        match &self.phase {
            Phase::Ending(ending) => {
                let ending = ending.clone();
                self.phase = Phase::Finished;
                self.finish(ending, &mut happened)?;
            }
            Phase::Finished => {}
            Phase::Training | Phase::Sampling { .. } => {
                if let Err(error) = self.proceed(&mut happened) {
                    self.phase = Phase::Ending(Ending::from(&error));
                }
            }
        }
        Ok(happened)
    }

    fn proceed(&mut self, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        if let Phase::Sampling { .. } = self.phase {
            return self.sample(happened);
        }
        for progress in self.trainer.advance()? {
            self.take(progress, happened)?;
        }
        Ok(())
    }

    /// Blocks until there is something to take. Native only in effect. A lost device ends the run at the next
    /// [`Session::advance`].
    pub fn wait(&mut self) {
        let waited = match &self.phase {
            Phase::Training => self.trainer.wait(),
            Phase::Sampling { texts, next, .. } => texts.get(*next).map_or(Ok(()), |(_, text)| text.wait(self.trainer.device())),
            Phase::Ending(_) | Phase::Finished => Ok(()),
        };
        if let Err(error) = waited {
            self.phase = Phase::Ending(Ending::from(&SessionError::from(error)));
        }
    }

    /// The time of a line that is no update's.
    fn time(&self) -> Time {
        Time { session: self.session, seconds: (self.clock)() - self.started, tokens_per_second: None }
    }

    fn log(&mut self, event: Event, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        self.folder.append(&event)?;
        happened.push(Happened::Logged(event));
        Ok(())
    }

    fn take(&mut self, progress: Progress, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        match progress {
            Progress::Update(mut record) => {
                record.time = self.time();
                record.time.tokens_per_second = self.rate.note(record.time.seconds, record.tokens);
                let train = &self.trainer.config().train;
                if record.update.is_multiple_of(train.log_every) || record.update == train.updates {
                    return self.log(Event::Update(record), happened);
                }
                happened.push(Happened::Unlogged(record));
                Ok(())
            }
            Progress::Eval(mut record) => {
                record.time = self.time();
                self.log(Event::Eval(record), happened)
            }
            Progress::Incident(mut record) => {
                record.time = self.time();
                self.log(Event::Incident(record), happened)
            }
            Progress::Checkpoint { snapshot } => self.save(&snapshot, happened),
            Progress::WantsRollback => self.roll_back(happened),
            Progress::Done { end } => self.end(end),
        }
    }

    /// A failed save is reported; the checkpoint before is untouched and the run goes on.
    fn save(&mut self, snapshot: &Snapshot, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        let keep = self.trainer.config().train.checkpoint.keep as usize;
        let update = snapshot.state.update;
        match self.folder.save_checkpoint(snapshot, keep) {
            Ok(folder) => {
                (self.saved, self.unsaved) = (Some((update, checkpoint::weights_sha256(&snapshot.tensors))), None);
                happened.push(Happened::Saved(folder));
                Ok(())
            }
            Err(error) => {
                let (detail, time) = (error.to_string(), self.time());
                self.unsaved = Some(error);
                self.log(
                    Event::Incident(IncidentRecord { update, incident: Incident::CheckpointFailed, detail, since: None, time }),
                    happened,
                )
            }
        }
    }

    /// After the last checkpoint. A run whose last weights are not in its folder is not done, whatever else it reached.
    fn end(&mut self, end: End) -> Result<(), SessionError> {
        let reason = match end {
            End::Completed => ExitReason::Completed,
            End::EarlyStopped => ExitReason::EarlyStopped,
            End::Interrupted => ExitReason::Interrupted,
        };
        if let Some(error) = &self.unsaved {
            self.phase = Phase::Ending(Ending::unsaved(error));
        } else if reason == ExitReason::Interrupted {
            self.phase = Phase::Ending(reason.into());
        } else {
            self.begin_sampling(reason)?;
        }
        Ok(())
    }

    fn roll_back(&mut self, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        let loaded = self.folder.load_newest(&self.trainer.expected())?;
        let snapshot = match loaded {
            Some(loaded) => loaded.snapshot,
            None => self.trainer.initial_snapshot(),
        };
        let config = self.trainer.config();
        let warnings =
            self.folder.rewind(snapshot.state.update, &self.trainer.state().identity.config, config.train.checkpoint.keep as usize)?;
        happened.extend(warnings.into_iter().map(Happened::Warning));
        let progress = self.trainer.roll_back(&snapshot);
        self.take(progress, happened)
    }

    fn begin_sampling(&mut self, ended: ExitReason) -> Result<(), SessionError> {
        let config = self.trainer.config().clone();
        let draw = Draw { temperature: config.sample.temperature, top_p: config.sample.top_p };
        let prompts = config.sample.prompts.clone();
        let Some(tokenizer) = self.trainer.corpus().tokenizer() else {
            self.phase = Phase::Ending(ended.into());
            return Ok(());
        };
        let mut encoded = Vec::new();
        for (sample, text) in prompts.into_iter().enumerate() {
            // Trained weights are not given up for a prompt.
            match Prompt::new(&config, tokenizer, &text) {
                Ok(prompt) => {
                    self.warnings.extend(prompt.warning().map(|warning| format!("sample.prompts[{sample}]: {warning}")));
                    encoded.push((sample, text, prompt));
                }
                Err(error) => self.warnings.push(format!("sample.prompts[{sample}] is left out: {error}")),
            }
        }
        let tokenizer = tokenizer.clone();
        let (device, memory) = self.trainer.device_and_memory();
        let generator = Generator::new(&config, device, memory)?.for_text(&tokenizer, &config);
        let start = |(sample, text, prompt): (usize, _, Prompt)| {
            (text, generator.start(prompt.tokens, config.sample.tokens as usize, draw, sample as u32))
        };
        let texts = encoded.into_iter().map(start).collect();
        self.phase = Phase::Sampling { ended, generator: Box::new(generator), texts, next: 0 };
        Ok(())
    }

    fn sample(&mut self, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        let Phase::Sampling { ended, generator, texts, next } = &mut self.phase else { return Ok(()) };
        let Some((prompt, text)) = texts.get_mut(*next) else {
            self.phase = Phase::Ending((*ended).into());
            return Ok(());
        };
        if self.is_interrupted {
            self.phase = Phase::Ending(ExitReason::Interrupted.into());
            return Ok(());
        }
        let (device, memory) = self.trainer.device_and_memory();
        generator.advance(device, memory, text)?;
        if !text.is_done() {
            return Ok(());
        }
        *next += 1;
        let (prompt, continuation) = (prompt.clone(), text.continuation().to_vec());
        let config = self.trainer.config();
        let record = SampleRecord {
            update: self.trainer.state().update,
            prompt,
            text: self.trainer.corpus().tokenizer().map(|t| t.decode(&continuation)).unwrap_or_default(),
            temperature: config.sample.temperature,
            top_p: config.sample.top_p,
            time: self.time(),
        };
        self.log(Event::Sample(record), happened)
    }

    fn finish(&mut self, ending: Ending, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        let of = Material {
            name: &self.name,
            config: self.trainer.config(),
            state: self.trainer.state(),
            baselines: self.baselines,
            saved: self.saved.as_ref(),
            rasterize: self.rasterize,
        };
        let ended = ending.to_string();
        let written = ending::write(&mut self.folder, ending, &of, &mut |warning| happened.push(Happened::Warning(warning)));
        let summary = written.map_err(|error| SessionError::Unwritten { ended, error: Box::new(error) })?;
        happened.push(Happened::Finished(Box::new(summary)));
        Ok(())
    }
}
