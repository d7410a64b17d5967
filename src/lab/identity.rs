//! Compares a run folder with the identity in its checkpoints, and changes its settings.
//!
//! [`run::identity`](crate::run::identity) has the rules. A change of settings is recorded in this order: the
//! config that the run was started with is copied to [`STARTED_CONFIG`], unless it exists; the effective config is rewritten; the
//! checkpoint is saved again, with the new settings and the list of changes; a line is added to the log. After a crash in between,
//! the same command completes the change.

use super::{
    error::SessionError,
    files::EFFECTIVE_CONFIG,
    run_folder::{Found, RunFolder},
};
use crate::{
    config_file::{self, Class},
    run::{
        digest::sha256_hex,
        identity::{self, Agreement, Change, Identity, Purpose, Refused},
        records::{Incident, IncidentRecord, Time},
    },
    train::trainer::Trainer,
};

/// Name of the file with the settings that a run was started with, if they have changed since.
pub const STARTED_CONFIG: &str = "config.started.toml";

/// Compares the identity in a checkpoint of `folder` with the current one, `now`.
///
/// # Errors
/// A folder that cannot be read, or differences that `purpose` does not allow.
pub fn check(folder: &RunFolder, saved: &Identity, now: &Identity, purpose: Purpose) -> Result<Agreement, SessionError> {
    let started = text(folder, STARTED_CONFIG)?;
    let effective = text(folder, EFFECTIVE_CONFIG)?.unwrap_or_default();
    let completed = match started.map(|started| saved.completed(&started)) {
        Some(Ok(completed)) => completed,
        _ => saved.completed(&effective)?,
    };
    Ok(completed.check(now, purpose)?)
}

/// Resumes a run from `found`, whose tensors the trainer has: checks that it may be resumed, restores the trainer's state, and
/// records changed settings. `effective` is the text of the effective config from now on.
pub(super) fn take_up(
    trainer: &mut Trainer,
    folder: &mut RunFolder,
    found: Option<Found>,
    effective: &str,
    allowed: &[Class],
) -> Result<TakenUp, SessionError> {
    let before = text(folder, EFFECTIVE_CONFIG)?.unwrap_or_default();
    let written = identity::recorded(&before).map_err(|problem| SessionError::Mismatch(format!("{EFFECTIVE_CONFIG}: {problem}")))?;
    let (now, update) = (trainer.config().clone(), found.as_ref().map_or(0, |found| found.state.update));
    let edits = identity::changes(&config_file::settings(&written), &config_file::settings(&now), update);
    let header = folder.reader()?.header()?.map(|header| header.config);
    let Some(Found { state, weights_sha256, warnings, .. }) = found else {
        return without_checkpoint(trainer, &before, header, &edits);
    };
    if now.train.updates < update {
        let made = format!("`train.updates` is {}, but the run has made {update} updates: set {update} or more", now.train.updates);
        return Err(SessionError::Mismatch(made));
    }
    let agreement = check(folder, &state.identity, &trainer.state().identity, Purpose::Resume { update, allowed })?;
    let saved = Some((update, weights_sha256));
    let mut taken = TakenUp { update, saved, warnings, lines: Vec::new() };
    trainer.restore_state(&state);
    trainer.note_changes(agreement.changes.clone());
    let bookkeeping = edits.into_iter().filter(|change| change.class == Class::Bookkeeping);
    let changes: Vec<Change> = agreement.changes.into_iter().chain(bookkeeping).collect();
    taken.warnings.extend(agreement.notes.iter().cloned());
    taken.lines.extend(agreement.notes.into_iter().map(|note| incident(update, Incident::AdapterChanged, note)));
    if changes.is_empty() {
        return Ok(taken);
    }
    if text(folder, STARTED_CONFIG)?.is_none() {
        folder.write(STARTED_CONFIG, before.as_bytes())?;
    }
    folder.write(EFFECTIVE_CONFIG, effective.as_bytes())?;
    folder.save_again(&trainer.expected(), trainer.state(), now.train.checkpoint.keep as usize)?;
    taken.warnings.extend(changes.iter().map(|change| format!("from update {} on, {change}", update + 1)));
    taken.warnings.extend(identity::rates_already_used(&now, &changes, update));
    taken.lines.extend(changes.iter().map(|change| incident(update, Incident::SettingsChanged, change.to_string())));
    Ok(taken)
}

/// What a session that takes a run up has to do next: drop lines beyond `update`, log `lines`, tell `warnings`.
pub(super) struct TakenUp {
    pub update: u32,
    /// The checkpoint in the folder: update and hash of its weights.
    pub saved: Option<(u32, String)>,
    pub warnings: Vec<String>,
    pub lines: Vec<IncidentRecord>,
}

/// A run that ended before its first checkpoint starts over: there is no checkpoint to compare a change with.
fn without_checkpoint(trainer: &mut Trainer, before: &str, header: Option<String>, edits: &[Change]) -> Result<TakenUp, SessionError> {
    let written = sha256_hex(identity::effective_body(before).as_bytes());
    let was_edited = header.as_ref().is_some_and(|header| *header != written);
    if was_edited || edits.iter().any(|change| change.class != Class::Bookkeeping) {
        let mut reasons: Vec<String> = edits.iter().map(ToString::to_string).collect();
        if was_edited {
            reasons.push(format!("{EFFECTIVE_CONFIG} was edited: its settings have sha256 {written}"));
        }
        reasons.push(
            "the run has no checkpoint yet, so nothing is lost: start a new one with the changed settings with `moelab train`".into(),
        );
        return Err(Refused { reasons }.into());
    }
    if let Some(header) = header {
        trainer.keep_started_as(header);
    }
    Ok(TakenUp { update: 0, saved: None, warnings: Vec::new(), lines: Vec::new() })
}

fn incident(update: u32, incident: Incident, detail: String) -> IncidentRecord {
    IncidentRecord { update, incident, detail, since: None, time: Time::default() }
}

fn text(folder: &RunFolder, name: &str) -> Result<Option<String>, SessionError> {
    Ok(folder.read(name)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
