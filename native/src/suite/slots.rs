//! Drives the runs of a study on threads, one for each slot.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use moelab::{
    gpu::AdapterChoice,
    lab::{
        host::Host,
        process::ProcessState,
        suite::{Coordinator, RunStatus, SuiteCommand, SuiteEvent, audit::findings, is_started, table, target},
    },
    run::{
        protocol::{Command, SessionEvent},
        summary::ExitReason,
    },
};
use moelab_native::{
    door::Door,
    err,
    folders::Folders,
    machine::{Machine, Resources},
    print,
    runner::Runner,
};

use super::{Opened, audit, judged, reason, show};
use crate::{Common, signals};

/// How long to wait for an event before signals are looked for.
const WAIT: Duration = Duration::from_millis(20);
/// Time between two lines of progress.
const LINES: Duration = Duration::from_secs(5);

/// Makes the missing runs of a study. The first Ctrl-C or SIGTERM stops it: the runs under way save a checkpoint.
pub fn run(
    common: &Common,
    opened: &Opened,
    mut coordinator: Coordinator<Folders>,
    adapters: &[Option<AdapterChoice>],
) -> Result<ExitReason> {
    let start = Instant::now();
    let now = || start.elapsed().as_secs_f64();
    let stop = signals::stop_requested()?;
    let spawn = |adapter: &Option<AdapterChoice>| {
        let adapter = adapter.clone().unwrap_or_default();
        let (resources, folder) = (Resources { adapter, ..common.resources() }, opened.folder.clone());
        Runner::spawn(move || Host::new(Machine::of_study(resources.clone(), folder.clone())), || ())
    };
    let runners: Vec<Runner> = adapters.iter().map(spawn).collect::<std::io::Result<_>>()?;
    let (mut is_stopping, mut is_complete, mut told) = (false, false, Instant::now());
    let mut door = Door::open(&opened.folder);
    door.tell(ProcessState::Training, None);
    loop {
        for command in door.commands() {
            match command {
                Ok(SuiteCommand::Pause) => coordinator.pause(now()),
                Ok(SuiteCommand::Continue) => coordinator.resume(now()),
                Ok(_) => {
                    is_stopping = true;
                    coordinator.stop();
                }
                Err(problem) => err!("warning: {}", print::name(&problem)),
            }
        }
        for order in coordinator.advance(now())? {
            runners[order.slot].send(order.command);
        }
        for event in coordinator.take_events() {
            show(common, &event);
            match event {
                SuiteEvent::Ended { is_complete: all } => is_complete = all,
                SuiteEvent::Paused => door.tell(ProcessState::Paused, None),
                SuiteEvent::Continued => door.tell(ProcessState::Training, None),
                _ => {}
            }
        }
        if coordinator.has_ended() {
            break;
        }
        if !is_stopping && stop.load(Ordering::Relaxed) {
            is_stopping = true;
            err!("stopping after the updates in flight, with checkpoints; press again to end at once");
            coordinator.stop();
            continue;
        }
        if told.elapsed() >= LINES {
            told = Instant::now();
            err!("{}", table::progress(&coordinator.progress(), coordinator.active()));
        }
        let mut is_quiet = true;
        for (slot, runner) in runners.iter().enumerate() {
            while let Some(event) = runner.poll() {
                is_quiet = false;
                coordinator.observe(slot, event, now());
            }
        }
        if is_quiet {
            std::thread::sleep(WAIT);
        }
    }
    let progress = coordinator.progress();
    err!("{}", table::end(&progress));
    for (run, status) in coordinator.folder().plan.runs.iter().zip(coordinator.status()) {
        if let RunStatus::Failed(problem) = status {
            err!("failed: {}: {}", print::name(&run.id), print::name(problem));
        }
    }
    judged(common, &mut coordinator)?;
    if coordinator.is_out_of_space() {
        return Ok(ExitReason::OutOfSpace);
    }
    Ok(reason(is_complete, is_stopping, coordinator.status().iter().filter(|status| matches!(status, RunStatus::Failed(_))).count()))
}

