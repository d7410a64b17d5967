//! The table of series: what a run records for each update and each evaluation.
//!
//! A metric is declared once, as one row of `records!`: its description, unit, source, reduction over the micro-batches of an
//! update, and summary in a report. The field of the record, the key of the JSON line or the field of the binary array record, the kernel output that
//! `train::reduce` reads, and the line or column of the report are derived from the row. The kind of a row determines its type and
//! axes:
//!
//! | kind | type | axes | kept in |
//! |---|---|---|---|
//! | `count` | `u64` | none | the line |
//! | `flag` | `bool` | none | the line |
//! | `number` | `f64` | none | the line |
//! | `measured` | `Option<f64>`; `null` if not measured | none | the line |
//! | `by_layer` | `Vec<f32>` `[L]`; empty if not measured | layer | the [array record](super::arrays) |
//! | `by_expert` | `Vec<Vec<f32>>` `[L, E]`, likewise | layer, expert | the array record |
//!
//! To add a metric of the routers, compute it in a new slot in `shaders/balance.wgsl` and add a row. A new row must be `measured`,
//! `by_layer` or `by_expert`, so that older records can still be read.
//!
//! Measures of the load ([`LoadMeasure`]) are rows as well, but are not stored: they are computed from the stored load when they are
//! read, so that they cost nothing in a run and exist for runs of earlier releases.
//!
//! The layers of these series are the router calls of one forward pass: blocks, depth steps of a shared block, or blocks in the calls of
//! a recursive network, as [`ModelConfig::router_labels`] names them.
//!
//! Long because it is one table, with the macros that declare it.

use self::Source::{Clip, Host, Routing, Statistics};
use super::{exact, model::ModelConfig, records::Time, routing::LoadMeasure};
use serde::{Deserialize, Serialize};

/// An axis of a series, besides the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// L: the router calls in one forward pass, in order; see [`ModelConfig::router_labels`].
    Layer,
    /// E: the experts of a layer.
    Expert,
}

/// The record that contains a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// [`UpdateRecord`].
    Update,
    /// [`EvalRecord`].
    Eval,
}

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host knows it before the update is submitted.
    Host,
    /// A sum over the targets of a micro-batch: a slot of the loss head's `statistics`.
    Statistics(&'static str),
    /// A slot of the routers' `metrics`, with one value per layer, or per layer and expert. Without the layer axis, the mean over
    /// layers.
    Routing(&'static str),
    /// A slot of `clip`, the output of the gradient norm for the optimizers.
    Clip(&'static str),
    /// The norms of the routers' gradients `[L]`, after the last micro-batch.
    RouterGradient,
    /// Assignments by domain and expert, summed over an evaluation. Only where the domains are known.
    Domains,
    /// Computed from other measurements.
    Derived(Derived),
    /// Computed from the `expert_load` of the same record when it is read; not stored.
    OfLoad(LoadMeasure),
}

/// Values computed from several outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derived {
    /// Mean over layers of E sum_e f_e P_e, with f and P over the whole update.
    BalanceGlobalBatch,
    /// K E sum_e f_e P_e, with f and P over the whole update and all layers.
    BalanceHfMixtral,
    /// Each expert's gate weights over those of all experts of its layer.
    GateMass,
    /// Whether the gradient was not finite.
    Skipped,
}

/// How the micro-batches of an update, or the batches of an evaluation, are reduced to one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// There is one value per update.
    Last,
    /// The sum.
    Sum,
    /// The sum over all targets, divided by their number.
    PerTarget,
    /// Weighted like the gradient: the mean over targets, or the mean of the micro-batches' means (`train.weighting`).
    AsOptimized,
    /// The mean, each micro-batch weighted as its losses are in the gradient.
    ByLosses,
    /// The mean, each micro-batch weighted by its real tokens.
    ByTokens,
    /// The largest.
    Maximum,
}

