//! Gates: when a study ends a run before its last stage. The options of the rules; [`lab::gates`](crate::lab::gates) applies them.
//!
//! Defaults are the thresholds of the study that proposed the rules, where it states them.

use crate::config_file::{self, Problems, Root};
use crate::{choices, options};

choices! {
    /// The rule that decides whether a run is stopped or promoted to the next stage.
    pub enum GateRule {
        /// every run makes all its updates.
        Off = "none",
        /// stops a run that no longer improves, promotes one that is better than the reference at the same number of updates.
        StopPromote = "stop_promote",
        /// stops a run whose gap to the reference is too large at first, or grows, or whose routing collapses.
        Gap = "gap",
        /// at the end of each stage, promotes a share of the arms, judged by their mean over the seeds that all of them have.
        Halving = "halving",
        /// stops a run after a number of evaluations without improvement.
        EarlyStopping = "early_stopping",
        /// rates the loss that a smaller model pays for its size: excellent, good, marginal or weak.
        HalfParameters = "half_parameters",
    }
}

choices! {
    /// What happens at the end of a stage to a run that the rule neither stops nor promotes.
    pub enum Undecided {
        /// it is promoted.
        Promote = "promote",
        /// it is stopped.
        Stop = "stop",
    }
}

options! {
    /// Gates: when a run is stopped, and when it is promoted to the next stage. Losses are validation cross-entropies in nats per
    /// token, without auxiliary losses.
    pub struct GateOptions: length {
        /// The rule.
        rule: GateRule = GateRule::Off;
        /// What happens at the end of a stage to a run that the rule neither stops nor promotes.
        #[when("gates.rule" = "stop_promote" | "gap" | "early_stopping" | "half_parameters")]
        undecided: Undecided = Undecided::Promote;
        /// When a run is stopped: all conditions hold.
        #[when("gates.rule" = "stop_promote")]
        stop: StopOptions;
        /// When a run is promoted: one condition holds.
        #[when("gates.rule" = "stop_promote")]
        promote: PromoteOptions;
        /// When routing counts as better, and when as collapsed.
        #[when("gates.rule" = "stop_promote" | "gap")]
        routing: RoutingOptions;
        /// The allowed gap to the reference.
        #[when("gates.rule" = "gap")]
        gap: GapOptions;
        /// Successive halving.
        #[when("gates.rule" = "halving")]
        halving: HalvingOptions;
        /// Early stopping.
        #[when("gates.rule" = "early_stopping")]
        early_stopping: PatienceOptions;
        /// Bounds of the ratings of a smaller model.
        #[when("gates.rule" = "half_parameters")]
        half_parameters: HalfParameterOptions;
    }
}

options! {
    /// A run is stopped if its validation loss, its training loss and its routing have all stopped improving.
    pub struct StopOptions: length {
        /// Number of last evaluations, none of which improved.
        evaluations: u32 = 3 => 1..=1000;
        /// An evaluation improves if it is more than this below the best one before it.
        min_gain: f64 = 0.02 => 0.0..=10.0;
        /// Updates over which the slope of the training loss is fitted; 0 for those since the evaluation before the last.
        window: u32 = 0 => 0..=100_000_000;
        /// The training loss is flat if its least-squares slope, times the length of the window, is smaller than this.
        flat: f64 = 0.02 => 0.0..=10.0;
    }
}

options! {
    /// A run is promoted if it is clearly better than the reference, or equally good with better routing or at a lower cost.
    pub struct PromoteOptions: length {
        /// Promotes a run that is at least this much below the reference.
        margin: f64 = 0.05 => 0.0..=10.0;
        /// Losses that differ by at most this count as equal.
        noise: f64 = 0.02 => 0.0..=10.0;
        /// Share by which the FLOP per token, or the number of parameters, must be lower to count as a lower cost.
        efficiency: f64 = 0.05 => 0.0..=1.0;
    }
}

options! {
    /// When routing counts as better, and when as collapsed.
    pub struct RoutingOptions: length {
        /// Increase of the entropy of the experts' load, as a share of its maximum, that counts as better.
        entropy_gain: f64 = 0.005 => 0.0..=1.0;
        /// Decrease of the load of the busiest expert, relative to what it was, that counts as better.
        load_gain: f64 = 0.02 => 0.0..=1.0;
        /// A layer has collapsed if the spread of its load is below this: 0 if all tokens go to the same K experts, 1 if all E
        /// experts have the same load.
        collapse: f64 = 0.1 => 0.0..=1.0;
    }
}

options! {
    /// The gap to the reference, at the same number of updates.
    pub struct GapOptions: length {
        /// The largest gap at the first evaluation.
        first: f64 = 0.1 => 0.0..=10.0;
        /// Growth of the gap since the first evaluation that counts as widening.
        widening: f64 = 0.02 => 0.0..=10.0;
    }
}

options! {
    /// Successive halving: the end of each stage is a rung.
    pub struct HalvingOptions: length {
        /// Share of the arms, the control aside, that are promoted; rounded up. The control is always promoted.
        keep: f64 = 0.5 => 0.01..=1.0;
        /// Arms whose mean is at most this above that of the last promoted arm are promoted as well.
        tie: f64 = 0.0 => 0.0..=10.0;
    }
}

options! {
    /// Early stopping.
    pub struct PatienceOptions: length {
        /// Number of evaluations without improvement after which a run is stopped.
        patience: u32 = 30 => 1..=1_000_000;
        /// An evaluation improves if it is more than this below the last one that did. Smaller gains accumulate.
        min_delta: f64 = 0.001 => 0.0..=10.0;
    }
}

options! {
    /// Bounds on the increase of the loss, as a share of the reference's.
    pub struct HalfParameterOptions: length {
        /// Excellent below this.
        excellent: f64 = 0.03 => 0.0..=10.0;
        /// Good up to this.
        good: f64 = 0.07 => 0.0..=10.0;
        /// Marginal up to this, weak beyond.
        marginal: f64 = 0.1 => 0.0..=10.0;
    }
}

options! {
    /// The table `[gates]` of a study, alone.
    pub struct GatesFile: length {
        /// Gates.
        gates: GateOptions;
    }
}

impl Root for GatesFile {
    const SYNONYMS: &'static [(&'static str, &'static [&'static str])] =
        &[("patience", &["gates.early_stopping.patience"]), ("min_delta", &["gates.early_stopping.min_delta"])];
}

/// The options that `sets` (each `key=value`, for example `gates.rule=gap`) make of the defaults.
///
/// # Errors
/// Every problem of `sets`.
pub fn load(sets: &[String]) -> Result<GateOptions, Problems> {
    Ok(config_file::load::<GatesFile>(&|_| Ok(String::new()), "gates", sets).finish()?.gates)
}
