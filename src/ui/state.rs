//! What the app knows: everything comes from replies of the workspace, and every action is a request to it.
//!
//! Long because it is one table of what replies change and what actions ask for; the run and the study have files of their own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    rc::Rc,
};

use super::{
    Screen,
    live::{Live, Stage},
    presets,
    storage::{self, Storage},
    study::Study,
};
use crate::{
    lab::{
        audit::Finding,
        process::ProcessState,
        suite::{SuiteCommand, SuiteEvent},
        workspace::{Curve, Facts, Probed, Query, Reply, Request, RunEntry, StudyEntry, Watched},
    },
    run::{
        Config,
        protocol::{Checkpoint, Command, Problem, SessionEvent, Subscription},
        summary::ExitReason,
    },
};

/// Points of a curve that are asked for: about two for each pixel column of a large screen.
const POINTS: u32 = 2048;
/// Columns of a heat map that are asked for.
const COLUMNS: u32 = 240;
/// Seconds between two readings of a run that is under way.
const REFRESH: f64 = 1.0;
/// Seconds between two looks at a run that another process makes.
const WATCH: f64 = 0.5;
/// Seconds between two listings: runs of other processes appear and end too.
pub const LIST: f64 = 5.0;
/// The share of the time that listing may take, and looking at a run of another process: many runs are listed more rarely, and a long one is
/// looked at more rarely.
const LIST_SHARE: f64 = 0.05;
/// Of the seconds until a reply is seen, those that are the window's own: it draws a few frames a second, and slow ones at first.
const UNSEEN: f64 = 0.5;
/// The longest pause between two listings.
const LONGEST_PAUSE: f64 = 20.0;

/// Seconds until something that took `seconds` is asked for again, at least `least`.
fn pause(least: f64, seconds: f64) -> f64 {
    least.max(((seconds - UNSEEN) / LIST_SHARE).min(LONGEST_PAUSE))
}
/// Notes that are kept.
const NOTES: usize = 200;

/// The state of the app.
#[derive(Default)]
pub struct State {
    /// Runs, those of studies included.
    pub runs: Vec<RunEntry>,
    /// Studies.
    pub studies: Vec<StudyEntry>,
    /// Whether the list has arrived.
    pub is_listed: bool,
    /// The run that is or was made by this app, or that another process makes and is watched.
    pub live: Option<Live>,
    /// The study that is shown.
    pub study: Option<Study>,
    /// What is known of runs.
    pub facts: BTreeMap<String, Facts>,
    /// What the audit found in runs by themselves, with the updates made when it was asked.
    audits: HashMap<String, (u32, Option<Audited>)>,
    /// What happened, the newest last.
    pub notes: VecDeque<Note>,
    /// Runs whose curves are shown, in the order of their choice.
    pub shown: Vec<String>,
    /// The run that others are compared with.
    pub baseline: Option<String>,
    /// The run whose experts and texts are shown.
    pub focus: Option<String>,
    /// Seconds on the app's clock.
    pub now: f64,
    /// What configs cost on this machine, the newest last.
    pub probes: Vec<Probed>,
    /// The config that is being probed.
    pub probing: Option<String>,
    /// Why the last probe has no answer.
    pub probe_problem: Option<String>,
    curves: HashMap<(String, String), Known>,
    readings: u64,
    /// The configs of runs in `facts`.
    configs: HashMap<String, Rc<Config>>,
    wanted: BTreeMap<String, BTreeSet<String>>,
    looked: HashMap<String, f64>,
    listed_at: f64,
    is_listing: bool,
    /// Seconds that the last listing took.
    list_seconds: f64,
    /// Whether runs come and go as files.
    pub has_archives: bool,
    /// Whether the user is to choose a file.
    pub is_choosing: bool,
    /// Files that come with the page and are to be read.
    pub fetches: Vec<String>,
    /// Texts that have been kept, to be learnt.
    pub kept: Vec<String>,
    /// Room for runs, where that is limited and known.
    pub storage: Option<Storage>,
    /// Runs as files that are to be given to the user.
    downloads: Vec<(String, Vec<u8>)>,
    watch: Watch,
    outbox: Vec<Request>,
    /// The run that is started once the one under way has ended: stem of its name, and config.
    next: Option<(String, String)>,
    /// Folders and files that are to be saved.
    saves: Vec<(String, Vec<(String, String)>)>,
    /// What has a colour: arms of studies and single runs, in the order of their first appearance.
    colored: Vec<String>,
}

