//! A run that is open for reading: the weights of one of its checkpoints are evaluated and sampled from.
//!
//! Nothing is written, and no lock is taken, so that another process may be training the run. Device memory holds the weights and what a forward
//! pass needs, but neither gradients nor moments. The data are only read for an evaluation: a text can be generated
//! although the run's text is gone.

use std::{collections::VecDeque, ops::ControlFlow, rc::Rc};

use super::{
    error::SessionError,
    identity,
    publisher::{Activity, Publisher},
    routes::{self, Routes},
    run_folder::{Found, RunFolder},
    text::{self, Text},
};
use crate::{
    data::{Corpus, tokenizer::Tokenizer},
    gpu::{Compilation, Device, Memory, PlanOptions},
    run::{
        Config,
        config::DataKind,
        identity::{Identity, Purpose},
        protocol::{Checkpoint, Command, Inspected, OpeningPhase, Problem, SampleRequest, SessionEvent},
        records::{EvalRecord, Time},
        state::TrainState,
    },
    train::{TrainError, engine::EvalStep, generate::Generator, recording, validation::ValidationPass},
};

/// A run to be opened for reading.
pub(super) struct Target {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: RunFolder,
    /// Its config.
    pub config: Config,
    /// The tokenizer in its folder, if there is one.
    pub own: Option<Tokenizer>,
    /// Encodes prompts and decodes texts: its own, or bytes.
    pub tokenizer: Tokenizer,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Other text to evaluate on than the run's validation set.
    pub data: Option<String>,
}

/// A run that is being opened for reading, in short steps.
pub(super) struct InspectionBuilder {
    target: Box<Target>,
    device: Rc<Device>,
    compilation: Compilation,
    memory: Memory,
    evaluation: Option<EvalStep>,
    generator: Option<Generator>,
}

impl InspectionBuilder {
    /// Starts to open a run.
    pub fn new(target: Box<Target>, device: Rc<Device>, out: &mut Publisher) -> InspectionBuilder {
        let evaluation = recording::evaluation(&target.config, device.capabilities);
        let sampling = recording::sampling(&target.config, device.capabilities);
        let compilation = Compilation::of(&device, &[&evaluation.program, &sampling.program]);
        out.compiling(&compilation);
        InspectionBuilder { target, device, compilation, memory: Memory::default(), evaluation: None, generator: None }
    }

    /// The next step: it compiles a kernel, creates the buffers and bind groups of a program, or reads the checkpoint.
    ///
    /// # Errors
    /// A model that does not fit the device, no intact checkpoint, or one of another config or tokenizer.
    pub fn proceed(mut self, out: &mut Publisher) -> Result<ControlFlow<Inspection, (InspectionBuilder, Activity)>, SessionError> {
        let (config, device, memory) = (&self.target.config, &self.device, &mut self.memory);
        if self.compilation.next().is_some() {
            let progressed = self.compilation.proceed(device);
            match self.compilation.next() {
                Some(_) if progressed => out.compiling(&self.compilation),
                Some(_) => {}
                None => out.opening(OpeningPhase::Model),
            }
            return Ok(ControlFlow::Continue((self, Activity::of(progressed))));
        } else if self.evaluation.is_none() {
            let recorded = recording::evaluation(config, device.capabilities);
            self.evaluation = Some(EvalStep::new(device, memory, recorded, PlanOptions::default()).map_err(TrainError::from)?);
        } else if self.generator.is_none() {
            self.generator = Some(Generator::new(config, device, memory)?.for_text(&self.target.tokenizer, config));
            out.opening(OpeningPhase::Folder);
        } else if let InspectionBuilder { target, device, memory, evaluation: Some(evaluation), generator: Some(generator), .. } = self {
            return Ok(ControlFlow::Break(Inspection::read(*target, device, memory, evaluation, generator, out)?));
        }
        Ok(ControlFlow::Continue((self, Activity::Busy)))
    }
}

/// A request, in the order of arrival.
enum Request {
    Evaluate,
    Sample(SampleRequest),
    Route(Option<String>),
}

/// A request that is being executed.
enum Serving {
    Evaluation(ValidationPass),
    Sample(Text),
    Routes(Box<Routes>),
}

