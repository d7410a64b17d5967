//! The app over recorded replies: pictures that are compared with those that were looked at, and the time of a frame.
//!
//! `fixtures/replies.jsonl` has, for each request, the replies of the real workspace to it. Record them again with
//! `MOELAB_RUNS=runs MOELAB_STUDY=exp8 MOELAB_RUN=quickstart cargo test --test app record -- --ignored`, and the pictures with
//! `UPDATE_SNAPSHOTS=1 cargo test --test app pictures`; then look at what has changed.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt::Write,
    fs,
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant},
};

use egui_kittest::{Harness, SnapshotOptions, SnapshotResults, kittest::Queryable};
use moelab::{
    gpu::AdapterChoice,
    lab::{
        suite::SuiteCommand,
        workspace::{Answer, Curve, Query, Reply, Request, RunEntry},
    },
    run::protocol::{Command, Value},
    ui::{App, Link},
};
use moelab_native::{machine::Resources, places::Runs, runner::Runner};

const REPLIES: &str = include_str!("fixtures/replies.jsonl");

/// A link that answers requests from a list, and no others.
#[derive(Default)]
struct Replay {
    known: Vec<(Request, Vec<Reply>)>,
    replies: VecDeque<Reply>,
    /// Requests for series that are in no list, answered by `curve`.
    curve: Option<fn(&Query) -> Vec<Curve>>,
}

impl Replay {
    fn recorded() -> Replay {
        Replay { known: REPLIES.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), ..Replay::default() }
    }
}

impl Link for Replay {
    fn send(&mut self, request: Request) {
        if let Some((_, replies)) = self.known.iter().find(|(known, _)| *known == request) {
            self.replies.extend(replies.clone());
        } else if let (Request::Read(query), Some(curve)) = (&request, self.curve) {
            self.replies.push_back(Reply::Read(Box::new(Answer { query: query.clone(), curves: curve(query) })));
        } else {
            println!("not recorded: {}", serde_json::to_string(&request).unwrap());
        }
    }

