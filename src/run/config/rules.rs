//! What the values of a config mean together. Every rule is tried; each says which keys disagree and what would help.

use super::{Config, DataKind, TokenizerKind, sizes};
use crate::config_file::Loaded;
use crate::run::model::parameters::{self, OverrideFault};
use crate::run::model::{AttentionKind, DepthKind, EmbeddingScale, FfnKind, Latent, PositionKind, RecursionStart};

/// Adds every disagreement between keys, and fills in the vocabulary where the tokenizer tells it.
pub(crate) fn check(loaded: &mut Loaded<Config>) {
    if loaded.config.data.embedded {
        let before = loaded.config.clone();
        loaded.config.use_embedded_corpus();
        loaded.refuse_replaced("data.embedded", &before);
    }
    vocabulary(loaded);
    match loaded.config.model.attention.kind {
        AttentionKind::Heads => heads(loaded),
        AttentionKind::Latent => latent(loaded),
    }
    layers(loaded);
    routing(loaded);
    data(loaded);
    schedule(loaded);
    training(loaded);
    sizes::check(loaded);
    overrides(loaded);
}

fn vocabulary(loaded: &mut Loaded<Config>) {
    let tokenizer = loaded.config.data.tokenizer.clone();
    let model = loaded.config.model.vocabulary;
    match (tokenizer.known_vocabulary(), model) {
        (Some(known), 0) => loaded.config.model.vocabulary = known,
        (Some(known), stated) if stated < known => loaded.refuse(
            "the vocabulary of the model is smaller than that of the tokenizer",
            &[
                ("model.vocabulary", format!("V = {stated}")),
                match tokenizer.kind {
                    TokenizerKind::Bpe => ("data.tokenizer.vocabulary", format!("makes {known} tokens")),
                    _ => ("data.tokenizer.kind", format!("makes {known} tokens")),
                },
            ],
            format!("set `model.vocabulary` to {known} or more, or leave it out to take the tokenizer's"),
        ),
        (None, 0) => loaded.refuse(
            "the vocabulary is not known before the tokenizer's file is read",
            &[
                ("model.vocabulary", "V = 0, to be taken from the tokenizer".into()),
                ("data.tokenizer.kind", "is read when the run starts".into()),
            ],
            "set `model.vocabulary` to the file's number of tokens (49152 for SmolLM, 50257 for GPT-2)",
        ),
        _ => {}
    }
}

fn heads(loaded: &mut Loaded<Config>) {
    let model = loaded.config.model.clone();
    let (d, h) = (model.width, model.attention.heads);
    if model.attention.head_width == 0 && d % h != 0 {
        let near: Vec<_> = (1..=d.min(256)).filter(|heads| d % heads == 0 && d / heads <= 128).collect();
        let mut near: Vec<_> = near.into_iter().map(|heads| (heads.abs_diff(h), heads)).collect();
        near.sort_unstable();
        near.truncate(3);
        near.sort_unstable_by_key(|(_, heads)| *heads);
        let near: Vec<_> = near.iter().map(|(_, heads)| heads.to_string()).collect();
        let help = format!("heads that fit: {}; or state `model.attention.head_width`", near.join(", "));
        let labels = [("model.attention.heads", format!("H = {h}")), ("model.width", format!("D = {d}"))];
        loaded.refuse(format!("a width of {d} does not divide into {h} heads"), &labels, help);
        return;
    }
    let width = model.head_width();
    if width > 128 || width == 0 {
        let labels = [("model.attention.heads", format!("H = {h}")), ("model.width", format!("D = {d}"))];
        loaded.refuse(
            format!("heads would be {width} wide, 1 to 128 is possible"),
            &labels,
            "change the number of heads, or state `model.attention.head_width`",
        );
        return;
    }
    let kv = model.kv_heads();
    if h % kv != 0 {
        loaded.refuse(
            format!("{h} query heads cannot share {kv} heads of keys and values evenly"),
            &[("model.attention.kv_heads", format!("KV = {kv}")), ("model.attention.heads", format!("H = {h}"))],
            "`model.attention.heads` must be a multiple of `model.attention.kv_heads`",
        );
    }
    let rope = model.rope_width();
    if model.positions.kind != PositionKind::Rope {
        return;
    }
    if rope == 0 || !rope.is_multiple_of(2) {
        loaded.refuse(
            format!("the rotary embedding would turn {rope} of {width} dimensions of a head, an even number is needed"),
            &[
                ("model.positions.fraction", format!("{} of a head", model.positions.fraction)),
                ("model.attention.heads", format!("heads are {width} wide")),
            ],
            "dimensions are turned in pairs; 1.0 turns all, 0.5 half",
        );
    }
}