/// A run that is open for reading.
pub(super) struct Inspection {
    target: Target,
    device: Rc<Device>,
    memory: Memory,
    evaluation: EvalStep,
    generator: Generator,
    /// Of the checkpoint.
    state: TrainState,
    /// The data that the run is evaluated on, and their config; `None` before the first evaluation.
    data: Option<(Config, Corpus)>,
    requests: VecDeque<Request>,
    serving: Option<Serving>,
    is_closed: bool,
}

impl Inspection {
    /// Reads the checkpoint.
    fn read(
        target: Target,
        device: Rc<Device>,
        mut memory: Memory,
        evaluation: EvalStep,
        generator: Generator,
        out: &mut Publisher,
    ) -> Result<Inspection, SessionError> {
        let expected = recording::training(&target.config, device.capabilities).expected();
        let mut take = |name: &str, offset: u64, bytes: &[u8]| {
            // The moments are in the checkpoint too.
            if memory.contains(name) {
                memory.write_at(&device, name, offset, bytes);
            }
        };
        let found = match target.checkpoint {
            Checkpoint::Best => target.folder.read_best(&expected, &mut take),
            Checkpoint::Newest => target.folder.read_newest(&expected, &mut take),
        }?;
        let Some(Found { state, weights_sha256, folder, warnings }) = found else {
            return Err(SessionError::Unsaved { run: target.name });
        };
        let now = Identity::new(&target.config, "", &target.tokenizer.hash(), "", "");
        let agreement = identity::check(&target.folder, &state.identity, &now, Purpose::Weights)?;
        warnings.into_iter().chain(agreement.notes).for_each(|warning| out.warn(warning));
        out.push(SessionEvent::Inspected(Box::new(Inspected {
            name: target.name.clone(),
            update: state.update,
            folder,
            weights_sha256,
            adapter: device.adapter.name.clone(),
            driver: device.adapter.driver.clone(),
            config: target.config.to_effective_toml(),
        })));
        let (requests, serving) = (VecDeque::new(), None);
        Ok(Inspection { target, device, memory, evaluation, generator, state, data: None, requests, serving, is_closed: false })
    }

