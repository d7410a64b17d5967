//! `moelab export`: a run's best checkpoint as a model's folder, written beside its place and renamed, so that it is there whole or
//! not at all.
//!
//! What the run was imported with and moelab does not use (special tokens and their lists, tokenizer files, generation settings) is in
//! the run's folder and comes back as it was.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use moelab::{
    data::tokenizer::Tokenizer,
    gpu::Capabilities,
    interop::hugging_face::{self, CONFIG, HfModel, WEIGHTS},
    lab::{
        identity::check,
        import::{SOURCE, SOURCE_CONFIG},
        run_folder::{Loaded, RunFolder, TOKENIZER},
    },
    run::{
        Config,
        identity::{self, Identity},
    },
    train::recording,
};
use moelab_native::{atomic, err, out, print, store::Directory};
use serde_json::{Value, json};

use super::{GENERATION, TOKENIZER_FILES, is_bytes};
use crate::{Common, corpus::tokenizer_file, open};

/// The layout of an export.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// Hugging Face transformers.
    Hf,
}

/// Writes a run's best checkpoint for other tools.
#[derive(Args)]
pub struct ExportArgs {
    /// The run's folder.
    run: PathBuf,
    /// A new folder for the model.
    folder: PathBuf,
    /// The layout.
    #[arg(long, default_value = "hf")]
    format: Format,
    /// Also write tokens and the model's logits on them to this safetensors file, to compare another implementation with.
    #[arg(long, value_name = "FILE")]
    check_logits: Option<PathBuf>,
}

/// Writes a run's best checkpoint for other tools.
pub fn export(common: &Common, args: &ExportArgs) -> Result<()> {
    let Format::Hf = args.format;
    let (run, folder) = (&args.run, &args.folder);
    ensure!(!folder.exists(), "{}: it is there already, choose a new folder", print::path(folder));
    let mut config = open::config_of_run(run, &[])?;
    open::fill_vocabulary(&mut config)?;
    let store = Directory::read_only(run).with_context(|| print::path(run))?;
    let runs = RunFolder::open(Box::new(store), &open::tag())?;
    let expected = recording::training(&config, Capabilities::PORTABLE).expected();
    let Some(loaded) = runs.load_best(&expected)? else {
        bail!("{}: no checkpoint yet, so there are no weights: go on with `moelab resume {}`", print::path(run), print::path(run));
    };
    let tokenizer = Some(run.join(TOKENIZER)).filter(|path| path.exists()).map(|path| tokenizer_file(&path)).transpose()?;
    let saved = &loaded.snapshot.state.identity;
    let digest = tokenizer.as_ref().map_or_else(|| saved.tokenizer.clone(), Tokenizer::hash);
    let agreement = check(&runs, saved, &Identity::new(&config, "", &digest, "", ""), identity::Purpose::Weights)?;
    loaded.warnings.iter().chain(&agreement.notes).for_each(|w| err!("warning: {}", print::name(w)));
    let weights = [&loaded.snapshot.tensors[..], &loaded.snapshot.optimizer[..]].concat();
    let end = tokenizer.as_ref().and_then(Tokenizer::end_of_document);
    let source = runs.read(SOURCE_CONFIG)?;
    let model = hugging_face::export(&config.model, &weights, end, source.as_deref())?;
    let mut files = vec![
        (CONFIG.to_string(), model.config_json.clone().into_bytes()),
        (WEIGHTS.into(), model.weights.clone()),
        ("README.md".into(), card(&open::name(run), &config, &model, &loaded, tokenizer.as_ref()).into_bytes()),
    ];
    files.extend(beside(&runs, &config, end, source.is_some(), tokenizer.as_ref())?);
    if let Some(file) = &args.check_logits {
        let device = open::device(common)?;
        let logits = hugging_face::logits(&config.model, &weights, &device, config.seed)?;
        atomic::write(file, &hugging_face::encode(&logits)).with_context(|| print::path(file))?;
    }
    atomic::write_folder(folder, &files).with_context(|| print::path(folder))?;
    if common.json {
        print::json(
            &json!({ "model_type": model.model_type, "folder": folder, "update": loaded.snapshot.state.update, "lost": model.lost }),
        );
    } else {
        out!("{}: a `{}` model, update {}", print::path(folder), model.model_type, loaded.snapshot.state.update);
        if tokenizer.as_ref().is_some_and(is_bytes) {
            out!(
                "transformers has no tokenizer whose ids are bytes; tokenizer.json spells it as byte-level BPE without merges: equal ids for every text"
            );
        }
        model.lost.iter().for_each(|setting| out!("not kept: {setting}"));
    }
    Ok(())
}

