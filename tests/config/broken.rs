//! Every broken config under `broken/` is refused with exactly the message of its snapshot; a first line `# set: key=value`
//! stands for `--set key=value`. Then what no file shows: size, depth, hostile text.

use crate::{ROOT, load, load_text};

fn files(folder: &str, extension: &str) -> Vec<String> {
    let entries = std::fs::read_dir(format!("{ROOT}/tests/config/{folder}")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(extension)?.to_owned())).collect();
    names.sort();
    names
}

#[test]
fn broken_configs_are_refused_with_their_messages() {
    let names = files("broken", ".toml");
    assert!(names.len() >= 40);
    for name in &names {
        let text = std::fs::read_to_string(format!("{ROOT}/tests/config/broken/{name}.toml")).unwrap();
        let sets: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# set: ")).collect();
        let problems = load("tests/config/broken", &format!("{name}.toml"), &sets).expect_err(name);
        for (problem, place) in problems.iter() {
            let place = place.unwrap_or_else(|| panic!("{name}: no place for {}", problem.message));
            assert!(place.line >= 1 && place.column >= 1);
        }
        insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.as_str(), problems.to_string());
        });
    }
    assert_eq!(files("snapshots", ".snap"), names, "a snapshot without its config");
}

#[test]
fn a_missing_file_is_told_by_its_name() {
    let problems = load("configs", "nowhere.toml", &[]).unwrap_err().to_string();
    assert_eq!(problems, "error: cannot read `nowhere.toml`: no such file\n\n1 problem");
}

#[test]
fn lines_of_windows_are_shown_as_others() {
    let problems = load_text("seed = 1\r\n[train]\r\nupdatse = 5\r\n", &[]).unwrap_err().to_string();
    assert!(problems.contains("run.toml:3:1\n") && problems.contains("3 │ updatse = 5\n"), "{problems}");
}

#[test]
fn a_file_beyond_the_size_is_refused() {
    let page = |lines: usize| "# a line of a comment that says nothing\n".repeat(lines);
    assert!(load_text(&page(6_000), &[]).is_ok());
    let problems = load_text(&page(7_000), &[]).unwrap_err().to_string();
    assert!(problems.contains("280000 bytes, a config may have at most 262144"), "{problems}");
}

#[test]
fn a_chain_of_files_ends_somewhere() {
    let read = |name: &str| {
        let number: u32 = name.trim_end_matches(".toml").parse().unwrap();
        Ok(format!("extends = \"{}.toml\"\n", number + 1))
    };
    let problems = moelab::run::config::load(&read, "1.toml", &[]).unwrap_err().to_string();
    assert!(problems.contains("8.toml:1:11") && problems.contains("at most 8 files"), "{problems}");
}

#[test]
fn bombs_end_in_messages() {
    let deep_key = format!("{} = 1\n", vec!["a"; 60_000].join("."));
    let deep_table = format!("[{}]\nx = 1\n", vec!["a"; 60_000].join("."));
    let deep_list = format!("seed = {}{}\n", "[".repeat(60_000), "]".repeat(60_000));
    let deep_inline = format!("seed = {}1{}\n", "{a=".repeat(40_000), "}".repeat(40_000));
    let many_keys: String = (0..12_000).map(|i| format!("key_{i:05} = {i}\n")).collect();
    for text in [deep_key, deep_table, deep_list, deep_inline, many_keys] {
        let message = load_text(&text, &[]).unwrap_err().to_string();
        assert!(message.len() < 60_000, "{} bytes for {}", message.len(), &text[..40]);
    }
}

#[test]
fn arbitrary_text_never_panics() {
    use proptest::prelude::*;
    let pieces = "model|.|router|[|]|[[|]]|{|}|=| = |\n|\"|'''|top_k|experts|0x|-|1e|9|inf|optimizer|overrides|*|extends|,|\
                  schedule|warmup|5%|\u{202e}|é|#|\r\n|\\u";
    let pieces = prop::sample::select(pieces.split('|').collect::<Vec<_>>());
    let texts = prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat());
    // A failure prints its least input; it leaves no file behind.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(text in texts, set in "[a-z.=\"\\[{1é ]{0,20}")| {
        for sets in [&[][..], &[set.as_str()]] {
            if let Err(problems) = load_text(&text, sets) {
                prop_assert!(!problems.to_string().is_empty());
            }
        }
    });
}
