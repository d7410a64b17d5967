//! The list of mutants: each applies to its file, and its test exists. `cargo xtask mutants` runs them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use xtask::mutants::{self, Mutant, Test, parse};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The source of a test binary, all files concatenated.
fn sources(test: &Test) -> String {
    let folder = |package: &str| match test.target.as_str() {
        target if target == "lib" || target.starts_with("bin:") => root().join(package).join("src"),
        target => root().join(package).join("tests").join(target),
    };
    let packages = ["", "native", "xtask"].map(folder);
    let mut text: String = packages.iter().filter_map(|path| fs::read_to_string(path.with_extension("rs")).ok()).collect();
    let mut folders: Vec<PathBuf> = packages.into();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "rs") => text += &fs::read_to_string(path).unwrap(),
                false => {}
            }
        }
    }
    text
}

#[test]
fn every_mutant_can_be_planted_and_names_a_test() {
    let all = mutants::read(root(), "").unwrap();
    assert!(all.len() >= 40, "{} mutants", all.len());
    let files: BTreeSet<&String> = all.iter().map(|m| &m.file).collect();
    assert!(files.len() >= 12, "only {files:?}");
    let mut problems = Vec::new();
    for mutant in &all {
        let Mutant { sentence, file, test, .. } = mutant;
        let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        problems.extend(mutant.plant(&source).err().map(|problem| format!("{sentence} {problem}")));
        let function = test.filter.rsplit("::").next().unwrap();
        if !sources(test).contains(&format!("fn {function}")) {
            problems.push(format!("{sentence} There is no test `{test}`"));
        }
    }
    let sentences: BTreeSet<&String> = all.iter().map(|m| &m.sentence).collect();
    assert_eq!(sentences.len(), all.len(), "two mutants have the same sentence");
    assert!(problems.is_empty(), "tests/mutants.txt is out of date:\n{}", problems.join("\n"));
}

const ENTRY: &str = "# a comment\n== One too many.\nfile src/a.rs\n- a < b\n+ a <= b\ntest train a::b\n";

#[test]
fn an_entry_is_parsed() {
    let two_lines = ENTRY.replace("- a < b\n", "- if a {\n-     b\n");
    let [one, other] = &parse(&format!("{ENTRY}\n{two_lines}")).unwrap()[..] else { panic!("there are two") };
    assert_eq!((one.sentence.as_str(), one.file.as_str()), ("One too many.", "src/a.rs"));
    assert_eq!((one.from.as_str(), one.to.as_str(), one.test.to_string().as_str()), ("a < b", "a <= b", "train a::b"));
    assert_eq!(other.from, "if a {\n    b");
    assert_eq!(one.plant("if a < b {}").unwrap(), "if a <= b {}");
    for source in ["if a > b {}", "a < b && a < b"] {
        assert!(one.plant(source).is_err(), "{source}");
    }
}

#[test]
fn errors_in_an_entry_have_its_line_number() {
    let error = |from: &str, to: &str| format!("{:#}", parse(&ENTRY.replace(from, to)).unwrap_err());
    assert_eq!(error("file src/a.rs\n", ""), "tests/mutants.txt:2: an entry needs exactly one line that starts with `file`, found 0");
    assert_eq!(error("- a < b\n", ""), "tests/mutants.txt:2: no line starts with `-`");
    assert_eq!(error("+ a <= b", "+ a < b"), "tests/mutants.txt:2: the replacement equals the original");
    assert!(error("test train a::b", "test train").ends_with("expected a test binary and part of a test's path"));
    assert!(error("+ a <= b", "a <= b").contains("`a <= b` starts with none of"));
}
