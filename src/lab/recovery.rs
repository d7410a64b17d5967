//! How a [`Host`](super::host::Host) goes on after a lost device: it opens again what was open, on a new one.
//!
//! Drivers are reset, a browser's GPU process crashes, a laptop changes its GPU. Nothing of a lost device can be used any more, so the
//! session is dropped and the run is resumed from its newest checkpoint, as after a crash: its losses are those of a run that was never
//! interrupted. The log and the front end get an [incident](Incident::DeviceLost).
//!
//! A device may need a moment to come back, so every try but the first waits; a run that makes no progress over [`TRIES`] of
//! them ends.

use crate::run::{
    protocol::{Command, Problem},
    records::{Incident, IncidentRecord, Time},
    summary::ExitReason,
};

/// How often a run is opened again without an update in between that is new.
const TRIES: u32 = 5;
/// Seconds before the second try; each further one waits twice as long.
const PAUSE_SECONDS: f64 = 0.25;

/// What is open, and what has become of its device.
#[derive(Default)]
pub(super) struct Recovery {
    /// Opens it again.
    command: Option<Command>,
    /// Tries since there was progress.
    tries: u32,
    /// The newest update at which a device was lost.
    reached: u32,
    loss: Option<Loss>,
}

/// A device that was lost during a run.
pub(super) struct Loss {
    /// The run.
    pub run: String,
    /// Updates that were made.
    pub update: u32,
    /// Why.
    pub detail: String,
    /// The update at which the run was to be paused.
    pub limit: Option<u32>,
}

impl Loss {
    /// The line of the log of a run that goes on from `update`.
    pub fn incident(&self, update: u32) -> IncidentRecord {
        let detail = match self.update.saturating_sub(update) {
            0 => format!("{}; it was opened again", self.detail),
            1 => format!("{}; it was opened again, and update {} is made again", self.detail, self.update),
            _ => format!("{}; it was opened again, and updates {} to {} are made again", self.detail, update + 1, self.update),
        };
        IncidentRecord { update, incident: Incident::DeviceLost, detail, since: None, time: Time::default() }
    }
}

impl Recovery {
    /// Of what this command opens.
    pub fn of(command: &Command) -> Recovery {
        Recovery { command: Some(command.clone()), ..Recovery::default() }
    }

    /// Takes note of a loss. Returns the command that opens the run again, and when to give it; `None` if that was tried often enough.
    pub fn note(&mut self, loss: Loss, now: f64) -> Option<(Command, f64)> {
        if loss.update > self.reached {
            (self.tries, self.reached) = (0, loss.update);
        }
        self.command = Some(Command::Resume { run: loss.run.clone(), sets: Vec::new(), allow: Vec::new() });
        self.loss = Some(loss);
        self.again(now)
    }

    /// The same for something that could not be opened, or that was only read, if the reason is a lost device or what follows from one.
    pub fn retry(&mut self, problem: &Problem, now: f64) -> Option<(Command, f64)> {
        let is_lost = problem.reason == ExitReason::DeviceLost || self.loss.is_some();
        if is_lost { self.again(now) } else { None }
    }

    /// The loss after which the run was opened again.
    pub fn opened(&mut self) -> Option<Loss> {
        self.loss.take()
    }

    fn again(&mut self, now: f64) -> Option<(Command, f64)> {
        self.tries += 1;
        let pause = if self.tries == 1 { 0.0 } else { PAUSE_SECONDS * f64::from(1 << (self.tries - 2)) };
        self.command.clone().filter(|_| self.tries <= TRIES).map(|command| (command, now + pause))
    }
}