/// How a report summarises the values of a run's updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summarized {
    /// The mean over the last tenth of the updates.
    Mean,
    /// The largest of the last tenth of the updates, because a single one matters.
    Largest,
    /// The value at the last update, for what only goes up or follows a schedule.
    Last,
}

impl Summarized {
    /// In a report.
    pub fn words(self) -> &'static str {
        match self {
            Summarized::Mean => "mean of the last tenth",
            Summarized::Largest => "largest of the last tenth",
            Summarized::Last => "at the last update",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// The record that it is a field of.
    pub record: RecordKind,
    /// The name of the field, and its key in a line.
    pub name: &'static str,
    /// What a value is counted in; empty for a plain number.
    pub unit: &'static str,
    /// What it has a value for, besides the update.
    pub axes: &'static [Axis],
    /// Its source.
    pub source: Source,
    /// How it is reduced over micro-batches.
    pub reduction: Reduction,
    /// How a report summarises it.
    pub summarized: Summarized,
    text: &'static str,
}

impl Series {
    /// Its description.
    pub fn doc(&self) -> &'static str {
        self.text.trim()
    }

    /// Its name among the series of all records: `train_ce`, `eval.val_ce`.
    pub fn key(&self) -> String {
        match self.record {
            RecordKind::Update => self.name.to_string(),
            RecordKind::Eval => format!("eval.{}", self.name),
        }
    }

    /// Whether it has more than one value an update, and so is stored in array records.
    pub fn is_array(&self) -> bool {
        !self.axes.is_empty()
    }

    /// The rows that are stored, those of updates first.
    pub fn stored() -> impl Iterator<Item = &'static Series> {
        let (updates, evals) = (UpdateRecord::COLUMNS.iter(), EvalRecord::COLUMNS.iter());
        updates.map(|column| &column.series).chain(evals.map(|column| &column.series))
    }

    /// All rows, including those that are computed when they are read.
    pub fn all() -> impl Iterator<Item = &'static Series> {
        Self::stored().chain(MEASURES)
    }

    /// The stored series of the same record from which it is read: itself, or the load.
    pub fn read_from(&self) -> &'static str {
        match self.source {
            Source::OfLoad(_) => LOAD,
            _ => self.name,
        }
    }

    /// Its shape and values from those of the series that [`Series::read_from`] names.
    pub fn derive(&self, shape: &[usize], values: &[f64]) -> (Vec<usize>, Vec<f64>) {
        match (self.source, shape) {
            (Source::OfLoad(measure), [layers, experts]) => {
                (vec![*layers], values.chunks((*experts).max(1)).map(|load| measure.of(load)).collect())
            }
            _ => (shape.to_vec(), values.to_vec()),
        }
    }

    /// The row with this [`Series::key`].
    ///
    /// ```
    /// use moelab::run::series::{Axis, Series};
    ///
    /// let load = Series::find("expert_load").unwrap();
    /// assert_eq!(load.axes, [Axis::Layer, Axis::Expert]);
    /// ```
    pub fn find(key: &str) -> Option<&'static Series> {
        Self::all().find(|series| series.key() == key)
    }
}

/// The series that the measures of the load are computed from.
const LOAD: &str = "expert_load";

