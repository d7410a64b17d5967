//! A workspace where the trainer lives: follows [`Request`]s, and sends [`Reply`]s.
//!
//! It owns the host of a single run and that of a study, of which one at a time makes runs, and reads what its [`Places`] have.
//!
//! Long because it is one dispatch of requests, with the trait of what it needs.

use std::collections::VecDeque;

use super::{
    archive, audit,
    host::{Activity, Clock, Environment, Host},
    measured::MeasuredRun,
    process::{self, PROCESS, Process, ProcessState},
    speed_probe::SpeedProbe,
    store::{Store, StoreError, check_path},
    suite::{SuiteCommand, SuiteEvent, SuiteStore},
    suite_host::SuiteHost,
    workspace::{self, Reply, Request},
};
use crate::run::protocol::{Command, Problem, SessionEvent};

/// Where a workspace keeps its runs and studies, and what they are trained with.
///
/// Three implementations: a directory of the machine, the browser's private file system, and that of a test.
pub trait Places {
    /// The environment of runs.
    type Environment: Environment;
    /// The folders of a study.
    type Folders: SuiteStore + Clone;

    /// The environment of the runs of a study, or of single runs; with the device and the data of another environment, if one is given.
    fn environment(&self, study: Option<&str>, sharing: Option<&Self::Environment>) -> Self::Environment;

    /// The folders of a study: for reading, or for writing, which creates them.
    ///
    /// # Errors
    /// Folders that do not exist or cannot be opened, or that another process is writing.
    fn study(&self, name: &str, for_writing: bool) -> Result<Self::Folders, StoreError>;

    /// The names of all folders of runs and studies.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn names(&self) -> Result<Vec<String>, StoreError>;

    /// A folder for reading, of a run, a study or a run of a study; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn folder(&self, path: &str) -> Result<Option<Box<dyn Store>>, StoreError>;

    /// Keeps a text for runs to learn. Places with files have no need of it: there, configs name files.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn keep(&mut self, name: &str, _text: &str) -> Result<(), StoreError> {
        let problem = "runs learn files here, which data.paths of their configs names".into();
        Err(StoreError::Medium { action: "keep", path: name.into(), problem })
    }

    /// Removes the folder of a run or a study.
    ///
    /// # Errors
    /// If it cannot be removed, or is being written.
    fn remove(&mut self, name: &str) -> Result<(), StoreError>;

    /// Whether a process is writing a folder, this one or another: what holds its lock. Where folders have no locks, nobody can tell.
    ///
    /// # Errors
    /// If its lock cannot be read.
    fn is_written(&self, path: &str) -> Result<bool, StoreError> {
        check_path(path)?;
        Ok(false)
    }

    /// Appends a line to the [commands](process::COMMANDS) for the process that is writing a folder.
    ///
    /// # Errors
    /// If it cannot be written, or if there are too many commands already.
    fn tell(&mut self, path: &str, line: &str) -> Result<(), StoreError> {
        let problem = format!("no other process takes commands here, so not `{line}`");
        Err(StoreError::Medium { action: "control", path: path.into(), problem })
    }

    /// Seconds since 1970.
    fn seconds_since_1970() -> f64;
}

/// Commands that open a run.
const OPENING: [&str; 3] = ["start", "resume", "inspect"];

/// At most one run or study that is being made, and everything that is kept, for reading.
///
/// [`Workspace::advance`] keeps its budget as [`Host::advance`] does, but for one request: to list, to read series of a run, and to open, judge
/// or report a study takes one call each, however long.
pub struct Workspace<P: Places> {
    places: P,
    host: Host<P::Environment>,
    /// The run that is open, and those that were asked for meanwhile.
    runs: VecDeque<String>,
    study: Option<Study<P>>,
    probe: Option<SpeedProbe<P::Environment>>,
    requests: VecDeque<Request>,
    replies: Vec<Reply>,
    clock: Clock,
}

struct Study<P: Places> {
    name: String,
    host: SuiteHost<P::Environment, P::Folders>,
    is_writable: bool,
    is_running: bool,
}

