//! A config around an imported model.

use std::fs;

use moelab::{
    config_file::Problems,
    interop::{
        around::{Around, OwnTokenizer, load_around},
        hugging_face::describe,
    },
    run::{
        ModelConfig,
        config::{TokenizerKind, load},
    },
};

const MODELS: [&str; 9] =
    ["gpt2", "llama", "mixtral", "qwen3_moe", "glm4_moe", "glm4_moe_qk_norm", "deepseek_v3", "deepseek_v3_query_rank", "hrm_text"];

fn model(name: &str) -> ModelConfig {
    let path = format!("{}/tests/fixtures/hf/{name}/config.json", env!("CARGO_MANIFEST_DIR"));
    describe(&fs::read(path).unwrap()).unwrap().model
}

fn around(model: &ModelConfig, text: &str, sets: &[&str]) -> Result<Around, Problems> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let own = OwnTokenizer::File("run/tokenizer.json".into());
    load_around(model, &own, &|_| Ok(text.to_string()), "user.toml", &sets)
}

#[test]
fn every_kind_of_model_makes_a_config_that_is_read_back() {
    for name in MODELS {
        let model = model(name);
        let Around { config, notes, states_tokenizer } = around(&model, "", &[]).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!((&config.model, &notes[..], states_tokenizer), (&model, &[][..], false), "{name}");
        assert_eq!((config.data.sequence_length, config.data.tokenizer.kind), (16, TokenizerKind::File), "{name}");
        let text = config.to_effective_toml();
        let again = load(&|_| Ok(text.clone()), "again", &[]).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(again.to_effective_toml(), text, "{name}");
    }
}

#[test]
fn a_config_for_another_model_gives_its_data_and_training() {
    let model = model("llama");
    let text = r#"
        [model]
        width = 384
        dropout.ffn = 0.3
        ffn.kind = "moe"
        router.experts = 4
        [train]
        updates = 7
        [data]
        sequence_length = 8
    "#;
    let Around { config, notes, .. } = around(&model, text, &[]).unwrap();
    assert_eq!((config.train.updates, config.data.sequence_length, config.model.dropout.ffn), (7, 8, 0.3));
    let mut wanted = model.clone();
    wanted.dropout.ffn = 0.3;
    assert_eq!(config.model, wanted);
    let mut notes = notes;
    notes.sort();
    assert_eq!(
        notes,
        [
            "model.dropout.ffn = 0.3, as set; the model's files have 0.0",
            "model.ffn.kind = \"moe\" is ignored: the model has \"dense\"",
            "model.router.experts = 4 is ignored: it has no effect on this model",
            "model.width = 384 is ignored: the model has 64",
        ]
    );
}

#[test]
fn what_does_not_fit_the_model_is_told_of_the_model() {
    let model = model("llama");
    let told = |sets: &[&str], what: &str| {
        let said = around(&model, "", sets).map(|around| around.config).expect_err("a refusal").to_string();
        assert!(said.contains(what), "{sets:?}: no {what:?} in {said}");
    };
    told(&["data.sequence_length=64"], "`model.context`: at most 16 (by the model's files)");
    told(&["model.width=32"], "the model has 64");
    told(&["model.balance.coefficient=0.5"], "has no effect on this model");
    told(&["data.tokenizer.kind=bpe"], "other ids than the model's");
    let missing = load_around(&model, &OwnTokenizer::Missing, &|_| Ok(String::new()), "defaults", &[]).unwrap_err().to_string();
    assert!(missing.contains("the model's folder has no tokenizer"), "{missing}");
    let bytes = load_around(&model, &OwnTokenizer::Bytes, &|_| Ok(String::new()), "defaults", &[]).unwrap_err().to_string();
    assert!(bytes.contains("smaller than that of the tokenizer") && bytes.contains("V = 97 (by the model's files)"), "{bytes}");
}
