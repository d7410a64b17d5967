//! Matching: changes a size of one config until it has as many parameters, as much arithmetic or as long an update as another.
//!
//! A claim such as "the same active compute" names its [`Quantity`]. Sizes are integers, so a match has a rounding difference, which is
//! reported with the neighbouring sizes and with every other quantity of both configs ([`compare`]): matching one rarely matches another.
//!
//! [`solve`] finds the size whose quantity is closest to the target (or closest below it); all quantities grow with every size in
//! `SIZES`. With several sizes, the last is solved for every combination of the others within their ranges. Sizes that no config may
//! have, such as a width that its heads do not divide, are skipped. [`solve_measured`] does the same for the duration of an update: it takes
//! the FLOP per update as its first guess, measures, and corrects the guess by the secant through its measurements.
//!
//! Long because the sizes, the quantities and the search for a match are read together.

use std::{fmt::Write, ops::RangeInclusive};

use crate::{
    config_file::{Kind, Value},
    run::{
        Config,
        model::cost::{Counts, cost, counts},
    },
};

/// Largest number of combinations of the first sizes.
const MOST_COMBINATIONS: usize = 4096;
/// Most values that are skipped because no config may have them.
const MOST_SKIPPED: u32 = 4096;
/// Candidates of [`solve_measured`] that are measured.
const MEASUREMENTS: usize = 3;

/// Why nothing can be matched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// No [`Quantity`] has this name.
    #[error("`{name}` cannot be matched; one of: {}", Quantity::all().map(Quantity::name).collect::<Vec<_>>().join(", "))]
    Quantity {
        /// As given.
        name: String,
    },
    /// No size has this name.
    #[error("`{name}` cannot be varied; one of: {}", SIZES.map(|size| format!("{} ({})", size.key, size.aliases.join(", "))).join(", "))]
    Size {
        /// As given.
        name: String,
    },
    /// The range of a size cannot be read.
    #[error("`{range}` is not a range of `{key}`; for example 16..48")]
    Range {
        /// Of the size.
        key: &'static str,
        /// As given.
        range: String,
    },
    /// No value of a size is in its range.
    #[error("no value from {} to {} of `{key}`, which may be {} to {}", range.start(), range.end(), allowed.start(), allowed.end())]
    EmptyRange {
        /// Of the size.
        key: &'static str,
        /// What remains of the range given.
        range: RangeInclusive<u32>,
        /// What a config may have.
        allowed: RangeInclusive<u32>,
    },
    /// No size was given.
    #[error("nothing to vary")]
    NoSize,
    /// The sizes before the last have too many combinations.
    #[error("more than {} combinations; give `{key}` a range, for example {key}=16..48", MOST_COMBINATIONS)]
    Combinations {
        /// Of the size whose range is too wide.
        key: &'static str,
    },
    /// The last size changes nothing.
    #[error("what is to be matched does not depend on `{key}`: vary another size")]
    Independent {
        /// Of the last size.
        key: &'static str,
    },
    /// No config may have any value of the last size within its range.
    #[error("no valid value of `{key}` from {} to {}", range.start(), range.end())]
    NoValid {
        /// Of the last size.
        key: &'static str,
        /// Its range.
        range: RangeInclusive<u32>,
    },
    /// No measurement gave a duration.
    #[error("nothing was measured")]
    NotMeasured,
}

/// What is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// All parameters.
    Total,
    /// FFN weights that a token uses over the whole depth, 2 D K F L.
    Active,
    /// FFN weights that a token uses in one layer, 2 D K F.
    ActivePerLayer,
    /// Parameters that a token can use, each counted once.
    UniqueActive,
    /// FLOP of training on one token, forward and backward.
    Flops,
    /// Duration of an update, in milliseconds, measured.
    WallClock,
}

