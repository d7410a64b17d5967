//! A run's configuration: model, data, training, optimizers, schedule; every key, its default and its range.
//!
//! [`load`] reads TOML through the caller's reader, with `extends` and `--set key=value`, and returns either a consistent
//! [`Config`] or all problems at once. [`Config::to_effective_toml`] writes it with all defaults filled in; that file
//! loads to an equal config. Unknown keys, values out of range and keys that would have no effect are refused.
//! Defaults are the recipe of System A (exp8) on the embedded language; derived numbers are methods.

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
    /// The configuration of a run.
    pub struct Config: data {
        /// Seed of all randomness: initial weights, data order, dropout, router noise, samples.
        seed: u64 = 42;
        /// The model.
        model: ModelConfig;
        /// The training data.
        data: Data;
        /// Length of the run, evaluation and checkpoints.
        train: Train;
        /// Optimizers.
        optimizer: Optimizer;
        /// Learning-rate schedule.
        schedule: ScheduleOptions;
        /// Handling of non-finite updates.
        nan: Nan;
        /// When a finite loss counts as a blow-up.
        alarms: Alarms;
        /// Text sampled at the end of a run.
        sample: Sample;
        /// Kernels chosen by measurement, for one adapter.
        kernels: Kernels;
    }
}

options! {
    /// Length of the run, evaluation and checkpoints.
    pub struct Train: optimisation {
        /// Number of optimizer updates in the run.
        #[class(length)]
        updates: u32 = 250 => 1..=100_000_000;
        /// Micro-batches accumulated per update.
        #[class(data)]
        micro_batches: u32 = 4 => 1..=65_536;
        /// Weights of the micro-batches of an update if they are not equally full, as the last one of an epoch may be.
        weighting: Weighting = Weighting::Token;
        /// Precision of the operands of matrix products in training; sums, weights, moments and evaluations are f32 in any case.
        precision: Precision = Precision::F32;
        /// Updates per line of metrics. A line describes its own update only; evaluations and incidents are always logged.
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
    /// Kernels chosen by measurement, for one adapter: `moelab tune` writes this table. Training on another adapter, with another driver or
    /// in a release with other shaders takes the fixed choice, and says so; evaluations always take it. Results differ only by rounding.
    pub struct Kernels: bookkeeping {
        /// Name of the adapter that was measured; empty for the fixed choice on every adapter.
        adapter: String = String::new();
        /// Its driver and version.
        driver: String = String::new();
        /// Hash of the shaders that were measured.
        shaders: String = String::new();
        /// Workgroups of a launch that keep the adapter busy: matrix products with fewer sum in parts. 0 for the fixed number.
        workgroups: u32 = 0 => 0..=1_048_576;
        /// Rows of logits that the loss head computes at a time. 0 for as many as 96 MiB hold.
        logit_rows: u32 = 0 => 0..=1_048_576;
        /// Kernels to do without, by the names of their modules; others take their place.
        without: Vec<String>;
    }
}

options! {
    /// Evaluation on the validation set.
    pub struct Evaluation: length {
        /// Interval between evaluations; 0 for only one at the end. There is always one at the end.
        every: u32 = 10 => 0..=100_000_000;
        /// Unit of `every`. An evaluation runs after the update that completes the count.
        unit: Unit = Unit::Updates;
        /// Maximum number of validation windows; 0 for all, or for 256 if the documents are endless.
        windows: u32 = 0 => 0..=100_000_000;
    }
}

options! {
    /// Ends the run when the validation loss no longer improves.
    pub struct EarlyStopping: length {
        /// Evaluations without improvement after which the run ends; 0 disables early stopping.
        patience: u32 = 0 => 0..=1_000_000;
        /// Minimum improvement in nats, relative to the last loss that counted as an improvement. Smaller gains accumulate.
        min_delta: f64 = 0.001 => 0.0..=10.0;
    }
}

options! {
    /// Checkpoints.
    pub struct Checkpoint: bookkeeping {
        /// Updates between checkpoints; 0 for only one at the end.
        every: u32 = 100 => 0..=100_000_000;
        /// Number of newest checkpoints to keep.
        keep: u32 = 2 => 1..=1000;
        /// Also keeps the checkpoint of the best evaluation.
        best: bool = true;
    }
}

options! {
    /// Optimizers.
    pub struct Optimizer: optimisation {
        /// Maximum global L2 norm of the gradient over all parameters; larger gradients are scaled down to it. 0 disables clipping.
        clip_norm: f64 = 1.0 => 0.0..=1e6;
        /// How an update treats an expert to which none of its micro-batches routed a token; tokens routed in calls of a recursive
        /// model without gradient count as well.
        #[when("model.ffn.kind" = "moe")]
        idle_experts: IdleExperts = IdleExperts::ZeroGradient;
        /// AdamW.
        adamw: AdamW;
        /// Muon.
        muon: Muon;
        /// Optimizer by parameter name, for example "*.router.weight" = "adamw"; `*` matches any characters, and the most
        /// specific pattern wins. By default Muon updates the matrices of the blocks, and AdamW everything else.
        #[class(model)]
        overrides: BTreeMap<String, Group>;
    }
}

options! {
    /// AdamW with decoupled weight decay.
    pub struct AdamW: optimisation {
        /// Peak learning rate.
        lr: f64 = 0.001 => 0.0..=10.0;
        /// Decay rate of the first moment.
        beta1: f64 = 0.9 => 0.0..=0.999_999;
        /// Decay rate of the second moment.
        beta2: f64 = 0.999 => 0.0..=0.999_999_9;
        /// Added to the square root of the second moment.
        eps: f64 = 1e-8 => 1e-20..=0.1;
        /// Weight decay: each update subtracts this share of the weight, times the learning rate.
        weight_decay: f64 = 0.1 => 0.0..=100.0;
        /// Also applies weight decay to gains and biases, not only to embeddings and matrices.
        decay_gains: bool = true;
    }
}

options! {
    /// Muon: Nesterov momentum, orthogonalised by five Newton-Schulz iterations.
    pub struct Muon: optimisation {
        /// Peak learning rate.
        lr: f64 = 0.01 => 0.0..=10.0;
        /// Decay rate of the momentum.
        momentum: f64 = 0.95 => 0.0..=0.999_999;
        /// Scale of the update by the shape of the matrix.
        scale: MuonScale = MuonScale::MaxOneRowsOverCols;
        /// Weight decay: each update subtracts this share of the weight, times the learning rate.
        weight_decay: f64 = 0.0 => 0.0..=100.0;
    }
}

choices! {
    /// Weights of the micro-batches of an update.
    pub enum Weighting {
        /// Every target equally: the loss of an update is the mean over all its targets, however they are divided into micro-batches.
        Token = "token",
        /// Every micro-batch equally: the mean of the micro-batches' means, as in trainers that divide each loss by the number
        /// of micro-batches. A target in a micro-batch of one sequence then has the weight of B targets in a full one.
        MicroBatch = "micro_batch",
    }
}

choices! {
    /// Precision of the operands of matrix products.
    pub enum Precision {
        /// f32, on every adapter.
        F32 = "f32",
        /// Rounded to f16, on adapters with cooperative matrices (tensor cores). Gradients are scaled to stay in its range.
        F16 = "f16",
        /// Split into two f16 each, high and low, and multiplied as three products, on the same adapters: errors as small as those of f32.
        /// Gradients are scaled as for f16.
        Split = "split",
    }
}

choices! {
    /// How an update treats an expert without tokens.
    pub enum IdleExperts {
        /// Leaves weights, moments and their update count unchanged, as PyTorch does if a gradient is None.
        Skip = "skip",
        /// Treats its gradient as zero: moments decay, and momentum and weight decay still change the weights.
        ZeroGradient = "zero_gradient",
    }
}

options! {
    /// Updates with a non-finite gradient are always skipped: parameters and moments keep their values, and the skip is counted.
    /// If an update with a finite gradient has a non-finite result, the run rolls back at once.
    pub struct Nan: optimisation {
        /// Consecutive skips after which the run rolls back to its last good checkpoint; 0 for never.
        roll_back_after: u32 = 10 => 0..=100_000;
        /// Maximum number of roll-backs; after that the run ends as diverged.
        stop_after: u32 = 3 => 0..=1000;
    }
}

options! {
    /// When a finite loss counts as a blow-up, and a router as failing, which is logged as an incident, warned about and reported. The run
    /// continues.
    pub struct Alarms: bookkeeping {
        /// Consecutive updates after which a training loss that is too high, or a router that fails, raises an alarm; 0 disables all alarms.
        window: u32 = 20 => 0..=10_000;
        /// Maximum training or validation loss after the warm-up, as a multiple of the uniform baseline ln V; 0 for no limit.
        above_uniform: f64 = 1.1 => 0.0..=1e6;
        /// Maximum training perplexity, as a multiple of its lowest running value; 0 for no limit.
        perplexity_rise: f64 = 3.0 => 0.0..=1e9;
        /// Minimum spread of a layer's load, (exp(entropy of the load) - K) / (E - K), which is 0 if all tokens go to the same K experts and
        /// 1 at balance; below it the router has collapsed. 0 for no limit.
        #[when("model.ffn.kind" = "moe")]
        collapsed_spread: f64 = 0.1 => 0.0..=1.0;
        /// Whether experts without tokens raise an alarm.
        #[when("model.ffn.kind" = "moe")]
        dead_experts: bool = true;
        /// Minimum load of an expert, as a multiple of the mean load; below it the expert is starved. 0 for no limit.
        #[when("model.ffn.kind" = "moe")]
        starved_load: f64 = 0.1 => 0.0..=1.0;
    }
}

options! {
    /// Text sampled at the end of a run.
    pub struct Sample: bookkeeping {
        /// Prompts, with one sample each; an empty prompt starts a document. The model sees the last `data.sequence_length` tokens.
        prompts: Vec<String> = vec![String::new()];
        /// Tokens per sample.
        tokens: u32 = 128 => 0..=65_536;
        /// Sampling temperature, which divides the logits; 0 always picks the most likely token, regardless of `top_p`.
        temperature: f64 = 0.8 => 0.0..=100.0;
        /// Nucleus sampling: samples from the fewest most likely tokens, at least one, whose total probability reaches this value.
        top_p: f64 = 0.95 => 0.0..=1.0;
    }
}

impl Root for Config {
    /// Names of these options in other trainers.
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
/// `sources` returns the text at a path or the reason why it cannot be read; it should refuse to read more than
/// [`MAX_BYTES`](crate::config_file::MAX_BYTES). The error contains every problem, each with its place, and prints them.
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

    /// The learning-rate schedule with its numbers resolved.
    pub fn learning_rates(&self) -> Schedule {
        Schedule::new(&self.schedule, self.train.updates, self.train.micro_batches)
    }

    /// The parameter tree, each parameter with its optimizer group.
    pub fn parameters(&self) -> Vec<ParamSpec> {
        let mut specs = parameters::parameters(&self.model);
        parameters::override_groups(&mut specs, &self.optimizer.overrides);
        specs
    }

    /// Tokens per micro-batch, N = B * T.
    pub fn tokens_per_micro_batch(&self) -> u32 {
        self.data.batch * self.data.sequence_length
    }

    /// e, where gradients are computed 2^e times too large, so that f16 does not round them to zero: those of the logits of a mean over
    /// N tokens are at most 1 / N. 0 with f32 operands.
    pub fn loss_scale_exponent(&self) -> u32 {
        match self.train.precision {
            Precision::F32 => 0,
            Precision::F16 | Precision::Split => self.tokens_per_micro_batch().ilog2(),
        }
    }

    /// Tokens per update.
    pub fn tokens_per_update(&self) -> u64 {
        u64::from(self.tokens_per_micro_batch()) * u64::from(self.train.micro_batches)
    }

    /// The batch that a micro-step trains on; with states carried over the same data, batches repeat.
    pub fn batch_of(&self, micro_step: u64) -> u64 {
        match (self.model.depth.kind, self.model.depth.recursion.carry) {
            (DepthKind::Recursive, Carry::SameData) => micro_step / u64::from(self.model.depth.recursion.halt_after),
            _ => micro_step,
        }
    }

    /// Whether carried states are reset in this micro-step.
    pub fn states_start_anew(&self, micro_step: u64) -> bool {
        micro_step.is_multiple_of(u64::from(self.model.depth.recursion.halt_after))
    }

    /// Whether an evaluation is due after `updates_done` updates. One is always due at the end.
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
