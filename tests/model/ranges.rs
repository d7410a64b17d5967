//! Every numeric key at both ends of its range, alone and in pairs, over a model that is small otherwise: three updates, an evaluation
//! and a checkpoint. A loss may be anything; a panic or a hang may not be.
//!
//! `MOELAB_RANGE_RUNS=400 cargo test --test model ranges` trains as many; the usual run a part of them.

use std::time::{Duration, Instant};

use moelab::gpu::{PlanOptions, memory::plan_memory};
use moelab::run::config::load;
use moelab::train::trainer::Progress;
use moelab::{data::Corpus, run::Config, train::recording};

use crate::ends::{SMALL, draws, ends, over};
use crate::harness::{self, batch, on_shared_device};

/// Runs of the usual test.
const FEW_RUNS: usize = 16;
/// A run that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(90);
/// More bytes, or launches an update, are not small.
const MOST_BYTES: u64 = 64 << 20;
const MOST_LAUNCHES: u64 = 2000;

/// Loads a config that is accepted and small, with three updates.
fn small(sets: &[String]) -> Option<Config> {
    let mut config = load(&|_| Ok(String::new()), "defaults", sets).ok()?;
    if u64::from(config.train.micro_batches) > MOST_LAUNCHES {
        return None;
    }
    let program = recording::training(&config, moelab::gpu::Capabilities::PORTABLE).program;
    let persistent: u64 = program.tensors.iter().filter(|t| !t.role.is_planned()).map(|t| t.bytes()).sum();
    let (micro, update) = program.dispatches();
    let launches = micro as u64 * u64::from(config.train.micro_batches) + update as u64;
    if persistent + plan_memory(&program, true).total_bytes() > MOST_BYTES || launches > MOST_LAUNCHES {
        return None;
    }
    config.train.updates = config.train.updates.min(3);
    Some(config)
}

#[test]
fn what_is_accepted_and_small_trains_three_updates() {
    let runs = std::env::var("MOELAB_RANGE_RUNS").map_or(FEW_RUNS, |n| n.parse().expect("a number"));
    let (ends, mut draw, mut trained) = (ends(), draws(0xe4d5), 0);
    while trained < runs {
        // Where all are asked for, each key alone comes first.
        let (a, b) = if runs > ends.len() && trained < ends.len() { (trained, trained) } else { (draw(ends.len()), draw(ends.len())) };
        let (name, sets) = over(SMALL, &[&ends[a], &ends[b]]);
        trained += 1;
        let Some(config) = small(&sets) else { continue };
        on_shared_device(move |device| {
            let started = Instant::now();
            let corpus =
                Corpus::Batches { training: (0..3).map(|seed| batch(&config, seed)).collect(), validation: vec![batch(&config, 9)] };
            let mut trainer = harness::trainer(&config, device, corpus, PlanOptions::default());
            let mut ended = false;
            while !ended {
                assert!(started.elapsed() < LONGEST, "{name}: it hangs");
                // A run may diverge, by an error that says so.
                let Ok(progress) = trainer.advance() else { return };
                ended = progress.iter().any(|p| matches!(p, Progress::Done { .. } | Progress::WantsRollback));
                if progress.is_empty() {
                    trainer.wait().unwrap_or_else(|error| panic!("{name}: {error}"));
                }
            }
            println!("{name}: {:?}", started.elapsed());
        });
    }
}
