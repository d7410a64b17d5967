//! The app, driven by the accessible names of its controls, with the real trainer on its own thread.
#![cfg(feature = "app")]

mod replay;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use egui_kittest::{
    Harness,
    kittest::{By, NodeT, Queryable},
};
use moelab::{gpu::AdapterChoice, ui::App};
use moelab_native::{desk::Desk, machine::Resources};

type Window = Harness<'static, Option<App<Desk>>>;

fn open(runs: &Path, size: [f32; 2], theme: egui::Theme) -> Window {
    let runs = runs.to_path_buf();
    // A model may generate characters that no font has. The renderer, and with it a second device, is made for the first picture only.
    Harness::builder().with_size(size).with_theme(theme).with_max_steps(4).allow_missing_glyphs().with_render_cursor(false).build_ui_state(
        move |ui, app: &mut Option<App<Desk>>| {
            let app = app.get_or_insert_with(|| {
                let resources = Resources { adapter: AdapterChoice::default(), cache: runs.join("cache") };
                App::new(ui.ctx(), Desk::open(&runs, resources, || ()).unwrap())
            });
            app.ui(ui);
        },
        None,
    )
}

fn settle(window: &mut Window, seconds: f64) {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
        window.step();
    }
}

fn save(window: &mut Window, name: &str) {
    if let Some(folder) = std::env::var_os("MOELAB_SCREENS") {
        fs::create_dir_all(&folder).unwrap();
        window.render().unwrap().save(Path::new(&folder).join(format!("{name}.png"))).unwrap();
    }
}

/// Presses a control by its name, once it is there.
fn press(window: &mut Window, name: &str) {
    wait_until(window, 60, name, |window| window.query_by_label(name).is_some());
    window.get_by_label(name).click();
    settle(window, 0.2);
    // What appears under the pointer is not hovered.
    window.input_mut().events.push(egui::Event::PointerGone);
    settle(window, 0.1);
}

/// All texts that are shown.
fn texts(window: &Window) -> Vec<String> {
    let nodes = window.query_all(By::new());
    nodes.filter_map(|node| node.accesskit_node().label().or(node.accesskit_node().value())).collect()
}

/// Draws frames until a condition holds.
fn wait_until(window: &mut Window, most: u64, what: &str, condition: impl Fn(&Window) -> bool) {
    let end = Instant::now() + Duration::from_secs(most);
    while !condition(window) {
        assert!(Instant::now() < end, "no `{what}` in {most} s; there are {:#?}", texts(window));
        std::thread::sleep(Duration::from_millis(20));
        window.step();
    }
}

/// Updates made and in total, from the bar above.
fn update(window: &Window) -> Option<(u32, u32)> {
    let found = texts(window).into_iter().find_map(|text| Some(text.strip_prefix("update ")?.split([',', ' ']).next()?.to_string()))?;
    let (made, all) = found.split_once('/')?;
    Some((made.parse().ok()?, all.parse().ok()?))
}

fn shows(window: &Window, text: &str) -> bool {
    texts(window).iter().any(|shown| shown.contains(text))
}

