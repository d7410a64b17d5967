//! The inputs of the micro-batches of an update: data, scalars, and weights.

use super::{engine::MicroBatch, reduce::MicroWeight};
use crate::{
    data::corpus::Corpus,
    gpu::Step,
    run::{
        config::{Config, Weighting},
        schedule::{Schedule, balance_coefficient},
    },
};

/// The micro-batches of one update.
pub(super) struct MicroBatches<'a> {
    config: &'a Config,
    corpus: &'a Corpus,
    schedule: &'a Schedule,
    /// Micro-batches that roll-backs skipped.
    offset: u64,
    /// Updates before this one.
    update: u32,
}

impl<'a> MicroBatches<'a> {
    pub(super) fn new(config: &'a Config, corpus: &'a Corpus, schedule: &'a Schedule, offset: u64, update: u32) -> MicroBatches<'a> {
        MicroBatches { config, corpus, schedule, offset, update }
    }

    /// The micro-step of a micro-batch of the update.
    fn micro_step(&self, index: u32) -> u64 {
        u64::from(self.update) * u64::from(self.config.train.micro_batches) + u64::from(index)
    }

    /// The batch of a micro-step.
    fn batch_of(&self, micro_step: u64) -> u64 {
        self.config.batch_of(micro_step) + self.offset
    }

    /// Number of real sequences in the batch of a micro-step.
    fn sequences_of(&self, micro_step: u64) -> u32 {
        self.corpus.training_sequences(self.batch_of(micro_step), self.config.data.sequence_length)
    }

    /// Sets the weight of each micro-batch of the update. The gradient of an update is that of the mean over all its targets, or of the
    /// mean of the micro-batches' means. All sequences have the same number of targets, so that the balance losses, means over
    /// real tokens, have the same weights.
    pub(super) fn weights(&self, weights: &mut Vec<MicroWeight>) {
        let micro_steps = || self.micro_step(0)..self.micro_step(self.config.train.micro_batches);
        let tokens_of = |m: u64| u64::from(self.sequences_of(m));
        let targets_of = |m: u64| match self.config.train.weighting {
            Weighting::Token => self.corpus.training_targets(self.batch_of(m)),
            Weighting::MicroBatch => 1,
        };
        let (tokens, targets) = (micro_steps().map(tokens_of).sum::<u64>(), micro_steps().map(targets_of).sum::<u64>());
        let share = |count: u64, all: u64| match all {
            // Without targets only the balance losses remain.
            0 => 1.0 / f64::from(self.config.train.micro_batches),
            _ => count as f64 / all as f64,
        };
        let weight = |m: u64| MicroWeight { of_losses: share(targets_of(m), targets), of_tokens: share(tokens_of(m), tokens) };
        weights.clear();
        weights.extend(micro_steps().map(weight));
    }

    /// Sets the inputs of a micro-batch.
    pub(super) fn fill(&self, index: u32, weight: &MicroWeight, inputs: &mut MicroBatch) {
        let micro_step = self.micro_step(index);
        self.corpus.fill_training_batch(self.batch_of(micro_step), &mut inputs.batch);
        inputs.loss_seed = weight.of_losses as f32;
        inputs.loss_seed *= (1_u64 << self.config.loss_scale_exponent()) as f32;
        // All states are reset if the config requires it; otherwise those whose row was padding in the previous micro-batch, whose
        // states belong to no text.
        let kept = if self.config.states_start_anew(micro_step) { 0 } else { self.sequences_of(micro_step - 1) };
        inputs.fresh.clear();
        inputs.fresh.extend((0..self.config.data.batch).map(|row| f32::from(u8::from(row >= kept))));
        inputs.step = self.step(micro_step, inputs);
    }

    fn step(&self, micro_step: u64, inputs: &MicroBatch) -> Step {
        let (config, batch) = (self.config, &inputs.batch);
        let multiplier = self.schedule.at_update(self.update);
        Step {
            seed_low: config.seed as u32,
            seed_high: (config.seed >> 32) as u32,
            update: self.update,
            micro_step: micro_step as u32,
            lr_adamw: (config.optimizer.adamw.lr * multiplier) as f32,
            lr_muon: (config.optimizer.muon.lr * multiplier) as f32,
            balance_coefficient: (balance_coefficient(&config.model.balance, self.update, config.train.updates)
                * config.model.balance_share()) as f32,
            z_coefficient: config.model.balance.z_coefficient as f32,
            clip_norm: config.optimizer.clip_norm as f32,
            inverse_targets: 1.0 / batch.target_count().max(1) as f32,
            loss_scale_exponent: config.loss_scale_exponent(),
            real_tokens: batch.real_sequences(config.data.sequence_length) * config.data.sequence_length,
        }
    }
}