/// The findings in a run, or why it cannot be audited.
pub type Audited = Result<Vec<Finding>, String>;

/// A curve as it was last read.
struct Known {
    curve: Curve,
    /// The number of its last reading, of all.
    reading: u64,
    asked_at: f64,
    is_asked: bool,
}

/// When the run of another process was looked at.
#[derive(Default)]
struct Watch {
    asked_at: f64,
    is_asked: bool,
    /// Seconds that the last answer took.
    seconds: f64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// When, on the app's clock.
    pub at: f64,
    /// How grave it is.
    pub weight: Weight,
    /// The run or study.
    pub about: String,
    /// What.
    pub text: String,
}

/// How grave a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// For information.
    Info,
    /// Needs attention.
    Warning,
    /// Something failed.
    Problem,
}

impl State {
    /// Sends a request with the next frame.
    pub fn ask(&mut self, request: Request) {
        self.outbox.push(request);
    }

    /// Saves files for the user with the next frame.
    pub fn save(&mut self, folder: &str, files: Vec<(String, String)>) {
        self.saves.push((folder.into(), files));
    }

    /// The runs that a screen is about.
    pub fn on_screen(&self, screen: Screen) -> &[String] {
        match screen {
            Screen::Curves => &self.shown,
            Screen::Experts => self.focus.as_slice(),
            _ => &[],
        }
    }

    /// What is to be saved since the last call.
    pub fn take_saves(&mut self) -> Vec<(String, Vec<(String, String)>)> {
        std::mem::take(&mut self.saves)
    }

    /// Adds a run from a file, under a name that is free.
    pub fn import(&mut self, file: &str, archive: Vec<u8>) {
        let stem = file.rsplit(['/', '\\']).next().unwrap_or(file);
        let is_allowed = |c: &char| c.is_ascii_alphanumeric() || "_-".contains(*c);
        let stem: String = stem.chars().take_while(is_allowed).take(80).collect();
        let name = self.free_name(if stem.is_empty() { "run" } else { &stem });
        self.ask(Request::Import { name, archive });
    }

