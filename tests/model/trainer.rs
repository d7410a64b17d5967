//! The trainer on runs so small that every answer can be worked out apart: when a run stops and what its best is, which
//! data, random numbers, rates and coefficients each update takes, what moves a parameter, what a checkpoint must hold.
//!
//! Many runs are *still*: their learning rate is 0, so that a loss depends on the batch and the random numbers alone and one
//! run foretells another. Long because each subject is a short test on the same helpers.

use std::{collections::BTreeMap, rc::Rc};

use moelab::{
    data::{Corpus, dataset::Batch},
    gpu::{DType, Device, Memory, Plan, PlanOptions, Role, Segment, Step},
    lab::{
        memory::Memory as Disk,
        run_folder::{RunFolder, Start},
    },
    ops::BalanceLoss,
    run::{
        Config,
        checkpoint::{NamedTensor, Snapshot},
        config::load,
        model::parameters,
        records::{EvalRecord, UpdateRecord},
    },
    train::{
        recording,
        trainer::{End, Progress, Trainer},
    },
};

use crate::{
    checkpoints::{load_newest, weights_sha256},
    harness::{self, download, on_shared_device, restore, snapshot, write_tensors},
};

/// V of all runs here.
const VOCABULARY: u32 = 11;

/// Nothing random, one evaluation and one checkpoint at the end.
const TINY: &str = r#"
seed = 5
[model]
width = 8
context = 8
depth.layers = 2
attention.heads = 2
ffn.width = 8
router = { experts = 4, top_k = 2, noise = 0.0 }
dropout = { embedding = 0.0, attention = 0.0, residual = 0.0, ffn = 0.0, head = 0.0 }
init.std = 0.4
[data]
sequence_length = 8
batch = 2
[train]
updates = 4
micro_batches = 1
evaluation.every = 0
checkpoint = { every = 0, best = false }
[optimizer]
adamw.lr = 0.02
muon.lr = 0.02
[schedule]
kind = "constant"
warmup = 0
"#;

/// Weights that do not move.
pub const STILL: &str = "optimizer={adamw={lr=0.0},muon={lr=0.0}}";
const DROPOUT: &str = "model.dropout={embedding=0.2,attention=0.2,residual=0.2,ffn=0.2,head=0.2}";

pub fn tiny(sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let mut config = load(&|_| Ok(TINY.to_string()), "tiny.toml", &sets).unwrap_or_else(|problems| panic!("{problems}"));
    config.model.vocabulary = VOCABULARY;
    config
}

/// `count` batches, all different.
pub fn batches(config: &Config, count: u64) -> Vec<Batch> {
    (0..count).map(|seed| harness::batch(config, seed)).collect()
}

pub fn start(config: &Config, device: &Rc<Device>, training: &[Batch], validation: &[Batch]) -> Trainer {
    let corpus = Corpus::Batches { training: training.to_vec(), validation: validation.to_vec() };
    harness::trainer(config, device, corpus, PlanOptions::default())
}

/// What a run gave, and in which order: `u3` for update 3, `e3` for its evaluation, `c3` for its checkpoint.
#[derive(Default)]
pub struct Ran {
    updates: Vec<UpdateRecord>,
    pub evals: Vec<EvalRecord>,
    snapshots: Vec<Snapshot>,
    order: Vec<String>,
    stopped_early: bool,
    wants_rollback: bool,
}

impl Ran {
    pub fn losses(&self) -> Vec<f64> {
        self.updates.iter().map(|record| record.train_ce).collect()
    }

    /// The checkpoint of an update.
    pub fn snapshot(&self, update: u32) -> &Snapshot {
        self.snapshots.iter().find(|s| s.state.update == update).unwrap_or_else(|| panic!("no checkpoint of update {update}"))
    }
}

/// Drives a trainer until it is done or wants to go back.
pub fn drive(trainer: &mut Trainer) -> Ran {
    let mut ran = Ran::default();
    loop {
        let progress = trainer.advance().unwrap_or_else(|error| panic!("{error}"));
        if progress.is_empty() {
            trainer.wait().unwrap();
        }
        for event in progress {
            match event {
                Progress::Update(record) => {
                    ran.order.push(format!("u{}", record.update));
                    ran.updates.push(record);
                }
                Progress::Eval(record) => {
                    ran.order.push(format!("e{}", record.update));
                    ran.evals.push(record);
                }
                Progress::CheckpointDue => {
                    ran.order.push(format!("c{}", trainer.state().update));
                    ran.snapshots.push(snapshot(trainer));
                }
                Progress::Incident(_) | Progress::Requested(_) => {}
                Progress::WantsRollback => {
                    ran.wants_rollback = true;
                    return ran;
                }
                Progress::Done { end } => {
                    ran.stopped_early = end == End::EarlyStopped;
                    return ran;
                }
            }
        }
    }
}

