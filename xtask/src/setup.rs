//! Set-up: what a task needs, what is present, and how to install the rest.
//!
//! Planning is a pure function of the [`Machine`]; the plan is printed, with reasons, before anything is installed.
//! Only what is missing is installed, and nothing is ever removed. If the user may not install packages, the error has
//! the command to run.

use std::{
    fmt, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::machine::{self, Machine, Rights, System, rustup_refused};

/// What the set-up is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Native training.
    Run,
    /// Every test.
    Test,
    /// Building the page.
    Web,
}

/// A way to install a missing requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Packages for apt-get.
    Apt(&'static [&'static str]),
    /// `rustup target add wasm32-unknown-unknown`.
    RustupTarget,
    /// `rustup component add rust-src`; what needs it does without.
    RustupSources,
    /// `sh xtask/src/mesa.sh FOLDER`; what needs it is skipped.
    NewerMesa,
}

/// One thing that a task needs.
#[derive(Clone, Debug)]
pub struct Need {
    /// What it is.
    pub name: &'static str,
    /// Its purpose.
    pub why: &'static str,
    /// Where it was found, if it was.
    pub found: Option<String>,
    /// What to try, in this order, if it is missing.
    pub remedies: Vec<Remedy>,
    /// What the user can do if no remedy is allowed or known.
    pub advice: &'static str,
}

/// The needs of one task on one machine.
#[derive(Clone, Debug)]
pub struct Plan {
    rights: Rights,
    /// What the task needs, found or not.
    pub needs: Vec<Need>,
}

const RUSTUP_PATIENCE: Duration = Duration::from_secs(180);
const DEBIAN_RUST: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUST_AND_LINKER: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"];

/// Plans the set-up for `purpose`.
pub fn plan(purpose: Purpose, machine: &Machine) -> Plan {
    let mut needs = Vec::new();
    if matches!(machine.system, System::Debian | System::Ubuntu | System::Linux) && purpose != Purpose::Web {
        needs.push(vulkan(machine));
    }
    if purpose != Purpose::Run {
        needs.push(wasm(machine));
    }
    if purpose == Purpose::Web && machine.rustup.is_some() {
        needs.push(sources(machine));
    }
    if purpose == Purpose::Test {
        needs.extend([python(machine), node(machine), chromium(machine)]);
        if machine.system == System::Debian && cfg!(target_arch = "x86_64") {
            needs.push(newer_mesa(machine));
        }
    }
    Plan { rights: machine.rights, needs }
}

fn shown(path: &Option<impl AsRef<Path>>) -> Option<String> {
    path.as_ref().map(|p| p.as_ref().display().to_string())
}

fn vulkan(machine: &Machine) -> Need {
    Need {
        name: "a Vulkan driver",
        why: "training runs on Vulkan; Mesa's driver also serves machines without a GPU",
        found: (!machine.vulkan.is_empty()).then(|| machine.vulkan.join(", ")),
        remedies: apt(machine, &["mesa-vulkan-drivers", "libvulkan1"]),
        advice: "install your GPU's Vulkan driver or Mesa's Vulkan drivers, and the Vulkan loader (libvulkan.so.1)",
    }
}

fn python(machine: &Machine) -> Need {
    Need {
        name: "Python 3",
        why: "checks the scripts beside the tests, and reads what moelab writes with TensorBoard, pandas and others",
        found: shown(&machine.python),
        remedies: apt(machine, &["python3", "python3-venv"]),
        advice: "install Python 3 (python.org)",
    }
}

fn node(machine: &Machine) -> Need {
    Need {
        name: "Node.js",
        why: "runs the tests of the page's own JavaScript",
        found: shown(&machine.node),
        remedies: apt(machine, &["nodejs"]),
        advice: "install Node.js 18.15 or newer (nodejs.org)",
    }
}

fn chromium(machine: &Machine) -> Need {
    Need {
        name: "Chromium",
        why: "trains in the page and compiles all WGSL with a second compiler (Tint)",
        found: shown(&machine.chromium),
        remedies: apt(machine, if machine.system == System::Ubuntu { &["chromium-browser"] } else { &["chromium"] }),
        advice: "install Chromium or Chrome, or set the variable CHROME to an existing one",
    }
}

fn wasm(machine: &Machine) -> Need {
    let rustup = machine.rustup.as_ref().map(|_| Remedy::RustupTarget);
    let packages = if machine.rust_lld.is_some() { DEBIAN_RUST } else { DEBIAN_RUST_AND_LINKER };
    let debian = if machine.system == System::Debian { apt(machine, packages) } else { Vec::new() };
    Need {
        name: "Rust's standard library for wasm32-unknown-unknown",
        why: "compiles the page",
        found: shown(&machine.wasm_target).or_else(|| machine.debian_rust.as_ref().map(|r| format!("{} with sources", r.rustc.display()))),
        remedies: rustup.into_iter().chain(debian).collect(),
        advice: "run `rustup target add wasm32-unknown-unknown` (rustup.rs)",
    }
}

fn newer_mesa(machine: &Machine) -> Need {
    Need {
        name: "a newer Mesa, with cooperative matrices",
        why: "runs the kernels for tensor cores without a GPU, and checks their SPIR-V (67 MB, in target/, beside the system's)",
        found: machine.newer_mesa.as_ref().map(|run| format!("{}, {}", run.display(), machine::mesa_version(run))),
        remedies: vec![Remedy::NewerMesa],
        advice: "run `sh xtask/src/mesa.sh target/xtask/mesa`",
    }
}

