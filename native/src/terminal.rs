//! Progress and results on the terminal.
//!
//! All text comes from pure functions of events; [`Terminal`] only decides where it goes: into a bar where stderr is a terminal,
//! else one line every so many updates. Text from outside (samples, names) is stripped of control characters, which a terminal
//! would obey.

use crate::print;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moelab::lab::plot::thousands;
use moelab::lab::record::Summary;
use moelab::train::metrics::{Event, SampleRecord};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

/// Updates from which speed and the time left are estimated.
const WINDOW: usize = 50;
/// Before so many seconds of a session no time left is given: the first updates compile and warm up.
const WARM_UP_SECONDS: f64 = 3.0;
const FINAL: &str = "final";

/// What a run has said so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    total: u32,
    update: u32,
    train_ce: f64,
    val_ce: Option<f64>,
    best: Option<(f64, u32)>,
    /// Of AdamW and Muon.
    lr: [f64; 2],
    session: u32,
    /// Update, tokens and seconds of the last updates of this session.
    window: VecDeque<(u32, u64, f64)>,
    skipped: u64,
}

impl Progress {
    /// A run of `total` updates of which none is made.
    pub fn new(total: u32) -> Self {
        Self { total, ..Self::default() }
    }

    /// Takes in an event.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Update(record) => {
                if record.time.session != self.session {
                    self.session = record.time.session;
                    self.window.clear();
                }
                (self.update, self.lr) = (record.update, [record.lr_adamw, record.lr_muon]);
                self.train_ce = record.train_ce;
                self.skipped += u64::from(record.skipped);
                if self.window.back().is_some_and(|(last, ..)| *last >= record.update) {
                    self.window.clear(); // The run went back: what stood here is to come again.
                }
                self.window.push_back((record.update, record.tokens, record.time.seconds));
                if self.window.len() > WINDOW {
                    self.window.pop_front();
                }
            }
            Event::Eval(record) => {
                self.val_ce = Some(record.val_ce);
                if record.val_ce.is_finite() && self.best.is_none_or(|(best, _)| record.val_ce < best) {
                    self.best = Some((record.val_ce, record.update));
                }
            }
            _ => {}
        }
    }

    /// Tokens a second by the clock, evaluations and checkpoints between the updates included.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let (first, last) = (self.window.front()?, self.window.back()?);
        Some((last.1 - first.1) as f64 / (last.2 - first.2)).filter(|rate| rate.is_finite() && *rate > 0.0)
    }

    /// Seconds until the last update, once there is something to estimate them from.
    pub fn seconds_left(&self) -> Option<f64> {
        let (first, last) = (self.window.front()?, self.window.back()?);
        let per_update = (last.2 - first.2) / f64::from(last.0 - first.0);
        let sound = last.2 >= WARM_UP_SECONDS && self.window.len() >= 3 && per_update.is_finite();
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
        if let Some(rate) = self.tokens_per_second() {
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

    /// The line for an event in a log: every `every` updates and at the last, every evaluation, every incident.
    pub fn line(&self, event: &Event, every: u32) -> Option<String> {
        let width = self.total.to_string().len();
        let place = |update: u32| format!("update {update:>width$}/{}", self.total);
        match event {
            Event::Update(record) => {
                let due = record.update % every.max(1) == 0 || record.update == self.total;
                due.then(|| format!("{}  {}", place(record.update), self.status()))
            }
            Event::Eval(record) => {
                let best = self.best.map_or(String::new(), |(ce, update)| format!("  best {ce:.4} at {update}"));
                let accuracy = 100.0 * record.accuracy;
                Some(format!("{}  validation {:.4}  accuracy {accuracy:.1} %{best}", place(record.update), record.val_ce))
            }
            Event::Incident(record) => {
                let detail = print::name(&record.detail);
                Some(format!("{}  {}: {detail}", place(record.update), record.incident.words()))
            }
            Event::Header(_) | Event::Sample(_) => None,
        }
    }
}

/// The result of a run: its losses against the baselines.
pub fn result_table(summary: &Summary) -> String {
    let mut text = format!(
        "{}: {}\n{} updates, {} tokens, {} tokens/s, {}\n\n",
        print::name(&summary.name),
        summary.exit.words(),
        thousands(u64::from(summary.updates)),
        thousands(summary.tokens),
        thousands(summary.tokens_per_second.round() as u64),
        print::name(&summary.adapter),
    );
    let _ = writeln!(text, "  {:<24} {:>12} {:>11} {:>14}", "validation", "nats a token", "perplexity", "final minus it");
    let mut row = |name: &str, ce: Option<f64>| {
        let Some(ce) = ce else { return };
        let difference = summary.final_val_ce.filter(|_| name != FINAL).map_or(String::new(), |last| format!("{:+.4}", last - ce));
        let line = format!("  {name:<24} {ce:>12.4} {:>11.2} {difference:>14}", ce.exp());
        let _ = writeln!(text, "{}", line.trim_end());
    };
    for (name, ce) in summary.baselines.named() {
        row(name, Some(ce));
    }
    row(&summary.best_update.map_or("best".to_string(), |update| format!("best, at update {update}")), summary.best_val_ce);
    row(FINAL, summary.final_val_ce);
    row("entropy of the source", summary.baselines.entropy);
    if summary.skipped_updates > 0 {
        let _ = writeln!(text, "\n  updates skipped for a non-finite loss or gradient: {}", summary.skipped_updates);
    }
    text
}

/// Samples, indented under what they were drawn with.
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

/// Where the text goes.
pub struct Terminal {
    progress: Progress,
    every: u32,
    bar: Option<ProgressBar>,
    log: Box<dyn Write>,
}

impl Terminal {
    /// Progress on stderr: a bar where it is a terminal, else a line every `every` updates.
    pub fn stderr(total_updates: u32, every: u32) -> Self {
        let style = "{bar:24} {pos}/{len}  {msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = std::io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(8);
            ProgressBar::with_draw_target(Some(u64::from(total_updates)), target).with_style(style.progress_chars("━╸ "))
        });
        Self { progress: Progress::new(total_updates), every, bar, log: Box::new(print::Stderr) }
    }

    /// Progress as lines into `log`.
    pub fn lines(total_updates: u32, every: u32, log: Box<dyn Write>) -> Self {
        Self { progress: Progress::new(total_updates), every, bar: None, log }
    }

    /// Shows an event. A terminal that cannot be written to is no reason to end a run.
    pub fn show(&mut self, event: &Event) {
        self.progress.note(event);
        match (&self.bar, event) {
            (Some(bar), Event::Update(record)) => {
                bar.set_position(u64::from(record.update));
                bar.set_message(self.progress.status());
            }
            (Some(bar), event) => self.progress.line(event, self.every).into_iter().for_each(|line| bar.println(line)),
            (None, event) => {
                if let Some(line) = self.progress.line(event, self.every) {
                    let _ = writeln!(self.log, "{line}");
                }
            }
        }
    }

    /// Ends the progress and shows the result.
    pub fn finish(&mut self, summary: &Summary, drawn: &[SampleRecord]) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let _ = write!(self.log, "\n{}\n{}", result_table(summary), samples(drawn));
    }
}

/// Minutes and seconds, with hours where there are any.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round().clamp(0.0, 1e9) as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}
