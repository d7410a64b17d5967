//! Progress and results on the terminal.
//!
//! All text comes from pure functions of events; [`Terminal`] only decides where it goes: into a progress bar if stderr is a terminal,
//! otherwise at most one line per second, and one for each incident. Control characters in untrusted text (samples, names) are
//! escaped.

use crate::print;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moelab::lab::chart::thousands;
use moelab::run::protocol::SeriesBlock;
use moelab::run::records::{Event, SampleRecord, Time, UpdateRecord};
use moelab::run::summary::{Baselines, Summary};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

/// Number of updates from which the remaining time is estimated.
const WINDOW: usize = 50;
/// Seconds of a session before the remaining time is estimated: the first updates compile and warm up.
const WARM_UP_SECONDS: f64 = 3.0;
/// Minimum time between lines of progress if stderr is not a terminal.
const LINE_SECONDS: f64 = 1.0;
const FINAL: &str = "final";

/// The series that [`Terminal::show_block`] reads.
pub const SERIES: [&str; 4] = ["train_ce", "lr_adamw", "lr_muon", "skipped"];

/// The state of a run according to its events.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    total: u32,
    update: u32,
    train_ce: f64,
    val_ce: Option<f64>,
    best: Option<(f64, u32)>,
    /// Learning rates of AdamW and Muon.
    lr: [f64; 2],
    session: u32,
    tokens_per_second: Option<f64>,
    /// Update and seconds of the last updates of this session.
    window: VecDeque<(u32, f64)>,
    /// Seconds from the start of this session to the end of its first update.
    first: Option<f64>,
    skipped: u64,
}

impl Progress {
    /// The state before the first of `total` updates.
    pub fn new(total: u32) -> Self {
        Self { total, ..Self::default() }
    }

    /// Records an event.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Update(record) => self.note_update(record),
            Event::Eval(record) => {
                self.val_ce = Some(record.val_ce);
                if record.val_ce.is_finite() && self.best.is_none_or(|(best, _)| record.val_ce < best) {
                    self.best = Some((record.val_ce, record.update));
                }
            }
            _ => {}
        }
    }

    /// Records an update, even if it has no line in the metrics.
    pub fn note_update(&mut self, record: &UpdateRecord) {
        let went_back = record.update <= self.update;
        if record.time.session != self.session || went_back {
            if record.time.session != self.session {
                self.first = None;
            }
            self.session = record.time.session;
            self.window.clear();
        }
        (self.update, self.lr) = (record.update, [record.lr_adamw, record.lr_muon]);
        self.train_ce = record.train_ce;
        self.tokens_per_second = record.time.tokens_per_second;
        self.first = self.first.or(Some(record.time.seconds));
        self.skipped += u64::from(record.skipped);
        self.window.push_back((record.update, record.time.seconds));
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
    }

    /// Estimated seconds until the last update, if enough is known.
    pub fn seconds_left(&self) -> Option<f64> {
        let (first, last) = (self.window.front()?, self.window.back()?);
        let per_update = (last.1 - first.1) / f64::from(last.0 - first.0);
        let sound = last.1 >= WARM_UP_SECONDS && self.window.len() >= 3 && per_update.is_finite();
        sound.then(|| per_update * f64::from(self.total.saturating_sub(self.update)))
    }

    /// Losses, learning rate, speed and time left, in one line without the update.
    pub fn status(&self) -> String {
        let mut text = format!("train {:.4}", self.train_ce);
        let mut add = |part: String| text.extend(["  ", &part]);
        if let Some(val_ce) = self.val_ce {
            add(format!("val {val_ce:.4}"));
        }
        let [adamw, muon] = self.lr;
        add(if muon > 0.0 { format!("lr {adamw:.1e}, Muon {muon:.1e}") } else { format!("lr {adamw:.1e}") });
        if let Some(rate) = self.tokens_per_second {
            add(format!("{} tokens/s", thousands(rate.round() as u64)));
        }
        if self.skipped > 0 {
            add(format!("{} skipped", self.skipped));
        }
        if let Some(seconds) = self.seconds_left().filter(|_| self.update < self.total) {
            add(format!("{} left", clock(seconds)));
        }
        text
    }

    /// The progress of the run, as a line.
    pub fn update_line(&self) -> String {
        format!("{}  {}", self.place(self.update), self.status())
    }

    /// The line for an event other than an update.
    pub fn line(&self, event: &Event) -> Option<String> {
        match event {
            Event::Eval(record) => {
                let best = self.best.map_or(String::new(), |(ce, update)| format!("  best {ce:.4} at {update}"));
                let accuracy = 100.0 * record.accuracy;
                Some(format!("{}  validation {:.4}  accuracy {accuracy:.1} %{best}", self.place(record.update), record.val_ce))
            }
            Event::Incident(record) => {
                Some(format!("{}  warning: {}: {}", self.place(record.update), record.incident.words(), print::name(&record.detail)))
            }
            Event::Update(_) | Event::Header(_) | Event::Sample(_) | Event::Rewound(_) => None,
        }
    }

    fn place(&self, update: u32) -> String {
        let width = self.total.to_string().len();
        format!("update {update:>width$}/{}", self.total)
    }
}

