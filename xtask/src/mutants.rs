//! `cargo xtask mutants`: plants one fault at a time and runs the test that should notice it.
//!
//! The list is `tests/mutants.txt`; its header says how an entry is written. Mutants live in a copy of the workspace below
//! `target/mutants`, with a target folder of its own that starts with the compiled dependencies of the usual one, so that
//! neither the checkout nor its binaries ever hold a fault and each mutant costs one incremental build. The tests that are named
//! must pass on the copy before anything is planted.

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

/// The list, from the workspace's folder.
pub const LIST: &str = "tests/mutants.txt";
/// Where the copy and its target folder are, from the workspace's folder.
const SCRATCH: &str = "target/mutants";
/// A test that runs longer than this does not end any more, which is a way of noticing.
const LIMIT: Duration = Duration::from_secs(600);

/// A fault, and the test that should notice it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// What is wrong then.
    pub sentence: String,
    /// The file that is changed, from the workspace's folder.
    pub file: String,
    /// What stands there, exactly once.
    pub from: String,
    /// What is put in its place.
    pub to: String,
    /// The test.
    pub test: Test,
}

/// Some tests of one test binary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    /// The binary: an integration test, `lib` for the tests inside the libraries, `bin:NAME` for those inside a program.
    pub target: String,
    /// Part of the tests' paths.
    pub filter: String,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These tests failed.
    Caught(Vec<String>),
    /// The tests did not end: by a crash or the time limit.
    Ended(&'static str),
    /// Every test passed.
    Survived,
    /// It does not compile, so that it says nothing about tests.
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
/// The first line that is not as the list's header says, or an entry that lacks something.
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
        ref found => bail!("an entry has one line that starts with `{}`, here are {}", mark.trim(), found.len()),
    };
    if let Some(line) = lines.iter().find(|line| !["== ", "file ", "- ", "+ ", "test "].iter().any(|mark| line.starts_with(mark))) {
        bail!("`{line}` starts with none of `==`, `file`, `-`, `+`, `test`");
    }
    let (from, to, test) = (all("- ").join("\n"), all("+ ").join("\n"), one("test ")?);
    ensure!(!from.is_empty(), "no line starts with `-`");
    ensure!(from != to, "the replacement is what stands there");
    let Some((target, filter)) = test.split_once(' ').filter(|(_, filter)| !filter.contains(' ')) else {
        bail!("`test {test}`: wanted a test binary and part of a test's path");
    };
    let test = Test { target: target.to_string(), filter: filter.to_string() };
    Ok(Mutant { sentence: one("== ")?, file: one("file ")?, from, to, test })
}

impl Mutant {
    /// The file with the fault in it.
    ///
    /// # Errors
    /// The text is not there, or more than once.
    pub fn plant(&self, source: &str) -> Result<String> {
        match source.matches(&self.from).count() {
            1 => Ok(source.replacen(&self.from, &self.to, 1)),
            count => bail!("{}: `{}` occurs {count} times, wanted once", self.file, self.from),
        }
    }
}

/// Reads the list of a workspace: the mutants whose sentence, file or test holds `filter`.
///
/// # Errors
/// A list that cannot be read, or that has no such mutant.
pub fn read(root: &Path, filter: &str) -> Result<Vec<Mutant>> {
    let text = fs::read_to_string(root.join(LIST)).with_context(|| format!("reading {LIST}"))?;
    let mut mutants = parse(&text)?;
    mutants.retain(|m| [&m.sentence, &m.file, &m.test.to_string()].iter().any(|text| text.contains(filter)));
    ensure!(!mutants.is_empty(), "no mutant has `{filter}` in its sentence, its file or its test");
    Ok(mutants)
}

/// Prints the mutants that hold `filter`.
///
/// # Errors
/// Those of [`read`].
pub fn list(root: &Path, filter: &str) -> Result<()> {
    for mutant in read(root, filter)? {
        println!("{}\n    {}, test {}", mutant.sentence, mutant.file, mutant.test);
    }
    Ok(())
}

/// Plants each of the mutants that hold `filter`, runs its test and prints what became of it.
///
/// # Errors
/// A list that cannot be read, tests that fail without a mutant, or mutants that survive, do not apply or do not compile.
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
        let told = match scratch.try_mutant(mutant)? {
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
        println!("{:>3}/{} {seconds:>6.1} s  {}\n{:17}{}: {told}", number + 1, mutants.len(), mutant.sentence, "", mutant.file);
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
    /// Takes the compiled dependencies of a target folder, unless there are some already. What does not fit is compiled again.
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
                // Of the workspace's own packages nothing: their paths are those of the checkout. Executables have no extension.
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

    /// Makes the copy equal to the checkout: what git tracks, and what it does not ignore. Files that are equal keep their times.
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

    /// Every test that is named passes, and exists.
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

    /// Plants a mutant, runs its test and takes it out again. The inner error says why it does not apply.
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

    /// Runs some tests of a test binary: how cargo ended, `None` if it had to be killed, and what it wrote.
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

/// What a run of tests says about the mutant that was planted.
fn outcome(status: Option<ExitStatus>, output: &str) -> Outcome {
    let failed = tests(output, "FAILED");
    match status {
        _ if !failed.is_empty() => Outcome::Caught(failed),
        None => Outcome::Ended("its test does not end"),
        Some(status) if status.success() => Outcome::Survived,
        Some(_) if output.lines().any(|line| line.starts_with("running ")) => Outcome::Ended("its test crashes"),
        Some(_) => Outcome::Uncompiled,
    }
}

/// The tests that ended so, by the lines of Rust's test harness.
fn tests(output: &str, result: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(result)?.strip_suffix(" ... ")?.to_string());
    output.lines().filter_map(name).collect()
}

/// Runs a command to its end or the limit; gives what it wrote to both outputs.
fn run_limited(mut command: Command, limit: Duration) -> Result<(Option<ExitStatus>, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that a test that does not end is killed with cargo.
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
        // What was read before a pipe broke is what there is.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    })
}

fn kill(child: &mut Child) -> Result<()> {
    if cfg!(unix) {
        Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status()?;
    }
    // On other systems the test itself may go on: it is named in the table.
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
    fn a_run_says_what_became_of_the_mutant() {
        let status = |code: &str| Command::new("sh").args(["-c", &format!("exit {code}")]).status().ok();
        let failed = "running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\n";
        assert_eq!(outcome(status("101"), failed), Outcome::Caught(vec!["a::c".into()]));
        assert_eq!(outcome(status("0"), "running 1 test\ntest a::b ... ok\n"), Outcome::Survived);
        assert_eq!(outcome(status("101"), "error: could not compile `moelab`\n"), Outcome::Uncompiled);
        assert_eq!(outcome(status("101"), "running 1 test\n(signal: 11)\n"), Outcome::Ended("its test crashes"));
        assert_eq!(outcome(None, "running 1 test\n"), Outcome::Ended("its test does not end"));
    }

    #[cfg(unix)]
    #[test]
    fn what_does_not_end_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo before; sleep 600 & wait"]);
        let start = Instant::now();
        let (status, output) = run_limited(command, Duration::from_millis(200)).expect("sh starts");
        assert_eq!((status, output.as_str()), (None, "before\n"));
        assert!(start.elapsed() < Duration::from_secs(60), "a child held the pipe");
    }
}
