//! Opens runs and drives them by messages: [`Command`]s in, [`SessionEvent`]s out.
//!
//! A host runs where its trainer runs: in the command line's loop, on a thread of a desktop app, in a browser's worker. It owns an
//! [`Environment`], which is created there too, so that only messages cross threads, never devices, stores or clocks.
//!
//! **Budget.** [`Host::advance`] works in slices and starts none once its budget is used up, so that it exceeds its budget by one
//! slice at most. A slice computes for a few milliseconds, whatever the length of the run and the size of the model: a piece of a
//! checkpoint, a part of the initial values, of the baselines, of the log that a report needs, a band of the plot's file. Longer are only:
//! - a call of the driver that cannot be interrupted: opening the device, creating the buffers and bind groups of one program, releasing
//!   those of a run that has ended; kernels are compiled by other threads or by the browser, and a run that is stopped meanwhile waits for
//!   those that were begun;
//! - reading the data, which the [`Environment`] does in one call;
//! - creating a run folder, or reading that of an existing run with a checkpoint; an index of the log when the run ends;
//! - what a slice waits for: the medium that makes a file durable, and a driver that executes submissions one by one and blocks the next
//!   (lavapipe does; a native front end would wait for the submission before it in any case).
//!
//! [`SessionEvent::Opening`] announces the phases with such slices, and each pipeline.
//!
//! One run at a time: a command to open another is rejected until the current one has ended or, if it was opened for reading, is closed.
//!
//! **Lost devices.** Where the environment [wants it](Environment::most_repeated_updates), a run whose device was lost goes on by itself on a new one, from
//! its newest checkpoint. Elsewhere it ends, and can be resumed.
//!
//! Long because it is one state machine, with the trait of what it needs.

use std::{
    collections::VecDeque,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{
    files::TOKENIZER,
    inspection::{self, Inspection, InspectionBuilder},
    opening::{check_prompts, own_config, own_tokenizer, sent_config},
    publisher::Publisher,
    recovery::Recovery,
    run_folder::RunFolder,
    session::Session,
    store::Store,
};
pub use super::{
    publisher::{Activity, Clock},
    session::{Opening, Raster, RasterError, Rasterize},
};
use crate::{
    config_file::Class,
    data::{
        Corpus,
        baselines::Fit,
        dataset::Dataset,
        prepare::{self, NoFiles, Purpose},
        tokenizer::Tokenizer,
    },
    gpu::{Compilation, Device, PlanOptions},
    run::{
        Config,
        config::TokenizerKind,
        protocol::{Checkpoint, Command, OpeningPhase, Problem, SessionEvent},
        summary::ExitReason,
    },
    train::{builder::TrainerBuilder, trainer::Trainer},
};

/// The machine-dependent inputs of a run.
///
/// Four implementations: that of a machine with files, the browser worker's, that of a speed probe around another one, and that of a test.
pub trait Environment {
    /// The device to train on; polled until it is ready.
    fn device(&mut self) -> DeviceFuture;

    /// The data of a config, and the config with its vocabulary filled in. A resumed run has its own tokenizer, which replaces
    /// that of the config.
    ///
    /// # Errors
    /// Data that cannot be read or do not match the config.
    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem>;

    /// All text of a config as validation data, and the config with its vocabulary filled in: for evaluating a run on other text than
    /// its own. `own` as in [`Environment::corpus`]. An environment without files has no such text.
    ///
    /// # Errors
    /// As [`Environment::corpus`].
    fn validation_corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        prepare::corpus(config, own, Purpose::Evaluate, &NoFiles).map_err(|error| Problem::new(error.to_string()))
    }

    /// The folder of a run, for writing.
    ///
    /// # Errors
    /// A folder that cannot be opened, or that another process is writing.
    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem>;

    /// The folder of a run, for reading. Must create nothing and must not exclude a writer; where [`Environment::store`] does neither, the
    /// default will do.
    ///
    /// # Errors
    /// A folder that cannot be opened.
    fn store_to_read(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        self.store(run)
    }

    /// Whether its thread may block until the device has completed work; a browser's must not.
    fn may_wait(&self) -> bool {
        false
    }

    /// Seconds since any fixed moment.
    fn clock(&self) -> Clock;

    /// Distinguishes this process from others; valid in a file name.
    fn tag(&self) -> String;

    /// The name of a run, for its report.
    fn name(&self, run: &str) -> String {
        run.to_string()
    }

    /// Most updates that a run makes again after its device was lost, for an environment in which it then goes on by itself: checkpoints are at
    /// most so many updates apart, whatever the config says. By default the run ends, and can be resumed.
    fn most_repeated_updates(&self) -> Option<u32> {
        None
    }

    /// Renders a figure as PNG, if the environment can.
    fn rasterize(&self) -> Option<Rasterize> {
        None
    }
}

