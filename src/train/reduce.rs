//! Reduces the kernel outputs of an update's micro-batches to the record of the update, and those of an evaluation's batches to the
//! record of the evaluation, by the table of series.
//!
//! The row of a series defines the slot and output that it reads, and how micro-batches are reduced
//! ([`run::series`](crate::run::series)); ops provide the position of a slot in an output. Sums are in f64, in the order of the
//! micro-batches.

use super::engine::EvalOutputs;
use crate::{
    ops::{self, BalanceLoss, LossHead},
    run::{
        config::{Config, Weighting},
        records::{EvalRecord, UpdateRecord},
        routing::domain_agreement,
        series::{Axis, Derived, Record, Reduction, Series, Source},
    },
};

/// The weights of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct MicroWeight {
    /// Weight of its losses in the update's.
    pub of_losses: f64,
    /// Weight of its real tokens in the update's.
    pub of_tokens: f64,
}

/// The outputs of an update, read back.
pub(super) struct Reduced<'a> {
    /// For each micro-batch, the loss head's statistics, then the metrics of each MoE layer.
    pub outputs: &'a [Vec<Vec<f32>>],
    /// The weights of each micro-batch.
    pub weights: &'a [MicroWeight],
    /// The output of the gradient norm `[4]`.
    pub clip: &'a [f32],
    /// The gradient norm of the router of each call.
    pub router_norms: &'a [f32],
    pub config: &'a Config,
}

impl Reduced<'_> {
    /// Sets every series of the record that does not come from the host.
    pub fn write(&self, record: &mut UpdateRecord) {
        for column in UpdateRecord::COLUMNS {
            let series = &column.series;
            let values = match series.source {
                Source::Host => continue,
                Source::Statistics(slot) => vec![self.statistic(slot, series.reduction)],
                Source::Clip(slot) => vec![f64::from(self.clip[clip_slot(slot)])],
                Source::Routing(slot) => over_axes(self.routing(slot, series.reduction), series),
                Source::RouterGradient => self.router_norms.iter().map(|norm| f64::from(*norm)).collect(),
                Source::Derived(derived) => self.derived(derived).into_iter().collect(),
                Source::Domains | Source::OfLoad(_) => continue,
            };
            let row = if series.axes.contains(&Axis::Expert) { values.len() / self.layers().max(1) } else { 1 };
            (column.set)(record, &values, row);
        }
    }

    fn layers(&self) -> usize {
        self.outputs.first().map_or(0, |outputs| outputs.len() - 1)
    }

    fn statistic(&self, slot: &str, reduction: Reduction) -> f64 {
        let slot = LossHead::slot(slot).unwrap_or_else(|| panic!("the loss head has no slot {slot}"));
        let targets = LossHead::slot("targets").unwrap_or_default();
        let micro_batches = || self.outputs.iter().map(move |outputs| (f64::from(outputs[0][slot]), f64::from(outputs[0][targets])));
        let sum = || micro_batches().map(|(value, _)| value).sum::<f64>();
        match (reduction, self.config.train.weighting) {
            (Reduction::Sum, _) => sum(),
            (Reduction::AsOptimized, Weighting::MicroBatch) => {
                let means = micro_batches().zip(self.weights);
                means.fold(0.0, |mean, ((value, targets), weight)| mean + weight.of_losses * value / targets.max(1.0))
            }
            _ => sum() / micro_batches().map(|(_, targets)| targets).sum::<f64>().max(1.0),
        }
    }

    /// The values of a slot [L][1 or E], reduced over the micro-batches.
    fn routing(&self, slot: &str, reduction: Reduction) -> Vec<Vec<f64>> {
        let mut layers = vec![Vec::new(); self.layers()];
        for (outputs, weight) in self.outputs.iter().zip(self.weights) {
            for (reduced, metrics) in layers.iter_mut().zip(&outputs[1..]) {
                let values = BalanceLoss::values(metrics, slot);
                assert!(!values.is_empty(), "the routers' metrics have no slot {slot}");
                let first = if reduction == Reduction::Maximum { f64::NEG_INFINITY } else { 0.0 };
                reduced.resize(values.len(), first);
                for (sum, value) in reduced.iter_mut().zip(values.iter().map(|value| f64::from(*value))) {
                    match reduction {
                        // Keeps non-finite values, which `f64::max` would drop.
                        Reduction::Maximum if value.is_nan() || sum.is_nan() => *sum = f64::NAN,
                        Reduction::Maximum => *sum = sum.max(value),
                        Reduction::ByLosses => *sum += value * weight.of_losses,
                        _ => *sum += value * weight.of_tokens,
                    }
                }
            }
        }
        layers
    }

    /// `None` for routing series in a model without a router.
    fn derived(&self, derived: Derived) -> Option<f64> {
        match derived {
            Derived::Skipped => {
                let is_finite = self.clip[clip_slot("finite")].to_bits() != 0;
                return Some(f64::from(u8::from(!is_finite)));
            }
            // Measured in evaluations only.
            Derived::GateMass => return None,
            Derived::BalanceGlobalBatch | Derived::BalanceHfMixtral => {}
        }
        let layers = self.layers() as f64;
        let load = self.routing("load", Reduction::ByTokens);
        let probability = self.routing("mean_probability", Reduction::ByTokens);
        let experts = load.first()?.len();
        let product = |load: &dyn Fn(usize) -> f64, probability: &dyn Fn(usize) -> f64| {
            experts as f64 * (0..experts).map(|e| load(e) * probability(e)).sum::<f64>()
        };
        if derived == Derived::BalanceGlobalBatch {
            let by_layer = load.iter().zip(&probability).map(|(f, p)| product(&|e| f[e], &|e| p[e]));
            return Some(by_layer.sum::<f64>() / layers);
        }
        let over_layers = |rows: &[Vec<f64>], e: usize| rows.iter().map(|row| row[e]).sum::<f64>() / layers;
        let pooled = product(&|e| over_layers(&load, e), &|e| over_layers(&probability, e));
        Some(f64::from(self.config.model.router.top_k) * pooled)
    }
}

