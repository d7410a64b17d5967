//! Models of Hugging Face transformers, imported: their logits, their gradients, and the way back
//! (`tests/fixtures/hf/make.py` made the golden files).

use std::collections::HashMap;
use std::fs;

use moelab::{
    gpu::{DType, Device, Memory, Plan, PlanOptions, Program, Role, Segment, Step},
    interop::hugging_face::{ImportError, Imported, describe, export, file_tensors},
    model::transformer::{Mode, transformer},
    ops::Graph,
    run::checkpoint::NamedTensor,
    run::model::{RecursionGradient, RopePairing, SoftmaxOver},
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::harness::{device, tiers};

/// Where the golden models lie.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hf");
/// Sequences and tokens of the golden batch.
const B: u32 = 2;
const T: u32 = 16;

/// Keys of the golden `config.json` that say nothing of what a model computes.
const NOT_WRITTEN: [&str; 14] = [
    "transformers_version",
    "num_nextn_predict_layers",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "pretraining_tp",
    "qk_head_dim",
    "reorder_and_upcast_attn",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "sliding_window",
];

/// A model from its `config.json` and the bytes of its files.
pub fn import(config_json: &[u8], files: &[(&str, &[u8])]) -> Result<Imported, ImportError> {
    describe(config_json)?.read(files)
}

/// A file of a golden model.
pub fn read(model: &str, file: &str) -> Vec<u8> {
    fs::read(format!("{FOLDER}/{model}/{file}")).unwrap()
}

fn imported(model: &str) -> Imported {
    let weights = read(model, "model.safetensors");
    import(&read(model, "config.json"), &[("model.safetensors", &weights)]).unwrap_or_else(|e| panic!("{model}: {e}"))
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

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Logits of every position [B, T, V].
fn logits(device: &Device, found: &Imported, tokens: &[u8]) -> Vec<f32> {
    let mut g = Graph::new(device.capabilities);
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
    let mut g = Graph::new(device.capabilities);
    let loss = transformer(&mut g, &found.model, Mode::Train { counts_assignments: false }, B, T).loss.unwrap();
    g.backward(loss);
    let mut loaded = Loaded::new(device, g.finish(), &found.tensors);
    loaded.write("tokens", tokens);
    loaded.write("targets", targets);
    loaded.write("loss_seed", bytemuck::bytes_of(&1f32));
    let step = Step { inverse_targets: 1.0 / (B * T) as f32, ..Step::default() };
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

/// How far a model is from the golden one.
struct Distance {
    /// Largest absolute difference of a logit.
    logits: f32,
    /// Largest relative L2 difference of a gradient.
    gradient: f64,
    /// Its name.
    furthest: String,
}

fn distance(device: &Device, model: &str, found: &Imported) -> Distance {
    let bytes = read(model, "expected.safetensors");
    let (golden, expected) = (SafeTensors::deserialize(&bytes).unwrap(), tensors(&bytes));
    let (tokens, targets) = (golden.tensor("tokens").unwrap(), golden.tensor("targets").unwrap());
    let (computed, wanted) = (logits(device, found, tokens.data()), &expected["logits"].data);
    assert!(computed.len() == wanted.len() && computed.iter().all(|logit| logit.is_finite()), "{model}: logits");
    let logits = computed.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let mut distance = Distance { logits, gradient: 0.0, furthest: String::new() };
    let gradients = gradients(device, found, tokens.data(), targets.data());
    // By the table of the model as imported: `found` may be changed to one that has no table.
    let gradients = file_tensors(&imported(model).model, &gradients).unwrap().into_iter().map(|g| (g.name.clone(), g));
    let gradients: HashMap<String, NamedTensor> = gradients.collect();
    for (name, wanted) in &expected {
        let Some(name) = name.strip_prefix("gradient.") else { continue };
        let found = &gradients[name];
        assert_eq!(found.shape, wanted.shape, "{model}: {name}");
        let norm: f64 = wanted.data.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
        let pairs = found.data.iter().zip(&wanted.data);
        let difference: f64 = pairs.map(|(f, w)| (f64::from(*f) - f64::from(*w)).powi(2)).sum::<f64>().sqrt();
        let error = difference / norm;
        if error > distance.gradient || error.is_nan() {
            distance = Distance { gradient: error, furthest: name.into(), ..distance };
        }
    }
    distance
}

/// Logits within 1e-4, every gradient within 1e-4 relative L2, on every tier; and the way back.
fn follows_transformers(model: &str) {
    let found = imported(model);
    for tier in tiers() {
        let Distance { logits, gradient, furthest } = distance(&device(tier), model, &found);
        println!("{model} on {tier:?}: logits {logits:.1e}, gradients {gradient:.1e} ({furthest})");
        assert!(logits < 1e-4, "{model} on {tier:?}: logits differ by {logits:.1e}");
        assert!(gradient < 1e-4, "{model} on {tier:?}: the gradient of {furthest} differs by {gradient:.1e}");
    }
    returns(model, &found);
}

/// What is imported and exported again is what it was: every tensor, every value of `config.json`.
fn returns(model: &str, found: &Imported) {
    let written = export(&found.model, &found.tensors, None, None).unwrap_or_else(|e| panic!("{model}: {e}"));
    assert_eq!(tensors(&written.weights), tensors(&read(model, "model.safetensors")), "{model}");
    let golden: Value = serde_json::from_slice(&read(model, "config.json")).unwrap();
    let again: Value = serde_json::from_str(&written.config_json).unwrap();
    for (key, wanted) in golden.as_object().unwrap() {
        let is_derived = NOT_WRITTEN.contains(&key.as_str()) || (key == "head_dim" && model.starts_with("deepseek"));
        assert!(is_derived || is_same(&again[key], wanted), "{model}: `{key}` is {}, was {wanted}", again[key]);
    }
    let twice = import(written.config_json.as_bytes(), &[("again", &written.weights)]).unwrap();
    assert_eq!((&twice.model, &twice.tensors), (&found.model, &found.tensors), "{model}");
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

/// Mistakes that load without an error: each must show.
#[test]
fn silent_mistakes_show() {
    let device = device(*tiers().last().unwrap());
    let seen = |model: &str, mistake: fn(&mut Imported)| {
        let mut found = imported(model);
        mistake(&mut found);
        distance(&device, model, &found)
    };
    let swapped = seen("mixtral", |found| {
        for tensor in &mut found.tensors {
            let parts: Vec<&str> = tensor.name.split('.').collect();
            tensor.name = parts
                .iter()
                .map(|p| match *p {
                    "up" => "gate",
                    "gate" => "up",
                    p => p,
                })
                .collect::<Vec<_>>()
                .join(".");
        }
    });
    assert!(swapped.logits > 1e-2, "gate for up: {}", swapped.logits);
    let paired = seen("llama", |found| found.model.positions.pairing = RopePairing::Interleaved);
    assert!(paired.logits > 1e-2, "other pairs of the rotary positions: {}", paired.logits);
    let unbiased = seen("glm4_moe", |found| {
        found.tensors.iter_mut().filter(|t| t.name.ends_with("selection_bias")).for_each(|t| t.data.fill(0.0));
    });
    assert!(unbiased.logits > 1e-2, "no selection bias: {}", unbiased.logits);
    let ungrouped = seen("deepseek_v3", |found| found.model.router.kept_groups = 4);
    assert!(ungrouped.logits > 1e-2, "experts of all groups: {}", ungrouped.logits);
    let normalized = seen("qwen3_moe", |found| found.model.router.softmax = SoftmaxOver::Selected);
    assert!(normalized.logits > 1e-2, "gate weights that sum to 1: {}", normalized.logits);
    let through_all = seen("hrm_text", |found| found.model.depth.recursion.gradient = RecursionGradient::All);
    assert!(through_all.logits < 1e-4 && through_all.gradient > 1e-2, "gradients through every call: {}", through_all.gradient);
}
