//! Consistency rules of a model.

use super::{AttentionKind, DepthKind, EmbeddingScale, FfnKind, Latent, ModelConfig, PositionKind, RecursionStart};
use crate::config_file::Conflict;

impl ModelConfig {
    /// All conflicts between the model's keys; empty if it can be built.
    pub fn problems(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        match self.attention.kind {
            AttentionKind::Heads => heads(self, &mut found),
            AttentionKind::Latent => latent(self, &mut found),
        }
        layers(self, &mut found);
        routing(self, &mut found);
        found
    }
}

fn heads(model: &ModelConfig, found: &mut Vec<Conflict>) {
    let (d, h) = (model.width, model.attention.heads);
    if model.attention.head_width == 0 && d % h != 0 {
        let near: Vec<_> = (1..=d.min(256)).filter(|heads| d % heads == 0 && d / heads <= 128).collect();
        let mut near: Vec<_> = near.into_iter().map(|heads| (heads.abs_diff(h), heads)).collect();
        near.sort_unstable();
        near.truncate(3);
        near.sort_unstable_by_key(|(_, heads)| *heads);
        let near: Vec<_> = near.iter().map(|(_, heads)| heads.to_string()).collect();
        let help = format!("heads that fit: {}; or set `model.attention.head_width`", near.join(", "));
        let labels = [("model.attention.heads", format!("H = {h}")), ("model.width", format!("D = {d}"))];
        found.push(Conflict::new(format!("a width of {d} does not divide into {h} heads"), &labels, help));
        return;
    }
    let width = model.head_width();
    if width > 128 || width == 0 {
        let labels = [("model.attention.heads", format!("H = {h}")), ("model.width", format!("D = {d}"))];
        found.push(Conflict::new(
            format!("heads would be {width} wide, 1 to 128 is possible"),
            &labels,
            "change the number of heads, or set `model.attention.head_width`",
        ));
        return;
    }
    let kv = model.kv_heads();
    if h % kv != 0 {
        found.push(Conflict::new(
            format!("{h} query heads cannot share {kv} heads of keys and values evenly"),
            &[("model.attention.kv_heads", format!("KV = {kv}")), ("model.attention.heads", format!("H = {h}"))],
            "`model.attention.heads` must be a multiple of `model.attention.kv_heads`",
        ));
    }
    let rope = model.rope_width();
    if model.positions.kind != PositionKind::Rope {
        return;
    }
    if rope == 0 || !rope.is_multiple_of(2) {
        found.push(Conflict::new(
            format!("the rotary embedding would rotate {rope} of {width} dimensions of a head, an even number is needed"),
            &[
                ("model.positions.fraction", format!("{} of a head", model.positions.fraction)),
                ("model.attention.heads", format!("heads are {width} wide")),
            ],
            "dimensions are rotated in pairs; 1.0 rotates all, 0.5 half",
        ));
    }
}

fn latent(model: &ModelConfig, found: &mut Vec<Conflict>) {
    let Latent { nope_width, rope_width, .. } = model.attention.latent;
    if nope_width + rope_width > 128 {
        found.push(Conflict::new(
            format!("heads of queries and keys would be {} wide, at most 128 is possible", nope_width + rope_width),
            &[
                ("model.attention.latent.nope_width", format!("{nope_width} without position")),
                ("model.attention.latent.rope_width", format!("{rope_width} with position")),
            ],
            "make one of them narrower",
        ));
    }
    if rope_width % 2 != 0 {
        found.push(Conflict::new(
            format!("the rotary embedding would rotate {rope_width} dimensions of a head, an even number is needed"),
            &[("model.attention.latent.rope_width", "is odd".into())],
            "dimensions are rotated in pairs",
        ));
    }
    let fraction = model.positions.fraction;
    if fraction != 1.0 {
        found.push(Conflict::new(
            "latent attention always rotates its whole positional part",
            &[
                ("model.positions.fraction", format!("{fraction} of a head")),
                ("model.attention.kind", "sets its positional part with `latent.rope_width`".into()),
            ],
            "leave `model.positions.fraction` out",
        ));
    }
}

fn layers(model: &ModelConfig, found: &mut Vec<Conflict>) {
    let (dense, layers) = (model.ffn.dense_layers, model.depth.layers);
    if model.ffn.kind == FfnKind::Moe && dense >= layers {
        found.push(Conflict::new(
            format!("{dense} of {layers} layers would be dense: none has experts"),
            &[("model.ffn.dense_layers", format!("{dense}")), ("model.depth.layers", format!("L = {layers}"))],
            "for a dense model set `model.ffn.kind` to \"dense\"",
        ));
    } else if dense > 0 && model.depth.kind == DepthKind::Shared {
        found.push(Conflict::new(
            "a block that is shared by all layers cannot be dense in some of them",
            &[("model.ffn.dense_layers", format!("{dense}")), ("model.depth.kind", "one block for all layers".into())],
            "set `model.ffn.dense_layers` to 0",
        ));
    }
    if model.embedding.scale == EmbeddingScale::InverseInitStd && model.init.std == 0.0 {
        found.push(Conflict::new(
            "the factor on the embedding would be infinite",
            &[("model.embedding.scale", "1 / the standard deviation".into()), ("model.init.std", "which is 0".into())],
            "set `model.init.std`, or another scale",
        ));
    }
    let recursion = &model.depth.recursion;
    let is_blind = recursion.start == RecursionStart::Learned && !recursion.embedding_injection;
    if model.depth.kind == DepthKind::Recursive && is_blind {
        found.push(Conflict::new(
            "the model would never see its tokens",
            &[
                ("model.depth.recursion.start", "both states start as learned vectors".into()),
                ("model.depth.recursion.embedding_injection", "the embedding is not injected later".into()),
            ],
            "set `model.depth.recursion.embedding_injection` to true",
        ));
    }
    if model.head.tied && model.head.starts_as_embedding {
        found.push(Conflict::new(
            "a tied head cannot start as a copy of the embedding",
            &[("model.head.starts_as_embedding", "needs an untied head".into()), ("model.head.tied", "is tied".into())],
            "set `model.head.tied` to false",
        ));
    }
}

fn routing(model: &ModelConfig, found: &mut Vec<Conflict>) {
    let (e, k) = model.experts();
    let router = &model.router;
    if model.ffn.kind == FfnKind::Moe && (router.groups > 1 || router.kept_groups > 1) {
        let (groups, kept) = (router.groups, router.kept_groups);
        if e % groups != 0 {
            found.push(Conflict::new(
                format!("{e} experts do not divide into {groups} groups"),
                &[("model.router.experts", format!("E = {e}")), ("model.router.groups", format!("{groups}"))],
                "`model.router.experts` must be a multiple of `model.router.groups`",
            ));
        } else if kept > groups || k > kept * (e / groups) {
            found.push(Conflict::new(
                format!("a token cannot be routed to {k} experts in {kept} of {groups} groups of {}", e / groups),
                &[
                    ("model.router.top_k", format!("K = {k}")),
                    ("model.router.kept_groups", format!("{kept}")),
                    ("model.router.groups", format!("{groups}")),
                ],
                "keep more groups, or choose fewer experts",
            ));
        }
    }
    if model.ffn.kind == FfnKind::Moe && k > e {
        found.push(Conflict::new(
            format!("a token cannot be routed to {k} of {e} experts"),
            &[("model.router.top_k", format!("K = {k}")), ("model.router.experts", format!("E = {e}"))],
            "`model.router.top_k` may be at most `model.router.experts`",
        ));
    }
}
