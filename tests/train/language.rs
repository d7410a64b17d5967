//! The language's scorer is exact: it sums to one at every prefix, and agrees with enumeration and with what is drawn.

use std::collections::BTreeMap;

use moelab::data::language::{END_OF_DOCUMENT, Language, Scorer};
use moelab::run::config::LanguageOptions;

fn default() -> Language {
    Language::new(&LanguageOptions::default())
}

/// One sentence a document and few words: a finite language. Domains 1 and 4 inflect verbs alike, so some texts have two origins.
fn tiny() -> Language {
    let options =
        LanguageOptions { domains: 5, nouns: 1, verbs: 1, adjectives: 1, names: 2, shared: 1.0, stop: 1.0, ..LanguageOptions::default() };
    Language::new(&options)
}

/// Nats of one whole document, with its end.
fn document_nats(language: &Language, text: &str) -> f64 {
    let mut scorer = language.scorer();
    text.bytes().chain([END_OF_DOCUMENT]).map(|byte| scorer.read(byte)).sum()
}

/// The probability of each next byte.
fn next(scorer: &Scorer<'_>) -> Vec<f64> {
    (0..=u8::MAX).map(|byte| (-scorer.clone().read(byte)).exp()).collect()
}

/// Every document of a finite language with its probability, by following all bytes that the scorer allows.
fn enumerate(language: &Language) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut open = vec![Vec::new()];
    while let Some(prefix) = open.pop() {
        let mut scorer = language.scorer();
        let nats: f64 = prefix.iter().map(|byte| scorer.read(*byte)).sum();
        for (byte, probability) in next(&scorer).into_iter().enumerate().filter(|(_, probability)| *probability > 0.0) {
            if byte as u8 == END_OF_DOCUMENT {
                found.insert(String::from_utf8(prefix.clone()).unwrap(), (-nats).exp() * probability);
            } else {
                open.push([&prefix[..], &[byte as u8]].concat());
            }
        }
    }
    found
}

/// Reads a byte and holds what was predicted against what it cost.
fn read_checked(scorer: &mut Scorer<'_>, byte: u8) -> f64 {
    let next = next(scorer);
    let sum: f64 = next.iter().sum();
    assert!((sum - 1.0).abs() < 1e-12, "all next bytes together have probability {sum}");
    let nats = scorer.read(byte);
    assert!((nats + next[byte as usize].ln()).abs() < 1e-9, "{nats} nats, predicted {}", -next[byte as usize].ln());
    nats
}

#[test]
fn next_bytes_sum_to_one_at_every_prefix() {
    for language in [default(), tiny()] {
        let mut scorer = language.scorer();
        for index in 0..200 {
            let text = language.document(1, index).text;
            let nats: f64 = text.bytes().chain([END_OF_DOCUMENT]).map(|byte| read_checked(&mut scorer, byte)).sum();
            assert!((nats - document_nats(&language, &text)).abs() < 1e-9);
        }
    }
}

#[test]
fn all_documents_of_a_finite_language_have_probability_one() {
    let total: f64 = enumerate(&tiny()).values().sum();
    assert!((total - 1.0).abs() < 1e-12, "{total}");
}

/// The generator never meets the scorer: it draws a domain, then walks that domain alone.
#[test]
fn documents_are_drawn_as_often_as_they_are_scored() {
    let language = tiny();
    let scored = enumerate(&language);
    let draws = 40_000;
    let mut drawn: BTreeMap<String, u32> = BTreeMap::new();
    let mut nats = 0.0;
    for index in 0..draws {
        let text = language.document(2, index).text;
        nats += document_nats(&language, &text);
        *drawn.entry(text).or_default() += 1;
    }
    assert!(drawn.keys().all(|text| scored.contains_key(text)), "only what has a probability is drawn");
    let ambiguous = scored.keys().filter(|text| {
        let mut scorer = language.scorer();
        text.bytes().for_each(|byte| _ = scorer.read(byte));
        scorer.domains().iter().any(|share| (0.1..0.9).contains(share))
    });
    assert!(ambiguous.count() > 10, "some texts have more than one origin, or nothing is marginalised");
    let chi_square: f64 = scored
        .iter()
        .map(|(text, probability)| {
            let expected = probability * draws as f64;
            (f64::from(drawn.get(text).copied().unwrap_or(0)) - expected).powi(2) / expected
        })
        .sum();
    let freedom = (scored.len() - 1) as f64;
    assert!(chi_square < freedom + 5.0 * (2.0 * freedom).sqrt(), "chi-square {chi_square} at {freedom} degrees of freedom");
    let entropy: f64 = scored.values().map(|p| -p * p.ln()).sum();
    let variance: f64 = scored.values().map(|p| p * (p.ln() + entropy).powi(2)).sum();
    let mean = nats / draws as f64;
    assert!((mean - entropy).abs() < 5.0 * (variance / draws as f64).sqrt(), "{mean} nats a document drawn, entropy {entropy}");
}

/// The probability of a text is the mean over domains of what each domain alone gives it.
#[test]
fn domains_are_marginalised() {
    let language = tiny();
    let mut by_domain: BTreeMap<(String, u32), f64> = BTreeMap::new();
    for index in 0..5000 {
        let document = language.document(3, index);
        *by_domain.entry((document.text, document.domain)).or_default() += 1.0;
    }
    let (text, count) = by_domain
        .keys()
        .fold(BTreeMap::new(), |mut texts: BTreeMap<&str, u32>, (text, _)| {
            *texts.entry(text).or_default() += 1;
            texts
        })
        .into_iter()
        .max_by_key(|(_, domains)| *domains)
        .unwrap();
    assert!(count >= 2, "{text:?} has several origins");
    let mut scorer = language.scorer();
    text.bytes().for_each(|byte| _ = scorer.read(byte));
    let seen: Vec<f64> = (0..5).map(|domain| by_domain.get(&(text.to_owned(), domain)).copied().unwrap_or(0.0)).collect();
    let total: f64 = seen.iter().sum();
    for (share, seen) in scorer.domains().into_iter().zip(seen) {
        let deviation = (share * (1.0 - share) / total).sqrt();
        assert!((share - seen / total).abs() <= 5.0 * deviation, "{text:?}: posterior {share}, drawn {seen} of {total}");
    }
}

