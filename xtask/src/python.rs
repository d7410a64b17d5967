//! Python packages for the tests that read moelab's files with other tools, in an environment of their own below `target`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::machine::Machine;

/// The packages, with versions.
const REQUIREMENTS: &str = "tests/ecosystem/requirements.txt";
/// The environment.
const ENVIRONMENT: &str = "target/python";

/// Installs the packages unless they are there. If that is not possible it says so, and their tests are skipped: they also say so.
pub fn prepare(root: &Path, machine: &Machine) {
    let done = install(root, machine);
    match done {
        Ok(true) => println!("Python packages of {REQUIREMENTS}: installed in {ENVIRONMENT}"),
        Ok(false) => println!("Python packages of {REQUIREMENTS}: found in {ENVIRONMENT}"),
        Err(error) => println!("Python packages of {REQUIREMENTS}: not installed, so their tests are skipped: {error:#}"),
    }
}

/// Whether anything had to be installed.
fn install(root: &Path, machine: &Machine) -> Result<bool> {
    let (wanted, environment) = (fs::read_to_string(root.join(REQUIREMENTS)).context(REQUIREMENTS)?, root.join(ENVIRONMENT));
    let installed = environment.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(false);
    }
    let python = machine.python.as_ref().context("there is no Python 3")?;
    run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment))?;
    let packages = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--requirement", REQUIREMENTS];
    run(Command::new(program(&environment)).args(packages).current_dir(root))?;
    fs::write(&installed, wanted)?;
    Ok(true)
}

/// The Python of an environment.
fn program(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python3" })
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {}", command.get_program().display()))?;
    if !output.status.success() {
        // Where venv is missing, Debian's message is on stdout.
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said).trim().replace('\n', " ");
        bail!("{}: {said}", command.get_program().display());
    }
    Ok(())
}
