//! A study that is driven by messages on one slot, with real runs, its files in a log: paused, killed, and judged.

use std::{collections::BTreeMap, rc::Rc, time::Instant};

use moelab::{
    data::{
        Corpus,
        prepare::{NoFiles, Purpose, corpus},
        tokenizer::Tokenizer,
    },
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Activity, Clock, DeviceFuture, Environment},
        store::Store,
        stored_log::{Folders, Log},
        suite::{SuiteCommand, SuiteEvent, SuiteStore},
        suite_host::SuiteHost,
    },
    run::{Config, protocol::Problem},
};

use crate::{
    stored_log::File,
    tiny_study::{BASE, STUDY},
};

struct Bench {
    device: Rc<Device>,
    folders: Folders,
}

impl Environment for Bench {
    fn device(&mut self) -> DeviceFuture {
        let device = self.device.clone();
        Box::pin(async { Ok(device) })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        corpus(config, own, Purpose::Train, &NoFiles).map_err(|error| Problem::new(error.to_string()))
    }

    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        Ok(self.folders.folder(run)?)
    }

    fn clock(&self) -> Clock {
        let start = Instant::now();
        Rc::new(move || start.elapsed().as_secs_f64())
    }

    fn tag(&self) -> String {
        "test".into()
    }
}

/// A host with its log, as a worker has them.
struct Worker {
    log: Log<File>,
    host: SuiteHost<Bench, Folders>,
    events: Vec<SuiteEvent>,
}

impl Worker {
    fn new(device: &Rc<Device>, media: &[File; 2]) -> Worker {
        let log = Log::open(media.clone(), None).unwrap();
        let bench = Bench { device: device.clone(), folders: log.folders() };
        let host = SuiteHost::new(bench, log.folders(), "tiny", || 0.0);
        Worker { log, host, events: Vec::new() }
    }

    fn send(&mut self, command: SuiteCommand) {
        self.host.send(command);
    }

    /// Works until it has told of what `wanted` picks. Every event is shown after its changes are stored.
    fn until<T>(&mut self, wanted: impl Fn(&SuiteEvent) -> Option<T>) -> T {
        loop {
            let (events, activity) = self.host.advance(0.0);
            self.log.save().unwrap();
            let found = events.iter().find_map(&wanted);
            self.events.extend(events);
            match (found, activity) {
                (Some(found), _) => return found,
                (None, Activity::Idle) => panic!("it waits after {:?}", self.events.last()),
                (None, Activity::Waiting) => self.host.wait(),
                (None, Activity::Busy) => {}
            }
        }
    }

    fn started(&self) -> Vec<String> {
        let started = |event: &SuiteEvent| if let SuiteEvent::RunStarted { run, .. } = event { Some(run.clone()) } else { None };
        self.events.iter().filter_map(started).collect()
    }

    fn ended(&self) -> BTreeMap<String, f64> {
        let ended = |event: &SuiteEvent| match event {
            SuiteEvent::RunEnded { run, val_ce: Some(val_ce), status, .. } if status.is_over() => Some((run.clone(), *val_ce)),
            _ => None,
        };
        self.events.iter().filter_map(ended).collect()
    }
}

fn open() -> SuiteCommand {
    let files = BTreeMap::from([("study.toml".to_string(), STUDY.to_string()), ("base.toml".into(), BASE.into())]);
    SuiteCommand::Open { study: "study.toml".into(), files }
}

fn judged(event: &SuiteEvent) -> Option<String> {
    if let SuiteEvent::Judged(judged) = event { Some(judged.text.clone()) } else { None }
}

fn is_paused(event: &SuiteEvent) -> Option<()> {
    matches!(event, SuiteEvent::Paused).then_some(())
}

