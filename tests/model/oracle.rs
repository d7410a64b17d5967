//! Ten updates with both optimizers follow a PyTorch run from the same weights and batches
//! (`tests/fixtures/system_a.py` made the golden files). Widths are multiples of 64, so that on CPU rasterisers every product and
//! every optimizer reads through images; the micro-batches of an update are unequal, which PyTorch's are by having fewer rows.
//! Bounds are some ten times what was measured: 3e-7 for the numbers of an update, 8e-7 for the weights.

use moelab::{
    data::{Corpus, dataset::Batch},
    gpu::PlanOptions,
    run::checkpoint::{NamedTensor, Snapshot},
};

use crate::harness::{config, device, download, drive, restore, tiers, trainer};

const CONFIG: &str = r#"
[model]
width = 64
context = 16
depth.layers = 2
attention.heads = 4
ffn.width = 64
router = { experts = 4, top_k = 2, noise = 0.0 }
balance.coefficient = 0.01
dropout = { embedding = 0.0, attention = 0.0, residual = 0.0, ffn = 0.0, head = 0.0 }
[data]
sequence_length = 16
batch = 3
[train]
updates = 10
micro_batches = 2
evaluation.every = 0
[optimizer]
clip_norm = 1.0
adamw = { lr = 0.004, weight_decay = 0.1 }
muon.lr = 0.02
[schedule]
kind = "cosine"
warmup = 2
min_ratio = 0.1
"#;

#[derive(serde::Deserialize)]
struct Golden {
    sequences: Vec<[usize; 2]>,
    batches: Vec<Vec<Vec<u32>>>,
    train_ce: Vec<f64>,
    balance: Vec<f64>,
    grad_norm: Vec<f64>,
}

fn relative(found: f64, wanted: f64) -> f64 {
    (found / wanted - 1.0).abs()
}

#[test]
fn ten_updates_follow_pytorch() {
    let golden: Golden = serde_json::from_str(include_str!("../fixtures/system_a.json")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(include_bytes!("../fixtures/system_a.safetensors")).unwrap();
    let named = |prefix: &str, name: &str| {
        let view = weights.tensor(&format!("{prefix}.{name}")).unwrap();
        let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        NamedTensor { name: name.to_string(), shape: view.shape().to_vec(), data }
    };
    let filled = |(row, sequences): (&Vec<Vec<u32>>, &usize)| {
        let real = &row[..*sequences];
        let mut tokens: Vec<u32> = real.iter().flat_map(|s| s[..16].to_vec()).collect();
        let mut targets: Vec<u32> = real.iter().flat_map(|s| s[1..].to_vec()).collect();
        tokens.resize(3 * 16, 0);
        targets.resize(3 * 16, Batch::IGNORED);
        Batch { tokens, targets }
    };
    let config = config(CONFIG, 128);
    for tier in tiers() {
        let all: Vec<Batch> = golden.batches.iter().zip(golden.sequences.iter().flatten()).map(filled).collect();
        let corpus = Corpus::Batches { validation: all[..1].to_vec(), training: all };
        let mut trainer = trainer(&config, &device(tier), corpus, PlanOptions::default());
        let expected = trainer.expected();
        let tensors: Vec<NamedTensor> = expected.tensors.iter().map(|(name, _)| named("initial", name)).collect();
        let state = trainer.state().clone();
        restore(&mut trainer, &Snapshot { tensors, optimizer: vec![], state });
        let ran = drive(&mut trainer);
        for (u, record) in ran.updates.iter().enumerate() {
            println!("{tier:?} update {u}: {} {} {}", record.train_ce, record.balance.unwrap(), record.grad_norm);
            assert!(
                relative(record.train_ce, golden.train_ce[u]) < 3e-6,
                "update {u}: loss {} against {}",
                record.train_ce,
                golden.train_ce[u]
            );
            assert!(
                relative(record.balance.unwrap(), golden.balance[u]) < 3e-6,
                "update {u}: balance {} against {}",
                record.balance.unwrap(),
                golden.balance[u]
            );
            assert!(
                relative(record.grad_norm, golden.grad_norm[u]) < 3e-6,
                "update {u}: norm {} against {}",
                record.grad_norm,
                golden.grad_norm[u]
            );
        }
        let names: Vec<String> = expected.tensors.iter().map(|(n, _)| n.clone()).collect();
        let found = download(&mut trainer, &names);
        for (name, bytes) in names.iter().zip(found) {
            let wanted = named("final", name).data;
            let found: Vec<f32> = bytemuck::cast_slice(&bytes).to_vec();
            let norm: f64 = wanted.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            let difference: f64 = wanted.iter().zip(&found).map(|(w, f)| f64::from(w - f).powi(2)).sum::<f64>().sqrt();
            assert!(difference < 5e-6 * norm, "{name}: relative difference {:.1e}", difference / norm);
        }
    }
}
