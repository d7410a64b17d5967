//! The app: one window that configures, starts and watches runs, on the desktop and in a browser's tab.
//!
//! It speaks the messages of a [workspace](crate::lab::workspace) and nothing else, through a [`Link`]: to a thread of the desktop app, or
//! to the page's worker. So it never blocks, whatever the trainer does, and a trainer that fails leaves it alive.
//!
//! - `state`: what is known, from replies; what is asked for.
//! - `theme`, `widgets`, `chart`, `heat`: the look; `saved`: charts as files.
//! - a file for each screen.
//!
//! egui draws a window anew for each frame from the state. Nothing moves by itself, so a frame is drawn after input or a reply, and every few seconds to look for runs of other processes.

mod along;
mod audit;
mod chart;
mod compare;
mod curves;
mod experts;
mod frame;
mod heat;
mod link;
mod live;
mod machine;
mod presets;
mod report;
mod runs;
mod sample;
mod saved;
mod screen;
mod setup;
mod start;
mod state;
mod storage;
mod study;
mod theme;
mod tokens;
mod widgets;

use std::{collections::BTreeMap, time::Duration};

use egui::{Context, Key, Ui};

use crate::lab::{
    suite::SuiteCommand,
    workspace::{Reply, Request},
};
use live::Stage;
pub use screen::Screen;
use state::State;

/// The way to a workspace.
///
/// Three implementations: a thread of the desktop app, the worker of the page, and that of a test.
pub trait Link {
    /// Sends a request. Never blocks.
    fn send(&mut self, request: Request);

    /// The next reply that has arrived. Never blocks.
    fn poll(&mut self) -> Option<Reply>;

    /// The name of the place of the runs: a folder, or this browser.
    fn place(&self) -> String;

    /// Reads a file that was dropped onto the window; [`Link::opened`] has its content.
    fn open(&mut self, file: egui::DroppedFileHandle);

    /// The name and the content of a file that was read, or why it cannot be.
    fn opened(&mut self) -> Option<(String, Result<Vec<u8>, String>)>;

    /// Saves files for the user: in a folder of this name beside the runs, or as downloads. Returns where.
    ///
    /// # Errors
    /// Why they cannot be saved.
    fn save(&mut self, folder: &str, files: &[(String, String)]) -> Result<String, String>;

    /// The address of the page, to which a link adds a config; none in a window of its own.
    fn address(&self) -> Option<String> {
        None
    }

    /// Whether the user has runs as files instead of folders ([`archive`](crate::lab::archive)).
    fn has_archives(&self) -> bool {
        false
    }

    /// Gives the user a file.
    ///
    /// # Errors
    /// Why it cannot be given.
    fn download(&mut self, name: &str, _: &[u8]) -> Result<(), String> {
        Err(format!("`{name}` is a folder here"))
    }

    /// Lets the user choose a file, which is read like one that was dropped.
    fn choose(&mut self) {}

    /// Reads a file that comes with the page, like one that was dropped.
    fn fetch(&mut self, _name: &str) {}

    /// Whether runs can read files of the machine, which are then named by their paths.
    fn has_files(&self) -> bool;
}

/// The longest time from a reply to the frame that shows it. Replies come far more often than that, and on a software renderer each frame costs the
/// trainer its processor.
pub const LATENCY: Duration = Duration::from_millis(100);

/// The app.
pub struct App<L> {
    link: L,
    state: State,
    screen: Screen,
    frame: frame::Frame,
    setup: setup::Setup,
    start: start::Start,
    runs: runs::Runs,
    curves: curves::Curves,
    experts: experts::Experts,
    sample: sample::Sample,
    compare: compare::Compare,
    audit: audit::Audit,
    report: report::Report,
    /// Configs and studies that were opened, by name.
    texts: BTreeMap<String, String>,
}

/// Whether a file is a text to learn, by its name.
pub fn is_text(name: &str) -> bool {
    let name = name.to_lowercase();
    [".txt", ".text", ".md", ".markdown"].iter().any(|ending| name.ends_with(ending))
}

/// The name under which a text is kept.
fn kept_name(file: &str) -> String {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).take(80).collect();
    let name = name.trim_matches(['.', '-']).to_string();
    if name.is_empty() { "text.txt".into() } else { name }
}

impl<L: Link> App<L> {
    /// The app, with fonts and styles set in the context.
    pub fn new(context: &Context, link: L) -> App<L> {
        theme::install(context);
        let mut state = State::default();
        state.has_archives = link.has_archives();
        state.ask(Request::Session { command: State::subscription() });
        state.list();
        App {
            link,
            state,
            screen: Screen::Start,
            frame: frame::Frame::default(),
            setup: setup::Setup::default(),
            start: start::Start::default(),
            runs: runs::Runs::default(),
            curves: curves::Curves::default(),
            experts: experts::Experts::default(),
            sample: sample::Sample::default(),
            compare: compare::Compare::default(),
            audit: audit::Audit::default(),
            report: report::Report::default(),
            texts: BTreeMap::new(),
        }
    }

