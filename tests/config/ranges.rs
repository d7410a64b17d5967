//! Every numeric key at both ends of its range, alone and in pairs: a config is refused with a message that names a key, or all three
//! of its programs are recorded and their memory is planned, for both tiers, in bounded time.

use std::fmt::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use moelab::gpu::memory::plan_memory;
use moelab::gpu::{Capabilities, Program};
use moelab::train::recording;

use crate::ends::{SMALL, draws, ends, over};
use crate::load_text;

/// A case that takes longer is a hang. The slowest takes a tenth of it in this profile, on a busy machine.
const LONGEST: Duration = Duration::from_secs(60);
/// Pairs that are tried.
const PAIRS: usize = 2000;

/// Checks a config as `moelab check` does. `Ok(true)` if it was accepted, an error if it was refused without naming a key.
fn check(sets: &[String]) -> Result<bool, String> {
    let config = match load_text("", &sets.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(config) => config,
        Err(problems) if problems.iter().all(|(problem, _)| problem.key.is_some()) => return Ok(false),
        Err(problems) => return Err(format!("no key is named: {problems}")),
    };
    for tier in [Capabilities::PORTABLE, Capabilities::CPU] {
        let plan = |program: &Program| plan_memory(program, true).total_bytes();
        plan(&recording::training(&config, tier).program);
        plan(&recording::evaluation(&config, tier).program);
        plan(&recording::sampling(&config, tier).program);
    }
    let _ = (config.tokens_per_update(), config.learning_rates().at_update(u32::MAX), config.evaluation_due(config.train.updates));
    Ok(true)
}

/// Runs each case on a thread of its own, so that a panic or a hang is told with its case. Gives the number of accepted ones.
fn try_all(cases: Vec<(String, Vec<String>)>) -> usize {
    let (mut accepted, mut faults, mut slowest) = (0, String::new(), (Duration::ZERO, String::new()));
    for (name, sets) in cases {
        let (sender, receiver) = mpsc::channel();
        let started = Instant::now();
        let thread = std::thread::spawn(move || sender.send(check(&sets)));
        match receiver.recv_timeout(LONGEST) {
            Ok(Ok(is_accepted)) => accepted += usize::from(is_accepted),
            Ok(Err(message)) => writeln!(faults, "{name}: {message}").unwrap(),
            Err(mpsc::RecvTimeoutError::Timeout) => writeln!(faults, "{name}: no answer after {LONGEST:?}").unwrap(),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let panic = thread.join().expect_err("it sent nothing");
                let text = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                writeln!(faults, "{name}: it panics: {}", text.unwrap_or_default()).unwrap();
            }
        }
        if started.elapsed() > slowest.0 {
            slowest = (started.elapsed(), name);
        }
    }
    println!("{accepted} accepted; slowest: {} in {:?}", slowest.1, slowest.0);
    assert!(faults.is_empty(), "{faults}");
    accepted
}

#[test]
fn every_numeric_key_at_both_ends_is_refused_or_planned() {
    let ends = ends();
    assert!(ends.len() > 150, "{}", ends.len());
    let defaults = ends.iter().map(|setting| over("", &[setting]));
    let small = ends.iter().map(|setting| over(SMALL, &[setting]));
    let cases: Vec<_> = defaults.chain(small).collect();
    let tried = cases.len();
    let accepted = try_all(cases);
    assert!(accepted > tried / 2, "{accepted} of {tried}");
}

#[test]
fn random_pairs_of_ends_are_refused_or_planned() {
    let ends = ends();
    let mut draw = draws(0x5eed);
    let cases = (0..PAIRS).map(|_| (draw(ends.len()), draw(ends.len()))).map(|(a, b)| over(SMALL, &[&ends[a], &ends[b]])).collect();
    try_all(cases);
}