impl Quantity {
    /// All that follow from a config.
    pub const COUNTED: [Quantity; 5] =
        [Quantity::Total, Quantity::Active, Quantity::ActivePerLayer, Quantity::UniqueActive, Quantity::Flops];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Total => "total",
            Quantity::Active => "active",
            Quantity::ActivePerLayer => "active-per-layer",
            Quantity::UniqueActive => "unique-active",
            Quantity::Flops => "flops",
            Quantity::WallClock => "wall-clock",
        }
    }

    /// What it is, in words.
    pub fn words(self) -> &'static str {
        match self {
            Quantity::Total => "parameters",
            Quantity::Active => "FFN weights in use per token over the depth",
            Quantity::ActivePerLayer => "FFN weights in use per token and layer",
            Quantity::UniqueActive => "parameters that a token can use",
            Quantity::Flops => "FLOP of training per token",
            Quantity::WallClock => "milliseconds per update",
        }
    }

    /// By its name.
    ///
    /// # Errors
    /// If there is no such quantity, with those that there are.
    pub fn parse(name: &str) -> Result<Quantity, MatchError> {
        let unknown = || MatchError::Quantity { name: name.to_owned() };
        Self::all().find(|quantity| quantity.name() == name).ok_or_else(unknown)
    }

    fn all() -> impl Iterator<Item = Quantity> {
        Self::COUNTED.into_iter().chain([Quantity::WallClock])
    }

    /// Its value; NaN for one that has to be measured.
    pub fn of(self, config: &Config) -> f64 {
        let specs = config.parameters();
        let Counts { total, unique_active, ffn_per_layer, ffn_over_depth, .. } = counts(&config.model, &specs);
        let value = match self {
            Quantity::Total => total,
            Quantity::Active => ffn_over_depth,
            Quantity::ActivePerLayer => ffn_per_layer,
            Quantity::UniqueActive => unique_active,
            Quantity::Flops => {
                let cost = cost(&config.model, &specs, config.data.sequence_length);
                cost.forward_flops_per_token + cost.backward_flops_per_token
            }
            Quantity::WallClock => return f64::NAN,
        };
        value as f64
    }
}

/// A size that can be varied.
struct Size {
    /// Its key.
    key: &'static str,
    /// Short names.
    aliases: &'static [&'static str],
    of: fn(&mut Config) -> &mut u32,
}

/// The sizes that can be varied.
const SIZES: [Size; 5] = [
    Size { key: "model.ffn.width", aliases: &["expert_width", "d_ff"], of: |config| &mut config.model.ffn.width },
    Size { key: "model.router.experts", aliases: &["experts"], of: |config| &mut config.model.router.experts },
    Size { key: "model.router.top_k", aliases: &["top_k"], of: |config| &mut config.model.router.top_k },
    Size { key: "model.depth.layers", aliases: &["layers"], of: |config| &mut config.model.depth.layers },
    Size { key: "model.width", aliases: &["d_model"], of: |config| &mut config.model.width },
];

/// A size to vary, within a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    index: usize,
    range: RangeInclusive<u32>,
}

impl Vary {
    /// From a key, with or without `model.`, or a short name, and a range: `ffn.width`, `experts=16..48` (both included). Without a range,
    /// all values that the key may have.
    ///
    /// # Errors
    /// If there is no such size, or its range is empty.
    pub fn parse(text: &str) -> Result<Vary, MatchError> {
        let (name, range) = text.split_once('=').map_or((text, None), |(name, range)| (name.trim(), Some(range.trim())));
        let names = |size: &Size| size.key == name || size.key.strip_prefix("model.") == Some(name) || size.aliases.contains(&name);
        let index = SIZES.iter().position(names).ok_or_else(|| MatchError::Size { name: name.to_owned() })?;
        let key = SIZES[index].key;
        let (least, most) = match Config::kind().find(key) {
            Some(Kind::Integer { min, max }) => (*min as u32, *max as u32),
            _ => (1, u32::MAX),
        };
        let Some(range) = range else { return Ok(Vary { index, range: least..=most }) };
        let bounds = range.split_once("..").map_or((range, range), |(low, high)| (low, high.trim_start_matches('=')));
        let (Ok(low), Ok(high)) = (bounds.0.parse::<u32>(), bounds.1.parse::<u32>()) else {
            return Err(MatchError::Range { key, range: range.to_owned() });
        };
        let (low, high) = (low.max(least), high.min(most));
        if low > high {
            return Err(MatchError::EmptyRange { key, range: low..=high, allowed: least..=most });
        }
        Ok(Vary { index, range: low..=high })
    }

