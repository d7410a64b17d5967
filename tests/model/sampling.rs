//! Text from a model, held against its evaluation: the greedy next token is the one that the evaluation predicts from the
//! last T tokens.

use std::rc::Rc;

use moelab::{
    data::dataset::Batch,
    gpu::Device,
    random::Stream,
    run::Config,
    train::generate::{Generator, Sampling},
};

use crate::{
    harness::{finish, on_shared_device},
    trainer::{STILL, batches, drive, start, tiny},
};

const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0 };
const PROMPT: [u32; 3] = [4, 9, 2];

/// `count` tokens after `prompt` from the initial weights, as text number `sample`.
fn continuation(config: &Config, device: &Rc<Device>, count: usize, draw: Sampling, sample: u32) -> Vec<u32> {
    let batch = batches(config, 1);
    let mut trainer = start(config, device, &batch, &batch);
    let (device, memory) = trainer.device_and_memory();
    let mut generator = Generator::new(config, device, memory).unwrap();
    let mut text = generator.start(PROMPT.to_vec(), count, draw, sample);
    finish(&mut generator, device, memory, &mut text);
    assert_eq!(text.tokens[..3], PROMPT);
    text.continuation().to_vec()
}

/// Each row of a batch ends in the last T tokens before one token of the continuation, which is its only target: an accuracy
/// of 1 says that each of them is the likeliest.
#[test]
fn the_next_token_follows_from_exactly_the_last_t_tokens() {
    on_shared_device(|device| {
        const DRAWN: usize = 16;
        let config = tiny(&[
            "data.batch=16",
            "train.updates=1",
            STILL,
            "model.init.std=1.0",
            "model.head.tied=false",
            "model.embedding.scale='one'",
        ]);
        let t = config.data.sequence_length as usize;
        let drawn = continuation(&config, device, DRAWN, GREEDY, 0);
        let text = [&PROMPT[..], &drawn].concat();
        let accuracy = |longest: usize| {
            let mut batch = Batch { tokens: Vec::new(), targets: Vec::new() };
            for at in PROMPT.len()..text.len() {
                let window = &text[at.saturating_sub(longest)..at];
                batch.tokens.extend(window);
                batch.targets.resize(batch.tokens.len() - 1, Batch::IGNORED);
                batch.targets.push(text[at]);
                let row = batch.tokens.len().next_multiple_of(t);
                batch.tokens.resize(row, 0);
                batch.targets.resize(row, Batch::IGNORED);
            }
            let trained = batches(&config, 1);
            let eval = drive(&mut start(&config, device, &trained, &[batch])).evals.remove(0);
            assert_eq!(eval.targets, DRAWN as u64);
            eval.accuracy
        };
        assert_eq!(accuracy(t), 1.0, "{text:?}");
        assert!(accuracy(t - 1) < 1.0, "the model looks at the first of T tokens, or this test shows nothing: {text:?}");
    });
}

/// Training's noise and dropout are off; a draw depends on seed, text and token alone.
#[test]
fn a_text_depends_on_weights_seed_and_number_alone() {
    on_shared_device(|device| {
        let sets = ["train.updates=1", "model.init.std=0.3"];
        let draw = Sampling { temperature: 1.0, top_p: 0.9 };
        let drawn = |more: &[&str], sample: u32| continuation(&tiny(&[&sets, more].concat()), device, 12, draw, sample);
        let plain = drawn(&[], 0);
        assert_eq!(drawn(&[], 0), plain);
        assert_ne!(drawn(&[], 1), plain);
        for noisy in ["model.router.noise=2.0", "model.dropout={embedding=0.5,attention=0.5,residual=0.5,ffn=0.5,head=0.5}"] {
            assert_eq!(drawn(&[noisy], 0), plain, "{noisy}");
        }
    });
}

/// Under equal logits a uniform number in [0, 1) names the token: each token of each text has its own.
#[test]
fn every_token_of_every_text_has_a_random_number_of_its_own() {
    on_shared_device(|device| {
        let config = tiny(&["train.updates=1", "model.init.std=0.0"]);
        for sample in [0, 7] {
            let stream = Stream { seed: 5, step: sample, stream: u32::MAX };
            let wanted: Vec<u32> = (3..23).map(|at| (stream.uniform(at) * 11.0) as u32).collect();
            assert_eq!(continuation(&config, device, 20, Sampling { temperature: 1.0, top_p: 1.0 }, sample), wanted);
        }
    });
}
