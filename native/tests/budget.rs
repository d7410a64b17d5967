//! How long a call of the host computes: the quickstart, with evaluations and checkpoints on a disk.
//!
//! A test program of its own: in one process with other tests it would share its driver with them.

#[path = "../../tests/helpers/skipped.rs"]
mod skipped;

use std::{collections::BTreeMap, fs, path::Path, rc::Rc, time::Instant};

use moelab::{
    data::{
        Corpus,
        prepare::{NoFiles, Purpose, corpus},
        tokenizer::Tokenizer,
    },
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Activity, Clock, DeviceFuture, Environment, Host, Rasterize},
        store::Store,
    },
    run::{
        Config,
        protocol::{Command, Problem, SessionEvent},
    },
};
use moelab_native::{raster, store::Directory};
use skipped::skipped;

/// Given to every second call; the others get none, so that each is a single slice.
const BUDGET_SECONDS: f64 = 0.02;
/// Most that a slice computes, but for those of the driver. The largest is to release the model's buffers when the run has ended.
const SLICE_SECONDS: f64 = if cfg!(debug_assertions) { 0.06 } else { 0.02 };
/// Slices of which each is one call of the driver: opening the device, compiling a pipeline.
const OF_THE_DRIVER: [&str; 2] = ["Device", "Kernels"];

/// Seconds for which this thread has computed. Waits for the disk, for the driver, and for a processor that others had are excluded, so
/// that the figures hold on a busy machine. `None` where the system does not tell.
fn computed() -> Option<f64> {
    let times = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(1e-9 * times.split_whitespace().next()?.parse::<f64>().ok()?)
}

struct Disk(tempfile::TempDir);

impl Environment for Disk {
    fn device(&mut self) -> DeviceFuture {
        Box::pin(async { Ok(Rc::new(Device::open(&AdapterChoice::default()).await?)) })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        corpus(config, own, Purpose::Train, &NoFiles).map_err(|error| Problem::new(error.to_string()))
    }

    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        Ok(Box::new(Directory::open(&self.0.path().join(run))?))
    }

    fn clock(&self) -> Clock {
        let start = Instant::now();
        Rc::new(move || start.elapsed().as_secs_f64())
    }

    fn tag(&self) -> String {
        "test".into()
    }

    fn rasterize(&self) -> Option<Rasterize> {
        Some(raster::raster)
    }
}

/// The longest call of a phase.
#[derive(Default)]
struct Longest {
    calls: usize,
    /// Seconds computed, and seconds beyond the budget.
    computed: f64,
    beyond: f64,
    /// Seconds passed.
    elapsed: f64,
    /// What the call that computed longest told of.
    events: Vec<String>,
}

/// The name of an event.
fn kind(event: &SessionEvent) -> String {
    serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_string()
}

#[test]
fn no_call_computes_for_longer_than_its_budget_and_a_slice() {
    let Some(_) = computed() else { return skipped("this system does not tell how long a thread has computed") };
    let config = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/quickstart.toml")).unwrap();
    let mut host = Host::new(Disk(tempfile::tempdir().unwrap()));
    let sets =
        ["train.updates=6", "train.evaluation.every=2", "train.evaluation.windows=16", "train.checkpoint.every=2", "sample.tokens=4"];
    host.send(Command::Start { run: "run".into(), config, sets: sets.map(str::to_string).to_vec() });
    let mut phases: BTreeMap<String, Longest> = BTreeMap::new();
    let (mut phase, mut saved, mut is_over) = ("Device".to_string(), 0, false);
    let (mut is_waiting, mut returned_again) = (false, 0);
    for budget in [0.0, BUDGET_SECONDS].into_iter().cycle() {
        // A call that has a budget may go on to the next phase, so those of the driver and the one before them get none.
        let budget = if phase == "Data" || OF_THE_DRIVER.contains(&&*phase) { 0.0 } else { budget };
        let (start, before) = (Instant::now(), computed().unwrap());
        let (events, activity) = host.advance(budget);
        let seconds = computed().unwrap() - before;
        let longest = phases.entry(phase.clone()).or_default();
        longest.calls += 1;
        if seconds > longest.computed {
            longest.computed = seconds;
            longest.events = events.iter().map(kind).collect();
        }
        longest.beyond = longest.beyond.max(seconds - budget);
        longest.elapsed = longest.elapsed.max(start.elapsed().as_secs_f64());
        for event in events {
            match event {
                SessionEvent::Opening { phase: next, .. } => phase = format!("{next:?}"),
                SessionEvent::Opened(_) => phase = "Open".into(),
                SessionEvent::Saved { .. } => saved += 1,
                SessionEvent::Ended(_) => is_over = true,
                SessionEvent::Failed(problem) => panic!("{problem}"),
                _ => {}
            }
        }
        if is_over {
            break;
        }
        // Called again while the device is at work, the host returns again instead of waiting for it.
        let was_waiting = std::mem::replace(&mut is_waiting, activity == Activity::Waiting);
        if was_waiting && is_waiting {
            returned_again += 1;
            is_waiting = false;
            host.wait();
        }
    }
    for (phase, Longest { calls, computed, beyond, elapsed, events }) in &phases {
        let [computed, beyond, elapsed] = [computed, beyond, elapsed].map(|seconds| 1e3 * seconds);
        println!(
            "{phase}: {calls} calls, the longest computed {computed:.1} ms ({beyond:.1} beyond its budget), telling of {events:?}, and took {elapsed:.1} ms"
        );
    }
    println!("the host returned {returned_again} times while the device was at work");
    assert!(saved >= 3);
    assert!(returned_again > 3, "{returned_again}");
    // One call for each pipeline.
    assert!(phases["Kernels"].calls > 30);
    for (phase, longest) in phases.iter().filter(|(phase, _)| !OF_THE_DRIVER.contains(&&***phase)) {
        assert!(longest.beyond < SLICE_SECONDS, "{phase}: {:.1} ms beyond the budget", 1e3 * longest.beyond);
    }
}