/// Makes one run of a plan, up to the stage that the decisions so far allow. For job arrays: it needs no lock of the study, and does
/// nothing if the run is made.
pub fn run_one(common: &Common, opened: &Opened, index: usize) -> Result<ExitReason> {
    let folders = opened.folders()?;
    let runs = folders.plan()?;
    let Some(run) = runs.get(index) else {
        bail!("--index {index}: the plan has {} runs, from 0; `moelab suite plan` makes it", runs.len());
    };
    let until = target(&folders, &opened.suite, &opened.plan, run)?;
    let (status, summary) = RunStatus::of(&folders, &run.id)?;
    let is_made = match (&status, until) {
        (_, None) => true,
        (RunStatus::Ended(_), _) => true,
        (RunStatus::Partial(update), Some(until)) => *update >= until,
        _ => false,
    };
    if is_made {
        err!("{}: {}, nothing to do", print::name(&run.id), status.words());
        return Ok(summary.map_or(ExitReason::Completed, |summary| match summary.exit {
            ExitReason::Interrupted => ExitReason::Completed,
            exit => exit,
        }));
    }
    // `suite run` has looked at the study with a device as well, before its first run.
    audit::check(&findings(&opened.suite, &opened.plan, None::<&Folders>)?)?;
    let until = until.unwrap_or(run.updates);
    // A run that failed is tried again: an engine repeats a task for that.
    folders.set_failure(&run.id, None)?;
    let command = match is_started(&folders, &run.id)? {
        false => Command::Start { run: run.id.clone(), config: run.config()?.to_effective_toml(), sets: Vec::new() },
        true => Command::Resume { run: run.id.clone(), sets: Vec::new(), allow: Vec::new() },
    };
    let stop = signals::stop_requested()?;
    let (resources, folder) = (common.resources(), opened.folder.clone());
    let runner = Runner::spawn(move || Host::new(Machine::of_study(resources.clone(), folder.clone())), || ())?;
    runner.send(command);
    if until < run.updates {
        runner.send(Command::PauseAt { update: until });
    }
    let (mut is_stopping, mut is_at_stage, mut is_asked_to_pause) = (false, false, false);
    let mut door: Option<Door> = None;
    loop {
        for command in door.as_mut().map(Door::commands).unwrap_or_default() {
            match command {
                Ok(command) => {
                    let is_continued = command == Command::Continue;
                    is_asked_to_pause |= matches!(command, Command::Pause | Command::Step);
                    is_asked_to_pause &= !is_continued;
                    runner.send(command);
                    if is_continued && until < run.updates {
                        // To continue alone would end that, too.
                        runner.send(Command::PauseAt { update: until });
                    }
                }
                Err(problem) => err!("warning: {}", print::name(&problem)),
            }
        }
        if !is_stopping && stop.load(Ordering::Relaxed) {
            is_stopping = true;
            runner.send(Command::Stop);
        }
        let Some(event) = runner.wait(WAIT) else { continue };
        if matches!(event, SessionEvent::Opened(_)) {
            door = Some(Door::open(&opened.folder.join(&run.id)));
        }
        door.iter().for_each(|door| door.observe(&event));
        match event {
            SessionEvent::Paused { update } if update >= until => {
                is_at_stage = true;
                runner.send(Command::Stop);
            }
            SessionEvent::Paused { .. } if is_asked_to_pause => {}
            SessionEvent::Paused { .. } => runner.send(Command::PauseAt { update: until }),
            SessionEvent::Warning { text } => err!("warning: {}", print::name(&text)),
            SessionEvent::Evaluated { record, .. } => {
                err!("{}  update {}/{}  validation {:.4}", print::name(&run.id), record.update, run.updates, record.val_ce);
            }
            SessionEvent::Failed(problem) => {
                if matches!(problem.reason, ExitReason::SaveFailed | ExitReason::Failed) && !problem.is_temporary {
                    folders.set_failure(&run.id, Some(&problem.to_string()))?;
                }
                return Err((*problem).into());
            }
            SessionEvent::Ended(summary) => {
                if common.json {
                    print::json(&summary);
                }
                if matches!(summary.exit, ExitReason::SaveFailed | ExitReason::Failed) {
                    folders.set_failure(&run.id, Some(summary.detail.as_deref().unwrap_or(summary.exit.words())))?;
                }
                // At the end of a stage a run is interrupted on purpose.
                let is_on_purpose = is_at_stage && summary.exit == ExitReason::Interrupted;
                return Ok(if is_on_purpose { ExitReason::Completed } else { summary.exit });
            }
            _ => {}
        }
    }
}