    /// The key.
    pub fn key(&self) -> &'static str {
        SIZES[self.index].key
    }

    fn value(&self, config: &Config) -> u32 {
        *(SIZES[self.index].of)(&mut config.clone())
    }

    fn set(&self, config: &Config, value: u32) -> Config {
        let mut changed = config.clone();
        *(SIZES[self.index].of)(&mut changed) = value;
        changed
    }

    /// The range within which counts can be taken: no token goes to more experts than there are.
    fn countable(&self, config: &Config) -> (u32, u32) {
        let (low, high) = (*self.range.start(), *self.range.end());
        match self.key() {
            "model.router.experts" => (low.max(config.model.router.top_k), high),
            "model.router.top_k" => (low, high.min(config.model.router.experts)),
            _ => (low, high),
        }
    }
}

/// A config that was matched.
#[derive(Clone, Debug, PartialEq)]
pub struct Matched {
    /// The config.
    pub config: Config,
    /// Each varied key with its value before and after.
    pub changes: Vec<(&'static str, u32, u32)>,
    /// The value that was wanted.
    pub target: f64,
    /// The value of the config.
    pub value: f64,
    /// The next smaller and the next larger value of the last key, each with the quantity it would give.
    pub neighbours: Vec<(u32, f64)>,
}

impl Matched {
    /// The difference from the target, as a share of it.
    pub fn error(&self) -> f64 {
        self.value / self.target - 1.0
    }
}

/// Varies `sizes` of `base` until `of` is as close to `target` as it can be; not above it, if `at_most`.
///
/// # Errors
/// If `of` does not depend on the last size, or no valid config was found.
pub fn solve(base: &Config, target: f64, sizes: &[Vary], at_most: bool, of: &dyn Fn(&Config) -> f64) -> Result<Matched, MatchError> {
    let Some((last, others)) = sizes.split_last() else { return Err(MatchError::NoSize) };
    let mut bases = vec![base.clone()];
    for size in others {
        let values = || size.range.clone();
        if bases.len().saturating_mul(values().count()) > MOST_COMBINATIONS {
            return Err(MatchError::Combinations { key: size.key() });
        }
        bases = bases.iter().flat_map(|config| values().map(|value| size.set(config, value))).collect();
    }
    let mut best: Option<(Config, u32, f64)> = None;
    let mut depends = false;
    for config in &bases {
        let (low, high) = last.countable(config);
        if low > high {
            continue;
        }
        let at = |value: u32| of(&last.set(config, value));
        depends |= at(low) != at(high);
        // The largest value at or below the target, or the smallest of all.
        let (mut below, mut above) = (low, high + 1);
        while above - below > 1 {
            let middle = below + (above - below) / 2;
            if at(middle) <= target { below = middle } else { above = middle }
        }
        let candidates = [valid(last, config, below, low, Down), valid(last, config, below + 1, high, Up)];
        for value in candidates.into_iter().flatten() {
            let found = at(value);
            let is_allowed = !at_most || found <= target;
            if is_allowed && best.as_ref().is_none_or(|(_, _, best)| (found - target).abs() < (best - target).abs()) {
                best = Some((config.clone(), value, found));
            }
        }
    }
    if !depends {
        return Err(MatchError::Independent { key: last.key() });
    }
    let Some((config, value, found)) = best else {
        return Err(MatchError::NoValid { key: last.key(), range: last.range.clone() });
    };
    let (low, high) = last.countable(&config);
    let around = [value.checked_sub(1).and_then(|below| valid(last, &config, below, low, Down)), valid(last, &config, value + 1, high, Up)];
    let neighbours = around.into_iter().flatten().map(|near| (near, of(&last.set(&config, near)))).collect();
    let config = last.set(&config, value);
    let changes = sizes.iter().map(|size| (size.key(), size.value(base), size.value(&config))).collect();
    Ok(Matched { config, changes, target, value: found, neighbours })
}

use Direction::{Down, Up};

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Down,
    Up,
}

/// The first value that a config may have, from `from` on up to `end`.
fn valid(size: &Vary, config: &Config, from: u32, end: u32, direction: Direction) -> Option<u32> {
    let is_valid = |value: &u32| size.set(config, *value).problems().is_empty();
    match direction {
        Down => (end.max(from.saturating_sub(MOST_SKIPPED))..=from).rev().find(is_valid),
        Up => (from..=end.min(from.saturating_add(MOST_SKIPPED))).find(is_valid),
    }
}

