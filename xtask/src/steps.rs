//! The commands of each task, as a list that a dry run prints and the other modes run, time and count.

use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    machine::{DebianRust, Machine},
    rustdoc,
};

/// How the tests of a step are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The step is not a test; it counts only if it fails.
    Nothing,
    /// The step is one test.
    One,
    /// By the `test result:` lines of Rust's test harness.
    Cargo,
    /// As `Cargo`, for tests that an earlier step counted as skipped.
    CargoIgnored,
    /// By the summary lines of Node's test runner.
    Node,
}

/// One command of a task.
pub struct Step {
    /// What it does.
    pub title: &'static str,
    /// The command, run in the workspace folder.
    pub command: Command,
    /// How its tests are counted.
    pub count: Count,
    /// What later steps need, one after another from the first test of this one on: tests often wait.
    pub alongside: Vec<Command>,
}

/// Tests counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed tests.
    pub passed: usize,
    /// Failed tests, and steps that failed without a failed test.
    pub failed: usize,
    /// Ignored tests, and those that said that they skip what they need something for that the machine lacks.
    pub skipped: usize,
    /// Tests of the test program that is running that said so: the harness will count them as passed.
    pub said: usize,
}

/// What such a test prints, in a line of its own or, where one test runs at a time, after its name. `tests/helpers/skipped.rs` prints it.
const SKIPPED: &str = "skipped: ";

fn step(title: &'static str, count: Count, program: impl AsRef<OsStr>, arguments: &[&str]) -> Step {
    let mut command = Command::new(program);
    command.args(arguments);
    Step { title, command, count, alongside: Vec::new() }
}

/// The cargo that runs this.
fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Features that are off by default but tested.
const FEATURES: &str = "moelab-native/parquet,moelab-native/app";

/// The arguments of the tests that need no browser.
const TESTS: [&str; 6] = ["test", "--locked", "--workspace", "--features", FEATURES, "--no-fail-fast"];

