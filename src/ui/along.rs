//! What an x axis counts, and where the updates of a run lie on it.

use std::hash::{Hash, Hasher};

use crate::{
    lab::workspace::Facts,
    run::{Config, suite::flop_per_update},
};

/// What the x axis counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Along {
    /// Updates.
    #[default]
    Updates,
    /// Tokens seen.
    Tokens,
    /// Floating-point operations of training.
    Flop,
    /// Seconds since the start.
    Seconds,
}

impl Along {
    /// All, in the order in which they are offered.
    pub const ALL: [Along; 4] = [Along::Updates, Along::Tokens, Along::Flop, Along::Seconds];

    /// Its name.
    pub fn words(self) -> &'static str {
        match self {
            Along::Updates => "updates",
            Along::Tokens => "tokens",
            Along::Flop => "FLOP",
            Along::Seconds => "seconds",
        }
    }
}

/// Where the updates of a run lie on the x axis.
pub struct Place {
    along: Along,
    /// Tokens and floating-point operations of an update.
    tokens: f64,
    flop: f64,
    /// Update and seconds, from evaluations.
    seconds: Vec<[f64; 2]>,
}

impl Place {
    /// Where those of a run lie, as far as its config and its facts are known.
    pub fn new(along: Along, config: Option<&Config>, facts: Option<&Facts>) -> Place {
        let (tokens, flop) = match config {
            Some(config) if along != Along::Updates => (config.tokens_per_update() as f64, flop_per_update(config)),
            _ => (1.0, 1.0),
        };
        let evaluations = facts.map(|facts| facts.evaluations.as_slice()).unwrap_or_default();
        let seconds = std::iter::once([0.0, 0.0]).chain(evaluations.iter().map(|point| [f64::from(point.update), point.seconds])).collect();
        Place { along, tokens, flop, seconds }
    }

    /// The place of an update.
    pub fn of(&self, update: u32) -> f64 {
        let update = f64::from(update);
        match self.along {
            Along::Updates => update,
            Along::Tokens => update * self.tokens,
            Along::Flop => update * self.flop,
            Along::Seconds => {
                // Between two evaluations by proportion; beyond the last at the pace so far.
                let after = self.seconds.partition_point(|point| point[0] < update).clamp(1, self.seconds.len().max(2) - 1);
                let (Some([u0, t0]), Some([u1, t1])) = (self.seconds.get(after - 1), self.seconds.get(after)) else { return f64::NAN };
                t0 + (update - u0) * (t1 - t0) / (u1 - u0).max(1.0)
            }
        }
    }
}

/// Of all that [`Place::of`] depends on.
impl Hash for Place {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let last = self.seconds.last().map_or(0, |point| point[1].to_bits());
        (self.along, self.tokens.to_bits(), self.flop.to_bits(), self.seconds.len(), last).hash(hasher);
    }
}
