//! Consistency rules of a config. Every rule is checked; each reports the conflicting keys and how to fix them.

use super::{Config, DataKind, ScheduleOptions, TokenizerKind, sizes};
use crate::config_file::{Conflict, Loaded};
use crate::run::model::parameters::{self, OverrideFault};
use crate::run::schedule::ScheduleKind;

/// Fills in derived values, the embedded corpus and the tokenizer's vocabulary, and adds all conflicts between keys.
pub(crate) fn check(loaded: &mut Loaded<Config>) {
    if loaded.config.data.embedded {
        let before = loaded.config.clone();
        loaded.config.use_embedded_corpus();
        loaded.refuse_replaced("data.embedded", &before);
    }
    if let (Some(known), 0) = (loaded.config.data.tokenizer.known_vocabulary(), loaded.config.model.vocabulary) {
        loaded.config.model.vocabulary = known;
    }
    for problem in loaded.config.problems() {
        loaded.refuse(problem);
    }
}

impl Config {
    /// All conflicts between keys, including those of the model; empty if the run can start.
    ///
    /// ```
    /// let mut config = moelab::run::Config::default();
    /// config.model.vocabulary = 256;
    /// assert_eq!(config.problems(), []);
    /// config.model.router.top_k = 9;
    /// assert_eq!(config.problems()[0].message, "a token cannot be routed to 9 of 8 experts");
    /// ```
    pub fn problems(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        vocabulary(self, &mut found);
        found.extend(self.model.problems());
        data(self, &mut found);
        schedule(self, &mut found);
        training(self, &mut found);
        sizes::check(self, &mut found);
        overrides(self, &mut found);
        kernels(self, &mut found);
        found
    }
}

fn vocabulary(config: &Config, found: &mut Vec<Conflict>) {
    let tokenizer = &config.data.tokenizer;
    let model = config.model.vocabulary;
    match (tokenizer.known_vocabulary(), model) {
        (Some(known), stated) if stated < known => found.push(Conflict::new(
            "the vocabulary of the model is smaller than that of the tokenizer",
            &[
                ("model.vocabulary", format!("V = {stated}")),
                match tokenizer.kind {
                    TokenizerKind::Bpe => ("data.tokenizer.vocabulary", format!("has {known} tokens")),
                    _ => ("data.tokenizer.kind", format!("has {known} tokens")),
                },
            ],
            format!("set `model.vocabulary` to {known} or more, or leave it out to take the tokenizer's"),
        )),
        (None, 0) => found.push(Conflict::new(
            "the vocabulary is not known before the tokenizer's file is read",
            &[
                ("model.vocabulary", "V = 0, to be taken from the tokenizer".into()),
                ("data.tokenizer.kind", "is read when the run starts".into()),
            ],
            "set `model.vocabulary` to the file's number of tokens (49152 for SmolLM, 50257 for GPT-2)",
        )),
        _ => {}
    }
}

fn data(config: &Config, found: &mut Vec<Conflict>) {
    let (t, context) = (config.data.sequence_length, config.model.context);
    if t > context {
        found.push(Conflict::new(
            format!("sequences of {t} tokens do not fit a context of {context}"),
            &[("data.sequence_length", format!("T = {t}")), ("model.context", format!("at most {context}"))],
            format!("raise `model.context` to {t}, or shorten the sequences"),
        ));
    }
    if config.data.kind != DataKind::Language && config.data.paths.is_empty() {
        found.push(Conflict::new(
            "no data: `data.paths` is empty",
            &[("data.paths", "no path".into()), ("data.kind", "reads files".into())],
            "for example paths = [\"data/shakespeare/*.txt\"]",
        ));
    }
    if config.data.tokenizer.kind == TokenizerKind::File && config.data.tokenizer.path.is_empty() {
        found.push(Conflict::new(
            "no tokenizer: `data.tokenizer.path` is missing",
            &[("data.tokenizer.path", "no path".into()), ("data.tokenizer.kind", "reads a file".into())],
            "for example path = \"tokenizer.json\"",
        ));
    }
}

