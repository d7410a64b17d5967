//! An evaluation of a run as gates, studies, comparisons and exports see it, and how it is read from the log.

use serde::{Deserialize, Serialize};

use crate::run::{
    Config, exact,
    records::Event,
    routing::{LoadMeasure, spread},
    suite::{Axis, flop_per_update},
};

/// An evaluation, what the run had spent by then, and its routing, training loss and learning rates there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalPoint {
    /// Optimizer updates.
    pub update: u32,
    /// Micro-steps.
    pub micro_steps: u64,
    /// Training tokens: seen, without padding; in a study, at full batches, as its plan counts them
    /// ([`results::evaluations`](super::results::evaluations)).
    pub tokens: f64,
    /// Floating-point operations of training.
    pub flop: f64,
    /// Seconds of training, evaluations and checkpoints included.
    pub seconds: f64,
    /// Validation cross-entropy, nats per token.
    #[serde(with = "exact")]
    pub val_ce: f64,
    /// Share of targets that were the most probable token.
    pub accuracy: f64,
    /// Number of targets.
    pub targets: u64,
    /// Training cross-entropy of the last update before it, if its line was logged.
    pub train_ce: Option<f64>,
    /// Learning rates of Muon and AdamW in that update.
    pub rates: Option<[f64; 2]>,
    /// Routing of the validation tokens, where it was read; none in a dense model.
    pub routing: Option<Routing>,
}

impl EvalPoint {
    /// The position on an axis.
    pub fn x(&self, axis: Axis) -> f64 {
        match axis {
            Axis::Updates => f64::from(self.update),
            Axis::Tokens => self.tokens,
            Axis::Flops => self.flop,
            Axis::Seconds => self.seconds,
        }
    }
}

/// How evenly the experts are used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Mean over layers of -sum_e f_e ln f_e / ln E, with f_e the share of the assignments of expert e: 1 at balance.
    pub entropy: f64,
    /// The largest load of an expert of any layer, relative to the fair share 1 / E: 1 at balance.
    pub max_load: f64,
    /// The least over layers of (n - K) / (E - K), with n = exp(-sum_e f_e ln f_e) the effective number of experts: 0 if all tokens go
    /// to the same K experts, 1 at balance.
    pub spread: f64,
}

impl Routing {
    /// From the load of the experts of each layer [L, E], each layer's shares adding up to 1, with `top_k` experts per token. `None`
    /// without layers.
    pub fn of(loads: &[Vec<f64>], top_k: u32) -> Option<Routing> {
        let mut routing = Routing { entropy: 0.0, max_load: 0.0, spread: 1.0 };
        for load in loads {
            let experts = load.len() as f64;
            routing.entropy += if load.len() > 1 { LoadMeasure::Entropy.of(load) / experts.ln() } else { 1.0 } / loads.len() as f64;
            routing.max_load = routing.max_load.max(LoadMeasure::Imbalance.of(load));
            routing.spread = spread(load, top_k).map_or(routing.spread, |spread| routing.spread.min(spread.clamp(0.0, 1.0)));
        }
        (!loads.is_empty()).then_some(routing)
    }
}

/// Makes points of the events of a run, in order.
pub(super) struct Collector {
    micro_batches: u64,
    tokens_per_update: f64,
    flop_per_update: f64,
    session: u32,
    /// Seconds of the earlier starts, and of this one.
    earlier: f64,
    latest: f64,
    /// The last logged update: itself, micro-steps, tokens, training loss, learning rates.
    last: Option<(u32, u64, u64, f64, [f64; 2])>,
}

impl Collector {
    pub fn new(config: &Config) -> Collector {
        Collector {
            micro_batches: config.train.micro_batches.into(),
            tokens_per_update: config.tokens_per_update() as f64,
            flop_per_update: flop_per_update(config),
            session: 0,
            earlier: 0.0,
            latest: 0.0,
            last: None,
        }
    }

    /// The point of an event, if it is an evaluation; without its routing.
    pub fn note(&mut self, event: &Event) -> Option<EvalPoint> {
        if let Some(time) = event.time() {
            // The clock of a run starts again whenever it is resumed.
            if time.session != self.session {
                (self.session, self.earlier, self.latest) = (time.session, self.earlier + self.latest, 0.0);
            }
            self.latest = time.seconds.max(self.latest);
        }
        match event {
            Event::Update(record) => {
                let rates = [record.lr_muon, record.lr_adamw];
                self.last = Some((record.update, record.micro_steps, record.tokens, record.train_ce, rates));
                None
            }
            Event::Eval(record) => {
                let update = record.update;
                let of = self.last.filter(|(last, ..)| *last == update);
                Some(EvalPoint {
                    update,
                    micro_steps: of.map_or(u64::from(update) * self.micro_batches, |(_, micro_steps, ..)| micro_steps),
                    tokens: of.map_or(f64::from(update) * self.tokens_per_update, |(_, _, tokens, ..)| tokens as f64),
                    flop: self.flop_per_update * f64::from(update),
                    seconds: self.earlier + record.time.seconds,
                    val_ce: record.val_ce,
                    accuracy: record.accuracy,
                    targets: record.targets,
                    train_ce: of.map(|(.., train_ce, _)| train_ce),
                    rates: of.map(|(.., rates)| rates),
                    routing: None,
                })
            }
            Event::Header(_) | Event::Incident(_) | Event::Sample(_) | Event::Rewound(_) => None,
        }
    }
}
