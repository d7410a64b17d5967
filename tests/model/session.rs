//! A whole run in a folder in memory: what its log, its checkpoints, its samples and its summary say of each other.

use std::{cell::Cell, rc::Rc};

use moelab::{
    data::{Corpus, dataset::Dataset, tokenizer::Tokenizer},
    gpu::{Device, PlanOptions},
    lab::{
        host::{Activity, Clock, DeviceFuture, Environment, Host},
        memory::Memory,
        run_folder::RunFolder,
        store::Store,
    },
    run::{
        Config,
        config::load,
        protocol::{Command, Problem, SampleRequest, SessionEvent, Subscription},
        records::{EvalRecord, Event, SampleRecord},
        summary::{ExitReason, Summary},
    },
    train::generate::{Generator, Sampling},
};

use crate::{
    checkpoints::{load_newest, weights_sha256},
    harness::{finish, on_shared_device, restore, trainer},
    log::without_time,
};

const RUN: &str = r#"
seed = 9
[model]
width = 16
context = 16
depth.layers = 1
attention.heads = 2
ffn.width = 16
vocabulary = 256
router = { experts = 2, top_k = 1, noise = 0.1 }
init.std = 0.1
[data]
sequence_length = 16
batch = 2
[train]
updates = 7
micro_batches = 2
evaluation = { every = 2, windows = 4 }
checkpoint = { every = 3, keep = 1 }
[optimizer]
adamw.lr = 0.05
muon.lr = 0.05
[schedule]
kind = "constant"
warmup = 0
[sample]
prompts = ["ab", "ab"]
tokens = 12
temperature = 1.0
top_p = 0.9
"#;

