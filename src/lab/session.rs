//! A run from start to finish: the trainer, its folder, its samples, its summary and report.
//!
//! A state machine: [`Session::advance`] never blocks; the command line drives it in a loop, a desktop on a thread of
//! its own, a browser in a worker. What happened comes out as [`Happened`]; everything that must last is in the folder
//! before it is told. Clocks belong to the driver: it gives one.
//!
//! Long because it is one state machine.

use std::rc::Rc;

use super::{
    figure::Figure,
    import::SOURCE_CONFIG,
    plot::LossPlot,
    record::{self, ExitReason, Summary},
    report::Report,
    run_folder::RunFolder,
    store::{Store, StoreError},
};
use crate::{
    gpu::{Device, PlanOptions},
    train::{
        Config, Corpus, TrainError,
        baselines::Baselines,
        checkpoint,
        generate::{Draw, Generation, Generator, Prompt},
        metrics::{Event, Incident, IncidentRecord, SampleRecord, Time},
        tokenizer::Tokenizer,
        trainer::{Progress, Trainer},
    },
};

/// What the driver should know of.
#[derive(Clone, Debug)]
pub enum Happened {
    /// A line was added to the metrics.
    Logged(Event),
    /// A checkpoint was saved, in this folder of the run.
    Saved(String),
    /// Something that the user should read.
    Warning(String),
    /// The run is over and its summary and report are written.
    Finished(Box<Summary>),
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Device, data or divergence.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The run's folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder's checkpoint is of another run.
    #[error("this run cannot be resumed: {0}")]
    Mismatch(String),
}

/// How a session is opened.
pub struct Opening {
    /// The run's config.
    pub config: Config,
    /// The device to train on.
    pub device: Rc<Device>,
    /// The data.
    pub corpus: Corpus,
    /// Where the run's folder is kept.
    pub store: Box<dyn Store>,
    /// Tells processes apart; fit for a file name.
    pub tag: String,
    /// Seconds since any fixed moment.
    pub clock: Box<dyn Fn() -> f64>,
    /// Draws a figure as PNG, where the driver can.
    pub rasterize: Option<Rasterize>,
    /// The run's name, for its report.
    pub name: String,
}

/// Draws a figure as PNG.
pub type Rasterize = fn(&Figure) -> Result<Vec<u8>, String>;

enum Phase {
    Training,
    Sampling { generator: Box<Generator>, texts: Vec<(String, Generation)>, next: usize },
    Sampled,
    Finished,
}

/// One run under way.
pub struct Session {
    trainer: Trainer,
    folder: RunFolder,
    clock: Box<dyn Fn() -> f64>,
    started: f64,
    last_update: (f64, u64),
    session: u32,
    rasterize: Option<Rasterize>,
    name: String,
    baselines: Baselines,
    weights_sha256: String,
    phase: Phase,
    stopped_early: bool,
    warnings: Vec<String>,
}

