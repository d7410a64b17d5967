//! The memory that a run needs on its adapter.

use crate::{
    gpu::{
        Capabilities, Program, Role,
        memory::{SlotPool, plan_memory},
        representation::image_bytes,
    },
    run::Config,
    train::recording,
};

/// Sizes in bytes of the buffers and images that a run creates on its adapter.
#[derive(Clone, Debug)]
pub struct Footprint {
    /// Weights.
    pub parameters: u64,
    /// Their gradients.
    pub gradients: u64,
    /// State of the optimizers, and states carried between micro-batches.
    pub moments: u64,
    /// Activations of training.
    pub activations: u64,
    /// Activations of evaluation that do not fit into the storage of training's.
    pub evaluation: u64,
    /// Images of what kernels read, where reading images is faster.
    pub images: u64,
    /// Inputs, outputs and constants.
    pub inputs: u64,
    /// The largest tensor.
    pub largest_tensor: u64,
    /// Its name.
    pub largest_name: String,
    /// Its role.
    pub largest_role: Role,
}

impl Footprint {
    /// The buffers and images of a run of `config` with the kernels of `tier`.
    pub fn of(config: &Config, tier: Capabilities) -> Footprint {
        let program = recording::training(config, tier).program;
        let evaluation = recording::evaluation(config, tier).program;
        let sum =
            |program: &Program, roles: &[Role]| program.tensors.iter().filter(|t| roles.contains(&t.role)).map(|t| t.bytes()).sum::<u64>();
        let mut pool = SlotPool::default();
        pool.take(&program, &plan_memory(&program, true));
        let activations = pool.total_bytes();
        pool.take(&evaluation, &plan_memory(&evaluation, true));
        let inputs = [Role::Input, Role::Output, Role::Constant];
        let largest = program.tensors.iter().max_by_key(|t| t.bytes()).expect("a model has tensors");
        Footprint {
            parameters: sum(&program, &[Role::Parameter]),
            gradients: sum(&program, &[Role::ParameterGradient]),
            moments: sum(&program, &[Role::State]),
            activations,
            evaluation: pool.total_bytes() - activations,
            images: image_bytes(&[&program, &evaluation]),
            inputs: sum(&program, &inputs) + sum(&evaluation, &inputs),
            largest_tensor: largest.bytes(),
            largest_name: largest.name.clone(),
            largest_role: largest.role,
        }
    }

    /// Bytes by purpose.
    pub fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimizer", self.moments),
            ("activations", self.activations),
            ("evaluation", self.evaluation),
            ("images", self.images),
            ("inputs", self.inputs),
        ]
    }

    /// All buffers and images.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}