#[test]
fn a_run_is_started_watched_paused_stepped_stopped_resumed_and_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let mut window = open(folder.path(), [1280.0, 800.0], egui::Theme::Light);
    settle(&mut window, 0.3);
    press(&mut window, "Train");
    wait_until(&mut window, 240, "update 3", |window| update(window).is_some_and(|(made, all)| made >= 3 && all == 500));
    // The curve moves: the chart tells its last value.
    let last =
        |window: &Window| texts(window).into_iter().find(|text| text.starts_with("Cross-entropy, nats per token: last values: training"));
    wait_until(&mut window, 30, "a curve", |window| last(window).is_some());
    let before = last(&window);
    wait_until(&mut window, 60, "another value", |window| last(window) != before);

    press(&mut window, "Pause");
    wait_until(&mut window, 30, "paused", |window| shows(window, "paused"));
    let (paused, _) = update(&window).unwrap();
    settle(&mut window, 1.0);
    assert_eq!(update(&window).unwrap().0, paused);
    press(&mut window, "Step");
    wait_until(&mut window, 30, "a step", |window| update(window) == Some((paused + 1, 500)) && shows(window, "paused"));
    press(&mut window, "Continue");
    wait_until(&mut window, 60, "more updates", |window| update(window).is_some_and(|(made, _)| made > paused + 2));
    press(&mut window, "Stop");
    wait_until(&mut window, 60, "stopped", |window| shows(window, "stopped"));
    let (stopped, _) = update(&window).unwrap();
    save(&mut window, "run-stopped");
    let summary = fs::read_to_string(folder.path().join("quickstart/summary.json")).unwrap();
    assert!(summary.contains("\"exit\": \"interrupted\"") && summary.contains(&format!("\"updates\": {stopped}")), "{summary}");

    press(&mut window, "Resume");
    wait_until(&mut window, 120, "updates after the last", |window| update(window).is_some_and(|(made, _)| made > stopped));
    press(&mut window, "Stop");
    wait_until(&mut window, 60, "stopped", |window| shows(window, "stopped"));

    // The list names it, the experts are shown, and its model generates a text although the run is over.
    press(&mut window, "Runs");
    wait_until(&mut window, 30, "the run", |window| shows(window, "show quickstart"));
    press(&mut window, "Experts");
    wait_until(&mut window, 30, "a heat map", |window| shows(window, "Load by layer and expert, shares of a fair load: layer 0"));
    press(&mut window, "Load by layer and expert as a table");
    press(&mut window, "Save CSV");
    let saved = fs::read_to_string(folder.path().join("charts/quickstart-load-by-layer-and-expert.csv")).unwrap();
    assert!(saved.starts_with("\"router call\",\"expert 0\"") && saved.lines().count() == 3, "{saved}");
    window.key_press(egui::Key::Escape);
    settle(&mut window, 0.2);
    press(&mut window, "Sample");
    press(&mut window, "Open the model");
    wait_until(&mut window, 120, "the model", |window| shows(window, "open for reading"));
    press(&mut window, "Generate");
    wait_until(&mut window, 120, "a text", |window| shows(window, ", temperature 0.8"));
    save(&mut window, "run-sampled");
    press(&mut window, "Close");
}

