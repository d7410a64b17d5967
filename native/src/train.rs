//! Commands that run a model: train, resume, eval, sample.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use moelab::{
    config_file::Class,
    lab::host::{Activity, Host},
    run::{
        protocol::{Checkpoint, Command, SampleRequest, SessionEvent, Subscription},
        records::SampleRecord,
        summary::ExitReason,
    },
};
use serde_json::json;

use crate::{Common, ConfigArgs, open, signals};
use moelab_native::{
    door::Door,
    err, fault,
    machine::Machine,
    out, print,
    terminal::{self, Terminal},
};

/// Trains a config into a new folder.
pub fn train(common: &Common, args: &ConfigArgs, out: Option<&Path>) -> Result<ExitReason> {
    let config = open::config(args)?;
    let folder = match out {
        Some(folder) => folder.to_path_buf(),
        None => free_folder(&args.config)?,
    };
    let start = Command::Start { run: folder.display().to_string(), config: config.to_effective_toml(), sets: Vec::new() };
    drive(common, start, &folder)
}

/// Resumes a run from its newest intact checkpoint.
#[derive(Args)]
pub struct ResumeArgs {
    /// The run folder.
    run: PathBuf,
    /// Set one key of the run, for example train.updates=20. May be repeated. The key's class determines whether it may change;
    /// the run's log, summary and report record the change.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Resume even if settings of this class differ from those that the run was trained with.
    #[arg(long, value_name = "CLASS")]
    allow: Vec<Allowed>,
}

/// A class of settings that the user can allow to differ.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Allowed {
    /// How the weights are updated: learning rates, schedules, dropout, balance losses.
    Optimisation,
}

/// Resumes a run.
pub fn resume(common: &Common, args: &ResumeArgs) -> Result<ExitReason> {
    let run = &args.run;
    // Problems of the config are reported with their places.
    open::config_of_run(run, &args.sets)?;
    let allow: Vec<Class> = args.allow.iter().map(|Allowed::Optimisation| Class::Optimisation).collect();
    let resume = Command::Resume { run: run.display().to_string(), sets: args.sets.clone(), allow };
    drive(common, resume, run)
}

/// runs/NAME-NUMBER, with the first free number.
pub fn free_folder(config: &Path) -> Result<PathBuf> {
    let name = config.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_else(|| "run".into());
    let taken = |number: &u32| Path::new("runs").join(format!("{name}-{number}")).exists();
    let number = (1..).find(|n| !taken(n)).context("no free number below runs/")?;
    Ok(Path::new("runs").join(format!("{name}-{number}")))
}

/// Opens a run with `command` and drives it to its end, with live progress on stderr and, with `--json`, every line of the metrics and
/// then the summary on stdout. The first Ctrl-C or SIGTERM stops the run cleanly, the second ends the process.
pub fn drive(common: &Common, command: Command, folder: &Path) -> Result<ExitReason> {
    let mut host = Host::new(Machine::of_run(common.resources(), folder.to_path_buf()));
    let series = terminal::SERIES.map(str::to_string).to_vec();
    host.send(Command::Subscribe(Subscription { series, every_seconds: 0.0, records: common.json }));
    host.send(command);
    let mut shown: Option<Shown> = None;
    // Its files are removed before the folder is unlocked.
    let mut door: Option<Door> = None;
    loop {
        if let Some(shown) = shown.as_mut().filter(|shown| !shown.is_stopping && shown.stop.load(Ordering::Relaxed)) {
            shown.is_stopping = true;
            host.send(Command::Stop);
            shown.terminal.say("stopping after the updates in flight, with a checkpoint; press again to end at once");
        }
        for command in door.as_mut().map(Door::commands).unwrap_or_default() {
            match command {
                Ok(command) => host.send(command),
                Err(problem) => err!("warning: {}", print::name(&problem)),
            }
        }
        let (events, activity) = host.advance(SLICE_SECONDS);
        match activity {
            Activity::Waiting if events.is_empty() => host.wait(),
            // Paused by a command from outside.
            Activity::Idle if events.is_empty() => std::thread::sleep(Duration::from_secs_f64(SLICE_SECONDS)),
            _ => {}
        }
        for event in events {
            if matches!(event, SessionEvent::Opened(_)) {
                door = Some(Door::open(folder));
            }
            door.iter().for_each(|door| door.observe(&event));
            match event {
                SessionEvent::Opened(opened) => {
                    let stop = signals::stop_requested()?;
                    err!("{} on {}", print::path(folder), print::name(&opened.adapter));
                    shown = Some(Shown { terminal: Terminal::stderr(opened.updates), stop, is_stopping: false, samples: Vec::new() });
                }
                SessionEvent::Failed(problem) => return Err((*problem).into()),
                SessionEvent::Rejected { problem, .. } => err!("warning: {}", print::name(&problem.to_string())),
                event => {
                    if is_last_before_loss(&event) {
                        host.environment().lose_device();
                    }
                    let Some(shown) = &mut shown else { continue };
                    if let Some(reason) = shown.show(event, common, folder) {
                        return Ok(reason);
                    }
                }
            }
        }
    }
}

