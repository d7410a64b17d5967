//! What a run measures of its routers besides the load: gradient norms, agreement with domains, and the names of router calls.

use moelab::{
    data::{
        Corpus,
        prepare::{self, NoFiles, Purpose},
    },
    gpu::PlanOptions,
    run::{Config, config::load, records::EvalRecord, routing::domain_agreement},
    train::trainer::{Progress, Trainer},
};

use crate::{
    harness::{drive, on_shared_device, trainer},
    trainer::{batches, tiny},
};

/// The L2 norm of what a trainer holds under a name.
fn norm(trainer: &mut Trainer, name: &str) -> f64 {
    let (device, memory) = trainer.device_and_memory();
    let bytes = memory.download(device, &[name.to_string()]).wait(device).unwrap().remove(0);
    bytemuck::cast_slice::<u8, f32>(&bytes).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// Of the gradient of the whole update, before clipping: the weights' gradients are still there after it.
#[test]
fn the_norm_of_a_router_is_that_of_its_accumulated_gradient() {
    on_shared_device(|device| {
        let shared = "model.depth={kind='shared',layers=3}";
        let recursive = "model.depth={kind='recursive',layers=1,recursion={high_cycles=1,low_cycles=2}}";
        for (set, routers) in [
            ("seed=1", ["blocks.0", "blocks.1"].to_vec()),
            (shared, ["blocks.0"; 3].to_vec()),
            (recursive, ["low.blocks.0", "low.blocks.0", "high.blocks.0"].to_vec()),
        ] {
            let config = tiny(&["train.updates=1", "train.micro_batches=2", "optimizer.clip_norm=0.01", set]);
            let batches = batches(&config, 3);
            let corpus = Corpus::Batches { training: batches[..2].to_vec(), validation: batches[2..].to_vec() };
            let mut trainer = trainer(&config, device, corpus, PlanOptions::default());
            let update = drive(&mut trainer).updates.remove(0);
            assert_eq!(config.model.router_labels().len(), routers.len(), "{set}");
            let wanted = routers.iter().map(|block| norm(&mut trainer, &format!("d_{block}.moe.router.weight")));
            for (found, wanted) in update.router_grad_norm.iter().zip(wanted) {
                assert!((f64::from(*found) / wanted - 1.0).abs() < 1e-5, "{set}: {found}, wanted {wanted}");
            }
            assert_eq!(update.router_grad_norm.len(), routers.len(), "{set}");
            assert!(update.router_grad_norm.iter().all(|norm| *norm > 0.0 && f64::from(*norm) < update.grad_norm), "{set}: {update:?}");
        }
    });
}

#[test]
fn router_calls_are_named_by_their_place_in_the_depth() {
    let labels = |set: &str| tiny(&[set]).model.router_labels().join(" | ");
    assert_eq!(labels("model.depth.layers=2"), "layer 0 | layer 1");
    assert_eq!(labels("model={depth.layers=3,ffn.dense_layers=1}"), "layer 1 | layer 2");
    assert_eq!(labels("model.depth={kind='shared',layers=3}"), "depth step 0 | depth step 1 | depth step 2");
    assert_eq!(
        labels("model.depth={kind='recursive',layers=1,recursion={high_cycles=1,low_cycles=2}}"),
        "call 0 (low), layer 0 | call 1 (low), layer 0 | call 2 (high), layer 0"
    );
}

/// One layer without attention that sends token t to expert t mod 4, on documents of the language.
const BY_TOKEN: &str = r#"
[model]
width = 64
context = 32
depth.layers = 1
attention.heads = 2
ffn.width = 64
router = { experts = 4, top_k = 1, noise = 0.0, softmax = "all" }
[data]
sequence_length = 32
batch = 3
language = { domains = 3 }
[train]
updates = 1
micro_batches = 1
evaluation.windows = 7
"#;

fn evaluated(config: &Config, trainer: &mut Trainer) -> EvalRecord {
    for spec in config.parameters() {
        let mut values = vec![0.0_f32; spec.shape.iter().map(|side| *side as usize).product()];
        let width = spec.shape.last().map_or(1, |side| *side as usize);
        match spec.name.as_str() {
            "embedding.weight" => (0..values.len() / width).for_each(|token| values[token * width + token % 4] = 1.0),
            name if name.ends_with("router.weight") => (0..4).for_each(|expert| values[expert * width + expert] = 1.0),
            name if name.contains("norm") => values.fill(1.0),
            _ => {}
        }
        trainer.write_tensor(&spec.name, 0, bytemuck::cast_slice(&values));
    }
    trainer.begin_requested_evaluation();
    loop {
        let progress = trainer.advance().unwrap_or_else(|error| panic!("{error}"));
        if progress.is_empty() {
            trainer.wait().unwrap();
        }
        if let Some(Progress::Requested(record)) = progress.into_iter().next() {
            return record;
        }
    }
}

#[test]
fn agreement_is_that_of_the_experts_of_all_real_tokens_with_their_domains() {
    let config = load(&|_| Ok(BY_TOKEN.to_string()), "test.toml", &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let (config, corpus) = prepare::corpus(config, None, Purpose::Train, &NoFiles).unwrap_or_else(|error| panic!("{error}"));
    let (mut counts, mut load) = (vec![vec![0.0; 4]; 3], vec![0.0; 4]);
    // The last batch has one window of three.
    assert_eq!(corpus.validation_batches(), 3);
    for index in 0..3 {
        let domains = corpus.validation_domains(index).expect("the language has domains");
        let real = (corpus.validation_batch(index).real_sequences(32) * 32) as usize;
        for (token, domain) in corpus.validation_batch(index).tokens.into_iter().zip(domains).take(real) {
            counts[domain as usize][token as usize % 4] += 1.0;
            load[token as usize % 4] += 1.0 / (7.0 * 32.0);
        }
    }
    let wanted = domain_agreement(&counts, 1).expect("there are several domains and experts");
    on_shared_device(move |device| {
        let found = evaluated(&config, &mut trainer(&config, device, corpus, PlanOptions::default()));
        let is_near = |found: f32, wanted: f64| (f64::from(found) - wanted).abs() < 1e-6;
        assert!(found.expert_load[0].iter().zip(load).all(|(found, wanted)| is_near(*found, wanted)), "{found:?}");
        assert!(is_near(found.domain_nmi[0], wanted) && wanted.abs() > 0.005, "{found:?}, wanted {wanted}");
    });
}
