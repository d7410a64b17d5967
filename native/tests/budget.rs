//! How long a call of the host takes: the quickstart, with evaluations and checkpoints on a disk.
//!
//! A test program of its own: in one process with other tests it would wait for their use of the driver.

use std::{collections::BTreeMap, fs, path::Path, rc::Rc, sync::LazyLock, time::Instant};

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

/// Given to each call.
const BUDGET_SECONDS: f64 = 0.02;
/// Most that a call of an open run takes beyond its budget: one slice, in a build without optimization, for which the largest is to draw
/// the plot as PNG.
const SLICE_SECONDS: f64 = 0.28;

/// Seconds in which this thread computed or was blocked. Those in which it waited for a processor that other tests had are none of the
/// host's; where the system does not tell of them, there are none.
fn seconds() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let queued = times.split_whitespace().nth(1).and_then(|nanoseconds| nanoseconds.parse::<f64>().ok());
    START.elapsed().as_secs_f64() - 1e-9 * queued.unwrap_or_default()
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
        Some(raster::png)
    }
}

#[test]
fn no_call_takes_much_longer_than_its_budget() {
    let config = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/quickstart.toml")).unwrap();
    let mut host = Host::new(Disk(tempfile::tempdir().unwrap()));
    let sets =
        ["train.updates=6", "train.evaluation.every=2", "train.evaluation.windows=16", "train.checkpoint.every=2", "sample.tokens=4"];
    host.send(Command::Start { run: "run".into(), config, sets: sets.map(str::to_string).to_vec() });
    let mut longest: BTreeMap<String, f64> = BTreeMap::new();
    let (mut phase, mut saved, mut is_over) = ("start".to_string(), 0, false);
    while !is_over {
        let start = seconds();
        let (events, activity) = host.advance(BUDGET_SECONDS);
        let seconds = seconds() - start;
        let before = phase.clone();
        for event in events {
            match event {
                // The call that tells of a phase may have worked on it.
                SessionEvent::Opening { phase: next, .. } => phase = format!("{next:?}"),
                SessionEvent::Opened(_) => phase = "open".into(),
                SessionEvent::Saved { .. } => saved += 1,
                SessionEvent::Ended(_) => is_over = true,
                SessionEvent::Failed(problem) => panic!("{problem}"),
                _ => {}
            }
        }
        let most = longest.entry(before).or_default();
        *most = most.max(seconds);
        if activity == Activity::Waiting {
            host.wait();
        }
    }
    let table: Vec<String> = longest.iter().map(|(phase, seconds)| format!("{phase} {:.1} ms", 1e3 * seconds)).collect();
    println!("budget {:.0} ms; longest call by phase: {}", 1e3 * BUDGET_SECONDS, table.join(", "));
    assert!(saved >= 3);
    assert!(longest["open"] < BUDGET_SECONDS + SLICE_SECONDS, "{longest:?}");
}