/// FLOP of an update.
fn flops_per_update(config: &Config) -> f64 {
    let specs = config.parameters();
    let cost = cost(&config.model, &specs, config.data.sequence_length);
    let per_token = cost.forward_flops_per_token + cost.backward_flops_per_token;
    (per_token * config.tokens_per_update() + cost.muon_flops_per_update) as f64
}

/// Varies `sizes` of `base` until `measure` gives about `target`; see the module. The neighbours are not measured.
///
/// # Errors
/// Those of [`solve`], as `Ok(Err(..))`, and those of `measure`.
pub fn solve_measured<E>(
    base: &Config,
    target: f64,
    sizes: &[Vary],
    mut measure: impl FnMut(&Config) -> Result<f64, E>,
) -> Result<Result<Matched, MatchError>, E> {
    let mut known = (flops_per_update(base), measure(base)?);
    let mut wanted = known.0 * target / known.1;
    let mut best: Option<Matched> = None;
    for _ in 0..MEASUREMENTS {
        let mut candidate = match solve(base, wanted, sizes, false, &flops_per_update) {
            Ok(candidate) => candidate,
            Err(problem) => return Ok(Err(problem)),
        };
        let new = (flops_per_update(&candidate.config), measure(&candidate.config)?);
        (candidate.target, candidate.value, candidate.neighbours) = (target, new.1, Vec::new());
        if best.as_ref().is_none_or(|best| candidate.error().abs() < best.error().abs()) {
            best = Some(candidate);
        }
        let slope = (new.1 - known.1) / (new.0 - known.0);
        // Noise can make the slope useless; then the time is taken as proportional to the FLOP.
        wanted = if slope.is_finite() && slope > 0.0 { new.0 + (target - new.1) / slope } else { new.0 * target / new.1 };
        if wanted <= 0.0 {
            break;
        }
        known = new;
    }
    Ok(best.ok_or(MatchError::NotMeasured))
}

/// One quantity of two configs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub quantity: Quantity,
    /// Of the first config.
    pub own: f64,
    /// Of the second.
    pub other: f64,
}

impl Row {
    /// The first's value relative to the second's.
    pub fn ratio(&self) -> f64 {
        self.own / self.other
    }
}

/// Every quantity that follows from two configs, side by side.
pub fn compare(own: &Config, other: &Config) -> Vec<Row> {
    Quantity::COUNTED.map(|quantity| Row { quantity, own: quantity.of(own), other: quantity.of(other) }).into()
}

/// The config as TOML: what was matched and what was not as comments, then the changed keys over `head`, which is `extends = ".."` or a whole
/// config without those keys.
pub fn to_toml(matched: &Matched, quantity: Quantity, other: (&str, &Config), tolerance: f64, head: &str) -> String {
    let (name, config) = other;
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments| writeln!(text, "{line}").expect("writing to a string cannot fail");
    let difference = matched.value - matched.target;
    line(format_args!(
        "# Matched to {name} on {}: {} against {}, {} ({:+.4} %).",
        quantity.words(),
        grouped(matched.value),
        grouped(matched.target),
        signed(difference),
        100.0 * matched.error()
    ));
    if matched.error().abs() > tolerance {
        line(format_args!("# NOT MATCHED within {} %: no size in the range comes closer.", 100.0 * tolerance));
    }
    let last = matched.changes.last().map_or("", |change| change.0);
    for (value, found) in &matched.neighbours {
        line(format_args!("# {last} = {value} gives {}, {}.", grouped(*found), signed(found - matched.target)));
    }
    line(format_args!("#"));
    for row in compare(&matched.config, config) {
        let is_met = (row.ratio() - 1.0).abs() <= tolerance;
        let mark = if is_met { "" } else { "  not matched" };
        line(format_args!("# {:44} {:>16} {:>16} {:8.4}x{mark}", row.quantity.words(), grouped(row.own), grouped(row.other), row.ratio()));
    }
    line(format_args!("\n{}", head.trim_end()));
    for (key, from, to) in &matched.changes {
        line(format_args!("{key} = {to} # was {from}"));
    }
    text
}

/// 79059840 -> 79,059,840; a measurement keeps its decimals.
fn grouped(value: f64) -> String {
    if value.fract() != 0.0 {
        return format!("{value:.3}");
    }
    let digits = format!("{}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn signed(value: f64) -> String {
    let text = grouped(value);
    if value < 0.0 { text } else { format!("+{text}") }
}
