//! `moelab export` and `moelab import`: models in folders as Hugging Face transformers has them.
//!
//! An export is written beside its place and renamed, so that it is there whole or not at all. A folder that is to be
//! imported is read with bounds on every file; what its files mean is for the core.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use moelab::{
    gpu::Tier,
    lab::{
        import,
        run_folder::{Loaded, RunFolder},
        session::{Opening, TOKENIZER},
    },
    train::{
        Config,
        config::{TokenizerKind, load},
        hugging_face::{self, CONFIG, HfModel, WEIGHTS},
        recording,
        tokenizer::Tokenizer,
    },
};
use moelab_native::{atomic, err, input, out, print, store::Directory};
use serde_json::{Value, json};

use crate::{
    Common,
    corpus::{Purpose, tokenizer_file},
    open,
};

/// Most bytes of a JSON file: 8 MB.
const MOST_JSON: u64 = 8_000_000;
/// Most bytes of the weights: 16 GB.
const MOST_WEIGHTS: u64 = 16_000_000_000;
/// Names the files of weights that come in several.
const INDEX: &str = "model.safetensors.index.json";

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

/// Makes a run of a model from elsewhere.
#[derive(Args)]
pub struct ImportArgs {
    /// A folder with config.json, safetensors and tokenizer.json.
    folder: PathBuf,
    /// The new run's folder.
    #[arg(long)]
    out: PathBuf,
    /// A config whose data, training and optimizers the run takes. Default: the defaults, on the embedded language.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change one of its keys, for example data.sequence_length=64. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// Writes a run's best checkpoint for other tools.
pub fn export(common: &Common, args: &ExportArgs) -> Result<()> {
    let Format::Hf = args.format;
    let (run, folder) = (&args.run, &args.folder);
    ensure!(!folder.exists(), "{}: it is there already, choose a new folder", print::path(folder));
    let mut config = open::config_of_run(run)?;
    open::resolve_vocabulary(&mut config)?;
    let store = Directory::read_only(run).with_context(|| print::path(run))?;
    let runs = RunFolder::open(Box::new(store), &open::tag())?;
    let expected = recording::training(&config, Tier::Portable).expected();
    let Some(loaded) = runs.load_best(&expected)? else {
        bail!("{}: no checkpoint yet, so there are no weights: go on with `moelab resume {}`", print::path(run), print::path(run));
    };
    loaded.warnings.iter().for_each(|w| err!("warning: {w}"));
    let tokenizer = Some(run.join(TOKENIZER)).filter(|path| path.exists()).map(|path| tokenizer_file(&path)).transpose()?;
    let weights = [&loaded.snapshot.tensors[..], &loaded.snapshot.optimizer[..]].concat();
    let end = tokenizer.as_ref().and_then(Tokenizer::end_of_document);
    let model = hugging_face::export(&config.model, &weights, end)?;
    let mut files = vec![
        (CONFIG.to_string(), model.config_json.clone().into_bytes()),
        ("generation_config.json".into(), pretty(&generation(&config, end))),
        (WEIGHTS.into(), model.weights.clone()),
        ("README.md".into(), card(&open::name(run), &config, &model, &loaded, tokenizer.as_ref()).into_bytes()),
    ];
    if let Some(tokenizer) = &tokenizer {
        files.push(("tokenizer.json".into(), tokenizer.to_json().into_bytes()));
        files.push(("tokenizer_config.json".into(), pretty(&tokenizer_config(&config, tokenizer)?)));
    }
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
        model.lost.iter().for_each(|setting| out!("not kept, as only training reads it: {setting}"));
    }
    Ok(())
}

