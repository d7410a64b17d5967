//! Corpora: split before windows, windows at their edges, batches as a pure function of the micro-step.

use std::collections::HashSet;

use moelab::data::dataset::{Batch, DataError, Dataset, Split, Windows};
use moelab::data::shards::{Shard, Tokens};
use moelab::data::tokenizer::Tokenizer;
use moelab::run::config::Data;
use moelab::run::config::LanguageOptions;
use moelab::run::config::{SplitOptions, SplitRule, TargetRule};

/// The training batch of a micro-step.
fn training(corpus: &Dataset, micro_step: u64) -> Batch {
    let mut batch = Batch::default();
    corpus.fill_batch(micro_step, &mut batch);
    batch
}

fn stream(tokens: std::ops::Range<u32>) -> Tokens {
    let mut stream = Tokens::new(1000);
    stream.extend(tokens);
    stream
}

fn data(sequence_length: u32, batch: u32) -> Data {
    Data { sequence_length, batch, ..Data::default() }
}

fn shard(texts: &[String]) -> Shard {
    let tokenizer = Tokenizer::bytes();
    let mut shard = Shard::new(tokenizer.vocabulary(), tokenizer.digest());
    texts.iter().for_each(|text| shard.push(&tokenizer.encode(text).unwrap()).unwrap());
    shard
}

/// Documents of letters, each unlike the others.
fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("[document {number} of {}]", "many ".repeat(number % 7))).collect()
}

fn corpus(texts: &[String], data: &Data, seed: u64) -> Result<Dataset, DataError> {
    Dataset::from_documents(&shard(texts), Tokenizer::bytes(), data, seed, 0)
}

fn rows(batch: &Batch, tokens: usize) -> Vec<Vec<u32>> {
    batch.tokens.chunks(tokens).map(<[u32]>::to_vec).collect()
}

#[test]
fn windows_at_the_edges() {
    for (length, next, inside) in [(0, 0, 0), (3, 0, 0), (4, 0, 1), (5, 1, 1), (8, 1, 2), (9, 2, 2), (12, 2, 3)] {
        assert_eq!(Windows::cut(stream(0..length), 4, TargetRule::Next).len(), next, "next, {length} tokens");
        assert_eq!(Windows::cut(stream(0..length), 4, TargetRule::Inside).len(), inside, "inside, {length} tokens");
    }
}

#[test]
fn targets_are_the_next_tokens() {
    let copy = |rule, index| {
        let (mut tokens, mut targets) = (Vec::new(), Vec::new());
        Windows::cut(stream(0..9), 4, rule).copy(index, &mut tokens, &mut targets);
        (tokens, targets)
    };
    assert_eq!(copy(TargetRule::Next, 1), (vec![4, 5, 6, 7], vec![5, 6, 7, 8]));
    assert_eq!(copy(TargetRule::Inside, 1), (vec![4, 5, 6, 7], vec![5, 6, 7, Batch::IGNORED]));
    let pairs = |rule| Windows::cut(stream(0..9), 4, rule).pairs(0..2).collect::<Vec<_>>();
    assert_eq!(pairs(TargetRule::Next), (0..8).map(|token| (token, token + 1)).collect::<Vec<_>>());
    assert_eq!(pairs(TargetRule::Inside).len(), 6);
}

#[test]
fn separate_windows_share_no_token() {
    let windows = Windows::separate(stream(0..10), 4, TargetRule::Next);
    assert_eq!((windows.len(), windows.range(1), windows.target_range(1)), (2, 5..9, 6..10));
    assert_eq!(windows.pieces().collect::<Vec<_>>(), [0..5, 5..10]);
}

#[test]
fn a_split_takes_its_share_and_leaves_nobody_out() {
    let digests: Vec<[u8; 32]> = (0..=99).map(|number| [number; 32]).collect();
    let split = Split::of(&digests, &SplitOptions::default()).unwrap();
    assert_eq!((split.training.len(), split.validation.len()), (90, 10));
    let all: HashSet<usize> = split.training.iter().chain(&split.validation).copied().collect();
    assert_eq!(all.len(), 100);
    assert_ne!(split.validation, (90..100).collect::<Vec<_>>());
    let last = Split::of(&digests, &SplitOptions { rule: SplitRule::Last, ..SplitOptions::default() }).unwrap();
    assert_eq!(last.validation, (90..100).collect::<Vec<_>>());
    let other = Split::of(&digests, &SplitOptions { seed: 1, ..SplitOptions::default() }).unwrap();
    assert_ne!(split, other);
}

