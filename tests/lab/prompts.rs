//! What a model is given to go on from: texts start as documents do.

use moelab::lab::session::prompt_tokens;
use moelab::train::tokenizer::Tokenizer;

#[test]
fn a_prompt_starts_a_document() {
    assert_eq!(prompt_tokens(&Tokenizer::bytes(), "ab"), [0, b'a'.into(), b'b'.into()]);
    assert_eq!(prompt_tokens(&Tokenizer::bytes(), ""), [0]);
    let merged = Tokenizer::train(["one two one two one"].into_iter(), 270).unwrap();
    let end = merged.end_of_document().unwrap();
    assert_eq!(prompt_tokens(&merged, "one two"), [&[end][..], &merged.encode("one two").unwrap()].concat());
}