/// A pending device request.
pub type DeviceFuture = Pin<Box<dyn Future<Output = Result<Rc<Device>, Problem>>>>;

/// An environment with at most one run, driven by messages.
pub struct Host<E> {
    environment: E,
    clock: Clock,
    commands: VecDeque<Command>,
    stage: Stage,
    recovery: Recovery,
    out: Publisher,
}

/// What is opened once there is a device.
enum Opens {
    Training(Box<Plan>),
    Reading(Box<inspection::Target>),
}

/// A run that is being opened for training.
struct Plan {
    run: String,
    config: Config,
    /// For a resumed run: its folder, and the classes of settings that may differ.
    resumed: Option<(Box<dyn Store>, Vec<Class>)>,
}

/// The folder of a run that is being opened.
struct Target {
    run: String,
    store: Box<dyn Store>,
    /// For a resumed run: the classes of settings that may differ.
    allowed: Option<Vec<Class>>,
}

enum Stage {
    Closed,
    Device(Opens, DeviceFuture),
    Data(Plan, Rc<Device>),
    Kernels(Plan, Rc<Device>, Corpus, Compilation),
    Model(Box<Target>, TrainerBuilder),
    Baselines(Opening, Option<Vec<Class>>, String, Option<Box<Fit>>),
    Folder(Opening, Option<Vec<Class>>, String),
    /// The name of the run, and its session.
    Open(String, Box<Session>),
    Reading(Box<InspectionBuilder>),
    Inspected(Box<Inspection>),
    /// The device was lost; from this time on the command opens again what was open.
    Lost(Command, f64),
}

impl<E: Environment> Host<E> {
    /// A host without a run.
    pub fn new(environment: E) -> Host<E> {
        let clock = environment.clock();
        let (commands, recovery) = (VecDeque::new(), Recovery::default());
        Host { out: Publisher::new(clock.clone()), clock, environment, commands, stage: Stage::Closed, recovery }
    }

    /// The environment.
    pub fn environment(&self) -> &E {
        &self.environment
    }