#[test]
fn a_split_leaves_one_document_on_each_side_or_refuses() {
    let of = |digests: &[[u8; 32]], fraction| Split::of(digests, &SplitOptions { fraction, ..SplitOptions::default() });
    for fraction in [0.0001, 0.5] {
        let split = of(&[[0; 32], [1; 32]], fraction).unwrap();
        assert_eq!((split.training.len(), split.validation.len()), (1, 1));
    }
    assert_eq!(of(&[[3; 32]; 5], 0.1).unwrap_err(), DataError::TooFewDocuments { documents: 5, distinct: 1 });
    let told = of(&[], 0.1).unwrap_err().to_string();
    assert!(told.contains("0 distinct documents") && told.contains("data.separator"), "{told}");
}

#[test]
fn no_document_and_no_copy_is_on_both_sides() {
    // Every document three times, far apart.
    let texts: Vec<String> = (0..3).flat_map(|_| texts(30)).collect();
    for seed in 0..20 {
        let split = Split::of(&shard(&texts).digests(), &SplitOptions { seed, ..SplitOptions::default() }).unwrap();
        let training: HashSet<&String> = split.training.iter().map(|index| &texts[*index]).collect();
        assert!(split.validation.iter().all(|index| !training.contains(&texts[*index])));
        assert_eq!(split.validation.len(), 9);
    }
}

/// The windows of both sides, read back as text, are the documents of the split.
#[test]
fn batches_hold_the_documents_of_their_side() {
    let texts = texts(40);
    let data = Data { shuffle: false, drop_last: false, ..data(16, 3) };
    let split = Split::of(&shard(&texts).digests(), &data.split).unwrap();
    let corpus = corpus(&texts, &data, 0).unwrap();
    let joined = |side: &[usize]| -> String { side.iter().map(|index| format!("\n{}", texts[*index])).collect() };
    let training: Vec<Batch> = (0..corpus.batches_per_epoch().unwrap()).map(|step| training(&corpus, step)).collect();
    let validation: Vec<Batch> = (0..corpus.validation_batches()).map(|index| corpus.validation_batch(index)).collect();
    for (batches, side) in [(training, split.training), (validation, split.validation)] {
        let scored: usize = batches.iter().map(|batch| batch.target_count() as usize).sum();
        let tokens: Vec<u32> = batches.iter().flat_map(|batch| batch.tokens.clone()).collect();
        let text = Tokenizer::bytes().decode(&tokens[..scored]);
        assert!(joined(&side).starts_with(&text) && text.len() + 16 + 1 >= joined(&side).len(), "{text}\n{}", joined(&side));
    }
}

/// Batches that are not full are filled up with sequences without targets: those of the data are counted beforehand.
#[test]
fn a_batch_tells_its_sequences() {
    let texts = texts(40);
    for (targets, drop_last) in [(TargetRule::Next, false), (TargetRule::Inside, false), (TargetRule::Next, true)] {
        let corpus = corpus(&texts, &Data { targets, drop_last, ..data(16, 7) }, 0).unwrap();
        let per_epoch = corpus.batches_per_epoch().unwrap();
        let windows: Vec<u32> = (0..2 * per_epoch).map(|step| corpus.batch_windows(step)).collect();
        for (step, windows) in (0..).zip(&windows) {
            let batch = training(&corpus, step);
            assert_eq!((batch.real_sequences(16), batch.target_count()), (*windows, windows * corpus.window_targets()));
        }
        assert_eq!(windows.iter().any(|windows| *windows < 7), !drop_last, "{windows:?}");
        let validation = (0..corpus.validation_batches()).map(|index| corpus.validation_batch(index).real_sequences(16) as usize);
        assert_eq!(validation.sum::<usize>(), corpus.validation_windows());
    }
}