/// Most that a call of the host may take before a signal is looked for.
const SLICE_SECONDS: f64 = 0.02;

/// The displayed state of a run.
struct Shown {
    terminal: Terminal,
    /// Whether a signal was received.
    stop: Arc<AtomicBool>,
    is_stopping: bool,
    samples: Vec<SampleRecord>,
}

impl Shown {
    /// Shows an event; returns the end of the run.
    fn show(&mut self, event: SessionEvent, common: &Common, folder: &Path) -> Option<ExitReason> {
        let record = event.log_record();
        if let Some(record) = &record {
            self.terminal.show(record);
            if common.json {
                print::json_line(&record.to_line());
            }
        }
        match event {
            SessionEvent::Series(block) => self.terminal.show_block(&block),
            SessionEvent::Sampled { record, .. } => self.samples.push(*record),
            SessionEvent::Warning { text } => self.terminal.say(&format!("warning: {}", print::name(&text))),
            SessionEvent::Paused { update } => self.terminal.say(&format!("paused after update {update} by a command from outside")),
            SessionEvent::Continued => self.terminal.say("continued"),
            SessionEvent::Finishing { texts } if texts > 0 => {
                let what = if texts == 1 { "text" } else { "texts" };
                self.terminal.say(&format!("generating {texts} {what} (sample.prompts)"));
            }
            SessionEvent::Ended(summary) => {
                self.terminal.finish(&summary, &self.samples);
                err!("\nreport  {}\nplot    {}", print::path(&folder.join("report.md")), print::path(&folder.join("loss.png")));
                if summary.exit.is_resumable() {
                    err!("resume  moelab resume {}", print::path(folder));
                }
                if common.json {
                    print::json(&summary);
                }
                return Some(summary.exit);
            }
            _ => {}
        }
        None
    }
}

/// Whether a test simulates a lost device after this event.
fn is_last_before_loss(event: &SessionEvent) -> bool {
    let updates = if let SessionEvent::Series(block) = event { block.updates.as_slice() } else { &[] };
    updates.iter().any(|update| fault::device_is_lost_after(*update))
}

/// Evaluates a run's best checkpoint on its validation set or on other text.
pub fn eval(common: &Common, run: &Path, data: Option<&str>) -> Result<()> {
    let SessionEvent::Evaluated { record, .. } = ask(common, run, data, Command::Evaluate)? else { bail!("the run was not evaluated") };
    if common.json {
        print::json(&record);
    } else {
        out!(
            "update {}: cross-entropy {:.4} nats/token over {} targets, accuracy {:.2} %",
            record.update,
            record.val_ce,
            record.targets,
            100.0 * record.accuracy
        );
    }
    Ok(())
}

/// Generates text from a run's best checkpoint. It only needs the run folder, not the corpus.
pub fn sample(common: &Common, run: &Path, request: SampleRequest) -> Result<()> {
    let problem = |(field, problem): &(&str, String)| format!("--{}: {problem}", field.replace('_', "-"));
    let problems: Vec<String> = request.problems().iter().map(problem).collect();
    ensure!(problems.is_empty(), "{}", problems.join("\n       "));
    let SessionEvent::Sampled { record, .. } = ask(common, run, None, Command::Sample(request))? else { bail!("no text was generated") };
    let SampleRecord { prompt, text, temperature, top_p, .. } = *record;
    if common.json {
        print::json(&json!({ "prompt": prompt, "text": text, "temperature": temperature, "top_p": top_p }));
    } else {
        out!("{prompt}{text}");
    }
    Ok(())
}

/// Opens a run's best checkpoint for reading, makes a request of it, and returns the answer.
fn ask(common: &Common, run: &Path, data: Option<&str>, request: Command) -> Result<SessionEvent> {
    // Problems of the config are reported with their places.
    open::config_of_run(run, &[])?;
    let mut host = Host::new(Machine::of_run(common.resources(), run.to_path_buf()));
    let (run, data) = (run.display().to_string(), data.map(str::to_string));
    host.send(Command::Inspect { run, checkpoint: Checkpoint::Best, data });
    host.send(request);
    let mut answer = None;
    loop {
        let (events, activity) = host.advance(SLICE_SECONDS);
        if events.is_empty() && activity == Activity::Waiting {
            host.wait();
        }
        for event in events {
            match event {
                SessionEvent::Warning { text } => err!("warning: {}", print::name(&text)),
                SessionEvent::Evaluated { .. } | SessionEvent::Sampled { .. } => {
                    answer = Some(event);
                    host.send(Command::Stop);
                }
                SessionEvent::Closed => return answer.context("the run was closed before it answered"),
                SessionEvent::Failed(problem) | SessionEvent::Rejected { problem, .. } => return Err((*problem).into()),
                _ => {}
            }
        }
    }
}
