//! `moelab export` and `moelab import` from outside: there and back, and what is refused.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use moelab::data::tokenizer::Tokenizer;
use serde_json::{Value, json};

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
    assert!(refusal(&["export", &run, &model]).contains("it already exists"));

    let said = json(&["import", &model, "--out", &back, "--config", &config]);
    assert_eq!(said["not_kept"], Value::Array(Vec::new()), "{said}");
    assert!(said["training"].as_array().unwrap().contains(&"model.dropout.ffn = 0.0 (default 0.1)".into()), "{said}");
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
    assert!(
        refusal(&["import", golden, "--out", &out]).contains("the model's folder has no tokenizer, so the meaning of its ids is unknown")
    );
    fs::remove_file(&weights).unwrap();
    assert!(refusal(&["import", &model, "--out", &out]).contains("model.safetensors"));
    assert!(!Path::new(&out).exists());
}

/// A folder with the golden tokenizer, its model a Mixtral of as many ids, and what else `files` say.
fn model_with(place: &Place, name: &str, config: &Value, files: &[(&str, &str)]) -> String {
    let model = place.path(name);
    if !Path::new(&place.path("wide")).exists() {
        fs::write(place.0.path().join("wide.toml"), MIXTRAL.replace("[model]", "[model]\nvocabulary = 300")).unwrap();
        json(&["train", &place.path("wide.toml"), "--out", &place.path("wide"), "--set", "train.updates=1"]);
    }
    json(&["export", &place.path("wide"), &model]);
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md"] {
        fs::remove_file(Path::new(&model).join(file)).unwrap();
    }
    let path = Path::new(&model).join("config.json");
    let mut found: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in config.as_object().unwrap() {
        found[key] = value.clone();
    }
    fs::write(&path, found.to_string()).unwrap();
    files.iter().for_each(|(file, text)| fs::write(Path::new(&model).join(file), text).unwrap());
    model
}

fn golden_tokenizer() -> Value {
    let path = format!("{ROOT}/tests/fixtures/hf/tokenizers.json");
    serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap()["tokenizer"].clone()
}

#[test]
fn special_tokens_and_files_of_the_tokenizer_come_back() {
    let place = Place(tempfile::tempdir().unwrap());
    let mut tokenizer = golden_tokenizer();
    let bos = json!([{ "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }]);
    tokenizer["post_processor"] = json!({ "type": "TemplateProcessing", "single": bos, "pair": bos,
        "special_tokens": { "<|endoftext|>": { "id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"] } } });
    let (tokenizer, generation) = (tokenizer.to_string(), json!({ "eos_token_id": [0, 5], "top_k": 7 }).to_string());
    let of_tokenizer =
        json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "add_bos_token": true }).to_string();
    let files = [
        ("tokenizer.json", tokenizer.as_str()),
        ("generation_config.json", &generation),
        ("tokenizer_config.json", &of_tokenizer),
        ("chat_template.jinja", "{{ messages }}"),
        ("LICENSE", "free"),
    ];
    let ids = json!({ "bos_token_id": 3, "eos_token_id": [0, 5], "pad_token_id": 4, "use_cache": false, "router_jitter_noise": 0.25 });
    let model = model_with(&place, "model", &ids, &files);
    let [run, again] = ["run", "again"].map(|name| place.path(name));
    let said = json(&["import", &model, "--out", &run]);
    let told = |what: &str| said["not_kept"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(what));
    assert!(told("special tokens around a text") && told("the file LICENSE") && told("`router_jitter_noise` is 0.25"), "{said}");
    json(&["export", &run, &again]);
    for (file, text) in &files[..4] {
        assert_eq!(&fs::read_to_string(Path::new(&again).join(file)).unwrap(), text, "{file}");
    }
    let config: Value = serde_json::from_slice(&fs::read(Path::new(&again).join("config.json")).unwrap()).unwrap();
    for (key, value) in ids.as_object().unwrap() {
        assert_eq!(&config[key], value, "{key}");
    }
    let ids = |run: &str| json(&["sample", run, "--prompt", "Hello world", "--tokens", "4", "--temperature", "0"])["text"].clone();
    json(&["import", &again, "--out", &place.path("third")]);
    assert_eq!(ids(&place.path("third")), ids(&run));
    // Such a run has no weights but those of its checkpoint.
    fs::remove_dir_all(Path::new(&run).join("checkpoints")).unwrap();
    assert!(refusal(&["resume", &run]).contains("import the model again"));
}

#[test]
fn a_vocabulary_with_merges_is_read_and_nothing_is_guessed() {
    let place = Place(tempfile::tempdir().unwrap());
    let model = golden_tokenizer()["model"].clone();
    let line = |pair: &Value| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    let merges = String::from("#version: 0.2\n") + &model["merges"].as_array().unwrap().iter().map(line).collect::<String>();
    let vocab = model["vocab"].to_string();
    let run = place.path("run");
    // A Mixtral's class says nothing of how such files split text.
    let folder = model_with(&place, "model", &json!({}), &[("vocab.json", &vocab), ("merges.txt", &merges)]);
    assert!(refusal(&["import", &folder, "--out", &run]).contains("vocab.json and merges.txt do not say how"));
    let none = model_with(&place, "none", &json!({}), &[]);
    assert!(refusal(&["import", &none, "--out", &run]).contains("the meaning of its ids is unknown"));
    json(&["import", &none, "--out", &place.path("bytes"), "--set", "data.tokenizer.kind=bytes"]);
    let whole = golden_tokenizer().to_string();
    let whole = model_with(&place, "whole", &json!({}), &[("tokenizer.json", &whole)]);
    for (set, told) in [
        ("data.tokenizer.kind=bpe", "a newly trained tokenizer has other ids than the model's"),
        ("data.tokenizer.kind=bytes", "data.tokenizer has other ids than the model's own tokenizer"),
        ("model.width=64", "an imported model is defined by its files"),
        ("model.depth.recursion.low_cycles=3", "`model.depth.recursion.low_cycles`"),
        ("data.sequence_length=64", "by the model's files"),
    ] {
        let said = refusal(&["import", &whole, "--out", &run, "--set", set]);
        assert!(said.contains(told), "{set}: no {told:?} in {said}");
        assert!(!said.contains("config.json:"), "{set}: a place in a file that has no such line: {said}");
    }
    let said = json(&["import", &whole, "--out", &run, "--set", "model.dropout.ffn=0.25", "--set", "model.width=32"]);
    assert_eq!(said["stated"], json!(["model.dropout.ffn = 0.25, as set; the model's files have 0.0"]), "{said}");
    assert!(fs::read_to_string(Path::new(&run).join("config.effective.toml")).unwrap().contains("ffn = 0.25"));
}