/// Generation settings and tokenizer: those that the run was imported with, or else its own.
fn beside(
    runs: &RunFolder,
    config: &Config,
    end: Option<u32>,
    is_imported: bool,
    own: Option<&Tokenizer>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut kept = |name: &str| -> Result<bool> {
        let found = runs.read(&format!("{SOURCE}{name}"))?;
        files.extend(found.map(|bytes| (name.to_string(), bytes)));
        Ok(files.last().is_some_and(|(last, _)| last == name))
    };
    let has_generation = kept(GENERATION)?;
    let mut has_tokenizer = false;
    for name in TOKENIZER_FILES {
        has_tokenizer |= kept(name)?;
    }
    // Without the file, transformers takes what config.json says, and so it does again.
    if !has_generation && !is_imported {
        files.push((GENERATION.into(), pretty(&generation(config, end))));
    }
    if let Some(tokenizer) = own.filter(|_| !has_tokenizer) {
        files.push((TOKENIZER.into(), tokenizer.to_json().into_bytes()));
        files.push(("tokenizer_config.json".into(), pretty(&tokenizer_config(config, tokenizer)?)));
    }
    Ok(files)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn generation(config: &Config, end: Option<u32>) -> Value {
    let sample = &config.sample;
    let mut json = json!({ "bos_token_id": end, "eos_token_id": end, "do_sample": sample.temperature > 0.0 });
    if sample.temperature > 0.0 {
        json["temperature"] = sample.temperature.into();
        json["top_p"] = sample.top_p.into();
    }
    json
}

/// What `AutoTokenizer` reads beside tokenizer.json. The end of a document is named only where it is a token of its own:
/// that of the byte tokenizer is a byte.
fn tokenizer_config(config: &Config, tokenizer: &Tokenizer) -> Result<Value> {
    let file: Value = serde_json::from_str(&tokenizer.to_json())?;
    let added = file["added_tokens"].as_array().cloned().unwrap_or_default();
    let end = added.iter().find(|token| token["id"].as_u64() == tokenizer.end_of_document().map(u64::from));
    let mut json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.model.context,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(end) = end {
        json["bos_token"] = end["content"].clone();
        json["eos_token"] = end["content"].clone();
    }
    Ok(json)
}

/// The page that a model is shown by.
fn card(name: &str, config: &Config, model: &HfModel, loaded: &Loaded, tokenizer: Option<&Tokenizer>) -> String {
    let state = &loaded.snapshot.state;
    let parameters: u64 = config.parameters().iter().map(|spec| spec.len()).sum();
    let mut card = format!(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- moelab\n---\n\n# {name}\n\n\
         A `{}` model of {parameters} parameters, trained by moelab {} for {} updates on {} tokens.\n",
        model.model_type,
        env!("CARGO_PKG_VERSION"),
        state.update,
        state.tokens
    );
    if let Some(best) = state.best {
        card += &format!("Validation cross-entropy after update {}: {:.4} nats a token.\n", best.update, best.val_ce);
    }
    card += "\n`AutoModelForCausalLM.from_pretrained` and, where there is a tokenizer, `AutoTokenizer.from_pretrained` load this folder.\n";
    if tokenizer.is_some_and(is_bytes) {
        card += "An id is a byte of UTF-8; id 0, which no text holds, ends documents.\n";
    }
    if !model.lost.is_empty() {
        card += "\nWhat these files do not keep:\n\n";
        model.lost.iter().for_each(|setting| card += &format!("- `{setting}`\n"));
    }
    card
}
