//! The parameter tree of a model: every parameter's name, shape, initial values and optimizer group.
//!
//! Weights of linear maps are [out, in]. Muon takes what it can orthogonalise: matrices of the blocks, and of a 3-D expert
//! tensor [E, out, in] each [out, in] on its own. Embedding, head, gains and biases go to AdamW. Overrides by name pattern
//! may move parameters, never out of exactly one group.

use std::collections::BTreeMap;

use serde::Serialize;

use super::config::{
    AttentionKind, DepthIdentity, DepthKind, InitOptions, Injection, Latent, ModelConfig, Networks, NormKind, PositionKind,
    RecursionStart,
};
use crate::choices;
use crate::random::Stream;

choices! {
    /// Which optimizer takes a parameter.
    pub enum Group {
        /// Muon, for matrices of the blocks.
        Muon = "muon",
        /// AdamW, for everything else.
        AdamW = "adamw",
    }
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Independent normals of mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Independent uniforms between -bound and bound.
    Uniform {
        /// Largest size.
        bound: f32,
    },
    /// One value everywhere.
    Constant(f32),
}

/// What a parameter is part of, for counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Embeddings of tokens, positions and steps, also where the head shares the first.
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
    /// Starts, projections and norms of a recursive model's states.
    Recursion,
    /// Output projection of its own.
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
    /// What it is part of.
    pub part: Part,
    /// Random stream of its initial values: its place in the tree.
    pub stream: u32,
}

impl ParamSpec {
    /// Elements. Shapes within the config's ranges cannot overflow.
    pub fn len(&self) -> u64 {
        self.shape.iter().map(|&side| u64::from(side)).product()
    }

    /// No parameter is empty.
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

    /// A gain or a bias: what a weight decay on matrices alone leaves out.
    pub fn is_gain_or_bias(&self) -> bool {
        self.part == Part::Norms || self.name.ends_with(".bias")
    }
}

/// Every parameter of a model, in the order of the forward pass. The config must have passed its checks.
pub fn parameters(model: &ModelConfig) -> Vec<ParamSpec> {
    let mut tree = Tree { model, prefix: String::new(), specs: Vec::new() };
    let d = model.width;
    tree.matrix("embedding.weight", &[model.vocabulary, d], Part::Embedding);
    if model.positions.kind == PositionKind::Learned {
        tree.matrix("positions.weight", &[model.context, d], Part::Embedding);
    }
    match model.depth.kind {
        DepthKind::Indexed | DepthKind::Shared => tree.network(),
        DepthKind::Recursive => tree.recursion(),
    }
    if !model.head.tied {
        tree.matrix("head.weight", &[model.vocabulary, d], Part::Head);
        if model.head.starts_as_embedding {
            // The same draws as the embedding's, which is the first of the tree.
            tree.specs.last_mut().expect("just added").stream = 0;
        }
    }
    tree.specs
}

struct Tree<'a> {
    model: &'a ModelConfig,
    /// Of the names that are added.
    prefix: String,
    specs: Vec<ParamSpec>,
}

