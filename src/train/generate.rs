//! Text from a model: temperature and nucleus (top-p) sampling (Holtzman et al., arXiv 1904.09751).
//!
//! A state machine like the trainer: a token is one forward of the window, of which only the logits of the requested
//! position are read back. A sampled token depends only on (seed, sample, token), and is among the ids that occur in text: not a
//! model's ids beyond its tokenizer, nor bytes that never occur in UTF-8 ([`Tokenizer::drawable`]).

use std::rc::Rc;

use super::{engine::LogitsStep, error::TrainError, recording};
use crate::{
    data::{DataError, tokenizer::Tokenizer},
    run::config::Config,
};
use crate::{
    gpu::{Compilation, Device, Download, Memory, PlanOptions},
    random::Stream,
};

/// Random stream of sampling; no op of a graph has this id.
const STREAM: u32 = u32::MAX;

/// How to sample the next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 picks the most likely token.
    pub temperature: f64,
    /// Samples from the fewest most likely tokens with this total probability.
    pub top_p: f64,
}

/// A prompt to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// At least one: the end of a document, if the tokenizer has one, because documents start with it, then those of the prompt.
    pub tokens: Vec<u32>,
    /// Number of tokens at the start that are outside of the model's window and have no effect.
    pub unseen: usize,
}

impl Prompt {
    /// The tokens of `text` for a run of `config`.
    ///
    /// # Errors
    /// If the tokenizer has no ids for a part of it.
    pub fn new(config: &Config, tokenizer: &Tokenizer, text: &str) -> Result<Prompt, DataError> {
        let mut tokens: Vec<u32> = tokenizer.end_of_document().into_iter().collect();
        tokens.extend(tokenizer.encode(text)?);
        if tokens.is_empty() {
            tokens.push(0);
        }
        let unseen = tokens.len().saturating_sub(config.data.sequence_length as usize);
        Ok(Prompt { tokens, unseen })
    }

    /// A warning if a prompt is longer than the window.
    pub fn warning(&self) -> Option<String> {
        let (all, seen) = (self.tokens.len(), self.tokens.len() - self.unseen);
        let unseen = self.unseen;
        (unseen > 0).then(|| {
            format!("the prompt has {all} tokens, the model sees the last {seen} (data.sequence_length): the first {unseen} are cut")
        })
    }
}

/// The compiled sampling program of a run.
pub struct Generator {
    step: LogitsStep,
    seed: u64,
    /// Ids that are never sampled.
    undrawable: Vec<u32>,
}

/// A text that is being generated.
pub struct Generation {
    /// Prompt and continuation so far.
    pub tokens: Vec<u32>,
    prompt_length: usize,
    wanted: usize,
    sampling: Sampling,
    sample: u32,
    pending: Option<Download>,
}

impl Generation {
    /// Whether all tokens are generated.
    pub fn is_done(&self) -> bool {
        self.tokens.len() >= self.prompt_length + self.wanted
    }

    /// Blocks until the next token can be sampled. Only works natively.
    ///
    /// # Errors
    /// A lost or faulty device.
    pub fn wait(&self, device: &Device) -> Result<(), TrainError> {
        self.pending.as_ref().map_or(Ok(()), |p| Ok(p.wait_ready(device)?))
    }

    /// The tokens after the prompt.
    pub fn continuation(&self) -> &[u32] {
        &self.tokens[self.prompt_length..]
    }
}

impl Generator {
    /// Compiles the sampling program on a run's memory. It samples from all ids of the model.
    ///
    /// # Errors
    /// If it does not fit the device.
    pub fn new(config: &Config, device: &Device, memory: &mut Memory) -> Result<Generator, TrainError> {
        let sampling = recording::sampling(config, device.capabilities);
        let step = LogitsStep::new(device, memory, sampling, PlanOptions::default())?;
        Ok(Generator { step, seed: config.seed, undrawable: Vec::new() })
    }

    /// The kernels that [`Generator::new`] needs and that the device has not compiled, to be compiled one at a time before it.
    pub fn compilation(config: &Config, device: &Device) -> Compilation {
        Compilation::of(device, &[&recording::sampling(config, device.capabilities).program])
    }

    /// Restricts sampling to ids that occur in text of `tokenizer`.
    pub fn for_text(mut self, tokenizer: &Tokenizer, config: &Config) -> Generator {
        let drawable = tokenizer.drawable();
        self.undrawable = (0..config.model.vocabulary).filter(|id| drawable.binary_search(id).is_err()).collect();
        self
    }

    /// Starts a text of `tokens` tokens after a prompt, which must not be empty. `sample` numbers the texts of a run.
    pub fn start(&self, prompt: Vec<u32>, tokens: usize, sampling: Sampling, sample: u32) -> Generation {
        assert!(!prompt.is_empty(), "a generation starts from at least one token");
        Generation { prompt_length: prompt.len(), tokens: prompt, wanted: tokens, sampling, sample, pending: None }
    }

