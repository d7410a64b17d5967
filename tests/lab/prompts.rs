//! Prompts: texts start like documents.

use moelab::{data::tokenizer::Tokenizer, run::Config, train::generate::Prompt};

fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    Prompt::new(&Config::default(), tokenizer, text).unwrap().tokens
}

#[test]
fn a_prompt_starts_a_document() {
    assert_eq!(tokens(&Tokenizer::bytes(), "ab"), [0, b'a'.into(), b'b'.into()]);
    assert_eq!(tokens(&Tokenizer::bytes(), ""), [0]);
    let merged = Tokenizer::train(["one two one two one"].into_iter(), 270).unwrap().tokenizer;
    let end = merged.end_of_document().unwrap();
    assert_eq!(tokens(&merged, "one two"), [&[end][..], &merged.encode("one two").unwrap()].concat());
}

#[test]
fn what_lies_beyond_the_window_is_told_and_what_has_no_ids_is_an_error() {
    let config = Config { data: moelab::run::config::Data { sequence_length: 4, ..Default::default() }, ..Config::default() };
    let prompt = |text: &str| Prompt::new(&config, &Tokenizer::bytes(), text);
    assert_eq!(prompt("abc").unwrap().warning(), None);
    let long = prompt("abcde").unwrap();
    assert_eq!((long.tokens.len(), long.unseen), (6, 2));
    assert!(long.warning().unwrap().starts_with("the prompt has 6 tokens, the model sees the last 4"));
    assert!(prompt("a\0b").is_err());
}
