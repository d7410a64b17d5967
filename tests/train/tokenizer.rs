//! Tokenizers lose nothing, come back as they were written, and no file makes them panic.

use std::path::Path;

use moelab::data::language::Language;
use moelab::data::tokenizer::{END_OF_TEXT, LONGEST_TRAINED_WORD, MAX_BYTES, Tokenizer};
use moelab::run::config::LanguageOptions;
use proptest::prelude::*;

fn language_texts() -> Vec<String> {
    let language = Language::new(&LanguageOptions::default());
    (0..400).map(|index| language.document(0, index).text).collect()
}

fn trained() -> Tokenizer {
    Tokenizer::train(language_texts().iter(), 400).unwrap().tokenizer
}

fn refused(json: &[u8]) -> String {
    Tokenizer::from_json(json).err().expect("the file is refused").to_string()
}

#[test]
fn bytes_are_ids() {
    let bytes = Tokenizer::bytes();
    assert_eq!((bytes.vocabulary(), bytes.end_of_document()), (256, Some(0)));
    assert_eq!(bytes.encode("Aé").unwrap(), [65, 0xc3, 0xa9]);
    assert_eq!(bytes.decode(&[65, 0, 0xc3, 0xa9, 0xff, 256]), "A\né\u{fffd}\u{fffd}");
    assert_eq!(
        bytes.encode("a\0b").unwrap_err().to_string(),
        "tokenizer: the text has a NUL at byte 1, which is reserved for the end of documents"
    );
    assert_eq!((bytes.spelling(0), bytes.spelling(7)), (&[0][..], &[7][..]));
}

#[test]
fn training_merges_what_the_documents_repeat() {
    let tokenizer = trained();
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (400, Some(0)));
    let texts = language_texts();
    let [bytes, ids] = [texts.iter().map(String::len).sum(), texts.iter().map(|text| tokenizer.encode(text).unwrap().len()).sum::<usize>()];
    assert!(ids * 5 < bytes * 2, "{ids} tokens for {bytes} bytes");
    assert!(texts.iter().all(|text| tokenizer.decode(&tokenizer.encode(text).unwrap()) == *text));
    let spelled: usize = (0..400).map(|id| tokenizer.spelling(id).len()).max().unwrap();
    assert!(spelled > 5, "a token spells a word");
}

#[test]
fn the_same_documents_give_the_same_tokenizer() {
    assert_eq!(trained().to_json(), trained().to_json());
    let fewer = Tokenizer::train(language_texts()[..200].iter(), 400).unwrap().tokenizer;
    assert_ne!(trained().hash(), fewer.hash());
}

#[test]
fn a_vocabulary_can_be_smaller_than_asked_but_not_senseless() {
    assert_eq!(Tokenizer::train(["abab"].iter(), 5000).unwrap().tokenizer.vocabulary(), 258);
    assert!(Tokenizer::train(["abab"].iter(), 256).is_err());
    assert!(Tokenizer::train(["abab"].iter(), 2_000_000).is_err());
}

/// Letters without a blank: 4 times as many would take 16 times as long if they were learned from in one piece.
#[test]
fn long_words_are_learned_from_in_pieces() {
    let letters =
        |count: u32| (0..count).map(|i| char::from(b"ACGT"[(i.wrapping_mul(2_654_435_761) >> 28) as usize % 4])).collect::<String>();
    let trained = Tokenizer::train([letters(3000), letters(200_000), "short words".into()].iter(), 300).unwrap();
    assert_eq!((trained.cut_words, trained.longest_word), (2, 200_000));
    assert_eq!(trained.tokenizer.vocabulary(), 300);
    let limit = LONGEST_TRAINED_WORD;
    let within = Tokenizer::train([letters(limit as u32)].iter(), 300).unwrap();
    assert_eq!((within.cut_words, within.longest_word), (0, limit));
    // A character is never parted: only its bytes are, as they are symbols of their own.
    assert_eq!(Tokenizer::train(["é".repeat(limit)].iter(), 300).unwrap().cut_words, 1);
}

#[test]
fn what_no_text_has_is_not_drawn() {
    let bytes = Tokenizer::bytes().drawable();
    assert_eq!(bytes.len(), 256 - 13, "id 0 ends documents");
    assert!(bytes.contains(&0) && bytes.contains(&0x80) && bytes.contains(&0xf4) && !bytes.contains(&0xc0) && !bytes.contains(&0xff));
    let trained = trained();
    let drawable = trained.drawable();
    // The trained one has an id for the byte 0 beside the one that ends documents.
    assert_eq!(drawable.len(), 400 - 14);
    let texts = language_texts();
    assert!(texts.iter().flat_map(|text| trained.encode(text).unwrap()).all(|id| drawable.contains(&id)));
}