    fn poll(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    fn place(&self) -> String {
        "runs".into()
    }

    fn open(&mut self, _: egui::DroppedFileHandle) {}

    fn opened(&mut self) -> Option<(String, Result<Vec<u8>, String>)> {
        None
    }

    fn save(&mut self, folder: &str, files: &[(String, String)]) -> Result<String, String> {
        SAVED.with_borrow_mut(|saved| saved.extend_from_slice(files));
        Ok(folder.into())
    }

    fn has_files(&self) -> bool {
        true
    }
}

thread_local! {
    /// Name and content of the files that were saved.
    static SAVED: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

type Window = Harness<'static, Option<App<Replay>>>;

fn open(make: fn() -> Replay, size: [f32; 2], theme: egui::Theme) -> Window {
    Harness::builder()
        .with_size(size)
        .with_theme(theme)
        .with_max_steps(4)
        .with_render_cursor(false)
        .build_ui_state(move |ui, app: &mut Option<App<Replay>>| app.get_or_insert_with(|| App::new(ui.ctx(), make())).ui(ui), None)
}

fn press(window: &mut Window, name: &str) {
    window.get_by_label(name).click();
    settle(window);
    window.input_mut().events.push(egui::Event::PointerGone);
    settle(window);
}

fn settle(window: &mut Window) {
    (0..12).for_each(|_| window.step());
}

/// The screens that carry a result, in both themes and at the width of a phone.
#[test]
fn pictures_are_those_that_were_looked_at() {
    // Text and lines are the same on every adapter but for the last bit at their edges.
    let options = SnapshotOptions::default().output_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/pictures")).max_failed_pixels(60);
    let sizes = [("wide", [1280.0, 800.0], egui::Theme::Light), ("phone", [390.0, 844.0], egui::Theme::Dark)];
    let mut results = SnapshotResults::new();
    for (name, size, theme) in sizes {
        let mut window = open(Replay::recorded, size, theme);
        settle(&mut window);
        for (key, screen) in
            [(egui::Key::Num3, "runs"), (egui::Key::Num4, "curves"), (egui::Key::Num5, "experts"), (egui::Key::Num7, "compare")]
        {
            window.key_press(key);
            settle(&mut window);
            match screen {
                "runs" => press(&mut window, "show quickstart"),
                "compare" => {
                    window.key_press(egui::Key::Num3);
                    settle(&mut window);
                    let study = window.query_all_by(|node| node.label().is_some_and(|label| label.starts_with("Verdict of "))).next();
                    study.expect("a study is listed").click();
                    settle(&mut window);
                    window.input_mut().events.push(egui::Event::PointerGone);
                    settle(&mut window);
                }
                _ => {}
            }
            window.snapshot_options(format!("{screen}-{name}"), &options);
        }
        results.extend_harness(&mut window);
    }
}

#[test]
fn charts_and_maps_are_tables_and_files() {
    let mut window = open(Replay::recorded, [1280.0, 800.0], egui::Theme::Dark);
    settle(&mut window);
    window.key_press(egui::Key::Num3);
    settle(&mut window);
    press(&mut window, "show quickstart");
    let mut of = |key: egui::Key, table: &str| {
        window.key_press(key);
        settle(&mut window);
        press(&mut window, table);
        if let Some(folder) = std::env::var_os("MOELAB_SCREENS") {
            window.render().unwrap().save(Path::new(&folder).join(format!("{table}.png"))).unwrap();
        }
        press(&mut window, "Save CSV");
        press(&mut window, "Save SVG");
        let files = SAVED.with_borrow_mut(std::mem::take);
        let [(csv_name, csv), (svg_name, svg)] = <[(String, String); 2]>::try_from(files).expect("two files");
        if let Some(folder) = std::env::var_os("MOELAB_SCREENS") {
            fs::write(Path::new(&folder).join(&svg_name), &svg).unwrap();
        }
        window.key_press(egui::Key::Escape);
        settle(&mut window);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        let rows: Vec<Vec<String>> = csv.lines().map(|line| line.split(',').map(String::from).collect()).collect();
        (csv_name, rows, svg_name, svg)
    };
    let (csv_name, rows, svg_name, svg) = of(egui::Key::Num4, "Cross-entropy as a table");
    assert_eq!((csv_name.as_str(), svg_name.as_str()), ("quickstart-cross-entropy.csv", "quickstart-cross-entropy.svg"));
    assert_eq!(rows[0], ["\"updates\"", "\"training\"", "\"validation\""]);
    assert!(rows[1..].iter().all(|row| row[0].parse::<f64>().is_ok() && row[1..].iter().any(|cell| cell.parse::<f64>().is_ok())));
    assert!(svg.contains(">Cross-entropy</text>") && svg.contains("validation "), "{svg}");

    let (csv_name, rows, svg_name, svg) = of(egui::Key::Num5, "Load by layer and expert as a table");
    assert_eq!(
        (csv_name.as_str(), svg_name.as_str()),
        ("quickstart-load-by-layer-and-expert.csv", "quickstart-load-by-layer-and-expert.svg")
    );
    let experts = rows[0].len() - 1;
    for row in &rows[1..] {
        let sum: f64 = row[1..].iter().map(|cell| cell.parse::<f64>().unwrap()).sum();
        assert!((sum - experts as f64).abs() < 1e-6 * experts as f64, "the loads of {} are shares of a fair one: {sum}", row[0]);
    }
    assert!(svg.contains(">Load by layer and expert</text>") && svg.contains("= fair share"), "{svg}");
}

/// As many points as a reading returns at most, from runs of a million updates.
fn long(query: &Query) -> Vec<Curve> {
    let points = query.points.min(2048);
    let updates: Vec<u32> = (1..=points).map(|place| (f64::from(place) / f64::from(points) * 1e6) as u32).collect();
    let of = |series: &String| {
        let value = |update: &u32| Value(Some(2.0 + (f64::from(*update) * 1e-3).sin() / (1.0 + f64::from(*update) * 1e-5)));
        let mean: Vec<Value> = updates.iter().map(value).collect();
        Curve { series: series.clone(), updates: updates.clone(), mean, ..Curve::default() }
    };
    query.series.iter().map(of).collect()
}

fn eight_long_runs() -> Replay {
    let entry =
        |number: u64| RunEntry { name: format!("run-{number}"), seed: number, updates: 1_000_000, made: 1_000_000, ..RunEntry::default() };
    let runs = (0..8).map(entry).collect();
    Replay { known: vec![(Request::List, vec![Reply::Listed { runs, studies: Vec::new() }])], curve: Some(long), ..Replay::default() }
}

#[test]
fn a_frame_of_eight_runs_of_a_million_updates_takes_few_milliseconds() {
    let mut window = open(eight_long_runs, [1280.0, 800.0], egui::Theme::Light);
    settle(&mut window);
    window.key_press(egui::Key::Num3);
    settle(&mut window);
    for number in 0..8 {
        press(&mut window, &format!("show run-{number}"));
    }
    window.key_press(egui::Key::Num4);
    settle(&mut window);
    let shown = window.query_all_by(|node| node.label().is_some_and(|label| label.contains("last values: run-0"))).count();
    assert!(shown > 0, "the curves are shown");
    // Layout, shapes and triangles; drawing them is the GPU's.
    const FRAMES: u32 = 40;
    let start = processor_seconds();
    for _ in 0..FRAMES {
        window.step();
        let output = window.output();
        let triangles = window.ctx.tessellate(output.shapes.clone(), output.pixels_per_point);
        assert!(!triangles.is_empty());
    }
    // The mean: the system's clock of a thread has steps of milliseconds.
    let mean = (processor_seconds() - start) / f64::from(FRAMES);
    println!("a frame with 3 charts of 8 runs: {:.1} ms of processor time in the mean", 1e3 * mean);
    // Compiled for tests it is several times slower than what users have; this catches a frame that looks at every update.
    let limit = if cfg!(debug_assertions) { 0.15 } else { 0.016 };
    assert!(mean < limit, "{mean} s");
}

/// Seconds that this thread has computed: other processes of a busy machine do not count.
fn processor_seconds() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let nanoseconds = fs::read_to_string("/proc/thread-self/schedstat").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| START.elapsed().as_secs_f64(), |nanoseconds| nanoseconds * 1e-9)
}

