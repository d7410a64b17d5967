//! The command line of `cargo xtask`.

use std::process::{Command, Output};

fn xtask(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

#[test]
fn help_names_every_task() {
    let (output, text) = xtask(&["help"]);
    assert!(output.status.success());
    for task in ["run", "test", "web", "serve", "setup", "mutants", "data shakespeare", "--dry-run"] {
        assert!(text.contains(&format!("\n  {task}")), "{task}");
    }
}

#[test]
fn an_unknown_task_is_rejected_with_the_help() {
    let (output, text) = xtask(&["tset"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("unknown task or option: `tset`") && text.contains("\n  test "), "{text}");
}

#[test]
fn a_dry_run_prints_the_plan_and_the_steps_in_order() {
    let (output, text) = xtask(&["test", "--dry-run"]);
    assert!(output.status.success(), "{text}");
    let parts = [
        "Set-up:",
        "Vulkan driver",
        "Chromium",
        "== tests\n",
        "== compile the page",
        "== assemble the page",
        "== tests in the browser",
        "== tests of the page's JavaScript",
    ];
    let places: Vec<_> = parts.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"))).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(!text.contains("\n-- "), "no step ran: {text}");
}

#[test]
fn arguments_after_two_dashes_are_passed_to_moelab() {
    let (_, text) = xtask(&["run", "--dry-run", "--", "--set", "train.updates=12"]);
    assert!(text.contains("-- train configs/quickstart.toml --out runs/quickstart-"), "{text}");
    assert!(text.trim_end().ends_with("--set train.updates=12"), "{text}");
}

#[test]
fn mutants_are_listed_with_their_tests() {
    let (output, text) = xtask(&["mutants", "--list", "src/train/generate.rs"]);
    assert!(output.status.success(), "{text}");
    assert!(text.lines().count() >= 8 && text.contains("\n    src/train/generate.rs, test model sampling::"), "{text}");
    let (output, text) = xtask(&["mutants", "no such text"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("no mutant has `no such text`"), "{text}");
}
