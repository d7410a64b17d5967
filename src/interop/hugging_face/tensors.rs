//! Mapping between the tensors of a safetensors file and the rows of the parameter tree.
//!
//! A [`Row`] of a model type's table names a tensor of the tree and its place in the file; [`stored`] expands the table for one
//! model. A tensor of a file is a concatenation of rows of the tree, or the transpose of one tensor. This applies to writing, reading,
//! and anything else that has the shape of a parameter, such as a gradient.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorView};

use super::keys::{first_of, shortened};
use super::model_type::{Layout, ModelType, Row};
use crate::run::checkpoint::NamedTensor;
use crate::run::quote::cut;
use crate::run::{ModelConfig, model::parameters::parameters};

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Its parts, concatenated by rows; zeros if empty.
    pub parts: Vec<Part>,
    /// Whether it is the transpose of its only part.
    pub is_transposed: bool,
}

/// Some rows of a tensor of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name in the tree.
    pub tensor: String,
    /// Its range of elements.
    pub elements: Range<usize>,
}

/// Shapes by name: the parameters, and the states that a file contains besides them.
pub(super) fn tree(model_type: &ModelType, model: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let sides = |shape: &[u32]| shape.iter().map(|side| *side as usize).collect();
    let mut tree: BTreeMap<String, Vec<usize>> = parameters(model).into_iter().map(|spec| (spec.name, sides(&spec.shape))).collect();
    for row in model_type.layout.block.iter().copied().flatten() {
        let Row::State(state, _) = row else { continue };
        let routed = (0..model.depth.layers).filter(|layer| model.is_moe(*layer));
        tree.extend(routed.map(|layer| (format!("blocks.{layer}.{state}"), vec![model.router.experts as usize])));
    }
    tree
}

/// The tensors of a model's file, in the order of the table, for the parameters that the model has.
pub(super) fn stored(model_type: &ModelType, model: &ModelConfig) -> Vec<Stored> {
    let Layout { top, networks, network, blocks, block } = model_type.layout;
    let mut writer = Writer { tree: tree(model_type, model), model, stored: Vec::new() };
    top.iter().for_each(|row| writer.add(row, "", ""));
    for (ours, theirs) in networks {
        for layer in 0..model.depth.layers {
            let (ours, theirs) = (format!("{ours}blocks.{layer}."), format!("{theirs}{blocks}.{layer}."));
            block.iter().copied().flatten().for_each(|row| writer.add(row, &ours, &theirs));
        }
        network.iter().for_each(|row| writer.add(row, ours, theirs));
    }
    writer.stored
}

struct Writer<'a> {
    tree: BTreeMap<String, Vec<usize>>,
    model: &'a ModelConfig,
    stored: Vec<Stored>,
}