impl Tree<'_> {
    fn add(&mut self, name: &str, shape: &[u32], init: Init, part: Part) {
        let stream = self.specs.len() as u32;
        let name = format!("{}{name}", self.prefix);
        let mut spec = ParamSpec { name, shape: shape.to_vec(), init, group: Group::AdamW, part, stream };
        if spec.matrices().is_some() {
            spec.group = Group::Muon;
        }
        self.specs.push(spec);
    }

    fn below(&mut self, prefix: &str, f: impl FnOnce(&mut Self)) {
        let outer = self.prefix.clone();
        self.prefix += prefix;
        f(self);
        self.prefix = outer;
    }

    fn matrix(&mut self, name: &str, shape: &[u32], part: Part) {
        self.add(name, shape, Init::Normal { std: self.model.init.std as f32 }, part);
    }

    /// A projection into the residual stream.
    fn output_matrix(&mut self, name: &str, shape: &[u32], part: Part) {
        let InitOptions { std, residual_scaled } = self.model.init;
        let scale = if residual_scaled { f64::from(2 * self.model.depth.layers).sqrt() } else { 1.0 };
        self.add(name, shape, Init::Normal { std: (std / scale) as f32 }, part);
    }

    fn bias(&mut self, name: &str, shape: &[u32], part: Part) {
        self.add(&format!("{name}.bias"), shape, Init::Constant(0.0), part);
    }

    fn gain(&mut self, name: &str, width: u32) {
        self.add(&format!("{name}.weight"), &[width], Init::Constant(1.0), Part::Norms);
    }

    /// LayerNorm's gain and bias.
    fn layer_norm(&mut self, name: &str) {
        self.gain(name, self.model.width);
        self.bias(name, &[self.model.width], Part::Norms);
    }

    /// A norm of the residual stream.
    fn norm(&mut self, name: &str) {
        match self.model.norm.kind {
            NormKind::LayerNorm => self.layer_norm(name),
            NormKind::RmsNorm if self.model.norm.gain => self.gain(name, self.model.width),
            NormKind::RmsNorm => {}
        }
    }

    /// The blocks and the norm after them.
    fn network(&mut self) {
        let depth = &self.model.depth;
        let is_shared = depth.kind == DepthKind::Shared;
        for l in 0..if is_shared { 1 } else { depth.layers } {
            self.below(&format!("blocks.{l}."), |tree| tree.block(l));
        }
        for l in 0..if is_shared { depth.layers } else { 0 } {
            self.below(&format!("steps.{l}."), |tree| match depth.identity {
                DepthIdentity::Unmarked => {}
                DepthIdentity::Embedding => {
                    let init = Init::Normal { std: tree.model.init.std as f32 };
                    tree.add("embedding", &[tree.model.width], init, Part::Embedding);
                }
                DepthIdentity::Norm => {
                    tree.norm("attention_norm");
                    tree.norm("ffn_norm");
                }
            });
        }
        self.norm("final_norm");
    }

    fn block(&mut self, layer: u32) {
        let has_norms = self.model.depth.kind != DepthKind::Shared || self.model.depth.identity != DepthIdentity::Norm;
        if has_norms {
            self.norm("attention_norm");
        }
        self.below("attention.", |tree| match tree.model.attention.kind {
            AttentionKind::Heads => tree.heads(),
            AttentionKind::Latent => tree.latent(),
        });
        if has_norms {
            self.norm("ffn_norm");
        }
        let model = self.model;
        if model.is_moe(layer) {
            self.matrix("moe.router.weight", &[model.router.experts, model.width], Part::Router);
            if model.router.bias {
                self.bias("moe.router", &[model.router.experts], Part::Router);
            }
            self.ffn("moe.experts", &[model.router.experts], model.ffn.width, Part::Experts);
            if model.ffn.shared_experts > 0 {
                self.ffn("moe.shared", &[], model.ffn.shared_experts * model.ffn.width, Part::Ffn);
            }
        } else {
            self.ffn("ffn", &[], model.dense_width(), Part::Ffn);
        }
    }

    fn heads(&mut self) {
        let model = self.model;
        self.matrix("qkv.weight", &[model.qkv_rows(), model.width], Part::Attention);
        if model.attention.bias {
            self.bias("qkv", &[model.qkv_rows()], Part::Attention);
        }
        if model.attention.qk_norm {
            self.gain("q_norm", model.head_width());
            self.gain("k_norm", model.head_width());
        }
        self.attention_output(model.head_width());
    }

    fn latent(&mut self) {
        let (d, h, bias) = (self.model.width, self.model.attention.heads, self.model.attention.bias);
        let Latent { query_rank, kv_rank, nope_width, rope_width, value_width, .. } = self.model.attention.latent;
        let mut projection = |name: &str, rows: u32, columns: u32, bias: bool| {
            self.matrix(&format!("{name}.weight"), &[rows, columns], Part::Attention);
            if bias {
                self.bias(name, &[rows], Part::Attention);
            }
        };
        let query_rows = h * (nope_width + rope_width);
        if query_rank == 0 {
            projection("query", query_rows, d, false);
        } else {
            projection("query_down", query_rank, d, bias);
            projection("query_up", query_rows, query_rank, false);
        }
        projection("kv_down", kv_rank + rope_width, d, bias);
        projection("kv_up", h * (nope_width + value_width), kv_rank, false);
        if query_rank > 0 {
            self.gain("query_norm", query_rank);
        }
        self.gain("kv_norm", kv_rank);
        self.attention_output(value_width);
    }

    /// The gate on what the heads give, and the output projection.
    fn attention_output(&mut self, value_width: u32) {
        let (d, width, attention) = (self.model.width, self.model.attention.heads * value_width, &self.model.attention);
        if attention.gate {
            self.matrix("gate.weight", &[width, d], Part::Attention);
        }
        self.output_matrix("output.weight", &[d, width], Part::Attention);
        if attention.output_bias {
            self.bias("output", &[d], Part::Attention);
        }
    }

    /// up [.., F, D], gate [.., F, D] where gated, down [.., D, F], each with its bias where there are biases.
    fn ffn(&mut self, name: &str, leading: &[u32], f: u32, part: Part) {
        let (d, options) = (self.model.width, &self.model.ffn);
        for (map, out, input) in [("up", f, d), ("gate", f, d), ("down", d, f)] {
            if map == "gate" && !options.gated {
                continue;
            }
            let (weight, shape) = (format!("{name}.{map}.weight"), [leading, &[out, input]].concat());
            if map == "down" { self.output_matrix(&weight, &shape, part) } else { self.matrix(&weight, &shape, part) }
            if options.bias {
                self.bias(&format!("{name}.{map}"), &[leading, &[out]].concat(), part);
            }
        }
    }

    fn recursion(&mut self) {
        let (d, recursion) = (self.model.width, self.model.depth.recursion.clone());
        match recursion.networks {
            Networks::Single => self.network(),
            Networks::Separate => {
                self.below("low.", Self::network);
                self.below("high.", Self::network);
            }
        }
        self.below("recursion.", |tree| {
            if recursion.start == RecursionStart::Learned {
                let init = Init::Normal { std: tree.model.init.std as f32 };
                tree.add("high_start", &[d], init, Part::Recursion);
                tree.add("low_start", &[d], init, Part::Recursion);
            }
            if recursion.injection == Injection::Projected {
                for (projection, norm) in [("high_to_low", "low_norm"), ("low_to_high", "high_norm")] {
                    let bound = 1.0 / (d as f32).sqrt();
                    tree.add(&format!("{projection}.weight"), &[d, d], Init::Uniform { bound }, Part::Recursion);
                    tree.layer_norm(norm);
                }
            }
            if recursion.halting_head {
                tree.add("halting.weight", &[2, d], Init::Constant(0.0), Part::Recursion);
                tree.add("halting.bias", &[2], Init::Constant(-5.0), Part::Recursion);
            }
        });
    }
}

