//! `cargo xtask mutants`: plants one fault at a time and runs the test that should catch it.
//!
//! The list is `tests/mutants.txt`; its header describes the format. Mutants are planted in a copy of the workspace below
//! `target/mutants`, with its own target folder that starts with the dependencies compiled for the checkout. So neither
//! the checkout nor its binaries ever contain a fault, and each mutant costs one incremental build. The named tests must pass on
//! the copy before anything is planted.
//!
//! Long because the format, planting and replaying are read together.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// The list, relative to the workspace.
pub const LIST: &str = "tests/mutants.txt";
/// The copy and its target folder, relative to the workspace.
const SCRATCH: &str = "target/mutants";
/// A test that runs longer than this is considered to hang, which counts as catching the fault.
const LIMIT: Duration = Duration::from_secs(600);

/// A fault, and the test that should catch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Describes the fault.
    pub sentence: String,
    /// The file that is changed, relative to the workspace.
    pub file: String,
    /// The original text, which occurs exactly once.
    pub from: String,
    /// The replacement.
    pub to: String,
    /// The test.
    pub test: Test,
}

/// Some tests of one test binary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    /// The test binary: an integration test, `lib` for the tests inside the libraries, `bin:NAME` for those inside a program.
    pub target: String,
    /// Part of the tests' paths.
    pub filter: String,
}

/// The outcome for a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These tests failed.
    Caught(Vec<String>),
    /// The tests did not finish: they crashed or exceeded the time limit.
    Ended(&'static str),
    /// Every test passed.
    Survived,
    /// It does not compile, so it says nothing about the tests.
    Uncompiled,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.target, self.filter)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Outcome::Caught(tests) => f.write_str(&tests.join(", ")),
            Outcome::Ended(how) => f.write_str(how),
            Outcome::Survived => f.write_str("SURVIVED"),
            Outcome::Uncompiled => f.write_str("DOES NOT COMPILE"),
        }
    }
}

/// Reads a list.
///
/// # Errors
/// The first malformed line, or an incomplete entry.
pub fn parse(text: &str) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for (at, entry) in entries(text) {
        mutants.push(mutant(&entry).with_context(|| format!("{LIST}:{at}"))?);
    }
    Ok(mutants)
}

/// The lines of each entry with the number of its first, comments and empty lines left out.
fn entries(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut entries: Vec<(usize, Vec<&str>)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match entries.last_mut() {
            _ if line.starts_with('#') || line.trim().is_empty() => {}
            Some((_, entry)) if !line.starts_with("== ") => entry.push(line),
            _ => entries.push((number + 1, vec![line])),
        }
    }
    entries
}

fn mutant(lines: &[&str]) -> Result<Mutant> {
    let all = |mark: &str| lines.iter().filter_map(|line| line.strip_prefix(mark)).collect::<Vec<_>>();
    let one = |mark: &str| match all(mark)[..] {
        [value] => Ok(value.to_string()),
        ref found => bail!("an entry needs exactly one line that starts with `{}`, found {}", mark.trim(), found.len()),
    };
    if let Some(line) = lines.iter().find(|line| !["== ", "file ", "- ", "+ ", "test "].iter().any(|mark| line.starts_with(mark))) {
        bail!("`{line}` starts with none of `==`, `file`, `-`, `+`, `test`");
    }
    let (from, to, test) = (all("- ").join("\n"), all("+ ").join("\n"), one("test ")?);
    ensure!(!from.is_empty(), "no line starts with `-`");
    ensure!(from != to, "the replacement equals the original");
    let Some((target, filter)) = test.split_once(' ').filter(|(_, filter)| !filter.contains(' ')) else {
        bail!("`test {test}`: expected a test binary and part of a test's path");
    };
    let test = Test { target: target.to_string(), filter: filter.to_string() };
    Ok(Mutant { sentence: one("== ")?, file: one("file ")?, from, to, test })
}

impl Mutant {
    /// The source with the fault planted.
    ///
    /// # Errors
    /// The original text does not occur exactly once.
    pub fn plant(&self, source: &str) -> Result<String> {
        match source.matches(&self.from).count() {
            1 => Ok(source.replacen(&self.from, &self.to, 1)),
            count => bail!("{}: `{}` occurs {count} times, expected once", self.file, self.from),
        }
    }
}

/// Reads the list of a workspace: the mutants whose sentence, file or test contains `filter`.
///
/// # Errors
/// The list cannot be read, or no mutant matches.
pub fn read(root: &Path, filter: &str) -> Result<Vec<Mutant>> {
    let text = fs::read_to_string(root.join(LIST)).with_context(|| format!("reading {LIST}"))?;
    let mut mutants = parse(&text)?;
    mutants.retain(|m| [&m.sentence, &m.file, &m.test.to_string()].iter().any(|text| text.contains(filter)));
    ensure!(!mutants.is_empty(), "no mutant has `{filter}` in its sentence, its file or its test");
    Ok(mutants)
}

