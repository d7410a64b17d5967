//! Reduces the kernel outputs of an update's micro-batches to the record of the update, and those of an evaluation's batches to the
//! record of the evaluation, by the table of series.
//!
//! The row of a series defines the slot and output that it reads, and how micro-batches are reduced
//! ([`run::series`](crate::run::series)); ops provide the position of a slot in an output. Sums are in f64, in the order of the
//! micro-batches.

use super::engine::{EvalOutputs, UpdateOutputs};
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
    pub outputs: &'a UpdateOutputs,
    /// The weights of each micro-batch.
    pub weights: &'a [MicroWeight],
    pub config: &'a Config,
}

/// Buffers that the reduction of the next update reuses.
#[derive(Default)]
pub(super) struct Scratch {
    values: Vec<f64>,
    loads: Vec<f64>,
    probabilities: Vec<f64>,
}

impl Reduced<'_> {
    /// Sets every series of the record that does not come from the host.
    pub fn write(&self, record: &mut UpdateRecord, scratch: &mut Scratch) {
        let layers = self.outputs.layers();
        for column in UpdateRecord::COLUMNS {
            let (series, values) = (&column.series, &mut scratch.values);
            values.clear();
            match series.source {
                Source::Statistics(slot) => values.push(self.statistic(slot, series.reduction)),
                Source::Clip("factor") => values.push(f64::from(self.outputs.clip[clip_slot("factor")]) * self.loss_scale()),
                Source::Clip(slot) => values.push(f64::from(self.outputs.clip[clip_slot(slot)])),
                Source::Routing(slot) => {
                    self.routing(slot, series.reduction, values);
                    over_axes(values, layers, series);
                }
                Source::RouterGradient => values.extend(self.outputs.router_norms.iter().map(|norm| f64::from(*norm))),
                Source::Derived(derived) => values.extend(self.derived(derived, &mut scratch.loads, &mut scratch.probabilities)),
                Source::Host | Source::Domains | Source::OfLoad(_) => continue,
            }
            let row = if series.axes.contains(&Axis::Expert) { values.len() / layers.max(1) } else { 1 };
            (column.set)(record, values, row);
        }
    }

    fn statistic(&self, slot: &str, reduction: Reduction) -> f64 {
        let slot = LossHead::slot(slot).unwrap_or_else(|| panic!("the loss head has no slot {slot}"));
        let targets = LossHead::slot("targets").unwrap_or_default();
        let micro_batches = || {
            let statistics = self.outputs.micro_batches().map(|outputs| outputs.statistics());
            statistics.map(move |statistics| (f64::from(statistics[slot]), f64::from(statistics[targets])))
        };
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

    /// Replaces `reduced` by the values of a slot, [L] or [L, E], reduced over the micro-batches.
    fn routing(&self, slot: &str, reduction: Reduction, reduced: &mut Vec<f64>) {
        reduced.clear();
        for (outputs, weight) in self.outputs.micro_batches().zip(self.weights) {
            let mut place = 0;
            for metrics in outputs.routing() {
                let values = BalanceLoss::values(metrics, slot);
                assert!(!values.is_empty(), "the routers' metrics have no slot {slot}");
                let end = place + values.len();
                let first = if reduction == Reduction::Maximum { f64::NEG_INFINITY } else { 0.0 };
                reduced.resize(reduced.len().max(end), first);
                for (sum, value) in reduced[place..end].iter_mut().zip(values.iter().map(|value| f64::from(*value))) {
                    match reduction {
                        // Keeps non-finite values, which `f64::max` would drop.
                        Reduction::Maximum if value.is_nan() || sum.is_nan() => *sum = f64::NAN,
                        Reduction::Maximum => *sum = sum.max(value),
                        Reduction::ByLosses => *sum += value * weight.of_losses,
                        _ => *sum += value * weight.of_tokens,
                    }
                }
                place = end;
            }
        }
    }

    /// The factor of the clip is that of the scaled gradients.
    fn loss_scale(&self) -> f64 {
        (1_u64 << self.config.loss_scale_exponent()) as f64
    }

    /// `None` for routing series in a model without a router. The buffers are its own.
    fn derived(&self, derived: Derived, loads: &mut Vec<f64>, probabilities: &mut Vec<f64>) -> Option<f64> {
        match derived {
            Derived::Skipped => {
                let is_finite = self.outputs.clip[clip_slot("finite")].to_bits() != 0;
                return Some(f64::from(u8::from(!is_finite)));
            }
            // Measured in evaluations only.
            Derived::GateMass => return None,
            Derived::BalanceGlobalBatch | Derived::BalanceHfMixtral => {}
        }
        let layers = self.outputs.layers();
        if layers == 0 {
            return None;
        }
        self.routing("load", Reduction::ByTokens, loads);
        self.routing("mean_probability", Reduction::ByTokens, probabilities);
        let experts = loads.len() / layers;
        let product = |load: &dyn Fn(usize) -> f64, probability: &dyn Fn(usize) -> f64| {
            experts as f64 * (0..experts).map(|e| load(e) * probability(e)).sum::<f64>()
        };
        if derived == Derived::BalanceGlobalBatch {
            let by_layer = loads.chunks(experts).zip(probabilities.chunks(experts)).map(|(f, p)| product(&|e| f[e], &|e| p[e]));
            return Some(by_layer.sum::<f64>() / layers as f64);
        }
        let over_layers = |rows: &[f64], e: usize| rows.chunks(experts).map(|row| row[e]).sum::<f64>() / layers as f64;
        let pooled = product(&|e| over_layers(loads, e), &|e| over_layers(probabilities, e));
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
                Source::Routing(slot) => {
                    let mut values = self.metrics.iter().flat_map(|metrics| BalanceLoss::values(metrics, slot)).copied().collect();
                    over_axes(&mut values, self.metrics.len(), series);
                    values
                }
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

/// Replaces the values of all layers by the mean of the layers' first, unless the series has values per layer.
fn over_axes(values: &mut Vec<f64>, layers: usize, series: &Series) {
    if layers == 0 || series.axes.contains(&Axis::Layer) {
        return;
    }
    let sum = values.chunks(values.len() / layers).map(|layer| layer[0]).sum::<f64>();
    values.clear();
    values.push(sum / layers as f64);
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