impl<P: Places> Workspace<P> {
    /// A workspace in which nothing is open.
    pub fn new(places: P) -> Workspace<P> {
        let environment = places.environment(None, None);
        Workspace {
            clock: environment.clock(),
            host: Host::new(environment),
            places,
            runs: VecDeque::new(),
            study: None,
            probe: None,
            requests: VecDeque::new(),
            replies: Vec::new(),
        }
    }

    /// Where its runs are kept.
    pub fn places(&self) -> &P {
        &self.places
    }

    /// Queues a request; [`Workspace::advance`] follows it.
    pub fn send(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    /// Follows the requests that are there and works for `budget` seconds at most. Tells what happened, and what it waits for now.
    pub fn advance(&mut self, budget: f64) -> (Vec<Reply>, Activity) {
        let end = (self.clock)() + budget;
        while let Some(request) = self.next_request() {
            if let Err(problem) = self.follow(request.clone()) {
                self.replies.push(request.refused(problem));
            }
            if (self.clock)() >= end {
                break;
            }
        }
        let (events, of_run) = self.host.advance(budget);
        for event in events {
            let is_over = matches!(event, SessionEvent::Ended(_) | SessionEvent::Failed(_) | SessionEvent::Closed);
            let is_rejected = matches!(&event, SessionEvent::Rejected { command, .. } if OPENING.contains(&command.as_str()));
            let run = if is_rejected { self.runs.pop_back() } else { self.runs.front().cloned() };
            self.replies.push(Reply::Session { run: run.unwrap_or_default(), event });
            if is_over {
                self.runs.pop_front();
            }
        }
        let of_probe = self.advance_probe(budget);
        let of_study = self.study.as_mut().map_or(Activity::Idle, |study| study.advance(budget, &mut self.replies));
        let all = [of_run, of_study, of_probe];
        let activity = match () {
            () if !self.requests.is_empty() || all.contains(&Activity::Busy) => Activity::Busy,
            () if all.contains(&Activity::Waiting) => Activity::Waiting,
            () => Activity::Idle,
        };
        (std::mem::take(&mut self.replies), activity)
    }

    /// The next request: commands do not wait for reading.
    fn next_request(&mut self) -> Option<Request> {
        let is_command = |request: &Request| matches!(request, Request::Session { .. } | Request::Study { .. } | Request::Control { .. });
        self.requests.remove(self.requests.iter().position(is_command).unwrap_or(0))
    }

    /// Blocks until the device has completed work. Only works natively.
    pub fn wait(&mut self) {
        self.host.wait();
        if let Some(probe) = &mut self.probe {
            probe.wait();
        }
        if let Some(study) = &mut self.study {
            study.host.wait();
        }
    }

    /// Stops what is being made, with a checkpoint.
    pub fn stop(&mut self) {
        if !self.runs.is_empty() {
            self.host.send(Command::Stop);
        }
        if let Some(study) = self.study.as_mut().filter(|study| study.is_running) {
            study.host.send(SuiteCommand::Stop);
        }
    }

    fn follow(&mut self, request: Request) -> Result<(), Problem> {
        match request {
            Request::Session { command } => self.session(command),
            Request::Study { study, command } => self.study(&study, command),
            Request::List => self.list(),
            Request::Look { run } => {
                let facts = workspace::facts(&run, &*self.folder(&run)?)?;
                self.replies.push(Reply::Looked(Box::new(facts)));
                Ok(())
            }
            Request::Audit { run } => {
                let measured = MeasuredRun::read(&*self.folder(&run)?, &run, &run)?;
                self.replies.push(Reply::Audited { findings: audit::of_run(&measured), run });
                Ok(())
            }
            Request::Read(query) => {
                let folder = self.folder(&query.run)?;
                self.replies.push(Reply::Read(Box::new(workspace::read(query, &*folder)?)));
                Ok(())
            }
            Request::Probe { config, kernels } => {
                if let Some(busy) = self.runs.front().or(self.study.as_ref().filter(|study| study.is_running).map(|study| &study.name)) {
                    return Err(Problem::new(format!("`{busy}` is under way: its speed is known, and a probe would slow it down")));
                }
                self.probe = Some(SpeedProbe::new(self.places.environment(None, Some(self.host.environment())), config, kernels));
                Ok(())
            }
            Request::Export { run } => {
                let name = run.rsplit('/').next().unwrap_or(&run);
                let archive = archive::pack(&*self.folder(&run)?, name)?;
                self.replies.push(Reply::Exported { run, archive });
                Ok(())
            }
            Request::Import { name, archive } => self.import(name, &archive),
            Request::Keep { name, text } => {
                self.places.keep(&name, &text)?;
                self.replies.push(Reply::Kept { name });
                Ok(())
            }
            Request::Watch { run } => {
                // Before the folder is read: what a process wrote last is there when its lock is gone.
                let process = self.process(&run)?;
                let watched = workspace::watched(&run, process, &*self.folder(&run)?)?;
                self.replies.push(Reply::Watched(Box::new(watched)));
                Ok(())
            }
            Request::Control { run, command } => self.control(&run, command),
            Request::Remove { name } => {
                let is_open = |open: Option<&str>| open == Some(&name);
                if is_open(self.runs.front().map(String::as_str))
                    || is_open(self.study.as_ref().filter(|study| study.is_running).map(|study| &*study.name))
                {
                    return Err(Problem::new(format!("`{name}` is being written: stop it first")));
                }
                self.study = self.study.take().filter(|study| study.name != name);
                self.places.remove(&name)?;
                self.list()
            }
        }
    }

    /// A probe gives way to a run: [`Workspace::session`] and [`Workspace::study`] drop it.
    fn advance_probe(&mut self, budget: f64) -> Activity {
        let Some(probe) = &mut self.probe else { return Activity::Idle };
        let (outcome, activity) = probe.advance(budget);
        match outcome {
            None => return activity,
            Some(Ok(probed)) => self.replies.push(Reply::Probed(Box::new(probed))),
            Some(Err(problem)) => {
                self.replies.push(Reply::Refused { request: "probe".into(), about: None, problem: Box::new(problem) });
            }
        }
        self.probe = None;
        Activity::Busy
    }

    /// Adds a run from an archive. What cannot be read as a run is not kept.
    fn import(&mut self, name: String, archive: &[u8]) -> Result<(), Problem> {
        let files = archive::unpack(archive)?;
        if self.places.folder(&name)?.is_some() {
            return Err(Problem::new(format!("there is already a run or study `{name}`")));
        }
        let mut environment = self.places.environment(None, Some(self.host.environment()));
        let mut store = environment.store(&name)?;
        let written = files.write(&mut *store).map_err(Problem::from);
        let read = written.and_then(|()| workspace::facts(&name, &*store));
        drop(store);
        if let Err(problem) = read {
            self.places.remove(&name)?;
            return Err(problem);
        }
        self.replies.push(Reply::Imported { run: name });
        self.list()
    }

    fn folder(&self, run: &str) -> Result<Box<dyn Store>, Problem> {
        self.places.folder(run)?.ok_or_else(|| Problem::new(format!("there is no run `{run}`")))
    }

    fn list(&mut self) -> Result<(), Problem> {
        let (folder, study) = (|path: &str| self.places.folder(path), |name: &str| self.places.study(name, false));
        let (mut runs, studies) = workspace::list(&self.places.names()?, &folder, &study);
        for run in runs.iter_mut().filter(|run| run.exit.is_none_or(|exit| exit.is_resumable())) {
            run.process = self.process(&run.name)?.map(|process| process.state);
        }
        self.replies.push(Reply::Listed { runs, studies });
        Ok(())
    }

    /// The process that makes a run or study, if any.
    fn process(&self, path: &str) -> Result<Option<Process>, StoreError> {
        if !self.places.is_written(path)? {
            return Ok(None);
        }
        let Some(folder) = self.places.folder(path)? else { return Ok(None) };
        let own = Process::read(folder.read(PROCESS)?.as_deref());
        match path.split_once('/') {
            // The process of a study takes the commands of its runs too.
            Some((study, _)) if own.state == ProcessState::Unknown => self.process(study),
            _ => Ok(Some(own)),
        }
    }

    /// Controls a run that this process makes or another one.
    fn control(&mut self, run: &str, command: Command) -> Result<(), Problem> {
        if self.runs.front().is_some_and(|open| open == run) {
            self.host.send(command);
            return Ok(());
        }
        let gone = || Problem::new(format!("no process is making `{run}`: resume it"));
        if let Some((study, _)) = run.split_once('/') {
            let own = self.study.as_mut().filter(|open| open.is_running && open.name == study);
            if let Some(own) = own {
                own.host.send(process::of_study(&command)?);
                return Ok(());
            }
            if self.process(study)?.is_some_and(|process| process.state != ProcessState::Unknown) {
                return self.tell(study, &process::of_study(&command)?);
            }
        }
        let process = self.process(run)?.ok_or_else(gone)?;
        if process.state == ProcessState::Unknown {
            return Err(Problem::new(format!("the process that makes `{run}` takes no commands: use its own window")));
        }
        self.tell(run, &process::for_run(command)?)
    }

    fn tell(&mut self, path: &str, command: &impl serde::Serialize) -> Result<(), Problem> {
        let line = serde_json::to_string(command).map_err(|error| Problem::new(error.to_string()))?;
        Ok(self.places.tell(path, &line)?)
    }

    fn session(&mut self, command: Command) -> Result<(), Problem> {
        if let Command::Start { run, .. } | Command::Resume { run, .. } | Command::Inspect { run, .. } = &command {
            if let Some(study) = self.study.as_ref().filter(|study| study.is_running) {
                return Err(Problem::new(format!("the study `{}` is under way: stop it first", study.name)));
            }
            self.runs.push_back(run.clone());
            self.probe = None;
        }
        self.host.send(command);
        Ok(())
    }

    fn study(&mut self, name: &str, command: SuiteCommand) -> Result<(), Problem> {
        let is_run = matches!(command, SuiteCommand::Run { .. });
        let is_own = self.study.as_ref().is_some_and(|study| study.name == name && study.is_running);
        let controls = matches!(command, SuiteCommand::Pause | SuiteCommand::Continue | SuiteCommand::Stop);
        if controls && !is_own && self.process(name)?.is_some_and(|process| process.state != ProcessState::Unknown) {
            return self.tell(name, &command);
        }
        if let (true, Some(run)) = (is_run, self.runs.front()) {
            return Err(Problem::new(format!("the run `{run}` is under way: stop it first")));
        }
        if is_run {
            self.probe = None;
        }
        let needs_writing = is_run || matches!(command, SuiteCommand::Open { .. });
        let is_open = self.study.as_ref().is_some_and(|study| study.name == name && (study.is_writable || !needs_writing));
        if !is_open {
            if let Some(running) = self.study.as_ref().filter(|study| study.is_running) {
                return Err(Problem::new(format!("the study `{}` is under way: stop it first", running.name)));
            }
            // The lock of a folder is released before it is opened again.
            self.study = None;
            let folders = self.places.study(name, needs_writing)?;
            let mut host =
                SuiteHost::new(self.places.environment(Some(name), Some(self.host.environment())), folders, name, P::seconds_since_1970);
            if !matches!(command, SuiteCommand::Open { .. } | SuiteCommand::Reopen) {
                host.send(SuiteCommand::Reopen);
            }
            self.study = Some(Study { name: name.into(), host, is_writable: needs_writing, is_running: false });
        }
        if let Some(study) = &mut self.study {
            study.host.send(command);
        }
        Ok(())
    }
}

impl<P: Places> Study<P> {
    fn advance(&mut self, budget: f64, replies: &mut Vec<Reply>) -> Activity {
        let (events, activity) = self.host.advance(budget);
        self.is_running = self.host.is_running();
        replies.extend(events.into_iter().map(|event: SuiteEvent| Reply::Study { study: self.name.clone(), event }));
        activity
    }
}