#[test]
#[ignore = "records the replies of a folder of runs"]
fn record() {
    let named = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let (runs, study, run) = (named("MOELAB_RUNS"), named("MOELAB_STUDY"), named("MOELAB_RUN"));
    let places = Runs::new(Path::new(&runs), Resources { adapter: AdapterChoice::default(), cache: Path::new(&runs).join("cache") });
    let runner = Runner::spawn(move || moelab::lab::workspace_host::Workspace::new(places.clone()), || ()).unwrap();
    let read = |series: &[&str], points: u32| {
        let series = series.iter().map(|series| (*series).to_string()).collect();
        Request::Read(Query { run: run.clone(), series, from: 0, to: u32::MAX, points })
    };
    let of_study = |command: SuiteCommand| Request::Study { study: study.clone(), command };
    let requests = [
        Request::Session { command: Command::Subscribe(moelab::run::protocol::Subscription::default()) },
        Request::List,
        Request::Look { run: run.clone() },
        read(&["eval.val_ce", "grad_norm", "train_ce"], 2048),
        read(&["expert_load"], 240),
        read(&["expert_diversity"], 240),
        of_study(SuiteCommand::Reopen),
        of_study(SuiteCommand::Judge),
    ];
    let mut lines = String::new();
    for request in requests {
        runner.send(request.clone());
        let mut replies = Vec::new();
        let patience = if matches!(request, Request::Study { .. }) { 20 } else { 3 };
        while let Some(reply) = runner.wait(Duration::from_secs(patience)) {
            replies.push(match reply {
                // One run and one study are enough.
                Reply::Listed { mut runs, studies } => {
                    runs.retain(|entry| entry.name == run || entry.study.as_ref() == Some(&study));
                    Reply::Listed { runs, studies }
                }
                reply => reply,
            });
        }
        let _ = writeln!(lines, "{}", serde_json::to_string(&(request, replies)).unwrap());
    }
    fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/fixtures/replies.jsonl"), lines).unwrap();
}
