//! Structure checks of a user's model: causality, independence of sequences and micro-batches, weight sharing.
//!
//! Each check runs the config's own programs on the device, with unchanged axes and small data, and compares results that
//! must be equal. Checks that compare two models copy the weights of one into the other and disable dropout and router noise,
//! whose random numbers differ between programs. A check that does not apply says why.
//!
//! Long because it has every check together with the programs that it runs.

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    data::dataset::Batch,
    gpu::{Device, Memory, PlanOptions, Program, Role, Step, TensorId},
    limits::MAX_EXPERTS_PER_TOKEN,
    random::Stream,
    run::{
        Config,
        model::{
            BalanceKind, Carry, DepthIdentity, DepthKind, Dropout, FfnKind, Networks, RouterScores, SoftmaxOver, cost,
            parameters::{self, Part},
        },
    },
    train::{
        TrainError,
        engine::{EvalStep, LogitsStep, MicroBatch, TrainStep, floats},
        recording,
    },
};

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The property holds, with the observation.
    Holds(String),
    /// It does not hold, with the observation.
    Fails(String),
    /// It does not hold, as the config states.
    ByConfig(String),
    /// The check does not apply, with the reason.
    Skipped(String),
}

/// Changes a recorded program before it is compiled, for tests that plant faults.
pub type Tamper<'a> = &'a dyn Fn(&mut Program);

/// Maximum tokens of a probe's sequences.
const TOKENS: u32 = 16;
/// Relative difference up to which two models with different kernels count as equal.
const CLOSE: f64 = 1e-4;

/// A structure check.
#[derive(Clone, Copy)]
pub struct Check {
    /// Its id.
    pub id: &'static str,
    /// What should hold.
    pub claim: &'static str,
    see: fn(&Probe) -> Result<Outcome, TrainError>,
}

/// Every check.
pub const CHECKS: [Check; 11] = [
    Check { id: "not-causal", claim: "a token affects no logits before its position", see: |p| p.causality() },
    Check { id: "no-token-mixing", claim: "a token affects logits after its position", see: |p| p.mixing() },
    Check { id: "sequence-leak", claim: "a sequence affects no other sequence of its batch", see: |p| p.sequences() },
    Check { id: "state-leak", claim: "a micro-batch does not affect the next", see: |p| p.micro_batches() },
    Check { id: "dead-parameter", claim: "a gradient reaches every parameter", see: |p| p.reach() },
    Check { id: "dropped-term", claim: "the balance loss reaches every router", see: |p| p.balance() },
    Check { id: "one-expert", claim: "a single expert equals a dense FFN", see: |p| p.one_expert() },
    Check { id: "equal-experts", claim: "experts with equal weights equal one", see: |p| p.equal_experts() },
    Check { id: "all-experts", claim: "all experts with equal weights equal one", see: |p| p.all_experts() },
    Check {
        id: "weight-sharing",
        claim: "shared weights equal copies of them, and their gradient is the sum of the copies'",
        see: |p| p.sharing(),
    },
    Check { id: "parameter-count", claim: "every parameter is counted once", see: |p| p.counts() },
];

impl Check {
    /// Runs the check on a config's own model.
    ///
    /// # Errors
    /// If a program does not fit the device, or the device is lost.
    pub fn run(&self, device: &Rc<Device>, config: &Config, tamper: Tamper) -> Result<Outcome, TrainError> {
        (self.see)(&Probe { device, config: probed(config), tamper })
    }
}

/// The config with small data.
fn probed(config: &Config) -> Config {
    let mut config = config.clone();
    config.data.sequence_length = config.data.sequence_length.min(TOKENS);
    config.data.batch = 2;
    config
}

/// Disables what differs between programs.
fn steady(config: &Config) -> Config {
    let mut config = config.clone();
    config.model.dropout = Dropout { embedding: 0.0, attention: 0.0, residual: 0.0, ffn: 0.0, head: 0.0 };
    config.model.router.noise = 0.0;
    config
}

struct Probe<'a> {
    device: &'a Rc<Device>,
    config: Config,
    tamper: Tamper<'a>,
}

/// Values by name.
type Values = BTreeMap<String, Vec<f32>>;