/// Sums over the batches of an evaluation.
#[derive(Default)]
pub(super) struct EvalSums {
    /// Of the loss head's statistics.
    statistics: Vec<f64>,
    /// The metrics of each router call, means over the tokens of the batches so far.
    metrics: Vec<Vec<f64>>,
    /// Assignments of each router call by domain and expert.
    domain_counts: Vec<Vec<f64>>,
}

impl EvalSums {
    /// Adds a batch. Its means are divided by `divisor`: the tokens of the whole set over its own.
    pub fn add(&mut self, outputs: &EvalOutputs, divisor: f64) {
        let add = |sums: &mut Vec<f64>, values: &[f32], divisor: f64| {
            sums.resize(values.len(), 0.0);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value) / divisor);
        };
        add(&mut self.statistics, &outputs.statistics, 1.0);
        let by_call = [(&mut self.metrics, &outputs.routing, divisor), (&mut self.domain_counts, &outputs.domain_counts, 1.0)];
        for (sums, values, divisor) in by_call {
            sums.resize(values.len(), Vec::new());
            sums.iter_mut().zip(values).for_each(|(sums, values)| add(sums, values, divisor));
        }
    }

    /// Sets every series of the record.
    pub fn write(&self, record: &mut EvalRecord, config: &Config) {
        let statistic = |slot: &str| LossHead::slot(slot).and_then(|slot| self.statistics.get(slot)).copied().unwrap_or_default();
        for column in EvalRecord::COLUMNS {
            let series = &column.series;
            let values = match series.source {
                Source::Statistics(slot) if series.reduction == Reduction::PerTarget => {
                    vec![statistic(slot) / statistic("targets").max(1.0)]
                }
                Source::Statistics(slot) => vec![statistic(slot)],
                Source::Routing(slot) => over_axes(self.metrics.iter().map(|m| BalanceLoss::values(m, slot).to_vec()).collect(), series),
                Source::Derived(Derived::GateMass) => {
                    self.metrics.iter().flat_map(|metrics| shares(BalanceLoss::values(metrics, "gate"))).collect()
                }
                Source::Domains => self.domain_agreement(config),
                Source::Host | Source::Clip(_) | Source::RouterGradient | Source::Derived(_) | Source::OfLoad(_) => continue,
            };
            let row = if series.axes.contains(&Axis::Expert) { values.len() / self.metrics.len().max(1) } else { 1 };
            (column.set)(record, &values, row);
        }
    }

    /// NaN for a layer in which it is not defined; empty if it is defined in none.
    fn domain_agreement(&self, config: &Config) -> Vec<f64> {
        let router = &config.model.router;
        let of_layer = |counts: &Vec<f64>| {
            let table: Vec<Vec<f64>> = counts.chunks(router.experts as usize).map(<[f64]>::to_vec).collect();
            domain_agreement(&table, router.top_k)
        };
        let layers: Vec<Option<f64>> = self.domain_counts.iter().map(of_layer).collect();
        if layers.iter().all(Option::is_none) {
            return Vec::new();
        }
        layers.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect()
    }
}

/// Values over their sum.
fn shares(values: &[f64]) -> impl Iterator<Item = f64> {
    let sum: f64 = values.iter().sum();
    values.iter().map(move |value| value / sum)
}

/// The mean over layers, unless the series has a value per layer; empty without layers.
fn over_axes(layers: Vec<Vec<f64>>, series: &Series) -> Vec<f64> {
    if series.axes.contains(&Axis::Layer) {
        return layers.concat();
    }
    let count = layers.len();
    let sum = layers.iter().map(|layer| layer[0]).sum::<f64>();
    if count == 0 { Vec::new() } else { vec![sum / count as f64] }
}

fn clip_slot(name: &str) -> usize {
    ops::clip_slot(name).unwrap_or_else(|| panic!("the gradient norm leaves no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::EvalRecord;

    /// Checks that the table and the kernels agree, so that a misspelt slot is found here, not in a run.
    #[test]
    fn every_row_names_a_slot_that_its_kernel_has() {
        let sources = UpdateRecord::COLUMNS.iter().map(|column| column.series.source);
        for source in sources.chain(EvalRecord::COLUMNS.iter().map(|column| column.series.source)) {
            let is_there = match source {
                Source::Statistics(slot) => LossHead::slot(slot).is_some(),
                Source::Routing(slot) => BalanceLoss::slot(slot, 100).is_some(),
                Source::Clip(slot) => ops::clip_slot(slot).is_some(),
                Source::Host | Source::RouterGradient | Source::Domains | Source::Derived(_) => true,
                // Computed from another row.
                Source::OfLoad(_) => false,
            };
            assert!(is_there, "{source:?}");
        }
        assert!(BalanceLoss::slot("none", 100).is_none());
        assert_eq!(BalanceLoss::slot("mean_probability", 4 + 3 * 3), Some(7..10));
        assert_eq!(BalanceLoss::slot("gate", 4 + 3 * 3), Some(10..13));
    }
}