impl Writer<'_> {
    fn add(&mut self, row: &Row, prefix: &str, there: &str) {
        if let Row::Zeros(name) = row {
            let shape = vec![self.model.width as usize];
            return self.stored.push(Stored { name: (*name).into(), shape, parts: Vec::new(), is_transposed: false });
        }
        if let Row::State(ours, theirs) = row {
            return self.push(format!("{there}{theirs}"), &[format!("{prefix}{ours}")], false);
        }
        for end in [".weight", ".bias"] {
            let named = |name: &str| format!("{prefix}{name}{end}");
            let place = |name: &str| format!("{there}{name}{end}");
            match row {
                Row::Whole(ours, theirs) => self.push(place(theirs), &[named(ours)], false),
                Row::Transposed(ours, theirs) => self.push(place(theirs), &[named(ours)], end == ".weight"),
                Row::Stacked(ours, theirs) => {
                    let ours: Vec<String> = ours.iter().map(|name| named(name)).collect();
                    self.push(place(theirs), &ours, false);
                }
                Row::Split(ours, theirs) => self.split(&named(ours), theirs.map(place)),
                Row::Experts(ours, theirs) => self.experts(&named(ours), &place(theirs)),
                Row::State(..) | Row::Zeros(_) => {}
            }
        }
    }

    /// Whole tensors, concatenated by rows, if the model has them.
    fn push(&mut self, name: String, ours: &[String], is_transposed: bool) {
        let shapes: Option<Vec<&Vec<usize>>> = ours.iter().map(|tensor| self.tree.get(tensor)).collect();
        let Some(shapes) = shapes else { return };
        let mut shape = shapes[0].clone();
        shape[0] = shapes.iter().map(|shape| shape[0]).sum();
        if is_transposed {
            shape.reverse();
        }
        let whole = |(tensor, shape): (&String, &Vec<usize>)| Part { tensor: tensor.clone(), elements: 0..shape.iter().product() };
        let parts = ours.iter().zip(shapes).map(whole).collect();
        self.stored.push(Stored { name, shape, parts, is_transposed });
    }

    /// Query heads, key heads and value heads of a fused projection.
    fn split(&mut self, tensor: &str, names: [String; 3]) {
        let Some(shape) = self.tree.get(tensor) else { return };
        let width = self.model.head_width() as usize;
        let (heads, kv_heads) = (self.model.attention.heads as usize, self.model.kv_heads() as usize);
        let columns: usize = shape[1..].iter().product();
        let mut start = 0;
        for (name, heads) in names.into_iter().zip([heads, kv_heads, kv_heads]) {
            let end = start + heads * width * columns;
            let shape = [&[heads * width], &shape[1..]].concat();
            let parts = vec![Part { tensor: tensor.into(), elements: start..end }];
            self.stored.push(Stored { name, shape, parts, is_transposed: false });
            start = end;
        }
    }

    fn experts(&mut self, tensor: &str, name: &str) {
        let Some(shape) = self.tree.get(tensor) else { return };
        let length: usize = shape[1..].iter().product();
        for expert in 0..shape[0] {
            let parts = vec![Part { tensor: tensor.into(), elements: expert * length..(expert + 1) * length }];
            let name = name.replace('*', &expert.to_string());
            self.stored.push(Stored { name, shape: shape[1..].to_vec(), parts, is_transposed: false });
        }
    }
}

/// The tensors of the tree that no tensor of a file contains.
pub(super) fn left_out(model_type: &ModelType, model: &ModelConfig) -> Vec<String> {
    let mut left = tree(model_type, model);
    for part in stored(model_type, model).iter().flat_map(|stored| &stored.parts) {
        left.remove(&part.tensor);
    }
    left.into_keys().collect()
}

/// The elements of a tensor of a file, from tensors of the tree by name; missing ones are zeros.
pub(super) fn gather(stored: &Stored, ours: &HashMap<&str, &NamedTensor>) -> NamedTensor {
    let mut data = Vec::with_capacity(stored.shape.iter().product());
    for part in &stored.parts {
        match ours.get(part.tensor.as_str()) {
            Some(tensor) => data.extend(&tensor.data[part.elements.clone()]),
            None => data.resize(data.len() + part.elements.len(), 0.0),
        }
    }
    data.resize(stored.shape.iter().product(), 0.0);
    if stored.is_transposed {
        data = transposed(&data, stored.shape[0]);
    }
    NamedTensor { name: stored.name.clone(), shape: stored.shape.clone(), data }
}

/// A matrix with `columns` columns, transposed.
fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
    let rows = data.len() / columns.max(1);
    (0..data.len()).map(|at| data[at % rows * columns + at / rows]).collect()
}

/// Names that model files contain besides the parameters: masks and frequencies, which follow from the config.
const BUFFERS: [&str; 3] = [".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"];

/// A tensor as listed in the header of a file.
struct Listed<'a> {
    file: &'a str,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// The mapping between tensors of the files and of the table.
pub(super) struct Matched {
    table: Vec<Stored>,
    /// Their names in the files, in the order of the table.
    names: Vec<String>,
    /// Whether the files contain a head that must equal the embedding.
    repeats_embedding: bool,
    /// What is dropped from the files, one line each.
    pub notes: Vec<String>,
}