fn latent(loaded: &mut Loaded<Config>) {
    let Latent { nope_width, rope_width, .. } = loaded.config.model.attention.latent;
    if nope_width + rope_width > 128 {
        loaded.refuse(
            format!("heads of queries and keys would be {} wide, at most 128 is possible", nope_width + rope_width),
            &[
                ("model.attention.latent.nope_width", format!("{nope_width} without position")),
                ("model.attention.latent.rope_width", format!("{rope_width} with position")),
            ],
            "make one of them narrower",
        );
    }
    if rope_width % 2 != 0 {
        loaded.refuse(
            format!("the rotary embedding would turn {rope_width} dimensions of a head, an even number is needed"),
            &[("model.attention.latent.rope_width", "is odd".into())],
            "dimensions are turned in pairs",
        );
    }
    let fraction = loaded.config.model.positions.fraction;
    if fraction != 1.0 {
        loaded.refuse(
            "latent attention turns the whole of its positional part",
            &[
                ("model.positions.fraction", format!("{fraction} of a head")),
                ("model.attention.kind", "states its positional part by `latent.rope_width`".into()),
            ],
            "leave `model.positions.fraction` out",
        );
    }
}

fn layers(loaded: &mut Loaded<Config>) {
    let model = loaded.config.model.clone();
    let (dense, layers) = (model.ffn.dense_layers, model.depth.layers);
    if model.ffn.kind == FfnKind::Moe && dense >= layers {
        loaded.refuse(
            format!("of {layers} layers {dense} would be dense: none has experts"),
            &[("model.ffn.dense_layers", format!("{dense}")), ("model.depth.layers", format!("L = {layers}"))],
            "for a dense model set `model.ffn.kind` to \"dense\"",
        );
    } else if dense > 0 && model.depth.kind == DepthKind::Shared {
        loaded.refuse(
            "a block that is shared by all layers cannot be dense in some of them",
            &[("model.ffn.dense_layers", format!("{dense}")), ("model.depth.kind", "one block for all layers".into())],
            "set `model.ffn.dense_layers` to 0",
        );
    }
    if model.embedding.scale == EmbeddingScale::InverseInitStd && model.init.std == 0.0 {
        loaded.refuse(
            "the factor on the embedding would be infinite",
            &[("model.embedding.scale", "1 / the standard deviation".into()), ("model.init.std", "which is 0".into())],
            "state a `model.init.std`, or another scale",
        );
    }
    let recursion = &model.depth.recursion;
    let is_blind = recursion.start == RecursionStart::Learned && !recursion.embedding_injection;
    if model.depth.kind == DepthKind::Recursive && is_blind {
        loaded.refuse(
            "the model would never see its tokens",
            &[
                ("model.depth.recursion.start", "both states start at learned vectors".into()),
                ("model.depth.recursion.embedding_injection", "the embedding does not enter later".into()),
            ],
            "set `model.depth.recursion.embedding_injection` to true",
        );
    }
    if model.head.tied && model.head.starts_as_embedding {
        loaded.refuse(
            "a head that is the embedding cannot start as a copy of it",
            &[("model.head.starts_as_embedding", "wants a head of its own".into()), ("model.head.tied", "has none".into())],
            "set `model.head.tied` to false",
        );
    }
}

fn routing(loaded: &mut Loaded<Config>) {
    let (e, k) = loaded.config.model.experts();
    let router = loaded.config.model.router.clone();
    if loaded.config.model.ffn.kind == FfnKind::Moe && (router.groups > 1 || router.kept_groups > 1) {
        let (groups, kept) = (router.groups, router.kept_groups);
        if e % groups != 0 {
            loaded.refuse(
                format!("{e} experts do not divide into {groups} groups"),
                &[("model.router.experts", format!("E = {e}")), ("model.router.groups", format!("{groups}"))],
                "`model.router.experts` must be a multiple of `model.router.groups`",
            );
        } else if kept > groups || k > kept * (e / groups) {
            loaded.refuse(
                format!("a token cannot visit {k} experts in {kept} of {groups} groups of {}", e / groups),
                &[
                    ("model.router.top_k", format!("K = {k}")),
                    ("model.router.kept_groups", format!("{kept}")),
                    ("model.router.groups", format!("{groups}")),
                ],
                "keep more groups, or choose fewer experts",
            );
        }
    }
    if loaded.config.model.ffn.kind == FfnKind::Moe && k > e {
        loaded.refuse(
            format!("a token cannot visit {k} of {e} experts"),
            &[("model.router.top_k", format!("K = {k}")), ("model.router.experts", format!("E = {e}"))],
            "`model.router.top_k` may be at most `model.router.experts`",
        );
    }
}