#[test]
fn documents_are_pleasant_printable_sentences() {
    let language = default();
    for index in 0..300 {
        let text = language.document(0, index).text;
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
        assert!(text.ends_with(['.', '?']) && text.starts_with(|first: char| first.is_ascii_uppercase()), "{text:?}");
        assert!(text.split([' ', '.', '?']).all(|word| word.len() <= 14), "{text:?}");
    }
}

/// A change of words or grammar makes old runs incomparable: it has to be meant.
#[test]
fn the_default_language_stays_what_it_is() {
    let documents: Vec<String> = (0..3).map(|index| default().document(0, index).text).collect();
    assert_eq!(
        documents,
        [
            "Bulel bus det zedrum tustaor. Bulel tun deklias dideor. Det zutem det budi dideor.",
            "Rut det stuves druvumet Dezut? Tun deklien druvumu det draklu. Det klure druvumet Dezut.",
            "Det klure tun bronerur letesis. Tun furuur Mezen letesam. Tun fodrasur gofoam.",
        ]
    );
}

#[test]
fn streams_seeds_and_indices_give_different_documents() {
    let language = default();
    let other = Language::new(&LanguageOptions { seed: 1, ..LanguageOptions::default() });
    let text = |language: &Language, stream, index| language.document(stream, index).text;
    let long = (0..).find(|index| text(&language, 0, *index).len() > 150).unwrap();
    let document = text(&language, 0, long);
    assert_eq!(document, text(&language, 0, long));
    for different in [text(&language, 1, long), text(&language, 0, long + 1), text(&language, 0, long | 1 << 40), text(&other, 0, long)] {
        assert_ne!(document, different);
    }
}

#[test]
fn a_hero_keeps_the_name() {
    let language = default();
    // A capitalised word after a lower-case one is a name.
    let names_of = |text: &str| -> Vec<String> {
        let words: Vec<&str> = text.split(' ').collect();
        let inside =
            words.windows(2).filter(|pair| !pair[0].ends_with(['.', '?']) && pair[1].starts_with(|c: char| c.is_ascii_uppercase()));
        inside.map(|pair| pair[1].trim_end_matches(['.', '?']).to_owned()).collect()
    };
    let documents: Vec<String> = (0..500).map(|index| language.document(0, index).text).collect();
    let mut all: Vec<String> = documents.iter().flat_map(|text| names_of(text)).collect();
    all.sort();
    all.dedup();
    assert!(all.len() > 4, "{all:?}");
    let twice = documents.iter().find(|text| names_of(text).len() >= 2).unwrap();
    let names = names_of(twice);
    assert_eq!(names[0], names[1]);
    let other = all.iter().find(|name| **name != names[0]).unwrap();
    let (first, rest) = twice.split_at(twice.rfind(&names[0]).unwrap());
    let renamed = format!("{first}{}", rest.replacen(&names[0], other, 1));
    assert!(document_nats(&language, twice).is_finite());
    assert!(document_nats(&language, &renamed).is_infinite(), "{renamed}");
}

#[test]
fn what_the_language_cannot_say_costs_infinitely_much_until_the_next_document() {
    let language = default();
    let good = language.document(0, 0).text;
    let mut scorer = language.scorer();
    let nats: Vec<f64> = format!("{good}\0Qq xx.\0{good}\0").bytes().map(|byte| scorer.read(byte)).collect();
    let (before, bad, after) = (&nats[..=good.len()], &nats[good.len() + 1..good.len() + 8], &nats[good.len() + 8..]);
    assert!(bad.iter().any(|nats| nats.is_infinite()));
    assert_eq!(before, after);
    assert!((before.iter().sum::<f64>() - document_nats(&language, &good)).abs() < 1e-9);
    assert_eq!(domain_of(&language, "Qq xx."), None);
}

/// The most probable domain of a document that starts with `text`; `None` if no domain can generate it.
pub fn domain_of(language: &Language, text: &str) -> Option<u32> {
    let mut scorer = language.scorer();
    let possible = text.bytes().all(|byte| scorer.read(byte).is_finite());
    let posterior = scorer.domains();
    let best = (0..posterior.len()).rev().max_by(|&a, &b| posterior[a].total_cmp(&posterior[b]))?;
    possible.then_some(best as u32)
}

#[test]
fn whole_documents_tell_their_domain() {
    let language = default();
    let right = (0..500).filter(|index| {
        let document = language.document(0, *index);
        domain_of(&language, &document.text) == Some(document.domain)
    });
    let right = right.count();
    assert!(right > 480, "{right} of 500");
    let domains: std::collections::BTreeSet<u32> = (0..100).map(|index| language.document(0, index).domain).collect();
    assert_eq!(domains.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn extreme_options_work() {
    let most = LanguageOptions { domains: 16, nouns: 200, verbs: 200, adjectives: 200, names: 200, ..LanguageOptions::default() };
    let least = LanguageOptions { domains: 1, nouns: 1, verbs: 1, adjectives: 1, names: 1, shared: 0.0, ..LanguageOptions::default() };
    for options in [most, least] {
        let language = Language::new(&options);
        let document = language.document(0, 0);
        assert!(document_nats(&language, &document.text).is_finite(), "{document:?}");
    }
}
