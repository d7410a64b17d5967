//! The parameter tree of a model: the parameters that follow from its axes, in the order of the forward pass.

use super::parameters::{Group, Init, ParamSpec, Part};
use super::{
    AttentionKind, DepthIdentity, DepthKind, InitOptions, Injection, Latent, ModelConfig, Networks, NormKind, PositionKind, RecursionStart,
};

/// Every parameter of a model, in the order of the forward pass. The config must be valid.
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
            // The same random numbers as the embedding, which is the first in the tree.
            tree.specs.last_mut().expect("just added").stream = 0;
        }
    }
    tree.specs
}

struct Tree<'a> {
    model: &'a ModelConfig,
    /// Prefix of the names that are added.
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

    /// The gate on the output of the heads, and the output projection.
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

    /// up [.., F, D], gate [.., F, D] if gated, down [.., D, F], each with its bias if there are biases.
    fn ffn(&mut self, name: &str, leading: &[u32], f: u32, part: Part) {
        let (d, options) = (self.model.width, &self.model.ffn);
        for (map, out, input) in [("up", f, d), ("gate", f, d), ("down", d, f)] {
            if map == "gate" && !options.gated {
                continue;
            }
            let (weight, shape) = (format!("{name}.{map}.weight"), [leading, &[out, input]].concat());
            if map == "down" {
                self.output_matrix(&weight, &shape, part)
            } else {
                self.matrix(&weight, &shape, part)
            }
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
