//! What a run does about gradients that are not finite, and about a device that is gone.

use moelab::{
    data::Corpus,
    gpu::{Capabilities, PlanOptions},
    run::{checkpoint::Snapshot, protocol::Problem, records::Incident},
    train::{
        TrainError,
        trainer::{Progress, Trainer},
    },
};

use crate::harness::{SMALL, batch, config, device, download, restore, tiers, trainer, write_tensors};

fn small() -> Trainer {
    let text = SMALL.to_string() + "[nan]\nroll_back_after = 3\nstop_after = 1\n";
    let config = config(&text, 64);
    let corpus = Corpus::Batches { training: vec![batch(&config, 1)], validation: vec![batch(&config, 2)] };
    let own: Capabilities = *tiers().last().unwrap();
    trainer(&config, &device(own), corpus, PlanOptions::default())
}

/// The first snapshot with one weight that is not a number.
fn poisoned(trainer: &Trainer) -> Snapshot {
    let mut snapshot = trainer.initial_snapshot();
    let weight = snapshot.tensors.iter_mut().find(|t| t.name.ends_with("output.weight")).unwrap();
    weight.data[5] = f32::NAN;
    snapshot
}

/// Advances until something of interest.
fn until<T>(trainer: &mut Trainer, wanted: impl Fn(&Progress) -> Option<T>) -> Result<T, TrainError> {
    loop {
        let progress = trainer.advance()?;
        if let Some(found) = progress.iter().find_map(&wanted) {
            return Ok(found);
        }
        trainer.wait()?;
    }
}

fn weights(trainer: &mut Trainer) -> Vec<Vec<u8>> {
    let names: Vec<String> = trainer.expected().tensors.into_iter().chain(trainer.expected().optimizer).map(|(name, _)| name).collect();
    download(trainer, &names)
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing_and_the_run_goes_back() {
    let mut trainer = small();
    let snapshot = poisoned(&trainer);
    restore(&mut trainer, &snapshot);
    let before = weights(&mut trainer);
    let skipped = until(&mut trainer, |p| if let Progress::Update(record) = p { Some(record.skipped) } else { None }).unwrap();
    assert!(skipped);
    until(&mut trainer, |p| matches!(p, Progress::WantsRollback).then_some(())).unwrap();
    assert_eq!(weights(&mut trainer), before, "parameters and moments are untouched, bit for bit");
    assert_eq!(trainer.state().skipped.non_finite, 3);

    let good = trainer.initial_snapshot();
    write_tensors(&mut trainer, &good);
    assert!(matches!(trainer.roll_back(&good.state), Progress::Incident(record) if record.incident == Incident::RolledBack));
    assert_eq!([trainer.state().update, trainer.state().skipped.in_a_row, trainer.state().skipped.rollbacks], [0, 0, 1]);
    assert_eq!(trainer.state().data.offset, 3, "continues with data that it has not seen");
    let finite = until(&mut trainer, |p| if let Progress::Update(record) = p { Some(!record.skipped) } else { None }).unwrap();
    assert!(finite);

    let state = trainer.state().clone();
    restore(&mut trainer, &Snapshot { state, ..snapshot });
    let outcome = until(&mut trainer, |p| matches!(p, Progress::Done { .. }).then_some(()));
    assert!(matches!(outcome, Err(TrainError::Diverged { rollbacks: 1, .. })), "{outcome:?}");
}

#[test]
fn a_lost_device_is_an_error_that_says_how_to_go_on() {
    let mut trainer = small();
    until(&mut trainer, |p| matches!(p, Progress::Update(_)).then_some(())).unwrap();
    trainer.device().destroy();
    let error = until(&mut trainer, |p| matches!(p, Progress::Done { .. }).then_some(())).unwrap_err();
    assert!(matches!(&error, TrainError::Gpu(gpu) if gpu.is_lost()), "{error:?}");
    let problem = Problem::from(error);
    assert!(problem.remedy.as_ref().is_some_and(|remedy| remedy.contains("moelab resume")), "{problem:?}");
}
