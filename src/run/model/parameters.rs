//! The parameters of a model: name, shape, initial values and optimizer group. [`parameters`] returns the
//! list.
//!
//! Weights of linear maps are [out, in]. Muon updates what it can orthogonalise: matrices of the blocks, and each [out, in]
//! matrix of a 3-D expert tensor [E, out, in]. AdamW updates embedding, head, gains and biases. Overrides by name pattern may
//! move parameters; each parameter is always in exactly one group.

use std::{collections::BTreeMap, ops::Range};

use serde::Serialize;

pub use super::tree::parameters;
use crate::choices;
use crate::random::Stream;

choices! {
    /// The optimizer of a parameter.
    pub enum Group {
        /// Muon, for matrices of the blocks.
        Muon = "muon",
        /// AdamW, for everything else.
        AdamW = "adamw",
    }
}

/// How a parameter is initialised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Independent normals of mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Independent uniform values between -bound and bound.
    Uniform {
        /// The bound.
        bound: f32,
    },
    /// A constant.
    Constant(f32),
}

/// The part of the model that a parameter belongs to, for counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Embeddings of tokens, positions and steps, also if the head shares the first.
    Embedding,
    /// Projections of attention.
    Attention,
    /// Routers.
    Router,
    /// Experts, biases included.
    Experts,
    /// Dense FFNs and shared experts.
    Ffn,
    /// Gains and biases of norms.
    Norms,
    /// Initial states, projections and norms of a recursive model.
    Recursion,
    /// Untied output projection.
    Head,
}

/// One parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// For example `blocks.0.moe.experts.up.weight`.
    pub name: String,
    /// Linear weights [out, in], expert weights [E, out, in].
    pub shape: Vec<u32>,
    /// Initial values.
    pub init: Init,
    /// Optimizer group.
    pub group: Group,
    /// The part of the model.
    pub part: Part,
    /// Random stream of its initial values: its index in the tree.
    pub stream: u32,
}

impl ParamSpec {
    /// Number of elements. Shapes within the config's ranges cannot overflow.
    pub fn len(&self) -> u64 {
        self.shape.iter().map(|&side| u64::from(side)).product()
    }

    /// Always false: no parameter is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The matrices that Muon would orthogonalise, as (count, rows, columns).
    pub fn matrices(&self) -> Option<(u32, u32, u32)> {
        let vectors = matches!(self.part, Part::Embedding | Part::Head | Part::Norms) || self.name.ends_with(".bias");
        match self.shape[..] {
            _ if vectors => None,
            [rows, columns] => Some((1, rows, columns)),
            [count, rows, columns] => Some((count, rows, columns)),
            _ => None,
        }
    }

    /// Whether it is a gain or a bias, which weight decay on matrices excludes.
    pub fn is_gain_or_bias(&self) -> bool {
        self.part == Part::Norms || self.name.ends_with(".bias")
    }
}

/// The initial values of a parameter, row-major: normals of stream (seed, parameter), element by element.
pub fn initial_values(spec: &ParamSpec, seed: u64) -> Vec<f32> {
    initial_part(spec, seed, 0..u32::MAX)
}

/// Those of a range of its elements; beyond the last there are none.
pub fn initial_part(spec: &ParamSpec, seed: u64, range: Range<u32>) -> Vec<f32> {
    let end = u32::try_from(spec.len()).expect("a checked config has parameters of fewer than 2^32 elements").min(range.end);
    let elements = range.start..end;
    // No training step has this number, so no dropout mask reuses these random numbers.
    let stream = Stream { seed, step: u32::MAX, stream: spec.stream };
    match spec.init {
        Init::Constant(value) => vec![value; elements.len()],
        Init::Normal { std } => elements.map(|element| std * stream.normal(element)).collect(),
        Init::Uniform { bound } => elements.map(|element| bound * (2.0 * stream.uniform(element) - 1.0)).collect(),
    }
}

/// An error in an override of the optimizer groups.
#[derive(Clone, Debug, PartialEq)]
pub enum OverrideFault {
    /// The pattern matches no parameter.
    MatchesNothing,
    /// Muon cannot update this parameter, which is not a matrix of a block.
    NoMatrix(String),
    /// This other pattern is equally specific and assigns the other group to this parameter.
    Contradicts(String, String),
}

