//! The report says what happened to a reader who was not there.

use super::folders::folder_in;
use super::runs::START;
use moelab::lab::memory::Memory;
use moelab::lab::overview::Overview;
use moelab::lab::report::Report;
use moelab::lab::run_folder::Start;
use moelab::run::records::{EvalRecord, Event, Incident, IncidentRecord, SampleRecord, Time, UpdateRecord};
use moelab::run::series::Lengths;
use moelab::run::summary::{Baselines, ExitReason, SCHEMA, Summary};

/// Of a completed run of forty updates.
pub fn summary() -> Summary {
    Summary {
        schema: SCHEMA,
        name: "quickstart".into(),
        exit: ExitReason::Completed,
        detail: None,
        final_val_ce: Some(4.1 - 2.4),
        best_val_ce: Some(1.5),
        best_update: Some(30),
        updates: 40,
        skipped_updates: 0,
        rollbacks: 0,
        blew_up_at: None,
        routing_alarms: Default::default(),
        forced_balance: false,
        tokens: 40 * 4096,
        tokens_per_second: Some(18_204.4),
        adapter: "llvmpipe".into(),
        driver: "Mesa 22.3.6".into(),
        weights_sha256: Some("5eed".into()),
        changes: Vec::new(),
        baselines: Some(Baselines { uniform: 4.1589, unigram: 3.3456, bigram: 2.0311, entropy: Some(1.2954) }),
        settings_sha256: Default::default(),
        config_sha256: "c0ffee".into(),
        data_sha256: "da7a".into(),
        tokenizer_sha256: String::new(),
        epoch: None,
        version: "0.1.0".into(),
    }
}

/// Forty updates; expert 3 of layer 1 starves at the end.
fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for update in 1..=40 {
        let starving = if update > 20 { 0.02 } else { 0.25 };
        let rest = (1.0 - starving) / 3.0;
        events.push(Event::Update(UpdateRecord {
            update,
            micro_steps: u64::from(update),
            tokens: u64::from(update) * 4096,
            train_ce: 4.0 - f64::from(update) * 0.06,
            // A spike before the last update, and a rate that falls: a mean would hide both.
            grad_norm: if update == 38 { 3.0 } else { 1.0 },
            lr_adamw: 1.0 / f64::from(update),
            expert_load: vec![vec![0.25, 0.25, 0.3, 0.2], vec![rest, rest, rest, starving]],
            router_entropy: vec![1.386, 1.1],
            ..UpdateRecord::default()
        }));
        if update % 10 == 0 {
            let val_ce = if update == 30 { 1.5 } else { 4.1 - f64::from(update) * 0.06 };
            events.push(Event::Eval(EvalRecord {
                update,
                val_ce,
                accuracy: 0.5,
                targets: 16_384,
                expert_load: vec![vec![0.25; 4], vec![0.5, 0.25, 0.25, 0.0]],
                router_entropy: vec![1.25, 1.0],
                router_z: vec![2.5, 3.0],
                gate_mass: vec![vec![0.25; 4], vec![0.625, 0.25, 0.125, 0.0]],
                domain_nmi: vec![0.125, f32::NAN],
                ..EvalRecord::default()
            }));
        }
    }
    events.push(Event::Sample(SampleRecord {
        update: 40,
        prompt: "the *cat*".into(),
        text: "sat\n# on\n```\n<img src=x>".into(),
        temperature: 0.8,
        top_p: 0.95,
        time: Time::default(),
    }));
    events
}

fn markdown(summary: &Summary, events: &[Event]) -> String {
    let memory = Memory::default();
    folder_in(&memory, &Start { lengths: Lengths { layers: 2, experts: 4 }, ..START }, events);
    let overview = Overview::of(&memory).expect("memory is sound");
    Report { summary, overview: &overview, config: "seed = 1\n", plot: Some("loss.svg") }.to_markdown()
}

#[test]
fn the_report_reads_as_ever() {
    let events = events();
    insta::assert_snapshot!(markdown(&summary(), &events));
}

/// Files of commit daf866d, word for word.
#[test]
fn a_summary_of_an_older_version_reads() {
    let older = r#"{"schema":1,"name":"r","exit":"early_stopped","final_val_ce":1.5,"best_val_ce":1.25,"best_update":8,"updates":10,
        "skipped_updates":0,"rollbacks":0,"tokens":640,"tokens_per_second":6295997.5,"adapter":"llvmpipe","driver":"Mesa",
        "weights_sha256":"5eed","baselines":{"uniform":5.5,"unigram":3.0,"bigram":2.0,"entropy":null},"config_sha256":"c","data_sha256":"d",
        "tokenizer_sha256":"e","version":"0.1.0"}"#;
    let read: Summary = serde_json::from_str(older).expect("it reads");
    assert_eq!(
        (read.exit, read.tokens_per_second, read.weights_sha256.as_deref()),
        (ExitReason::EarlyStopped, Some(6_295_997.5), Some("5eed"))
    );
    assert_eq!(serde_json::from_str::<Summary>(&read.to_json()).expect("it reads back"), read);
}

