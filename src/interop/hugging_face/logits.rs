//! Logits of a model on tokens that anyone can feed to another implementation of it.

use std::collections::HashMap;

use crate::{
    gpu::{DType, Device, Memory, Plan, PlanOptions, Segment, Step},
    model::transformer::{Mode, transformer},
    ops::Graph,
    random::Stream,
    run::ModelConfig,
    train::{TrainError, checkpoint::NamedTensor},
};

/// Sequences of a comparison.
const SEQUENCES: u32 = 2;
/// Most tokens of each.
const MOST_TOKENS: u32 = 64;

/// `tokens` [2, T], drawn from `seed` and as whole f32, and the model's `logits` [2, T, V] on them in evaluation; T is 64, or
/// the model's context if that is shorter.
///
/// # Errors
/// A model that does not fit the device, or a faulty device.
pub fn logits(model: &ModelConfig, weights: &[NamedTensor], device: &Device, seed: u64) -> Result<[NamedTensor; 2], TrainError> {
    let t = model.context.min(MOST_TOKENS);
    let rows = SEQUENCES * t;
    let mut g = Graph::new(device.capabilities);
    let position = g.input("position", [rows], DType::U32); // [N]
    let logits = transformer(&mut g, model, Mode::Sample { position }, SEQUENCES, t).logits; // [N, V]
    let logits = logits.expect("sampling records logits");
    g.output("logits", logits);
    let program = g.finish();
    let mut memory = Memory::default();
    let plan = Plan::compile(device, &program, &mut memory, PlanOptions::default())?;
    let known: HashMap<&str, &NamedTensor> = weights.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    for tensor in &program.tensors {
        if let Some(weight) = known.get(tensor.name.as_str()) {
            memory.write(device, &tensor.name, bytemuck::cast_slice(&weight.data));
        }
    }
    let stream = Stream { seed, step: 0, stream: 0 };
    let tokens: Vec<u32> = (0..rows).map(|i| stream.bits(i)[0] % model.vocabulary).collect();
    let input = program.find("tokens").expect("a model reads tokens");
    plan.write(device, input, bytemuck::cast_slice(&tokens));
    plan.write(device, position.id, bytemuck::cast_slice(&(0..rows).collect::<Vec<u32>>()));
    plan.submit(device, &mut memory, &Step::default(), &[Segment::Micro])?;
    let found = plan.download(device, &[logits.id]).wait(device)?;
    let data = found[0].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let sides = [SEQUENCES, t, model.vocabulary].map(|side| side as usize);
    Ok([
        NamedTensor { name: "tokens".into(), shape: sides[..2].to_vec(), data: tokens.iter().map(|t| *t as f32).collect() },
        NamedTensor { name: "logits".into(), shape: sides.to_vec(), data },
    ])
}