    /// The runs and files that arrived since the last call.
    pub fn take_downloads(&mut self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.downloads)
    }

    /// Takes note of the room for runs; warns when it becomes little.
    pub fn note_storage(&mut self, storage: Storage) {
        if storage.is_low() && !self.storage.is_some_and(|before| before.is_low()) {
            self.note(Weight::Warning, storage::ABOUT, storage.words());
        }
        self.storage = Some(storage);
    }

    /// The requests since the last call, those for curves that were shown and are missing or old among them.
    pub fn take_requests(&mut self) -> Vec<Request> {
        for (run, keys) in std::mem::take(&mut self.wanted) {
            let is_live = self.is_under_way(&run);
            let due = |key: &String| match self.curves.get(&(run.clone(), key.clone())) {
                None => true,
                Some(known) => !known.is_asked && is_live && self.now - known.asked_at >= REFRESH,
            };
            // Arrays are read in fewer points.
            let (arrays, scalars): (Vec<String>, Vec<String>) = keys.into_iter().filter(due).partition(|key| is_array(key));
            for (series, points) in [(scalars, POINTS), (arrays, COLUMNS)] {
                if series.is_empty() {
                    continue;
                }
                for key in &series {
                    let known = self.curves.entry((run.clone(), key.clone())).or_insert(Known {
                        curve: Curve::default(),
                        reading: 0,
                        asked_at: 0.0,
                        is_asked: true,
                    });
                    (known.asked_at, known.is_asked) = (self.now, true);
                }
                self.outbox.push(Request::Read(Query { run: run.clone(), series, from: 0, to: u32::MAX, points }));
            }
        }
        let watched = self.live.as_ref().filter(|live| live.is_remote && !live.is_over()).map(|live| live.run.clone());
        let is_due = !self.watch.is_asked && self.now - self.watch.asked_at >= pause(WATCH, self.watch.seconds);
        if let Some(run) = watched.filter(|_| is_due) {
            (self.watch.asked_at, self.watch.is_asked) = (self.now, true);
            self.ask(Request::Watch { run });
        }
        if !self.is_listing && self.now - self.listed_at >= pause(LIST, self.list_seconds) {
            self.list();
        }
        std::mem::take(&mut self.outbox)
    }

    /// Asks for the list.
    pub fn list(&mut self) {
        (self.listed_at, self.is_listing) = (self.now, true);
        self.ask(Request::List);
    }

    /// Whether the app or another process is making a run.
    pub fn is_under_way(&self, run: &str) -> bool {
        let of_live = self.live.as_ref().is_some_and(|live| live.run == run && !live.is_over());
        let entry = self.entry(run);
        of_live || entry.is_some_and(|entry| entry.process.is_some() || entry.exit.is_none() && entry.made < entry.updates)
    }

    /// Whether the app itself makes something, or opens it, so that nothing else can be started.
    pub fn is_busy(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.is_remote && !live.is_over()) || self.is_study_running()
    }

    /// Watches a run that another process makes, unless the app makes something itself.
    pub fn watch(&mut self, run: &str) {
        let is_known = self.live.as_ref().is_some_and(|live| live.run == run && !live.is_over());
        let entry = self.entry(run).filter(|entry| entry.process.is_some());
        if let (false, false, Some(entry)) = (is_known, self.is_busy(), entry) {
            self.live = Some(Live::remote(run, entry.updates));
            self.watch = Watch::default();
        }
    }

    /// Watches what is under way in another process, where nothing else has happened here.
    fn watch_any(&mut self) {
        if self.is_busy() || self.live.as_ref().is_some_and(|live| !live.is_remote || !live.is_over()) {
            return;
        }
        let of_focus = self.focus.as_ref().and_then(|run| self.entry(run)).filter(|entry| entry.process.is_some());
        let Some(run) = of_focus.or(self.runs.iter().find(|entry| entry.process.is_some())).map(|entry| entry.name.clone()) else { return };
        self.watch(&run);
        if self.shown.is_empty() {
            self.show_only(&run);
            self.focus = Some(run);
        }
    }

    /// A run of the list.
    pub fn entry(&self, run: &str) -> Option<&RunEntry> {
        self.runs.iter().find(|entry| entry.name == run)
    }

    /// A series of a run, as far as it is known; it is read if it is not.
    pub fn curve(&mut self, run: &str, key: &str) -> Option<&Curve> {
        self.wanted.entry(run.to_string()).or_default().insert(key.to_string());
        self.curves.get(&(run.to_string(), key.to_string())).map(|known| &known.curve).filter(|curve| !curve.updates.is_empty())
    }

    /// The number of the last reading of a series of a run: what follows from it is computed again only if it has changed.
    pub fn reading(&self, run: &str, key: &str) -> u64 {
        self.curves.get(&(run.to_string(), key.to_string())).map_or(0, |known| known.reading)
    }

    /// Whether a series was asked for and has not arrived.
    pub fn is_reading(&self, run: &str, key: &str) -> bool {
        self.curves.get(&(run.to_string(), key.to_string())).is_none_or(|known| known.is_asked)
    }

    /// The facts of a run, as far as they are known; they are asked for if they are not, and again while the run is under way.
    pub fn look(&mut self, run: &str) -> Option<&Facts> {
        let is_live = self.is_under_way(run);
        let due = self.looked.get(run).is_none_or(|at| is_live && self.now - at >= 2.0 * REFRESH);
        if due {
            self.looked.insert(run.to_string(), self.now);
            self.ask(Request::Look { run: run.to_string() });
        }
        self.facts.get(run)
    }

    /// What the audit finds in a run by itself, once it is known; it is asked again when the run has ended.
    pub fn audit(&mut self, run: &str) -> Option<&Audited> {
        let made = self.entry(run).map_or(0, |entry| if entry.exit.is_some() { entry.made } else { 0 });
        if self.audits.get(run).is_none_or(|(known, _)| *known != made) {
            let known = self.audits.remove(run).and_then(|(_, findings)| findings);
            self.audits.insert(run.to_string(), (made, known));
            self.ask(Request::Audit { run: run.to_string() });
        }
        self.audits.get(run).and_then(|(_, findings)| findings.as_ref())
    }

    /// The config of a run that was looked at.
    pub fn config(&self, run: &str) -> Option<Rc<Config>> {
        self.configs.get(run).cloned()
    }

    /// The place of a run's colour among those that are used: the arms of a study and single runs have one each.
    pub fn color_index(&mut self, run: &str) -> usize {
        let entry = self.entry(run);
        let key = match entry.and_then(|entry| Some((entry.study.as_ref()?, entry.arm.as_ref()?))) {
            Some((study, arm)) => {
                // The arms of a study have the colours of its report.
                if let Some(place) =
                    self.studies.iter().find(|known| known.name == *study).and_then(|s| s.arms.iter().position(|a| a == arm))
                {
                    return place;
                }
                format!("{study}/{arm}")
            }
            None => run.to_string(),
        };
        self.colored.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.colored.push(key);
            self.colored.len() - 1
        })
    }

    /// The typical difference of the validation losses of two runs that differ from a run in the seed alone: the standard deviation over them
    /// times the square root of 2, nats per token. None without such runs.
    pub fn noise(&self, run: &RunEntry) -> Option<f64> {
        let settings = |entry: &RunEntry| -> BTreeMap<String, String> {
            entry.settings.iter().filter(|(key, _)| *key != "seed").map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let wanted = settings(run);
        let of = |entry: &&RunEntry| entry.made == entry.updates && entry.exit == Some(ExitReason::Completed);
        let losses: Vec<f64> =
            self.runs.iter().filter(of).filter(|entry| settings(entry) == wanted).filter_map(|entry| entry.val_ce).collect();
        let count = losses.len() as f64;
        let mean = losses.iter().sum::<f64>() / count;
        let squares: f64 = losses.iter().map(|loss| (loss - mean).powi(2)).sum();
        (losses.len() >= 2).then(|| (2.0 * squares / (count - 1.0)).sqrt())
    }

    /// A name for a run or study that no other has.
    pub fn free_name(&self, stem: &str) -> String {
        let taken = |name: &str| {
            self.runs.iter().any(|run| run.name == name || run.study.as_deref() == Some(name))
                || self.studies.iter().any(|study| study.name == name)
                || self.live.as_ref().is_some_and(|live| live.run == name)
        };
        let names = std::iter::once(stem.to_string()).chain((2..).map(|number| format!("{stem}-{number}")));
        names.into_iter().find(|name| !taken(name)).unwrap_or_default()
    }

    /// Opens a run for reading.
    pub fn inspect(&mut self, run: &str) {
        self.close();
        self.ask(Request::Session { command: Command::Inspect { run: run.into(), checkpoint: Checkpoint::default(), data: None } });
        self.live = Some(Live::new(run));
    }

    /// Closes a run that is open for reading.
    pub fn close(&mut self) {
        if self.live.as_ref().is_some_and(|live| live.stage == Stage::Inspected) {
            self.ask(Request::Session { command: Command::Stop });
        }
    }

    /// Starts a run.
    pub fn start(&mut self, stem: &str, config: String) -> String {
        self.close();
        let run = self.free_name(stem);
        self.ask(Request::Session { command: Command::Start { run: run.clone(), config, sets: Vec::new() } });
        self.begin(run.clone());
        run
    }

    /// Stops the run that is under way, and starts another one.
    pub fn restart(&mut self, stem: &str, config: String) {
        if !self.is_busy() {
            self.start(stem, config);
            return;
        }
        self.next = Some((stem.into(), config));
        self.command(Command::Stop);
    }

    /// Resumes a run.
    pub fn resume(&mut self, run: &str) {
        self.close();
        self.ask(Request::Session { command: Command::Resume { run: run.into(), sets: Vec::new(), allow: Vec::new() } });
        self.begin(run.into());
    }

    fn begin(&mut self, run: String) {
        // A run ends a probe.
        self.probing = None;
        self.forget(&run);
        self.live = Some(Live::new(&run));
        self.show_only(&run);
        self.focus = Some(run);
    }

    /// Shows the curves of one run.
    pub fn show_only(&mut self, run: &str) {
        self.shown = vec![run.to_string()];
    }

    /// Sends a command to the run.
    pub fn command(&mut self, command: Command) {
        if let (Command::Stop, Some(live)) = (&command, &mut self.live) {
            live.stage = Stage::Stopping;
        }
        match self.live.as_ref().filter(|live| live.is_remote) {
            Some(live) => {
                let run = live.run.clone();
                self.ask(Request::Control { run, command });
            }
            None => self.ask(Request::Session { command }),
        }
    }

    /// Opens a new study whose files are given.
    pub fn new_study(&mut self, stem: &str, file: &str, files: BTreeMap<String, String>) -> String {
        let study = self.free_name(stem);
        self.study = Some(Study { name: study.clone(), ..Study::default() });
        self.ask(Request::Study { study: study.clone(), command: SuiteCommand::Open { study: file.into(), files } });
        study
    }

    /// Opens and runs a new study whose files are given.
    pub fn start_study(&mut self, stem: &str, file: &str, files: BTreeMap<String, String>) -> String {
        self.close();
        self.probing = None;
        let study = self.new_study(stem, file, files);
        self.study.iter_mut().for_each(|study| study.is_running = true);
        self.ask(Request::Study { study: study.clone(), command: SuiteCommand::Run { retry_failed: false } });
        study
    }

    /// Opens a study that is there.
    pub fn open_study(&mut self, name: &str) {
        if self.study.as_ref().is_some_and(|study| study.name == name) {
            return;
        }
        self.study = Some(Study { name: name.into(), ..Study::default() });
        for command in [SuiteCommand::Reopen, SuiteCommand::Judge] {
            self.ask(Request::Study { study: name.into(), command });
        }
    }

    /// Sends a command to the study.
    pub fn command_study(&mut self, command: SuiteCommand) {
        if matches!(command, SuiteCommand::Run { .. }) {
            self.close();
            self.probing = None;
        }
        let Some(study) = &mut self.study else { return };
        match command {
            SuiteCommand::Run { .. } => (study.is_running, study.is_stopping, study.is_paused) = (true, false, false),
            SuiteCommand::Stop => study.is_stopping = true,
            _ => {}
        }
        let name = study.name.clone();
        self.ask(Request::Study { study: name, command });
    }

    fn is_study_running(&self) -> bool {
        self.study.as_ref().is_some_and(|study| study.is_running)
    }

    /// Pauses what is under way.
    pub fn pause(&mut self) {
        if self.is_study_running() { self.command_study(SuiteCommand::Pause) } else { self.command(Command::Pause) }
    }

    /// Ends the pause.
    pub fn go_on(&mut self) {
        if self.is_study_running() { self.command_study(SuiteCommand::Continue) } else { self.command(Command::Continue) }
    }

    /// Stops what is under way, with a checkpoint.
    pub fn stop(&mut self) {
        if self.is_study_running() { self.command_study(SuiteCommand::Stop) } else { self.command(Command::Stop) }
    }

    /// Asks what a config costs on this machine.
    pub fn probe(&mut self, config: String) {
        (self.probing, self.probe_problem) = (Some(config.clone()), None);
        self.ask(Request::Probe { config, kernels: false });
    }

    /// The same, and how long each kernel takes.
    pub fn probe_kernels(&mut self, config: String) {
        (self.probing, self.probe_problem) = (Some(config.clone()), None);
        self.ask(Request::Probe { config, kernels: true });
    }

    /// What a config costs on this machine, if it was probed.
    pub fn probed(&self, config: &str) -> Option<&Probed> {
        self.probes.iter().rev().find(|probed| probed.config == config)
    }

    /// What the app subscribes to when it starts.
    pub fn subscription() -> Command {
        Command::Subscribe(Subscription { series: vec!["train_ce".into()], every_seconds: 0.1, records: false })
    }

    fn forget(&mut self, run: &str) {
        self.curves.retain(|(of, _), _| of != run);
        self.facts.remove(run);
        self.configs.remove(run);
        self.looked.remove(run);
        self.audits.remove(run);
    }

    /// The newest values of a run are read once more.
    fn refresh(&mut self, run: &str) {
        let now = self.now;
        for ((of, _), known) in &mut self.curves {
            if of == run {
                (known.is_asked, known.asked_at) = (false, f64::NEG_INFINITY);
            }
        }
        // A run that has ended is read for the last time.
        let keys: BTreeSet<String> = self.curves.keys().filter(|(of, _)| of == run).map(|(_, key)| key.clone()).collect();
        for key in &keys {
            self.curves.entry((run.to_string(), key.clone())).and_modify(|known| known.asked_at = now);
            let points = if is_array(key) { COLUMNS } else { POINTS };
            self.ask(Request::Read(Query { run: run.into(), series: vec![key.clone()], from: 0, to: u32::MAX, points }));
        }
        self.looked.remove(run);
        self.audits.remove(run);
    }

    /// Adds a note.
    pub fn note(&mut self, weight: Weight, about: &str, text: impl Into<String>) {
        self.notes.push_back(Note { at: self.now, weight, about: about.into(), text: text.into() });
        if self.notes.len() > NOTES {
            self.notes.pop_front();
        }
    }

    /// Takes in a reply.
    pub fn apply(&mut self, reply: Reply) {
        match reply {
            Reply::Listed { runs, studies } => {
                // The first frames of a window take long, whatever the list does.
                let seconds = if self.is_listed { self.now - self.listed_at } else { 0.0 };
                (self.runs, self.studies, self.is_listed) = (runs, studies, true);
                (self.is_listing, self.list_seconds) = (false, seconds);
                self.watch_any();
            }
            Reply::Watched(watched) => self.watched(&watched),
            Reply::Looked(facts) => {
                if self.facts.get(&facts.run).is_none_or(|known| known.config != facts.config) {
                    self.configs.remove(&facts.run);
                    let config = presets::load(presets::OWN, Some(&facts.config), &[]).ok();
                    self.configs.extend(config.map(|config| (facts.run.clone(), Rc::new(config))));
                }
                self.facts.insert(facts.run.clone(), *facts);
            }
            Reply::Audited { run, findings } => {
                if let Some((_, known)) = self.audits.get_mut(&run) {
                    *known = Some(Ok(findings));
                }
            }
            Reply::Read(answer) => {
                for curve in answer.curves {
                    let known = self.curves.entry((answer.query.run.clone(), curve.series.clone())).or_insert(Known {
                        curve: Curve::default(),
                        reading: 0,
                        asked_at: self.now,
                        is_asked: false,
                    });
                    (known.curve, known.is_asked) = (curve, false);
                    self.readings += 1;
                    known.reading = self.readings;
                }
            }
            Reply::Probed(probed) => {
                self.probing = None;
                self.probes.retain(|known| known.config != probed.config);
                self.probes.push(*probed);
            }
            Reply::Refused { request, problem, .. } if request == "probe" => {
                (self.probing, self.probe_problem) = (None, Some(problem.what));
            }
            Reply::Refused { request, about: Some(run), problem } if request == "audit" => {
                if let Some((_, known)) = self.audits.get_mut(&run) {
                    *known = Some(Err(problem.what));
                }
            }
            Reply::Refused { request, about, problem } => self.refused(&request, about.as_deref().unwrap_or_default(), *problem),
            Reply::Exported { run, archive } => self.downloads.push((run, archive)),
            Reply::Imported { run } => self.note(Weight::Info, &run, "added from a file"),
            Reply::Kept { name } => self.kept.push(name),
            Reply::Warned { text } => self.note(Weight::Warning, "", text),
            Reply::Failed(problem) => {
                self.is_listing = false;
                self.note(Weight::Problem, "", problem.what.clone());
                if let Some(live) = self.live.as_mut().filter(|live| !live.is_over()) {
                    live.stage = Stage::Failed(problem.clone());
                }
                if let Some(study) = self.study.as_mut().filter(|study| study.is_running) {
                    (study.is_running, study.problem) = (false, Some(*problem));
                }
                self.ask(Request::Session { command: State::subscription() });
                self.list();
            }
            Reply::Session { run, event } => self.session(&run, event),
            Reply::Study { study, event } => self.of_study(&study, event),
        }
    }

    fn watched(&mut self, watched: &Watched) {
        (self.watch.is_asked, self.watch.seconds) = (false, self.now - self.watch.asked_at);
        let Some(live) = self.live.as_mut().filter(|live| live.is_remote && live.run == watched.run) else { return };
        live.watch(watched);
        if live.is_over() {
            self.refresh(&watched.run);
            self.list();
        }
    }

    fn refused(&mut self, request: &str, about: &str, problem: Problem) {
        // A run that was just asked for has nothing to read yet.
        let is_early = matches!(request, "read" | "look") && self.live.as_ref().is_some_and(|live| live.run == about && live.update == 0);
        self.is_listing &= request != "list";
        if let (true, Some(live)) = (request == "stop", self.live.as_mut().filter(|live| live.run == about)) {
            live.stage = Stage::Training;
        }
        if request == "watch" {
            self.watch.is_asked = false;
            if let Some(live) = self.live.as_mut().filter(|live| live.is_remote && live.run == about) {
                live.stage = Stage::Failed(Box::new(problem.clone()));
            }
        }
        for ((run, _), known) in &mut self.curves {
            if run == about {
                known.is_asked = false;
            }
        }
        if is_early {
            return;
        }
        if let Some(study) = self.study.as_mut().filter(|study| study.name == about && request.starts_with("study")) {
            (study.is_running, study.problem) = (false, Some(problem.clone()));
        }
        if matches!(request, "start" | "resume")
            && let Some(live) = self.live.as_mut().filter(|live| live.run == about)
        {
            live.stage = Stage::Failed(Box::new(problem.clone()));
        }
        self.note(Weight::Problem, about, format!("{request}: {}", problem.what));
    }

    fn session(&mut self, run: &str, event: SessionEvent) {
        match &event {
            SessionEvent::Incident(record) => {
                self.note(Weight::Warning, run, format!("update {}: {}: {}", record.update, record.incident.words(), record.detail));
            }
            SessionEvent::Warning { text } => self.note(Weight::Warning, run, text.clone()),
            SessionEvent::Rejected { command, problem } => self.note(Weight::Problem, run, format!("{command}: {}", problem.what)),
            SessionEvent::Failed(problem) => self.note(Weight::Problem, run, problem.what.clone()),
            SessionEvent::Saved { update, .. } => self.note(Weight::Info, run, format!("checkpoint saved at update {update}")),
            SessionEvent::Ended(summary) => {
                let is_expected = summary.exit.exit_code() == 0 || summary.exit == ExitReason::Interrupted;
                let weight = if is_expected { Weight::Info } else { Weight::Warning };
                let detail = summary.detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
                self.note(weight, run, format!("the run {}{detail}", summary.exit.words()));
            }
            _ => {}
        }
        if let Some(live) = self.live.as_mut().filter(|live| live.run == run || run.is_empty()) {
            live.take(&event);
        }
        if matches!(event, SessionEvent::Ended(_) | SessionEvent::Failed(_)) {
            self.refresh(run);
            self.list();
            if let Some((stem, config)) = self.next.take() {
                self.start(&stem, config);
            }
        }
        if matches!(event, SessionEvent::Opened(_)) {
            self.list();
        }
    }

    fn of_study(&mut self, name: &str, event: SuiteEvent) {
        if let SuiteEvent::Warning { run, text } = &event {
            self.note(Weight::Warning, run.as_deref().unwrap_or(name), text.clone());
        }
        if let SuiteEvent::Failed(problem) = &event {
            self.note(Weight::Problem, name, problem.what.clone());
        }
        if let SuiteEvent::RunEnded { run, .. } = &event {
            let run = format!("{name}/{run}");
            self.refresh(&run);
            self.list();
        }
        let Some(study) = self.study.as_mut().filter(|study| study.name == name) else { return };
        study.take(event);
        if study.judged.is_some() && !study.is_running {
            self.list();
        }
    }
}

