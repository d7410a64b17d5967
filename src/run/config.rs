//! A run's configuration: model, data, training, optimizers, schedule; every key, its default and its range.
//!
//! [`load`] reads TOML through the caller's reader, with `extends` and `--set key=value`, and gives a [`Config`] that holds
//! together or every problem at once. [`Config::to_effective_toml`] writes it back with all defaults filled in; that file
//! loads to an equal config. Unknown keys, values out of range and keys that would have no effect are refused.
//! Defaults are the recipe of System A (exp8) on the embedded language; numbers that follow from others are methods.

mod data;
mod reduced;
pub(crate) mod rules;
mod sizes;

use std::collections::BTreeMap;

pub use crate::choices::MuonScale;
pub use data::{Data, DataKind, Invalid, LanguageOptions, SplitOptions, SplitRule, TargetRule, Tokenizer, TokenizerKind, UnknownFiles};

use super::ModelConfig;
use super::model::parameters::{self, Group, ParamSpec};
use super::model::{Carry, DepthKind};
use super::schedule::{Schedule, ScheduleOptions, Unit};
use crate::config_file::{self, Explanation, Problems, Reader, Root};
use crate::{choices, options};

options! {
    /// A run.
    pub struct Config: data {
        /// Seed of everything random: initial weights, order of the data, dropout, router noise, samples.
        seed: u64 = 42;
        /// The model.
        model: ModelConfig;
        /// What it trains on.
        data: Data;
        /// Length of the run and what happens on the way.
        train: Train;
        /// Optimizers.
        optimizer: Optimizer;
        /// Learning-rate schedule.
        schedule: ScheduleOptions;
        /// What to do about updates that are not finite.
        nan: Nan;
        /// When a loss that is finite counts as a blow-up.
        alarms: Alarms;
        /// Text sampled at the end of a run.
        sample: Sample;
    }
}

options! {
    /// Length of the run and what happens on the way.
    pub struct Train: optimisation {
        /// Optimizer updates of the whole run.
        #[class(length)]
        updates: u32 = 250 => 1..=100_000_000;
        /// Micro-batches accumulated into one update.
        #[class(data)]
        micro_batches: u32 = 4 => 1..=65_536;
        /// What the micro-batches of an update weigh where they are not equally full, as the last of an epoch may be.
        weighting: Weighting = Weighting::Token;
        /// Distance of two lines of updates in the metrics. Each is about its own update; evaluations and incidents always have a line.
        #[class(bookkeeping)]
        log_every: u32 = 1 => 1..=1_000_000;
        /// Evaluation on the validation set: cross-entropy only, without dropout and router noise.
        evaluation: Evaluation;
        /// Ends the run when the validation loss no longer improves.
        early_stopping: EarlyStopping;
        /// Checkpoints.
        checkpoint: Checkpoint;
    }
}

options! {
    /// Evaluation on the validation set.
    pub struct Evaluation: length {
        /// Distance between two evaluations; 0 for one at the end only. There is always one at the end.
        every: u32 = 10 => 0..=100_000_000;
        /// What `every` counts. Evaluations stand between updates: after the one that completes the count.
        unit: Unit = Unit::Updates;
        /// Most windows of the validation set; 0 for all of them, and for 256 of endless documents.
        windows: u32 = 0 => 0..=100_000_000;
    }
}

options! {
    /// Ends the run when the validation loss no longer improves.
    pub struct EarlyStopping: length {
        /// Evaluations without improvement after which the run ends; 0 switches it off.
        patience: u32 = 0 => 0..=1_000_000;
        /// Nats by which a loss must fall below the one that last counted as improvement to count itself. Smaller gains add up.
        min_delta: f64 = 0.001 => 0.0..=10.0;
    }
}

options! {
    /// Checkpoints.
    pub struct Checkpoint: bookkeeping {
        /// Updates between two checkpoints; 0 for one at the end only.
        every: u32 = 100 => 0..=100_000_000;
        /// Newest checkpoints kept.
        keep: u32 = 2 => 1..=1000;
        /// Keeps the checkpoint of the best evaluation as well.
        best: bool = true;
    }
}

options! {
    /// Optimizers.
    pub struct Optimizer: optimisation {
        /// Largest global L2 norm of the gradient over all parameters; larger ones are scaled down to it. 0 switches it off.
        clip_norm: f64 = 1.0 => 0.0..=1e6;
        /// What an update does to an expert that no token of its micro-batches was sent to; calls of a recursive model that
        /// pass no gradient back send tokens, too.
        #[when("model.ffn.kind" = "moe")]
        idle_experts: IdleExperts = IdleExperts::ZeroGradient;
        /// AdamW.
        adamw: AdamW;
        /// Muon.
        muon: Muon;
        /// Optimizer by parameter name, for example "*.router.weight" = "adamw"; `*` stands for any characters, the most
        /// specific pattern wins. Without overrides Muon takes the matrices of the blocks, AdamW everything else.
        #[class(model)]
        overrides: BTreeMap<String, Group>;
    }
}

