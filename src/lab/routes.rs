//! The experts that each token of a text goes to: of a text of the user, or of the validation set.

use std::{collections::BTreeSet, rc::Rc};

use super::publisher::Activity;
use crate::{
    data::{Corpus, dataset::Batch, tokenizer::Tokenizer},
    gpu::{Compilation, Device, Download, Memory, PlanOptions},
    run::{
        Config,
        protocol::{Problem, Routed},
    },
    train::{TrainError, engine::LogitsStep, generate::Prompt, recording},
};

/// Most tokens of the validation set that are looked at, and at least one batch.
const MOST_TOKENS: usize = 4096;

/// Batches whose routes are being read.
pub(super) struct Routes {
    compilation: Compilation,
    /// Compiled once its kernels are.
    step: Option<LogitsStep>,
    /// The next ones, the last first.
    batches: Vec<Window>,
    pending: Option<(Download, Window)>,
    found: Routed,
}

/// A batch, of which the first `real` tokens are looked at.
struct Window {
    tokens: Vec<u32>,
    domains: Option<Vec<u32>>,
    real: usize,
}

impl Routes {
    /// Those of a text, of which the model sees the end.
    ///
    /// # Errors
    /// If the tokenizer has no ids for a part of it.
    pub fn of_text(config: &Config, device: &Device, tokenizer: &Tokenizer, text: &str) -> Result<Routes, Problem> {
        let prompt = Prompt::new(config, tokenizer, text).map_err(|error| Problem::new(format!("text: {error}")))?;
        let mut tokens = prompt.tokens[prompt.unseen..].to_vec();
        let real = tokens.len();
        tokens.resize((config.data.batch * config.data.sequence_length) as usize, 0);
        Ok(Routes::new(config, device, vec![Window { tokens, domains: None, real }]))
    }

    /// Those of the first windows of the validation set.
    pub fn of_validation(config: &Config, device: &Device, corpus: &Corpus) -> Routes {
        let length = config.data.sequence_length;
        let window = |index: usize| {
            let batch: Batch = corpus.validation_batch(index);
            let real = (batch.real_sequences(length) * length) as usize;
            Window { tokens: batch.tokens, domains: corpus.validation_domains(index), real }
        };
        let of_batch = (config.data.batch * length) as usize;
        let count = corpus.validation_batches().min((MOST_TOKENS / of_batch.max(1)).max(1));
        Routes::new(config, device, (0..count).rev().map(window).collect())
    }

    fn new(config: &Config, device: &Device, batches: Vec<Window>) -> Routes {
        let compilation = Compilation::of(device, &[&recording::routes(config, device.capabilities).program]);
        let found = Routed { experts_per_token: config.model.router.top_k, ..Routed::default() };
        Routes { compilation, step: None, batches, pending: None, found }
    }

    /// Takes note of compiled kernels, submits a batch, or reads the experts of one. Blocks for milliseconds at most.
    ///
    /// # Errors
    /// A lost or faulty device, or a program that does not fit it.
    pub fn advance(&mut self, config: &Config, device: &Rc<Device>, memory: &mut Memory) -> Result<Activity, TrainError> {
        if self.compilation.next().is_some() {
            return Ok(Activity::of(self.compilation.proceed(device)));
        }
        let Some(step) = &mut self.step else {
            let recorded = recording::routes(config, device.capabilities);
            self.found.experts = vec![Vec::new(); recorded.experts.len()];
            self.step = Some(LogitsStep::of_experts(device, memory, recorded, PlanOptions::default())?);
            return Ok(Activity::Busy);
        };
        let Some((download, window)) = self.pending.take() else {
            if let Some(window) = self.batches.pop() {
                self.pending = Some((step.submit(device, memory, &window.tokens, &[0])?, window));
            }
            return Ok(Activity::Busy);
        };
        let Some(experts) = step.poll_experts(device, &download)? else {
            self.pending = Some((download, window));
            return Ok(Activity::Waiting);
        };
        self.found.ids.extend(&window.tokens[..window.real]);
        self.found.domains.extend(window.domains.iter().flat_map(|domains| &domains[..window.real]));
        for (all, of_batch) in self.found.experts.iter_mut().zip(experts) {
            all.extend(&of_batch[..window.real * self.found.experts_per_token as usize]);
        }
        Ok(Activity::Busy)
    }

    /// Whether all batches are read.
    pub fn is_done(&self) -> bool {
        self.step.is_some() && self.batches.is_empty() && self.pending.is_none()
    }

    /// Blocks until the next batch can be read. Only works natively.
    ///
    /// # Errors
    /// A lost or faulty device.
    pub fn wait(&self, device: &Device) -> Result<(), TrainError> {
        self.pending.as_ref().map_or(Ok(()), |(download, _)| Ok(download.wait_ready(device)?))
    }

    /// What was found with the weights after `update`.
    pub fn found(&self, tokenizer: Option<&Tokenizer>, update: u32) -> Routed {
        let ids: BTreeSet<u32> = self.found.ids.iter().copied().collect();
        let text = |id: u32| tokenizer.map_or(String::new(), |tokenizer| tokenizer.decode(&[id]));
        Routed { update, tokens: ids.into_iter().map(|id| (id, text(id))).collect(), ..self.found.clone() }
    }
}

/// Checks that a config has routers.
///
/// # Errors
/// If it has none.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    if config.model.router_calls() == 0 { Err(Problem::new("the model has no router: no token has experts")) } else { Ok(()) }
}
