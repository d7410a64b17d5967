//! The summary line adds up the results that the test runners print.

use xtask::steps::{Count, Tally};

fn tally(lines: &[(Count, &str)]) -> Tally {
    let mut tally = Tally::default();
    lines.iter().for_each(|(count, line)| tally.read(*count, line));
    tally
}

#[test]
fn test_results_of_all_binaries_are_added_up() {
    let sum = tally(&[
        (Count::Cargo, "test result: ok. 12 passed; 0 failed; 4 ignored; 0 measured; 0 filtered out; finished in 1.02s"),
        (Count::Cargo, "test ops::matmul ... ok"),
        (Count::Cargo, "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.10s"),
    ]);
    assert_eq!(sum, Tally { passed: 15, failed: 2, skipped: 4, said: 0 });
    assert_eq!(sum.to_string(), "15 passed, 2 failed, 4 skipped");
}

#[test]
fn ignored_tests_no_longer_count_as_skipped_once_they_run() {
    let sum = tally(&[
        (Count::Cargo, "test result: ok. 1 passed; 0 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.00s"),
        (Count::CargoIgnored, "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s"),
    ]);
    assert_eq!(sum.to_string(), "4 passed, 1 failed");
}

/// A test that lacks a package of Python passes for the harness, which shows what it says, in a line of its own or after its name.
#[test]
fn tests_that_say_that_they_are_skipped_have_not_passed() {
    let sum = tally(&[
        (Count::Cargo, "skipped: no Python with [\"optuna\"]"),
        (Count::Cargo, "test optuna_searches ... ok"),
        (Count::Cargo, "test hyperqueue_makes_the_same_runs ... skipped: no Python with [\"hyperqueue\"]"),
        (Count::Cargo, "ok"),
        (Count::Cargo, "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.02s"),
        // A name is no reason, nor is a word of another step.
        (Count::Cargo, "test what_is_skipped: no ... ok"),
        (Count::Node, "skipped: of another runner"),
        (Count::Cargo, "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s"),
    ]);
    assert_eq!(sum.to_string(), "4 passed, 0 failed, 3 skipped");
}

#[test]
fn nodes_closing_lines_count() {
    let sum =
        tally(&[(Count::Node, "# pass 6"), (Count::Node, "# fail 1"), (Count::Node, "# skipped 0"), (Count::Node, "# duration_ms 51.2")]);
    assert_eq!(sum, Tally { passed: 6, failed: 1, ..Tally::default() });
}