#[test]
fn validation_counts_are_exact() {
    let texts = texts(40);
    for targets in [TargetRule::Next, TargetRule::Inside] {
        let corpus = corpus(&texts, &Data { targets, ..data(16, 3) }, 0).unwrap();
        let counted: u64 = (0..corpus.validation_batches()).map(|index| u64::from(corpus.validation_batch(index).target_count())).sum();
        assert_eq!(counted, corpus.validation_windows() as u64 * u64::from(corpus.window_targets()));
        assert!(counted > 0 && counted.is_multiple_of(u64::from(targets.targets(16))));
    }
    let few = Dataset::from_documents(&shard(&texts), Tokenizer::bytes(), &data(16, 3), 0, 4).unwrap();
    assert_eq!((few.validation_windows() * few.window_targets() as usize, few.validation_batches()), (64, 2));
    assert_eq!(few.validation_batch(1).target_count(), 16);
}

#[test]
fn an_epoch_meets_every_window_once_in_an_order_of_its_own() {
    let corpus = corpus(&texts(60), &Data { drop_last: false, ..data(16, 4) }, 7).unwrap();
    let corpus_in_order = self::corpus(&texts(60), &Data { drop_last: false, shuffle: false, ..data(16, 4) }, 7).unwrap();
    let per_epoch = corpus.batches_per_epoch().unwrap();
    let epoch = |number: u64| -> Vec<Vec<u32>> {
        let steps = number * per_epoch..(number + 1) * per_epoch;
        steps.flat_map(|step| rows(&training(&corpus, step), 16)).filter(|row| row.iter().any(|token| *token != 0)).collect()
    };
    let (mut first, mut second) = (epoch(0), epoch(1));
    assert_ne!(first, second);
    first.sort();
    second.sort();
    assert_eq!(first, second);
    // Windows may be equal in text; that each comes once shows in the order of a window's number.
    let in_order = corpus_in_order.batches_per_epoch().unwrap();
    let mut all: Vec<Vec<u32>> = (0..in_order).flat_map(|step| rows(&training(&corpus_in_order, step), 16)).collect();
    all.retain(|row| row.iter().any(|token| *token != 0));
    all.sort();
    assert_eq!(first, all);
}

#[test]
fn the_last_batch_is_dropped_or_filled_up() {
    let texts = texts(60);
    let filled = corpus(&texts, &Data { drop_last: false, ..data(16, 7) }, 0).unwrap();
    let dropped = corpus(&texts, &data(16, 7), 0).unwrap();
    let (last, full) = (filled.batches_per_epoch().unwrap() - 1, dropped.batches_per_epoch().unwrap());
    assert_eq!(last, full, "the windows do not divide by the batch");
    let batch = training(&filled, last);
    assert_eq!((batch.tokens.len(), batch.targets.len()), (7 * 16, 7 * 16));
    assert!(batch.target_count() > 0 && batch.target_count() < 7 * 16 && batch.target_count().is_multiple_of(16));
    assert!((0..full).all(|step| training(&dropped, step).target_count() == 7 * 16));
}

#[test]
fn a_fresh_reader_goes_on_where_another_stopped() {
    let endless = |seed| Dataset::from_language(Tokenizer::bytes(), &data(32, 4), seed, 8).unwrap();
    let finite = |seed| corpus(&texts(60), &data(16, 4), seed).unwrap();
    for make in [&endless as &dyn Fn(u64) -> Dataset, &finite] {
        let straight = make(3);
        let batches: Vec<Batch> = (0..40).map(|step| training(&straight, step)).collect();
        for step in [39, 0, 17, 18] {
            assert_eq!(training(&make(3), step), batches[step as usize], "micro-step {step}");
        }
        assert_ne!(training(&make(4), 0), batches[0], "another seed, another order");
        assert_eq!(make(4).validation_batch(0), straight.validation_batch(0), "but the same validation set");
        assert_eq!(make(4).hash(), straight.hash());
    }
}

#[test]
fn endless_documents_are_fresh_and_never_those_of_validation() {
    let corpus = Dataset::from_language(Tokenizer::bytes(), &data(256, 8), 0, 64).unwrap();
    let mut seen = HashSet::new();
    for batch in (0..20).map(|step| training(&corpus, step)).chain((0..8).map(|index| corpus.validation_batch(index))) {
        for row in rows(&batch, 256) {
            assert_eq!(row[0], 0, "a window starts with a separator");
            assert!(seen.insert(row[..200].to_vec()), "a window came twice");
        }
    }
    assert_eq!(corpus.batches_per_epoch(), None);
}

