//! How the `moelab` binary reads what a user gives it: text, tokenizers, prompts, the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A model of one layer, on text of this folder.
const CONFIG: &str = r#"
[model]
width = 64
context = 64
depth.layers = 1
attention.heads = 2
ffn.width = 64
router = { experts = 4, top_k = 2 }
[data]
kind = "text"
paths = ["words.txt"]
sequence_length = 16
batch = 2
drop_last = false
split.fraction = 0.5
[train]
updates = 2
micro_batches = 1
evaluation.windows = 8
[sample]
prompts = []
"#;

/// Documents in which a short vocabulary is all that can be learned.
fn words() -> String {
    (0..12).map(|number| format!("salt and water, water and salt {}\n\n", "again ".repeat(number % 3 + 1))).collect()
}

/// A folder to work in, with a config and its text.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("config.toml", CONFIG);
        place.write("words.txt", words());
        place
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs moelab in this folder; what takes a minute hangs.
    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
        let command = command.current_dir(self.0.path()).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(60) {
                child.kill().unwrap();
                panic!("{arguments:?} hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }

    /// What a command that works says on stdout and on stderr.
    fn said(&self, arguments: &[&str]) -> [String; 2] {
        let Output { status, stdout, stderr } = self.output(arguments);
        let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(status.success(), "{arguments:?}: {stderr}");
        [stdout, stderr]
    }

    /// What a command says whose input is refused.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        said
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let [stdout, _] = self.said(&[arguments, &["--json"]].concat());
        serde_json::from_str(stdout.lines().last().expect("one record")).unwrap()
    }

    /// Trains with these keys set; gives stderr.
    fn train(&self, out: &str, sets: &[&str]) -> String {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let [_, stderr] = self.said(&[&["train", "config.toml", "--out", out], &sets[..]].concat());
        stderr
    }

    fn weights(&self, run: &str) -> String {
        let summary: Value = serde_json::from_slice(&fs::read(self.path(run).join("summary.json")).unwrap()).unwrap();
        summary["weights_sha256"].as_str().unwrap().to_owned()
    }

    fn cached(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.path(".cache/tokens")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

/// Draws one token from a run.
fn draw<'a>(run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["sample", run, "--tokens", "1"], more].concat()
}

#[test]
fn a_run_says_what_it_read_and_needs_its_folder_only_to_be_sampled_from() {
    let place = Place::new();
    let said = place.train("run", &[]);
    assert!(said.contains("data: words.txt is read as text, documents separated by blank lines"), "{said}");
    // From another folder, with the corpus gone and no cache.
    fs::remove_file(place.path("words.txt")).unwrap();
    fs::remove_dir_all(place.path(".cache")).unwrap();
    fs::create_dir(place.path("elsewhere")).unwrap();
    let elsewhere =
        Command::new(env!("CARGO_BIN_EXE_moelab")).current_dir(place.path("elsewhere")).args(draw("../run", &[])).output().unwrap();
    assert!(elsewhere.status.success(), "{}", String::from_utf8_lossy(&elsewhere.stderr));
    assert!(!place.path(".cache").exists() && !place.path("elsewhere/.cache").exists(), "sampling reads no text");
    let said = place.refusal(&["eval", "run"]);
    assert!(said.contains("words.txt: no file to read below"), "{said}");

    // Text beside it is found by its own rules.
    place.write("other.ndjson", "{\"text\": \"salt and water, again\"}\n");
    assert!(place.json(&["eval", "run", "--data", "other.ndjson"])["val_ce"].as_f64().unwrap() > 0.0);
    place.write("other.csv", "salt and water, again");
    assert!(place.refusal(&["eval", "run", "--data", "other.csv"]).contains("of an unknown kind (other.csv)"));
    place.write("short.txt", "salt");
    let said = place.refusal(&["eval", "run", "--data", "short.txt"]);
    assert!(said.contains("the evaluated documents give 0 windows of 17 tokens"), "{said}");

    // Another run's tokenizer would make other text of the same ids.
    place.write("words.txt", words());
    place.train("other", &["data.tokenizer.kind=bpe", "data.tokenizer.vocabulary=270"]);
    fs::copy(place.path("run/tokenizer.json"), place.path("other/tokenizer.json")).unwrap();
    assert!(place.refusal(&draw("other", &[])).contains("`tokenizer.json` is not as the run wrote it"));
    fs::remove_file(place.path("other/SHA256SUMS")).unwrap();
    assert!(place.refusal(&draw("other", &[])).contains("this is not the tokenizer that the run was trained with"));
}

#[test]
fn what_to_draw_is_checked_and_a_long_prompt_is_cut_aloud() {
    let place = Place::new();
    place.train("run", &[]);
    let cases: [(&[&str], &str); 8] = [
        (&["--temperature", "-1"], "--temperature: -1, expected 0 to 100"),
        (&["--temperature=-1"], "--temperature: -1, expected 0 to 100"),
        (&["--temperature", "nan"], "--temperature: NaN, expected 0 to 100"),
        (&["--temperature=inf"], "--temperature: inf, expected 0 to 100"),
        (&["--top-p=5"], "--top-p: 5, expected 0 to 1"),
        (&["--top-p", "-0.5"], "--top-p: -0.5, expected 0 to 1"),
        (&["--top-p=nan"], "--top-p: NaN, expected 0 to 1"),
        (&["--tokens=70000"], "--tokens: 70000, expected 0 to 65536"),
    ];
    for (arguments, wanted) in cases {
        let said = place.refusal(&[&["sample", "run"], arguments].concat());
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    let both = place.refusal(&["sample", "run", "--temperature=-1", "--top-p=2"]);
    assert!(both.contains("--temperature: -1") && both.contains("--top-p: 2"), "{both}");
    assert!(place.refusal(&["sample", "run", "--tokens", "-1"]).contains("invalid value '-1' for '--tokens"));

    // 20 letters after a start of document, in a window of 16.
    let long = "saltwatersaltwatersa";
    let [_, said] = place.said(&draw("run", &["--prompt", long]));
    assert!(
        said.contains("warning: the prompt has 21 tokens, the model sees the last 16 (data.sequence_length): the first 5 are cut"),
        "{said}"
    );
    let [_, said] = place.said(&draw("run", &["--prompt", "saltwatersaltwa"]));
    assert_eq!(said, "", "sixteen tokens fit");
}

#[test]
fn prompts_of_a_run_are_checked_before_it_trains() {
    let place = Place::new();
    // A tokenizer of the letters a and b.
    place.write("letters.txt", format!("{}\n\n{}", "abba".repeat(20), "baab".repeat(20)));
    let tokenizer = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/train/hostile/accepted_dropped_steps.json");
    let said = place.refusal(
        &[
            &[
                "train",
                "config.toml",
                "--out",
                "run",
                "--set",
                "data.paths=[\"letters.txt\"]",
                "--set",
                "data.tokenizer.kind=file",
                "--set",
            ][..],
            &[&format!("data.tokenizer.path={tokenizer}"), "--set", "model.vocabulary=8", "--set", "data.end_of_document=false"],
            &["--set", "data.sequence_length=4", "--set", "sample.prompts=[\"ab\", \"abc\"]"],
        ]
        .concat(),
    );
    assert!(said.contains("sample.prompts[1]: tokenizer: the tokenizer has no id for the byte 0x63"), "{said}");
    assert!(!place.path("run").exists());
    let said = place.train("run", &[r#"sample.prompts=["saltwatersaltwatersa"]"#, "sample.tokens=1"]);
    assert!(said.contains("warning: sample.prompts[0]: the prompt has 21 tokens"), "{said}");
}

/// 4,096 ids are asked for and some 300 learned; an untrained model would draw the others nearly always.
#[test]
fn a_vocabulary_that_text_does_not_fill_is_told_and_never_drawn_from() {
    let place = Place::new();
    let said = place.train(
        "run",
        &["data.tokenizer.kind=bpe", "data.tokenizer.vocabulary=4096", "train.updates=1", "optimizer.adamw.lr=0", "optimizer.muon.lr=0"],
    );
    let tokenizer: Value = serde_json::from_slice(&fs::read(place.path("run/tokenizer.json")).unwrap()).unwrap();
    let learned = tokenizer["model"]["vocab"].as_object().unwrap().len();
    assert!(
        said.contains(&format!("warning: the tokenizer has {learned} of the 4096 ids that data.tokenizer.vocabulary requests")),
        "{said}"
    );
    assert!(said.contains("V = 4096") && said.contains(&format!("ln {learned} = {:.4}", (learned as f64).ln())), "{said}");
    let effective = fs::read_to_string(place.path("run/config.effective.toml")).unwrap();
    assert_eq!(effective.lines().filter(|line| *line == "vocabulary = 4096").count(), 2, "the model and the tokenizer as asked for");
    // Of all 4,096 ids alike some 14 in 15 lie beyond the tokenizer and would be U+FFFD; of the others every second is ASCII.
    let drawn = place.json(&["sample", "run", "--tokens", "60", "--temperature", "1", "--top-p", "1"]);
    let text = drawn["text"].as_str().unwrap();
    assert!(text.chars().filter(char::is_ascii).count() >= 20, "{text:?}");
    let exact = place.train("exact", &["data.tokenizer.kind=bpe", &format!("data.tokenizer.vocabulary={learned}"), "train.updates=1"]);
    assert!(!exact.contains("warning"), "{exact}");
}

#[test]
fn what_is_replaced_without_a_word_is_refused() {
    let place = Place::new();
    let with =
        |sets: &[&'static str]| [&["check", "config.toml"], &sets.iter().flat_map(|set| ["--set", *set]).collect::<Vec<_>>()[..]].concat();
    let said = place.refusal(&with(&["data.embedded=true", "model.vocabulary=49152"]));
    assert!(said.contains("`model.vocabulary` has no effect here: `data.embedded` replaces it"), "{said}");
    let said = place.refusal(&[&with(&["data.tokenizer.kind=bpe"])[..], &["--reduced"]].concat());
    assert!(said.contains("`data.tokenizer.kind` has no effect here") && said.contains("config.toml, reduced"), "{said}");
    place.said(&with(&["data.embedded=true", "model.vocabulary=256"]));
    place.said(&with(&["data.embedded=true"]));
}

#[test]
fn the_cache_saves_time_and_never_changes_a_number() {
    let place = Place::new();
    let bpe = ["data.tokenizer.kind=bpe", "data.tokenizer.vocabulary=270"];
    place.train("one", &bpe);
    let [tokenizer, tokens] = <[PathBuf; 2]>::try_from(place.cached()).unwrap();
    let (first, second) = (tokenizer.extension().unwrap(), tokens.extension().unwrap());
    let [tokenizer, tokens] = if first == "tokenizer" { [&tokenizer, &tokens] } else { [&tokens, &tokenizer] };
    assert_eq!([first, second].iter().filter(|ending| **ending == "tokenizer").count(), 1);

    for (number, file) in [tokenizer, tokens].into_iter().enumerate() {
        let whole = fs::read(file).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        for bytes in [&damaged[..], &whole[..whole.len() / 2]] {
            fs::write(file, bytes).unwrap();
            let run = format!("damaged-{number}-{}", bytes.len());
            let said = place.train(&run, &bpe);
            assert!(said.contains("cannot be used: it has changed since it was written; it is created again"), "{said}");
            assert_eq!(place.weights(&run), place.weights("one"));
            assert_eq!(fs::read(file).unwrap(), whole);
        }
    }

    // What a killed process left.
    let draft = format!("{}.tmp-1-0", tokens.display());
    fs::write(&draft, b"half").unwrap();
    place.train("two", &bpe);
    assert!(!Path::new(&draft).exists());

    // No cache where it should be, and another place for it.
    fs::remove_dir_all(place.path(".cache")).unwrap();
    place.write(".cache", "a file");
    let said = place.train("three", &bpe);
    assert_eq!(said.matches("warning: the cache .cache/tokens cannot be written").count(), 1, "{said}");
    let [_, said] =
        place.said(&[&["train", "config.toml", "--out", "four", "--cache", "moved"][..], &["--set", bpe[0], "--set", bpe[1]]].concat());
    assert!(!said.contains("warning"), "{said}");
    assert_eq!(fs::read_dir(place.path("moved")).unwrap().count(), 2);
    for run in ["two", "three", "four"] {
        assert_eq!(place.weights(run), place.weights("one"));
    }
}

#[test]
fn rows_of_json_are_read_whatever_their_file_is_called_and_half_pairs_are_placed() {
    let place = Place::new();
    let rows: String =
        words().split("\n\n").filter(|text| !text.is_empty()).map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
    for (run, file) in [("a", "rows.jsonl"), ("b", "rows.JSONL"), ("c", "rows.ndjson")] {
        place.write(file, &rows);
        let said = place.train(run, &[&format!("data.paths=[\"{file}\"]")]);
        assert!(said.contains("as JSON lines, one document per line"), "{said}");
        assert_eq!(place.weights(run), place.weights("a"));
    }
    place.write("half.jsonl", rows.clone() + "{\"id\": 1, \"text\": \"salt \\ud83d\"}\n");
    let said = place.refusal(&["train", "config.toml", "--out", "d", "--set", "data.paths=[\"half.jsonl\"]"]);
    assert!(said.contains("half.jsonl:13: byte 5 of field `text` is \\ud83d, an unpaired surrogate"), "{said}");
    let said = place.train("d", &["data.paths=[\"half.jsonl\"]", "data.invalid=replace"]);
    assert!(said.contains("data.invalid: U+FFFD replaces invalid text in 1 lines"), "{said}");
    fs::create_dir(place.path("corpus")).unwrap();
    place.write("corpus/rows.NDJSON", &rows);
    place.write("corpus/left.bin", "no text");
    let said = place.train("e", &["data.paths=[\"corpus\"]", "train.updates=1"]);
    assert!(said.contains("data.paths: corpus: skipped 1 of an unknown kind (corpus/left.bin)"), "{said}");
}

#[test]
fn a_long_word_is_learned_from_in_pieces() {
    let place = Place::new();
    let letters = |count: u64| {
        (0..count).map(|i| char::from(b"ACGT"[(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % 4])).collect::<String>()
    };
    place.write("words.txt", format!("{}\n\n{}", letters(60_000), letters(3_000)));
    let said = place.train("run", &["data.tokenizer.kind=bpe", "data.tokenizer.vocabulary=300", "train.updates=1"]);
    assert!(said.contains("in the text are longer than 1024 bytes, the longest has 60000"), "{said}");
}

/// As config, tokenizer, text, packed tokens, a run's file, a model to be imported.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_at_once_wherever_a_path_is_taken() {
    let place = Place::new();
    assert!(Command::new("mkfifo").arg(place.path("pipe.txt")).status().unwrap().success());
    place.train("run", &[]);
    fs::create_dir(place.path("model")).unwrap();
    let set = |sets: &[&'static str]| -> Vec<&'static str> {
        [&["train", "config.toml", "--out", "new"][..], &sets.iter().flat_map(|set| ["--set", *set]).collect::<Vec<_>>()].concat()
    };
    for (path, what) in
        [("pipe.txt", "this is a named pipe, expected a regular file"), ("/dev/zero", "this is a device, expected a regular file")]
    {
        let paths: &'static str = Box::leak(format!("data.paths=[\"{path}\"]").into_boxed_str());
        let tokenizer: &'static str = Box::leak(format!("data.tokenizer.path={path}").into_boxed_str());
        let mut cases = vec![
            vec!["check", path],
            set(&[paths]),
            set(&[paths, "data.kind=tokens"]),
            set(&["data.tokenizer.kind=file", tokenizer, "model.vocabulary=256"]),
            vec!["eval", "run", "--data", path],
        ];
        let links = [("config.effective.toml", "run/config.effective.toml"), ("tokenizer.json", "run/tokenizer.json")];
        for (_, link) in links {
            let kept = format!("{link}.kept");
            fs::rename(place.path(link), place.path(&kept)).unwrap();
            std::os::unix::fs::symlink(place.path(path), place.path(link)).unwrap();
            let said = place.refusal(&draw("run", &[]));
            assert!(said.contains(what) || said.contains("symbolic link"), "{link}: {said}");
            fs::remove_file(place.path(link)).unwrap();
            fs::rename(place.path(&kept), place.path(link)).unwrap();
        }
        std::os::unix::fs::symlink(place.path(path), place.path("model/config.json")).unwrap();
        cases.push(vec!["import", "model", "--out", "imported"]);
        for arguments in cases {
            let said = place.refusal(&arguments);
            assert!(said.contains(what), "{arguments:?}: {said}");
        }
        fs::remove_file(place.path("model/config.json")).unwrap();
    }
    assert!(!place.path("new").exists() && !place.path("imported").exists());
}

/// A run has its own tokenizer: it is resumed without the file that it was made with.
#[test]
fn a_run_is_resumed_when_its_tokenizer_file_has_moved() {
    let place = Place::new();
    place.output(&["train", "config.toml", "--out", "first", "--set", "data.tokenizer.kind=bytes"]);
    fs::copy(place.path("first/tokenizer.json"), place.path("tokenizer.json")).unwrap();
    let file = ["--set", "data.tokenizer.kind=file", "--set", "data.tokenizer.path=tokenizer.json", "--set", "model.vocabulary=256"];
    let trained = place.output(&[&["train", "config.toml", "--out", "run"], &file[..]].concat());
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    fs::remove_file(place.path("tokenizer.json")).unwrap();
    let resumed = place.output(&["resume", "run", "--set", "train.updates=4"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
}
