//! Builds a [`Trainer`] in short steps: each program, then the initial weights in pieces.

use std::{collections::VecDeque, ops::ControlFlow, rc::Rc};

use super::{
    engine::{EvalStep, TrainStep},
    error::TrainError,
    recording,
    trainer::Trainer,
};
use crate::{
    data::corpus::Corpus,
    gpu::{Device, Memory, PlanOptions},
    run::{
        config::Config,
        model::parameters::{ParamSpec, initial_part},
    },
};

/// Initial values that one step computes: about a millisecond.
const VALUES: u32 = 1 << 14;

/// A [`Trainer`] that is being built.
pub struct TrainerBuilder {
    config: Config,
    device: Rc<Device>,
    corpus: Corpus,
    options: PlanOptions,
    memory: Memory,
    training: Option<TrainStep>,
    evaluation: Option<EvalStep>,
    /// The parameters that lack values, and the number of values that the first of them has.
    parameters: VecDeque<ParamSpec>,
    written: u32,
}

impl TrainerBuilder {
    /// Starts to build the trainer of a run.
    pub fn new(config: Config, device: Rc<Device>, corpus: Corpus, options: PlanOptions) -> TrainerBuilder {
        let (memory, parameters) = (Memory::default(), config.parameters().into());
        TrainerBuilder { config, device, corpus, options, memory, training: None, evaluation: None, parameters, written: 0 }
    }

    /// The next step: it creates the buffers and bind groups of a program, or sets initial weights.
    ///
    /// # Errors
    /// If the model does not fit the device.
    pub fn proceed(mut self) -> Result<ControlFlow<Trainer, TrainerBuilder>, TrainError> {
        let (device, memory) = (&self.device, &mut self.memory);
        if self.training.is_none() {
            let recorded = recording::training(&self.config, recording::kernels_for(&self.config, device)?);
            self.training = Some(TrainStep::new(device, memory, recorded, self.options)?);
        } else if self.evaluation.is_none() {
            let recorded = recording::evaluation(&self.config, device.capabilities);
            self.evaluation = Some(EvalStep::new(device, memory, recorded, self.options)?);
        } else if !self.parameters.is_empty() {
            self.write_values();
        }
        Ok(match (self.training, self.evaluation) {
            (Some(training), Some(evaluation)) if self.parameters.is_empty() => {
                ControlFlow::Break(Trainer::assemble(self.config, self.device, self.corpus, self.memory, training, evaluation))
            }
            (training, evaluation) => ControlFlow::Continue(TrainerBuilder { training, evaluation, ..self }),
        })
    }

    /// Sets the next [`VALUES`] initial values.
    fn write_values(&mut self) {
        let mut room = VALUES;
        while let Some(spec) = self.parameters.front().filter(|_| room > 0) {
            let values = initial_part(spec, self.config.seed, self.written..self.written.saturating_add(room));
            self.memory.write_at(&self.device, &spec.name, 4 * u64::from(self.written), bytemuck::cast_slice(&values));
            (self.written, room) = (self.written + values.len() as u32, room - values.len() as u32);
            if u64::from(self.written) == spec.len() {
                self.parameters.pop_front();
                self.written = 0;
            }
        }
    }
}
