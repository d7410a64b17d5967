//! The three programs of a run: training, evaluation, logits. They share parameters by name.

use super::{optimizer, tuning};
use crate::run::{
    ModelConfig,
    checkpoint::Expected,
    config::{Config, DataKind, IdleExperts, Precision},
};
use crate::{
    gpu::{Capabilities, DType, Device, GpuError, Program, Role, Tensor, TensorId},
    model::transformer::{Mode, RouterCall, RouterState, router_states, transformer},
    ops::{Graph, kernels::MODULES, self_test},
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
    /// Read after each micro-batch, one per router call: routing metrics, see `BalanceLoss::metrics`.
    pub routing: Vec<TensorId>,
    /// Read after each update, the gradient norms of the routers; `None` without routers.
    pub router_norms: Option<RouterNorms>,
    /// Read after each update: gradient norm, clip factor (0 = skipped).
    pub clip: TensorId,
    /// Read after each update: whether its result is not finite, see [`Graph::update_damage`].
    pub damage: TensorId,
}

/// The gradient norms of the routers, each once.
#[derive(Clone, Debug)]
pub struct RouterNorms {
    /// See [`Graph::gradient_norms`].
    pub norms: TensorId,
    /// The router of each call, an index into the norms.
    pub router_of: Vec<usize>,
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
    /// Input, u32 `[N]`: the domain of each token, if the domains are known.
    pub domains: Option<TensorId>,
    /// Read after the batch if the domains are known, one per router call: assignments by domain and expert, see
    /// [`Graph::domain_counts`].
    pub domain_counts: Vec<TensorId>,
}

