//! Logits of a model on given tokens, to compare with another implementation of it.

use std::collections::HashMap;

use crate::{
    gpu::{Device, Memory, PlanOptions},
    random::Stream,
    run::{ModelConfig, checkpoint::NamedTensor},
    train::{TrainError, engine::LogitsStep, recording},
};

/// Number of sequences in a comparison.
const SEQUENCES: u32 = 2;
/// Maximum tokens of each.
const MOST_TOKENS: u32 = 64;

/// `tokens` [2, T], sampled with `seed`, as integral f32, and the model's `logits` [2, T, V] on them in evaluation; T is 64, or
/// the model's context if that is shorter.
///
/// # Errors
/// The model does not fit the device, or the device fails.
pub fn logits(model: &ModelConfig, weights: &[NamedTensor], device: &Device, seed: u64) -> Result<[NamedTensor; 2], TrainError> {
    let t = model.context.min(MOST_TOKENS);
    let rows = SEQUENCES * t;
    let mut memory = Memory::default();
    let recorded = recording::logits(model, device.capabilities, [SEQUENCES, t], rows);
    let mut step = LogitsStep::new(device, &mut memory, recorded, PlanOptions::default())?;
    let known: HashMap<&str, &NamedTensor> = weights.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    for tensor in &step.recorded().program.tensors {
        if let Some(weight) = known.get(tensor.name.as_str()) {
            memory.write(device, &tensor.name, bytemuck::cast_slice(&weight.data));
        }
    }
    let stream = Stream { seed, step: 0, stream: 0 };
    let tokens: Vec<u32> = (0..rows).map(|i| stream.bits(i)[0] % model.vocabulary).collect();
    let positions: Vec<u32> = (0..rows).collect();
    let download = step.submit(device, &mut memory, &tokens, &positions)?;
    download.wait_ready(device)?;
    let data = step.poll(device, &download)?.unwrap_or_default();
    let sides = [SEQUENCES, t, model.vocabulary].map(|side| side as usize);
    Ok([
        NamedTensor { name: "tokens".into(), shape: sides[..2].to_vec(), data: tokens.iter().map(|t| *t as f32).collect() },
        NamedTensor { name: "logits".into(), shape: sides.to_vec(), data },
    ])
}
