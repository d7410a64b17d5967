//! A custom model from ops, and its gradient compared with central differences.
//!
//! `cargo run --example own_model`
//!
//! A model is a function that records ops on a [`Graph`], once. `backward` appends the gradients; the program is compiled to a plan, and
//! each step replays it. Tensors that outlive a step (parameters and their gradients) are in a [`Memory`], by name.

use moelab::{
    choices::Activation,
    gpu::{AdapterChoice, DType, Device, GpuError, Memory, Plan, PlanOptions, Segment, Step, TensorId},
    ops::Graph,
};

/// Tokens.
const N: u32 = 8;
/// Width of a token.
const D: u32 = 16;
/// Hidden width.
const F: u32 = 32;
/// Vocabulary.
const V: u32 = 24;

/// A compiled model with its parameters and one batch.
struct Model {
    device: Device,
    memory: Memory,
    plan: Plan,
    loss: TensorId,
}

impl Model {
    /// Predicts targets u32 [N] from x [N, D] by an FFN of one hidden layer.
    fn new(device: Device) -> Result<Model, GpuError> {
        let mut g = Graph::new(device.capabilities);
        let x = g.input("x", [N, D], DType::F32); // [N, D]
        let targets = g.input("targets", [N], DType::U32); // [N]
        let up = g.param("up", [F, D]); // [F, D]
        let head = g.param("head", [V, F]); // [V, F]
        let hidden = g.linear(x, up); // [N, F]
        let hidden = g.activation(hidden, Activation::Gelu, 0.0); // [N, F]
        let loss = g.loss_head(hidden, head, targets, true).loss; // [1]
        g.output("loss", loss);
        g.backward(loss);
        let seed = g.loss_seed(); // [1]
        let program = g.finish();

        let mut memory = Memory::default();
        let plan = Plan::compile(&device, &program, &mut memory, PlanOptions::default())?;
        plan.write(&device, x.id, bytemuck::cast_slice(&values(N * D, 1)));
        plan.write(&device, targets.id, bytemuck::cast_slice(&(0..N).map(|n| 7 * n % V).collect::<Vec<u32>>()));
        plan.write(&device, seed.id, bytemuck::bytes_of(&1.0f32));
        memory.write(&device, "up", bytemuck::cast_slice(&values(F * D, 2)));
        memory.write(&device, "head", bytemuck::cast_slice(&values(V * F, 3)));
        Ok(Model { device, memory, plan, loss: loss.id })
    }

    /// One forward and backward pass; the loss, in nats per token.
    fn step(&mut self) -> Result<f32, GpuError> {
        let step = Step { inverse_targets: 1.0 / N as f32, ..Step::default() };
        self.plan.submit(&self.device, &mut self.memory, &step, &[Segment::ClearGradients, Segment::Micro])?;
        let parts = self.plan.download(&self.device, &[self.loss]).wait(&self.device)?;
        Ok(bytemuck::pod_read_unaligned(&parts[0]))
    }

    /// A parameter or its gradient, by name.
    fn read(&self, name: &str) -> Result<Vec<f32>, GpuError> {
        let parts = self.memory.download(&self.device, &[name.to_string()]).wait(&self.device)?;
        Ok(bytemuck::pod_collect_to_vec(&parts[0]))
    }
}

/// Numbers between -0.5 and 0.5.
fn values(count: u32, stream: u32) -> Vec<f32> {
    let stream = moelab::random::Stream { seed: 0, step: 0, stream };
    (0..count).map(|i| stream.uniform(i) - 0.5).collect()
}

/// The largest difference of the gradient from central differences, over some elements of both parameters.
fn largest_difference() -> Result<f64, GpuError> {
    let mut model = Model::new(pollster::block_on(Device::open(&AdapterChoice::Best))?)?;
    let loss = model.step()?;
    println!("{}: loss {loss:.4} nats, a uniform guess has ln {V} = {:.4}", model.device.adapter.name, f64::from(V).ln());
    let mut largest = 0.0f64;
    for name in ["up", "head"] {
        let (weights, gradient) = (model.read(name)?, model.read(&format!("d_{name}"))?);
        for element in (0..weights.len()).step_by(37) {
            let mut loss_at = |shift: f32| {
                let mut moved = weights.clone();
                moved[element] += shift;
                model.memory.write(&model.device, name, bytemuck::cast_slice(&moved));
                model.step()
            };
            let (above, below) = (loss_at(0.05)?, loss_at(-0.05)?);
            let difference = f64::from((above - below) / 0.1 - gradient[element]).abs();
            largest = largest.max(difference);
        }
        model.memory.write(&model.device, name, bytemuck::cast_slice(&weights));
    }
    Ok(largest)
}

fn main() -> Result<(), GpuError> {
    println!("the gradient differs from central differences by at most {:.1e}", largest_difference()?);
    Ok(())
}

#[test]
fn the_gradient_is_that_of_central_differences() {
    let largest = largest_difference().unwrap();
    assert!(largest < 1e-4, "{largest}");
}
