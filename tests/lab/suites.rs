//! Studies: plans and what they refuse; and the coordinator over sessions that are pretended, so that hundreds of runs with faults and
//! kills take a moment.
//!
//! Long because all of it uses the same pretended sessions.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use moelab::{
    config_file::Unreadable,
    lab::{
        files::EFFECTIVE_CONFIG,
        memory::Memory,
        store::{Store, StoreError},
        suite::{Coordinator, DECISIONS, Options, Order, PLAN, RunStatus, SuiteEvent, SuiteFolder, SuiteStore, planned},
        verdict::Verdict,
    },
    random::philox4x32,
    run::{
        Config, config,
        protocol::{Command, Opened, Problem, SessionEvent},
        records::{self, EvalRecord, Event, Header, Time},
        suite::{self, Plan, Suite},
        summary::{ExitReason, Summary},
    },
};

const BASE: &str = "[model]\nvocabulary = 256\nwidth = 64\n[train]\nupdates = 40\nevaluation.every = 10\n";

fn files(study: &str) -> impl Fn(&str) -> Result<String, Unreadable> {
    let study = study.to_string();
    move |path| match path {
        "studies/study.toml" => Ok(study.clone()),
        "studies/base.toml" => Ok(BASE.into()),
        "studies/wide.toml" => Ok("extends = \"base.toml\"\nmodel.ffn.width = 512\n".to_string()),
        _ => Err("no such file".into()),
    }
}

