//! Reads an untrusted model folder: only regular files of limited size, and the headers of weights before the weights.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use moelab::{
    data::tokenizer::{MAX_BYTES, ModelFiles, Tokenizer},
    interop::hugging_face::{
        CONFIG, HEAD_BYTES, WEIGHTS,
        folder::{GENERATION, TOKENIZER_FILES},
    },
};
use moelab_native::{input, print};
use serde_json::Value;

/// Maximum bytes of a JSON file: 8 MB.
const MOST_JSON: u64 = 8_000_000;
/// Maximum bytes of the weights: 16 GB.
const MOST_WEIGHTS: u64 = 16_000_000_000;
/// The index of sharded weights.
const INDEX: &str = "model.safetensors.index.json";
/// Maximum number of files that are listed as not read.
const MOST_TOLD: usize = 8;

/// A model folder without its weights.
pub struct ModelFolder {
    /// `config.json`.
    pub config: Vec<u8>,
    /// Name and content of the files that an export writes unchanged: generation settings and the tokenizer.
    pub kept: Vec<(String, Vec<u8>)>,
}

impl ModelFolder {
    /// Reads the folder.
    pub fn read(dir: &Path) -> Result<Self> {
        let config = read(&dir.join(CONFIG), MOST_JSON)?;
        let mut kept = Vec::new();
        for name in TOKENIZER_FILES.into_iter().chain([GENERATION]) {
            let most = if ["tokenizer.json", "vocab.json", "merges.txt"].contains(&name) { MAX_BYTES as u64 } else { MOST_JSON };
            if dir.join(name).exists() {
                kept.push((name.to_string(), read(&dir.join(name), most)?));
            }
        }
        Ok(Self { config, kept })
    }

    fn file(&self, name: &str) -> Option<&[u8]> {
        self.kept.iter().find(|(kept, _)| kept == name).map(|(_, bytes)| bytes.as_slice())
    }

    /// Its tokenizer, if any, and what a run does not keep of it.
    pub fn tokenizer(&self, model_type: &str) -> Result<Option<(Tokenizer, Vec<String>)>> {
        let files = ModelFiles {
            model_type,
            tokenizer: self.file("tokenizer.json"),
            vocab: self.file("vocab.json"),
            merges: self.file("merges.txt"),
            config: self.file("tokenizer_config.json"),
            special_tokens: self.file("special_tokens_map.json"),
            added_tokens: self.file("added_tokens.json"),
        };
        match (files.tokenizer, files.vocab) {
            (None, None) => Ok(None),
            _ => Tokenizer::of_model(&files).map(Some).context("the model's own tokenizer cannot be used"),
        }
    }
}

/// A file of weights, whose first bytes were read.
pub struct WeightFile {
    /// Its name.
    pub name: String,
    /// Its first [`HEAD_BYTES`], or the whole file.
    pub head: Vec<u8>,
    /// Its length in bytes.
    pub length: u64,
    file: File,
}

impl WeightFile {
    /// Reads the whole file.
    pub fn read(mut self) -> Result<(String, Vec<u8>)> {
        let left = self.length - self.head.len() as u64;
        self.head.reserve_exact(left as usize);
        self.file.by_ref().take(left).read_to_end(&mut self.head).with_context(|| self.name.clone())?;
        ensure!(self.head.len() as u64 == self.length, "{}: it was truncated while it was read", print::name(&self.name));
        Ok((self.name, self.head))
    }
}

/// Opens the weight files: one, or those in the index. Reads only the header of each.
pub fn weight_files(dir: &Path) -> Result<Vec<WeightFile>> {
    let mut names = BTreeSet::from([WEIGHTS.to_string()]);
    if !dir.join(WEIGHTS).exists() && dir.join(INDEX).exists() {
        let index: Value = serde_json::from_slice(&read(&dir.join(INDEX), MOST_JSON)?).context(INDEX)?;
        let map = index["weight_map"].as_object().with_context(|| format!("{INDEX}: `weight_map` is missing"))?;
        names = map.values().filter_map(Value::as_str).map(str::to_string).collect();
    } else if !dir.join(WEIGHTS).exists()
        && let Some(other) = ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().find(|name| dir.join(name).exists())
    {
        bail!("{}: found {other} but no {WEIGHTS}: convert the weights to safetensors", input::shown(dir));
    }
    let mut files = Vec::new();
    let mut left = MOST_WEIGHTS;
    for name in names {
        let is_name = Path::new(&name).file_name().is_some_and(|file| file == name.as_str());
        ensure!(is_name && name.len() <= 200, "{INDEX}: `{}` is not a file name", print::name(&name.chars().take(60).collect::<String>()));
        let path = dir.join(&name);
        let shown = || input::shown(&path);
        let mut file = input::open(&path).with_context(shown)?;
        let length = file.metadata().with_context(shown)?.len();
        ensure!(length <= left, "{}: {length} bytes, expected at most {left} more of {MOST_WEIGHTS} in total", shown());
        left -= length;
        let mut head = Vec::new();
        file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).with_context(shown)?;
        files.push(WeightFile { name, head, length, file });
    }
    Ok(files)
}

/// Files in the folder that are neither read nor exported, one line each.
pub fn left_out(dir: &Path, weights: &[&str]) -> Result<Vec<String>> {
    let is_read =
        |name: &str| [CONFIG, GENERATION, INDEX, "README.md"].contains(&name) || TOKENIZER_FILES.contains(&name) || weights.contains(&name);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| input::shown(dir))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_read(&name) && !name.starts_with('.') && entry.file_type()?.is_file() {
            names.push(name);
        }
    }
    names.sort();
    let more = names.len().saturating_sub(MOST_TOLD);
    let mut lines: Vec<String> = names.iter().take(MOST_TOLD).map(|name| format!("the file {}", print::name(name))).collect();
    lines.extend((more > 0).then(|| format!("and {more} more files")));
    Ok(lines)
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    input::read(path, most).with_context(|| input::shown(path))
}
