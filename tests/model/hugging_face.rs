//! Models of Hugging Face transformers, imported: their logits, their gradients, and the way back
//! (`tests/fixtures/hf/make.py` made the golden files).

use std::collections::HashMap;
use std::fs;

use moelab::{
    gpu::{DType, Device, Memory, Plan, PlanOptions, Program, Role, Segment, Step},
    model::{ModelConfig, transformer::{Mode, transformer}},
    ops::Graph,
    train::{
        checkpoint::NamedTensor,
        hugging_face::{Imported, export, file_tensors, import},
    },
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::harness::{device, tiers};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hf");
/// Sequences and tokens of the golden batch.
const B: u32 = 2;
const T: u32 = 16;

/// Keys of the golden `config.json` that say nothing of what a model computes.
const NOT_WRITTEN: [&str; 14] = [
    "transformers_version", "num_nextn_predict_layers", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise",
    "pretraining_tp", "qk_head_dim", "reorder_and_upcast_attn", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "sliding_window",
];

fn read(model: &str, file: &str) -> Vec<u8> {
    fs::read(format!("{FOLDER}/{model}/{file}")).unwrap()
}

/// Nothing that only training knows: no dropout, no noise, no balance loss.
fn quiet() -> ModelConfig {
    toml::from_str(
        r#"
        balance.kind = "none"
        dropout = { embedding = 0.0, attention = 0.0, residual = 0.0, ffn = 0.0, head = 0.0 }
        router.noise = 0.0
        "#,
    )
    .unwrap()
}

fn imported(model: &str) -> Imported {
    let weights = read(model, "model.safetensors");
    import(&read(model, "config.json"), &[("model.safetensors", &weights)], &quiet()).unwrap_or_else(|e| panic!("{model}: {e}"))
}

/// The f32 tensors of a file, by name.
fn tensors(bytes: &[u8]) -> HashMap<String, NamedTensor> {
    let floats = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let file = SafeTensors::deserialize(bytes).unwrap();
    let named = |(name, view): (&str, safetensors::tensor::TensorView)| {
        let tensor = NamedTensor { name: name.to_string(), shape: view.shape().to_vec(), data: floats(view.data()) };
        (name.to_string(), tensor)
    };
    file.iter().map(named).collect()
}

/// A compiled program with a model's weights in its memory.
struct Loaded<'a> {
    device: &'a Device,
    program: Program,
    plan: Plan,
    memory: Memory,
}