impl Probe<'_> {
    fn model(&self, config: &Config) -> Result<Model<'_>, TrainError> {
        Model::new(self.device, config, self.tamper)
    }

    fn causality(&self) -> Result<Outcome, TrainError> {
        let mut model = self.model(&self.config)?;
        let t = self.config.data.sequence_length as usize;
        let tokens = draw(&self.config, 1).tokens[..t].to_vec();
        let changed = t / 2;
        let mut other = tokens.clone();
        other[changed] = (other[changed] + 1) % self.config.model.vocabulary;
        for position in 0..changed {
            let (before, after) = (model.logits(&tokens, position)?, model.logits(&other, position)?);
            if before != after {
                let seen = format!("token {changed} changes the logits of token {position} by up to {:.2e}", largest(&before, &after));
                return Ok(Outcome::Fails(seen));
            }
        }
        Ok(Outcome::Holds(format!("{changed} positions bit-equal")))
    }

    fn mixing(&self) -> Result<Outcome, TrainError> {
        let mut model = self.model(&self.config)?;
        let t = self.config.data.sequence_length as usize;
        let tokens = draw(&self.config, 1).tokens[..t].to_vec();
        let changed = t / 2;
        let mut other = tokens.clone();
        other[changed] = (other[changed] + 1) % self.config.model.vocabulary;
        let own = largest(&model.logits(&tokens, changed)?, &model.logits(&other, changed)?);
        let last = largest(&model.logits(&tokens, t - 1)?, &model.logits(&other, t - 1)?);
        Ok(match (own > 0.0, last > 0.0) {
            (true, true) => Outcome::Holds(format!("token {changed} changes its own logits by {own:.2e}, the last ones by {last:.2e}")),
            (true, false) => Outcome::Fails(format!("the logits of token {} do not depend on token {changed}", t - 1)),
            (false, _) => Outcome::Fails(format!("the model ignores its input: token {changed} does not change its own logits")),
        })
    }

    fn sequences(&self) -> Result<Outcome, TrainError> {
        let mut model = self.model(&self.config)?;
        let t = self.config.data.sequence_length as usize;
        let mut batch = draw(&self.config, 1);
        batch.targets[t..].fill(Batch::IGNORED);
        let before = model.evaluate(&batch)?;
        let other = draw(&self.config, 2);
        batch.tokens[t..].copy_from_slice(&other.tokens[t..]);
        let after = model.evaluate(&batch)?;
        Ok(match before == after {
            true => Outcome::Holds(format!("the first sequence's loss is bit-equal, {:.6} nats", before[0] / before[1])),
            false => Outcome::Fails(format!("the second sequence changes the first's loss from {} to {}", before[0], after[0])),
        })
    }

    fn micro_batches(&self) -> Result<Outcome, TrainError> {
        let recursion = &self.config.model.depth.recursion;
        let carry = if self.config.model.depth.kind == DepthKind::Recursive { recursion.carry } else { Carry::Dropped };
        let (first, other, second) = (draw(&self.config, 1), draw(&self.config, 2), draw(&self.config, 3));
        let mut losses = Vec::new();
        for before in [&first, &other] {
            let mut model = self.model(&self.config)?;
            model.micro(0, before, 1.0, true)?;
            // The trainer resets states for new data, unless the config keeps them.
            losses.push(model.micro(1, &second, 1.0, carry != Carry::NextData)?);
        }
        Ok(match (losses[0] == losses[1], carry) {
            (true, _) => Outcome::Holds(format!("the second micro-batch's loss is bit-equal, {:.6} nats", losses[0][0] / losses[0][1])),
            (false, Carry::NextData) => Outcome::ByConfig(format!(
                "states of unrelated text are carried: `model.depth.recursion.carry` is \"next_data\"; the loss changes from {} to {}",
                losses[0][0], losses[1][0]
            )),
            (false, _) => {
                Outcome::Fails(format!("the first micro-batch changes the second's loss from {} to {}", losses[0][0], losses[1][0]))
            }
        })
    }

    fn reach(&self) -> Result<Outcome, TrainError> {
        // Experts may get no token of a small batch.
        const BATCHES: u64 = 8;
        let mut model = self.model(&self.config)?;
        for seed in 0..BATCHES {
            model.micro(seed as u32, &draw(&self.config, seed), 1.0, true)?;
        }
        let gradients = model.gradients()?;
        let silent: Vec<_> = gradients.iter().filter(|(_, g)| g.iter().all(|v| *v == 0.0)).map(|(name, _)| name.clone()).collect();
        let (by_config, silent): (Vec<_>, Vec<_>) =
            silent.into_iter().partition(|name| name.contains("recursion.") && self.is_cut_off(name));
        Ok(match (silent.is_empty(), by_config.is_empty()) {
            (true, true) => Outcome::Holds(format!("all {} parameters", gradients.len())),
            (true, false) => Outcome::ByConfig(format!("no gradient, as configured, for {}", by_config.join(", "))),
            _ => Outcome::Fails(format!("no gradient for {}", silent.join(", "))),
        })
    }

    /// Whether the config excludes this parameter of a recursion from gradients.
    fn is_cut_off(&self, name: &str) -> bool {
        let recursion = &self.config.model.depth.recursion;
        let first = recursion.plan().into_iter().next();
        name.contains("halting") || (name.ends_with("_start") && first.is_some_and(|call| !call.has_gradient))
    }

    fn balance(&self) -> Result<Outcome, TrainError> {
        let balance = &self.config.model.balance;
        if self.config.model.ffn.kind == FfnKind::Dense || balance.kind == BalanceKind::Off {
            return Ok(Outcome::Skipped("the model has no balance loss".into()));
        }
        let mut gradients = Vec::new();
        for coefficient in [0.0, 1.0] {
            let mut model = self.model(&self.config)?;
            model.micro(0, &draw(&self.config, 1), coefficient, true)?;
            gradients.push(model.gradients()?);
        }
        let routers = gradients[0].keys().filter(|name| name.ends_with("router.weight"));
        let unmoved: Vec<_> = routers.clone().filter(|name| gradients[0][*name] == gradients[1][*name]).cloned().collect();
        Ok(match unmoved.is_empty() {
            true => Outcome::Holds(format!("the gradient of {} routers depends on the coefficient", routers.count())),
            false => Outcome::Fails(format!("the coefficient does not affect the gradient of {}", unmoved.join(", "))),
        })
    }

    /// Why gate weights of a token may not sum to 1.
    fn gates_do_not_sum_to_one(&self) -> Option<&'static str> {
        let router = &self.config.model.router;
        match router.scores {
            RouterScores::Softmax if router.softmax == SoftmaxOver::All => Some("gate weights are a softmax over all experts"),
            RouterScores::Sigmoid if !router.normalize => Some("gate weights are not normalised"),
            _ => None,
        }
    }

    fn one_expert(&self) -> Result<Outcome, TrainError> {
        let mut moe = steady(&self.config);
        let router = &mut moe.model.router;
        (router.experts, router.top_k, router.groups, router.kept_groups, router.scale) = (1, 1, 1, 1, 1.0);
        self.against_dense(moe)
    }

    fn equal_experts(&self) -> Result<Outcome, TrainError> {
        let mut moe = steady(&self.config);
        moe.model.router.scale = 1.0;
        self.against_dense(moe)
    }

    fn all_experts(&self) -> Result<Outcome, TrainError> {
        let mut moe = steady(&self.config);
        let router = &mut moe.model.router;
        router.experts = router.experts.min(MAX_EXPERTS_PER_TOKEN);
        (router.top_k, router.groups, router.kept_groups, router.scale) = (router.experts, 1, 1, 1.0);
        self.against_dense(moe)
    }

    /// Compares a MoE, all of whose experts get the weights of the first, with the dense model of those weights.
    fn against_dense(&self, mut moe: Config) -> Result<Outcome, TrainError> {
        if moe.model.ffn.kind == FfnKind::Dense {
            return Ok(Outcome::Skipped("the model has no experts".into()));
        }
        if let Some(why) = self.gates_do_not_sum_to_one() {
            return Ok(Outcome::Skipped(why.into()));
        }
        moe.model.ffn.shared_experts = 0;
        let experts = moe.model.router.experts as usize;
        let mut dense = moe.clone();
        dense.model.ffn.kind = FfnKind::Dense;
        dense.model.ffn.width = moe.model.ffn.width;
        (dense.model.ffn.dense_layers, dense.model.ffn.dense_width) = (0, 0);
        (moe.model.ffn.dense_layers, moe.model.ffn.dense_width) = (0, 0);
        let mut values = initial(&moe);
        values.extend(initial(&dense));
        let mut dense_model = self.model(&dense)?;
        dense_model.set(&values);
        for spec in parameters::parameters(&moe.model).into_iter().filter(|spec| spec.part == Part::Experts) {
            let one = values[&spec.name.replace("moe.experts", "ffn")].clone();
            values.insert(spec.name, one.repeat(experts));
        }
        let mut moe_model = self.model(&moe)?;
        moe_model.set(&values);
        let batch = draw(&self.config, 1);
        let (found, wanted) = (moe_model.evaluate(&batch)?, dense_model.evaluate(&batch)?);
        Ok(agree(found[0], wanted[0], "the loss of the experts", "that of the dense FFN"))
    }

    fn sharing(&self) -> Result<Outcome, TrainError> {
        let shared = steady(&self.config);
        let mut copied = shared.clone();
        let depth = &mut copied.model.depth;
        match (depth.kind, depth.identity, depth.recursion.networks) {
            (DepthKind::Shared, DepthIdentity::Unmarked, _) => depth.kind = DepthKind::Indexed,
            (DepthKind::Recursive, _, Networks::Single) => depth.recursion.networks = Networks::Separate,
            (DepthKind::Shared, ..) => return Ok(Outcome::Skipped("steps have separate parameters".into())),
            _ => return Ok(Outcome::Skipped("the model shares no weights over depth".into())),
        }
        // The source of a copy's values, and the destination of its gradient.
        let origin = |name: &str| match copied.model.depth.kind {
            DepthKind::Indexed => match name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
                Some((_, rest)) => format!("blocks.0.{rest}"),
                None => name.to_string(),
            },
            _ => name.strip_prefix("low.").or(name.strip_prefix("high.")).unwrap_or(name).to_string(),
        };
        let values = initial(&shared);
        let copies = parameters::parameters(&copied.model).into_iter().map(|spec| {
            let value = values[&origin(&spec.name)].clone();
            (spec.name, value)
        });
        let batch = draw(&self.config, 1);
        // A shared router counts the assignments of all its calls together, copies count their own.
        let balance = if shared.model.balance.kind == BalanceKind::GlobalBatch { 0.0 } else { 1.0 };
        let run = |config: &Config, values: &Values| -> Result<_, TrainError> {
            let mut model = self.model(config)?;
            model.set(values);
            let statistics = model.micro(0, &batch, balance, true)?;
            Ok((statistics[0], model.gradients()?))
        };
        let (shared_loss, shared_gradients) = run(&shared, &values)?;
        let (copied_loss, copied_gradients) = run(&copied, &copies.collect())?;
        let mut sums = Values::new();
        for (name, gradient) in copied_gradients {
            let sum = sums.entry(origin(&name)).or_insert_with(|| vec![0.0; gradient.len()]);
            sum.iter_mut().zip(gradient).for_each(|(s, g)| *s += g);
        }
        for (name, found) in &shared_gradients {
            let difference = relative(found, &sums[name]);
            if difference > CLOSE {
                return Ok(Outcome::Fails(format!("the gradient of {name} differs from the sum over copies by {difference:.2e}")));
            }
        }
        Ok(agree(shared_loss, copied_loss, "the loss with shared weights", "that with copies"))
    }

    fn counts(&self) -> Result<Outcome, TrainError> {
        let counted = cost::counts(&self.config.model, &self.config.parameters()).total;
        let mut program = recording::training(&self.config, self.device.capabilities).program;
        (self.tamper)(&mut program);
        let held: u64 = program.tensors.iter().filter(|t| t.role == Role::Parameter).map(|t| u64::from(t.shape.len())).sum();
        Ok(match counted == held {
            true => Outcome::Holds(format!("{counted} parameters")),
            false => Outcome::Fails(format!("{counted} are counted, the program has {held}")),
        })
    }
}

