//! Lines of metrics: what they look like, and that nothing is lost in them.

use super::{log, runs::START};
use moelab::lab::{memory::Memory, run_folder::RunFolder, store::Store};
use moelab::run::records::{self, Event, Header, Incident, IncidentRecord, Time, UpdateRecord};
use moelab::run::series::{Lengths, Record, Series};

/// The format is a promise to scripts; a change of it is a new schema.
#[test]
fn lines_look_as_they_always_did() {
    let time = Time { session: 1, seconds: 2.5, tokens_per_second: Some(f64::NAN) };
    let record = UpdateRecord {
        update: 3,
        micro_steps: 6,
        tokens: 3072,
        train_ce: 0.1 + 0.2,
        balance: Some(1.0),
        z: Some(f64::INFINITY),
        grad_norm: f64::NAN,
        clip_factor: 0.5,
        lr_adamw: 3e-4,
        skipped: true,
        expert_load: vec![vec![0.25, 0.75], vec![0.1, f32::NAN]],
        router_entropy: vec![0.3, f32::NEG_INFINITY],
        time,
        ..UpdateRecord::default()
    };
    let incident =
        IncidentRecord { update: 3, incident: Incident::NonFinite, detail: "a\n\"b\"".into(), since: None, time: Time::default() };
    let events =
        [Event::Header(Header { schema: records::SCHEMA, config: "cafe".into() }), Event::Update(record), Event::Incident(incident)];
    insta::assert_snapshot!(events.iter().map(Event::to_line).collect::<String>(), @r#"
    {"kind":"header","schema":2,"config":"cafe"}
    {"kind":"update","update":3,"micro_steps":6,"tokens":3072,"train_ce":0.30000000000000004,"balance":1.0,"balance_sequence":null,"balance_global_batch":null,"balance_hf_mixtral":null,"z":"inf","accuracy":0.0,"grad_norm":"nan","clip_factor":0.5,"lr_adamw":0.0003,"lr_muon":0.0,"skipped":true,"expert_load":[[0.25,0.75],[0.1,"nan"]],"router_entropy":[0.3,"-inf"],"time":{"session":1,"seconds":2.5,"tokens_per_second":"nan"}}
    {"kind":"incident","update":3,"incident":"non_finite","detail":"a\n\"b\"","time":{"session":0,"seconds":0.0,"tokens_per_second":null}}
    "#);
    let text: String = events.iter().map(Event::to_line).collect();
    // Lines of runs from before the conventions of the balance loss were told apart.
    let older = text.replace(r#""balance_sequence":null,"balance_global_batch":null,"balance_hf_mixtral":null,"#, "");
    assert!(older.len() < text.len());
    assert_eq!(log::read(&older).expect("older lines read").iter().map(Event::to_line).collect::<String>(), text);
    let again: String = log::read(&text).expect("they read back").iter().map(Event::to_line).collect();
    assert_eq!(again, text);
}

/// A dense model's line of commit daf866d, word for word: its zeros were no measurements, and stay as they are.
#[test]
fn a_line_of_an_older_version_reads() {
    let older = r#"{"kind":"update","update":1,"micro_steps":4,"tokens":256,"train_ce":5.5,"balance":0.0,"balance_sequence":0.0,"balance_global_batch":0.0,"balance_hf_mixtral":0.0,"z":0.0,"accuracy":0.0,"grad_norm":1.0,"clip_factor":1.0,"lr_adamw":0.0,"lr_muon":0.0,"skipped":false,"expert_load":[],"router_entropy":[],"time":{"session":0,"seconds":0.5,"tokens_per_second":6295997.0}}"#;
    let Ok(Event::Update(record)) = Event::from_line(older) else { panic!("it reads") };
    assert_eq!((record.balance, record.time.tokens_per_second), (Some(0.0), Some(6_295_997.0)));
    assert_eq!(Event::Update(record).to_line().trim_end(), older.replace(r#","expert_load":[],"router_entropy":[]"#, ""));
}

#[test]
fn a_log_of_a_newer_release_is_refused() {
    let mut disk = Memory::default();
    let mut run = RunFolder::create(Box::new(disk.clone()), "first", &START).expect("the folder is empty");
    let newer = Event::Header(Header { schema: 3, config: START.config.to_string() }).to_line();
    disk.write("metrics.jsonl", newer.as_bytes()).expect("memory is sound");
    let problem = run.rewind(0, START.config, 1).expect_err("its lines may mean anything");
    assert_eq!(problem.to_string(), "metrics.jsonl:1: schema 3, this build reads 2");
    let unknown = Event::from_line("{\"kind\":\"surprise\"}\n").expect_err("there is no such kind").to_string();
    assert!(unknown.starts_with("unknown variant `surprise`"), "{unknown}");
}

/// Of every row: a name in use once, a sentence, and the key of a line or, for what has axes, an array.
#[test]
fn the_table_of_series_is_sound() {
    let keys: Vec<String> = Series::all().map(Series::key).collect();
    for (index, series) in Series::all().enumerate() {
        let key = &keys[index];
        assert!(!keys[..index].contains(key), "{key} twice");
        assert!(series.doc().ends_with('.') && series.doc().len() > 10, "{key}: {:?}", series.doc());
        assert_eq!(Series::find(key).map(Series::key).as_ref(), Some(key));
        // A field of the array records, which those of updates and evaluations share.
        assert!(Series::all().all(|other| other.name != series.name || other.axes == series.axes), "{key}");
    }
    assert!(Series::find("eval.val_ce").is_some_and(|series| series.unit == "nats per token" && !series.is_array()));
    let lengths = Lengths { layers: 2, experts: 3 };
    let shape = |key| Series::find(key).map(|series| lengths.shape(series));
    assert_eq!((shape("expert_load"), shape("router_entropy"), shape("z")), (Some(vec![2, 3]), Some(vec![2]), Some(vec![])));
    let line = Event::Update(UpdateRecord::default()).to_line();
    let scalars = UpdateRecord::COLUMNS.iter().filter(|column| !column.series.is_array());
    let places = scalars.map(|column| line.find(&format!("\"{}\":", column.series.name)));
    assert!(places.clone().all(|place| place.is_some()) && places.is_sorted(), "{line}");
}