#[test]
fn files_come_back_as_they_were_written() {
    for tokenizer in [Tokenizer::bytes(), trained()] {
        let back = Tokenizer::from_json(tokenizer.to_json().as_bytes()).unwrap();
        assert_eq!(back.to_json(), tokenizer.to_json());
        assert_eq!(back.digest(), tokenizer.digest());
        assert_eq!((back.vocabulary(), back.end_of_document()), (tokenizer.vocabulary(), tokenizer.end_of_document()));
        let text = &language_texts()[3];
        assert_eq!(back.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }
    assert_eq!(trained().hash().len(), 64);
}

#[test]
fn the_library_reads_what_is_written() {
    for tokenizer in [Tokenizer::bytes(), trained()] {
        let library = tokenizers::Tokenizer::from_bytes(tokenizer.to_json()).unwrap();
        let text = "Det tusta? naïve 🦀\n\n  x";
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(library.encode_fast(text, false).unwrap().get_ids(), ids);
        assert_eq!(library.decode(&ids, true).unwrap(), text);
    }
}

#[test]
fn no_text_can_end_its_document() {
    let tokenizer = trained();
    let ids = tokenizer.encode(&format!("one{END_OF_TEXT}two")).unwrap();
    assert!(!ids.contains(&0), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids), format!("one{END_OF_TEXT}two"));
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/train/hostile")
}

#[test]
fn hostile_files_are_refused_with_a_reason() {
    let cases = [
        ("merge_longer_than_any_token", "the merge of \"a\" and \"b\" needs the token \"ab\", which is not in the vocabulary"),
        ("merge_of_missing_token", "needs the token \"c\", which is not in the vocabulary"),
        ("merge_of_one", "the merge \"ab\" is not a pair of tokens"),
        ("id_gap", "no token has the id 2, expected ids 0 to 2 without gaps"),
        ("id_huge", "no token has the id 2, expected ids 0 to 2 without gaps"),
        ("id_beyond_u32", "expected u32"),
        ("id_negative", "expected u32"),
        ("id_twice", "two tokens have the id 1"),
        ("token_twice", "the token \"a\" occurs twice"),
        ("token_empty", "token 3 has 0 bytes, expected 1 to 1024"),
        ("added_id_taken", "two tokens have the id 1"),
        ("vocabulary_empty", "the vocabulary is empty"),
        ("unknown_token_missing", "unk_token is \"<unk>\", which is not in the vocabulary"),
        ("dropout", "the model has dropout"),
        ("byte_fallback", "the model has byte_fallback"),
        ("prefix", "the model has a continuing_subword_prefix"),
        ("word_level", "unknown variant `WordLevel`, expected `BPE`"),
        ("unigram", "expected a tokenizer.json with a byte-level BPE model"),
        ("pre_tokenizer_none", "expected a tokenizer.json with a byte-level BPE model and known pre-tokenizers"),
        ("pre_tokenizer_fixed_length", "unknown variant `FixedLength`"),
        ("pre_tokenizer_whitespace", "unknown variant `Whitespace`"),
        ("pre_tokenizer_not_bytes", "the last pre-tokenizer is not ByteLevel"),
        ("pre_tokenizer_regex", "a Split at an unknown pattern"),
        ("normalizer_strip", "unknown variant `Strip`"),
        ("normalizer_precompiled", "unknown variant `Precompiled`"),
        ("unknown_field", "unknown field `plugins`"),
        ("merges_missing", "missing field `merges`"),
        ("list", "expected a tokenizer.json"),
        ("cut", "EOF while parsing"),
    ];
    for (name, reason) in cases {
        let told = refused(&std::fs::read(folder().join(format!("{name}.json"))).unwrap());
        assert!(told.contains(reason), "{name}: {told}");
    }
    let files = std::fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, cases.len() + 1, "every file is a case");
}