/// The programs of one config with their memory.
struct Model<'a> {
    device: &'a Device,
    config: Config,
    memory: Memory,
    training: TrainStep,
    evaluation: EvalStep,
    sampling: LogitsStep,
    is_new: bool,
}

impl<'a> Model<'a> {
    fn new(device: &'a Device, config: &Config, tamper: Tamper) -> Result<Model<'a>, TrainError> {
        let mut memory = Memory::default();
        let mut training = recording::training(config, device.capabilities);
        let mut evaluation = recording::evaluation(config, device.capabilities);
        let mut sampling = recording::sampling(config, device.capabilities);
        [&mut training.program, &mut evaluation.program, &mut sampling.program].into_iter().for_each(tamper);
        let options = PlanOptions::default();
        let training = TrainStep::new(device, &mut memory, training, options)?;
        let evaluation = EvalStep::new(device, &mut memory, evaluation, options)?;
        let sampling = LogitsStep::new(device, &mut memory, sampling, options)?;
        let mut model = Model { device, config: config.clone(), memory, training, evaluation, sampling, is_new: true };
        model.set(&initial(config));
        Ok(model)
    }

    fn set(&mut self, values: &Values) {
        for spec in parameters::parameters(&self.config.model) {
            self.memory.write(self.device, &spec.name, bytemuck::cast_slice(&values[&spec.name]));
        }
    }

    fn step(&self, micro_step: u32, balance_coefficient: f32, targets: u32) -> Step {
        Step {
            seed_low: self.config.seed as u32,
            micro_step,
            balance_coefficient,
            inverse_targets: 1.0 / targets.max(1) as f32,
            ..Step::default()
        }
    }

    /// Loss sum, targets and correct predictions of a batch.
    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<f32>, TrainError> {
        let download = self.evaluation.submit(self.device, &mut self.memory, batch, u32::MAX, None)?;
        download.wait_ready(self.device)?;
        Ok(self.evaluation.poll(self.device, &download)?.map(|outputs| outputs.statistics).unwrap_or_default())
    }

    /// Logits `[V]` of one position of one sequence.
    fn logits(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>, TrainError> {
        let download = self.sampling.submit(self.device, &mut self.memory, tokens, &[position as u32])?;
        download.wait_ready(self.device)?;
        Ok(self.sampling.poll(self.device, &download)?.unwrap_or_default())
    }

    /// Forward and backward of a micro-batch; gradients accumulate. Returns the same as [`Model::evaluate`].
    fn micro(&mut self, micro_step: u32, batch: &Batch, balance: f32, is_fresh: bool) -> Result<Vec<f32>, TrainError> {
        let step = self.step(micro_step, balance, batch.target_count());
        let fresh = vec![f32::from(u8::from(is_fresh)); self.config.data.batch as usize];
        let clears = std::mem::take(&mut self.is_new);
        let statistics = self.training.accumulate(self.device, &mut self.memory, clears, |_, micro| {
            *micro = MicroBatch { batch: batch.clone(), fresh: fresh.clone(), loss_seed: 1.0, step };
        });
        Ok(statistics?)
    }

    /// The gradient of every parameter so far.
    fn gradients(&self) -> Result<Values, TrainError> {
        let program = &self.training.recorded().program;
        let found: Vec<(String, TensorId)> = parameters::parameters(&self.config.model)
            .into_iter()
            .filter_map(|spec| program.find(&format!("d_{}", spec.name)).map(|id| (spec.name, id)))
            .collect();
        let parts = self.training.plan().download(self.device, &found.iter().map(|(_, id)| *id).collect::<Vec<_>>()).wait(self.device)?;
        Ok(found.into_iter().zip(parts).map(|((name, _), bytes)| (name, floats(&bytes))).collect())
    }
}

fn initial(config: &Config) -> Values {
    parameters::parameters(&config.model)
        .into_iter()
        .map(|spec| (spec.name.clone(), parameters::initial_values(&spec, config.seed)))
        .collect()
}

/// A batch of random tokens.
fn draw(config: &Config, seed: u64) -> Batch {
    let stream = Stream { seed, step: 0, stream: 0 };
    let positions = config.data.batch * config.data.sequence_length;
    let token = |i: u32| stream.bits(i)[0] % config.model.vocabulary;
    Batch { tokens: (0..positions).map(token).collect(), targets: (positions..2 * positions).map(token).collect() }
}

fn largest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn relative(found: &[f32], wanted: &[f32]) -> f64 {
    let square = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let difference = square(&mut found.iter().zip(wanted).map(|(f, w)| f64::from(f - w)));
    difference / square(&mut wanted.iter().map(|w| f64::from(*w))).max(1e-30)
}

fn agree(found: f32, wanted: f32, one: &str, other: &str) -> Outcome {
    let difference = f64::from((found - wanted) / wanted).abs();
    match difference <= CLOSE {
        true => Outcome::Holds(format!("{one} and {other} differ by {difference:.1e}")),
        false => Outcome::Fails(format!("{one} is {found}, {other} {wanted}")),
    }
}