fn config() -> Config {
    load(&|_| Ok(RUN.to_string()), "run.toml", &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn corpus(config: &Config) -> Corpus {
    let data = Dataset::from_language(Tokenizer::bytes(), &config.data, config.seed, config.train.evaluation.windows).unwrap();
    Corpus::Dataset(Box::new(data))
}

/// What a run of these tests needs: the tests' device, a store in memory, a clock that a test moves.
struct Bench {
    device: Rc<Device>,
    store: Memory,
    now: Rc<Cell<f64>>,
}

impl Environment for Bench {
    fn device(&mut self) -> DeviceFuture {
        let device = self.device.clone();
        Box::pin(async { Ok(device) })
    }

    fn corpus(&mut self, config: Config, _: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        let corpus = corpus(&config);
        Ok((config, corpus))
    }

    fn store(&mut self, _: &str) -> Result<Box<dyn Store>, Problem> {
        Ok(Box::new(self.store.clone()))
    }

    fn clock(&self) -> Clock {
        let now = self.now.clone();
        Rc::new(move || now.get())
    }

    fn tag(&self) -> String {
        "test".into()
    }
}

fn host(device: &Rc<Device>, store: &Memory, now: &Rc<Cell<f64>>) -> Host<Bench> {
    Host::new(Bench { device: device.clone(), store: store.clone(), now: now.clone() })
}

/// Drives a host until it has told of something that `wanted` picks.
fn until<T>(host: &mut Host<Bench>, mut wanted: impl FnMut(&SessionEvent) -> Option<T>) -> T {
    loop {
        let (events, activity) = host.advance(0.0);
        for event in &events {
            if let SessionEvent::Failed(problem) = event {
                panic!("{problem}");
            }
            if let Some(found) = wanted(event) {
                return found;
            }
        }
        match activity {
            Activity::Busy => {}
            Activity::Waiting => host.wait(),
            Activity::Idle => panic!("the host waits for a command; it told {events:?}"),
        }
    }
}

fn ended(event: &SessionEvent) -> Option<Summary> {
    if let SessionEvent::Ended(summary) = event { Some(summary.as_ref().clone()) } else { None }
}

/// Drives a run to its end.
fn run(config: &Config, device: &Rc<Device>, store: &Memory) -> Summary {
    let mut host = host(device, store, &Rc::default());
    host.send(Command::Start { run: "run".into(), config: config.to_effective_toml(), sets: Vec::new() });
    until(&mut host, ended)
}

#[test]
fn log_checkpoints_samples_and_summary_agree() {
    on_shared_device(|device| {
        let (config, store) = (config(), Memory::default());
        let summary = run(&config, device, &store);
        let folder = RunFolder::open(Box::new(store.clone()), "reader").unwrap();
        let events: Vec<Event> = folder.reader().unwrap().events().map(Result::unwrap).collect();

        let evals: Vec<&EvalRecord> = events.iter().filter_map(|e| if let Event::Eval(record) = e { Some(record) } else { None }).collect();
        assert_eq!(evals.iter().map(|e| e.update).collect::<Vec<_>>(), [2, 4, 6, 7]);
        let best = evals.iter().min_by(|a, b| a.val_ce.total_cmp(&b.val_ce)).unwrap();
        assert_eq!((summary.best_update, summary.best_val_ce), (Some(best.update), Some(best.val_ce)));
        assert_eq!((summary.final_val_ce, summary.exit), (Some(evals[3].val_ce), ExitReason::Completed));
        // 2 micro-batches of 2 sequences of 16 tokens.
        assert_eq!((summary.updates, summary.tokens), (7, 7 * 64));

        // One newest and the best are kept.
        let mut wanted =
            vec!["best".to_string(), "latest".to_string(), format!("update-{:08}", best.update), "update-00000007".to_string()];
        wanted.dedup();
        assert_eq!(store.list("checkpoints").unwrap(), wanted);
        let mut trainer = trainer(&config, device, corpus(&config), PlanOptions::default());
        let newest = load_newest(&folder, &trainer.expected()).unwrap().unwrap().snapshot;
        let kept = folder.load_best(&trainer.expected()).unwrap().unwrap().snapshot;
        assert_eq!((newest.state.update, kept.state.update), (7, best.update));
        assert_eq!(summary.weights_sha256.clone(), weights_sha256(&newest.tensors).into());

        // The same prompt twice, each text with random numbers of its own, drawn from the last weights.
        let samples: Vec<&SampleRecord> =
            events.iter().filter_map(|e| if let Event::Sample(record) = e { Some(record) } else { None }).collect();
        restore(&mut trainer, &newest);
        let (device, memory) = trainer.device_and_memory();
        let tokenizer = Tokenizer::bytes();
        let mut generator = Generator::new(&config, device, memory).unwrap().for_text(&tokenizer, &config);
        for (number, sample) in samples.iter().enumerate() {
            // A text starts as a document does, after the end of another.
            let mut text = generator.start(vec![0, b'a'.into(), b'b'.into()], 12, Sampling { temperature: 1.0, top_p: 0.9 }, number as u32);
            finish(&mut generator, device, memory, &mut text);
            assert_eq!((sample.update, &sample.text), (7, &tokenizer.decode(text.continuation())), "text {number}");
        }
        assert!(samples.len() == 2 && samples[0].text != samples[1].text);
    });
}

/// Every way to disturb a run that is not to change it, one after another; then it is resumed from where it was stopped.
#[test]
fn pauses_steps_and_requests_change_no_bit_of_a_run() {
    on_shared_device(|device| {
        let (config, store, undisturbed) = (config(), Memory::default(), Memory::default());
        let wanted = run(&config, device, &undisturbed);
        let now = Rc::default();
        let mut host = host(device, &store, &now);
        let paused = |event: &SessionEvent| if let SessionEvent::Paused { update } = event { Some(*update) } else { None };
        let series = vec!["train_ce".to_string()];
        host.send(Command::Subscribe(Subscription { series, ..Subscription::default() }));
        let rejected = |event: &SessionEvent| if let SessionEvent::Rejected { command, .. } = event { Some(command.clone()) } else { None };
        host.send(Command::Step);
        assert_eq!(until(&mut host, rejected), "step", "there is no run yet");
        host.send(Command::Start { run: "run".into(), config: config.to_effective_toml(), sets: Vec::new() });
        host.send(Command::Pause);
        assert_eq!(until(&mut host, paused), 0, "a command to a run that is being opened waits");
        host.send(Command::Save);
        assert_eq!(until(&mut host, rejected), "save", "there is nothing to save");
        // Before the first update, so that the weights are those that the seed gives: a cross-entropy of about ln 256.
        host.send(Command::Evaluate);
        let evaluated = |event: &SessionEvent| match event {
            SessionEvent::Evaluated { record, requested: true } => Some((record.update, record.val_ce)),
            _ => None,
        };
        let (update, val_ce) = until(&mut host, evaluated);
        assert!(update == 0 && (val_ce - 256f64.ln()).abs() < 0.5, "{val_ce}");
        host.send(Command::Step);
        host.send(Command::Step);
        host.send(Command::Step);
        let mut updates = Vec::new();
        let stepped = until(&mut host, |event| {
            if let SessionEvent::Series(block) = event {
                updates.extend(block.updates.iter().copied());
            }
            paused(event)
        });
        assert_eq!((stepped, updates), (3, vec![1, 2, 3]), "three steps are three updates");
        // Twice the same text, and another; the third update has a checkpoint by schedule, the fourth has none.
        let sample = |number| Command::Sample(SampleRequest { prompt: "ab".into(), tokens: Some(5), number, ..SampleRequest::default() });
        [0, 0, 1].into_iter().for_each(|number| host.send(sample(number)));
        let mut texts = Vec::new();
        until(&mut host, |event| {
            if let SessionEvent::Sampled { record, requested: true } = event {
                texts.push((record.update, record.text.clone()));
            }
            (texts.len() == 3).then_some(())
        });
        assert!(texts[0] == texts[1] && texts[0].1 != texts[2].1 && texts[0].0 == 3, "{texts:?}");
        // A pause of an hour is in no time of the run.
        now.set(now.get() + 3600.0);
        host.send(Command::Step);
        host.send(Command::Save);
        let mut seconds = None;
        let saved = until(&mut host, |event| match event {
            SessionEvent::Series(block) => {
                seconds = Some(block.times[0].seconds);
                None
            }
            SessionEvent::Saved { update, .. } => Some(*update),
            _ => None,
        });
        assert_eq!((seconds, saved, until(&mut host, paused)), (Some(0.0), 4, 4), "requests follow the steps before them");
        // The schedule has evaluations after updates 2 and 4; the one that is asked for after 5 is none of early stopping's.
        [Command::Step, Command::Evaluate, Command::Save].into_iter().for_each(|command| host.send(command));
        assert_eq!(until(&mut host, evaluated).0, 5);
        until(&mut host, paused);
        let state = store.read("checkpoints/update-00000005/state.json").unwrap().expect("it was saved");
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        let best = state["best"]["update"].as_u64().unwrap();
        assert!(best == 2 || best == 4, "{state}");
        assert_eq!(state["evaluations_since_best"], (4 - best) / 2, "{state}");
        // While it runs as well: the update after which the request is followed is whichever is newest.
        host.send(Command::Continue);
        host.send(Command::Evaluate);
        host.send(sample(7));
        let mut requested = 0;
        until(&mut host, |event| {
            requested +=
                u32::from(matches!(event, SessionEvent::Evaluated { requested: true, .. } | SessionEvent::Sampled { requested: true, .. }));
            (requested == 2).then_some(())
        });
        host.send(Command::Stop);
        let stopped = until(&mut host, ended);
        assert_eq!(stopped.exit, ExitReason::Interrupted);
        assert!(stopped.updates < 7, "it was stopped on its way");
        host.send(Command::Resume { run: "run".into(), sets: Vec::new(), allow: Vec::new() });
        let (mut announced, mut generated) = (None, 0);
        let found = until(&mut host, |event| {
            match event {
                SessionEvent::Finishing { texts } => announced = Some(*texts),
                SessionEvent::Sampled { requested: false, .. } => generated += 1,
                _ => {}
            }
            ended(event)
        });
        assert_eq!(
            (announced, generated),
            (Some(generated), config.sample.prompts.len() as u32),
            "texts are announced after the last update"
        );
        assert_eq!(Summary { name: String::new(), ..found }, Summary { name: String::new(), ..wanted });
        let log = |store: &Memory| without_time(&String::from_utf8(store.read("metrics.jsonl").unwrap().unwrap()).unwrap()).unwrap();
        assert_eq!(log(&store), log(&undisturbed), "what was asked for is in no log");
    });
}

/// A host that is dropped is a process that is killed: what it told of after its newest checkpoint is taken back when the run is resumed.
#[test]
fn a_resumed_run_says_what_it_went_back_on() {
    on_shared_device(|device| {
        let (config, store, now) = (config(), Memory::default(), Rc::default());
        let mut killed = host(device, &store, &now);
        killed.send(Command::Subscribe(Subscription { records: true, ..Subscription::default() }));
        let sets = vec!["train.evaluation.every=0".to_string(), "train.checkpoint.every=4".to_string()];
        killed.send(Command::Start { run: "run".into(), config: config.to_effective_toml(), sets });
        until(&mut killed, |event| if let SessionEvent::Update(record) = event { (record.update == 6).then_some(()) } else { None });
        drop(killed);
        let mut host = host(device, &store, &now);
        host.send(Command::Resume { run: "run".into(), sets: Vec::new(), allow: Vec::new() });
        let mut resumed_from = None;
        let rewound = until(&mut host, |event| match event {
            SessionEvent::Opened(opened) => {
                resumed_from = Some(opened.update);
                None
            }
            SessionEvent::Rewound(record) => Some(*record),
            _ => None,
        });
        assert_eq!((resumed_from, rewound.to, rewound.lines), (Some(4), 4, u64::from(rewound.from - 4)));
        assert!(rewound.from >= 6, "{rewound:?}");
    });
}
