//! What is concluded from runs.

use serde::{Deserialize, Serialize};

use crate::run::Config;
use crate::run::model::cost;

/// "This arm is better than that one in this metric."
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The arm that is said to be better.
    pub better: String,
    /// The arm that it is compared with.
    pub than: String,
    /// The metric.
    pub metric: String,
    /// The evaluation; `None` for the final value.
    #[serde(default)]
    pub at: Option<u64>,
    /// The keys, or tables of keys, to which the difference is attributed; empty if it is only stated.
    #[serde(default)]
    pub because: Vec<String>,
}

impl Comparison {
    /// Whether the difference is attributed to this key, or to the table that it is in.
    pub fn is_because(&self, key: &str) -> bool {
        let covers = |of: &String| key.strip_prefix(of.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.because.iter().any(covers)
    }

    /// Whether a larger value is better.
    pub fn larger_is_better(&self) -> bool {
        self.metric.contains("accuracy")
    }
}

/// What a match between two arms is said to keep equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// All parameters.
    Total,
    /// Parameters that a token uses.
    Active,
    /// Weights of FFNs that a token reads over all depths, 2 D K F L.
    ActiveFfn,
    /// Floating-point operations of a token's forward pass.
    ForwardFlop,
}

impl Quantity {
    /// Its value for a config.
    pub fn of(self, config: &Config) -> f64 {
        let (model, specs) = (&config.model, config.parameters());
        let (_, k) = model.experts();
        match self {
            Self::Total => cost::counts(model, &specs).total as f64,
            Self::Active => cost::counts(model, &specs).active as f64,
            Self::ActiveFfn => [2, model.width, k, model.ffn.width, model.depth.layers].into_iter().map(f64::from).product(),
            Self::ForwardFlop => cost::cost(model, &specs, config.data.sequence_length).forward_flops_per_token as f64,
        }
    }

    /// As text.
    pub fn words(self) -> &'static str {
        match self {
            Self::Total => "parameters",
            Self::Active => "active parameters",
            Self::ActiveFfn => "active FFN reads per token",
            Self::ForwardFlop => "FLOP per token",
        }
    }
}

/// The substance of a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    /// Arms are better than others.
    Better(Vec<Comparison>),
    /// Two arms are equal in a quantity.
    Matches {
        /// The arm.
        arm: String,
        /// The arm that it is matched to.
        to: String,
        /// What is said to be equal.
        quantity: Quantity,
    },
    /// A setting and a metric are correlated over the arms.
    Correlates {
        /// A recorded setting.
        setting: String,
        /// A metric.
        metric: String,
        /// The published coefficient.
        r: f64,
    },
    /// The share of the parameters that a token uses.
    ActiveShare {
        /// The arm.
        arm: String,
        /// The published share.
        share: f64,
    },
    /// The model of an arm is the one that its config describes, with this number of parameters.
    Model {
        /// The arm.
        arm: String,
        /// What the model is called.
        declared: String,
        /// The published number of parameters.
        total: u64,
    },
    /// The loss rises at this update for a reason other than the data.
    Rises {
        /// The arm.
        arm: String,
        /// From this evaluation on.
        from: u64,
    },
}

/// A sentence that someone concludes from the runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The sentence.
    pub text: String,
    /// Its substance.
    pub says: Statement,
    /// Whether it is about text that the model was trained on, so that overlap with validation does not matter.
    #[serde(default)]
    pub of_training_text: bool,
}

impl Claim {
    /// Its comparisons.
    pub fn comparisons(&self) -> &[Comparison] {
        match &self.says {
            Statement::Better(comparisons) => comparisons,
            _ => &[],
        }
    }
}
