//! `moelab import`: creates a run from an external model. Nothing is guessed, and everything that the run does not keep is printed.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use moelab::{
    data::prepare::stated_tokenizer,
    interop::around::{Around, OwnTokenizer, load_around},
    interop::hugging_face::{self, CONFIG, WEIGHTS, folder, settings_of_training},
    lab::{
        files::TOKENIZER,
        import::{self, SOURCE, SOURCE_CONFIG},
        session::Opening,
    },
    train::trainer::Trainer,
};
use moelab_native::{out, print, store::Directory};
use serde_json::json;

use super::model_folder::{ModelFolder, left_out, weight_files};
use crate::{Common, open};

/// Creates a run from an external model.
#[derive(Args)]
pub struct ImportArgs {
    /// A folder with config.json, safetensors and tokenizer files.
    folder: PathBuf,
    /// The folder of the new run.
    #[arg(long)]
    out: PathBuf,
    /// A config for data, training and optimizers of the run. Default: the default config, on the embedded language.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one of its keys, for example data.sequence_length=64. Of the model's keys only training settings can be set, for example
    /// model.dropout.ffn=0.1. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// Creates a run from an external model.
pub fn import(common: &Common, args: &ImportArgs) -> Result<()> {
    let dir = &args.folder;
    let is_model = [CONFIG, WEIGHTS].iter().any(|name| args.out.join(name).exists());
    ensure!(!is_model, "{}: this is a model folder, choose a new folder for the run", print::path(&args.out));
    let files = ModelFolder::read(dir)?;
    let described = hugging_face::describe(&files.config)?;
    let weights = weight_files(dir)?;
    let heads: Vec<(&str, &[u8], u64)> = weights.iter().map(|file| (file.name.as_str(), file.head.as_slice(), file.length)).collect();
    described.check_headers(&heads)?;
    let mut notes = left_out(dir, &weights.iter().map(|file| file.name.as_str()).collect::<Vec<_>>())?;

    let own = files.tokenizer(described.model_type())?;
    let place = match &own {
        None => OwnTokenizer::Missing,
        Some((tokenizer, _)) if tokenizer.is_bytes() => OwnTokenizer::Bytes,
        Some(_) => OwnTokenizer::File(args.out.join(TOKENIZER).display().to_string()),
    };
    let Around { config, notes: departures, states_tokenizer } = load(&described.model, &place, args)?;
    let stated = states_tokenizer.then(|| stated_tokenizer(&config.data, &open::files(common))).transpose()?;
    let (tokenizer, of_tokenizer) = match (stated, own) {
        (Some(stated), Some((own, _))) => {
            ensure!(
                stated.digest() == own.digest(),
                "data.tokenizer has other ids than the model's own tokenizer: leave it out of the config to use the model's"
            );
            (own, Vec::new())
        }
        (Some(stated), None) => (stated, Vec::new()),
        (None, Some((own, notes))) => (own, notes),
        (None, None) => unreachable!("a config without a tokenizer was refused"),
    };
    notes.extend(of_tokenizer);
    notes.extend(folder::separator_note(&files.config, &tokenizer));
    let (config, corpus) = open::corpus(common, config, Some(tokenizer))?;

    let device = Rc::new(open::device(common)?);
    let read = weights.into_iter().map(|file| file.read()).collect::<Result<Vec<_>>>()?;
    let contents: Vec<(&str, &[u8])> = read.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let imported = described.read(&contents)?;
    drop(read);
    notes.extend(imported.notes);
    let training = settings_of_training(&config.model);

    let mut kept = vec![(SOURCE_CONFIG.to_string(), files.config)];
    kept.extend(files.kept.into_iter().map(|(name, bytes)| (format!("{SOURCE}{name}"), bytes)));
    let store = Directory::open(&args.out).with_context(|| print::path(&args.out))?;
    let opening = Opening {
        trainer: Trainer::new(config, device, corpus, Default::default())?,
        store: Box::new(store),
        tag: open::tag(),
        clock: open::clock(),
        baselines: None,
        rasterize: None,
        name: open::name(&args.out),
    };
    import::import(opening, imported.tensors, kept)?;
    let out = print::path(&args.out);
    if common.json {
        print::json(&json!({ "run": args.out, "not_kept": notes, "stated": departures, "training": training }));
    } else {
        out!("{out}: a run before its first update\nmoelab eval {out}\nmoelab sample {out}\nmoelab resume {out}");
        training.iter().for_each(|setting| out!("training setting from the model's files: {setting}"));
        departures.iter().for_each(|line| out!("{line}"));
        notes.iter().for_each(|line| out!("not kept: {line}"));
    }
    Ok(())
}

/// The user's config, or the default, for the model.
fn load(model: &moelab::run::ModelConfig, tokenizer: &OwnTokenizer, args: &ImportArgs) -> Result<Around> {
    Ok(match &args.config {
        Some(file) => load_around(model, tokenizer, &|path| open::read_text(Path::new(path)), &file.display().to_string(), &args.sets)?,
        None => load_around(model, tokenizer, &|_| Ok(String::new()), "defaults", &args.sets)?,
    })
}
