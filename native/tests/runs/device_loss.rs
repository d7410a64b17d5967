//! Runs of the app whose device is lost: in a step, while a checkpoint is saved, while the run is opened, and for good.

use std::{cell::RefCell, collections::VecDeque, fs, path::Path, rc::Rc};

use moelab::{
    data::{Corpus, tokenizer::Tokenizer},
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Activity, Clock, DeviceFuture, Environment},
        store::{Store, StoreError},
        workspace::{Reply, Request},
        workspace_host::{Places, Workspace},
    },
    run::{
        Config,
        protocol::{Command, OpeningPhase, Problem, SessionEvent, Subscription},
        records::Incident,
        summary::{ExitReason, Summary},
    },
};
use moelab_native::{
    folders::Folders,
    machine::{Machine, Resources},
    places::Runs,
};

use crate::log::{current, without_time};

const UPDATES: u32 = 20;
/// Most updates made again in these runs; those of the app allow more.
const MOST: u32 = 3;

/// When a device is lost.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// Once this update was reported, with the next ones in flight.
    After(u32),
    /// At the first write to the checkpoint of this update.
    Saving(u32),
    /// When so many kernels are compiled.
    Compiling(u32),
    /// As soon as it is opened, always.
    Opened,
}

/// The newest device, and what is to happen to it, in this order.
#[derive(Default)]
struct Pending {
    device: Option<Rc<Device>>,
    faults: VecDeque<When>,
}

/// The same, shared by what sees the moments.
#[derive(Clone)]
struct Faults(Rc<RefCell<Pending>>);

impl Faults {
    /// Loses the device if that is what comes next.
    fn at(&self, when: When) {
        let Pending { device, faults } = &mut *self.0.borrow_mut();
        if faults.front() == Some(&when) {
            device.iter().for_each(|device| device.destroy());
            if when != When::Opened {
                faults.pop_front();
            }
        }
    }
}

/// The app's directory of runs, with devices that are lost.
struct Disturbed(Runs, Faults);

struct Environs(Machine, Faults);

impl Environment for Environs {
    fn device(&mut self) -> DeviceFuture {
        let (opening, faults) = (self.0.device(), self.1.clone());
        Box::pin(async move {
            let device = opening.await?;
            faults.0.borrow_mut().device = Some(device.clone());
            faults.at(When::Opened);
            Ok(device)
        })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        self.0.corpus(config, own)
    }

    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        Ok(Box::new(Disk(self.0.store(run)?, self.1.clone())))
    }

    fn clock(&self) -> Clock {
        self.0.clock()
    }

    fn tag(&self) -> String {
        self.0.tag()
    }

    fn most_repeated_updates(&self) -> Option<u32> {
        self.0.most_repeated_updates().map(|most| most.min(MOST))
    }
}

/// The folder of a run.
struct Disk(Box<dyn Store>, Faults);

impl Store for Disk {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read(path)
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(update) =
            path.strip_prefix("checkpoints/").and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).find(|t| !t.is_empty()))
        {
            self.1.at(When::Saving(update.parse().unwrap()));
        }
        self.0.write(path, bytes)
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.append(path, bytes)
    }

    fn sync(&mut self, path: &str) -> Result<(), StoreError> {
        self.0.sync(path)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        self.0.rename(from, to)
    }

    fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        self.0.remove(path)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.0.list(folder)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.0.free_bytes()
    }
}

impl Places for Disturbed {
    type Environment = Environs;
    type Folders = Folders;

    fn environment(&self, study: Option<&str>, sharing: Option<&Environs>) -> Environs {
        Environs(self.0.environment(study, sharing.map(|other| &other.0)), self.1.clone())
    }

    fn study(&self, name: &str, for_writing: bool) -> Result<Folders, StoreError> {
        self.0.study(name, for_writing)
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        self.0.names()
    }

    fn folder(&self, path: &str) -> Result<Option<Box<dyn Store>>, StoreError> {
        self.0.folder(path)
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.0.remove(name)
    }

    fn seconds_since_1970() -> f64 {
        Runs::seconds_since_1970()
    }
}