    /// Queues a command; [`Host::advance`] executes it.
    pub fn send(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    /// Follows the commands that are there and works for `budget` seconds at most, but for the slice under way when they are over.
    /// At least one slice is worked on. Tells what happened, and what the host waits for now.
    pub fn advance(&mut self, budget: f64) -> (Vec<SessionEvent>, Activity) {
        let end = (self.clock)() + budget;
        let mut activity;
        loop {
            while let Some(command) = self.next_command() {
                self.follow(command);
            }
            activity = self.slice();
            if activity != Activity::Busy || (self.clock)() >= end {
                break;
            }
        }
        (self.out.take(), activity)
    }

    /// Blocks until the device has completed work. Only works natively.
    pub fn wait(&mut self) {
        match &mut self.stage {
            Stage::Open(_, session) => session.wait(),
            Stage::Inspected(inspection) => inspection.wait(),
            _ => {}
        }
    }

    /// The next command that can be executed now. While a run is being opened, commands for it wait.
    fn next_command(&mut self) -> Option<Command> {
        let is_opening = !matches!(self.stage, Stage::Closed | Stage::Open(..) | Stage::Inspected(_));
        let is_to_the_host = |command: &Command| {
            use Command::{Inspect, Resume, Start, Stop, Subscribe};
            matches!(command, Start { .. } | Resume { .. } | Inspect { .. } | Stop | Subscribe(_))
        };
        let next = self.commands.iter().position(|command| !is_opening || is_to_the_host(command))?;
        self.commands.remove(next)
    }

    fn follow(&mut self, command: Command) {
        let name = command.name();
        let outcome = match (&mut self.stage, command) {
            (_, Command::Subscribe(subscription)) => subscription.check().map(|()| self.out.subscribe(subscription)),
            (Stage::Open(_, session), command) => session.command(command, &mut self.out),
            (Stage::Inspected(inspection), command) => inspection.command(command),
            (Stage::Closed, command @ (Command::Start { .. } | Command::Resume { .. } | Command::Inspect { .. })) => {
                self.recovery = Recovery::of(&command);
                self.open(command).unwrap_or_else(|problem| self.fail(problem));
                Ok(())
            }
            (Stage::Closed, _) => Err(Problem::new("no run is open: start, resume or inspect one")),
            (Stage::Reading(_) | Stage::Device(Opens::Reading(_), _), Command::Stop) => {
                self.stage = Stage::Closed;
                self.out.push(SessionEvent::Closed);
                Ok(())
            }
            // Nothing of the run is written yet, so a stop need not wait.
            (_, Command::Stop) => {
                self.fail(Problem { reason: ExitReason::Interrupted, ..Problem::new("stopped before the run was open") });
                Ok(())
            }
            (_, _) => Err(Problem::new("a run is being opened: stop it first")),
        };
        if let Err(problem) = outcome {
            self.out.push(SessionEvent::Rejected { command: name.into(), problem: Box::new(problem) });
        }
    }

    /// Begins to open a run.
    fn open(&mut self, command: Command) -> Result<(), Problem> {
        let opens = match command {
            Command::Start { run, config, sets } => {
                let config = sent_config(&config, &sets)?;
                Opens::Training(Box::new(Plan { run, config, resumed: None }))
            }
            Command::Resume { run, sets, allow } => Opens::Training(Box::new(self.resumed(run, &sets, allow)?)),
            Command::Inspect { run, checkpoint, data } => Opens::Reading(Box::new(self.inspected(&run, checkpoint, data)?)),
            _ => return Ok(()),
        };
        self.out.opening(OpeningPhase::Device);
        self.stage = Stage::Device(opens, self.environment.device());
        Ok(())
    }

    /// Reads the config of an existing run.
    fn resumed(&mut self, run: String, sets: &[String], allow: Vec<Class>) -> Result<Plan, Problem> {
        let store = self.environment.store(&run)?;
        let config = own_config(&*store, sets)?;
        Ok(Plan { run, config, resumed: Some((store, allow)) })
    }

    /// Reads the config and the tokenizer of a run that is opened for reading.
    fn inspected(&mut self, run: &str, checkpoint: Checkpoint, data: Option<String>) -> Result<inspection::Target, Problem> {
        let store = self.environment.store_to_read(run)?;
        let (config, own) = (own_config(&*store, &[])?, own_tokenizer(&*store, run)?);
        let tokenizer = match &own {
            Some(own) => own.clone(),
            None if config.data.tokenizer.kind == TokenizerKind::Bytes => Tokenizer::bytes(),
            None => {
                let what = format!("{run}: the run has no {TOKENIZER}, which is needed to decode its ids");
                return Err(Problem { place: Some(TOKENIZER.into()), ..Problem::new(what) });
            }
        };
        let folder = RunFolder::open(store, &self.environment.tag())?;
        Ok(inspection::Target { name: self.environment.name(run), folder, config, own, tokenizer, checkpoint, data })
    }

    fn fail(&mut self, problem: Problem) {
        self.stage = Stage::Closed;
        self.out.push(SessionEvent::Failed(Box::new(problem)));
    }

    fn slice(&mut self) -> Activity {
        let stage = std::mem::replace(&mut self.stage, Stage::Closed);
        match self.next(stage) {
            Ok((stage, activity)) => {
                self.stage = stage;
                activity
            }
            Err(problem) => {
                let is_wanted = self.environment.most_repeated_updates().is_some();
                let again = if is_wanted { self.recovery.retry(&problem, (self.clock)()) } else { None };
                let Some((command, at)) = again else {
                    self.fail(problem);
                    return Activity::Idle;
                };
                self.stage = Stage::Lost(command, at);
                Activity::Busy
            }
        }
    }

    fn next(&mut self, stage: Stage) -> Result<(Stage, Activity), Problem> {
        Ok(match stage {
            Stage::Closed => (Stage::Closed, Activity::Idle),
            Stage::Device(opens, mut future) => match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => (Stage::Device(opens, future), Activity::Waiting),
                Poll::Ready(device) => match (opens, device?) {
                    (Opens::Training(plan), device) => {
                        self.out.opening(OpeningPhase::Data);
                        (Stage::Data(*plan, device), Activity::Busy)
                    }
                    (Opens::Reading(target), device) => {
                        let builder = InspectionBuilder::new(target, device, &mut self.out);
                        (Stage::Reading(Box::new(builder)), Activity::Busy)
                    }
                },
            },
            Stage::Lost(command, at) if (self.clock)() < at => (Stage::Lost(command, at), Activity::Waiting),
            Stage::Lost(command, _) => {
                self.open(command)?;
                (std::mem::replace(&mut self.stage, Stage::Closed), Activity::Busy)
            }
            Stage::Reading(builder) => match builder.proceed(&mut self.out)? {
                ControlFlow::Continue((builder, activity)) => (Stage::Reading(Box::new(builder)), activity),
                ControlFlow::Break(inspection) => (Stage::Inspected(Box::new(inspection)), Activity::Busy),
            },
            Stage::Inspected(mut inspection) => {
                if let Some((config, own, is_of_run)) = inspection.lacks_data() {
                    let found = match is_of_run {
                        true => self.environment.corpus(config, own),
                        false => self.environment.validation_corpus(config, own),
                    };
                    inspection.provide(found, &mut self.out);
                    return Ok((Stage::Inspected(inspection), Activity::Busy));
                }
                let activity = inspection.advance(&mut self.out)?;
                (if inspection.is_closed() { Stage::Closed } else { Stage::Inspected(inspection) }, activity)
            }
            Stage::Data(mut plan, device) => {
                let own = plan.resumed.as_ref().map(|(store, _)| own_tokenizer(&**store, &plan.run)).transpose()?.flatten();
                let (config, corpus) = self.environment.corpus(plan.config, own)?;
                check_prompts(&config, &corpus)?;
                plan.config = config;
                let compilation = Trainer::compilation(&plan.config, &device);
                self.out.compiling(&compilation);
                (Stage::Kernels(plan, device, corpus, compilation), Activity::Busy)
            }
            Stage::Kernels(plan, device, corpus, mut compilation) => {
                let progressed = compilation.proceed(&device);
                if compilation.next().is_some() {
                    if progressed {
                        self.out.compiling(&compilation);
                    }
                    (Stage::Kernels(plan, device, corpus, compilation), Activity::of(progressed))
                } else {
                    self.out.opening(OpeningPhase::Model);
                    let Plan { run, config, resumed } = plan;
                    let (store, allowed) = match resumed {
                        Some((store, allowed)) => (store, Some(allowed)),
                        None => (self.environment.store(&run)?, None),
                    };
                    let builder = TrainerBuilder::new(config, device, corpus, PlanOptions::default());
                    (Stage::Model(Box::new(Target { run, store, allowed }), builder), Activity::Busy)
                }
            }
            Stage::Model(target, builder) => match builder.proceed()? {
                ControlFlow::Continue(builder) => (Stage::Model(target, builder), Activity::Busy),
                ControlFlow::Break(trainer) => {
                    let Target { run, store, allowed } = *target;
                    let dataset = trainer.corpus().dataset();
                    let baselines = dataset.and_then(Dataset::baselines);
                    let fit = dataset.filter(|_| baselines.is_none()).map(|dataset| Box::new(Fit::new(dataset)));
                    let opening = Opening {
                        trainer,
                        store,
                        tag: self.environment.tag(),
                        clock: self.clock.clone(),
                        baselines,
                        rasterize: self.environment.rasterize(),
                        name: self.environment.name(&run),
                    };
                    self.out.opening(OpeningPhase::Baselines);
                    (Stage::Baselines(opening, allowed, run, fit), Activity::Busy)
                }
            },
            Stage::Baselines(mut opening, allowed, run, mut fit) => {
                if let (Some(fit), Some(dataset)) = (&mut fit, opening.trainer.corpus().dataset()) {
                    opening.baselines = fit.proceed(dataset);
                    opening.baselines.into_iter().for_each(|baselines| dataset.keep_baselines(baselines));
                }
                if fit.is_some() && opening.baselines.is_none() {
                    (Stage::Baselines(opening, allowed, run, fit), Activity::Busy)
                } else {
                    self.out.opening(OpeningPhase::Folder);
                    (Stage::Folder(opening, allowed, run), Activity::Busy)
                }
            }
            Stage::Folder(opening, allowed, run) => {
                let mut session = match allowed {
                    Some(allowed) => Session::resume(opening, &allowed),
                    None => Session::start(opening),
                }?;
                session.save_within(self.environment.most_repeated_updates());
                self.out.push(SessionEvent::Opened(Box::new(session.opened())));
                if let Some(loss) = self.recovery.opened() {
                    session.go_on_after(&loss, &mut self.out)?;
                }
                (Stage::Open(run, Box::new(session)), Activity::Busy)
            }
            Stage::Open(run, mut session) => {
                if self.environment.most_repeated_updates().is_some()
                    && let Some(loss) = session.lost(&run)
                    && let Some((command, at)) = self.recovery.note(loss, (self.clock)())
                {
                    session.reject_requests("the device was lost", &mut self.out);
                    return Ok((Stage::Lost(command, at), Activity::Busy));
                }
                let activity = session.advance(&mut self.out)?;
                (if session.is_finished() { Stage::Closed } else { Stage::Open(run, session) }, activity)
            }
        })
    }
}