/// The result of a run: its losses compared with the baselines.
pub fn result_table(summary: &Summary) -> String {
    let mut text = format!(
        "{}: {}\n{} updates, {} tokens, {}{}\n",
        print::name(&summary.name),
        summary.exit.words(),
        thousands(u64::from(summary.updates)),
        thousands(summary.tokens),
        summary.tokens_per_second.map_or(String::new(), |rate| format!("{} tokens/s, ", thousands(rate.round() as u64))),
        print::name(&summary.adapter),
    );
    if let Some(detail) = &summary.detail {
        let _ = writeln!(text, "{}", print::name(detail));
    }
    if let Some(update) = summary.blew_up_at {
        let _ = writeln!(text, "it blew up: from update {update} on its loss was far too high");
    }
    for (incident, update) in &summary.routing_alarms {
        let _ = writeln!(text, "from update {update} on: {}", incident.words());
    }
    if summary.forced_balance {
        let _ = writeln!(text, "tokens were assigned to experts in turn: a measurement of throughput, the losses are no result");
    }
    text.push('\n');
    let _ = writeln!(text, "  {:<24} {:>12} {:>11} {:>14}", "validation", "nats/token", "perplexity", "final minus");
    let mut row = |name: &str, ce: Option<f64>| {
        let Some(ce) = ce else { return };
        let difference = summary.final_val_ce.filter(|_| name != FINAL).map_or(String::new(), |last| format!("{:+.4}", last - ce));
        let line = format!("  {name:<24} {ce:>12.4} {:>11.2} {difference:>14}", ce.exp());
        let _ = writeln!(text, "{}", line.trim_end());
    };
    for (name, ce) in summary.baselines.iter().flat_map(Baselines::named) {
        row(name, Some(ce));
    }
    row(&summary.best_update.map_or("best".to_string(), |update| format!("best, at update {update}")), summary.best_val_ce);
    row(FINAL, summary.final_val_ce);
    row("entropy of the source", summary.baselines.and_then(|baselines| baselines.entropy));
    if summary.skipped_updates > 0 {
        let _ = writeln!(text, "\n  updates skipped for a non-finite loss or gradient: {}", summary.skipped_updates);
    }
    text
}

/// Samples, indented below their sampling settings.
pub fn samples(samples: &[SampleRecord]) -> String {
    let mut text = String::new();
    for SampleRecord { update, prompt, text: sample, temperature, top_p, .. } in samples {
        let _ = writeln!(text, "sample after update {update}, temperature {temperature}, top-p {top_p}");
        for line in print::visible(&format!("{prompt}{sample}")).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// The output of the text.
pub struct Terminal {
    progress: Progress,
    bar: Option<ProgressBar>,
    /// Session and time of the last line of progress.
    last_line: Option<(u32, f64)>,
    log: Box<dyn Write>,
}

impl Terminal {
    /// Progress on stderr: a bar if it is a terminal, otherwise lines.
    pub fn stderr(total_updates: u32) -> Self {
        let style = "{bar:24} {pos}/{len}  {msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = std::io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(8);
            ProgressBar::with_draw_target(Some(u64::from(total_updates)), target).with_style(style.progress_chars("━╸ "))
        });
        Self { bar, ..Self::lines(total_updates, Box::new(print::Stderr)) }
    }

    /// Progress as lines into `log`.
    pub fn lines(total_updates: u32, log: Box<dyn Write>) -> Self {
        Self { progress: Progress::new(total_updates), bar: None, last_line: None, log }
    }

    /// Shows a line of the log other than an update, which come in blocks. A failure to write to the terminal does not end the
    /// run.
    pub fn show(&mut self, event: &Event) {
        if let Event::Update(_) = event {
            return;
        }
        self.progress.note(event);
        let Some(line) = self.progress.line(event) else { return };
        // The next line of an update repeats the evaluation.
        if self.bar.is_some() || !matches!(event, Event::Eval(_)) || self.is_due(event.time().copied().unwrap_or_default()) {
            self.say(&line);
        }
    }

    /// Shows an update, even if it has no line in the log.
    fn show_update(&mut self, record: &UpdateRecord) {
        self.progress.note_update(record);
        if let Some(bar) = &self.bar {
            bar.set_position(u64::from(record.update));
            bar.set_message(self.progress.status());
        } else if self.is_due(record.time) {
            self.say(&self.progress.update_line());
        }
    }

    /// Shows the updates of a block of [`SERIES`].
    pub fn show_block(&mut self, block: &SeriesBlock) {
        for (row, (update, time)) in block.updates.iter().zip(&block.times).enumerate() {
            let value = |series| block.scalar(series, row).unwrap_or_default();
            let [train_ce, lr_adamw, lr_muon, skipped] = SERIES.map(value);
            let (update, time, skipped) = (*update, *time, skipped > 0.0);
            self.show_update(&UpdateRecord { update, train_ce, lr_adamw, lr_muon, skipped, time, ..UpdateRecord::default() });
        }
    }

    /// Shows a line above the progress.
    pub fn say(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(print::visible(line)),
            None => drop(writeln!(self.log, "{line}")),
        }
    }

    /// Whether it is time for another line of progress.
    fn is_due(&mut self, time: Time) -> bool {
        let is_due = self.last_line.is_none_or(|(session, last)| session != time.session || time.seconds - last >= LINE_SECONDS);
        if is_due {
            self.last_line = Some((time.session, time.seconds));
        }
        is_due
    }

    /// Finishes the progress and shows the result.
    pub fn finish(&mut self, summary: &Summary, drawn: &[SampleRecord]) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let first = self.progress.first.map_or(String::new(), |seconds| format!("\nfirst update {seconds:.1} s after the start\n"));
        let _ = write!(self.log, "\n{}{first}\n{}", result_table(summary), samples(drawn));
    }
}

/// Minutes and seconds, with hours if there are any.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round().clamp(0.0, 1e9) as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}
