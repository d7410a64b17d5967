//! The three programs of a run: training, evaluation, logits. They share parameters by name.

use super::optimizer;
use crate::run::{
    ModelConfig,
    checkpoint::Expected,
    config::{Config, IdleExperts},
};
use crate::{
    gpu::{Capabilities, DType, Program, Role, Tensor, TensorId},
    model::transformer::{Mode, RouterState, router_states, transformer},
    ops::Graph,
};

/// One micro-batch forward and backward, and the update.
pub struct Training {
    /// The command lists.
    pub program: Program,
    /// Input, u32 `[N]`.
    pub tokens: TensorId,
    /// Input, u32 `[N]`.
    pub targets: TensorId,
    /// Input, f32 `[B]`, if states are carried: 1 for sequences whose states are reset, else 0.
    pub fresh: Option<TensorId>,
    /// Input, f32 `[1]`: the weight of the micro-batch in its update.
    pub loss_seed: TensorId,
    /// Read after each micro-batch: cross-entropy sum, targets, correct predictions `[3]`.
    pub statistics: TensorId,
    /// Read after each micro-batch, one per MoE layer: routing metrics, see `BalanceLoss::metrics`.
    pub routing: Vec<TensorId>,
    /// Read after each update: gradient norm, clip factor (0 = skipped).
    pub clip: TensorId,
    /// Read after each update: whether its result is not finite, see [`Graph::update_damage`].
    pub damage: TensorId,
}

/// One batch forward, without gradients, dropout or noise.
pub struct Evaluation {
    /// The command lists.
    pub program: Program,
    /// Input, u32 `[N]`.
    pub tokens: TensorId,
    /// Input, u32 `[N]`.
    pub targets: TensorId,
    /// As in [`Training`].
    pub statistics: TensorId,
    /// As in [`Training`].
    pub routing: Vec<TensorId>,
}

/// Sequences forward to the logits of some positions.
pub struct Logits {
    /// The command lists.
    pub program: Program,
    /// Input, u32 `[N]`.
    pub tokens: TensorId,
    /// Input, u32 `[P]`: the positions of the requested logits, indices into `tokens`.
    pub positions: TensorId,
    /// Read after each replay: logits [P, V].
    pub logits: TensorId,
    /// T.
    pub sequence_length: u32,
}

impl Training {
    /// The name and shape of every tensor of the run's checkpoints.
    pub fn expected(&self) -> Expected {
        let of = |role: Role| {
            let tensors = self.program.tensors.iter().filter(|t| t.role == role && t.dtype == DType::F32);
            tensors.map(|t| (t.name.clone(), t.shape.as_slice().iter().map(|side| *side as usize).collect())).collect()
        };
        Expected { tensors: of(Role::Parameter), optimizer: of(Role::State) }
    }
}

fn id(g: &Graph, name: &str) -> TensorId {
    g.find(name).unwrap_or_else(|| panic!("the recorded model has no {name}")).id
}

fn outputs(g: &mut Graph, tensors: &[Tensor], name: &str) -> Vec<TensorId> {
    let mut ids = Vec::new();
    for (index, t) in tensors.iter().enumerate() {
        g.output(&format!("{name}.{index}"), *t);
        ids.push(t.id);
    }
    ids
}

/// Records training.
pub fn training(config: &Config, tier: Capabilities) -> Training {
    let mut g = Graph::new(tier);
    let mode = Mode::Train { counts_assignments: config.optimizer.idle_experts == IdleExperts::Skip };
    let recorded = transformer(&mut g, &config.model, mode, config.data.batch, config.data.sequence_length);
    let loss = recorded.loss.expect("training records a loss");
    let statistics = recorded.statistics.expect("training records statistics");
    g.backward(loss);
    g.output("statistics", statistics);
    let routing = outputs(&mut g, &recorded.routing, "routing");
    let clip = optimizer::record(&mut g, config);
    for RouterState { selection_bias, counts } in router_states(&g) {
        match selection_bias {
            Some(bias) => g.selection_bias_update(bias, counts, clip, config.model.router.selection_bias_rate as f32),
            None => g.clear(counts),
        }
    }
    let (tokens, targets, loss_seed) = (id(&g, "tokens"), id(&g, "targets"), id(&g, "loss_seed"));
    let fresh = g.find("fresh").map(|t| t.id);
    let (statistics, clip, damage) = (statistics.id, clip.id, g.update_damage().id);
    Training { program: g.finish(), tokens, targets, fresh, loss_seed, statistics, routing, clip, damage }
}

/// Records evaluation.
pub fn evaluation(config: &Config, tier: Capabilities) -> Evaluation {
    let mut g = Graph::new(tier);
    let recorded = transformer(&mut g, &config.model, Mode::Evaluate, config.data.batch, config.data.sequence_length);
    let statistics = recorded.statistics.expect("evaluation records statistics");
    g.output("statistics", statistics);
    let routing = outputs(&mut g, &recorded.routing, "routing");
    let (tokens, targets) = (id(&g, "tokens"), id(&g, "targets"));
    Evaluation { program: g.finish(), tokens, targets, statistics: statistics.id, routing }
}

/// Records sampling: the logits of one position of one window as long as those trained on.
pub fn sampling(config: &Config, tier: Capabilities) -> Logits {
    logits(&config.model, tier, [1, config.data.sequence_length], 1)
}

/// Records the logits of `positions` positions of sequences of the size [B, T].
pub fn logits(model: &ModelConfig, tier: Capabilities, [sequences, sequence_length]: [u32; 2], positions: u32) -> Logits {
    let mut g = Graph::new(tier);
    let position = g.input("position", [positions], DType::U32); // [P]
    let recorded = transformer(&mut g, model, Mode::Sample { position }, sequences, sequence_length);
    let logits = recorded.logits.expect("sampling records logits");
    g.output("logits", logits);
    let tokens = id(&g, "tokens");
    Logits { program: g.finish(), tokens, positions: position.id, logits: logits.id, sequence_length }
}
