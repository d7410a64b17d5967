//! Evaluating the whole validation set, with a few batches in flight.

use std::collections::VecDeque;

use super::{engine::EvalStep, reduce::EvalSums, trainer::IN_FLIGHT};
use crate::{
    data::{corpus::Corpus, dataset::Batch},
    gpu::{Device, Download, GpuError, Memory},
    run::{config::Config, records::EvalRecord},
};

/// An evaluation in progress.
#[derive(Default)]
pub(crate) struct ValidationPass {
    /// The batch to be submitted next.
    next: usize,
    sums: EvalSums,
    /// The batches in flight, each with the divisor of its routing: the whole set's real tokens over its own.
    pending: VecDeque<(Download, f64)>,
}

impl ValidationPass {
    /// Collects completed batches and submits the next ones. Returns the record once all are complete, for the caller to set update and
    /// time. Never blocks.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn advance(
        &mut self,
        step: &mut EvalStep,
        device: &Device,
        memory: &mut Memory,
        corpus: &Corpus,
        config: &Config,
    ) -> Result<Option<EvalRecord>, GpuError> {
        let batches = corpus.validation_batches();
        let sequence_length = config.data.sequence_length;
        let sequences = corpus.validation_sequences(sequence_length) as f64;
        while let Some((download, divisor)) = self.pending.front() {
            let Some(outputs) = step.poll(device, download)? else { break };
            self.sums.add(&outputs, *divisor);
            self.pending.pop_front();
        }
        while self.next < batches && self.pending.len() < IN_FLIGHT {
            let batch: Batch = corpus.validation_batch(self.next);
            let real = batch.real_sequences(sequence_length);
            let domains = corpus.validation_domains(self.next);
            let download = step.submit(device, memory, &batch, real * sequence_length, domains.as_deref())?;
            self.pending.push_back((download, sequences / f64::from(real)));
            self.next += 1;
        }
        if self.next < batches || !self.pending.is_empty() {
            return Ok(None);
        }
        let mut record = EvalRecord::default();
        self.sums.write(&mut record, config);
        Ok(Some(record))
    }

    /// The batch that completes next.
    pub fn oldest(&self) -> Option<&Download> {
        self.pending.front().map(|(download, _)| download)
    }
}