/// Trains in the workspace of the app; returns its events and the end.
fn train(root: &Path, run: &str, faults: &[When]) -> (Vec<SessionEvent>, Option<Summary>) {
    let faults = Faults(Rc::new(RefCell::new(Pending { faults: faults.iter().copied().collect(), ..Pending::default() })));
    let places = Runs::new(root, Resources { adapter: AdapterChoice::default(), cache: root.join("cache") });
    let mut workspace = Workspace::new(Disturbed(places, faults.clone()));
    let config = format!("{}tokens = 3\n", include_str!("../../../tests/helpers/tiny.toml").replace("[]", "[\"ab\"]"));
    let sets = vec![format!("train.updates={UPDATES}"), "train.checkpoint.every=0".into(), "train.evaluation.every=7".into()];
    let subscription = Subscription { series: vec!["train_ce".into()], ..Subscription::default() };
    for command in [Command::Subscribe(subscription), Command::Start { run: run.into(), config, sets }] {
        workspace.send(Request::Session { command });
    }
    let mut events = Vec::new();
    loop {
        let (replies, activity) = workspace.advance(0.0);
        if replies.is_empty() && activity == Activity::Waiting {
            workspace.wait();
        }
        for reply in replies {
            let Reply::Session { event, .. } = reply else { continue };
            match &event {
                SessionEvent::Series(block) => block.updates.iter().for_each(|update| faults.at(When::After(*update))),
                SessionEvent::Opening { phase: OpeningPhase::Kernels, done, .. } => faults.at(When::Compiling(*done)),
                SessionEvent::Ended(summary) => {
                    let summary = (**summary).clone();
                    events.push(event);
                    return (events, Some(summary));
                }
                SessionEvent::Failed(problem) => {
                    println!("{problem}");
                    events.push(event);
                    return (events, None);
                }
                _ => {}
            }
            events.push(event);
        }
    }
}

#[test]
fn a_lost_device_costs_a_run_of_the_app_a_few_updates_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let app = Runs::new(root, Resources { adapter: AdapterChoice::default(), cache: root.join("cache") });
    assert_eq!(app.environment(None, None).most_repeated_updates(), Some(50), "of the app itself");
    let (events, straight) = train(root, "straight", &[]);
    let straight = straight.unwrap();
    assert_eq!(straight.exit, ExitReason::Completed);
    let saved = |event: &SessionEvent| if let SessionEvent::Saved { update, .. } = event { Some(*update) } else { None };
    let saved: Vec<u32> = events.iter().filter_map(saved).collect();
    assert_eq!(saved, [3, 6, 7, 10, 13, 14, 17, 20], "checkpoints are close enough to each other, although the config wants none");

    let (events, summary) = train(root, "lost", &[When::Compiling(2), When::After(11), When::Saving(17)]);
    let summary = summary.unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!((summary.exit, &summary.weights_sha256), (ExitReason::Completed, &straight.weights_sha256));
    let log = |run: &str| current(&fs::read_to_string(root.join(run).join("metrics.jsonl")).unwrap()).unwrap();
    let (incidents, rest): (Vec<String>, Vec<String>) =
        log("lost").lines().map(|line| format!("{line}\n")).partition(|line| line.contains("\"device_lost\""));
    assert_eq!(without_time(&rest.concat()).unwrap(), without_time(&log("straight")).unwrap(), "the same losses");
    let told = |event: &SessionEvent| match event {
        SessionEvent::Incident(record) if record.incident == Incident::DeviceLost => Some((record.update, record.detail.clone())),
        _ => None,
    };
    let told: Vec<(u32, String)> = events.iter().filter_map(told).collect();
    assert_eq!((incidents.len(), told.len(), told[0].0, told[1].0), (2, 2, 10, 14), "{told:?}");
    assert!(told[0].1.contains("update 11 is made again") && told[1].1.contains("updates 15 to 17 are made again"), "{told:?}");

    // A device that does not come back: after a few tries the run ends, with its checkpoints.
    let (events, summary) = train(root, "gone", &[When::After(4), When::Opened]);
    let problem = if let Some(SessionEvent::Failed(problem)) = events.last() { problem } else { panic!("{summary:?}") };
    assert_eq!(problem.reason, ExitReason::DeviceLost);
    let opened = events.iter().filter(|event| matches!(event, SessionEvent::Opening { phase: OpeningPhase::Device, .. })).count();
    assert_eq!(opened, 6, "one and five tries");
}
