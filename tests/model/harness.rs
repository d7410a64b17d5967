//! A device for the binary, configs from text, and trainers driven to their end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
};

use moelab::{
    data::{Corpus, dataset::Batch},
    gpu::{AdapterChoice, Capabilities, Device, Memory, PlanOptions},
    run::{
        Config,
        checkpoint::{NamedTensor, Snapshot},
        config::load,
        records::{EvalRecord, IncidentRecord, UpdateRecord},
    },
    train::{
        generate::{Generation, Generator},
        trainer::{Progress, Trainer},
    },
};

use crate::checkpoints::weights_sha256;

/// A device of the adapter; its tier can be set.
pub fn device(tier: Capabilities) -> Rc<Device> {
    let mut device = pollster::block_on(Device::open(&AdapterChoice::Best)).expect("a Vulkan driver (cargo xtask setup)");
    device.capabilities = tier;
    Rc::new(device)
}

/// The tiers that the adapter runs.
pub fn tiers() -> Vec<Capabilities> {
    let own = pollster::block_on(Device::open(&AdapterChoice::Best)).expect("a Vulkan driver").capabilities;
    if own == Capabilities::PORTABLE { vec![own] } else { vec![Capabilities::PORTABLE, own] }
}

/// Runs `job` on a device that all callers share, on the thread that owns it, so that kernels are compiled once for the
/// whole binary. A panic of the job becomes the caller's.
pub fn on_shared_device(job: impl FnOnce(&Rc<Device>) + Send + 'static) {
    type Job = Box<dyn FnOnce(&Rc<Device>) + Send>;
    static JOBS: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            let device = device(*tiers().last().expect("every adapter has a tier"));
            jobs.into_iter().for_each(|job| job(&device));
        });
        Mutex::new(sender)
    });
    let (done, outcome) = mpsc::channel();
    let job: Job = Box::new(move |device| {
        let _ = done.send(catch_unwind(AssertUnwindSafe(|| job(device))));
    });
    jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job).expect("the thread of the device waits for jobs");
    if let Err(panic) = outcome.recv().expect("the job answers") {
        // What the thread itself printed went to the output of the test that started it.
        let told = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        panic!("{}", told.unwrap_or("a panic without a message"));
    }
}

/// A config with a vocabulary of its own: these tests feed tokens, not text.
pub fn config(text: &str, vocabulary: u32) -> Config {
    let text = text.to_string();
    let mut config = load(&move |_| Ok(text.clone()), "test.toml", &[]).unwrap_or_else(|p| panic!("{p}"));
    config.model.vocabulary = vocabulary;
    config
}

/// A small System A model without dropout and noise.
pub const SMALL: &str = r#"
seed = 3
[model]
width = 64
context = 32
depth.layers = 2
attention.heads = 4
ffn.width = 64
router = { experts = 4, top_k = 2, noise = 0.0 }
dropout = { embedding = 0.0, attention = 0.0, residual = 0.0, ffn = 0.0, head = 0.0 }
[data]
sequence_length = 32
batch = 4
[train]
updates = 10
micro_batches = 1
evaluation.every = 0
[schedule]
kind = "constant"
warmup = 0
"#;

/// One batch of a rule with some noise.
pub fn batch(config: &Config, seed: u64) -> Batch {
    use moelab::random::Stream;
    let (b, t, v) = (config.data.batch, config.data.sequence_length, config.model.vocabulary);
    let mut batch = Batch { tokens: vec![], targets: vec![] };
    let stream = Stream { seed, step: 0, stream: 0 };
    for sequence in 0..b {
        let mut token = stream.bits(sequence)[0] % v;
        for position in 0..t {
            let draw = stream.bits(b + sequence * t + position);
            let next = if draw[0] % 10 < 9 { (token * 3 + 1) % v } else { draw[1] % v };
            batch.tokens.push(token);
            batch.targets.push(next);
            token = next;
        }
    }
    batch
}

/// What a finished run gave.
#[derive(Default)]
pub struct Ran {
    pub updates: Vec<UpdateRecord>,
    pub evals: Vec<EvalRecord>,
    pub incidents: Vec<IncidentRecord>,
    pub weights_sha256: String,
}

pub fn trainer(config: &Config, device: &Rc<Device>, corpus: Corpus, options: PlanOptions) -> Trainer {
    Trainer::new(config.clone(), device.clone(), corpus, options).unwrap_or_else(|e| panic!("{e}"))
}

/// The current values of parameters, moments or states of a trainer, by name.
pub fn download(trainer: &mut Trainer, names: &[String]) -> Vec<Vec<u8>> {
    let (device, memory) = trainer.device_and_memory();
    memory.download(device, names).wait(device).unwrap()
}

/// All that a checkpoint of a trainer holds.
pub fn snapshot(trainer: &mut Trainer) -> Snapshot {
    let expected = trainer.expected();
    let mut named = |specs: Vec<(String, Vec<usize>)>| -> Vec<NamedTensor> {
        let names: Vec<String> = specs.iter().map(|(name, _)| name.clone()).collect();
        let data = download(trainer, &names).into_iter().map(|bytes| bytemuck::pod_collect_to_vec(&bytes));
        specs.into_iter().zip(data).map(|((name, shape), data)| NamedTensor { name, shape, data }).collect()
    };
    let (tensors, optimizer) = (named(expected.tensors), named(expected.optimizer));
    Snapshot { tensors, optimizer, state: trainer.state().clone() }
}

/// Gives a trainer the tensors of a snapshot.
pub fn write_tensors(trainer: &mut Trainer, snapshot: &Snapshot) {
    for tensor in snapshot.tensors.iter().chain(&snapshot.optimizer) {
        trainer.write_tensor(&tensor.name, 0, bytemuck::cast_slice(&tensor.data));
    }
}

/// Takes a trainer to a snapshot.
pub fn restore(trainer: &mut Trainer, snapshot: &Snapshot) {
    write_tensors(trainer, snapshot);
    trainer.restore_state(&snapshot.state);
}

/// Generates a text to its end.
pub fn finish(generator: &mut Generator, device: &Rc<Device>, memory: &mut Memory, text: &mut Generation) {
    while !text.is_done() {
        text.wait(device).unwrap();
        generator.advance(device, memory, text).unwrap();
    }
}

/// Drives a trainer until it is done.
pub fn drive(trainer: &mut Trainer) -> Ran {
    let mut ran = Ran::default();
    loop {
        let progress = trainer.advance().unwrap_or_else(|e| panic!("{e}"));
        if progress.is_empty() {
            trainer.wait().unwrap();
        }
        for p in progress {
            match p {
                Progress::Update(record) => ran.updates.push(record),
                Progress::Eval(record) | Progress::Requested(record) => ran.evals.push(record),
                Progress::CheckpointDue => {
                    ran.weights_sha256 = weights_sha256(&snapshot(trainer).tensors);
                }
                Progress::Done { .. } => return ran,
                Progress::Incident(record) => ran.incidents.push(record),
                Progress::WantsRollback => {}
            }
        }
    }
}