fn read(study: &str) -> Suite {
    suite::load(&files(study), "studies/study.toml", &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn plan(study: &str) -> (Suite, Plan) {
    let suite = read(study);
    let plan = suite::plan(&suite, &files(study), "studies/study.toml").unwrap_or_else(|problem| panic!("{problem}"));
    (suite, plan)
}

fn refusal(study: &str) -> String {
    match suite::load(&files(study), "studies/study.toml", &[]) {
        Err(problems) => problems.to_string(),
        Ok(suite) => suite::plan(&suite, &files(study), "studies/study.toml").expect_err("it is refused").to_string(),
    }
}

const STUDY: &str = "question = \"Which?\"\nbase = \"base.toml\"\n";

#[test]
fn a_plan_has_a_line_for_each_arm_and_seed() {
    let text = format!(
        "{STUDY}repeats = 2\nseed = 7\n[arms]\nwide.file = \"wide.toml\"\nnone.set = [\"model.balance.coefficient=0.0\"]\n\
         [grid]\n\"optimizer.muon.lr\" = [0.003, 0.01]\n\"schedule.kind\" = [\"cosine\", \"linear\"]"
    );
    let (suite, plan) = plan(&text);
    let arms: Vec<&str> = plan.arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(
        arms,
        ["control", "none", "wide", "lr-0.003_kind-cosine", "lr-0.003_kind-linear", "lr-0.01_kind-cosine", "lr-0.01_kind-linear"]
    );
    assert_eq!(plan.runs.len(), 14);
    assert_eq!((plan.runs[7].id.as_str(), plan.runs[7].seed, plan.runs[7].index), ("control-s8", 8, 7));
    assert_eq!(plan.arms[2].changes, BTreeMap::from([("model.ffn.width".to_string(), "512".to_string())]));
    // A line is the config, on any machine and without the study's files.
    for (run, arm) in plan.runs.iter().zip(plan.arms.iter().cycle()) {
        let config = run.config().unwrap();
        assert_eq!(config, Config { seed: run.seed, ..arm.config.clone() });
        assert_eq!((run.tokens, run.updates), (config.tokens_per_update() * 40, 40));
    }
    let again = Plan::from_runs(&suite, plan.runs.clone()).unwrap();
    assert_eq!((again.runs, again.stages), (plan.runs.clone(), plan.stages.clone()));
    // The effective study is the study.
    assert_eq!(read(&suite.to_effective_toml()), suite);
}

#[test]
fn scaling_keeps_the_ratios_within_and_between_arms() {
    let text = format!(
        "{STUDY}[scale]\n\"model.ffn.width\" = 8\n\"optimizer.muon.lr\" = 2\n\"train.updates\" = 4\n[arms]\nwide.file = \"wide.toml\""
    );
    let (_, plan) = plan(&text);
    let widths: Vec<u32> = plan.arms.iter().map(|arm| arm.config.model.ffn.width).collect();
    assert_eq!(widths, [Config::default().model.ffn.width / 8, 64]);
    assert_eq!((plan.arms[1].config.optimizer.muon.lr, plan.arms[1].config.train.updates), (0.005, 10));
}

#[test]
fn what_cannot_be_compared_or_planned_is_refused() {
    for (study, wanted) in [
        ("base = \"base.toml\"", "a study has a question"),
        ("question = \"?\"", "the arms have no config"),
        (&format!("{STUDY}[arms]\nlong.set = [\"data.sequence_length=64\"]"), "EVAL MISMATCH"),
        (&format!("{STUDY}[arms]\nlong.set = [\"train.evaluation.windows=3\"]"), "`train.evaluation.windows` is 3, the control has 0"),
        (&format!("{STUDY}[arms]\na.set = [\"seed=3\"]"), "an arm cannot choose its seed"),
        (&format!("{STUDY}[arms]\n\"a/b\".set = []"), "cannot be the name of an arm"),
        (&format!("{STUDY}[arms]\na.set = [\"model.top=3\"]"), "unknown key `model.top`"),
        (&format!("{STUDY}[grid]\n\"model.top\" = [3]"), "`model.top` is not a key of a config"),
        (&format!("{STUDY}[grid]\n\"model.width\" = []"), "the grid has no value"),
        (
            &format!("{STUDY}[stages]\nscreen = 15"),
            "stage `screen` ends at update 15, where arm `control` is not evaluated, so that nothing could be decided: end it at 10 or 20",
        ),
        (&format!("{STUDY}[stages]\nscreen = 50"), "after the shortest arm"),
        (&format!("{STUDY}repeats = \"until\""), "`repeats` must be an integer from 1 to 1000, or \"until clear\""),
        (&format!("{STUDY}[scale]\n\"model.width\" = 0"), "cannot be divided by 0"),
        (&format!("{STUDY}[scale]\n\"schedule.kind\" = 2"), "is not the key of a number"),
        (&format!("{STUDY}[arms]\na.file = \"absent.toml\""), "no such file"),
    ] {
        let found = refusal(study);
        assert!(found.contains(wanted), "{study}\nwanted: {wanted}\nfound: {found}");
    }
    // With its reason, the study is run.
    let allowed = format!(
        "{STUDY}[arms]\nlong.set = [\"data.sequence_length=64\"]\n[overrides]\neval-mismatch = \"lengths are compared on purpose\""
    );
    assert_eq!(plan(&allowed).1.arms.len(), 2);
}

#[test]
fn a_thousand_runs_are_planned_in_seconds() {
    let values: Vec<String> = (1..=100).map(|value| format!("{:.4}", f64::from(value) / 1e4)).collect();
    let text = format!("{STUDY}repeats = 10\n[grid]\n\"optimizer.muon.lr\" = [{}]", values.join(", "));
    let start = std::time::Instant::now();
    let (_, plan) = plan(&text);
    assert_eq!(plan.runs.len(), 1010);
    // Two seconds in a release build; this one is not optimized, and the machine may be busy.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// The folders of a study in memory. Clones share them.
#[derive(Clone, Default)]
struct Folders {
    root: Memory,
    runs: Rc<RefCell<BTreeMap<String, Memory>>>,
}

impl SuiteStore for Folders {
    fn root(&self) -> &dyn Store {
        &self.root
    }

    fn root_mut(&mut self) -> &mut dyn Store {
        &mut self.root
    }

    fn run(&self, id: &str) -> Result<Option<Box<dyn Store>>, StoreError> {
        Ok(self.runs.borrow().get(id).map(|store| Box::new(store.clone()) as Box<dyn Store>))
    }

    fn run_mut(&mut self, id: &str) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(self.runs.borrow().get(id).expect("the run was made").clone()))
    }
}

/// What pretended runs do.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Fine,
    StopsEarly(u32),
    Diverges,
    Fails,
    LosesDevice,
}

type Loss = Box<dyn Fn(&str, u64, u32) -> f64>;