options! {
    /// AdamW with decoupled weight decay.
    pub struct AdamW: optimisation {
        /// Learning rate at the schedule's peak.
        lr: f64 = 0.001 => 0.0..=10.0;
        /// Decay of the first moment.
        beta1: f64 = 0.9 => 0.0..=0.999_999;
        /// Decay of the second moment.
        beta2: f64 = 0.999 => 0.0..=0.999_999_9;
        /// Added to the root of the second moment.
        eps: f64 = 1e-8 => 1e-20..=0.1;
        /// Share of a weight, times the learning rate, that an update takes away.
        weight_decay: f64 = 0.1 => 0.0..=100.0;
        /// Decays gains and biases too, not only embedding and matrices.
        decay_gains: bool = true;
    }
}

options! {
    /// Muon: Nesterov momentum whose matrices are orthogonalised by five Newton-Schulz iterations.
    pub struct Muon: optimisation {
        /// Learning rate at the schedule's peak.
        lr: f64 = 0.01 => 0.0..=10.0;
        /// Decay of the momentum.
        momentum: f64 = 0.95 => 0.0..=0.999_999;
        /// Factor on a matrix's step by its shape.
        scale: MuonScale = MuonScale::MaxOneRowsOverCols;
        /// Share of a weight, times the learning rate, that an update takes away.
        weight_decay: f64 = 0.0 => 0.0..=100.0;
    }
}

choices! {
    /// What the micro-batches of an update weigh.
    pub enum Weighting {
        /// Every target alike: the loss of an update is the mean over all its targets, however they are divided into micro-batches.
        Token = "token",
        /// Every micro-batch alike: the mean of the micro-batches' means, as trainers have it that divide each loss by the number
        /// of micro-batches. A target in a micro-batch of one sequence then weighs as much as B targets in a full one.
        MicroBatch = "micro_batch",
    }
}

choices! {
    /// What an update does to an expert without tokens.
    pub enum IdleExperts {
        /// Leaves weights, moments and their count of updates as they are, as PyTorch does where a gradient is None.
        Skip = "skip",
        /// Takes its gradient as zero: moments decay, and momentum and weight decay still move the weights.
        ZeroGradient = "zero_gradient",
    }
}

options! {
    /// Updates whose gradient is not finite are always skipped: parameters and moments stay as they were, the skip is counted.
    /// After an update whose result is not finite, though its gradient was, the run goes back at once.
    pub struct Nan: optimisation {
        /// Skips in a row after which the run goes back to its last good checkpoint; 0 for never.
        roll_back_after: u32 = 10 => 0..=100_000;
        /// Times that it goes back before the run ends as diverged.
        stop_after: u32 = 3 => 0..=1000;
    }
}

options! {
    /// When a finite loss counts as a blow-up: an incident, a warning and the first sentence of the report. The run goes on.
    pub struct Alarms: bookkeeping {
        /// Updates in a row whose training loss must be too high; 0 switches all alarms off.
        window: u32 = 20 => 0..=10_000;
        /// Times the loss of a uniform guess (ln V) that a training or validation loss may be after the warm-up; 0 for no limit.
        above_uniform: f64 = 1.1 => 0.0..=1e6;
        /// Times the lowest running perplexity of training that its perplexity may be; 0 for no limit.
        perplexity_rise: f64 = 3.0 => 0.0..=1e9;
    }
}

options! {
    /// Text sampled at the end of a run.
    pub struct Sample: bookkeeping {
        /// One sample for each; an empty text starts a document. The model sees the last `data.sequence_length` tokens.
        prompts: Vec<String> = vec![String::new()];
        /// Tokens of a sample.
        tokens: u32 = 128 => 0..=65_536;
        /// Divides the logits; 0 always takes the likeliest token, whatever `top_p` is.
        temperature: f64 = 0.8 => 0.0..=100.0;
        /// Draws from the fewest likeliest tokens, at least one, that together have this probability.
        top_p: f64 = 0.95 => 0.0..=1.0;
    }
}