    /// Sets fonts and styles in the context of another window, in which it is drawn from now on.
    pub fn dress(&self, context: &Context) {
        theme::install(context);
    }

    /// The link.
    pub fn link(&self) -> &L {
        &self.link
    }

    /// The screen that is shown.
    pub fn screen(&self) -> Screen {
        self.screen
    }

    /// Shows a screen.
    pub fn open_screen(&mut self, screen: Screen) {
        self.screen = screen;
    }

    /// Takes in what has arrived. Call it before each frame.
    pub fn receive(&mut self, context: &Context) {
        self.state.now = context.input(|input| input.time);
        while let Some(reply) = self.link.poll() {
            self.state.apply(reply);
        }
    }

    /// What happens, as one text for those who cannot see the window: the run or study, its state, its losses, a
    /// lack of room for runs, the last incident.
    pub fn told(&self) -> String {
        let mut lines = Vec::new();
        if let Some(live) = &self.state.live {
            let losses = [("training", live.train_ce), ("validation", live.val_ce)];
            let losses: String = losses.iter().filter_map(|(name, loss)| Some(format!(", {name} loss {:.4}", (*loss)?))).collect();
            lines.push(format!("{}: {}, update {} of {}{losses}", live.run, frame::live_state(live).1, live.update, live.updates));
            if let Stage::Failed(problem) = &live.stage {
                lines.push(problem.what.clone());
            }
        }
        if let Some(study) = &self.state.study {
            lines.push(format!("{}: {}", study.name, study.line));
            lines.extend(study.judged.as_ref().map(|judged| judged.text.clone()));
        }
        // As long as it lasts: the note of it gives way to the next.
        lines.extend(self.state.storage.filter(storage::Storage::is_low).map(|storage| storage.words()));
        let last = self.state.notes.back().filter(|note| note.about != storage::ABOUT);
        lines.extend(last.map(|note| format!("{}: {}", note.about, note.text)));
        lines.join("\n")
    }

    /// Fills the form from a link; nothing is started.
    pub fn open_link(&mut self, fragment: &str) {
        if self.setup.take_link(fragment) {
            self.screen = Screen::Setup;
        }
    }

    /// Takes the files that were dropped onto the window, or chosen: configs, and runs.
    fn take_dropped(&mut self, ui: &Ui) {
        ui.input(|input| input.raw.dropped_files.clone()).into_iter().for_each(|file| self.link.open(file));
        while let Some((name, content)) = self.link.opened() {
            let is_archive = name.to_lowercase().ends_with(".tar");
            let text = |bytes| String::from_utf8(bytes).map_err(|_| "it is not text: wanted a config, or the `.tar` of a run".to_string());
            match content {
                // A path, which the trainer reads, or a text, which is kept for it.
                Ok(_) if is_text(&name) && self.link.has_files() => {
                    self.start.take_path(&name);
                    self.screen = Screen::Start;
                }
                Ok(bytes) if is_text(&name) => match String::from_utf8(bytes) {
                    Ok(text) => self.state.ask(Request::Keep { name: kept_name(&name), text }),
                    Err(_) => self.state.note(state::Weight::Problem, &name, "it is not UTF-8: convert the file"),
                },
                Ok(archive) if is_archive => {
                    self.state.import(&name, archive);
                    self.screen = Screen::Runs;
                }
                content => match content.and_then(text) {
                    Ok(text) => self.take_text(&name, text),
                    Err(problem) => self.state.note(state::Weight::Problem, &name, problem),
                },
            }
        }
    }