/// Pretends sessions: each order is carried out at once, and its events are returned.
struct World {
    folders: Folders,
    /// Validation loss of an arm with a seed after an update.
    loss: Loss,
    fate: Box<dyn Fn(&str) -> Fate>,
    /// How often each run was opened, and from which update to which.
    made: BTreeMap<String, Vec<(u32, u32)>>,
    /// The run in each slot, and where it is to pause.
    open: BTreeMap<usize, String>,
}

impl World {
    fn new(loss: impl Fn(&str, u64, u32) -> f64 + 'static) -> World {
        World {
            folders: Folders::default(),
            loss: Box::new(loss),
            fate: Box::new(|_| Fate::Fine),
            made: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    fn config(&self, run: &str) -> Config {
        let store = self.folders.runs.borrow()[run].clone();
        let text = String::from_utf8(store.read(EFFECTIVE_CONFIG).unwrap().unwrap()).unwrap();
        config::load(&|_: &str| Ok(text.clone()), "config.toml", &[]).unwrap()
    }

    fn updates_of(&self, run: &str) -> u32 {
        let store = self.folders.runs.borrow()[run].clone();
        let summary = store.read("summary.json").unwrap();
        summary.map_or(0, |bytes| serde_json::from_slice::<Summary>(&bytes).unwrap().updates)
    }

    /// Writes evaluations and summary of a run that makes updates up to `until`.
    fn advance(&mut self, run: &str, until: u32) -> Vec<SessionEvent> {
        let config = self.config(run);
        let (arm, from) = (run.rsplit_once("-s").unwrap().0.to_string(), self.updates_of(run));
        let mut store = self.folders.runs.borrow()[run].clone();
        let mut events = Vec::new();
        for update in (from + 1..=until).filter(|update| config.evaluation_due(*update)) {
            let val_ce = (self.loss)(&arm, config.seed, update);
            let record = EvalRecord {
                update,
                val_ce,
                targets: 512,
                time: Time { seconds: f64::from(update), ..Time::default() },
                ..EvalRecord::default()
            };
            store.append("metrics.jsonl", Event::Eval(record.clone()).to_line().as_bytes()).unwrap();
            events.push(SessionEvent::Evaluated { record: Box::new(record), requested: false });
        }
        self.made.entry(run.into()).or_default().push((from, until));
        events
    }

    fn end(&mut self, run: &str, exit: ExitReason, updates: u32) -> SessionEvent {
        let config = self.config(run);
        let arm = run.rsplit_once("-s").unwrap().0;
        let summary = Summary {
            schema: 1,
            name: run.into(),
            exit,
            detail: None,
            final_val_ce: (updates == config.train.updates).then(|| (self.loss)(arm, config.seed, updates)),
            best_val_ce: None,
            best_update: None,
            updates,
            skipped_updates: 0,
            rollbacks: 0,
            blew_up_at: None,
            routing_alarms: Default::default(),
            forced_balance: false,
            tokens: 0,
            tokens_per_second: None,
            adapter: "pretended".into(),
            driver: String::new(),
            weights_sha256: None,
            baselines: None,
            changes: Vec::new(),
            settings_sha256: BTreeMap::new(),
            config_sha256: String::new(),
            data_sha256: "data".into(),
            tokenizer_sha256: String::new(),
            epoch: None,
            version: String::new(),
        };
        let mut store = self.folders.runs.borrow()[run].clone();
        store.write("summary.json", summary.to_json().as_bytes()).unwrap();
        SessionEvent::Ended(Box::new(summary))
    }

    /// Carries out an order.
    fn follow(&mut self, Order { slot, command }: Order) -> Vec<SessionEvent> {
        match command {
            Command::Start { run, config, .. } => {
                assert!(!self.folders.runs.borrow().contains_key(&run), "{run} is started twice");
                let mut store = Memory::default();
                let header = Event::Header(Header { schema: records::SCHEMA, config: String::new() }).to_line();
                store.write(EFFECTIVE_CONFIG, config.as_bytes()).unwrap();
                store.write("metrics.jsonl", header.as_bytes()).unwrap();
                self.folders.runs.borrow_mut().insert(run.clone(), store);
                self.opened(slot, run)
            }
            Command::Resume { run, .. } => self.opened(slot, run),
            Command::Stop => match self.open.remove(&slot) {
                Some(run) => {
                    let updates = self.made[&run].last().map_or(0, |(_, until)| *until);
                    vec![self.end(&run, ExitReason::Interrupted, updates)]
                }
                None => Vec::new(),
            },
            Command::PauseAt { .. } | Command::Subscribe(_) => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    fn opened(&mut self, slot: usize, run: String) -> Vec<SessionEvent> {
        self.open.insert(slot, run.clone());
        let update = self.updates_of(&run);
        let opened = Opened {
            name: run.clone(),
            update,
            updates: 40,
            session: 0,
            adapter: String::new(),
            driver: String::new(),
            config: String::new(),
            baselines: None,
        };
        vec![SessionEvent::Opened(Box::new(opened))]
    }

    /// Lets the run in a slot proceed to where it pauses or ends.
    fn proceed(&mut self, slot: usize, until: u32) -> Vec<SessionEvent> {
        let run = self.open[&slot].clone();
        let total = self.config(&run).train.updates;
        match (self.fate)(&run) {
            Fate::Fine if until < total => {
                let mut events = self.advance(&run, until);
                events.push(SessionEvent::Paused { update: until });
                events
            }
            fate => {
                self.open.remove(&slot);
                let mut events = match fate {
                    Fate::Fine => self.advance(&run, total),
                    Fate::StopsEarly(update) => self.advance(&run, update),
                    _ => {
                        self.made.entry(run.clone()).or_default().push((0, 0));
                        Vec::new()
                    }
                };
                events.push(match fate {
                    Fate::Fine => self.end(&run, ExitReason::Completed, total),
                    Fate::StopsEarly(update) => self.end(&run, ExitReason::EarlyStopped, update),
                    Fate::Diverges => self.end(&run, ExitReason::Diverged, 5),
                    Fate::LosesDevice => self.end(&run, ExitReason::DeviceLost, 0),
                    Fate::Fails => SessionEvent::Failed(Box::new(Problem::new("the corpus is not there"))),
                });
                events
            }
        }
    }
}

fn coordinator(world: &World, suite: &Suite, plan: &Plan, options: Options) -> Coordinator<Folders> {
    let folder = SuiteFolder::open(world.folders.clone(), suite, plan.clone()).unwrap();
    Coordinator::new(folder, suite.clone(), options, || 0.0).unwrap()
}

/// Runs a study to its end, or until so many runs were handed out. Returns its events.
fn drive(world: &mut World, coordinator: &mut Coordinator<Folders>, most: usize) -> Vec<SuiteEvent> {
    let (mut events, mut now, mut started) = (Vec::new(), 0.0, 0);
    loop {
        now += 1.0;
        let orders = coordinator.advance(now).unwrap();
        let mut untils: BTreeMap<usize, u32> = BTreeMap::new();
        for order in orders {
            if let Order { slot, command: Command::PauseAt { update } } = &order {
                untils.insert(*slot, *update);
            }
            started += usize::from(matches!(order.command, Command::Start { .. } | Command::Resume { .. }));
            let slot = order.slot;
            for event in world.follow(order) {
                coordinator.observe(slot, event, now);
            }
        }
        if started > most {
            return events;
        }
        let slots: Vec<usize> = world.open.keys().copied().collect();
        for slot in slots {
            let until = untils.get(&slot).copied().unwrap_or(u32::MAX);
            if coordinator.active().any(|(active, ..)| active == slot) {
                for event in world.proceed(slot, until) {
                    coordinator.observe(slot, event, now);
                }
            }
        }
        events.extend(coordinator.take_events());
        if coordinator.has_ended() {
            return events;
        }
    }
}

fn uniform(seed: u64, of: &str) -> f64 {
    let hash = of.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    f64::from(philox4x32([hash, 0, 0, 0], [seed as u32, 0])[0]) / f64::from(u32::MAX)
}

#[test]
fn a_pause_keeps_the_run_open_and_the_end_of_its_stage() {
    let (suite, plan) = plan(&format!("{STUDY}repeats = 1\n[stages]\nscreen = 20\n[arms]\na.set = [\"model.router.top_k=1\"]"));
    let world = World::new(|_, _, _| 2.0);
    let mut study = coordinator(&world, &suite, &plan, Options { slots: 1, ..Options::default() });
    let order = |command| Order { slot: 0, command };
    assert!(study.advance(0.0).unwrap().contains(&order(Command::PauseAt { update: 20 })));
    study.pause(1.0);
    assert_eq!(study.advance(1.0).unwrap(), [order(Command::Pause)]);
    assert!(!study.take_events().contains(&SuiteEvent::Paused), "an update is in flight");
    study.observe(0, SessionEvent::Paused { update: 5 }, 2.0);
    assert_eq!(study.advance(2.0).unwrap(), []);
    assert_eq!(study.take_events(), [SuiteEvent::Paused]);
    study.resume(9.0);
    // A run that is continued without it would go on beyond the end of its stage.
    assert_eq!(study.advance(9.0).unwrap(), [order(Command::PauseAt { update: 20 })]);
    study.observe(0, SessionEvent::Paused { update: 20 }, 10.0);
    assert_eq!(study.advance(10.0).unwrap(), [order(Command::Stop)]);
    study.observe(0, SessionEvent::Failed(Box::new(Problem::new("it ends here"))), 12.0);
    let events = study.take_events();
    let seconds = events.iter().find_map(|event| if let SuiteEvent::RunEnded { seconds, .. } = event { Some(*seconds) } else { None });
    assert_eq!(seconds, Some(4.0), "the pause of 8 s is not the run's");
}

#[test]
fn two_hundred_runs_with_faults_and_kills_are_each_made_once() {
    let values: Vec<String> = (1..=39).map(|value| format!("{:.4}", f64::from(value) / 1e4)).collect();
    let text = format!("{STUDY}repeats = 5\n[grid]\n\"optimizer.muon.lr\" = [{}]", values.join(", "));
    let (suite, plan) = plan(&text);
    assert_eq!(plan.runs.len(), 200);
    let mut world = World::new(|arm, seed, _| 2.0 + uniform(seed, arm));
    // A tenth has a fault, of each kind.
    world.fate = Box::new(|run| match (uniform(1, run) * 40.0) as u32 {
        0 => Fate::Diverges,
        1 => Fate::Fails,
        2 | 3 => Fate::LosesDevice,
        _ => Fate::Fine,
    });
    let options = Options { slots: 2, ..Options::default() };
    for most in [30, 55, 20, 41, 38] {
        // The process is killed: its slots are lost, with whatever they were doing.
        let mut killed = coordinator(&world, &suite, &plan, options.clone());
        drive(&mut world, &mut killed, most);
        world.open.clear();
    }
    let mut last = coordinator(&world, &suite, &plan, options.clone());
    let events = drive(&mut world, &mut last, usize::MAX);
    assert!(matches!(events.last(), Some(SuiteEvent::Ended { .. })), "{:?}", events.last());
    let mut counts = BTreeMap::new();
    for (run, status) in plan.runs.iter().zip(last.status()) {
        let fate = (world.fate)(&run.id);
        let fits = match status {
            RunStatus::Ended(ExitReason::Completed) => fate == Fate::Fine,
            RunStatus::Ended(ExitReason::Diverged) => fate == Fate::Diverges,
            RunStatus::Failed(_) => matches!(fate, Fate::Fails | Fate::LosesDevice),
            _ => false,
        };
        assert!(fits, "{}: {status:?}", run.id);
        *counts.entry(status.words()).or_insert(0) += 1;
        // No update is made twice.
        if fate == Fate::Fine {
            assert_eq!(world.made[&run.id], [(0, 40)], "{}", run.id);
        }
    }
    assert!(counts["failed"] >= 5 && counts["done"] > 150, "{counts:?}");
    // Once more: nothing is left to do.
    let before = world.made.clone();
    let mut again = coordinator(&world, &suite, &plan, options);
    drive(&mut world, &mut again, usize::MAX);
    let tried: BTreeSet<&String> = world.made.iter().filter(|(run, made)| before.get(*run) != Some(made)).map(|(run, _)| run).collect();
    assert!(tried.is_empty(), "{tried:?}");
}

#[test]
fn gates_decide_once_all_arms_are_there_and_promotion_resumes_the_run() {
    let text = format!(
        "{STUDY}repeats = 2\n[stages]\nscreen = \"50%\"\n[gates]\nrule = \"halving\"\n[arms]\nbad.set = [\"model.router.top_k=1\"]\ngood.set = [\"model.router.top_k=4\"]"
    );
    let (suite, plan) = plan(&text);
    assert_eq!(plan.stages, [("screen".to_string(), 20), ("whole".to_string(), 40)]);
    let base = |arm: &str| BTreeMap::from([("bad", 3.0), ("good", 1.0), ("control", 2.0)])[arm];
    let mut world = World::new(move |arm, seed, update| base(arm) + 0.1 * seed as f64 - 0.01 * f64::from(update));
    let mut coordinator = coordinator(&world, &suite, &plan, Options { slots: 3, ..Options::default() });
    let events = drive(&mut world, &mut coordinator, usize::MAX);
    for (run, made) in &world.made {
        let wanted: &[(u32, u32)] = if run.starts_with("bad") { &[(0, 20)] } else { &[(0, 20), (20, 40)] };
        assert_eq!(made, wanted, "{run}");
    }
    let decided: Vec<&str> = events
        .iter()
        .filter_map(|event| if let SuiteEvent::Decided { record } = event { Some(record.run.as_str()) } else { None })
        .collect();
    assert_eq!(decided, ["control", "bad", "good"]);
    // The reason stands in the folder of the study and in those of the runs.
    let stored = String::from_utf8(world.folders.root.read(DECISIONS).unwrap().unwrap()).unwrap();
    assert_eq!(stored.lines().count(), 3);
    let summary: Summary = serde_json::from_slice(&world.folders.runs.borrow()["bad-s1"].read("summary.json").unwrap().unwrap()).unwrap();
    assert_eq!((summary.exit, summary.exit.exit_code(), summary.updates), (ExitReason::StoppedByGate, 0, 20));
    assert!(summary.detail.as_ref().unwrap().starts_with("gate after stage `screen`: 2 of 2"), "{summary:?}");
    let report = String::from_utf8(world.folders.runs.borrow()["bad-s1"].read("report.md").unwrap().unwrap()).unwrap();
    assert!(report.contains("stopped by a gate"), "{report}");
    // The stopped arm is judged where all arms were, with its share of alpha.
    let outcomes = coordinator.judge().unwrap();
    let shown: Vec<_> =
        outcomes.iter().map(|outcome| (outcome.stage.as_str(), outcome.at, outcome.judgement.arms[0].name.as_str())).collect();
    assert_eq!(shown, [("whole", 40.0, "good"), ("screen", 20.0, "bad")]);
    assert_eq!(outcomes[0].judgement.spec.alpha, 0.025);
    assert!((outcomes[1].judgement.arms[0].mean.unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn repeats_are_added_until_every_arm_has_a_verdict() {
    let text = format!(
        "{STUDY}repeats = \"until clear\"\nverdict.most = 12\n[arms]\nclear.set = [\"model.router.top_k=1\"]\nsame.set = [\"model.router.top_k=4\"]"
    );
    let (suite, plan) = plan(&text);
    assert_eq!(plan.runs.len(), 9);
    let mut world = World::new(|arm, seed, update| {
        let noise = 0.005 * uniform(seed, arm);
        2.0 + 0.3 * uniform(seed, "shared") + if arm == "clear" { -0.5 } else { 0.0 } + noise - 0.01 * f64::from(update)
    });
    // The study is killed again and again; what it does is the same.
    for most in [4, 3, 5, 4] {
        let mut killed = coordinator(&world, &suite, &plan, Options { slots: 1, ..Options::default() });
        drive(&mut world, &mut killed, most);
        world.open.clear();
    }
    let mut last = coordinator(&world, &suite, &plan, Options { slots: 1, ..Options::default() });
    drive(&mut world, &mut last, usize::MAX);
    let outcomes = last.judge().unwrap();
    let judged: Vec<_> = outcomes[0].judgement.arms.iter().map(|arm| (arm.name.as_str(), arm.verdict)).collect();
    assert_eq!(judged, [("clear", Verdict::Better), ("same", Verdict::Equivalent)]);
    let runs = planned(&world.folders.root).unwrap();
    assert!(runs.len() > 9 && runs.len() <= 36, "{}", runs.len());
    assert!(world.made.values().all(|made| made == &[(0, 40)]), "{:?}", world.made);
    let mut straight = World::new(|arm, seed, update| {
        let noise = 0.005 * uniform(seed, arm);
        2.0 + 0.3 * uniform(seed, "shared") + if arm == "clear" { -0.5 } else { 0.0 } + noise - 0.01 * f64::from(update)
    });
    let mut whole = coordinator(&straight, &suite, &plan, Options { slots: 4, ..Options::default() });
    drive(&mut straight, &mut whole, usize::MAX);
    assert_eq!(straight.folders.root.read(PLAN), world.folders.root.read(PLAN), "the plan follows from the results alone");
}

/// An arm with fewer updates is compared where its runs end, and moves no other arm; one that stops early keeps its last loss.
#[test]
fn a_shorter_arm_is_compared_where_it_ends_and_the_others_at_the_end() {
    let text = format!(
        "{STUDY}repeats = 4\n[arms]\nshort.set = [\"train.updates=20\"]\nearly.set = [\"model.router.top_k=3\"]\nother.set = [\"model.router.top_k=1\"]"
    );
    let (suite, plan) = plan(&text);
    // `other` is worse at update 20, and better at the end.
    let mut world = World::new(|arm, seed, update| {
        let own = match arm {
            "other" => {
                if update > 20 {
                    -0.5
                } else {
                    0.5
                }
            }
            "short" => -0.1,
            _ => 0.0,
        };
        3.0 - 0.01 * f64::from(update) + 0.01 * uniform(seed, arm) + own
    });
    world.fate = Box::new(|run| if run.starts_with("early") { Fate::StopsEarly(30) } else { Fate::Fine });
    let mut study = coordinator(&world, &suite, &plan, Options { slots: 1, ..Options::default() });
    drive(&mut world, &mut study, usize::MAX);
    let outcomes = study.judge().unwrap();
    let judged: Vec<_> = outcomes[0]
        .judgement
        .arms
        .iter()
        .map(|arm| (arm.name.as_str(), (arm.mean.unwrap() * 10.0).round(), arm.place.as_deref()))
        .collect();
    assert_eq!(outcomes[0].at, 40.0);
    assert_eq!(judged, [("early", 1.0, None), ("other", -5.0, None), ("short", -1.0, Some("20 updates"))]);
    let sentence = outcomes[0].judgement.arms[2].sentence(&outcomes[0].judgement.spec, "control");
    assert!(
        sentence.contains("short is clearly better than control") && sentence.contains(" Compared at 20 updates, where its runs end."),
        "{sentence}"
    );
    assert!((outcomes[0].judgement.control.mean.unwrap() - 2.6).abs() < 0.02, "the control's mean is that at its end");
}

#[test]
fn a_folder_of_another_study_is_refused_and_arms_may_be_added() {
    let (suite, first) = plan(&format!("{STUDY}repeats = 1\n[arms]\na.set = [\"model.router.top_k=1\"]"));
    let folders = Folders::default();
    SuiteFolder::open(folders.clone(), &suite, first).unwrap();
    let (suite, more) =
        plan(&format!("{STUDY}repeats = 2\n[arms]\nA0.set = [\"model.router.top_k=4\"]\na.set = [\"model.router.top_k=1\"]"));
    let opened = SuiteFolder::open(folders.clone(), &suite, more).unwrap();
    let ids: Vec<&str> = opened.plan.runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(ids, ["control-s1", "a-s1", "A0-s1", "control-s2", "A0-s2", "a-s2"], "known runs keep their places");
    let (suite, other) = plan(&format!("{STUDY}[arms]\na.set = [\"model.router.top_k=3\"]"));
    let error = SuiteFolder::open(folders, &suite, other).err().expect("it is another study").to_string();
    assert!(error.contains("run `a-s1`: its model settings differ: `model.router.top_k` was 1, is 3"), "{error}");
    assert!(error.contains("the study has no arm `A0` any more"), "{error}");
}