fn run(config: &Config, device: &Rc<Device>, training: &[Batch], validation: &[Batch]) -> Ran {
    drive(&mut start(config, device, training, validation))
}

fn assert_close(found: &[f64], wanted: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: {found:?} against {wanted:?}");
    for (at, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= tolerance * w.abs().max(1e-30), "{what}, value {at}: {f} against {w}");
    }
}

/// Means of each two that follow one another.
fn pairs(values: &[f64]) -> Vec<f64> {
    values.chunks(2).map(|two| (two[0] + two[1]) / 2.0).collect()
}

fn all_differ(values: &[f64], least: f64) -> bool {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.windows(2).all(|two| two[1] - two[0] > least)
}

/// The snapshot with one weight that is not a number.
fn poisoned(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    let weight = snapshot.tensors.iter_mut().find(|t| t.name.ends_with("output.weight")).unwrap();
    weight.data[5] = f32::NAN;
    snapshot
}

#[test]
fn updates_evaluations_and_checkpoints_come_in_their_order() {
    on_shared_device(|device| {
        let config = tiny(&["train.updates=8", "train.micro_batches=2", "train.evaluation.every=3", "train.checkpoint.every=2", STILL]);
        let batches = batches(&config, 3);
        let ran = run(&config, device, &batches, &batches[..1]);
        let order = "u1 u2 c2 u3 e3 u4 c4 u5 u6 e6 c6 u7 u8 e8 c8";
        assert_eq!(ran.order.join(" "), order);
        // In micro-steps, two of which make an update: 3 and 9 are completed within updates 2 and 5.
        let config = tiny(&[
            "train.updates=5",
            "train.micro_batches=2",
            "train.evaluation={every=3,unit='micro_steps'}",
            "train.checkpoint.every=4",
            STILL,
        ]);
        let ran = run(&config, device, &batches, &batches[..1]);
        assert_eq!(ran.order.join(" "), "u1 u2 e2 u3 e3 u4 c4 u5 e5 c5");
        for record in &ran.updates {
            // 2 micro-batches of 2 sequences of 8 tokens.
            assert_eq!([record.micro_steps, record.tokens], [2, 32].map(|n| n * u64::from(record.update)));
        }
        let state = &ran.snapshot(4).state;
        assert_eq!((state.update, state.micro_step, state.tokens), (4, 8, 128));
        assert!(!ran.stopped_early);
    });
}

/// Equal losses are no improvement: the first evaluation is the best, the third after it is one too many.
#[test]
fn a_run_stops_exactly_when_its_patience_ends() {
    on_shared_device(|device| {
        let still = |patience: u32| {
            let patience = format!("train.early_stopping={{patience={patience},min_delta=0.0}}");
            let config = tiny(&["train.updates=20", "train.evaluation.every=2", "train.checkpoint.best=true", STILL, &patience]);
            let batches = batches(&config, 2);
            run(&config, device, &batches[..1], &batches[1..])
        };
        let ran = still(3);
        assert_eq!(ran.order.join(" "), "u1 u2 e2 c2 u3 u4 e4 u5 u6 e6 u7 u8 e8 c8");
        assert!(ran.stopped_early && ran.evals.iter().all(|e| e.val_ce == ran.evals[0].val_ce));
        let state = &ran.snapshot(8).state;
        assert_eq!((state.best.unwrap().update, state.evaluations_since_best), (2, 3));
        let ran = still(1);
        assert_eq!(ran.order.last().unwrap(), "c4");
        let ran = still(0);
        assert!(!ran.stopped_early && ran.updates.len() == 20);
    });
}

