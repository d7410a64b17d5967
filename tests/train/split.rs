//! The split of documents by hand: which are held out, how a share is rounded, that a draw favours none.

use std::collections::BTreeMap;

use moelab::data::dataset::Split;
use moelab::run::config::{SplitOptions, SplitRule};

/// Documents of which equal numbers are copies.
fn split(documents: &[u8], options: SplitOptions) -> Split {
    Split::of(&documents.iter().map(|number| [*number; 32]).collect::<Vec<_>>(), &options).unwrap()
}

#[test]
fn the_last_distinct_documents_are_held_out_with_their_copies() {
    let last = |documents: &[u8], fraction| {
        let Split { training, validation } = split(documents, SplitOptions { fraction, rule: SplitRule::Last, seed: 0 });
        (training, validation)
    };
    assert_eq!(last(&[1, 2, 3, 4], 0.5), (vec![0, 1], vec![2, 3]));
    // Distinct are 7, 8, 9 and 6, by their first places; a copy goes where the first of its kind goes.
    assert_eq!(last(&[7, 8, 7, 9, 8, 6, 9], 0.5), (vec![0, 1, 2, 4], vec![3, 5, 6]));
    assert_eq!(last(&[7, 8, 7, 9, 8, 6, 9], 0.25), (vec![0, 1, 2, 3, 4, 6], vec![5]));
    // Ten documents of which nine are one: half of two distinct ones is one.
    assert_eq!(last(&[5, 5, 5, 5, 5, 5, 5, 5, 5, 4], 0.5).1, [9]);
}

#[test]
fn a_share_is_rounded_to_the_nearest_count() {
    for (documents, fraction, held_out) in
        [(14, 0.1, 1), (16, 0.1, 2), (25, 0.1, 3), (10, 0.26, 3), (10, 0.24, 2), (30, 0.01, 1), (2, 0.5, 1), (3, 0.5, 2)]
    {
        for rule in [SplitRule::Last, SplitRule::Shuffled] {
            let documents: Vec<u8> = (0..documents).collect();
            let found = split(&documents, SplitOptions { fraction, rule, seed: 3 });
            assert_eq!(found.validation.len(), held_out, "{fraction} of {}", documents.len());
            assert_eq!(found.training.len(), documents.len() - held_out);
        }
    }
}

/// Two of four documents: each of the six pairs comes as often, within four standard deviations.
#[test]
fn a_draw_favours_no_document() {
    const SEEDS: u64 = 6000;
    let mut counts = BTreeMap::new();
    for seed in 0..SEEDS {
        let held_out = split(&[1, 2, 3, 4], SplitOptions { fraction: 0.5, rule: SplitRule::Shuffled, seed }).validation;
        *counts.entry(held_out).or_insert(0.0) += 1.0;
    }
    let expected = SEEDS as f64 / 6.0;
    let deviation = (expected * 5.0 / 6.0).sqrt();
    assert_eq!(counts.len(), 6, "{counts:?}");
    assert!(counts.values().all(|count| (count - expected).abs() < 4.0 * deviation), "{counts:?}");
}