impl Root for Config {
    /// What other trainers call these options.
    const SYNONYMS: &'static [(&'static str, &'static [&'static str])] = &[
        ("accumulation", &["train.micro_batches"]),
        ("accumulation_steps", &["train.micro_batches"]),
        ("adamw_lr", &["optimizer.adamw.lr"]),
        ("aux_coefficient", &["model.balance.coefficient"]),
        ("aux_loss_weight", &["model.balance.coefficient"]),
        ("batch_size", &["data.batch"]),
        ("betas", &["optimizer.adamw.beta1", "optimizer.adamw.beta2"]),
        ("block_size", &["data.sequence_length"]),
        ("d_ff", &["model.ffn.width"]),
        ("d_model", &["model.width"]),
        ("eval_every", &["train.evaluation.every"]),
        ("grad_clip", &["optimizer.clip_norm"]),
        ("gradient_accumulation_steps", &["train.micro_batches"]),
        ("hidden_size", &["model.width"]),
        ("learning_rate", &["optimizer.muon.lr", "optimizer.adamw.lr"]),
        ("load_balancing_weight", &["model.balance.coefficient"]),
        ("lr", &["optimizer.muon.lr", "optimizer.adamw.lr"]),
        ("max_seq_len", &["model.context"]),
        ("max_steps", &["train.updates"]),
        ("muon_lr", &["optimizer.muon.lr"]),
        ("n_embd", &["model.width"]),
        ("n_head", &["model.attention.heads"]),
        ("n_heads", &["model.attention.heads"]),
        ("n_layer", &["model.depth.layers"]),
        ("n_layers", &["model.depth.layers"]),
        ("num_experts", &["model.router.experts"]),
        ("rope_theta", &["model.positions.base"]),
        ("seq_len", &["data.sequence_length"]),
        ("steps", &["train.updates"]),
        ("tie_embeddings", &["model.head.tied"]),
        ("vocab_size", &["model.vocabulary"]),
        ("warmup_ratio", &["schedule.warmup"]),
        ("warmup_steps", &["schedule.warmup"]),
    ];
}

/// Reads and checks the config at `path`, with `sets` (each `key=value`) over it.
///
/// `sources` gives the text of a path or the reason why not; it should itself refuse to read more than
/// [`MAX_BYTES`](crate::config_file::MAX_BYTES). The error holds every problem, each with its place, and prints them.
pub fn load(sources: Reader, path: &str, sets: &[String]) -> Result<Config, Problems> {
    let mut loaded = config_file::load::<Config>(sources, path, sets);
    rules::check(&mut loaded);
    loaded.finish()
}

/// Every key with its doc, allowed values, default and when it applies.
pub fn explain() -> Vec<Explanation> {
    config_file::explain::<Config>()
}

impl Config {
    /// The config as TOML with every default filled in; loads to an equal config.
    pub fn to_effective_toml(&self) -> String {
        config_file::effective_toml(self)
    }

    /// SHA-256 of the effective config.
    pub fn hash(&self) -> String {
        crate::run::digest::sha256_hex(self.to_effective_toml().as_bytes())
    }

    /// The learning-rate schedule with its numbers worked out.
    pub fn learning_rates(&self) -> Schedule {
        Schedule::new(&self.schedule, self.train.updates, self.train.micro_batches)
    }

    /// The parameter tree, each parameter in its optimizer group.
    pub fn parameters(&self) -> Vec<ParamSpec> {
        let mut specs = parameters::parameters(&self.model);
        parameters::override_groups(&mut specs, &self.optimizer.overrides);
        specs
    }

    /// Tokens in a micro-batch, N = B * T.
    pub fn tokens_per_micro_batch(&self) -> u32 {
        self.data.batch * self.data.sequence_length
    }

    /// Tokens in an update.
    pub fn tokens_per_update(&self) -> u64 {
        u64::from(self.tokens_per_micro_batch()) * u64::from(self.train.micro_batches)
    }

    /// The batch that a micro-step trains on; states that are carried over the same data see it again.
    pub fn batch_of(&self, micro_step: u64) -> u64 {
        match (self.model.depth.kind, self.model.depth.recursion.carry) {
            (DepthKind::Recursive, Carry::SameData) => micro_step / u64::from(self.model.depth.recursion.halt_after),
            _ => micro_step,
        }
    }

    /// Whether carried states start anew in this micro-step.
    pub fn states_start_anew(&self, micro_step: u64) -> bool {
        micro_step.is_multiple_of(u64::from(self.model.depth.recursion.halt_after))
    }

    /// Whether an evaluation is due after the update that makes `updates_done` of them. The one at the end always is.
    pub fn evaluation_due(&self, updates_done: u32) -> bool {
        let Evaluation { every, unit, .. } = self.train.evaluation;
        if updates_done == self.train.updates || every == 0 {
            return updates_done == self.train.updates;
        }
        let per_update = match unit {
            Unit::Updates => 1,
            Unit::MicroSteps => u64::from(self.train.micro_batches),
        };
        let counted = |updates: u32| u64::from(updates) * per_update / u64::from(every);
        counted(updates_done) > counted(updates_done.saturating_sub(1))
    }
}