    /// Executes a command.
    ///
    /// # Errors
    /// Why it was rejected.
    pub fn command(&mut self, command: Command) -> Result<(), Problem> {
        match command {
            Command::Stop => self.is_closed = true,
            Command::Evaluate => self.requests.push_back(Request::Evaluate),
            Command::Sample(request) => {
                text::prompt(&self.target.config, Some(&self.target.tokenizer), &request)?;
                self.requests.push_back(Request::Sample(request));
            }
            Command::Route { text } => {
                routes::check(&self.target.config)?;
                if let Some(text) = &text {
                    Routes::of_text(&self.target.config, &self.device, &self.target.tokenizer, text)?;
                }
                self.requests.push_back(Request::Route(text));
            }
            Command::Start { .. } | Command::Resume { .. } | Command::Inspect { .. } => {
                return Err(Problem::new("a run is open for reading: stop it first"));
            }
            _ => return Err(Problem::new("the run is open for reading: it makes no updates and saves nothing")),
        }
        Ok(())
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The config and the tokenizer of the data that the next request needs, if they were not read yet, and whether they are the run's own
    /// or all of another text.
    pub fn lacks_data(&self) -> Option<(Config, Option<Tokenizer>, bool)> {
        let is_next = self.serving.is_none() && matches!(self.requests.front(), Some(Request::Evaluate | Request::Route(None)));
        (is_next && self.data.is_none() && !self.is_closed).then(|| {
            let (mut config, path) = (self.target.config.clone(), self.target.data.as_deref());
            path.into_iter().for_each(|path| evaluate_on(&mut config, path));
            (config, self.target.own.clone(), path.is_none())
        })
    }

    /// Takes the data that it lacks, if they are those of the run, or other text on purpose. Otherwise the request is rejected.
    pub fn provide(&mut self, found: Result<(Config, Corpus), Problem>, out: &mut Publisher) {
        match found.and_then(|found| self.checked(found)) {
            Ok(found) => self.data = Some(found),
            Err(problem) => {
                let command = match self.requests.pop_front() {
                    Some(Request::Route(text)) => Command::Route { text },
                    _ => Command::Evaluate,
                };
                out.push(SessionEvent::Rejected { command: command.name().into(), problem: Box::new(problem) });
            }
        }
    }

    fn checked(&self, (config, corpus): (Config, Corpus)) -> Result<(Config, Corpus), Problem> {
        let now = Identity::new(&config, &corpus.hash(), &corpus.tokenizer_hash(), "", "");
        let purpose = if self.target.data.is_some() { Purpose::Weights } else { Purpose::Evaluate };
        identity::check(&self.target.folder, &self.state.identity, &now, purpose)?;
        Ok((config, corpus))
    }

    /// Submits work and collects completed work.
    ///
    /// # Errors
    /// A lost or faulty device.
    pub fn advance(&mut self, out: &mut Publisher) -> Result<Activity, SessionError> {
        let Inspection { target, device, memory, evaluation, generator, state, data, .. } = self;
        let (update, time) = (state.update, Time::default());
        if self.is_closed {
            out.push(SessionEvent::Closed);
            return Ok(Activity::Idle);
        }
        match (&mut self.serving, data) {
            (Some(Serving::Evaluation(pass)), Some((config, corpus))) => {
                let found = pass.advance(evaluation, device, memory, corpus, config).map_err(TrainError::from)?;
                let Some(record) = found else { return Ok(Activity::Waiting) };
                self.serving = None;
                out.push(SessionEvent::Evaluated { record: Box::new(EvalRecord { update, ..record }), requested: true });
                Ok(Activity::Busy)
            }
            (Some(Serving::Sample(text)), _) => {
                let activity = text.advance(generator, device, memory)?;
                if text.is_done() {
                    out.push(SessionEvent::Sampled { record: Box::new(text.record(&target.tokenizer, update, time)), requested: true });
                    self.serving = None;
                }
                Ok(activity)
            }
            (Some(Serving::Routes(routes)), _) => {
                let activity = routes.advance(&target.config, device, memory)?;
                if routes.is_done() {
                    out.push(SessionEvent::Routed(Box::new(routes.found(Some(&target.tokenizer), update))));
                    self.serving = None;
                }
                Ok(activity)
            }
            _ => {
                self.serving = match self.requests.pop_front() {
                    None => return Ok(Activity::Idle),
                    Some(Request::Evaluate) => Some(Serving::Evaluation(ValidationPass::default())),
                    Some(Request::Route(text)) => match (text, &self.data) {
                        (Some(text), _) => Routes::of_text(&target.config, device, &target.tokenizer, &text).ok(),
                        (None, Some((config, corpus))) => Some(Routes::of_validation(config, device, corpus)),
                        (None, None) => None,
                    }
                    .map(|routes| Serving::Routes(Box::new(routes))),
                    Some(Request::Sample(request)) => {
                        let prompt = text::prompt(&target.config, Some(&target.tokenizer), &request).ok();
                        let warning = prompt.as_ref().and_then(|prompt| prompt.warning());
                        warning.into_iter().for_each(|warning| out.warn(warning));
                        prompt.map(|prompt| Serving::Sample(Text::start(generator, &target.config, request, prompt)))
                    }
                };
                Ok(Activity::Busy)
            }
        }
    }

    /// Blocks until work completes. Only works natively. A lost device is reported by the next [`Inspection::advance`].
    pub fn wait(&self) {
        // The next call finds the error again.
        let _ = match &self.serving {
            Some(Serving::Evaluation(pass)) => {
                pass.oldest().map_or(Ok(()), |download| download.wait_ready(&self.device)).map_err(TrainError::from)
            }
            Some(Serving::Sample(text)) => text.wait(&self.device),
            Some(Serving::Routes(routes)) => routes.wait(&self.device),
            None => Ok(()),
        };
    }
}

/// Evaluates on all of another text than the run's.
fn evaluate_on(config: &mut Config, path: &str) {
    config.data.kind = DataKind::Text;
    config.data.paths = vec![path.to_string()];
    (config.data.max_documents, config.data.max_document_characters, config.data.max_tokens) = (0, 0, 0);
    config.train.evaluation.windows = 0;
}
