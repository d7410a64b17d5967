//! Sizes that the engine cannot address on any adapter: a config within these limits can be recorded and planned.
//!
//! Whether an adapter has enough memory is checked when the step is compiled for it.

use super::Config;
use crate::config_file::Conflict;
use crate::limits::rows_per_chunk;
use crate::run::model::parameters;
use crate::run::model::{AttentionKind, DepthKind};

/// Maximum elements of a tensor: indices are 32 bits wide.
const MOST_ELEMENTS: u64 = 1 << 31;
/// Maximum rows of a matrix: a row of tiles is a workgroup of at least 16 rows, and a grid dimension has 65,535 of them.
const MOST_ROWS: u64 = 65_535 * 16;
/// Maximum calls of a block in one forward pass: each adds about 100 kernel launches to the compiled step.
const MOST_CALLS: u64 = 1024;
/// Maximum number of row chunks of the loss head.
const MOST_CHUNKS: u64 = 4096;

/// Maximum sequences of a micro-batch: attention's grid has one z index for each, or two if heads are wide.
const MOST_SEQUENCES: u32 = 65_535 / 2;

/// Adds a conflict for every size that is too large.
pub(super) fn check(config: &Config, found: &mut Vec<Conflict>) {
    let model = &config.model;
    let (b, t) = (u64::from(config.data.batch), u64::from(config.data.sequence_length));
    let (tokens, (_, k)) = (b * t, model.experts());
    if tokens * u64::from(k) > MOST_ROWS {
        let routed = if k > 1 { format!(", each sent to {k} experts") } else { String::new() };
        found.push(Conflict::new(
            format!("a micro-batch would have {tokens} tokens{routed}, at most {MOST_ROWS} rows are possible"),
            &[("data.batch", format!("B = {b}")), ("data.sequence_length", format!("T = {t}"))],
            "use a smaller `data.batch` and more `train.micro_batches`",
        ));
    } else {
        micro_batch(config, found);
    }
    if config.data.batch > MOST_SEQUENCES {
        found.push(Conflict::new(
            format!("a micro-batch would have {b} sequences, attention takes at most {MOST_SEQUENCES}"),
            &[("data.batch", format!("B = {b}"))],
            "use a smaller `data.batch` and more `train.micro_batches`",
        ));
    }
    let calls = match model.depth.kind {
        DepthKind::Recursive => u64::from(model.depth.recursion.high_cycles) * (u64::from(model.depth.recursion.low_cycles) + 1),
        DepthKind::Indexed | DepthKind::Shared => 1,
    };
    let blocks = u64::from(model.depth.layers) * calls;
    if blocks > MOST_CALLS {
        found.push(Conflict::new(
            format!("a token would pass through {blocks} blocks, at most {MOST_CALLS} are possible"),
            &[
                ("model.depth.layers", format!("L = {}", model.depth.layers)),
                ("model.depth.recursion.high_cycles", format!("{calls} calls of them")),
                ("model.depth.recursion.low_cycles", "in each of them".into()),
            ],
            "use fewer layers or fewer cycles",
        ));
    }
    let largest = parameters::parameters(model).into_iter().max_by_key(|spec| spec.len());
    let largest = largest.expect("every model has an embedding");
    if largest.len() > MOST_ELEMENTS {
        found.push(Conflict::new(
            format!("`{}` would have {} elements, at most {MOST_ELEMENTS} can be addressed", largest.name, largest.len()),
            &[("model.width", format!("D = {}", model.width)), ("model.ffn.width", format!("F = {}", model.ffn.width))],
            "use a narrower model, fewer experts or a smaller vocabulary",
        ));
    }
}

/// The tensors of one micro-batch.
fn micro_batch(config: &Config, found: &mut Vec<Conflict>) {
    let model = &config.model;
    let (b, t) = (u64::from(config.data.batch), u64::from(config.data.sequence_length));
    let (_, k) = model.experts();
    let (key, value) = model.attention_widths();
    let (h, latent) = (u64::from(model.attention.heads), &model.attention.latent);
    let shared = u64::from(model.ffn.shared_experts) * u64::from(model.ffn.width);
    let attention = match model.attention.kind {
        AttentionKind::Heads => u64::from(model.qkv_rows()),
        AttentionKind::Latent => {
            (2 * h * u64::from(key.max(value))).max(u64::from(latent.query_rank.max(latent.kv_rank) + latent.rope_width))
        }
    };
    let hidden = (u64::from(k) * u64::from(model.ffn.width)).max(u64::from(model.dense_width())).max(shared);
    let stream = u64::from(model.width) * u64::from(k);
    for (what, width, key, label) in [
        ("the stream and its copies for experts", stream, "model.width", format!("D = {}", model.width)),
        ("queries, keys and values", attention, "model.attention.heads", format!("H = {h}")),
        ("hidden values in the FFN", hidden, "model.ffn.width", format!("F = {}", model.ffn.width)),
    ] {
        let elements = b * t * width;
        if elements > MOST_ELEMENTS {
            found.push(Conflict::new(
                format!("a micro-batch would have {elements} values for {what}, at most {MOST_ELEMENTS} can be addressed"),
                &[("data.batch", format!("B = {b}")), ("data.sequence_length", format!("T = {t}")), (key, label)],
                "use a smaller `data.batch` and more `train.micro_batches`",
            ));
        }
    }
    let probabilities = b * h * t * t.div_ceil(4);
    if probabilities >= 1 << 32 {
        found.push(Conflict::new(
            format!("attention would have {} probabilities, at most 2^34 can be addressed", 4 * probabilities),
            &[
                ("data.sequence_length", format!("T = {t}, squared")),
                ("data.batch", format!("B = {b}")),
                ("model.attention.heads", format!("H = {h}")),
            ],
            "use shorter sequences, or a smaller `data.batch` and more `train.micro_batches`",
        ));
    }
    let (rows, limit) = match config.kernels.logit_rows {
        0 => (rows_per_chunk(model.vocabulary.max(1)), ("model.vocabulary", format!("V = {}", model.vocabulary))),
        rows => (rows, ("kernels.logit_rows", format!("{rows} rows at a time"))),
    };
    let logits = u64::from(rows).min(b * t) * u64::from(model.vocabulary);
    if logits > MOST_ELEMENTS {
        found.push(Conflict::new(
            format!("the loss head would compute {logits} logits at a time, at most {MOST_ELEMENTS} can be addressed"),
            &[("kernels.logit_rows", format!("{rows} rows")), ("model.vocabulary", format!("V = {}", model.vocabulary))],
            "use fewer rows, or 0 for as many as 96 MiB hold",
        ));
    }
    let chunks = (b * t).div_ceil(u64::from(rows));
    if chunks > MOST_CHUNKS {
        found.push(Conflict::new(
            format!("the loss of a micro-batch would be computed in {chunks} chunks, at most {MOST_CHUNKS} are possible"),
            &[("data.batch", format!("B = {b}")), ("data.sequence_length", format!("T = {t}")), limit],
            match config.kernels.logit_rows {
                0 => "use a smaller `data.batch` and more `train.micro_batches`",
                _ => "use more rows, or 0 for as many as 96 MiB hold",
            },
        ));
    }
}