#[test]
fn a_study_of_the_command_line_is_opened_with_its_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("base.toml"), include_str!("../../../tests/helpers/tiny.toml")).unwrap();
    let study = "question = \"Is the balance loss needed?\"\nbase = \"base.toml\"\nrepeats = 4\n[arms.none]\nset = [\"model.balance.coefficient=0.0\"]\n[arms.wide]\nset = [\"model.ffn.width=32\"]\n";
    fs::write(path("study.toml"), study).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_moelab"))
        .args(["suite", "run"])
        .arg(path("study.toml"))
        .arg("--out")
        .arg(path("runs/balance"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut window = open(&path("runs"), [1280.0, 800.0], egui::Theme::Dark);
    settle(&mut window, 0.5);
    press(&mut window, "Runs");
    press(&mut window, "Verdict of balance");
    wait_until(&mut window, 60, "the intervals", |window| shows(window, "Differences to the control: none"));
    let verdict = String::from_utf8_lossy(&made.stdout).into_owned();
    let sentence = verdict.lines().find(|line| line.contains("none")).unwrap().trim();
    assert!(shows(&window, sentence), "{sentence}\n{:#?}", texts(&window));
    save(&mut window, "study");
    press(&mut window, "Make the report");
    wait_until(&mut window, 60, "the report", |window| shows(window, "Copy report.md"));
    let save_button = texts(&window).into_iter().find(|text| text.starts_with("Save the report")).unwrap();
    press(&mut window, &save_button);
    settle(&mut window, 0.3);
    // The same files as the command line's.
    for name in ["report.md", "report.html", "results.csv"] {
        let saved = fs::read_to_string(path("runs/balance").join(name)).unwrap();
        assert!(saved.contains("none"), "{name}");
    }
    // Every finding of the command line's audit has its place.
    press(&mut window, "Audit");
    settle(&mut window, 0.3);
    assert!(texts(&window).iter().any(|text| text.contains("checks without a finding")), "{:#?}", texts(&window));
    press(&mut window, "Compare");
    press(&mut window, "Curves of all arms");
    wait_until(&mut window, 60, "bands", |window| shows(window, "Validation cross-entropy, nats per token: last values: control (4)"));
    save(&mut window, "study-curves");
}

#[test]
fn a_run_of_the_command_line_appears_and_its_curve_moves_while_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let mut window = open(folder.path(), [1280.0, 800.0], egui::Theme::Light);
    settle(&mut window, 0.3);
    press(&mut window, "Runs");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/quickstart.toml");
    let mut other = Command::new(env!("CARGO_BIN_EXE_moelab"))
        .args(["train", config, "--out"])
        .arg(folder.path().join("other"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Nobody asks for the list.
    wait_until(&mut window, 120, "the run", |window| shows(window, "show other"));
    press(&mut window, "Open other");
    let last =
        |window: &Window| texts(window).into_iter().find(|text| text.starts_with("Cross-entropy, nats per token: last values: training"));
    wait_until(&mut window, 120, "a curve", |window| last(window).is_some());
    let before = last(&window);
    wait_until(&mut window, 60, "another value", |window| last(window) != before);
    assert!(other.try_wait().unwrap().is_none(), "the run is still being made");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn the_form_names_every_field_and_shows_every_problem_at_its_field() {
    let folder = tempfile::tempdir().unwrap();
    // Fails if an input has no name.
    let mut window = open(folder.path(), [1280.0, 12_000.0], egui::Theme::Light);
    settle(&mut window, 0.3);
    press(&mut window, "Setup");
    settle(&mut window, 0.3);
    for section in ["data", "optimizer", "schedule"] {
        press(&mut window, section);
    }
    let shown = texts(&window);
    for key in ["depth.layers", "router.top_k", "attention.heads", "updates", "muon.lr"] {
        assert!(shown.iter().any(|text| text == key), "{key} in {shown:#?}");
    }
    // A field of the language is there, one of text files is not: it would have no effect.
    assert!(shows(&window, "language.") && !shown.iter().any(|text| text == "separator"), "{shown:#?}");
    assert!(shows(&window, "parameters, active per token"));
}

const TINY: &[u8] = include_bytes!("../../../tests/helpers/tiny.toml");

/// A file that is dropped onto the window.
#[derive(Debug)]
struct Dropped(PathBuf);

impl egui::DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        fs::read(&self.0).map_err(|error| error.to_string())
    }
}

#[test]
fn dropped_files_are_configs_studies_texts_and_runs_or_say_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut window = open(&folder.path().join("runs"), [1280.0, 2000.0], egui::Theme::Light);
    settle(&mut window, 0.3);
    let drop = |window: &mut Window, name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        window.input_mut().dropped_files.push(Arc::new(Dropped(path)));
        settle(window, 0.3);
    };
    let has_value = |window: &Window, wanted: &str| {
        window.query_all(By::new()).any(|node| node.accesskit_node().value().is_some_and(|value| value.ends_with(wanted)))
    };
    drop(&mut window, "mine.toml", TINY);
    settle(&mut window, 0.3);
    assert!(has_value(&window, "A config of mine") || shows(&window, "A config of mine"), "{:#?}", texts(&window));
    assert!(shows(&window, "The config of the next run") && !shows(&window, "has problems"), "{:#?}", texts(&window));
    drop(&mut window, "poems.txt", b"A rose is a rose.\n");
    assert!(has_value(&window, "poems.txt"), "{:#?}", texts(&window));
    // Little room for runs is told as long as it lasts, whatever happens meanwhile.
    window.state_mut().as_mut().unwrap().note_storage(f64::from(90 << 20), f64::from(100 << 20));
    let told = |window: &Window| window.state().as_ref().unwrap().told();
    let little = "10 MiB of 100 MiB are left";
    assert_eq!(told(&window).matches(little).count(), 1, "{}", told(&window));
    drop(&mut window, "picture.png", &[0x89, b'P', b'N', b'G', 0xff]);
    assert!(shows(&window, "it is not text: wanted a config, or the `.tar` of a run"), "{:#?}", texts(&window));
    assert!(told(&window).contains(little) && told(&window).contains("it is not text"), "{}", told(&window));
    window.state_mut().as_mut().unwrap().note_storage(0.0, 1e12);
    assert!(!told(&window).contains(little), "{}", told(&window));
    drop(&mut window, "broken.tar", b"no archive");
    wait_until(&mut window, 30, "a refusal", |window| shows(window, "import: "));
    assert_eq!(
        fs::read_dir(folder.path().join("runs"))
            .map_or(0, |names| names.filter(|name| name.as_ref().unwrap().file_name() != "cache").count()),
        0
    );
    // A study refers to configs that were given before it.
    drop(&mut window, "base.toml", TINY);
    drop(
        &mut window,
        "width.toml",
        b"question = \"Does width help?\"\nbase = \"base.toml\"\nrepeats = 2\n[arms.wide]\nset = [\"model.width=24\"]\n",
    );
    wait_until(&mut window, 60, "the question of the study", |window| shows(window, "Does width help?"));
}

