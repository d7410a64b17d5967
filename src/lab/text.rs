//! Texts that are generated from a run's weights: on request, and at its end.

use std::rc::Rc;

use super::publisher::Activity;
use crate::{
    data::tokenizer::Tokenizer,
    gpu::{Device, Memory},
    run::{
        Config,
        protocol::{Problem, SampleRequest},
        records::{SampleRecord, Time},
    },
    train::{
        TrainError,
        generate::{Generation, Generator, Prompt, Sampling},
    },
};

/// A text in progress.
pub(super) struct Text {
    prompt: String,
    sampling: Sampling,
    generation: Generation,
}

impl Text {
    /// Starts the text of a request, whose prompt is encoded as `prompt`.
    pub fn start(generator: &Generator, config: &Config, request: SampleRequest, prompt: Prompt) -> Text {
        let SampleRequest { prompt: text, tokens, temperature, top_p, number } = request;
        let default = &config.sample;
        let sampling = Sampling { temperature: temperature.unwrap_or(default.temperature), top_p: top_p.unwrap_or(default.top_p) };
        let tokens = tokens.unwrap_or(default.tokens) as usize;
        Text { prompt: text, sampling, generation: generator.start(prompt.tokens, tokens, sampling, number) }
    }

    /// Submits the next token's forward, or samples the token. Never blocks.
    ///
    /// # Errors
    /// A lost or faulty device.
    pub fn advance(&mut self, generator: &mut Generator, device: &Rc<Device>, memory: &mut Memory) -> Result<Activity, TrainError> {
        let before = self.generation.tokens.len();
        generator.advance(device, memory, &mut self.generation)?;
        let has_new = self.is_done() || self.generation.tokens.len() > before;
        Ok(if has_new { Activity::Busy } else { Activity::Waiting })
    }

    /// Whether it is complete.
    pub fn is_done(&self) -> bool {
        self.generation.is_done()
    }

    /// Blocks until the next token can be sampled. Only works natively.
    ///
    /// # Errors
    /// A lost or faulty device.
    pub fn wait(&self, device: &Device) -> Result<(), TrainError> {
        self.generation.wait(device)
    }

    /// Prompt and text so far, from the weights after `update`.
    pub fn record(&self, tokenizer: &Tokenizer, update: u32, time: Time) -> SampleRecord {
        SampleRecord {
            update,
            prompt: self.prompt.clone(),
            text: tokenizer.decode(self.generation.continuation()),
            temperature: self.sampling.temperature,
            top_p: self.sampling.top_p,
            time,
        }
    }
}

/// Checks a request, and encodes its prompt.
///
/// # Errors
/// Values outside their limits, a prompt with parts for which there are no ids, or a run without a tokenizer.
pub(super) fn prompt(config: &Config, tokenizer: Option<&Tokenizer>, request: &SampleRequest) -> Result<Prompt, Problem> {
    let Some(tokenizer) = tokenizer else {
        return Err(Problem::new("the run's data have no tokenizer, which is needed to encode and decode text"));
    };
    let problems: Vec<String> = request.problems().iter().map(|(field, problem)| format!("{field}: {problem}")).collect();
    if !problems.is_empty() {
        return Err(Problem::new(problems.join("; ")));
    }
    let unknown = |error| Problem { place: Some("prompt".into()), ..Problem::new(format!("prompt: {error}")) };
    Prompt::new(config, tokenizer, &request.prompt).map_err(unknown)
}