fn schedule(config: &Config, found: &mut Vec<Conflict>) {
    let schedule = config.learning_rates();
    let unit = match schedule.unit {
        super::Unit::Updates => "updates",
        super::Unit::MicroSteps => "micro-steps",
    };
    if schedule.horizon == 0 {
        found.push(Conflict::new(
            "the schedule ends before it begins",
            &[("schedule.horizon", format!("0 {unit}"))],
            "leave `schedule.horizon` out for the length of the run",
        ));
    } else if schedule.warmup > schedule.horizon {
        let (w, s) = (schedule.warmup, schedule.horizon);
        let horizon_from_run = config.schedule.horizon == ScheduleOptions::default().horizon;
        let horizon = if horizon_from_run { "train.updates" } else { "schedule.horizon" };
        found.push(Conflict::new(
            format!("the warm-up of {w} {unit} is longer than the schedule of {s}"),
            &[("schedule.warmup", format!("W = {w} {unit}")), (horizon, format!("S = {s} {unit}"))],
            "a percentage such as warmup = \"5%\" follows the length of the schedule",
        ));
    }
    if schedule.kind == ScheduleKind::Range && schedule.min_ratio == 0.0 {
        found.push(Conflict::new(
            "a learning rate of 0 cannot rise exponentially",
            &[("schedule.min_ratio", "starts at 0".into()), ("schedule.kind", "multiplies the rate in every step".into())],
            "for example schedule.min_ratio = 1e-4",
        ));
    }
}

fn training(config: &Config, found: &mut Vec<Conflict>) {
    let train = &config.train;
    if train.early_stopping.patience > 0 && train.evaluation.every == 0 {
        found.push(Conflict::new(
            "early stopping needs evaluations on the way",
            &[("train.early_stopping.patience", "counts evaluations".into()), ("train.evaluation.every", "none before the end".into())],
            "set `train.evaluation.every`, or `train.early_stopping.patience` to 0",
        ));
    }
}

fn kernels(config: &Config, found: &mut Vec<Conflict>) {
    let kernels = &config.kernels;
    let choices = [
        ("kernels.workgroups", kernels.workgroups > 0),
        ("kernels.logit_rows", kernels.logit_rows > 0),
        ("kernels.without", !kernels.without.is_empty()),
    ];
    if let Some((key, _)) = choices.into_iter().find(|(_, is_set)| *is_set && kernels.adapter.is_empty()) {
        found.push(Conflict::new(
            "kernels are chosen for no adapter",
            &[("kernels.adapter", "is empty".into()), (key, "holds for the adapter that was measured".into())],
            "`moelab tune` writes the whole table",
        ));
    }
}

fn overrides(config: &Config, found: &mut Vec<Conflict>) {
    let mut specs = parameters::parameters(&config.model);
    let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
    for (pattern, fault) in parameters::override_groups(&mut specs, &config.optimizer.overrides) {
        let key = |pattern: &str| format!("optimizer.overrides.{pattern:?}");
        match fault {
            OverrideFault::MatchesNothing => {
                let like = |name: &String| strsim::normalized_damerau_levenshtein(&pattern, name);
                let near = names.iter().max_by(|a, b| like(a).total_cmp(&like(b))).expect("every model has parameters");
                let help = format!("the nearest parameter is `{near}`; `*` stands for any characters");
                found.push(Conflict::new("an override matches no parameter", &[(&key(&pattern), "matches nothing".into())], help));
            }
            OverrideFault::NoMatrix(name) => found.push(Conflict::new(
                format!("Muon cannot take `{name}`"),
                &[(&key(&pattern), "asks for that".into())],
                "Muon takes the matrices of the blocks; embedding, head, gains and biases are AdamW's",
            )),
            OverrideFault::Contradicts(other, name) => found.push(Conflict::new(
                format!("two overrides of equal weight disagree about `{name}`"),
                &[(&key(&pattern), "one group".into()), (&key(&other), "the other".into())],
                "make one pattern more specific: the one with more literal characters wins",
            )),
        }
    }
}
