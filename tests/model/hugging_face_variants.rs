//! Every optional key of every model type, set to null, left out, and set to other values, against what transformers makes of it
//! (`tests/fixtures/hf/variants.py` made the golden file).
//!
//! Where both read a variant, the cross-entropy is the same; where transformers computes another one than moelab would, moelab
//! refuses. What one of them reads and the other does not stands in `differences.txt`, so that no change of it goes by unnoticed
//! (MOELAB_BLESS=1 writes it).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use moelab::{
    gpu::{DType, Device, Memory, Plan, PlanOptions, Segment, Step},
    interop::{
        around::{OwnTokenizer, load_around},
        hugging_face::Imported,
    },
    model::transformer::{Mode, transformer},
    ops::Graph,
    run::ModelConfig,
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::{
    checkpoints::weights_sha256,
    harness::{device, tiers},
    hugging_face::{FOLDER, floats, import, read},
};

/// As the command does it: the model, and a config around it that holds together.
fn imported(config: &str, weights: &[u8]) -> Result<Imported, String> {
    let found = import(config.as_bytes(), &[("model.safetensors", weights)]).map_err(|error| error.to_string())?;
    let own = OwnTokenizer::File("tokenizer.json".into());
    load_around(&found.model, &own, &|_| Ok(String::new()), "defaults", &[]).map_err(|problems| problems.to_string())?;
    Ok(found)
}

/// Sequences and tokens of the golden batch, and its vocabulary.
const B: u32 = 2;
const T: u32 = 16;
const V: usize = 97;
/// Largest difference of two cross-entropies, nats.
const NEAR: f64 = 2e-6;

/// The cross-entropy of each model on the golden batch, computed once for equal functions with equal weights.
struct Evaluator<'a> {
    device: &'a Device,
    tokens: Vec<u8>,
    targets: Vec<u32>,
    known: HashMap<String, f64>,
}

impl Evaluator<'_> {
    fn of<'a>(device: &'a Device, model: &str) -> Evaluator<'a> {
        let bytes = read(model, "expected.safetensors");
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let targets = bytemuck::pod_collect_to_vec(golden.tensor("targets").unwrap().data());
        Evaluator { device, tokens: golden.tensor("tokens").unwrap().data().to_vec(), targets, known: HashMap::new() }
    }

    fn cross_entropy(&mut self, found: &Imported) -> f64 {
        // Dropout, noise and losses of training make no other function.
        let quiet = ModelConfig { dropout: Default::default(), balance: Default::default(), ..found.model.clone() };
        let key = format!("{} {}", toml::to_string(&quiet).unwrap(), weights_sha256(&found.tensors));
        let (device, tokens, targets) = (self.device, &self.tokens, &self.targets);
        *self.known.entry(key).or_insert_with(|| mean_cross_entropy(&logits(device, found, tokens), targets))
    }
}

/// In f64, from logits [N, V].
fn mean_cross_entropy(logits: &[f32], targets: &[u32]) -> f64 {
    let of_row = |(row, target): (&[f32], &u32)| {
        let row: Vec<f64> = row.iter().map(|logit| f64::from(*logit)).collect();
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        most + row.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln() - row[*target as usize]
    };
    logits.chunks_exact(V).zip(targets).map(of_row).sum::<f64>() / targets.len() as f64
}

/// Logits of every position [N, V].
fn logits(device: &Device, found: &Imported, tokens: &[u8]) -> Vec<f32> {
    let mut g = Graph::new(device.capabilities);
    let position = g.input("position", [B * T], DType::U32);
    let logits = transformer(&mut g, &found.model, Mode::Sample { position }, B, T).logits.unwrap();
    g.output("logits", logits);
    let program = g.finish();
    let mut memory = Memory::default();
    let plan = Plan::compile(device, &program, &mut memory, PlanOptions::default()).unwrap();
    for tensor in &found.tensors {
        memory.write(device, &tensor.name, bytemuck::cast_slice(&tensor.data));
    }
    plan.write(device, program.find("tokens").unwrap(), tokens);
    plan.write(device, position.id, bytemuck::cast_slice(&(0..B * T).collect::<Vec<u32>>()));
    plan.submit(device, &mut memory, &Step::default(), &[Segment::Micro]).unwrap();
    floats(&plan.download(device, &[logits.id]).wait(device).unwrap()[0])
}