/// Checks the tensors listed in the headers of files against the model. The files may contain `predictions` layers beyond the last;
/// they are not read.
///
/// # Errors
/// Every tensor that is missing, unexpected, duplicated, or of another shape or type.
pub(super) fn matched(
    model_type: &ModelType,
    model: &ModelConfig,
    predictions: u64,
    headers: &[(&str, Metadata)],
) -> Result<Matched, Vec<String>> {
    let mut problems = Vec::new();
    let mut found: BTreeMap<String, Listed> = BTreeMap::new();
    for (file, header) in headers {
        for (name, info) in header.tensors() {
            if let Some(before) = found.get(&name) {
                problems.push(format!("`{}` is in both `{}` and `{}`", shortened(&name), shortened(before.file), shortened(file)));
            }
            found.insert(name, Listed { file, dtype: info.dtype, shape: info.shape.clone() });
        }
    }
    let mut notes = Vec::new();
    let layers = u64::from(model.depth.layers);
    let before = found.len();
    for layer in layers..layers.saturating_add(predictions.min(MOST_PREDICTIONS)) {
        let prefix = format!("model.layers.{layer}.");
        found.retain(|name, _| !name.starts_with(&prefix));
    }
    if found.len() < before {
        let count = before - found.len();
        notes
            .push(format!("{count} tensors of layers that predict further tokens (`num_nextn_predict_layers`): moelab's models have none"));
    }
    let table = stored(model_type, model);
    let prefix = model_type.layout.networks[0].1.split_inclusive('.').next().unwrap_or_default();
    let (mut names, mut types) = (Vec::new(), BTreeSet::new());
    for stored in &table {
        // The base model of transformers, saved alone, lacks the prefix of the full model.
        let bare = stored.name.strip_prefix(prefix).filter(|_| !found.contains_key(&stored.name));
        let name = bare.unwrap_or(&stored.name).to_string();
        match found.remove(&name) {
            None => problems.push(format!("`{}` {:?} is missing", stored.name, stored.shape)),
            Some(listed) => {
                types.insert(format!("{:?}", listed.dtype));
                problems.extend(fault(&name, &listed, &stored.shape));
            }
        }
        names.push(name);
    }
    let head = found.remove("lm_head.weight").filter(|_| model.head.tied);
    let repeats_embedding = head.is_some();
    problems.extend(head.and_then(|head| fault("lm_head.weight", &head, &table[0].shape)));
    found.retain(|name, _| !BUFFERS.iter().any(|end| name.ends_with(end)));
    problems.extend(found.iter().map(|(name, listed)| {
        let (file, name, shape) = (shortened(listed.file), shortened(name), shape(&listed.shape));
        format!("`{file}`: `{name}` {shape} is not a tensor of such a model")
    }));
    types.remove("F32");
    if !types.is_empty() {
        let types = types.into_iter().collect::<Vec<_>>().join(" and ");
        notes.push(format!("the type of the weights, {types}: the run stores them as F32, which represents every value exactly"));
    }
    if problems.is_empty() { Ok(Matched { table, names, repeats_embedding, notes }) } else { Err(first_of(problems)) }
}

/// Maximum number of layers beyond the last.
const MOST_PREDICTIONS: u64 = 64;

/// A shape, truncated for a message.
fn shape(shape: &[usize]) -> String {
    shortened(&format!("{shape:?}"))
}

/// The problem with a tensor, judging by its header.
fn fault(name: &str, found: &Listed, wanted: &[usize]) -> Option<String> {
    let is_known = matches!(found.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16);
    let description = match (found.shape == wanted, is_known) {
        (true, true) => return None,
        (false, _) => shape(&found.shape),
        (true, false) => format!("{:?}", found.dtype),
    };
    Some(format!("`{}`: `{}` is {description}, expected {wanted:?} of F32, BF16 or F16", shortened(found.file), shortened(name)))
}

