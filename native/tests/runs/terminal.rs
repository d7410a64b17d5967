//! What the terminal says, from events alone.

use moelab::run::protocol::SeriesBlock;
use moelab::run::records::{EvalRecord, Event, Incident, IncidentRecord, SampleRecord, Time, UpdateRecord};
use moelab::run::summary::{Baselines, ExitReason, Summary};
use moelab_native::terminal::{Progress, SERIES, Terminal, result_table, samples};
use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

fn update(update: u32, seconds: f64) -> Event {
    let time = Time { session: 0, seconds, tokens_per_second: (seconds >= 1.0).then_some(18_204.4) };
    let train_ce = 4.0 - f64::from(update) / 100.0;
    Event::Update(UpdateRecord {
        update,
        tokens: u64::from(update) * 4096,
        train_ce,
        lr_adamw: 3e-4,
        lr_muon: 0.02,
        time,
        ..UpdateRecord::default()
    })
}

/// An update as a run tells of it.
fn block(event: &Event) -> SeriesBlock {
    let mut block = SeriesBlock::new(&SERIES.map(str::to_string));
    if let Event::Update(record) = event {
        block.push(record);
    }
    block
}

fn eval(update: u32, val_ce: f64) -> Event {
    let time = Time { session: 0, seconds: f64::from(update) * 0.225 + 2.0, tokens_per_second: None };
    Event::Eval(EvalRecord { update, val_ce, accuracy: 0.4567, time, ..EvalRecord::default() })
}

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn summary() -> Summary {
    Summary {
        schema: 1,
        name: "quickstart".into(),
        exit: ExitReason::Completed,
        detail: None,
        final_val_ce: Some(1.4019),
        best_val_ce: Some(1.398),
        best_update: Some(380),
        updates: 400,
        skipped_updates: 1,
        rollbacks: 0,
        blew_up_at: None,
        routing_alarms: Default::default(),
        forced_balance: false,
        tokens: 1_638_400,
        tokens_per_second: Some(18_204.4),
        adapter: "llvmpipe".into(),
        driver: String::new(),
        weights_sha256: None,
        changes: Vec::new(),
        baselines: Some(Baselines { uniform: 4.1589, unigram: 3.3456, bigram: 2.0311, entropy: Some(1.2954) }),
        settings_sha256: Default::default(),
        config_sha256: String::new(),
        data_sha256: String::new(),
        tokenizer_sha256: String::new(),
        epoch: None,
        version: String::new(),
    }
}

#[test]
fn a_log_reads_as_ever() {
    let log = Log::default();
    let mut terminal = Terminal::lines(400, Box::new(log.clone()));
    for at in (1..=400).step_by(57) {
        terminal.show_block(&block(&update(at, f64::from(at) * 0.225)));
        if at % 200 > 100 {
            terminal.show(&eval(at, 5.0 / f64::from(at).sqrt()));
        }
    }
    let detail = "loss\nnan \u{1b}[31m".to_string();
    terminal.show(&Event::Incident(IncidentRecord {
        update: 400,
        incident: Incident::NonFinite,
        detail,
        since: None,
        time: Time::default(),
    }));
    let sample = SampleRecord {
        update: 400,
        prompt: "The ".into(),
        text: "cat\nsat\u{1b}[2J\u{7}.".into(),
        temperature: 0.8,
        top_p: 0.95,
        time: Time::default(),
    };
    terminal.finish(&summary(), &[sample]);
    let text = String::from_utf8(log.0.borrow().clone()).expect("text is UTF-8");
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_unknown_is_left_out() {
    let bare = Summary {
        final_val_ce: None,
        best_val_ce: None,
        best_update: None,
        skipped_updates: 0,
        baselines: None,
        tokens_per_second: None,
        exit: ExitReason::Diverged,
        ..summary()
    };
    let table = result_table(&bare);
    assert!(table.starts_with("quickstart: diverged"), "{table}");
    assert!(
        !table.contains("  final  ")
            && !table.contains("tokens/s")
            && !table.contains("uniform")
            && !table.contains("best")
            && !table.contains("entropy of")
            && !table.contains("skipped"),
        "{table}"
    );
    assert_eq!(samples(&[]), "");
}

/// Nothing before the warm-up; then what the clock says, evaluations included, from the last updates alone.
#[test]
fn the_time_left_is_sound() {
    let mut progress = Progress::new(1000);
    progress.note(&update(1, 2.9));
    progress.note(&update(2, 2.95));
    progress.note(&update(3, 2.99));
    assert_eq!(progress.seconds_left(), None, "too early to tell");
    // A slow start is forgotten: fifty updates later only the speed of those counts.
    for at in 4..=103 {
        progress.note(&update(at, 3.0 + f64::from(at) * 2.0));
    }
    let left = progress.seconds_left().expect("there is enough to tell");
    assert!((left - 2.0 * 897.0).abs() < 1e-6, "{left}");
    progress.note(&update(1000, 1e6));
    assert_eq!(progress.seconds_left(), Some(0.0));
    // A resumed session has a clock of its own.
    let mut resumed = Progress::new(1000);
    resumed.note(&update(500, 900.0));
    let time = Time { session: 1, seconds: 0.5, tokens_per_second: None };
    resumed.note(&Event::Update(UpdateRecord { update: 501, time, ..UpdateRecord::default() }));
    assert_eq!(resumed.seconds_left(), None);
}

/// A thousand updates and evaluations in three seconds, then an incident.
#[test]
fn there_is_one_line_a_second_at_most() {
    let log = Log::default();
    let mut terminal = Terminal::lines(1000, Box::new(log.clone()));
    for at in 1..=1000 {
        let event = update(at, f64::from(at) * 0.003);
        terminal.show_block(&block(&event));
        terminal.show(&event);
        let time = event.time().copied().unwrap_or_default();
        terminal.show(&Event::Eval(EvalRecord { update: at, val_ce: f64::NAN, time, ..EvalRecord::default() }));
    }
    let (detail, time) = ("nan".to_string(), Time { seconds: 3.0, ..Time::default() });
    terminal.show(&Event::Incident(IncidentRecord { update: 1000, incident: Incident::NonFinite, detail, since: None, time }));
    let text = String::from_utf8(log.0.borrow().clone()).expect("text is UTF-8");
    let shown: Vec<&str> = text.lines().collect();
    assert_eq!(shown.len(), 4, "{text}");
    assert!(shown[1].starts_with("update  335/1000  train") && shown[1].contains("val NaN"), "{text}");
    assert_eq!(shown[3], "update 1000/1000  warning: not finite: nan");
}