/// What early stopping is defined as, from the logged evaluations alone: (the update that ends the run, the best). A reference that
/// follows every gain is what it is not.
fn stop_by_hand(evals: &[EvalRecord], patience: usize, min_delta: f64, follows: bool) -> (Option<u32>, u32) {
    let mut reference = f64::INFINITY;
    let mut without = 0;
    let mut stop = None;
    for eval in evals {
        without += 1;
        if eval.val_ce < reference - min_delta {
            (reference, without) = (eval.val_ce, 0);
        }
        if follows {
            reference = reference.min(eval.val_ce);
        }
        if without == patience && stop.is_none() {
            stop = Some(eval.update);
        }
    }
    let seen = evals.iter().filter(|e| stop.is_none_or(|at| e.update <= at));
    (stop, seen.min_by(|a, b| a.val_ce.total_cmp(&b.val_ce)).unwrap().update)
}

/// One batch is learnt by heart, so the loss on another falls first and rises then.
#[test]
fn an_overfitted_run_stops_and_keeps_the_weights_of_its_lowest_loss() {
    on_shared_device(|device| {
        let config =
            |sets: &[&str]| tiny(&[&["train.evaluation.every=1", "train.checkpoint.best=true", "model.init.std=0.1"], sets].concat());
        let whole = config(&["train.updates=30"]);
        let batches = batches(&whole, 2);
        let run = |config: &Config| run(config, device, &batches[..1], &batches[1..]);
        let unstopped = run(&whole);
        let stop_by_hand = |patience, min_delta, follows| stop_by_hand(&unstopped.evals, patience, min_delta, follows);
        let small_gains = |delta: &f64| stop_by_hand(2, *delta, true) != stop_by_hand(2, *delta, false);
        let min_delta = (1..100).map(|i| f64::from(i) * 0.005).find(small_gains).expect("gains that count together only");
        for (patience, min_delta) in [(3, 0.0), (2, min_delta)] {
            let (stop, best) = stop_by_hand(patience, min_delta, false);
            let stop = stop.expect("the loss turns up");
            assert!(1 < best && best <= stop && stop < 30, "best {best}, stop {stop}");
            let stopping = format!("train.early_stopping={{patience={patience},min_delta={min_delta:?}}}");
            let ran = run(&config(&["train.updates=30", &stopping]));
            assert_eq!((ran.updates.len() as u32, ran.stopped_early), (stop, true));
            assert_eq!(ran.evals[..], unstopped.evals[..stop as usize]);
            let last = &ran.snapshot(stop).state;
            let lowest = last.best.unwrap();
            assert_eq!((lowest.update, lowest.val_ce), (best, unstopped.evals[best as usize - 1].val_ce));
            // Each new best is saved at once; the best one holds the weights of a run that ends there.
            let straight = run(&config(&[&format!("train.updates={best}")]));
            assert_eq!(ran.snapshot(best).tensors, straight.snapshot(best).tensors);
            assert_eq!(ran.snapshot(best).state.best, Some(lowest));
        }
        // The run without a minimum gain continued past its best.
        let (stop, best) = stop_by_hand(3, 0.0, false);
        assert!(stop > Some(best));
    });
}

/// Dropout depends on the micro-step and the seed, however micro-steps are grouped into updates and runs into sessions.
#[test]
fn every_micro_step_draws_its_own_dropout() {
    on_shared_device(|device| {
        let singly = tiny(&["train.updates=6", "train.checkpoint.every=3", STILL, DROPOUT]);
        let batch = batches(&singly, 1);
        let ran = run(&singly, device, &batch, &batch);
        assert!(all_differ(&ran.losses(), 1e-3), "{:?}", ran.losses());
        let grouped = tiny(&["train.updates=3", "train.micro_batches=2", STILL, DROPOUT]);
        assert_close(&run(&grouped, device, &batch, &batch).losses(), &pairs(&ran.losses()), 1e-9, "two micro-batches an update");
        let mut resumed = start(&singly, device, &batch, &batch);
        restore(&mut resumed, ran.snapshot(3));
        assert_eq!(drive(&mut resumed).losses(), ran.losses()[3..]);
        let reseeded = run(&Config { seed: 6, ..singly.clone() }, device, &batch, &batch).losses();
        assert!(reseeded.iter().zip(ran.losses()).all(|(a, b)| (a - b).abs() > 1e-3));
    });
}