/// One line of the golden file: what was set, what was left out, what came of it.
struct Variant<'a> {
    changed: &'a serde_json::Map<String, Value>,
    removed: Vec<&'a str>,
    outcome: &'a Value,
}

impl Variant<'_> {
    fn name(&self) -> String {
        let changed = self.changed.iter().map(|(key, value)| format!("{key} = {value}"));
        changed.chain(self.removed.iter().map(|key| format!("no {key}"))).collect::<Vec<_>>().join(", ")
    }

    fn config(&self, base: &serde_json::Map<String, Value>) -> String {
        let mut config = base.clone();
        config.extend(self.changed.clone());
        self.removed.iter().for_each(|key| drop(config.remove(*key)));
        Value::from(config).to_string()
    }
}

/// Models with their cross-entropy and variants, in the order of the file.
fn golden(file: &Value) -> Vec<(&str, f64, Vec<Variant<'_>>)> {
    let mut models = Vec::new();
    for line in &file.as_array().unwrap()[1..] {
        let line = line.as_array().unwrap();
        if let Some(model) = line[0].as_str() {
            models.push((model, line[1].as_f64().unwrap(), Vec::new()));
            continue;
        }
        let removed = line[1].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        models.last_mut().unwrap().2.push(Variant { changed: line[0].as_object().unwrap(), removed, outcome: &line[2] });
    }
    models
}

#[test]
fn no_variant_differs_from_transformers_in_silence() {
    let file: Value = serde_json::from_slice(&fs::read(format!("{FOLDER}/variants.json")).unwrap()).unwrap();
    let device = device(*tiers().last().unwrap());
    let (mut faults, mut differences) = (Vec::new(), String::new());
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (model, base_ce, variants) in golden(&file) {
        let base: Value = serde_json::from_slice(&read(model, "config.json")).unwrap();
        let weights = read(model, "model.safetensors");
        let mut evaluator = Evaluator::of(&device, model);
        let count = counts.entry(model).or_default();
        differences += &format!("\n{model}\n");
        for variant in &variants {
            let wanted = if variant.outcome == &Value::Bool(true) { Some(base_ce) } else { variant.outcome.as_f64() };
            match (imported(&variant.config(base.as_object().unwrap()), &weights), wanted) {
                (Ok(found), Some(wanted)) => {
                    count[0] += 1;
                    let ce = evaluator.cross_entropy(&found);
                    if (ce - wanted).abs() > NEAR {
                        faults.push(format!("{model}: {}: cross-entropy {ce:.7}, transformers has {wanted:.7}", variant.name()));
                    }
                }
                // Tensors of other shapes, and values that the model cannot run with, are never a matter of taste.
                (Ok(_), None) if variant.outcome != "StrictDataclassFieldValidationError" => {
                    faults.push(format!("{model}: {}: read, transformers says {}", variant.name(), variant.outcome));
                }
                (Ok(_), None) => differences += &format!("  read only here: {}\n", variant.name()),
                (Err(_), Some(_)) => {
                    count[1] += 1;
                    differences += &format!("  read only there: {}\n", variant.name());
                }
                (Err(_), None) => count[2] += 1,
            }
        }
    }
    println!("equal, refused though transformers reads it, refused by both: {counts:?}");
    assert!(faults.is_empty(), "{} variants differ:\n{}", faults.len(), faults.join("\n"));
    let path = format!("{FOLDER}/differences.txt");
    if std::env::var_os("MOELAB_BLESS").is_some() {
        fs::write(&path, &differences).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let (now, before): (Vec<&str>, Vec<&str>) = (differences.lines().collect(), kept.lines().collect());
    let only = |a: &[&str], b: &[&str]| a.iter().filter(|line| !b.contains(line)).copied().collect::<Vec<_>>().join("\n");
    assert!(now == before, "not in differences.txt:\n{}\nno longer so:\n{}", only(&now, &before), only(&before, &now));
}