fn sources(machine: &Machine) -> Need {
    Need {
        name: "the sources of Rust's standard library",
        why: "makes the page smaller: the library is compiled with it, for size",
        found: shown(&machine.rust_src),
        remedies: vec![Remedy::RustupSources],
        advice: "run `rustup component add rust-src` (rustup.rs)",
    }
}

fn apt(machine: &Machine, packages: &'static [&'static str]) -> Vec<Remedy> {
    let has_apt = matches!(machine.system, System::Debian | System::Ubuntu);
    has_apt.then_some(Remedy::Apt(packages)).into_iter().collect()
}

impl Plan {
    /// The needs that were not found.
    pub fn missing(&self) -> impl Iterator<Item = &Need> {
        self.needs.iter().filter(|need| need.found.is_none())
    }

    /// Installs what is missing.
    ///
    /// # Errors
    /// What could not be installed, with a command or advice for the user. Requirements without a remedy are reported
    /// before anything is installed.
    pub fn carry_out(&self, root: &Path) -> Result<()> {
        let hopeless: Vec<_> = self.missing().filter(|need| need.remedies.is_empty()).collect();
        if !hopeless.is_empty() {
            let lines: Vec<_> = hopeless.iter().map(|n| format!("  {} ({}): {}", n.name, n.why, n.advice)).collect();
            bail!("missing, and xtask cannot install it on this system:\n{}", lines.join("\n"));
        }
        let mut packages = Vec::new();
        for need in self.missing() {
            for remedy in &need.remedies {
                match remedy {
                    Remedy::RustupTarget if add_rustup_target(root)? => break,
                    Remedy::RustupTarget if need.remedies.len() == 1 => bail!("{} could not be downloaded: {}", need.name, need.advice),
                    Remedy::RustupTarget => {}
                    Remedy::RustupSources if rustup(remedy)? => {}
                    Remedy::RustupSources => println!("rustup cannot download it: the page will be larger"),
                    Remedy::NewerMesa => fetch_mesa(root)?,
                    Remedy::Apt(names) => packages.extend_from_slice(names),
                }
            }
        }
        if packages.is_empty() { Ok(()) } else { install(self.rights, &packages) }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for need in &self.needs {
            match &need.found {
                Some(place) => writeln!(f, "  found    {}: {place}", need.name)?,
                None => {
                    let ways: Vec<_> = need.remedies.iter().map(|remedy| remedy.to_string()).collect();
                    let ways = if ways.is_empty() { format!("by hand: {}", need.advice) } else { ways.join(", otherwise ") };
                    writeln!(f, "  install  {}, because it {}\n           {ways}", need.name, need.why)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Remedy::Apt(packages) => write!(f, "apt-get install {}", packages.join(" ")),
            Remedy::RustupTarget => write!(f, "rustup target add wasm32-unknown-unknown"),
            Remedy::RustupSources => write!(f, "rustup component add rust-src"),
            Remedy::NewerMesa => write!(f, "sh xtask/src/mesa.sh target/xtask/mesa"),
        }
    }
}

/// Tries rustup and remembers a refusal; a mirror may not have the target.
fn add_rustup_target(root: &Path) -> Result<bool> {
    if rustup(&Remedy::RustupTarget)? {
        return Ok(true);
    }
    let memory = rustup_refused(root);
    println!("rustup cannot download it; to try again later, delete {}", memory.display());
    fs::create_dir_all(memory.parent().unwrap_or(root))?;
    fs::write(memory, "")?;
    Ok(false)
}

/// Without it the tests that need it are skipped, and say so.
fn fetch_mesa(root: &Path) -> Result<()> {
    let run = machine::newer_mesa(root);
    let folder = run.parent().unwrap_or(root);
    println!("$ {}", Remedy::NewerMesa);
    let output = Command::new("sh").arg(root.join("xtask/src/mesa.sh")).arg(folder).stdin(Stdio::null()).output().context("starting sh")?;
    if output.status.success() {
        println!("Mesa {}", machine::mesa_version(&run));
    } else {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        println!("it cannot be fetched, so its tests are skipped: {}", said.lines().last().unwrap_or("no reason was given"));
    }
    Ok(())
}

/// Runs rustup for as long as it may take; whether it succeeded.
fn rustup(remedy: &Remedy) -> Result<bool> {
    let command = remedy.to_string();
    println!("$ {command}");
    let mut rustup = Command::new("rustup")
        .args(command.split(' ').skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting rustup")?;
    let start = Instant::now();
    while start.elapsed() < RUSTUP_PATIENCE {
        if let Some(status) = rustup.try_wait()? {
            return Ok(status.success());
        }
        thread::sleep(Duration::from_millis(100));
    }
    rustup.kill().ok();
    rustup.wait()?;
    Ok(false)
}

fn install(rights: Rights, packages: &[&str]) -> Result<()> {
    let typed = format!("sudo apt-get update && sudo apt-get install --yes {}", packages.join(" "));
    if rights == Rights::None {
        bail!("this user may not install packages; run\n\n  {typed}\n\nand then run this command again");
    }
    let install = ["install", "--yes", "--no-install-recommends", "--no-remove"];
    for arguments in [vec!["update"], install.into_iter().chain(packages.iter().copied()).collect()] {
        let mut command = Command::new(if rights == Rights::Root { "apt-get" } else { "sudo" });
        if rights == Rights::Sudo {
            command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q").args(&arguments).stdin(Stdio::null());
        println!("$ apt-get {}", arguments.join(" "));
        let status = command.status().context("starting apt-get")?;
        if !status.success() {
            bail!("apt-get ended with {status}; see its messages above, or run\n\n  {typed}\n\nand then run this command again");
        }
    }
    Ok(())
}