/// A run goes back after two skipped updates of two micro-batches each, and what it trained on is not seen again.
#[test]
fn a_roll_back_goes_on_with_micro_batches_that_the_run_has_not_seen() {
    on_shared_device(|device| {
        let singly = tiny(&["train.updates=22", STILL]);
        let batches = batches(&singly, 22);
        let loss_of = run(&singly, device, &batches, &batches[..1]).losses();
        assert!(all_differ(&pairs(&loss_of), 1e-4), "{loss_of:?}");
        let trained_on = |first: usize, updates: usize| pairs(&loss_of[first..first + 2 * updates]);

        let sets = ["train.updates=5", "train.micro_batches=2", "train.checkpoint.every=1", "nan={roll_back_after=2,stop_after=3}", STILL];
        let config = tiny(&sets);
        let mut trainer = start(&config, device, &batches, &batches[..1]);
        let straight = drive(&mut trainer);
        assert_close(&straight.losses(), &trained_on(0, 5), 1e-9, "a straight run");

        // Updates 4 and 5 are skipped; 1 is the last good one: updates 2 to 5, micro-batches 2 to 9, are left behind.
        restore(&mut trainer, &poisoned(straight.snapshot(3)));
        let skipped = drive(&mut trainer);
        assert!(skipped.wants_rollback && skipped.updates.len() == 2 && skipped.updates.iter().all(|u| u.skipped));
        write_tensors(&mut trainer, straight.snapshot(1));
        trainer.roll_back(&straight.snapshot(1).state);
        assert_eq!((trainer.state().update, trainer.state().data.offset), (1, 8));

        // The same again before anything is trained: updates 2 and 3 are skipped, four more micro-batches are left behind.
        let again = Snapshot { state: trainer.state().clone(), ..poisoned(straight.snapshot(1)) };
        restore(&mut trainer, &again);
        assert!(drive(&mut trainer).wants_rollback);
        write_tensors(&mut trainer, straight.snapshot(1));
        trainer.roll_back(&straight.snapshot(1).state);
        let after = drive(&mut trainer);
        assert_close(&after.losses(), &trained_on(2 + 8 + 4, 4), 1e-9, "after two roll-backs");
        let state = &after.snapshot(5).state;
        assert_eq!((state.data.offset, state.skipped.rollbacks, state.skipped.non_finite), (12, 2, 4));
        assert_eq!((state.micro_step, state.skipped.in_a_row), (10, 0));

        // An update that is made ends a row of skips.
        let mut skipping = straight.snapshot(3).clone();
        skipping.state.skipped.in_a_row = 1;
        restore(&mut trainer, &skipping);
        assert_eq!(drive(&mut trainer).snapshot(5).state.skipped.in_a_row, 0);

        // A resumed run leaves out the same.
        let mut resumed = start(&config, device, &batches, &batches[..1]);
        restore(&mut resumed, after.snapshot(3));
        assert_eq!(drive(&mut resumed).losses(), after.losses()[2..]);
    });
}

/// Without targets and balance loss the gradient is zero, and what moves a parameter is its weight decay alone.
#[test]
fn weight_decay_moves_exactly_the_parameters_that_it_should() {
    const GAINS_AND_BIASES: [&str; 13] = [
        "blocks.0.attention_norm.weight",
        "blocks.0.attention_norm.bias",
        "blocks.0.attention.qkv.bias",
        "blocks.0.attention.q_norm.weight",
        "blocks.0.attention.k_norm.weight",
        "blocks.0.attention.output.bias",
        "blocks.0.ffn_norm.weight",
        "blocks.0.ffn_norm.bias",
        "blocks.0.moe.router.bias",
        "blocks.0.moe.experts.up.bias",
        "blocks.0.moe.experts.down.bias",
        "final_norm.weight",
        "final_norm.bias",
    ];
    const MUONS: [&str; 5] = [
        "blocks.0.attention.qkv.weight",
        "blocks.0.attention.output.weight",
        "blocks.0.moe.router.weight",
        "blocks.0.moe.experts.up.weight",
        "blocks.0.moe.experts.down.weight",
    ];
    on_shared_device(|device| {
        for decay_gains in [false, true] {
            let gains = format!("optimizer.adamw.decay_gains={decay_gains}");
            let config = tiny(&[
                "train.updates=1",
                "model.depth.layers=1",
                "model.norm.kind='layer_norm'",
                "model.positions={kind='learned'}",
                "model.attention={heads=2,bias=true,output_bias=true,qk_norm=true}",
                "model.ffn.bias=true",
                "model.router.bias=true",
                "model.head.tied=false",
                "model.balance.kind='none'",
                "optimizer={adamw={lr=0.5,weight_decay=0.1},muon={lr=0.25,weight_decay=0.4}}",
                &gains,
            ]);
            let mut batch = batches(&config, 2);
            batch[0].targets.fill(Batch::IGNORED);
            let mut trainer = start(&config, device, &batch[..1], &batch[1..]);
            let mut before = trainer.initial_snapshot();
            let value = |i: usize| 1.0 + i as f32 / 64.0;
            before.tensors.iter_mut().for_each(|t| t.data.iter_mut().enumerate().for_each(|(i, v)| *v = value(i)));
            restore(&mut trainer, &before);
            let after = drive(&mut trainer);
            assert!(!after.updates[0].skipped && after.updates[0].grad_norm == 0.0);
            let tensors = &after.snapshot(1).tensors;
            assert_eq!(tensors.len(), GAINS_AND_BIASES.len() + MUONS.len() + 3, "embedding, positions and head are the others");
            for tensor in tensors {
                let name = tensor.name.as_str();
                let kept = match name {
                    _ if MUONS.contains(&name) => 1.0 - 0.25 * 0.4,
                    _ if GAINS_AND_BIASES.contains(&name) && !decay_gains => 1.0,
                    _ => 1.0 - 0.5 * 0.1,
                };
                for (i, found) in tensor.data.iter().enumerate() {
                    assert!((found / value(i) - kept).abs() < 1e-6, "{name}[{i}]: {found}, wanted {}", kept * value(i));
                    assert!(kept < 1.0 || *found == value(i), "{name}[{i}] moved");
                }
            }
        }
    });
}

