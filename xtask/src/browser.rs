//! A headless Chromium for tests: finds it, opens an address, and kills it on drop.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::programs::find_program;

/// Executable names of Chromium and Chrome.
const NAMES: [&str; 5] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/// Install locations outside the search path.
const PLACES: [&str; 3] = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
];

/// Headless, with an empty profile and no background traffic: only the requested page is loaded. Tests load only
/// moelab's own pages from this machine, and the sandbox does not start for root or in most containers.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
];

/// Chromium's own CPU driver, the same on every machine; browsers do not offer WebGPU on it by default.
pub const SWIFTSHADER: [&str; 2] = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/// The browser that the variable `CHROME` names, or else the first one found.
pub fn find() -> Option<PathBuf> {
    let named = env::var_os("CHROME").map(PathBuf::from).filter(|path| path.is_file());
    let installed = || NAMES.iter().find_map(|name| find_program(name));
    let placed = || PLACES.iter().map(PathBuf::from).find(|path| path.is_file());
    named.or_else(installed).or_else(placed)
}

/// A running browser; dropping it kills the process and deletes its profile.
pub struct Browser {
    process: Child,
    command: Command,
    profile: PathBuf,
}

impl Browser {
    /// Opens `address` with a new profile in the folder `profile`, passing `flags` in addition to the default
    /// ones; the browser logs to `profile` + `.log`.
    ///
    /// # Errors
    /// If no browser is found or it cannot be started.
    pub fn open(address: &str, profile: &Path, flags: &[&str]) -> Result<Self> {
        let program = find().context("no Chromium found; `cargo xtask setup test` installs it, or set the variable CHROME to one")?;
        fs::remove_dir_all(profile).ok();
        fs::create_dir_all(profile)?;
        let log = fs::File::create(Self::log(profile))?;
        let mut command = Command::new(&program);
        command
            .args(FLAGS)
            .args(flags)
            .arg("--enable-logging=stderr")
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(address)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { process, command, profile: profile.to_owned() })
    }

    /// Kills the process and opens the same address again, with the profile as it is.
    ///
    /// # Errors
    /// If it cannot be started again.
    pub fn kill_and_reopen(&mut self) -> Result<()> {
        self.process.kill().ok();
        self.process.wait().ok();
        self.process = self.command.spawn().context("starting the browser again")?;
        Ok(())
    }

    /// The log file of a browser with this profile.
    pub fn log(profile: &Path) -> PathBuf {
        profile.with_extension("log")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        fs::remove_dir_all(&self.profile).ok();
    }
}