impl Loaded<'_> {
    fn new<'a>(device: &'a Device, program: Program, weights: &[NamedTensor]) -> Loaded<'a> {
        let mut memory = Memory::default();
        let plan = Plan::compile(device, &program, &mut memory, PlanOptions::default()).unwrap();
        for tensor in weights {
            memory.write(device, &tensor.name, bytemuck::cast_slice(&tensor.data));
        }
        Loaded { device, program, plan, memory }
    }

    fn write(&self, input: &str, bytes: &[u8]) {
        self.plan.write(self.device, self.program.find(input).unwrap(), bytes);
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Logits of every position [B, T, V].
fn logits(device: &Device, found: &Imported, tokens: &[u8]) -> Vec<f32> {
    let mut g = Graph::new(device.tier);
    let position = g.input("position", [B * T], DType::U32);
    let logits = transformer(&mut g, &found.model, Mode::Sample { position }, B, T).logits.unwrap();
    g.output("logits", logits);
    let mut loaded = Loaded::new(device, g.finish(), &found.tensors);
    loaded.write("tokens", tokens);
    loaded.write("position", bytemuck::cast_slice(&(0..B * T).collect::<Vec<u32>>()));
    loaded.plan.submit(device, &mut loaded.memory, &Step::default(), &[Segment::Micro]).unwrap();
    floats(&loaded.plan.download(device, &[logits.id]).wait(device).unwrap()[0])
}

/// The gradient of the mean cross-entropy, by parameter.
fn gradients(device: &Device, found: &Imported, tokens: &[u8], targets: &[u8]) -> Vec<NamedTensor> {
    let mut g = Graph::new(device.tier);
    let loss = transformer(&mut g, &found.model, Mode::Train { counts_assignments: false }, B, T).loss.unwrap();
    g.backward(loss);
    let mut loaded = Loaded::new(device, g.finish(), &found.tensors);
    loaded.write("tokens", tokens);
    loaded.write("targets", targets);
    loaded.write("loss_seed", bytemuck::bytes_of(&1f32));
    let step = Step { inverse_targets: 1.0 / (B * T) as f32, inverse_accumulation: 1.0, ..Step::default() };
    loaded.plan.submit(device, &mut loaded.memory, &step, &[Segment::ClearGradients, Segment::Micro]).unwrap();
    let of_parameters = loaded.program.tensors.iter().filter(|t| t.role == Role::ParameterGradient);
    let names: Vec<String> = of_parameters.map(|t| t.name.clone()).collect();
    let data = loaded.memory.download(device, &names).wait(device).unwrap();
    let named = |(name, bytes): (&String, Vec<u8>)| {
        let name = name.strip_prefix("d_").unwrap();
        let like = found.tensors.iter().find(|t| t.name == name).unwrap();
        NamedTensor { name: name.into(), shape: like.shape.clone(), data: floats(&bytes) }
    };
    names.iter().zip(data).map(named).collect()
}

/// Logits within 1e-4, every gradient within 1e-4 relative L2, on every tier.
fn follows_transformers(model: &str) {
    let found = imported(model);
    let bytes = read(model, "expected.safetensors");
    let (golden, expected) = (SafeTensors::deserialize(&bytes).unwrap(), tensors(&bytes));
    let (tokens, targets) = (golden.tensor("tokens").unwrap(), golden.tensor("targets").unwrap());
    for tier in tiers() {
        let device = device(tier);
        let computed = logits(&device, &found, tokens.data());
        let wanted = &expected["logits"].data;
        assert_eq!(computed.len(), wanted.len());
        let furthest = computed.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 1e-4, "{model} on {tier:?}: logits differ by {furthest:.1e}");
        let computed = gradients(&device, &found, tokens.data(), targets.data());
        let computed = file_tensors(&found.model, &computed).unwrap();
        let mut worst = (0.0, "");
        let mut compared = 0;
        for gradient in &computed {
            let Some(wanted) = expected.get(&format!("gradient.{}", gradient.name)) else { continue };
            assert_eq!(gradient.shape, wanted.shape, "{model}: {}", gradient.name);
            let norm: f64 = wanted.data.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            let pairs = gradient.data.iter().zip(&wanted.data);
            let difference: f64 = pairs.map(|(c, w)| (f64::from(*c) - f64::from(*w)).powi(2)).sum::<f64>().sqrt();
            compared += 1;
            if !(difference / norm <= worst.0) {
                worst = (difference / norm, gradient.name.as_str());
            }
        }
        println!("{model} on {tier:?}: logits {furthest:.1e}, {compared} gradients {:.1e} ({})", worst.0, worst.1);
        assert!(worst.0 < 1e-4, "{model} on {tier:?}: gradient of {} differs by {:.1e}", worst.1, worst.0);
        assert_eq!(compared, expected.keys().filter(|name| name.starts_with("gradient.")).count(), "{model}");
    }
    returns(model, &found);
}

/// What is imported and exported again is what it was: every tensor, every value of `config.json`.
fn returns(model: &str, found: &Imported) {
    let written = export(&found.model, &found.tensors, None).unwrap_or_else(|e| panic!("{model}: {e}"));
    assert_eq!(tensors(&written.weights), tensors(&read(model, "model.safetensors")), "{model}");
    let golden: Value = serde_json::from_slice(&read(model, "config.json")).unwrap();
    let again: Value = serde_json::from_str(&written.config_json).unwrap();
    for (key, wanted) in golden.as_object().unwrap() {
        let is_derived = NOT_WRITTEN.contains(&key.as_str()) || (key == "head_dim" && model.starts_with("deepseek"));
        assert!(is_derived || is_same(&again[key], wanted), "{model}: `{key}` is {}, was {wanted}", again[key]);
    }
    let twice = import(written.config_json.as_bytes(), &[("again", &written.weights)], &quiet()).unwrap();
    assert_eq!(&twice, found, "{model}");
}

/// Equal as JSON, but for the writing of numbers.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b))),
        (a, b) => a == b,
    }
}

macro_rules! models {
    ($($name:ident)*) => { $(#[test] fn $name() { follows_transformers(stringify!($name)); })* };
}

models! { gpt2 llama mixtral qwen3_moe glm4_moe glm4_moe_qk_norm deepseek_v3 deepseek_v3_query_rank hrm_text }