    /// Submits the next token's forward, or reads its logits and samples.
    ///
    /// # Errors
    /// A lost or faulty device.
    pub fn advance(&mut self, device: &Rc<Device>, memory: &mut Memory, text: &mut Generation) -> Result<(), TrainError> {
        if text.is_done() {
            return Ok(());
        }
        let pending = match &text.pending {
            Some(pending) => pending,
            None => {
                let length = self.step.recorded().sequence_length as usize;
                let window = &text.tokens[text.tokens.len().saturating_sub(length)..];
                let position = window.len() as u32 - 1;
                let mut tokens = window.to_vec();
                tokens.resize(length, 0);
                text.pending.insert(self.step.submit(device, memory, &tokens, &[position])?)
            }
        };
        let Some(mut logits) = self.step.poll(device, pending)? else { return Ok(()) };
        text.pending = None;
        self.undrawable.iter().for_each(|id| logits[*id as usize] = f32::NEG_INFINITY);
        let stream = Stream { seed: self.seed, step: text.sample, stream: STREAM };
        let uniform = stream.uniform(text.tokens.len() as u32);
        text.tokens.push(choose(&logits, text.sampling, f64::from(uniform)));
        Ok(())
    }
}

/// The token that a uniform number in [0, 1) picks from the nucleus; ties in probability go to the lowest token. A token with a logit of minus
/// infinity is never picked, unless all are.
pub fn choose(logits: &[f32], sampling: Sampling, uniform: f64) -> u32 {
    let mut order: Vec<u32> = (0..logits.len() as u32).filter(|token| logits[*token as usize] != f32::NEG_INFINITY).collect();
    if order.is_empty() {
        return 0;
    }
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    if sampling.temperature <= 0.0 {
        return order[0];
    }
    let top = f64::from(logits[order[0] as usize]);
    let weight = |token: &u32| ((f64::from(logits[*token as usize]) - top) / sampling.temperature).exp();
    let total: f64 = order.iter().map(weight).sum();
    let mut nucleus = 0;
    let mut mass = 0.0;
    while nucleus < order.len() && (nucleus == 0 || mass < sampling.top_p * total) {
        mass += weight(&order[nucleus]);
        nucleus += 1;
    }
    let mut rest = uniform * mass;
    for token in &order[..nucleus] {
        rest -= weight(token);
        if rest < 0.0 {
            return *token;
        }
    }
    order[nucleus - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 2.0, 1.0];

    #[test]
    fn greedy_takes_the_lowest_of_the_likeliest() {
        assert_eq!(choose(&LOGITS, Sampling { temperature: 0.0, top_p: 1.0 }, 0.9), 1);
    }

    #[test]
    fn frequencies_follow_the_tempered_softmax() {
        let sampling = Sampling { temperature: 0.5, top_p: 1.0 };
        let n = 40_000;
        let mut counts = [0.0; 4];
        for i in 0..n {
            counts[choose(&LOGITS, sampling, (f64::from(i) + 0.5) / f64::from(n)) as usize] += 1.0 / f64::from(n);
        }
        let total: f64 = LOGITS.iter().map(|l| (f64::from(*l) / 0.5).exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            assert!((count - (f64::from(logit) / 0.5).exp() / total).abs() < 1e-3);
        }
    }

    #[test]
    fn the_nucleus_leaves_the_tail_out() {
        let sampling = Sampling { temperature: 1.0, top_p: 0.6 };
        let drawn: std::collections::BTreeSet<u32> = (0..100).map(|i| choose(&LOGITS, sampling, f64::from(i) / 100.0)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn ids_that_never_occur_in_text_are_never_sampled() {
        const NONE: f32 = f32::NEG_INFINITY;
        let draws = |sampling| {
            (0..100).map(|i| choose(&[0.0, NONE, NONE, 1.0], sampling, f64::from(i) / 100.0)).collect::<std::collections::BTreeSet<u32>>()
        };
        assert_eq!(draws(Sampling { temperature: 5.0, top_p: 1.0 }).into_iter().collect::<Vec<_>>(), [0, 3]);
        // Of 0 and 3 alone, 3 has 73 %: the nucleus is that of what can be drawn.
        assert_eq!(draws(Sampling { temperature: 1.0, top_p: 0.7 }).into_iter().collect::<Vec<_>>(), [3]);
        assert_eq!(draws(Sampling { temperature: 0.0, top_p: 1.0 }).into_iter().collect::<Vec<_>>(), [3]);
        assert_eq!(choose(&[0.0, NONE], Sampling { temperature: 1.0, top_p: 1.0 }, 1.0 - f64::EPSILON), 0);
        assert_eq!(choose(&[NONE, NONE], Sampling { temperature: 1.0, top_p: 1.0 }, 0.5), 0);
    }
}
