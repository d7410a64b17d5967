//! The summary counts what happened, and the report says it to a reader who was not there.

use moelab::lab::record::{Baselines, ExitReason, SCHEMA, Summary};
use moelab::lab::report::Report;
use moelab::train::metrics::{EvalRecord, Event, Incident, IncidentRecord, SampleRecord, Time, UpdateRecord};

fn summary(events: &[Event]) -> Summary {
    let mut summary = Summary {
        schema: SCHEMA,
        name: "quickstart".into(),
        exit: ExitReason::Completed,
        final_val_ce: None,
        best_val_ce: None,
        best_update: None,
        updates: 0,
        skipped_updates: 0,
        rollbacks: 0,
        tokens: 0,
        tokens_per_second: 18_204.4,
        adapter: "llvmpipe".into(),
        driver: "Mesa 22.3.6".into(),
        weights_sha256: "5eed".into(),
        baselines: Baselines { uniform: 4.1589, unigram: 3.3456, bigram: 2.0311, entropy: Some(1.2954) },
        config_sha256: "c0ffee".into(),
        data_sha256: "da7a".into(),
        tokenizer_sha256: String::new(),
        version: "0.1.0".into(),
    };
    summary.measure(events);
    summary
}

/// Forty updates; expert 3 of layer 1 starves at the end.
fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for update in 1..=40 {
        let starving = if update > 20 { 0.02 } else { 0.25 };
        let rest = (1.0 - starving) / 3.0;
        events.push(Event::Update(UpdateRecord {
            update,
            tokens: u64::from(update) * 4096,
            train_ce: 4.0 - f64::from(update) * 0.06,
            expert_load: vec![vec![0.25, 0.25, 0.3, 0.2], vec![rest, rest, rest, starving]],
            router_entropy: vec![1.386, 1.1],
            ..UpdateRecord::default()
        }));
        if update % 10 == 0 {
            let val_ce = if update == 30 { 1.5 } else { 4.1 - f64::from(update) * 0.06 };
            events.push(Event::Eval(EvalRecord { update, val_ce, accuracy: 0.5, targets: 16_384, ..EvalRecord::default() }));
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
    Report { summary, events, config: "seed = 1\n", plot: Some("loss.svg") }.to_markdown()
}

#[test]
fn the_report_reads_as_ever() {
    let events = events();
    insta::assert_snapshot!(markdown(&summary(&events), &events));
}

#[test]
fn the_summary_measures_the_lines() {
    let events = events();
    let found = summary(&events);
    assert_eq!((found.updates, found.tokens), (40, 40 * 4096));
    assert_eq!((found.final_val_ce, found.best_val_ce, found.best_update), (Some(4.1 - 2.4), Some(1.5), Some(30)));
    assert_eq!(Summary::from_json(&found.to_json()), Ok(found.clone()));
    let json: serde_json::Value = serde_json::from_str(&found.to_json()).expect("it is JSON");
    for key in ["final_val_ce", "best_val_ce", "best_update", "updates", "tokens", "tokens_per_second", "adapter", "weights_sha256"] {
        assert!(!json[key].is_null(), "{key}");
    }
    for key in ["uniform", "unigram", "bigram", "entropy"] {
        assert!(json["baselines"][key].is_f64(), "{key}");
    }
    // An evaluation that is not of the last update is not the final one; NaN is never the best.
    let mut longer = events.clone();
    longer.push(Event::Update(UpdateRecord { update: 41, ..UpdateRecord::default() }));
    assert_eq!(summary(&longer).final_val_ce, None);
    longer.push(Event::Eval(EvalRecord { update: 41, val_ce: f64::NAN, ..EvalRecord::default() }));
    assert_eq!((summary(&longer).final_val_ce, summary(&longer).best_update), (None, Some(30)));
    assert_eq!(summary(&[]).updates, 0);
}

#[test]
fn what_is_doubtful_is_said_first() {
    let events = events();
    let good = summary(&events);
    let warnings = |change: &dyn Fn(&mut Summary, &mut Vec<Event>)| {
        let (mut summary, mut events) = (good.clone(), events.clone());
        change(&mut summary, &mut events);
        let text = markdown(&summary, &events);
        text.split("## Losses").next().expect("split gives at least one").to_string()
    };
    let base = warnings(&|_, _| {});
    assert!(base.contains("Layer 1: 1 of 4 experts took less than 10 % of a fair share."), "{base}");
    assert!(base.contains("The final loss is 0.2000 above the best, at update 30"), "{base}");
    assert!(!base.contains("Updates skipped") && !base.contains("entropy of the source: the validation"), "{base}");
    type Change<'a> = &'a dyn Fn(&mut Summary, &mut Vec<Event>);
    let cases: [(Change, &str); 5] = [
        (&|s, _| s.skipped_updates = 3, "gradient: 3"),
        (&|s, _| s.rollbacks = 2, "went back to a checkpoint 2 times"),
        (&|s, _| s.final_val_ce = Some(2.5), "no better than counting pairs"),
        (&|s, _| s.best_val_ce = Some(1.1), "below the entropy of the source"),
        (
            &|_, e| e.push(Event::Eval(EvalRecord { update: 40, val_ce: f64::NAN, ..EvalRecord::default() })),
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
    events.push(Event::Incident(IncidentRecord { update: 40, incident: Incident::DeviceLost, detail, time: Time::default() }));
    let mut hostile = summary(&events);
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

#[test]
fn exit_codes_are_those_of_the_command_line() {
    use ExitReason::*;
    let codes = [Completed, EarlyStopped, Diverged, DeviceLost, Interrupted].map(ExitReason::exit_code);
    assert_eq!(codes, [0, 0, 3, 4, 75]);
}