/// Stopped while it is paused, a study ends with a checkpoint of the run that was under way, which goes on from there.
#[test]
fn a_paused_study_can_be_stopped_and_run_again() {
    let device = Rc::new(pollster::block_on(Device::open(&AdapterChoice::default())).unwrap());
    let mut worker = Worker::new(&device, &Default::default());
    let study = "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\nset = [\"train.updates=40\"]\n";
    let files = BTreeMap::from([("study.toml".to_string(), study.to_string()), ("base.toml".into(), BASE.into())]);
    worker.send(SuiteCommand::Open { study: "study.toml".into(), files });
    worker.send(SuiteCommand::Run { retry_failed: false });
    worker.until(|event| matches!(event, SuiteEvent::RunAdvanced { .. }).then_some(()));
    worker.send(SuiteCommand::Pause);
    worker.until(is_paused);
    worker.send(SuiteCommand::Stop);
    let ended = |event: &SuiteEvent| if let SuiteEvent::Ended { is_complete } = event { Some(*is_complete) } else { None };
    assert!(!worker.until(ended), "a run is left");
    assert!(worker.ended().is_empty(), "{:?}", worker.events);
    let told = worker.events.len();
    worker.send(SuiteCommand::Run { retry_failed: false });
    assert!(worker.until(ended), "{:?}", &worker.events[told..]);
    let resumed = |event: &SuiteEvent| matches!(event, SuiteEvent::RunStarted { is_resumed: true, until: 40, .. });
    assert!(worker.events[told..].iter().any(resumed), "{:?}", &worker.events[told..]);
    assert_eq!(worker.ended().len(), 1);
}

#[test]
fn a_study_pauses_survives_its_worker_and_gives_the_verdict_of_an_undisturbed_one() {
    let device = Rc::new(pollster::block_on(Device::open(&AdapterChoice::default())).unwrap());
    let mut straight = Worker::new(&device, &Default::default());
    straight.send(open());
    straight.send(SuiteCommand::Run { retry_failed: false });
    let verdict = straight.until(judged);
    let losses = straight.ended();
    assert_eq!(losses.len(), 9);
    assert!(verdict.contains("control: validation cross-entropy") && verdict.contains("top1"), "{verdict}");

    let media = <[File; 2]>::default();
    let mut first = Worker::new(&device, &media);
    first.send(open());
    first.send(SuiteCommand::Run { retry_failed: false });
    let update = |event: &SuiteEvent| if let SuiteEvent::RunAdvanced { update, .. } = event { Some(*update) } else { None };
    first.until(update);
    first.send(SuiteCommand::Pause);
    first.until(is_paused);
    // Nothing goes on while it is paused.
    let told = first.events.len();
    let (events, activity) = first.host.advance(0.01);
    assert_eq!((events, activity, first.events.len()), (Vec::new(), Activity::Idle, told));
    first.send(SuiteCommand::Run { retry_failed: false });
    first.send(SuiteCommand::Continue);
    let rejected = |event: &SuiteEvent| if let SuiteEvent::Rejected { command, .. } = event { Some(command.clone()) } else { None };
    assert_eq!(first.until(rejected), "run");
    // The worker is killed in the fourth run.
    first.until(|event| matches!(event, SuiteEvent::RunEnded { run, .. } if run == "control-s2").then_some(()));
    first.until(update);
    let made = first.ended();
    assert_eq!(made.keys().collect::<Vec<_>>(), ["control-s1", "control-s2", "none-s1", "top1-s1"]);
    drop(first);

    let mut second = Worker::new(&device, &media);
    second.send(SuiteCommand::Reopen);
    let over = second.until(|event| if let SuiteEvent::Opened { over, .. } = event { Some(*over) } else { None });
    assert_eq!(over, 4);
    second.send(SuiteCommand::Run { retry_failed: false });
    assert_eq!(second.until(judged), verdict);
    assert!(second.started().iter().all(|run| !made.contains_key(run)), "{:?}", second.started());
    assert_eq!(made.into_iter().chain(second.ended()).collect::<BTreeMap<_, _>>(), losses);
    second.send(SuiteCommand::Report);
    let files = second.until(|event| if let SuiteEvent::Reported { files } = event { Some(files.clone()) } else { None });
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..4], ["report.md", "report.html", "results.csv", "evaluations.csv"]);
    assert!(files[0].1.contains("Is one expert enough"), "{}", files[0].1);
    // It is over: to run it again makes nothing.
    let before = second.started().len();
    second.send(SuiteCommand::Run { retry_failed: false });
    assert_eq!((second.until(judged), second.started().len()), (verdict, before));
    assert!(second.log.folders().run("none-s3").unwrap().is_some());
}
