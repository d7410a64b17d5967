//! Any config on the embedded corpus, and at a reduced size that trains on any machine in seconds: the same axes, smaller numbers.

use super::{Config, Data, DataKind, Tokenizer};
use crate::config_file::Amount;
use crate::run::model::{AttentionKind, FfnKind};

impl Config {
    /// Replaces the corpus and the tokenizer by the embedded language, one token per byte.
    pub(super) fn use_embedded_corpus(&mut self) {
        let Data { sequence_length, batch, targets, .. } = self.data;
        self.data = Data { embedded: true, sequence_length, batch, targets, ..Data::default() };
        self.data.kind = DataKind::Language;
        self.data.tokenizer = Tokenizer::default();
        self.model.vocabulary = 256;
    }

    /// The same model, optimizers and schedules at a reduced size, for ten updates on the embedded corpus: every axis
    /// stays the same, only widths and counts shrink. Percentages scale with them; counts of updates are limited to the run.
    pub fn reduced(mut self) -> Config {
        self.use_embedded_corpus();
        let model = &mut self.model;
        let least = |value: &mut u32, most: u32| *value = (*value).min(most);
        model.width = 64;
        least(&mut model.context, 64);
        least(&mut model.depth.layers, 2);
        let recursion = &mut model.depth.recursion;
        least(&mut recursion.high_cycles, 2);
        least(&mut recursion.low_cycles, 2);
        model.attention.heads = [1, 1, 2, 2, 4][model.attention.heads.min(4) as usize];
        model.attention.kv_heads = model.attention.kv_heads.min(2).min(model.attention.heads);
        model.attention.head_width = 0;
        if model.attention.kind == AttentionKind::Latent {
            let latent = &mut model.attention.latent;
            for width in
                [&mut latent.query_rank, &mut latent.kv_rank, &mut latent.nope_width, &mut latent.rope_width, &mut latent.value_width]
            {
                least(width, 16);
            }
        }
        least(&mut model.ffn.width, 64);
        least(&mut model.ffn.dense_width, 96);
        if model.ffn.kind == FfnKind::Moe {
            least(&mut model.ffn.dense_layers, model.depth.layers - 1);
            let router = &mut model.router;
            let grouped = router.groups > 1;
            router.experts = if grouped { 2 * router.groups } else { router.experts.min(8) };
            let most = if grouped { 2 * router.kept_groups } else { router.experts };
            least(&mut router.top_k, most);
        }
        least(&mut self.data.sequence_length, 64);
        least(&mut self.data.batch, 2);
        self.train.updates = 10;
        least(&mut self.train.micro_batches, 2);
        self.train.evaluation.windows = 8;
        least(&mut self.train.evaluation.every, 5);
        self.train.checkpoint.every = 0;
        self.sample.tokens = self.sample.tokens.min(16);
        for amount in [&mut self.schedule.warmup, &mut self.schedule.decay, &mut self.model.balance.schedule.hold] {
            if let Amount::Count(count) = amount {
                *count = (*count).min(2);
            }
        }
        self
    }
}