/// Starts to compile the tests, which takes minutes, while the set-up downloads. None if cargo cannot be started.
pub fn compile_tests(root: &Path) -> Option<Child> {
    let mut command = Command::new(cargo());
    command.current_dir(root).args(TESTS).args(["--no-run", "--quiet"]);
    println!("Meanwhile the tests are compiled.");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

/// All tests, including those of the page. The tests use a debug build of the page: it compiles faster than a release
/// build and keeps its assertions.
pub fn test(root: &Path, machine: &Machine) -> Vec<Step> {
    let mut steps = vec![step("tests", Count::Cargo, cargo(), &TESTS)];
    let mut assembler = Command::new(cargo());
    assembler.args(["build", "--locked", "--package", "xtask", "--features", "page", "--bin", "xtask-page"]);
    let compile = page(machine, "dev").into_iter().next().map(|compile| compile.command);
    steps[0].alongside = compile.iter().chain([&assembler]).filter_map(yielding).collect();
    // Op and model tests run on the newer Mesa, which has every kind of kernel; where there is a GPU, on both.
    if let Some(run) = &machine.newer_mesa {
        let mut all_kernels = step("op and model tests on a newer Mesa", Count::Cargo, cargo(), &TESTS);
        all_kernels.command.args(["--test", "ops", "--test", "model"]);
        let on_mesa = if machine.has_gpu { &mut all_kernels } else { &mut steps[0] };
        on_mesa.command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", run.with_file_name("run-tests"));
        if machine.has_gpu {
            steps.push(all_kernels);
        }
    }
    let pure = ["check", "--locked", "--package", "moelab", "--lib", "--no-default-features", "--features", "ui"];
    steps.push(step("compile without the engine", Count::One, cargo(), &pure));
    let mut docs = step("documentation without warnings", Count::One, cargo(), &TESTS);
    docs.command.arg("--doc").env(rustdoc::DOCUMENTED, "moelab");
    docs.command.envs(env::var_os("RUSTDOC").map(|rustdoc| (rustdoc::REAL, rustdoc)));
    docs.command.envs(env::current_exe().map(|xtask| ("RUSTDOC", xtask)));
    steps.push(docs);
    steps.extend(page(machine, "dev"));
    // The same packages as above: a narrower selection would change the dependencies' features and recompile them.
    let mut browser = vec!["test", "--locked", "--workspace", "--features", FEATURES, "--test", "web", "--", "--ignored"];
    browser.extend(["--nocapture", "--test-threads=1", "--skip", "the_published_size"]);
    steps.push(step(
        "tests in the browser, without the_published_size, which takes a quarter of an hour",
        Count::CargoIgnored,
        cargo(),
        &browser,
    ));
    let node = machine.node.clone().unwrap_or_else(|| "node".into());
    steps.push(step("tests of the page's JavaScript", Count::Node, node, &["--test", "--test-reporter=tap", "tests/web/remedy.test.mjs"]));
    let mut python =
        step("syntax of the scripts beside the golden files", Count::One, machine.python.clone().unwrap_or_else(|| "python3".into()), &[]);
    let scripts = files_below(&root.join("tests"), "py");
    if !scripts.is_empty() {
        python.command.args(["-c", "import ast, sys; [ast.parse(open(name).read(), name) for name in sys.argv[1:]]"]).args(scripts);
        steps.push(python);
    }
    steps
}

/// The same command with low priority and without a word; `None` where there is no `nice`.
fn yielding(command: &Command) -> Option<Command> {
    if !cfg!(unix) {
        return None;
    }
    let mut nice = Command::new("nice");
    nice.args(["-n", "10"]).arg(command.get_program()).args(command.get_args());
    nice.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.get_envs().filter(|(_, value)| value.is_none()).for_each(|(name, _)| {
        nice.env_remove(name);
    });
    nice.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(nice)
}

/// The native program, then the quickstart; `arguments` go to `moelab train`.
pub fn run(root: &Path, arguments: &[String]) -> Vec<Step> {
    let run = (1..).map(|n| format!("runs/quickstart-{n}")).find(|run| !root.join(run).exists()).unwrap_or_default();
    let moelab = ["run", "--locked", "--release", "--package", "moelab-native", "--bin", "moelab", "--"];
    let mut train = step("train the quickstart", Count::Nothing, cargo(), &moelab);
    train.command.args(["train", "configs/quickstart.toml", "--out", &run]).args(arguments);
    let build = ["build", "--locked", "--release", "--package", "moelab-native", "--bin", "moelab"];
    vec![step("build moelab", Count::Nothing, cargo(), &build), train]
}

/// The desktop app; `arguments` go to `moelab-app`.
pub fn app(arguments: &[String]) -> Vec<Step> {
    let app = ["run", "--locked", "--release", "--package", "moelab-native", "--features", "app", "--bin", "moelab-app", "--"];
    let mut start = step("start the app", Count::Nothing, cargo(), &app);
    start.command.args(arguments);
    vec![start]
}

/// The page in `dist/`, compiled in the cargo profile `profile`.
pub fn page(machine: &Machine, profile: &str) -> Vec<Step> {
    let build = [
        "build",
        "--locked",
        "--package",
        "moelab-web",
        "--package",
        "moelab-page",
        "--target",
        "wasm32-unknown-unknown",
        "--profile",
        profile,
    ];
    // A page for tests runs for moments: what is not hot is compiled without optimisation.
    let unoptimised =
        ["moelab", "image", "moxcms", "pxfm", "tokenizers"].map(|package| format!("profile.dev.package.{package}.opt-level=0"));
    let unoptimised: Vec<&str> = unoptimised.iter().flat_map(|setting| ["--config", setting]).collect();
    let build = if profile == "dev" { [&build[..], &unoptimised].concat() } else { build.to_vec() };
    let mut compile = step("compile the page", Count::Nothing, cargo(), &build);
    let mut target = "target";
    // Compiled for size, the standard library is a good part smaller; that takes an option that only nightly toolchains have without this variable.
    if machine.wasm_target.is_some() && machine.rust_src.is_some() && profile == "web" {
        compile.command.args(["-Z", "build-std=std,panic_abort", "-Z", "build-std-features=optimize_for_size"]).env("RUSTC_BOOTSTRAP", "1");
    }
    if let (None, Some(rust)) = (&machine.wasm_target, &machine.debian_rust) {
        target = "target/web";
        compile = step("compile the page, and the standard library with it", Count::Nothing, &rust.cargo, &build);
        compile.command.args(["-Z", "build-std=std,panic_abort", "-Z", "build-std-features=optimize_for_size", "--target-dir", target]);
        debian_environment(&mut compile.command, rust);
    }
    let folder = if profile == "dev" { "debug" } else { profile };
    let [trainer, window] = ["web", "page"].map(|name| format!("{target}/wasm32-unknown-unknown/{folder}/moelab_{name}.wasm"));
    let assemble = ["run", "--locked", "--package", "xtask", "--features", "page", "--bin", "xtask-page", "--", "dist", &trainer, &window];
    let mut steps = vec![compile, step("assemble the page in dist/", Count::Nothing, cargo(), &assemble)];
    if profile == "web" {
        steps.extend(smaller(machine));
    }
    steps
}

/// Binaryen as npm has it. That of Debian 12 (108) writes modules that browsers refuse.
const BINARYEN: &str = "binaryen@132.0.0";

/// What rustc's modules use. With `--all-features` Binaryen would write what browsers do not read yet.
const WASM_FEATURES: [&str; 9] = [
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-call-indirect-overlong",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
    "--enable-simd",
];

/// Makes the modules of the page smaller by about a sixth, where there is npm; the page works without it.
fn smaller(machine: &Machine) -> Vec<Step> {
    let (Some(npm), Some(node)) = (&machine.npm, &machine.node) else {
        println!("  Without npm the page is not made smaller by Binaryen (wasm-opt).");
        return Vec::new();
    };
    let install = ["install", "--no-audit", "--no-fund", "--no-save", "--prefix", "target/binaryen", BINARYEN];
    let mut steps = vec![step("fetch Binaryen", Count::Nothing, npm, &install)];
    for (title, name) in [("make the trainer smaller", "web"), ("make the window smaller", "page")] {
        let module = format!("dist/moelab_{name}_bg.wasm");
        let program = "target/binaryen/node_modules/binaryen/bin/wasm-opt";
        let arguments = [program, "-Oz", "--strip-debug", "--strip-producers", &module, "-o", &module];
        steps.push(step(title, Count::Nothing, node, &[&arguments[..], &WASM_FEATURES].concat()));
    }
    steps
}

/// Debian's compiler is a stable release, which needs `RUSTC_BOOTSTRAP` for `-Z`; rustup's cargo sets variables that must be unset.
fn debian_environment(command: &mut Command, rust: &DebianRust) {
    command.env("RUSTC", &rust.rustc).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &rust.linker);
    for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTDOC", "CARGO", "CARGO_ENCODED_RUSTFLAGS", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
}

