//! Baselines against numbers worked out by hand, and the language far below its bigram.

use moelab::data::baselines::{Bigram, Fit};
use moelab::data::dataset::Dataset;
use moelab::data::tokenizer::Tokenizer;
use moelab::run::config::Data;
use moelab::run::config::LanguageOptions;
use moelab::run::summary::Baselines;

fn baselines_of(dataset: &Dataset) -> Baselines {
    let mut fit = Fit::new(dataset);
    std::iter::repeat_with(|| fit.proceed(dataset)).flatten().next().unwrap()
}

#[test]
fn counts_are_smoothed_as_stated() {
    // c(0, 1) = 2, c(1, 0) = 1: three targets, of which 1 occurs twice.
    let model = Bigram::fit([(0, 1), (0, 1), (1, 0)], 4);
    let unigram = [2.0 / 7.0, 3.0 / 7.0, 1.0 / 7.0, 1.0 / 7.0];
    (0..4).for_each(|b| assert!((model.unigram(b) - unigram[b as usize]).abs() < 1e-12));
    for a in 0..4 {
        let sum: f64 = (0..4).map(|b| model.bigram(a, b)).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
    // After 3 nothing was seen: the prior remains.
    (0..4).for_each(|b| assert!((model.bigram(3, b) - model.unigram(b)).abs() < 1e-12));
    assert!(model.bigram(0, 1) > unigram[1]);
}

#[test]
fn the_strength_follows_the_text() {
    // A chain is predicted by its pairs; independent tokens are not, and the prior must win.
    let chain: Vec<u32> = (0..3000).map(|i| i % 50).collect();
    let independent: Vec<u32> = (0..3000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 % 50).collect();
    let pairs = |ids: &[u32]| ids.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>();
    let nats = |train: &[u32], test: &[u32]| {
        let model = Bigram::fit(pairs(train), 50);
        let test = pairs(test);
        test.iter().map(|(a, b)| -model.bigram(*a, *b).ln()).sum::<f64>() / test.len() as f64
    };
    assert!(nats(&chain, &chain) < 0.02);
    let fresh: Vec<u32> = (3000..6000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 % 50).collect();
    let excess = nats(&independent, &fresh) - 50f64.ln();
    assert!(excess < 0.05, "pairs that mean nothing cost {excess} nats");
}

/// Where no pair comes twice, each is a surprise to all the others: the prior is all there is.
#[test]
fn pairs_that_come_once_foretell_nothing() {
    let model = Bigram::fit((0..20).flat_map(|a| (0..10).map(move |k| (a, (a + k) % 20))), 20);
    (0..20).for_each(|b| assert!((model.bigram(0, b) - 0.05).abs() < 1e-3, "{}", model.bigram(0, b)));
}

#[test]
fn the_language_lies_far_below_its_bigram() {
    let data = Data { sequence_length: 128, batch: 8, ..Data::default() };
    let baselines = baselines_of(&Dataset::from_language(Tokenizer::bytes(), &data, 0, 64).unwrap());
    let entropy = baselines.entropy.unwrap();
    assert!((baselines.uniform - 256f64.ln()).abs() < 1e-12);
    assert!(baselines.uniform > baselines.unigram && baselines.unigram > baselines.bigram + 0.5, "{baselines:?}");
    assert!(baselines.bigram > entropy + 1.2, "{baselines:?}");
    assert!((0.2..0.6).contains(&entropy), "{baselines:?}");
}

/// Windows that start with a document are scored by that document alone; the sum over a window is the scorer's.
#[test]
fn the_entropy_is_that_of_the_validation_targets() {
    let data = Data { sequence_length: 64, batch: 1, ..Data::default() };
    let corpus = Dataset::from_language(Tokenizer::bytes(), &data, 0, 5).unwrap();
    let mut sum = 0.0;
    for index in 0..5 {
        let batch = corpus.validation_batch(index);
        let bytes: Vec<u8> = batch.targets.iter().map(|id| *id as u8).collect();
        let mut scorer = corpus.language().unwrap().scorer();
        sum += bytes.iter().map(|byte| scorer.read(*byte)).sum::<f64>();
    }
    let entropy = baselines_of(&corpus).entropy.unwrap();
    assert!((entropy - sum / 320.0).abs() < 1e-12, "{entropy} against {}", sum / 320.0);
}

/// Tokens of several bytes carry the nats of all of them: whole documents cost the same under any tokenizer.
#[test]
fn merged_tokens_carry_the_nats_of_their_bytes() {
    let options = LanguageOptions { documents: 2000, ..LanguageOptions::default() };
    let data = Data { sequence_length: 8, batch: 1, language: options.clone(), ..Data::default() };
    let language = moelab::data::language::Language::new(&options);
    let texts: Vec<String> = (0..500).map(|index| language.document(0, index).text).collect();
    let merged = Tokenizer::train(texts.iter(), 400).unwrap().tokenizer;
    let nats_of_all = |tokenizer: Tokenizer| {
        let corpus = Dataset::from_language(tokenizer, &data, 0, 0).unwrap();
        baselines_of(&corpus).entropy.unwrap() * corpus.validation_windows() as f64 * f64::from(corpus.window_targets())
    };
    let [bytes, merged] = [nats_of_all(Tokenizer::bytes()), nats_of_all(merged)];
    assert!((bytes / merged - 1.0).abs() < 0.01, "{bytes} nats in bytes, {merged} in merged tokens");
}

#[test]
fn text_has_no_known_entropy() {
    let tokenizer = Tokenizer::bytes();
    let mut shard = moelab::data::shards::Shard::new(256, tokenizer.digest());
    (0..20).for_each(|number| shard.push(&tokenizer.encode(&format!("text number {number}")).unwrap()).unwrap());
    let data = Data { sequence_length: 4, batch: 1, ..Data::default() };
    let baselines = baselines_of(&Dataset::from_documents(&shard, tokenizer, &data, 0, 0).unwrap());
    assert_eq!(baselines.entropy, None);
    assert!(baselines.bigram < baselines.unigram && baselines.unigram < baselines.uniform);
}