#[test]
fn sizes_are_bounded() {
    let with = |token: &str| {
        format!(
            r#"{{"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false}},"model":{{"vocab":{{"a":0,"{token}":1}},"merges":[]}}}}"#
        )
    };
    assert!(Tokenizer::from_json(with(&"x".repeat(1024)).as_bytes()).is_ok());
    assert!(refused(with(&"x".repeat(1025)).as_bytes()).contains("token 1 has 1025 bytes, expected 1 to 1024"));
    assert!(refused(&vec![b' '; MAX_BYTES + 1]).contains("32000001 bytes, expected at most 32000000"));
    assert!(refused("[".repeat(100_000).as_bytes()).contains("expected a tokenizer.json"));
    let quoted = refused(with("b").replace("[]", &format!("[\"{}\"]", "x".repeat(1_000_000))).as_bytes());
    assert!(quoted.len() < 200, "{} bytes are told", quoted.len());
    let steps = |normalizers: usize, splits: usize| {
        let list = |step: &str, count: usize| vec![step; count].join(",");
        format!(
            r#"{{"normalizer":{{"type":"Sequence","normalizers":[{}]}},"pre_tokenizer":{{"type":"Sequence","pretokenizers":[{}]}},
                "model":{{"vocab":{{"a":0}},"merges":[]}}}}"#,
            list(r#"{"type":"NFC"}"#, normalizers),
            list(r#"{"type":"Digits","individual_digits":true}"#, splits) + r#",{"type":"ByteLevel","add_prefix_space":false}"#
        )
    };
    assert!(Tokenizer::from_json(steps(32, 31).as_bytes()).is_ok());
    assert!(refused(steps(100_000, 1).as_bytes()).contains("100000 normalizers or pre-tokenizers in a sequence, expected at most 32"));
    assert!(refused(steps(1, 32).as_bytes()).contains("33 normalizers or pre-tokenizers in a sequence"));
    let deep = format!("{{\"truncation\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refused(deep.as_bytes()).contains("expected a tokenizer.json"), "deep nesting is refused, not followed");
}

#[test]
fn bytes_without_an_id_are_an_error_not_a_loss() {
    let accepted = std::fs::read(folder().join("accepted_dropped_steps.json")).unwrap();
    let tokenizer = Tokenizer::from_json(&accepted).unwrap();
    assert_eq!(tokenizer.encode("abba").unwrap(), [2, 1, 0]);
    assert!(tokenizer.encode("abc").unwrap_err().to_string().contains("no id for the byte 0x63"));
}

fn any_json() -> impl Strategy<Value = Vec<u8>> {
    // A good file with a few bytes changed: deeper than random bytes get.
    let base = std::fs::read(folder().join("accepted_dropped_steps.json")).unwrap();
    prop::collection::vec((0..base.len(), any::<u8>()), 1..4).prop_map(move |changes| {
        let mut bytes = base.clone();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        bytes
    })
}

fn any_model() -> impl Strategy<Value = String> {
    let token = "[abc]{0,3}";
    let vocabulary = prop::collection::vec((token, 0u32..6), 0..6);
    let merges = prop::collection::vec((token, token), 0..4);
    (vocabulary, merges).prop_map(|(vocabulary, merges)| {
        let vocabulary: Vec<String> = vocabulary.iter().map(|(token, id)| format!("{token:?}:{id}")).collect();
        let merges: Vec<String> = merges.iter().map(|(first, second)| format!("[{first:?},{second:?}]")).collect();
        format!(
            r#"{{"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false}},"model":{{"vocab":{{{}}},"merges":[{}]}}}}"#,
            vocabulary.join(","),
            merges.join(",")
        )
    })
}

proptest! {
    // A failure prints its least input; it leaves no file behind.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Tokenizer::from_json(&bytes).is_err());
    }

    #[test]
    fn no_damaged_file_panics(json in any_json()) {
        if let Ok(tokenizer) = Tokenizer::from_json(&json) {
            _ = tokenizer.encode("abba");
        }
    }

    #[test]
    fn no_small_model_panics_and_accepted_ones_lose_nothing(json in any_model(), text in "[abc]{0,12}") {
        if let Ok(tokenizer) = Tokenizer::from_json(json.as_bytes()) && let Ok(ids) = tokenizer.encode(&text) {
            prop_assert_eq!(tokenizer.decode(&ids), text);
        }
    }

    #[test]
    fn any_text_comes_back(text in "\\PC{0,40}") {
        static TRAINED: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(trained);
        for tokenizer in [&Tokenizer::bytes(), &*TRAINED] {
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text.clone());
        }
    }
}