/// Pictures of every screen, for people and for the README:
/// `MOELAB_SCREENS=out MOELAB_RUNS=runs MOELAB_STUDY=exp8 MOELAB_RUN=quickstart cargo test --test app screens -- --ignored`.
#[test]
#[ignore = "draws pictures of a folder of runs for people"]
fn screens() {
    let named = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let (runs, study, run) = (named("MOELAB_RUNS"), named("MOELAB_STUDY"), named("MOELAB_RUN"));
    let is_read = |window: &Window| !["reading", "Opening the study", "Measuring"].iter().any(|text| shows(window, text));
    let sizes = std::env::var("MOELAB_SIZES").unwrap_or("1280,1920,390".into());
    let all = [("1280", [1280.0, 800.0]), ("1920", [1920.0, 1080.0]), ("390", [390.0, 844.0])];
    for (size, extent) in all.into_iter().filter(|(size, _)| sizes.contains(size)) {
        for (theme, name) in [(egui::Theme::Light, "light"), (egui::Theme::Dark, "dark")] {
            let mut window = open(Path::new(&runs), extent, theme);
            let picture = |window: &mut Window, screen: &str| {
                settle(window, 1.0);
                wait_until(window, 120, "what was read", is_read);
                settle(window, 0.3);
                save(window, &format!("{screen}-{size}-{name}"));
            };
            wait_until(&mut window, 60, "the list", |window| shows(window, "Runs here"));
            picture(&mut window, "start");
            window.key_press(egui::Key::Num2);
            picture(&mut window, "setup");
            window.key_press(egui::Key::Num3);
            picture(&mut window, "runs");
            press(&mut window, &format!("Verdict of {study}"));
            wait_until(&mut window, 60, "the verdict", |window| shows(window, "Differences to the control"));
            picture(&mut window, "compare");
            press(&mut window, "Curves of all arms");
            picture(&mut window, "arms");
            window.key_press(egui::Key::Num3);
            settle(&mut window, 0.3);
            press(&mut window, &format!("Open {run}"));
            picture(&mut window, "curves");
            for (key, screen) in [
                (egui::Key::Num5, "experts"),
                (egui::Key::Num6, "sample"),
                (egui::Key::Num8, "audit"),
                (egui::Key::Num9, "report"),
                (egui::Key::Num0, "machine"),
            ] {
                window.key_press(key);
                picture(&mut window, screen);
            }
        }
    }
}
