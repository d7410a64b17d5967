//! The tokenizer of a model's folder against transformers' AutoTokenizer (`tests/fixtures/hf/tokenizers.py` made the golden file).

use std::fs;

use moelab::data::tokenizer::{ModelFiles, Tokenizer};
use serde_json::{Value, json};

fn golden() -> Value {
    let path = format!("{}/tests/fixtures/hf/tokenizers.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The files of a case, as texts.
struct Case {
    model_type: String,
    tokenizer: Option<String>,
    vocab: Option<String>,
    merges: Option<String>,
    config: Option<String>,
    special_tokens: Option<String>,
    added_tokens: Option<String>,
}

impl Case {
    fn of(golden: &Value, model_type: &str, files: &Value) -> Case {
        let base = &golden["tokenizer"];
        let tokenizer = files.get("tokenizer.json").map(|changed| {
            let mut file = base.clone();
            changed.as_object().unwrap().iter().for_each(|(key, value)| file[key] = value.clone());
            if file["added_tokens"] == "with <extra>" {
                file["added_tokens"] = base["added_tokens"].clone();
                file["added_tokens"].as_array_mut().unwrap().push(golden["extra"].clone());
            }
            file.to_string()
        });
        let has_vocab = files.get("vocab").is_some();
        let pairs = base["model"]["merges"].as_array().unwrap();
        let line = |pair: &Value| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let merges = String::from("#version: 0.2\n") + &pairs.iter().map(line).collect::<String>();
        let text = |name: &str| files.get(name).map(Value::to_string);
        Case {
            model_type: model_type.into(),
            tokenizer,
            vocab: has_vocab.then(|| base["model"]["vocab"].to_string()),
            merges: has_vocab.then_some(merges),
            config: text("tokenizer_config"),
            special_tokens: text("special_tokens_map"),
            added_tokens: text("added_tokens"),
        }
    }

    fn read(&self) -> Result<(Tokenizer, Vec<String>), String> {
        let bytes = |text: &'_ Option<String>| text.clone().map(String::into_bytes);
        let [tokenizer, vocab, merges, config, special_tokens, added_tokens] =
            [&self.tokenizer, &self.vocab, &self.merges, &self.config, &self.special_tokens, &self.added_tokens].map(bytes);
        let files = ModelFiles {
            model_type: &self.model_type,
            tokenizer: tokenizer.as_deref(),
            vocab: vocab.as_deref(),
            merges: merges.as_deref(),
            config: config.as_deref(),
            special_tokens: special_tokens.as_deref(),
            added_tokens: added_tokens.as_deref(),
        };
        Tokenizer::of_model(&files).map_err(|error| error.to_string())
    }
}

#[test]
fn ids_are_those_of_auto_tokenizer() {
    let golden = golden();
    let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let (mut faults, mut equal, mut refused) = (Vec::new(), 0, Vec::new());
    for case in golden["cases"].as_array().unwrap() {
        let (model_type, files, wanted) = (case[0].as_str().unwrap(), &case[1], &case[2]);
        match (Case::of(&golden, model_type, files).read(), wanted.is_string()) {
            (Ok(_), true) => faults.push(format!("{case}: read")),
            (Ok((tokenizer, notes)), false) => {
                let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text).unwrap()).collect();
                let unknown = notes.iter().filter(|note| note.contains("has no id")).count() as u64;
                equal += 1;
                if json!(ids) != golden["ids"][wanted["ids"].as_u64().unwrap() as usize] {
                    faults.push(format!("{case}: other ids"));
                }
                if u64::from(tokenizer.vocabulary()) + unknown != wanted["vocabulary"].as_u64().unwrap() {
                    faults.push(format!("{case}: {} ids and {unknown} unknown", tokenizer.vocabulary()));
                }
            }
            (Err(_), true) => {}
            (Err(_), false) => refused.push(files["tokenizer_config"]["tokenizer_class"].as_str().unwrap_or_default().to_string()),
        }
    }
    assert!(faults.is_empty(), "{} cases:\n{}", faults.len(), faults.join("\n"));
    refused.sort();
    refused.dedup();
    // Classes that split text by rules of their own, or that transformers does not know, and has a way out for.
    let known = ["CodeLlamaTokenizer", "GPTNeoXTokenizer", "LlamaTokenizer", "LlamaTokenizerFast", "SomeTokenizer"];
    assert!(refused.iter().all(|class| known.contains(&class.as_str())), "{refused:?}");
    assert!(equal > 400, "{equal} cases are read");
}

#[test]
fn what_stands_around_a_text_is_told() {
    let golden = golden();
    let notes = |files: Value| Case::of(&golden, "llama", &files).read().unwrap().1;
    let told = |files: Value, what: &str| {
        let notes = notes(files);
        assert!(notes.iter().any(|note| note.contains(what)), "no {what:?} in {notes:?}");
    };
    assert_eq!(notes(json!({ "tokenizer.json": {} })), [""; 0]);
    told(json!({ "tokenizer.json": {}, "tokenizer_config": { "add_bos_token": true } }), "special tokens around a text");
    told(json!({ "tokenizer.json": { "truncation": { "max_length": 3 } } }), "`truncation` of tokenizer.json");
    told(json!({ "tokenizer.json": {}, "tokenizer_config": { "eos_token": { "content": "<new>" } } }), "`<new>` (`eos_token`) has no id");
    told(json!({ "tokenizer.json": {}, "tokenizer_config": { "add_prefix_space": true } }), "`add_prefix_space` = true");
}

#[test]
fn what_would_lose_text_is_refused() {
    let golden = golden();
    let mut split = golden["tokenizer"]["pre_tokenizer"].clone();
    split = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "String": "x" }, "behavior": "Removed", "invert": false }, split] });
    let said = Case::of(&golden, "llama", &json!({ "tokenizer.json": { "pre_tokenizer": split } })).read().err().unwrap();
    assert!(said.contains("its text would be lost"), "{said}");
    let mut extra = golden["extra"].clone();
    (extra["lstrip"], extra["special"]) = (json!(true), json!(false));
    let said = Case::of(&golden, "llama", &json!({ "tokenizer.json": { "added_tokens": [extra] } })).read().err().unwrap();
    assert!(said.contains("they would be lost"), "{said}");
    let model = json!({ "type": "BPE", "vocab": { "a": 0 }, "merges": [], "unk_token": "\u{1b}[31m".repeat(10_000) });
    let said = Case::of(&golden, "llama", &json!({ "tokenizer.json": { "model": model, "added_tokens": [] } })).read().err().unwrap();
    assert!(said.len() < 300 && !said.contains('\u{1b}'), "{} bytes", said.len());
}