/// Sequences forward to the logits of some positions, and the experts of every token.
pub struct Logits {
    /// The command lists.
    pub program: Program,
    /// Input, u32 `[N]`.
    pub tokens: TensorId,
    /// Input, u32 `[P]`: the positions of the requested logits, indices into `tokens`.
    pub positions: TensorId,
    /// Read after each replay: logits [P, V].
    pub logits: TensorId,
    /// The experts of each token, for each router call [N, K], u32. May be read instead.
    pub experts: Vec<TensorId>,
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

/// The capabilities for which a config's training is recorded: with cooperative matrices if its products have f16 operands, and without
/// the kernels that [`tuning`] found slow.
///
/// # Errors
/// If the config names kernels that there are not, or the adapter has none that a kernel is written for, or fails the self-test, which takes place once for a device.
pub fn kernels_for(config: &Config, device: &Device) -> Result<Capabilities, GpuError> {
    let own = tuning::tuned(&config.kernels, device)?;
    match config.train.precision {
        Precision::F32 => Ok(own),
        Precision::F16 | Precision::Split => {
            let missing = || GpuError::NoMatrices { adapter: device.adapter.name.clone(), reason: "are not among them".into() };
            let Capabilities { matrices, .. } = device.with_matrices(MODULES).ok_or_else(missing)?;
            let capabilities = Capabilities { matrices, splits_operands: config.train.precision == Precision::Split, ..own };
            device.tested(capabilities, || self_test(device, capabilities))?;
            Ok(capabilities)
        }
    }
}

/// Records training.
pub fn training(config: &Config, tier: Capabilities) -> Training {
    training_with(config, tier, true)
}

/// Records training, with what only the log needs of the routing, or without.
pub fn training_with(config: &Config, tier: Capabilities, measures_routing: bool) -> Training {
    let mut g = Graph::new(tier);
    let mode = Mode::Train { counts_assignments: config.optimizer.idle_experts == IdleExperts::Skip };
    let recorded = transformer(&mut g, &config.model, mode, config.data.batch, config.data.sequence_length);
    let loss = recorded.loss.expect("training records a loss");
    let statistics = recorded.statistics.expect("training records statistics");
    g.backward(loss);
    g.output("statistics", statistics);
    let routing = outputs(&mut g, &recorded.routing.iter().map(|call| call.metrics).collect::<Vec<_>>(), "routing");
    let clip = optimizer::record(&mut g, config);
    let router_norms = if measures_routing { router_norms(&mut g, &recorded.routing) } else { None };
    for RouterState { selection_bias, counts } in router_states(&g) {
        match selection_bias {
            Some(bias) => g.selection_bias_update(bias, counts, clip, config.model.router.selection_bias_rate as f32),
            None => g.clear(counts),
        }
    }
    let (tokens, targets, loss_seed) = (id(&g, "tokens"), id(&g, "targets"), id(&g, "loss_seed"));
    let fresh = g.find("fresh").map(|t| t.id);
    let (statistics, clip, damage) = (statistics.id, clip.id, g.update_damage().id);
    Training { program: g.finish(), tokens, targets, fresh, loss_seed, statistics, routing, router_norms, clip, damage }
}

/// The gradient norms of the routers of these calls. Calls that share a router share its weight.
fn router_norms(g: &mut Graph, calls: &[RouterCall]) -> Option<RouterNorms> {
    let mut weights: Vec<Tensor> = Vec::new();
    let mut router_of = Vec::new();
    for call in calls {
        let found = weights.iter().position(|weight| weight.id == call.weight.id);
        router_of.push(found.unwrap_or(weights.len()));
        if found.is_none() {
            weights.push(call.weight);
        }
    }
    if weights.is_empty() {
        return None;
    }
    let norms = g.gradient_norms(&weights);
    g.output("router_norms", norms);
    Some(RouterNorms { norms: norms.id, router_of })
}

/// Records evaluation.
pub fn evaluation(config: &Config, tier: Capabilities) -> Evaluation {
    evaluation_with(config, tier, true)
}

/// Records evaluation, with everything that is measured of the routing, or only with what the losses are computed from.
pub fn evaluation_with(config: &Config, tier: Capabilities, measures_routing: bool) -> Evaluation {
    let mut g = Graph::new(tier);
    let domains = if config.data.kind == DataKind::Language { config.data.language.domains } else { 0 };
    let mode = Mode::Evaluate { measures_routing, domains };
    let recorded = transformer(&mut g, &config.model, mode, config.data.batch, config.data.sequence_length);
    let statistics = recorded.statistics.expect("evaluation records statistics");
    g.output("statistics", statistics);
    let routing = outputs(&mut g, &recorded.routing.iter().map(|call| call.metrics).collect::<Vec<_>>(), "routing");
    let counts: Vec<Tensor> = recorded.routing.iter().filter_map(|call| call.domain_counts).collect();
    let domain_counts = outputs(&mut g, &counts, "domain_counts");
    let domains = g.find("domains").map(|t| t.id);
    let (tokens, targets) = (id(&g, "tokens"), id(&g, "targets"));
    Evaluation { program: g.finish(), tokens, targets, statistics: statistics.id, routing, domains, domain_counts }
}

/// Records sampling: the logits of one position of one window as long as those trained on.
pub fn sampling(config: &Config, tier: Capabilities) -> Logits {
    logits(&config.model, tier, [1, config.data.sequence_length], 1)
}

/// Records the experts of each token of batches as large as those of evaluation.
pub fn routes(config: &Config, tier: Capabilities) -> Logits {
    logits(&config.model, tier, [config.data.batch, config.data.sequence_length], 1)
}

/// Records the logits of `positions` positions of sequences of the size [B, T].
pub fn logits(model: &ModelConfig, tier: Capabilities, [sequences, sequence_length]: [u32; 2], positions: u32) -> Logits {
    let mut g = Graph::new(tier);
    let position = g.input("position", [positions], DType::U32); // [P]
    let recorded = transformer(&mut g, model, Mode::Sample { position }, sequences, sequence_length);
    let logits = recorded.logits.expect("sampling records logits");
    g.output("logits", logits);
    let experts = outputs(&mut g, &recorded.experts, "experts");
    let tokens = id(&g, "tokens");
    Logits { program: g.finish(), tokens, positions: position.id, logits: logits.id, experts, sequence_length }
}
