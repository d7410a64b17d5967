//! The embedded corpus: an artificial language whose true entropy is known.
//!
//! A *document* is a few sentences about one hero. Its *domain* is latent: one of [`LanguageOptions::domains`], sampled
//! uniformly, each with its own words (some shared between domains), inflection and word order. What a model can learn, from
//! easy to hard: letters, words, the grammar's slots, number agreement of noun and verb, the `?` after a question word, the
//! domain, and repeating the hero's name.
//!
//! *Guarantees.* The language is a process over bytes that ends each document with [`END_OF_DOCUMENT`] (byte 0, which no text
//! contains). [`Scorer`] returns the exact probability of every byte given the bytes before it in the same stream of documents:
//! given the domain the automaton is deterministic, and over domains it marginalises by log-sum-exp. The probabilities of
//! all next bytes sum to 1 at every prefix. So `-ln p`, averaged over bytes that the language generated, is in expectation a
//! lower bound on the loss of any model.
//!
//! *Conditioning.* A scored byte is conditioned on its document's whole past. A model that sees a window which starts inside a
//! document knows less, so its best loss is at or above this bound; for windows that start with a document (as
//! [`crate::data::dataset`] makes them from endless documents) the bound is tight. On a finite sample a model may fall below
//! it by chance, by about one standard error of the mean.
//!
//! *Precision.* Random numbers have 53 bits, scores are f64; both neglect probabilities below 1e-15.

mod draws;
mod grammar;
mod lexicon;

use crate::run::config::LanguageOptions;
use draws::{Draws, Purpose};
use grammar::{Cursor, Grammar};
use lexicon::Lexicon;

/// The byte that ends every document of a stream.
pub const END_OF_DOCUMENT: u8 = grammar::END;

/// A document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Printable ASCII, without the final byte.
    pub text: String,
    /// The domain that it was generated from.
    pub domain: u32,
}

/// The language: generates documents and scores text.
pub struct Language {
    options: LanguageOptions,
    grammars: Vec<Grammar>,
}

impl Language {
    /// Generates the words and compiles the grammars. The options must be within the ranges of the config.
    pub fn new(options: &LanguageOptions) -> Self {
        let lexicon = Lexicon::draw(options);
        let grammars = (0..options.domains as usize).map(|domain| Grammar::new(&lexicon, domain, options.stop)).collect();
        Self { options: options.clone(), grammars }
    }

    /// The options of the language.
    pub fn options(&self) -> &LanguageOptions {
        &self.options
    }

    /// Document `index` of stream `stream`, deterministic. Streams are independent and endless.
    pub fn document(&self, stream: u64, index: u64) -> Document {
        let seed = Draws::new(self.options.seed, stream, Purpose::Documents).bits();
        let mut draws = Draws::new(seed, index, Purpose::Document);
        let domain = draws.below(self.grammars.len());
        Document { text: self.grammars[domain].draw(&mut draws), domain: domain as u32 }
    }

    /// A scorer at the start of a stream of documents.
    pub fn scorer(&self) -> Scorer<'_> {
        let mut scorer = Scorer { language: self, cursors: Vec::new(), log_weights: Vec::new() };
        scorer.restart();
        scorer
    }
}

/// Reads a stream of documents byte by byte: forward filtering over the latent domain.
#[derive(Clone)]
pub struct Scorer<'a> {
    language: &'a Language,
    cursors: Vec<Cursor>,
    /// ln P(domain | bytes of this document so far), normalised.
    log_weights: Vec<f64>,
}

impl Scorer<'_> {
    fn restart(&mut self) {
        let grammars = &self.language.grammars;
        self.cursors = grammars.iter().map(Grammar::start).collect();
        self.log_weights = vec![-(grammars.len() as f64).ln(); grammars.len()];
    }

    /// Reads one byte and returns `-ln` of its probability given the bytes before it. After [`END_OF_DOCUMENT`] the next
    /// document starts, even if the text before it was impossible.
    pub fn read(&mut self, byte: u8) -> f64 {
        for ((grammar, cursor), log_weight) in self.language.grammars.iter().zip(&mut self.cursors).zip(&mut self.log_weights) {
            *log_weight += grammar.read(cursor, byte).ln();
        }
        let total = log_sum_exp(&self.log_weights);
        if byte == END_OF_DOCUMENT {
            self.restart();
        } else if total.is_finite() {
            self.log_weights.iter_mut().for_each(|log_weight| *log_weight -= total);
        }
        -total
    }

    /// The probability of each domain, given the bytes of this document so far.
    pub fn domains(&self) -> Vec<f64> {
        self.log_weights.iter().map(|log_weight| log_weight.exp()).collect()
    }
}

/// `ln(sum(exp(x)))`, minus infinity if all elements are.
fn log_sum_exp(x: &[f64]) -> f64 {
    let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY { most } else { most + x.iter().map(|v| (v - most).exp()).sum::<f64>().ln() }
}