/// A GPT-2 without `tokenizer.json`, as old folders have it.
#[test]
fn a_gpt2_with_vocabulary_and_merges_has_the_ids_of_auto_tokenizer() {
    let place = Place(tempfile::tempdir().unwrap());
    let gpt2 = r#"
        [model]
        vocabulary = 300
        width = 32
        context = 32
        depth.layers = 1
        embedding.scale = "one"
        norm.kind = "layer_norm"
        positions.kind = "learned"
        attention = { heads = 2, bias = true, output_bias = true }
        ffn = { kind = "dense", width = 64, activation = "gelu_tanh", bias = true }
        [data]
        sequence_length = 32
        batch = 2
        [train]
        updates = 1
        micro_batches = 1
        evaluation.windows = 4
        [schedule]
        warmup = 0
        [sample]
        tokens = 0
    "#;
    fs::write(place.0.path().join("gpt2.toml"), gpt2).unwrap();
    let [run, model, back] = ["run", "model", "back"].map(|name| place.path(name));
    json(&["train", &place.path("gpt2.toml"), "--out", &run]);
    json(&["export", &run, &model]);
    let place_of = |file: &str| Path::new(&model).join(file);
    fs::remove_file(place_of("tokenizer.json")).unwrap();
    let golden: Value = serde_json::from_slice(&fs::read(format!("{ROOT}/tests/fixtures/hf/tokenizers.json")).unwrap()).unwrap();
    let (vocab, merges) = (&golden["tokenizer"]["model"]["vocab"], &golden["tokenizer"]["model"]["merges"]);
    let line = |pair: &Value| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    fs::write(place_of("vocab.json"), vocab.to_string()).unwrap();
    fs::write(place_of("merges.txt"), merges.as_array().unwrap().iter().map(line).collect::<String>()).unwrap();
    for space in [false, true] {
        let config = json!({ "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": space });
        fs::write(place_of("tokenizer_config.json"), config.to_string()).unwrap();
        let back = format!("{back}{space}");
        json(&["import", &model, "--out", &back]);
        let own = Tokenizer::from_json(&fs::read(Path::new(&back).join("tokenizer.json")).unwrap()).unwrap();
        let ids: Vec<Vec<u32>> =
            golden["texts"].as_array().unwrap().iter().map(|text| own.encode(text.as_str().unwrap()).unwrap()).collect();
        assert_eq!(json!(ids), golden["ids"][usize::from(space)], "add_prefix_space = {space}");
    }
}

#[test]
fn a_model_with_a_long_context_takes_long_sequences() {
    let place = Place(tempfile::tempdir().unwrap());
    let tokenizer = golden_tokenizer().to_string();
    let model = model_with(&place, "model", &json!({ "max_position_embeddings": 4096 }), &[("tokenizer.json", &tokenizer)]);
    let run = place.path("run");
    json(&["import", &model, "--out", &run, "--set", "data.sequence_length=1024", "--set", "data.batch=1"]);
    assert!(fs::read_to_string(Path::new(&run).join("config.effective.toml")).unwrap().contains("sequence_length = 1024"));
}

#[test]
fn an_import_touches_no_models_folder() {
    let place = Place(tempfile::tempdir().unwrap());
    let tokenizer = golden_tokenizer().to_string();
    let model = model_with(&place, "model", &json!({}), &[("tokenizer.json", &tokenizer)]);
    let before = files_of(&model);
    assert!(refusal(&["import", &model, "--out", &model]).contains("this is a model folder"));
    assert_eq!(files_of(&model), before);
}

fn files_of(folder: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<(String, Vec<u8>)> =
        entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

#[cfg(unix)]
#[test]
fn what_is_no_file_or_too_large_is_refused_before_it_is_read() {
    let place = Place(tempfile::tempdir().unwrap());
    let tokenizer = golden_tokenizer().to_string();
    let model = model_with(&place, "model", &json!({}), &[("tokenizer.json", &tokenizer)]);
    let run = place.path("run");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let path = Path::new(&model).join(file);
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let said = refusal(&["import", &model, "--out", &run]);
        assert!(said.contains("a named pipe, expected a regular file"), "{file}: {said}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, kept).unwrap();
    }
    // Sparse: three billion bytes that would take a while to read.
    let weights = fs::File::create(Path::new(&model).join("model.safetensors")).unwrap();
    weights.set_len(3_000_000_000).unwrap();
    let said = refusal(&["import", &model, "--out", &run]);
    assert!(said.contains("is not a safetensors file"), "{said}");
    assert!(!Path::new(&run).exists());
}