/// Moves parameters to the groups assigned by name patterns; `*` matches any characters, including dots.
///
/// Of several matching patterns, the one with the most literal characters wins. Returns the faulty patterns; parameters that
/// they match may then be in either group.
pub fn override_groups(specs: &mut [ParamSpec], overrides: &BTreeMap<String, Group>) -> Vec<(String, OverrideFault)> {
    let literal = |pattern: &str| pattern.chars().filter(|&c| c != '*').count();
    let mut by_weight: Vec<_> = overrides.iter().collect();
    by_weight.sort_by_key(|(pattern, _)| std::cmp::Reverse(literal(pattern)));
    let mut faults = BTreeMap::new();
    for spec in specs.iter_mut() {
        let mut matching = by_weight.iter().filter(|(pattern, _)| glob(pattern, &spec.name));
        let Some((pattern, group)) = matching.next() else { continue };
        let rival = matching.next().filter(|(other, wanted)| literal(other) == literal(pattern) && wanted != group);
        if let Some((other, _)) = rival {
            faults.insert((*pattern).clone(), OverrideFault::Contradicts((*other).clone(), spec.name.clone()));
        } else if **group == Group::Muon && spec.matrices().is_none() {
            faults.insert((*pattern).clone(), OverrideFault::NoMatrix(spec.name.clone()));
        } else {
            spec.group = **group;
        }
    }
    for pattern in overrides.keys().filter(|pattern| !specs.iter().any(|spec| glob(pattern, &spec.name))) {
        faults.insert(pattern.clone(), OverrideFault::MatchesNothing);
    }
    faults.into_iter().collect()
}

/// Whether `pattern` matches the whole of `name`.
fn glob(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let Some((middle, tail)) = rest.rsplit_once('*') else { return name.ends_with(rest) };
    for piece in middle.split('*') {
        let Some(at) = name.find(piece) else { return false };
        name = &name[at + piece.len()..];
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ModelConfig;

    #[test]
    fn a_star_matches_any_characters() {
        let name = "blocks.0.moe.router.weight";
        for pattern in ["*", "blocks.*", "*.weight", "blocks.*.router.*", "*router*", "blocks.0.moe.router.weight", "**"] {
            assert!(glob(pattern, name), "{pattern}");
        }
        for pattern in ["", "blocks", "*.bias", "blocks.1.*", "*router", "*.moe.*.moe.*", "*weight*weight"] {
            assert!(!glob(pattern, name), "{pattern}");
        }
    }

    #[test]
    fn the_most_specific_override_wins_and_contradictions_are_reported() {
        let model = ModelConfig { vocabulary: 16, ..ModelConfig::default() };
        let run = |pairs: &[(&str, Group)]| {
            let mut specs = parameters(&model);
            let overrides = pairs.iter().map(|(pattern, group)| ((*pattern).to_owned(), *group)).collect();
            let faults = override_groups(&mut specs, &overrides);
            let muon = specs.iter().filter(|spec| spec.group == Group::Muon).count();
            (muon, faults)
        };
        assert_eq!(run(&[]), (5 * 6, vec![]));
        assert_eq!(run(&[("*", Group::AdamW)]), (0, vec![]));
        assert_eq!(run(&[("*", Group::AdamW), ("*.experts.*", Group::Muon)]), (2 * 6, vec![]));
        assert_eq!(run(&[("*.expert.*", Group::AdamW)]).1, [("*.expert.*".into(), OverrideFault::MatchesNothing)]);
        let (_, faults) = run(&[("embedding.*", Group::Muon)]);
        assert_eq!(faults, [("embedding.*".into(), OverrideFault::NoMatrix("embedding.weight".into()))]);
        let (_, faults) = run(&[("*router*", Group::Muon), ("*.0.moe.", Group::AdamW), ("*.moe.r*", Group::AdamW)]);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn initial_values_depend_only_on_seed_and_parameter() {
        let model = ModelConfig { vocabulary: 500, width: 64, ..ModelConfig::default() };
        let specs = parameters(&model);
        let values = initial_values(&specs[0], 1);
        assert_eq!(values.len(), 500 * 64);
        assert_eq!(values, initial_values(&specs[0], 1));
        assert_ne!(values, initial_values(&specs[0], 2));
        assert_ne!(values[..100], initial_values(&specs[2], 1)[..100]);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 5e-4 && (square.sqrt() / 0.02 - 1.0).abs() < 0.02, "{mean} {}", square.sqrt());
        assert!(initial_values(&specs[1], 1).iter().all(|&gain| gain == 1.0));
    }
}
