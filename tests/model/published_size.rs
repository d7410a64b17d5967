//! The exp8 study's model at its full published size follows PyTorch: three updates of one micro-batch, from the same weights and tokens.
//!
//! Both sides draw them from a counter (`benches/torch/system_a.py`), so that nothing but losses is exchanged. On a CPU it takes minutes and
//! some GiB, so it runs on request:
//!
//! ```text
//! python benches/torch/system_a.py --preset exp8 --accum 1 --warmup 0 --steps 3 | tail -1 > exp8.json
//! MOELAB_EXP8=exp8.json cargo test --test model published_size -- --ignored --nocapture
//! ```

use std::f64::consts::TAU;

use moelab::{
    data::{Corpus, dataset::Batch},
    gpu::PlanOptions,
    run::{
        checkpoint::{NamedTensor, Snapshot},
        config::load,
    },
};

use crate::harness::{device, drive, restore, tiers, trainer};

const SEED: u64 = 42;
const SETTINGS: [&str; 11] = [
    "train.updates=3",
    "train.micro_batches=1",
    "train.evaluation.every=0",
    "schedule.kind=constant",
    "schedule.warmup=0",
    "model.router.noise=0.0",
    "model.dropout.embedding=0.0",
    "model.dropout.attention=0.0",
    "model.dropout.residual=0.0",
    "model.dropout.ffn=0.0",
    "model.dropout.head=0.0",
];

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn key(name: &str) -> u64 {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    mix(hash ^ mix(SEED))
}

fn draw(key: u64, index: u64) -> u64 {
    mix(key.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

fn uniform(key: u64, index: u64) -> f64 {
    (draw(key, index) >> 11) as f64 * 2_f64.powi(-53)
}

/// The values of a tensor, by the name that PyTorch's side gives it.
fn weights(name: &str, len: usize) -> Vec<f32> {
    if name.ends_with("norm.weight") {
        return vec![1.0; len];
    }
    let key = key(name);
    let normal = |i: u64| (-2.0 * (1.0 - uniform(key, 2 * i)).ln()).sqrt() * (TAU * uniform(key, 2 * i + 1)).cos();
    (0..len as u64).map(|i| (0.02 * normal(i)) as f32).collect()
}

fn name_of(ours: &str) -> String {
    let renamed = [
        ("embedding.weight", "token_embedding.weight"),
        ("blocks.", "layers."),
        ("attention.output", "attention.out"),
        ("ffn_norm", "moe_norm"),
        ("experts.up", "experts.w1"),
        ("experts.down", "experts.w2"),
    ];
    let name = renamed.iter().fold(ours.to_string(), |name, (from, to)| name.replace(from, to));
    name.strip_suffix(".weight").filter(|name| name.ends_with(".w1") || name.ends_with(".w2")).map_or(name.clone(), str::to_string)
}

/// The tokens of a micro-batch; the targets of a sequence are its own.
fn batch(index: usize, [sequences, length, vocabulary]: [u32; 3]) -> Batch {
    let key = key(&format!("batch/{index}"));
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new() };
    for c in 0..u64::from(sequences * length) {
        let h = draw(key, c);
        let skewed = (0..2).fold(h >> 40, |u, _| (u * u) >> 24);
        let fresh = (skewed * u64::from(vocabulary)) >> 24;
        let previous = batch.tokens.last().filter(|_| c % u64::from(length) > 0 && h % 2 == 1);
        batch.tokens.push(previous.map_or(fresh as u32, |token| (5 * token + 7) % vocabulary));
    }
    for sequence in batch.tokens.chunks(length as usize) {
        batch.targets.extend(sequence[1..].iter().copied().chain([Batch::IGNORED]));
    }
    batch
}

/// The known answers that `benches/torch/system_a.py` states.
#[test]
fn draws_are_those_of_the_other_side() {
    assert_eq!(draw(0, 0), 0xE220_A839_7B1D_CDAF);
    assert_eq!(weights("token_embedding.weight", 3), [0.015_687_205, -0.003_276, -0.018_079_67]);
    assert_eq!(batch(0, [2, 16, 96]).tokens[..10], [1, 12, 67, 54, 85, 12, 67, 0, 7, 42]);
}

#[test]
#[ignore = "takes minutes, some GiB and losses of PyTorch: see the top of tests/model/published_size.rs"]
fn three_updates_at_the_published_size_follow_pytorch() {
    let path = std::env::var("MOELAB_EXP8").expect("MOELAB_EXP8 names what benches/torch/system_a.py printed");
    let other: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let list = |name: &str| -> Vec<f64> {
        let flat = |v: &serde_json::Value| v.as_array().map_or(vec![v.clone()], Clone::clone);
        other["losses"][name].as_array().unwrap().iter().flat_map(flat).map(|v| v.as_f64().unwrap()).collect()
    };
    let text = include_str!("../../configs/exp8/baseline.toml");
    let config = load(&|_| Ok(text.into()), "configs/exp8/baseline.toml", &SETTINGS.map(String::from)).unwrap_or_else(|p| panic!("{p}"));
    let size = [config.data.batch, config.data.sequence_length, config.model.vocabulary];
    assert_eq!(size, [24, 512, 49_152]);
    let training: Vec<Batch> = (0..3).map(|index| batch(index, size)).collect();
    let corpus = Corpus::Batches { validation: training[..1].to_vec(), training };
    let device = device(*tiers().last().unwrap());
    let mut trainer = trainer(&config, &device, corpus, PlanOptions::default());
    let specs = trainer.expected().tensors;
    let tensors = specs.iter().map(|(name, shape)| NamedTensor {
        name: name.clone(),
        shape: shape.clone(),
        data: weights(&name_of(name), shape.iter().product()),
    });
    let state = trainer.state().clone();
    restore(&mut trainer, &Snapshot { tensors: tensors.collect(), optimizer: vec![], state });
    println!("{}", device.adapter.name);
    let start = std::time::Instant::now();
    let ran = drive(&mut trainer);
    println!("{:.0} s", start.elapsed().as_secs_f64());
    let (cross_entropy, balance) = (list("ce"), list("aux"));
    assert_eq!(ran.updates.len(), 3);
    // PyTorch's is the sum over the layers with its coefficient, ours the mean without.
    let factor = config.model.balance.coefficient * f64::from(config.model.depth.layers);
    for (u, record) in ran.updates.iter().enumerate() {
        let (found, wanted) = ([record.train_ce, factor * record.balance.unwrap()], [cross_entropy[u], balance[u]]);
        println!("update {u}: {found:?}, PyTorch {wanted:?}");
        assert!(found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-4), "update {u}: {found:?} against {wanted:?}");
    }
}