/// The initial values of a parameter, row-major: normals of stream (seed, parameter), element by element.
pub fn initial_values(spec: &ParamSpec, seed: u64) -> Vec<f32> {
    let elements = u32::try_from(spec.len()).expect("a checked config has parameters of fewer than 2^32 elements");
    // No training step has this number, so that no dropout mask repeats these draws.
    let stream = Stream { seed, step: u32::MAX, stream: spec.stream };
    match spec.init {
        Init::Constant(value) => vec![value; elements as usize],
        Init::Normal { std } => (0..elements).map(|element| std * stream.normal(element)).collect(),
        Init::Uniform { bound } => (0..elements).map(|element| bound * (2.0 * stream.uniform(element) - 1.0)).collect(),
    }
}

/// What is wrong with one override of the optimizer groups.
#[derive(Clone, Debug, PartialEq)]
pub enum OverrideFault {
    /// The pattern matches no parameter.
    MatchesNothing,
    /// Muon was asked to take this parameter, which is no matrix of a block.
    NoMatrix(String),
    /// This other pattern, as specific, wants the other group for this parameter.
    Contradicts(String, String),
}

/// Moves parameters to the groups that name patterns ask for; `*` stands for any characters, dots included.
///
/// Of several patterns that match, the one with the most literal characters wins. Gives the faulty patterns; parameters
/// that they match may be in either group then.
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

    #[test]
    fn a_star_stands_for_any_characters() {
        let name = "blocks.0.moe.router.weight";
        for pattern in
            ["*", "blocks.*", "*.weight", "blocks.*.router.*", "*router*", "blocks.0.moe.router.weight", "**"]
        {
            assert!(glob(pattern, name), "{pattern}");
        }
        for pattern in ["", "blocks", "*.bias", "blocks.1.*", "*router", "*.moe.*.moe.*", "*weight*weight"] {
            assert!(!glob(pattern, name), "{pattern}");
        }
    }

    #[test]
    fn the_most_specific_override_wins_and_contradictions_are_told() {
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
    fn initial_values_depend_on_seed_and_parameter_only() {
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