/// Whether a series has several values an update.
fn is_array(key: &str) -> bool {
    crate::run::series::Series::find(key).is_some_and(|series| series.is_array())
}

/// What has become of a run, in a few words.
pub fn status(entry: &RunEntry, is_live: bool) -> (&'static str, Outcome) {
    match entry.exit {
        _ if entry.process == Some(ProcessState::Paused) => ("paused", Outcome::Attention),
        _ if is_live => ("training", Outcome::Running),
        _ if entry.problem.is_some() => ("failed", Outcome::Failed),
        None if entry.made == 0 => ("waiting", Outcome::Waiting),
        None => ("unfinished", Outcome::Attention),
        Some(ExitReason::Completed) => ("done", Outcome::Done),
        Some(ExitReason::EarlyStopped) => ("stopped early", Outcome::Done),
        Some(ExitReason::StoppedByGate) => ("stopped by a gate", Outcome::Done),
        Some(ExitReason::Interrupted) => ("stopped", Outcome::Attention),
        Some(ExitReason::Diverged) => ("diverged", Outcome::Failed),
        Some(ExitReason::DeviceLost) => ("device lost", Outcome::Attention),
        Some(ExitReason::OutOfSpace | ExitReason::SaveFailed) => ("not saved", Outcome::Attention),
        Some(ExitReason::Failed) => ("failed", Outcome::Failed),
    }
}