/// The rows of the measures of the load, of updates and of evaluations.
macro_rules! measures {
    ($($(#[doc = $doc:literal])+ $name:ident: $unit:literal, $measure:ident;)+) => {
        const MEASURES: &[Series] = &[
            $(measures!(@ Update $name $unit $measure $($doc)+),)+
            $(measures!(@ Eval $name $unit $measure $($doc)+),)+
        ];
    };
    (@ $kind:ident $name:ident $unit:literal $measure:ident $($doc:literal)+) => {
        Series {
            record: RecordKind::$kind,
            name: stringify!($name),
            unit: $unit,
            axes: &[Axis::Layer],
            source: Source::OfLoad(LoadMeasure::$measure),
            reduction: Reduction::Last,
            summarized: Summarized::Mean,
            text: concat!($($doc),+),
        }
    };
}

measures! {
    /// Entropy of the load; ln E at balance, ln K if all tokens go to the same experts.
    load_entropy: "nats", Entropy;
    /// Effective number of experts, exp(entropy of the load), over E; 1 at balance, K / E if all tokens go to the same experts.
    expert_diversity: "", Diversity;
    /// Smallest share of the assignments.
    load_min: "share of assignments", Minimum;
    /// Largest share of the assignments.
    load_max: "share of assignments", Maximum;
    /// Largest over mean share of the assignments; 1 at balance.
    load_imbalance: "", Imbalance;
    /// Coefficient of variation of the load: standard deviation (over E - 1) over mean; 0 at balance.
    load_cv: "", Cv;
    /// Share of the experts without any assignment.
    dead_expert_frac: "share of experts", DeadFraction;
}

/// A row together with its field.
pub struct Column<R> {
    /// The row.
    pub series: Series,
    /// The values of the field, in the order of its axes; empty if not measured.
    pub values: fn(&R) -> Vec<f64>,
    /// The length of each axis of the field.
    pub shape: fn(&R) -> Vec<usize>,
    /// Sets the field from values, rows of the last axis having the given length.
    pub set: fn(&mut R, &[f64], usize),
}

/// A record whose fields are declared in the table.
pub trait Record: Sized + 'static {
    /// Its rows, in the order of its line.
    const COLUMNS: &'static [Column<Self>];
}

/// A field of a record as numbers.
trait Field {
    fn values(&self) -> Vec<f64>;
    fn set(&mut self, values: &[f64], row: usize);

    fn shape(&self) -> Vec<usize> {
        Vec::new()
    }
}

impl Field for u64 {
    fn values(&self) -> Vec<f64> {
        vec![*self as f64]
    }

    fn set(&mut self, values: &[f64], _: usize) {
        *self = values.first().map_or(0, |value| *value as u64);
    }
}

impl Field for bool {
    fn values(&self) -> Vec<f64> {
        vec![f64::from(u8::from(*self))]
    }

    fn set(&mut self, values: &[f64], _: usize) {
        *self = values.first().is_some_and(|value| *value != 0.0);
    }
}

impl Field for f64 {
    fn values(&self) -> Vec<f64> {
        vec![*self]
    }

    fn set(&mut self, values: &[f64], _: usize) {
        *self = values.first().copied().unwrap_or(f64::NAN);
    }
}

impl Field for Option<f64> {
    fn values(&self) -> Vec<f64> {
        self.iter().copied().collect()
    }

    fn set(&mut self, values: &[f64], _: usize) {
        *self = values.first().copied();
    }
}

impl Field for Vec<f32> {
    fn values(&self) -> Vec<f64> {
        self.iter().map(|value| f64::from(*value)).collect()
    }

    fn set(&mut self, values: &[f64], _: usize) {
        *self = values.iter().map(|value| *value as f32).collect();
    }

    fn shape(&self) -> Vec<usize> {
        vec![self.len()]
    }
}

impl Field for Vec<Vec<f32>> {
    fn values(&self) -> Vec<f64> {
        self.iter().flatten().map(|value| f64::from(*value)).collect()
    }

    fn set(&mut self, values: &[f64], row: usize) {
        *self = values.chunks(row.max(1)).map(|row| row.iter().map(|value| *value as f32).collect()).collect();
    }

    fn shape(&self) -> Vec<usize> {
        vec![self.len(), self.first().map_or(0, Vec::len)]
    }
}

macro_rules! axes {
    (by_layer) => {
        &[Axis::Layer]
    };
    (by_expert) => {
        &[Axis::Layer, Axis::Expert]
    };
    ($scalar:ident) => {
        &[]
    };
}

/// Declares the struct of a record from its rows, one by one, because the attribute of a field depends on its kind.
macro_rules! fields {
    ({ $(#[$about:meta])* $record:ident } [$($done:tt)*]) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct $record {
            /// The number of the update, from 1, or the number of finished updates.
            pub update: u32,
            $($done)*
            /// Wall-clock times.
            pub time: Time,
        }
    };
    ($head:tt [$($done:tt)*] { $(#[$doc:meta])* $name:ident count } $($rest:tt)*) => {
        fields!($head [$($done)* $(#[$doc])* pub $name: u64,] $($rest)*);
    };
    ($head:tt [$($done:tt)*] { $(#[$doc:meta])* $name:ident flag } $($rest:tt)*) => {
        fields!($head [$($done)* $(#[$doc])* pub $name: bool,] $($rest)*);
    };
    ($head:tt [$($done:tt)*] { $(#[$doc:meta])* $name:ident number } $($rest:tt)*) => {
        fields!($head [$($done)* $(#[$doc])* #[serde(with = "exact")] pub $name: f64,] $($rest)*);
    };
    ($head:tt [$($done:tt)*] { $(#[$doc:meta])* $name:ident measured } $($rest:tt)*) => {
        fields!($head [$($done)* $(#[$doc])* #[serde(with = "exact::option", default)] pub $name: Option<f64>,] $($rest)*);
    };
    ($head:tt [$($done:tt)*] { $(#[$doc:meta])* $name:ident by_layer } $($rest:tt)*) => {
        fields!($head [$($done)* $(#[$doc])* #[serde(with = "exact::list", default, skip_serializing_if = "Vec::is_empty")] pub $name: Vec<f32>,] $($rest)*);
    };
    ($head:tt [$($done:tt)*] { $(#[$doc:meta])* $name:ident by_expert } $($rest:tt)*) => {
        fields!($head [$($done)* $(#[$doc])* #[serde(with = "exact::table", default, skip_serializing_if = "Vec::is_empty")] pub $name: Vec<Vec<f32>>,] $($rest)*);
    };
}

/// Declares records, with one row `name: kind, unit, source, reduction;` per series. A fifth field says how a report summarises it,
/// if not by its mean.
macro_rules! records {
    ($(
        $(#[$about:meta])*
        record $record:ident($kind:ident) {
            $($(#[doc = $doc:literal])+ $name:ident: $type:ident, $unit:literal, $source:expr, $reduction:ident $(, $summarized:ident)?;)+
        }
    )+) => {$(
        fields!({ $(#[$about])* $record } [] $({ $(#[doc = $doc])+ $name $type })+);

        impl Record for $record {
            const COLUMNS: &'static [Column<Self>] = &[$(Column {
                series: Series {
                    record: RecordKind::$kind,
                    name: stringify!($name),
                    unit: $unit,
                    axes: axes!($type),
                    source: $source,
                    reduction: Reduction::$reduction,
                    summarized: [$(Summarized::$summarized,)? Summarized::Mean][0],
                    text: concat!($($doc),+),
                },
                values: |record| record.$name.values(),
                shape: |record| record.$name.shape(),
                set: |record, values, row| Field::set(&mut record.$name, values, row),
            },)+];
        }
    )+};
}

records! {
    /// One optimizer update. Losses are in nats, means over the update's targets or real tokens, or over its micro-batches' means,
    /// depending on `train.weighting`, without padding. Routing is not measured in a model without routers.
    record UpdateRecord(Update) {
        /// Micro-steps since the start of the run.
        micro_steps: count, "micro-steps", Host, Last, Last;
        /// Tokens seen since the start of the run, without padding.
        tokens: count, "tokens", Host, Last, Last;
        /// Training cross-entropy, without auxiliary losses.
        train_ce: number, "nats per token", Statistics("cross_entropy"), AsOptimized;
        /// Load-balancing loss before its coefficient; 1 at perfect balance (sum over layers divided by their number).
        balance: measured, "", Routing("switch"), ByLosses;
        /// The same within each sequence, then the mean over sequences (DeepSeek-V3); 1 at balance.
        balance_sequence: measured, "", Routing("sequence"), ByLosses;
        /// The same with the shares of the whole update's assignments; 1 at balance.
        balance_global_batch: measured, "", Source::Derived(Derived::BalanceGlobalBatch), ByTokens;
        /// Over the tokens of all layers together, the K choices summed (Hugging Face Mixtral); K at balance.
        balance_hf_mixtral: measured, "", Source::Derived(Derived::BalanceHfMixtral), ByTokens;
        /// Router z-loss before its coefficient.
        z: measured, "", Routing("z"), ByLosses;
        /// Share of targets that were the most probable token.
        accuracy: number, "share of targets", Statistics("correct"), PerTarget;
        /// L2 norm of the whole gradient before clipping.
        grad_norm: number, "", Clip("norm"), Last, Largest;
        /// Factor on the gradient; 1 if it was not clipped.
        clip_factor: number, "", Clip("factor"), Last;
        /// Learning rate of AdamW in this update.
        lr_adamw: number, "", Host, Last, Last;
        /// Learning rate of Muon in this update.
        lr_muon: number, "", Host, Last, Last;
        /// Whether the update was skipped because its loss or gradient was not finite.
        skipped: flag, "", Source::Derived(Derived::Skipped), Last;
        /// Share of the assignments that each expert took; every layer's add up to 1.
        expert_load: by_expert, "share of assignments", Routing("load"), ByTokens;
        /// Mean entropy of the router's distribution over experts.
        router_entropy: by_layer, "nats", Routing("entropy"), ByTokens;
        /// Router z-loss of each layer before its coefficient: mean square of the logsumexp of a token's logits.
        router_z: by_layer, "", Routing("z"), ByTokens;
        /// L2 norm of the gradient of the router's weight over the whole update, before clipping. Calls that share a router share
        /// its gradient, and have the same value.
        router_grad_norm: by_layer, "", Source::RouterGradient, Last;
    }

    /// One evaluation: cross-entropy alone, weighted by tokens, over a fixed set.
    record EvalRecord(Eval) {
        /// Cross-entropy.
        val_ce: number, "nats per token", Statistics("cross_entropy"), PerTarget;
        /// Share of targets that were the most probable token.
        accuracy: number, "share of targets", Statistics("correct"), PerTarget;
        /// Number of targets in the set.
        targets: count, "targets", Statistics("targets"), Sum;
        /// Share of the assignments that each expert took.
        expert_load: by_expert, "share of assignments", Routing("load"), ByTokens;
        /// Mean entropy of the router's distribution over experts.
        router_entropy: by_layer, "nats", Routing("entropy"), ByTokens;
        /// Router z-loss of each layer before its coefficient: mean square of the logsumexp of a token's logits.
        router_z: by_layer, "", Routing("z"), ByTokens;
        /// Share of the gate weights that each expert got; equal to its load if it weighs as much as it is used.
        gate_mass: by_expert, "share of gate weights", Source::Derived(Derived::GateMass), ByTokens;
        /// Agreement of experts with the known domains of the corpus: normalized mutual information of expert and domain, adjusted for
        /// chance; 0 if experts ignore domains. Not measured if the corpus has no domains or the router no choice.
        domain_nmi: by_layer, "", Source::Domains, Sum;
    }
}

/// The lengths of the axes in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// L: router calls in one forward pass; 0 without routers.
    pub layers: usize,
    /// E: experts per layer.
    pub experts: usize,
}

impl Lengths {
    /// The axes of a model.
    pub fn of(model: &ModelConfig) -> Lengths {
        match model.router_calls() {
            0 => Lengths::default(),
            layers => Lengths { layers: layers as usize, experts: model.experts().0 as usize },
        }
    }

    /// The length of each axis of a series.
    pub fn shape(&self, series: &Series) -> Vec<usize> {
        let length = |axis: &Axis| match axis {
            Axis::Layer => self.layers,
            Axis::Expert => self.experts,
        };
        series.axes.iter().map(length).collect()
    }
}
