//! A pretended run whose every state follows from its update, so that any snapshot and any line can be made again.

use moelab::lab::run_folder::Start;
use moelab::run::alarms::AlarmState;
use moelab::run::checkpoint::{NamedTensor, Snapshot};
use moelab::run::records::{EvalRecord, Event, Time, UpdateRecord};
use moelab::run::series::Lengths;
use moelab::run::state::{BestEval, DataCursor, Identity, SchedulePosition, Skipped, TrainState};

/// Pseudo-random bits from a number (the finaliser of SplitMix64).
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What every pretended run begins with.
pub const START: Start<'static> = Start {
    config: "cafe",
    files: &[("config.effective.toml", b"[model]\nwidth = 64\n"), ("tokenizer.json", b"{\"model\": {}}\n")],
    checkpoint: None,
    lengths: Lengths { layers: 1, experts: 2 },
};

fn tensor(name: &str, shape: &[usize], update: u32) -> NamedTensor {
    let value = |i: usize| (mix(u64::from(update) << 32 | i as u64) >> 40) as f32 * 2f32.powi(-24) - 0.5;
    NamedTensor { name: name.into(), shape: shape.into(), data: (0..shape.iter().product()).map(value).collect() }
}

/// The state after `update`; the best evaluation is that of the last multiple of 4.
pub fn snapshot(update: u32) -> Snapshot {
    let best = BestEval { update: update / 4 * 4, val_ce: (1.0 + f64::from(update / 4)).recip() };
    let state = TrainState {
        update,
        micro_step: u64::from(update) * 3,
        tokens: u64::from(update) * 3 * 512,
        seed: u64::MAX - 7,
        data: DataCursor { offset: mix(1) },
        schedule: SchedulePosition { updates: update, micro_steps: u64::from(update) * 3 },
        best: (update >= 4).then_some(best),
        improved_to: (update >= 4).then_some(best.val_ce),
        evaluations_since_best: update % 4,
        evaluation_pending: false,
        alarms: AlarmState::default(),
        skipped: Skipped { non_finite: 2, in_a_row: 0, rollbacks: 1 },
        identity: Identity { config: "c0ffee".into(), data: "da7a".into(), ..Identity::default() },
        changes: Vec::new(),
    };
    let tensors = vec![
        tensor("embedding.weight", &[13, 8], update),
        tensor("blocks.0.moe.experts.up.weight", &[3, 5, 8], update + 1),
        tensor("final_norm.weight", &[8], update + 2),
        tensor("empty", &[0, 8], update),
    ];
    let optimizer = vec![tensor("embedding.weight.moment1", &[13, 8], update + 3), tensor("scalar", &[], update)];
    Snapshot { tensors, optimizer, state }
}

/// The lines of `update`: one update, and an evaluation after every second.
pub fn lines(update: u32, session: u32) -> Vec<Event> {
    let time = Time { session, seconds: f64::from(update) + 0.1 * f64::from(session), tokens_per_second: Some(1234.5) };
    let ce = 1.0 + (mix(u64::from(update)) >> 11) as f64 * 2f64.powi(-53);
    let record = UpdateRecord {
        update,
        train_ce: ce,
        expert_load: vec![vec![0.1, 0.9]],
        router_entropy: vec![ce as f32],
        time,
        ..UpdateRecord::default()
    };
    let mut lines = vec![Event::Update(record)];
    if update.is_multiple_of(2) {
        lines.push(Event::Eval(EvalRecord { update, val_ce: ce * 1.1, targets: 99, time, ..EvalRecord::default() }));
    }
    lines
}