/// Every f32 that training changes is in a checkpoint, and what is not there is cleared in every update.
#[test]
fn a_checkpoint_holds_every_state_and_a_resumed_run_is_the_straight_one() {
    on_shared_device(|device| {
        let config = tiny(&[
            "train.updates=6",
            "train.micro_batches=2",
            "train.checkpoint.every=3",
            "model.router={experts=4,top_k=1,noise=0.1,selection_bias='loss_free',selection_bias_rate=0.5}",
            "optimizer.idle_experts='skip'",
            "train.evaluation.every=3",
            DROPOUT,
        ]);
        let batches = batches(&config, 5);
        let mut trainer = start(&config, device, &batches, &batches[..1]);
        let program = recording::training(&config, device.capabilities).program;
        let of = |role: Role, dtype: DType| {
            let tensors = program.tensors.iter().filter(move |t| t.role == role && t.dtype == dtype);
            tensors.map(|t| t.name.clone()).collect::<Vec<_>>()
        };
        let names = |tensors: &[NamedTensor]| tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        let ran = drive(&mut trainer);
        let middle = ran.snapshot(3);
        assert_eq!(names(&middle.tensors), of(Role::Parameter, DType::F32));
        assert_eq!(names(&middle.optimizer), of(Role::State, DType::F32));
        // What is not in it must not outlive an update: counts are cleared by each, skips in a row are the trainer's own.
        assert_eq!(
            of(Role::State, DType::U32),
            ["blocks.0.moe.router.counts", "blocks.1.moe.router.counts", "skipped_updates", "update_damage"]
        );
        let biases: Vec<&NamedTensor> = middle.optimizer.iter().filter(|t| t.name.ends_with("selection_bias")).collect();
        assert_eq!(biases.len(), 2);
        for bias in biases {
            // Steps of 0.5 towards the experts with fewer tokens than the mean.
            assert!(bias.data.iter().all(|v| (2.0 * v).fract() == 0.0) && bias.data.iter().any(|v| *v != 0.0), "{bias:?}");
        }

        let mut folder = RunFolder::create(Box::new(Disk::default()), "test", &Start::default()).unwrap();
        folder.save_checkpoint(middle, 1).unwrap();
        let mut resumed = start(&config, device, &batches, &batches[..1]);
        let loaded = load_newest(&folder, &resumed.expected()).unwrap().unwrap();
        restore(&mut resumed, &loaded.snapshot);
        let rest = drive(&mut resumed);
        assert_eq!(rest.updates[..], ran.updates[3..]);
        assert_eq!(rest.order.join(" "), "u4 u5 u6 e6 c6", "what the checkpoint follows is not done again");
        assert_eq!((&rest.evals[..], rest.snapshot(6)), (&ran.evals[1..], ran.snapshot(6)));
    });
}