/// Reads the tensors of a model from the bytes of one or several files, each with its name for messages.
///
/// # Errors
/// Every tensor that is not finite, or has an unsupported value.
pub(super) fn read(
    model_type: &ModelType,
    model: &ModelConfig,
    matched: &Matched,
    files: &[(&str, &[u8])],
) -> Result<Vec<NamedTensor>, Vec<String>> {
    let mut opened = Vec::new();
    for (file, bytes) in files {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| vec![format!("`{file}`: {}", cut(&error.to_string(), 200))])?;
        opened.push((*file, tensors));
    }
    let find = |name: &str| {
        let view = opened.iter().find_map(|(file, tensors)| Some((*file, tensors.tensor(name).ok()?)));
        view.ok_or_else(|| format!("`{}` is missing", shortened(name)))
    };
    let (mut problems, mut read) = (Vec::new(), Vec::new());
    for (stored, name) in matched.table.iter().zip(&matched.names) {
        match find(name).and_then(|(file, view)| values(stored, file, &view)) {
            Ok(data) => read.push(data),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() && matched.repeats_embedding {
        match find("lm_head.weight") {
            // The first tensor of every table is the embedding.
            Ok((_, head)) if decoded(&head).as_ref() == read.first() => {}
            Ok((file, _)) => {
                problems.push(format!("`{file}`: `lm_head.weight` is not the embedding, which the head shares (`tie_word_embeddings`)"));
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(scattered(model_type, model, &matched.table, &read)) } else { Err(first_of(problems)) }
}

/// The tensors of the tree, assembled from those of the table.
fn scattered(model_type: &ModelType, model: &ModelConfig, table: &[Stored], read: &[Vec<f32>]) -> Vec<NamedTensor> {
    let mut data: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let shapes = tree(model_type, model);
    for (stored, values) in table.iter().zip(read) {
        let turned = stored.is_transposed.then(|| transposed(values, stored.shape[1]));
        let mut rest = turned.as_deref().unwrap_or(values);
        for part in &stored.parts {
            let (own, after) = rest.split_at(part.elements.len());
            let length = shapes[&part.tensor].iter().product();
            data.entry(part.tensor.clone()).or_insert_with(|| vec![0.0; length])[part.elements.clone()].copy_from_slice(own);
            rest = after;
        }
    }
    shapes.into_iter().filter_map(|(name, shape)| Some(NamedTensor { data: data.remove(&name)?, name, shape })).collect()
}

/// The values of a tensor, checked to be finite and of the expected shape.
fn values(stored: &Stored, file: &str, view: &TensorView) -> Result<Vec<f32>, String> {
    let what = || format!("`{file}`: `{}`", stored.name);
    let wanted = |found: String| format!("{} is {found}, expected {:?} of F32, BF16 or F16", what(), stored.shape);
    if view.shape() != stored.shape {
        return Err(wanted(format!("{:?}", view.shape())));
    }
    let data = decoded(view).ok_or_else(|| wanted(format!("{:?}", view.dtype())))?;
    if let Some(at) = data.iter().position(|value| !value.is_finite()) {
        return Err(format!("{} is {} at element {at}: such weights cannot be used", what(), data[at]));
    }
    if stored.parts.is_empty() && data.iter().any(|value| *value != 0.0) {
        return Err(format!("{} is not zero, as required by moelab's models", what()));
    }
    Ok(data)
}

/// Values as f32, which represents BF16 and F16 exactly.
fn decoded(view: &TensorView) -> Option<Vec<f32>> {
    let halves = || view.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match view.dtype() {
        Dtype::F32 => Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::BF16 => Some(halves().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()),
        Dtype::F16 => Some(halves().map(f32_from_f16).collect()),
        _ => None,
    }
}

/// IEEE 754 binary16: sign, 5 bits of exponent, 10 of fraction.
fn f32_from_f16(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_read_exactly() {
        for (bits, value) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8), (0x7bff, 65504.0), (0x0400, 6.103_515_6e-5)]
        {
            assert_eq!(f32_from_f16(bits), value, "{bits:x}");
        }
        assert!(f32_from_f16(0x7e00).is_nan() && f32_from_f16(0xfc00) == f32::NEG_INFINITY);
    }

    #[test]
    fn transposing_twice_is_the_identity() {
        let data: Vec<f32> = (0..6).map(|i| i as f32).collect();
        assert_eq!(transposed(&data, 3), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(transposed(&transposed(&data, 3), 2), data);
    }
}