/// Prints the mutants that match `filter`.
///
/// # Errors
/// Those of [`read`].
pub fn list(root: &Path, filter: &str) -> Result<()> {
    for mutant in read(root, filter)? {
        println!("{}\n    {}, test {}", mutant.sentence, mutant.file, mutant.test);
    }
    Ok(())
}

/// Plants each mutant that matches `filter`, runs its test and prints the outcome.
///
/// # Errors
/// The list cannot be read, a test fails without a mutant, or a mutant survives, does not apply or does not compile.
pub fn replay(root: &Path, filter: &str) -> Result<()> {
    let mutants = read(root, filter)?;
    let scratch = Scratch { work: root.join(SCRATCH).join("work"), target: root.join(SCRATCH).join("target") };
    scratch.seed(&root.join("target/debug")).context("copying compiled dependencies")?;
    scratch.copy_sources(root).context("copying the workspace")?;
    println!("Mutants are planted in {}.\n", scratch.work.display());
    scratch.baseline(&mutants)?;
    let mut unnoticed = 0;
    for (number, mutant) in mutants.iter().enumerate() {
        let start = Instant::now();
        let outcome = match scratch.try_mutant(mutant)? {
            Ok(outcome) => {
                unnoticed += usize::from(matches!(outcome, Outcome::Survived | Outcome::Uncompiled));
                outcome.to_string()
            }
            Err(problem) => {
                unnoticed += 1;
                format!("DOES NOT APPLY: {problem}")
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        println!("{:>3}/{} {seconds:>6.1} s  {}\n{:17}{}: {outcome}", number + 1, mutants.len(), mutant.sentence, "", mutant.file);
    }
    println!("\n{} mutants, {} caught, {unnoticed} not", mutants.len(), mutants.len() - unnoticed);
    ensure!(unnoticed == 0, "{unnoticed} mutants survived, do not apply or do not compile");
    Ok(())
}

/// A copy of the workspace and its target folder.
struct Scratch {
    work: PathBuf,
    target: PathBuf,
}

impl Scratch {
    /// Copies the compiled dependencies of a target folder, unless there are some already. Stale ones are compiled again.
    fn seed(&self, compiled: &Path) -> Result<()> {
        let own = self.target.join("debug");
        if own.exists() || !compiled.exists() {
            return Ok(());
        }
        let draft = self.target.with_extension("tmp");
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        for folder in [".fingerprint", "build", "deps"] {
            let (from, to) = (compiled.join(folder), draft.join("debug").join(folder));
            for entry in fs::read_dir(&from).into_iter().flatten() {
                let name = entry?.file_name();
                let text = name.to_string_lossy();
                // Nothing of the workspace's own packages: their paths are those of the checkout. Executables have no extension.
                let is_own = text.contains("moelab") || text.contains("xtask");
                let is_executable = folder == "deps" && !text.contains('.');
                if !is_own && !is_executable {
                    copy_with_times(&from.join(&name), &to.join(&name))?;
                }
            }
        }
        if draft.join("debug").exists() {
            fs::create_dir_all(&self.target)?;
            fs::rename(draft.join("debug"), own)?;
            fs::remove_dir(draft)?;
        }
        Ok(())
    }

    /// Makes the copy equal to the checkout: all files that git does not ignore. Unchanged files keep their modification times.
    fn copy_sources(&self, root: &Path) -> Result<()> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("starting git")?;
        ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr).trim());
        let names: BTreeSet<PathBuf> =
            String::from_utf8_lossy(&listed.stdout).split('\0').filter(|n| root.join(n).is_file()).map(PathBuf::from).collect();
        for name in &names {
            let (source, copy) = (fs::read(root.join(name))?, self.work.join(name));
            if fs::read(&copy).ok().as_ref() != Some(&source) {
                fs::create_dir_all(copy.parent().context("it lies in the copy")?)?;
                fs::write(&copy, source)?;
            }
        }
        remove_others(&self.work, Path::new(""), &names)
    }

    /// Checks that every named test exists and passes.
    fn baseline(&self, mutants: &[Mutant]) -> Result<()> {
        let mut binaries: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for Mutant { test, .. } in mutants {
            binaries.entry(&test.target).or_default().insert(&test.filter);
        }
        for (target, filters) in binaries {
            let start = Instant::now();
            let filters: Vec<&str> = filters.into_iter().collect();
            let (status, output) = self.test(target, &filters)?;
            ensure!(status.is_some_and(|s| s.success()), "`{target}` fails without a mutant:\n{output}");
            let names = tests(&output, "ok");
            if let Some(filter) = filters.iter().find(|filter| !names.iter().any(|name| name.contains(**filter))) {
                bail!("`{target}` has no test `{filter}`");
            }
            println!("without a mutant, {target}: {} tests pass, {:.1} s", names.len(), start.elapsed().as_secs_f64());
        }
        println!();
        Ok(())
    }

    /// Plants a mutant, runs its test and restores the file. The inner error says why it does not apply.
    fn try_mutant(&self, mutant: &Mutant) -> Result<Result<Outcome>> {
        let path = self.work.join(&mutant.file);
        let source = fs::read_to_string(&path).with_context(|| format!("reading {}", mutant.file))?;
        let planted = match mutant.plant(&source) {
            Ok(planted) => planted,
            Err(problem) => return Ok(Err(problem)),
        };
        fs::write(&path, planted)?;
        let Test { target, filter } = &mutant.test;
        let ran = self.test(target, &[filter]);
        fs::write(&path, source)?;
        let (status, output) = ran?;
        Ok(Ok(outcome(status, &output)))
    }

    /// Runs some tests of a test binary: returns cargo's exit status, `None` if it was killed, and its output.
    fn test(&self, target: &str, filters: &[&str]) -> Result<(Option<ExitStatus>, String)> {
        let mut command = Command::new(env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from));
        command.args(["test", "--locked"]);
        match (target, target.strip_prefix("bin:")) {
            ("lib", _) => command.arg("--lib"),
            (_, Some(program)) => command.args(["--bin", program]),
            _ => command.args(["--test", target]),
        };
        command.arg("--target-dir").arg(&self.target).arg("--").args(filters);
        command.current_dir(&self.work).env_remove("CARGO_TARGET_DIR").env("INSTA_UPDATE", "no");
        run_limited(command, LIMIT)
    }
}