/// Noise and dropout change what is trained on, never what is measured.
#[test]
fn evaluation_knows_neither_noise_nor_dropout() {
    on_shared_device(|device| {
        let evaluated = |sets: &[&str]| {
            let config = tiny(&[&["train.updates=2", STILL], sets].concat());
            let batches = batches(&config, 2);
            let ran = run(&config, device, &batches[..1], &batches);
            (ran.losses(), ran.evals)
        };
        let (plain, evals) = evaluated(&[]);
        assert_eq!(plain[0], plain[1]);
        for sets in ["model.router.noise=1.0", DROPOUT] {
            let (losses, found) = evaluated(&[sets]);
            assert_eq!(found, evals, "{sets}");
            assert!(all_differ(&[losses[0], losses[1], plain[0]], 1e-3), "{sets}: {losses:?}, {plain:?}");
        }
        assert_eq!((evals.len(), evals[0].targets), (1, 32));
    });
}

/// The routing of a batch under the initial weights, as the device leaves it: one row [4 + 2E] a layer.
fn routing(config: &Config, device: &Rc<Device>, batch: &Batch) -> Vec<Vec<f64>> {
    let mut memory = Memory::default();
    let training = recording::training(config, device.capabilities);
    let plan = Plan::compile(device, &training.program, &mut memory, PlanOptions::default()).unwrap();
    for spec in config.parameters() {
        memory.write(device, &spec.name, bytemuck::cast_slice(&parameters::initial_values(&spec, config.seed)));
    }
    plan.write(device, training.tokens, bytemuck::cast_slice(&batch.tokens));
    plan.write(device, training.targets, bytemuck::cast_slice(&batch.targets));
    plan.submit(device, &mut memory, &Step::default(), &[Segment::ClearGradients, Segment::Micro]).unwrap();
    let rows = plan.download(device, &training.routing).wait(device).unwrap();
    rows.iter().map(|row| bytemuck::cast_slice::<u8, f32>(row).iter().map(|v| f64::from(*v)).collect()).collect()
}