/// Makes a run of a model from elsewhere.
pub fn import(common: &Common, args: &ImportArgs) -> Result<()> {
    let dir = &args.folder;
    let base = base_config(args)?;
    let config_json = read(&dir.join(CONFIG), MOST_JSON)?;
    let weights = weight_files(dir)?;
    let files: Vec<(&str, &[u8])> = weights.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let imported = hugging_face::import(&config_json, &files, &base.model)?;
    let mut config = Config { model: imported.model, ..base };
    // Without a config of the user's, sequences are as long as the model allows.
    if args.config.is_none() {
        config.data.sequence_length = config.data.sequence_length.min(config.model.context);
    }
    let own = Some(dir.join(TOKENIZER)).filter(|path| path.exists() && config.data.tokenizer.kind == TokenizerKind::Bytes);
    if let Some(path) = &own
        && !is_bytes(&tokenizer_file(path).context("its tokenizer cannot be used: state another by --config, in data.tokenizer")?)
    {
        config.data.tokenizer.kind = TokenizerKind::File;
        config.data.tokenizer.path = args.out.join(TOKENIZER).display().to_string();
    }
    let has_none = own.is_none() && config.data.tokenizer.kind == TokenizerKind::Bytes && config.model.vocabulary < 256;
    ensure!(
        !has_none,
        "{}: there is no {TOKENIZER}, and {} ids are too few for bytes: state a tokenizer by --config, in data.tokenizer",
        print::path(dir),
        config.model.vocabulary
    );
    // Read back, so that a model that no config may state is refused as any config is.
    let text = config.to_effective_toml();
    let config = load(&|_| Ok(text.clone()), CONFIG, &[])?;
    let device = Rc::new(open::device(common)?);
    let (config, corpus) = open::corpus(common, config, own.is_some().then_some(dir), Purpose::Train)?;
    let store = Directory::open(&args.out).with_context(|| print::path(&args.out))?;
    let opening = Opening {
        config,
        device,
        corpus,
        store: Box::new(store),
        tag: open::tag(),
        clock: open::clock(),
        rasterize: None,
        name: open::name(&args.out),
    };
    import::import(opening, imported.tensors)?;
    let out = print::path(&args.out);
    if common.json {
        print::json(&json!({ "run": args.out }));
    } else {
        out!("{out}: a run before its first update\nmoelab eval {out}\nmoelab sample {out}\nmoelab resume {out}");
    }
    Ok(())
}

/// The user's config, or the defaults.
fn base_config(args: &ImportArgs) -> Result<Config> {
    match &args.config {
        Some(file) => open::config(&crate::ConfigArgs { config: file.clone(), sets: args.sets.clone(), reduced: false }),
        None => Ok(load(&|_| Ok(String::new()), "defaults", &args.sets)?),
    }
}

/// The files of weights: one, or those that the index names.
fn weight_files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut names = BTreeSet::from([WEIGHTS.to_string()]);
    if !dir.join(WEIGHTS).exists() && dir.join(INDEX).exists() {
        let index: Value = serde_json::from_slice(&read(&dir.join(INDEX), MOST_JSON)?).context(INDEX)?;
        let map = index["weight_map"].as_object().with_context(|| format!("{INDEX}: `weight_map` is missing"))?;
        names = map.values().filter_map(Value::as_str).map(str::to_string).collect();
    }
    let mut files = Vec::new();
    let mut left = MOST_WEIGHTS;
    for name in names {
        ensure!(Path::new(&name).file_name().is_some_and(|file| file == name.as_str()), "{INDEX}: {name:?} is no name of a file");
        let bytes = read(&dir.join(&name), left)?;
        left -= bytes.len() as u64;
        files.push((name, bytes));
    }
    Ok(files)
}

/// A file, no more of it than there may be.
fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    input::read(path, most).with_context(|| input::shown(path))
}

fn is_bytes(tokenizer: &Tokenizer) -> bool {
    tokenizer.digest() == Tokenizer::bytes().digest()
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
        card += "\nWhat only training read, and these files do not keep:\n\n";
        model.lost.iter().for_each(|setting| card += &format!("- `{setting}`\n"));
    }
    card
}