    /// Takes a config, or a study, which refers to configs that were given before or with it.
    fn take_text(&mut self, name: &str, text: String) {
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name).to_string();
        let is_study =
            text.lines().any(|line| line.trim_start().strip_prefix("question").is_some_and(|rest| rest.trim_start().starts_with('=')));
        self.texts.insert(name.clone(), text.clone());
        if is_study && self.state.is_busy() {
            self.state.note(state::Weight::Problem, &name, "a run or a study is under way: stop it first");
        } else if is_study {
            self.state.new_study(name.trim_end_matches(".toml"), &name, self.texts.clone());
            self.screen = Screen::Compare;
        } else {
            self.setup.take_config(&text);
            self.screen = Screen::Setup;
        }
    }

    /// Takes note of the bytes that are stored, and of those that can be.
    pub fn note_storage(&mut self, used: f64, quota: f64) {
        self.state.note_storage(storage::Storage { used, quota });
    }

    /// Does what a button outside the window says: `quickstart`, `book`, `study`, `pause`, `continue`, `stop`, `resume`, `download`, and
    /// `start` for the run of the form or the study that is shown. Others do nothing.
    pub fn act(&mut self, action: &str) {
        match action {
            "quickstart" => start::train(&mut self.state, &mut self.screen),
            "book" => self.link.fetch(start::BOOK),
            "study" => start::run_study(&mut self.state, &mut self.screen),
            "pause" => self.state.pause(),
            "continue" => self.state.go_on(),
            "stop" => self.state.stop(),
            "resume" => {
                if let Some(run) = self.state.runs.iter().rev().find(|run| runs::is_resumable(run)) {
                    let run = run.name.clone();
                    self.state.resume(&run);
                    self.screen = Screen::Curves;
                }
            }
            "start" if self.screen == Screen::Compare => self.state.command_study(SuiteCommand::Run { retry_failed: false }),
            "start" => self.setup.start(&mut self.state, &mut self.screen),
            "download" => {
                let run = self.state.live.as_ref().map(|live| live.run.clone());
                if let Some(run) = run.or(self.state.runs.last().map(|entry| entry.name.clone())) {
                    self.state.ask(Request::Export { run });
                }
            }
            _ => {}
        }
    }

    /// Draws the window.
    pub fn ui(&mut self, ui: &mut Ui) {
        self.receive(ui.ctx());
        self.shortcuts(ui);
        self.take_dropped(ui);
        let is_narrow = ui.available_width() < theme::NARROW;
        self.frame.bars(ui, &mut self.state, &mut self.screen, &self.link.place(), is_narrow);
        let App { state, screen, setup, start, runs, curves, experts, sample, compare, audit, report, link, .. } = self;
        let before = *screen;
        frame::content(ui, *screen, is_narrow, |ui| match before {
            Screen::Start => start.show(ui, state, screen, setup, link.has_files()),
            Screen::Setup => setup.show(ui, state, screen, is_narrow, link.address()),
            Screen::Runs => runs.show(ui, state, screen, setup),
            Screen::Curves => curves.show(ui, state, screen),
            Screen::Experts => experts.show(ui, state, screen),
            Screen::Sample => sample.show(ui, state, screen),
            Screen::Compare => compare.show(ui, state, screen),
            Screen::Audit => audit.show(ui, state, screen),
            Screen::Report => report.show(ui, state, screen),
            Screen::Machine => machine::show(ui, state, link.has_files()),
        });
        for (name, text) in saved::take(ui.ctx()) {
            self.state.save("charts", vec![(saved::named(self.state.on_screen(before), &name), text)]);
        }
        for (folder, files) in self.state.take_saves() {
            match self.link.save(&folder, &files) {
                Ok(place) => {
                    let what = if let [(name, _)] = &files[..] { name.clone() } else { format!("{} files", files.len()) };
                    self.state.note(state::Weight::Info, &folder, format!("saved {what}: {place}"));
                }
                Err(problem) => self.state.note(state::Weight::Problem, &folder, problem),
            }
        }
        for (run, archive) in self.state.take_downloads() {
            if let Err(problem) = self.link.download(&format!("{}.tar", run.replace('/', "-")), &archive) {
                self.state.note(state::Weight::Problem, &run, problem);
            }
        }
        if std::mem::take(&mut self.state.is_choosing) {
            self.link.choose();
        }
        for name in std::mem::take(&mut self.state.fetches) {
            self.link.fetch(&name);
        }
        for name in std::mem::take(&mut self.state.kept) {
            start::train_on(&mut self.state, &mut self.screen, &name);
        }
        let requests = self.state.take_requests();
        let watched = self.state.live.as_ref().map(|live| &live.run);
        let is_shown_live = self.state.shown.iter().chain(&self.state.focus).chain(watched).any(|run| self.state.is_under_way(run));
        requests.into_iter().for_each(|request| self.link.send(request));
        // Replies wake the window; these frames ask for what changes without one: curves of a run under way, and the list.
        let pause = if is_shown_live { Duration::from_millis(500) } else { Duration::from_secs_f64(state::LIST) };
        ui.ctx().request_repaint_after(pause);
    }

    /// Space pauses and continues, digits choose a screen, `?` lists them.
    fn shortcuts(&mut self, ui: &Ui) {
        if ui.ctx().egui_wants_keyboard_input() {
            return;
        }
        let digits = [Key::Num1, Key::Num2, Key::Num3, Key::Num4, Key::Num5, Key::Num6, Key::Num7, Key::Num8, Key::Num9, Key::Num0];
        let pressed = |key: Key| ui.input(|input| input.key_pressed(key) && input.modifiers.is_none());
        if let Some(place) = digits.into_iter().position(pressed) {
            self.screen = Screen::ALL[place];
        }
        if ui.input(|input| input.key_pressed(Key::Questionmark)) {
            self.frame.are_shortcuts_shown ^= true;
        }
        let has_focus = ui.memory(|memory| memory.focused().is_some());
        if !has_focus && pressed(Key::Space) {
            match self.state.live.as_ref().map(|live| &live.stage) {
                Some(Stage::Training) => self.state.pause(),
                Some(Stage::Paused) => self.state.go_on(),
                _ => {}
            }
        }
    }
}