/// Routing numbers of an update from those of its micro-batches, each convention by its own formula.
#[test]
fn what_is_logged_of_an_update_follows_from_its_micro_batches() {
    const E: usize = 4;
    const K: f64 = 2.0;
    on_shared_device(|device| {
        let singly = tiny(&["train.updates=3", STILL]);
        let together = tiny(&["train.updates=1", "train.micro_batches=3", STILL]);
        let batches = batches(&singly, 3);
        let rows: Vec<Vec<Vec<f64>>> = batches.iter().map(|batch| routing(&together, device, batch)).collect();
        let one_by_one = run(&singly, device, &batches, &batches[..1]).updates;
        let ran = run(&together, device, &batches, &batches[..1]);
        let found = &ran.updates[0];

        let mean = |value: &dyn Fn(&Vec<f64>) -> f64, of: &[&Vec<f64>]| of.iter().map(|row| value(row)).sum::<f64>() / of.len() as f64;
        let layer = |l: usize| rows.iter().map(|micro| &micro[l]).collect::<Vec<_>>();
        let all: Vec<&Vec<f64>> = rows.iter().flatten().collect();
        let load = |e: usize| move |row: &Vec<f64>| BalanceLoss::values(row, "load")[e];
        let probability = |e: usize| move |row: &Vec<f64>| BalanceLoss::values(row, "mean_probability")[e];
        // E times the sum over experts of share times mean probability, both over `of`.
        let product = |of: &[&Vec<f64>]| E as f64 * (0..E).map(|e| mean(&load(e), of) * mean(&probability(e), of)).sum::<f64>();

        let over_micro_batches = |value: &dyn Fn(&UpdateRecord) -> f64| one_by_one.iter().map(value).sum::<f64>() / 3.0;
        let switch = all.iter().map(|row| product(&[row])).sum::<f64>() / all.len() as f64;
        let global = (product(&layer(0)) + product(&layer(1))) / 2.0;
        let wanted = [
            over_micro_batches(&|r| r.train_ce),
            over_micro_batches(&|r| r.accuracy),
            switch,
            mean(&|row| BalanceLoss::values(row, "sequence")[0], &all),
            mean(&|row| BalanceLoss::values(row, "z")[0], &all),
            global,
            K * product(&all),
        ];
        let conventions =
            [found.balance, found.balance_sequence, found.z, found.balance_global_batch, found.balance_hf_mixtral].map(Option::unwrap);
        assert_close(&[&[found.train_ce, found.accuracy], &conventions[..]].concat(), &wanted, 1e-5, "means over an update");
        assert!(all_differ(&conventions, 1e-3), "each convention has a value of its own: {conventions:?}");
        for l in 0..2 {
            let shares: Vec<f64> = (0..E).map(|e| mean(&load(e), &layer(l))).collect();
            let found_load: Vec<f64> = found.expert_load[l].iter().map(|v| f64::from(*v)).collect();
            assert_close(&found_load, &shares, 1e-6, "load");
            assert!((found_load.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            let entropy = mean(&|row| BalanceLoss::values(row, "entropy")[0], &layer(l));
            let z = mean(&|row| BalanceLoss::values(row, "z")[0], &layer(l));
            assert_close(&[f64::from(found.router_entropy[l]), f64::from(found.router_z[l])], &[entropy, z], 1e-6, "entropy and z");
        }
        assert_eq!((found.micro_steps, found.tokens), (3, 48));

        // The evaluation of the three batches: the same forward, the same means.
        let evaluated = run(&singly, device, &batches, &batches).evals;
        assert_close(&[evaluated[0].val_ce, evaluated[0].accuracy], &[found.train_ce, found.accuracy], 1e-6, "evaluation");
        for (found, evaluated) in found.expert_load.iter().flatten().zip(evaluated[0].expert_load.iter().flatten()) {
            assert!((found - evaluated).abs() < 1e-6);
        }
    });
}

/// Without targets the gradient is the coefficient times that of the balance loss: its norm shows the schedule.
#[test]
fn each_update_takes_its_own_coefficient_and_rates() {
    on_shared_device(|device| {
        let config = tiny(&[
            "train.updates=6",
            "train.micro_batches=2",
            STILL,
            "model.balance={coefficient=0.8,schedule={kind='hold_then_linear',end=0.2,hold=1,decay_end=4}}",
        ]);
        let mut batch = batches(&config, 2);
        batch[0].targets.fill(Batch::IGNORED);
        let ran = run(&config, device, &batch[..1], &batch[1..]);
        let norms: Vec<f64> = ran.updates.iter().map(|u| u.grad_norm / ran.updates[0].grad_norm).collect();
        // 0.8 before the first two updates, 0.2 from the fifth on, and a line between.
        assert_close(&norms, &[0.8, 0.8, 0.6, 0.4, 0.2, 0.2].map(|c| c / 0.8), 1e-5, "gradient norm");

        let config =
            tiny(&["train.updates=5", "optimizer={adamw={lr=0.02},muon={lr=0.5}}", "schedule={kind='linear',warmup=2,min_ratio=0.1}"]);
        let ran = run(&config, device, &batch[1..], &batch[1..]);
        let multipliers = [0.0, 0.5, 1.0, 0.7, 0.4];
        let found = |rate: &dyn Fn(&UpdateRecord) -> f64| ran.updates.iter().map(rate).collect::<Vec<_>>();
        assert_close(&found(&|u| u.lr_adamw), &multipliers.map(|m| 0.02 * m), 1e-6, "AdamW's rate");
        assert_close(&found(&|u| u.lr_muon), &multipliers.map(|m| 0.5 * m), 1e-6, "Muon's rate");
        // A rate of 0 moves nothing: the first two losses are equal, the third is another.
        let losses = ran.losses();
        assert!(losses[0] == losses[1] && losses[1] != losses[2], "{losses:?}");
    });
}

/// Two equal micro-batches are one: the same gradient and the same update, up to rounding.
#[test]
fn an_update_takes_the_mean_over_its_micro_batches() {
    on_shared_device(|device| {
        let ran = |micro_batches: &str| {
            let config = tiny(&["train.updates=2", micro_batches]);
            let batch = batches(&config, 1);
            run(&config, device, &batch, &batch).updates
        };
        let (one, two) = (ran("train.micro_batches=1"), ran("train.micro_batches=2"));
        for (one, two) in one.iter().zip(&two) {
            assert_close(&[two.grad_norm, two.train_ce], &[one.grad_norm, one.train_ce], 1e-5, "a gradient and a loss");
        }
        assert_ne!(one[0].train_ce, one[1].train_ce);
    });
}

/// What is too large for a command buffer is split, which changes no bit; what is not is one submission an update.
#[test]
fn an_update_in_several_submissions_has_the_same_bits() {
    on_shared_device(|device| {
        let ran = |updates: &str, most_replays: usize| {
            let config = tiny(&["train.micro_batches=5", DROPOUT, updates]);
            let batches = batches(&config, 15);
            let corpus = Corpus::Batches { training: batches.clone(), validation: batches };
            let before = device.submissions();
            let mut trainer = harness::trainer(&config, device, corpus, PlanOptions { most_replays, ..PlanOptions::default() });
            let ran = drive(&mut trainer);
            (ran.updates, weights_sha256(&ran.snapshots[0].tensors), device.submissions() - before)
        };
        let (records, weights, submissions) = ran("train.updates=3", 256);
        for most_replays in [1, 2] {
            let (split_records, split_weights, split_submissions) = ran("train.updates=3", most_replays);
            assert_eq!((&split_records, &split_weights), (&records, &weights), "{most_replays} micro-batches a submission");
            assert_eq!(split_submissions - submissions, 3 * (5u64.div_ceil(most_replays as u64) - 1));
        }
        let (_, _, longer) = ran("train.updates=7", 256);
        assert_eq!(longer - submissions, 4, "one submission an update");
    });
}

/// An evaluation weighs targets, not batches.
#[test]
fn an_evaluation_is_the_mean_over_its_targets() {
    on_shared_device(|device| {
        let config = tiny(&["train.updates=1", STILL]);
        let mut batches = batches(&config, 2);
        batches[1].targets[3..].fill(Batch::IGNORED);
        let evaluated = |of: &[Batch]| run(&config, device, &batches[..1], of).evals.remove(0);
        let [whole, short, both] = [&batches[..1], &batches[1..], &batches[..]].map(evaluated);
        assert_eq!([whole.targets, short.targets, both.targets], [16, 3, 19]);
        let mean = |of: fn(&EvalRecord) -> f64| (16.0 * of(&whole) + 3.0 * of(&short)) / 19.0;
        assert_close(&[both.val_ce, both.accuracy], &[mean(|e| e.val_ce), mean(|e| e.accuracy)], 1e-6, "an evaluation");
        assert!((whole.val_ce - short.val_ce).abs() > 0.1);
    });
}

/// A gradient at most as long as the limit is left alone, a longer one is cut to it; 0 switches the limit off.
#[test]
fn clipping_scales_to_the_limit() {
    on_shared_device(|device| {
        let factor = |clip: &str| {
            let config = tiny(&["train.updates=1", STILL, clip]);
            let batches = batches(&config, 1);
            let ran = run(&config, device, &batches, &batches);
            (ran.updates[0].grad_norm, ran.updates[0].clip_factor)
        };
        let (norm, factor_off) = factor("optimizer.clip_norm=0.0");
        assert_eq!(factor_off, 1.0);
        assert_eq!(factor(&format!("optimizer.clip_norm={:?}", 2.0 * norm)), (norm, 1.0));
        let (same, cut) = factor(&format!("optimizer.clip_norm={:?}", norm / 4.0));
        assert!(same == norm && (cut - 0.25).abs() < 1e-6, "{cut}");
    });
}

/// An untied head that starts as the embedding, and nothing else, shares its draws; other seeds give other weights.
#[test]
fn initial_weights_are_those_of_the_config() {
    on_shared_device(|device| {
        let config = tiny(&["model.head={tied=false,starts_as_embedding=true}", STILL]);
        let batches = batches(&config, 1);
        let mut trainer = start(&config, device, &batches, &batches);
        let by_name: BTreeMap<String, Vec<f32>> =
            trainer.initial_snapshot().tensors.into_iter().map(|tensor| (tensor.name, tensor.data)).collect();
        assert_eq!(by_name["embedding.weight"], by_name["head.weight"]);
        assert_ne!(by_name["blocks.0.moe.experts.up.weight"], by_name["blocks.1.moe.experts.up.weight"]);
        // What the device was given is what a roll-back to the start would give it.
        let names: Vec<String> = trainer.expected().tensors.into_iter().map(|(name, _)| name).collect();
        let found = download(&mut trainer, &names);
        for (name, bytes) in names.iter().zip(found) {
            assert_eq!(bytemuck::cast_slice::<u8, f32>(&bytes), by_name[name], "{name}");
        }
    });
}
