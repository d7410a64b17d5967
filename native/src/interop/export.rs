//! `moelab export`: a run's best checkpoint as a model folder, written atomically.
//!
//! Files that the run was imported with and that moelab does not use (special tokens and their lists, tokenizer files, generation
//! settings) are stored in the run folder and exported unchanged.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use moelab::{
    data::tokenizer::Tokenizer,
    gpu::Capabilities,
    interop::hugging_face::{
        self, CONFIG, WEIGHTS,
        folder::{beside, card},
    },
    lab::{
        files::TOKENIZER,
        identity::check,
        import::{SOURCE, SOURCE_CONFIG},
        run_folder::RunFolder,
    },
    run::identity::{self, Identity},
    train::recording,
};
use moelab_native::{atomic, corpus::tokenizer_file, err, out, print, store::Directory};
use serde_json::json;

use crate::{Common, open};

/// The format of an export.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// Hugging Face transformers.
    Hf,
}

/// Writes a run's best checkpoint for other tools.
#[derive(Args)]
pub struct ExportArgs {
    /// The run folder.
    run: PathBuf,
    /// A new folder for the model.
    folder: PathBuf,
    /// The format.
    #[arg(long, default_value = "hf")]
    format: Format,
    /// Also write tokens and the model's logits for them to this safetensors file, for comparison with another implementation.
    #[arg(long, value_name = "FILE")]
    check_logits: Option<PathBuf>,
}

/// Writes a run's best checkpoint for other tools.
pub fn export(common: &Common, args: &ExportArgs) -> Result<()> {
    let Format::Hf = args.format;
    let (run, folder) = (&args.run, &args.folder);
    ensure!(!folder.exists(), "{}: it already exists, choose a new folder", print::path(folder));
    let mut config = open::config_of_run(run, &[])?;
    open::fill_vocabulary(&mut config)?;
    let store = Directory::read_only(run).with_context(|| print::path(run))?;
    let runs = RunFolder::open(Box::new(store), &open::tag())?;
    let expected = recording::training(&config, Capabilities::PORTABLE).expected();
    let Some(loaded) = runs.load_best(&expected)? else {
        bail!("{}: there is no checkpoint yet: continue training with `moelab resume {}`", print::path(run), print::path(run));
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
        ("README.md".into(), card(&open::name(run), &config, &model, &loaded.snapshot.state, tokenizer.as_ref()).into_bytes()),
    ];
    files.extend(beside(&config, tokenizer.as_ref(), source.is_some(), |name| runs.read(&format!("{SOURCE}{name}")))?);
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
        if tokenizer.as_ref().is_some_and(Tokenizer::is_bytes) {
            out!("transformers has no byte tokenizer; tokenizer.json has the same ids as byte-level BPE without merges");
        }
        model.lost.iter().for_each(|setting| out!("not kept: {setting}"));
    }
    Ok(())
}
