//! A run that starts with given weights: its folder, with a checkpoint before the first update.

use std::collections::HashMap;

use super::{
    error::SessionError,
    opening::{Opening, effective_config, start_files},
    run_folder::{RunFolder, Start},
};
use crate::{
    data::tokenizer::Tokenizer,
    run::{checkpoint::NamedTensor, series::Lengths},
};

/// Prefix of the names of files of the model that a run was imported from.
pub const SOURCE: &str = "source.";
/// The first of them, which marks such a run: without a checkpoint it has no weights to continue from.
pub const SOURCE_CONFIG: &str = "source.config.json";

/// Creates the folder of a run whose checkpoint at update 0 has `weights`: parameters by name, and states such as the
/// selection biases of routers. `files` are stored next to it. It can be evaluated, sampled from, and resumed.
///
/// # Errors
/// Weights that are not those of the config's model, a model that does not fit the device, or an existing folder.
pub fn import(opening: Opening, weights: Vec<NamedTensor>, files: Vec<(String, Vec<u8>)>) -> Result<(), SessionError> {
    let Opening { trainer, store, tag, .. } = opening;
    let effective = effective_config(&trainer);
    let (tokenizer, hash) = (trainer.corpus().tokenizer().map(Tokenizer::to_json), trainer.config().hash());
    let mut snapshot = trainer.initial_snapshot();
    let mut given: HashMap<String, NamedTensor> = weights.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    let mut problems = Vec::new();
    for tensor in &mut snapshot.tensors {
        match given.remove(&tensor.name) {
            Some(weight) if weight.shape == tensor.shape => *tensor = weight,
            Some(weight) => problems.push(format!("`{}` is {:?}, expected {:?}", tensor.name, weight.shape, tensor.shape)),
            None => problems.push(format!("`{}` is missing", tensor.name)),
        }
    }
    for state in &mut snapshot.optimizer {
        if let Some(weight) = given.remove(&state.name).filter(|weight| weight.shape == state.shape) {
            *state = weight;
        }
    }
    problems.extend(given.keys().map(|name| format!("`{name}` is not a tensor of this run")));
    if !problems.is_empty() {
        return Err(SessionError::Mismatch(problems.join("; ")));
    }
    let mut start = start_files(&effective, tokenizer.as_deref());
    start.extend(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    let lengths = Lengths::of(&trainer.config().model);
    RunFolder::create(store, &tag, &Start { config: &hash, files: &start, checkpoint: Some(&snapshot), lengths })?;
    Ok(())
}