/// Name of the file with every setting of a run.
pub const EFFECTIVE_CONFIG: &str = "config.effective.toml";
/// Name of the file with the run's tokenizer, where it is not bytes.
pub const TOKENIZER: &str = "tokenizer.json";

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
        let mut folder = RunFolder::create(store, &tag, &hash)?;
        folder.write(EFFECTIVE_CONFIG, effective.as_bytes())?;
        if let Some(tokenizer) = tokenizer {
            folder.write(TOKENIZER, tokenizer.as_bytes())?;
        }
        Ok(Session::assemble(trainer, folder, clock, rasterize, name))
    }

    /// Goes on with a run from its newest good checkpoint, or from its start if it has none yet.
    ///
    /// # Errors
    /// If no checkpoint is good, or config, data or tokenizer are not those of the run.
    pub fn resume(opening: Opening) -> Result<Session, SessionError> {
        let Opening { config, device, corpus, store, tag, clock, rasterize, name } = opening;
        let mut trainer = Trainer::new(config, device, corpus, PlanOptions::default())?;
        let mut folder = RunFolder::open(store, &tag)?;
        let mut warnings = Vec::new();
        let session = 1 + folder.events()?.iter().filter_map(Event::time).map(|t| t.session).max().unwrap_or(0);
        let mut update = 0;
        if let Some(loaded) = folder.load_newest(&trainer.expected())? {
            let differences = loaded.snapshot.state.identity.check(&trainer.state().identity);
            let differences = differences.map_err(|d| SessionError::Mismatch(d.join("; ")))?;
            warnings.extend(loaded.warnings);
            warnings.extend(differences.into_iter().map(|d| format!("{d}: equal bits are no longer promised")));
            update = loaded.snapshot.state.update;
            trainer.restore(&loaded.snapshot);
        } else if folder.read(SOURCE_CONFIG)?.is_some() {
            let problem = "its weights were imported and no checkpoint holds them: import the model again";
            return Err(SessionError::Mismatch(problem.into()));
        }
        warnings.extend(folder.rewind(update)?);
        Ok(Session { session, warnings, ..Session::assemble(trainer, folder, clock, rasterize, name) })
    }

    fn assemble(trainer: Trainer, folder: RunFolder, clock: Box<dyn Fn() -> f64>, rasterize: Option<Rasterize>, name: String) -> Session {
        let started = clock();
        Session {
            last_update: (started, trainer.state().tokens),
            baselines: trainer.corpus().baselines().unwrap_or_default(),
            trainer,
            folder,
            clock,
            started,
            session: 0,
            rasterize,
            name,
            weights_sha256: String::new(),
            phase: Phase::Training,
            stopped_early: false,
            warnings: Vec::new(),
        }
    }

    /// The run's trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Seconds since the session was opened.
    pub fn seconds(&self) -> f64 {
        (self.clock)() - self.started
    }

    /// Cross-entropies that a loss is held against.
    pub fn baselines(&self) -> &Baselines {
        &self.baselines
    }

    /// Submits and takes what there is. Empty: the device is busy.
    ///
    /// # Errors
    /// A lost device, a run that diverged, a folder that cannot be written.
    pub fn advance(&mut self) -> Result<Vec<Happened>, SessionError> {
        let mut happened: Vec<Happened> = std::mem::take(&mut self.warnings).into_iter().map(Happened::Warning).collect();
        match &mut self.phase {
            Phase::Training => {
                for progress in self.trainer.advance()? {
                    self.take(progress, &mut happened)?;
                }
            }
            Phase::Sampling { .. } => self.sample(&mut happened)?,
            Phase::Sampled => self.finish(&mut happened)?,
            Phase::Finished => {}
        }
        Ok(happened)
    }

    /// Blocks until there is something to take. Native only in effect.
    ///
    /// # Errors
    /// A lost device.
    pub fn wait(&self) -> Result<(), SessionError> {
        match &self.phase {
            Phase::Training => Ok(self.trainer.wait()?),
            Phase::Sampling { texts, next, .. } => match texts.get(*next) {
                Some((_, text)) => Ok(text.wait(self.trainer.device())?),
                None => Ok(()),
            },
            Phase::Sampled | Phase::Finished => Ok(()),
        }
    }

    fn time(&mut self, tokens: Option<u64>) -> Time {
        let now = (self.clock)();
        let mut time = Time { session: self.session, seconds: now - self.started, tokens_per_second: 0.0 };
        if let Some(tokens) = tokens {
            let (then, before) = self.last_update;
            time.tokens_per_second = tokens.saturating_sub(before) as f64 / (now - then).max(1e-9);
            self.last_update = (now, tokens);
        }
        time
    }

    fn log(&mut self, event: Event, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        self.folder.append(&event)?;
        happened.push(Happened::Logged(event));
        Ok(())
    }

    fn take(&mut self, progress: Progress, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        match progress {
            Progress::Update(mut record) => {
                record.time = self.time(Some(record.tokens));
                self.log(Event::Update(record), happened)
            }
            Progress::Eval(mut record) => {
                record.time = self.time(None);
                self.log(Event::Eval(record), happened)
            }
            Progress::Incident(mut record) => {
                record.time = self.time(None);
                happened.push(Happened::Warning(record.detail.clone()));
                self.log(Event::Incident(record), happened)
            }
            Progress::Checkpoint { snapshot } => {
                self.weights_sha256 = checkpoint::weights_sha256(&snapshot.tensors);
                let keep = self.trainer.config().train.checkpoint.keep as usize;
                match self.folder.save_checkpoint(&snapshot, keep) {
                    Ok(folder) => happened.push(Happened::Saved(folder)),
                    // A failed save is reported; the checkpoint before is untouched and the run goes on.
                    Err(error) => {
                        let detail = error.to_string();
                        let time = self.time(None);
                        let update = snapshot.state.update;
                        happened.push(Happened::Warning(format!("the checkpoint of update {update} was not saved: {detail}")));
                        self.log(Event::Incident(IncidentRecord { update, incident: Incident::CheckpointFailed, detail, time }), happened)?;
                    }
                }
                Ok(())
            }
            Progress::WantsRollback => self.roll_back(happened),
            Progress::Done { stopped_early } => {
                self.stopped_early = stopped_early;
                self.begin_sampling()
            }
        }
    }

    fn roll_back(&mut self, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        let loaded = self.folder.load_newest(&self.trainer.expected())?;
        let snapshot = match loaded {
            Some(loaded) => loaded.snapshot,
            None => self.trainer.initial_snapshot(),
        };
        self.folder.rewind(snapshot.state.update)?;
        let progress = self.trainer.roll_back(&snapshot);
        self.take(progress, happened)
    }

    fn begin_sampling(&mut self) -> Result<(), SessionError> {
        let config = self.trainer.config().clone();
        let draw = Draw { temperature: config.sample.temperature, top_p: config.sample.top_p };
        let prompts = config.sample.prompts.clone();
        let Some(tokenizer) = self.trainer.corpus().tokenizer() else {
            self.phase = Phase::Sampled;
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
        self.phase = Phase::Sampling { generator: Box::new(generator), texts, next: 0 };
        Ok(())
    }

    fn sample(&mut self, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        let Phase::Sampling { generator, texts, next } = &mut self.phase else { return Ok(()) };
        let Some((prompt, text)) = texts.get_mut(*next) else { return self.finish(happened) };
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
            time: Time::default(),
        };
        let time = self.time(None);
        self.log(Event::Sample(SampleRecord { time, ..record }), happened)
    }

    fn finish(&mut self, happened: &mut Vec<Happened>) -> Result<(), SessionError> {
        let events = self.folder.events()?;
        let summary = self.summarize(&events);
        let plot = LossPlot::from_run(&self.name, &summary, &events).figure();
        self.folder.write("loss.svg", plot.to_svg().as_bytes())?;
        match self.rasterize.map(|draw| draw(&plot)) {
            Some(Ok(png)) => self.folder.write("loss.png", &png)?,
            Some(Err(problem)) => happened.push(Happened::Warning(format!("loss.png was not drawn: {problem}"))),
            None => {}
        }
        let config = self.trainer.config().to_effective_toml();
        let report = Report { summary: &summary, events: &events, config: &config, plot: Some("loss.svg") };
        self.folder.write("report.md", report.to_markdown().as_bytes())?;
        let json = serde_json::to_string_pretty(&summary).expect("a summary is plain data");
        self.folder.write("summary.json", format!("{json}\n").as_bytes())?;
        self.phase = Phase::Finished;
        happened.push(Happened::Finished(Box::new(summary)));
        Ok(())
    }

    fn summarize(&self, events: &[Event]) -> Summary {
        let state = self.trainer.state();
        let last = events.iter().rev().find_map(|e| if let Event::Eval(record) = e { Some(record.val_ce) } else { None });
        let seconds: f64 = seconds_of_all_sessions(events);
        Summary {
            schema: record::SCHEMA,
            name: self.name.clone(),
            exit: if self.stopped_early { ExitReason::EarlyStopped } else { ExitReason::Completed },
            final_val_ce: last,
            best_val_ce: state.best.map(|b| b.val_ce),
            best_update: state.best.map(|b| b.update),
            updates: state.update,
            skipped_updates: state.skipped.non_finite,
            rollbacks: state.skipped.rollbacks,
            tokens: state.tokens,
            tokens_per_second: state.tokens as f64 / seconds.max(1e-9),
            adapter: state.identity.adapter.clone(),
            driver: state.identity.driver.clone(),
            weights_sha256: self.weights_sha256.clone(),
            baselines: self.baselines,
            config_sha256: state.identity.config.clone(),
            data_sha256: state.identity.data.clone(),
            tokenizer_sha256: state.identity.tokenizer.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }
}

/// The seconds of the last line of each session, summed: what the run took, waiting between sessions aside.
fn seconds_of_all_sessions(events: &[Event]) -> f64 {
    let mut seconds = std::collections::BTreeMap::new();
    for time in events.iter().filter_map(Event::time) {
        seconds.insert(time.session, time.seconds);
    }
    seconds.values().sum()
}

/// The config with all defaults, under a comment that names versions, adapter and hashes.
pub(super) fn effective_config(config: &Config, device: &Device, corpus: &Corpus) -> String {
    format!(
        "# Every setting of this run. Written by moelab {}; the same file trains the same run.\n# adapter    {} ({})\n# config     sha256 {}\n# data       sha256 {}\n# tokenizer  sha256 {}\n\n{}",
        env!("CARGO_PKG_VERSION"),
        device.adapter.name,
        device.adapter.driver,
        config.hash(),
        corpus.hash(),
        corpus.tokenizer_hash(),
        config.to_effective_toml()
    )
}