#[test]
fn what_is_absent_is_null() {
    let unknown = Summary {
        final_val_ce: None,
        best_val_ce: None,
        best_update: None,
        tokens_per_second: None,
        weights_sha256: None,
        baselines: None,
        ..summary()
    };
    let json: serde_json::Value = serde_json::from_str(&unknown.to_json()).expect("it is JSON");
    for key in ["final_val_ce", "best_val_ce", "best_update", "tokens_per_second", "weights_sha256", "baselines", "detail", "blew_up_at"] {
        assert!(json[key].is_null() && json.get(key).is_some(), "{key}: {json}");
    }
    let text = markdown(&unknown, &[]);
    assert!(text.contains("The final validation loss is unknown.") && !text.contains("tokens per second"), "{text}");
    assert!(!text.contains("0.0000") && !text.contains("baseline"), "{text}");
}

#[test]
fn a_blow_up_is_the_first_sentence() {
    let blown = Summary { blew_up_at: Some(12), ..summary() };
    let text = markdown(&blown, &events());
    let first = text.lines().nth(2).expect("a sentence below the title");
    assert!(first.starts_with("**The run blew up: from update 12 on") && first.contains("The run made all its updates."), "{first}");
}

#[test]
fn what_is_doubtful_is_said_first() {
    let events = events();
    let good = summary();
    let warnings = |change: &dyn Fn(&mut Summary, &mut Vec<Event>)| {
        let (mut summary, mut events) = (good.clone(), events.clone());
        change(&mut summary, &mut events);
        let text = markdown(&summary, &events);
        text.split("## Losses").next().expect("split gives at least one").to_string()
    };
    let base = warnings(&|_, _| {});
    assert!(base.contains("Layer 1: 1 of 4 experts received less than 10 % of a fair share."), "{base}");
    assert!(base.contains("The final loss is 0.2000 above the best, at update 30"), "{base}");
    assert!(!base.contains("Updates skipped") && !base.contains("entropy of the source: the validation"), "{base}");
    type Change<'a> = &'a dyn Fn(&mut Summary, &mut Vec<Event>);
    let cases: [(Change, &str); 5] = [
        (&|s, _| s.skipped_updates = 3, "gradient: 3"),
        (&|s, _| s.rollbacks = 2, "rolled back to a checkpoint 2 times"),
        (&|s, _| s.final_val_ce = Some(2.5), "no better than counting pairs"),
        (&|s, _| s.best_val_ce = Some(1.1), "below the entropy of the source"),
        (
            &|_, e| e.push(Event::Eval(EvalRecord { update: 41, val_ce: f64::NAN, ..EvalRecord::default() })),
            "1 of 5 evaluations were not finite",
        ),
    ];
    for (change, wanted) in cases {
        assert!(warnings(change).contains(wanted), "{wanted}: {}", warnings(change));
    }
    let broken = Summary { exit: ExitReason::Diverged, final_val_ce: None, ..good.clone() };
    assert!(markdown(&broken, &events).contains("The run diverged"));
}

#[test]
fn text_from_outside_stays_text() {
    let mut events = events();
    let detail = "<b>|a|\n# b [x](y) ![z](w)</b>".to_string();
    events.push(Event::Incident(IncidentRecord { update: 40, incident: Incident::DeviceLost, detail, since: None, time: Time::default() }));
    let mut hostile = summary();
    hostile.name = "a\n# b <script> | `".into();
    hostile.adapter = "x | y\u{1b}[31m".into();
    let text = markdown(&hostile, &events);
    assert!(text.starts_with("# a \\# b &lt;script&gt; \\| \\`\n"), "{text}");
    assert!(text.contains("&lt;b&gt;\\|a\\| \\# b \\[x\\]\\(y\\) \\!\\[z\\]\\(w\\)&lt;/b&gt;"), "{text}");
    assert!(text.contains("| adapter | x \\| y\u{fffd}\\[31m |"), "{text}");
    // The sample holds three backticks, so its fence has four, and nothing of it is outside.
    let block = text.split("````").nth(1).expect("the sample is fenced");
    assert_eq!(block, "text\nsat\n# on\n```\n<img src=x>\n");
    assert_eq!(text.matches("<img").count(), 1);
}
