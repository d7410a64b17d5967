//! `moelab export` and `moelab import` from outside: there and back, and what is refused.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
    command.current_dir(ROOT).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

fn json(arguments: &[&str]) -> Value {
    let output = output(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(said.lines().last().expect("one record")).unwrap()
}

/// What a command says to a user whose input is refused.
fn refusal(arguments: &[&str]) -> String {
    let output = output(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    said
}

/// A Mixtral of two layers after three updates.
const MIXTRAL: &str = r#"
[model]
width = 32
context = 32
depth.layers = 2
embedding.scale = "one"
positions.pairing = "half_split"
attention = { heads = 2, kv_heads = 1 }
ffn = { width = 32, gated = true }
router = { experts = 4, top_k = 2 }
[data]
sequence_length = 32
batch = 2
[train]
updates = 3
micro_batches = 1
evaluation.windows = 8
[schedule]
warmup = 0
[sample]
tokens = 4
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn with_run(config: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.0.path().join("config.toml"), config).unwrap();
        json(&["train", &place.path("config.toml"), "--out", &place.path("run")]);
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[test]
fn a_model_goes_out_and_comes_back() {
    let place = Place::with_run(MIXTRAL);
    let [config, run, model, back, again] = ["config.toml", "run", "model", "back", "again"].map(|name| place.path(name));
    let said = json(&["export", &run, &model, "--check-logits", &place.path("logits.safetensors")]);
    assert_eq!((&said["model_type"], &said["update"]), (&"mixtral".into(), &3.into()));
    assert!(said["lost"].as_array().unwrap().contains(&"model.dropout.ffn = 0.1".into()), "{said}");
    for file in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"] {
        assert!(Path::new(&model).join(file).exists(), "{file}");
    }
    assert!(Path::new(&place.path("logits.safetensors")).exists());
    assert!(refusal(&["export", &run, &model]).contains("it is there already"));

    json(&["import", &model, "--out", &back, "--config", &config]);
    let evaluated = |run: &str| json(&["eval", run])["val_ce"].clone();
    assert_eq!(evaluated(&back), evaluated(&run), "the same weights on the same text");
    let sampled = |run: &str| json(&["sample", run, "--prompt", "De", "--tokens", "6"])["text"].clone();
    assert_eq!(sampled(&back), sampled(&run));
    json(&["export", &back, &again]);
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let read = |folder: &str| fs::read(Path::new(folder).join(file)).unwrap();
        assert!(read(&again) == read(&model), "{file} came back otherwise");
    }
    assert!(refusal(&["import", &model, "--out", &back]).contains("already a run"));
    assert_eq!(json(&["resume", &back])["updates"], 3, "an imported model is trained on");
    assert_ne!(evaluated(&back), evaluated(&run));
}

#[test]
fn what_has_no_counterpart_is_told_in_full() {
    let plain = MIXTRAL.replace("embedding.scale = \"one\"\npositions.pairing = \"half_split\"\n", "").replace(", gated = true", "");
    let place = Place::with_run(&plain);
    let said = refusal(&["export", &place.path("run"), &place.path("model")]);
    for reason in ["`mixtral`", "model.embedding.scale", "model.positions.pairing", "model.ffn.gated"] {
        assert!(said.contains(reason), "no {reason} in {said}");
    }
    assert!(!Path::new(&place.path("model")).exists());
}

#[test]
fn a_broken_folder_makes_no_run() {
    let place = Place::with_run(MIXTRAL);
    let [run, model, out] = ["run", "model", "out"].map(|name| place.path(name));
    json(&["export", &run, &model]);
    let weights = Path::new(&model).join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 4]).unwrap();
    assert!(refusal(&["import", &model, "--out", &out]).contains("do not fill the file"));
    let golden = "tests/fixtures/hf/mixtral";
    assert!(refusal(&["import", golden, "--out", &out]).contains("97 ids are too few for bytes"));
    fs::remove_file(&weights).unwrap();
    assert!(refusal(&["import", &model, "--out", &out]).contains("model.safetensors"));
    assert!(!Path::new(&out).exists());
}