/// The kinds of states, each with a colour and a shape of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not started.
    Waiting,
    /// Under way.
    Running,
    /// Over.
    Done,
    /// Can be resumed.
    Attention,
    /// Failed.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_is_that_of_runs_which_differ_in_the_seed_alone() {
        let run = |name: &str, width: &str, seed: u64, val_ce: f64| RunEntry {
            name: name.into(),
            seed,
            settings: [("model.width".to_string(), width.to_string()), ("seed".to_string(), seed.to_string())].into(),
            updates: 10,
            made: 10,
            exit: Some(ExitReason::Completed),
            val_ce: Some(val_ce),
            ..RunEntry::default()
        };
        let runs = vec![run("a", "16", 1, 2.0), run("b", "16", 2, 2.1), run("c", "32", 1, 5.0)];
        let unfinished = RunEntry { made: 3, val_ce: Some(9.0), ..run("d", "16", 3, 0.0) };
        let state = State { runs: [runs.clone(), vec![unfinished]].concat(), ..State::default() };
        // Two values that differ by 0.1 have the standard deviation 0.1 / sqrt 2.
        assert!((state.noise(&runs[0]).unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(state.noise(&runs[2]), None, "one seed says nothing about noise");
    }

    #[test]
    fn slow_frames_do_not_make_the_list_late_and_slow_lists_are_read_more_rarely() {
        assert_eq!([0.0, 0.4, 0.7].map(|seconds| pause(LIST, seconds)), [LIST; 3]);
        assert!((pause(LIST, 1.0) - 10.0).abs() < 1e-9);
        assert_eq!(pause(LIST, 100.0), LONGEST_PAUSE);
    }
}