/// The outcome of a test run for the planted mutant.
fn outcome(status: Option<ExitStatus>, output: &str) -> Outcome {
    let failed = tests(output, "FAILED");
    match status {
        _ if !failed.is_empty() => Outcome::Caught(failed),
        None => Outcome::Ended("its test hangs"),
        Some(status) if status.success() => Outcome::Survived,
        Some(_) if output.lines().any(|line| line.starts_with("running ")) => Outcome::Ended("its test crashes"),
        Some(_) => Outcome::Uncompiled,
    }
}

/// The tests with this result, by the lines of Rust's test harness.
fn tests(output: &str, result: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(result)?.strip_suffix(" ... ")?.to_string());
    output.lines().filter_map(name).collect()
}

/// Runs a command until it exits or the time limit; returns its stdout and stderr.
fn run_limited(mut command: Command, limit: Duration) -> Result<(Option<ExitStatus>, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A separate process group, so that a hanging test is killed together with cargo.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().context("starting cargo")?;
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > limit {
            kill(&mut child)?;
            break None;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let text = |reader: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
    Ok((status, text(stdout) + &text(stderr)))
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Keeps what was read before the pipe broke.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    })
}

fn kill(child: &mut Child) -> Result<()> {
    if cfg!(unix) {
        Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status()?;
    }
    // On other systems the test itself may keep running; the table names it.
    let _ = child.kill();
    child.wait()?;
    Ok(())
}

fn copy_with_times(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_with_times(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("it lies in a folder")?)?;
    fs::copy(from, to)?;
    let modified = fs::metadata(from)?.modified()?;
    Ok(fs::File::options().write(true).open(to)?.set_modified(modified)?)
}

/// Removes the files below `folder` of `work` that are not among `names`.
fn remove_others(work: &Path, folder: &Path, names: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(work.join(folder))? {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(work, &name, names)?;
        } else if !names.contains(&name) {
            fs::remove_file(work.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_follows_from_the_output() {
        let status = |code: &str| Command::new("sh").args(["-c", &format!("exit {code}")]).status().ok();
        let failed = "running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\n";
        assert_eq!(outcome(status("101"), failed), Outcome::Caught(vec!["a::c".into()]));
        assert_eq!(outcome(status("0"), "running 1 test\ntest a::b ... ok\n"), Outcome::Survived);
        assert_eq!(outcome(status("101"), "error: could not compile `moelab`\n"), Outcome::Uncompiled);
        assert_eq!(outcome(status("101"), "running 1 test\n(signal: 11)\n"), Outcome::Ended("its test crashes"));
        assert_eq!(outcome(None, "running 1 test\n"), Outcome::Ended("its test hangs"));
    }

    #[cfg(unix)]
    #[test]
    fn a_hanging_command_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo before; sleep 600 & wait"]);
        let start = Instant::now();
        let (status, output) = run_limited(command, Duration::from_millis(200)).expect("sh starts");
        assert_eq!((status, output.as_str()), (None, "before\n"));
        assert!(start.elapsed() < Duration::from_secs(60), "a child held the pipe");
    }
}