fn data(loaded: &mut Loaded<Config>) {
    let config = loaded.config.clone();
    let (t, context) = (config.data.sequence_length, config.model.context);
    if t > context {
        loaded.refuse(
            format!("sequences of {t} tokens do not fit a context of {context}"),
            &[("data.sequence_length", format!("T = {t}")), ("model.context", format!("at most {context}"))],
            format!("raise `model.context` to {t}, or shorten the sequences"),
        );
    }
    if config.data.kind != DataKind::Language && config.data.paths.is_empty() {
        loaded.refuse(
            "no data: `data.paths` is empty",
            &[("data.paths", "no path".into()), ("data.kind", "reads files".into())],
            "for example paths = [\"data/shakespeare/*.txt\"]",
        );
    }
    if config.data.tokenizer.kind == TokenizerKind::File && config.data.tokenizer.path.is_empty() {
        loaded.refuse(
            "no tokenizer: `data.tokenizer.path` is missing",
            &[("data.tokenizer.path", "no path".into()), ("data.tokenizer.kind", "reads a file".into())],
            "for example path = \"tokenizer.json\"",
        );
    }
}

fn schedule(loaded: &mut Loaded<Config>) {
    let schedule = loaded.config.learning_rates();
    let unit = match schedule.unit {
        super::Unit::Updates => "updates",
        super::Unit::MicroSteps => "micro-steps",
    };
    if schedule.horizon == 0 {
        loaded.refuse(
            "the schedule ends before it begins",
            &[("schedule.horizon", format!("0 {unit}"))],
            "leave `schedule.horizon` out for the length of the run",
        );
    } else if schedule.warmup > schedule.horizon {
        let (w, s) = (schedule.warmup, schedule.horizon);
        let horizon_from_run = !loaded.entries.contains_key("schedule.horizon");
        let horizon = if horizon_from_run { "train.updates" } else { "schedule.horizon" };
        loaded.refuse(
            format!("the warm-up of {w} {unit} is longer than the schedule of {s}"),
            &[("schedule.warmup", format!("W = {w} {unit}")), (horizon, format!("S = {s} {unit}"))],
            "a percentage such as warmup = \"5%\" follows the length of the schedule",
        );
    }
}

fn training(loaded: &mut Loaded<Config>) {
    let train = loaded.config.train.clone();
    if train.early_stopping.patience > 0 && train.evaluation.every == 0 {
        loaded.refuse(
            "early stopping needs evaluations on the way",
            &[("train.early_stopping.patience", "counts evaluations".into()), ("train.evaluation.every", "none before the end".into())],
            "set `train.evaluation.every`, or `train.early_stopping.patience` to 0",
        );
    }
}

fn overrides(loaded: &mut Loaded<Config>) {
    let mut specs = parameters::parameters(&loaded.config.model);
    let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
    for (pattern, fault) in parameters::override_groups(&mut specs, &loaded.config.optimizer.overrides) {
        let key = |pattern: &str| format!("optimizer.overrides.{pattern:?}");
        match fault {
            OverrideFault::MatchesNothing => {
                let like = |name: &String| strsim::normalized_damerau_levenshtein(&pattern, name);
                let near = names.iter().max_by(|a, b| like(a).total_cmp(&like(b))).expect("every model has parameters");
                let help = format!("the nearest parameter is `{near}`; `*` stands for any characters");
                loaded.refuse("an override matches no parameter", &[(&key(&pattern), "matches nothing".into())], help);
            }
            OverrideFault::NoMatrix(name) => loaded.refuse(
                format!("Muon cannot take `{name}`"),
                &[(&key(&pattern), "asks for that".into())],
                "Muon takes the matrices of the blocks; embedding, head, gains and biases are AdamW's",
            ),
            OverrideFault::Contradicts(other, name) => loaded.refuse(
                format!("two overrides of equal weight disagree about `{name}`"),
                &[(&key(&pattern), "one group".into()), (&key(&other), "the other".into())],
                "make one pattern more specific: the one with more literal characters wins",
            ),
        }
    }
}