/// Labels are those of the documents: within one document there is one label, the one that the scorer finds most probable.
#[test]
fn validation_tokens_know_their_domain() {
    let stated = Data { language: LanguageOptions { documents: 300, ..LanguageOptions::default() }, ..data(128, 4) };
    for data in [data(128, 4), stated] {
        let corpus = Dataset::from_language(Tokenizer::bytes(), &data, 0, 22).unwrap();
        let (mut right, mut documents) = (0, 0);
        for index in 0..corpus.validation_batches() {
            let (batch, domains) = (corpus.validation_batch(index), corpus.validation_domains(index).unwrap());
            assert_eq!(domains.len(), batch.tokens.len());
            for (row, labels) in batch.tokens.chunks(128).zip(domains.chunks(128)).filter(|(_, labels)| labels[0] != Batch::IGNORED) {
                // Whole documents lie between two separators.
                let ends: Vec<usize> = (0..128).filter(|at| row[*at] == 0).collect();
                for pair in ends.windows(2) {
                    let (text, labels) = (Tokenizer::bytes().decode(&row[pair[0] + 1..pair[1]]), &labels[pair[0] + 1..=pair[1]]);
                    assert!(labels.iter().all(|label| *label == labels[0]));
                    right += u32::from(crate::language::domain_of(corpus.language().unwrap(), &text) == Some(labels[0]));
                    documents += 1;
                }
            }
        }
        assert!(documents >= 3 && right * 10 >= documents * 9, "{right} of {documents}");
        let windows = corpus.validation_windows();
        let last = corpus.validation_domains(corpus.validation_batches() - 1).unwrap();
        assert_eq!(last.contains(&Batch::IGNORED), !windows.is_multiple_of(4), "{windows} windows, 4 a batch");
    }
}

#[test]
fn the_hash_is_that_of_the_data() {
    let texts = texts(60);
    let hash = |texts: &[String], data: &Data| corpus(texts, data, 0).unwrap().hash();
    let base = hash(&texts, &data(16, 4));
    assert_eq!(base.len(), 64);
    assert_eq!(base, hash(&texts, &data(16, 2)), "the batch size is no data");
    // Of either side.
    for document in 0..texts.len() {
        let mut changed = texts.clone();
        changed[document].push('!');
        assert_ne!(base, hash(&changed, &data(16, 4)), "document {document}");
    }
    assert_ne!(base, hash(&texts, &data(8, 4)));
    assert_ne!(base, hash(&texts, &Data { end_of_document: false, ..data(16, 4) }));
    let language = |nouns| {
        let language = LanguageOptions { nouns, ..LanguageOptions::default() };
        Dataset::from_language(Tokenizer::bytes(), &Data { language, ..data(16, 4) }, 0, 2).unwrap().hash()
    };
    assert_ne!(language(10), language(11));
}

#[test]
fn says_what_a_corpus_lacks() {
    let told = |texts: &[String], data: &Data| corpus(texts, data, 0).err().unwrap().to_string();
    assert_eq!(
        told(&texts(3), &data(64, 4)),
        "the training documents give 0 windows of 65 tokens (50 tokens), expected at least 4. Add text, or lower data.sequence_length or data.batch"
    );
    let one_short = Data { split: SplitOptions { rule: SplitRule::Last, ..SplitOptions::default() }, ..data(64, 1) };
    assert!(told(&texts(5), &one_short).starts_with("the validation documents give 0 windows of 65 tokens"));
    assert!(told(&["a".into()], &data(64, 4)).starts_with("the corpus has 1 distinct documents"));
    let mut other = Shard::new(256, [1; 32]);
    other.push(&[1, 2]).unwrap();
    other.push(&[3, 4]).unwrap();
    let error = Dataset::from_documents(&other, Tokenizer::bytes(), &data(64, 4), 0, 0).err().unwrap();
    assert!(error.to_string().contains("another tokenizer"), "{error}");
    let joined = Data { end_of_document: false, ..data(16, 4) };
    let error = Dataset::from_language(Tokenizer::bytes(), &joined, 0, 0).err().unwrap();
    assert!(error.to_string().contains("data.end_of_document = true"), "{error}");
}