/// The files below `folder` that end in `.extension`, in order.
fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(files_below(&path, extension));
        } else if path.extension() == Some(OsStr::new(extension)) {
            files.push(path);
        }
    }
    files.sort();
    files
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}\n  $", self.title)?;
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                write!(f, " {}={}", name.display(), value.display())?;
            }
        }
        write!(f, " {}", self.command.get_program().display())?;
        self.command.get_args().try_for_each(|argument| write!(f, " {}", argument.display()))
    }
}

/// Runs `steps` in the folder `root` until one fails.
///
/// # Errors
/// A step that cannot be started. If a step fails, the process exits with its exit code.
pub fn run_all(root: &Path, steps: Vec<Step>) -> Result<()> {
    for mut step in steps {
        println!("\n== {step}");
        let start = Instant::now();
        let status =
            step.command.current_dir(root).status().with_context(|| format!("starting {}", step.command.get_program().display()))?;
        println!("-- {}: {}", step.title, seconds(start.elapsed()));
        if !status.success() {
            eprintln!("error: step `{}` ended with {status}", step.title);
            std::process::exit(status.code().unwrap_or(1));
        }
    }
    Ok(())
}

/// Runs all `steps` in the folder `root`, even if some fail, and prints the time of each and the number of tests; the last
/// line is `N passed, N failed`. Exits the process with code 1 if anything failed.
///
/// # Errors
/// None; [`run_all`] has the same signature.
pub fn test_all(root: &Path, steps: Vec<Step>) -> Result<()> {
    let mut tally = Tally::default();
    let mut times = Vec::new();
    let mut broken = Vec::new();
    for mut step in steps {
        println!("\n== {step}");
        let start = Instant::now();
        let before = tally.failed;
        let ok = counted(&mut step, root, &mut tally).unwrap_or_else(|error| {
            println!("{error:#}");
            false
        });
        if !ok && tally.failed == before {
            tally.failed += 1;
        }
        if tally.failed > before {
            broken.push(step.title);
        }
        times.push((step.title, start.elapsed()));
    }
    println!();
    times.iter().for_each(|(title, time)| println!("{:>9}  {title}", seconds(*time)));
    broken.iter().for_each(|title| println!("failed: {title}"));
    println!("{tally}");
    if tally.failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// Runs one step, forwarding its output; returns whether it succeeded.
fn counted(step: &mut Step, root: &Path, tally: &mut Tally) -> Result<bool> {
    let program = step.command.get_program().display().to_string();
    step.command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = step.command.spawn().with_context(|| format!("starting {program}"))?;
    let output = process.stdout.take().context("its output is piped")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        tally.read(step.count, &line);
        if line.starts_with("running ") && !step.alongside.is_empty() {
            let (root, commands) = (root.to_path_buf(), std::mem::take(&mut step.alongside));
            // The steps that need it say whether it went well: they do the same.
            thread::spawn(move || commands.into_iter().for_each(|mut command| drop(command.current_dir(&root).status())));
        }
    }
    let ok = process.wait()?.success();
    if step.count == Count::One && ok {
        tally.passed += 1;
    }
    Ok(ok)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

impl Tally {
    /// Counts a line of output.
    pub fn read(&mut self, count: Count, line: &str) {
        match count {
            Count::Nothing | Count::One => {}
            Count::Cargo | Count::CargoIgnored => {
                if line.starts_with(SKIPPED) || line.starts_with("test ") && line.contains(&format!(" ... {SKIPPED}")) {
                    self.said += 1;
                }
                let Some((_, result)) = line.split_once("test result: ") else { return };
                // "ok. 3 passed; 0 failed; 1 ignored; ..."
                let words: Vec<&str> = result.split([' ', ';']).collect();
                let number = |name| words.windows(2).find(|pair| pair[1] == name).and_then(|pair| pair[0].parse().ok()).unwrap_or(0);
                let (passed, failed) = (number("passed"), number("failed"));
                self.passed += passed;
                self.failed += failed;
                self.skipped += number("ignored");
                if count == Count::CargoIgnored {
                    self.skipped = self.skipped.saturating_sub(passed + failed);
                }
                let said = std::mem::take(&mut self.said).min(self.passed);
                (self.passed, self.skipped) = (self.passed - said, self.skipped + said);
            }
            Count::Node => {
                let Some((word, number)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) else { return };
                let number = number.parse().unwrap_or(0);
                match word {
                    "pass" => self.passed += number,
                    "fail" => self.failed += number,
                    "skipped" => self.skipped += number,
                    _ => {}
                }
            }
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
