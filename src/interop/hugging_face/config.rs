//! `config.json` and the config of a model: how their keys correspond.
//!
//! A model's config is a flat map here, with dotted keys below `model`. A [`ModelType`] declares what all its models have in
//! common, and, with [`Key`](super::keys::Key)s and [`Rule`](super::keys::Rule)s, what `config.json` determines. Reading applies
//! both to a plain decoder. Writing needs no list of what a model type cannot express: the output is read back, and every key that
//! differs is a reason to refuse.

use std::collections::BTreeSet;

use super::keys::{Flat, Json, from_text, shortened, shown};
use super::model_type::{Fixed, ModelType};
use crate::config_file::{Condition, Value, table_of};
use crate::run::model::{AttentionKind, ModelConfig, PositionKind};

/// A plain decoder: the defaults of all model types.
const PLAIN: &str = r#"
vocabulary = 0
depth.kind = "indexed"
embedding.scale = "one"
norm = { kind = "rms_norm", gain = true }
positions = { kind = "rope", pairing = "half_split", fraction = 1.0 }
attention = { kind = "heads", kv_heads = 0, head_width = 0, qk_norm = false, bias = false, output_bias = false, gate = false }
ffn = { kind = "dense", dense_layers = 0, dense_width = 0, shared_experts = 0, activation = "silu", gated = true, bias = false }
router = { scores = "softmax", softmax = "selected", scale = 1.0, groups = 1, kept_groups = 1, bias = false, selection_bias = "none" }
head.tied = false
"#;

/// Training settings without randomness and with only the cross-entropy as loss, as transformers trains: the defaults of all
/// model types.
const QUIET: &str = r#"
balance.kind = "none"
dropout = { embedding = 0.0, attention = 0.0, residual = 0.0, ffn = 0.0, head = 0.0 }
router = { noise = 0.0, selection_bias_rate = 0.0 }
"#;

/// Keys that only affect training, not the output of a model.
const TRAINING_ONLY: [&str; 10] = [
    "balance.",
    "depth.recursion.carry",
    "depth.recursion.gradient",
    "depth.recursion.halt_after",
    "depth.recursion.low_gradient_steps",
    "dropout.",
    "head.starts_as_embedding",
    "init.",
    "router.noise",
    "router.selection_bias_rate",
];

/// Keys of `config.json` that do not affect the output of a model.
const WITHOUT_EFFECT: [&str; 28] = [
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "aux_loss_alpha",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "ep_size",
    "model_type",
    "n_ctx",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "reorder_and_upcast_attn",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "seq_aux",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "torch_dtype",
    "transformers_version",
    "unk_token_id",
    "use_cache",
    "attn_implementation",
];

/// The config of the model that `json` describes, with its training settings.
///
/// # Errors
/// Everything that is missing, out of range, unknown, or not supported by moelab's models.
pub(super) fn read(model_type: &ModelType, json: &Json) -> Result<ModelConfig, Vec<String>> {
    let quiet = QUIET.parse().ok().and_then(|quiet: toml::Table| ModelConfig::read(&quiet.into()));
    let quiet = quiet.expect("a constant of this module is a config");
    let mut flat = flat(&quiet);
    let training_only: Flat = flat.iter().filter(|(key, _)| is_training_only(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    flat.extend(parsed(PLAIN));
    flat.extend(parsed(model_type.always));
    flat.extend(training_only);
    let keys = model_type.keys.iter().copied().flatten();
    let mut problems: Vec<String> = keys.clone().filter_map(|key| key.read(json, &mut flat).err()).collect();
    problems.extend(model_type.rules.iter().filter_map(|rule| (rule.read)(json, &mut flat).err()));
    for Fixed { key, only, absent } in model_type.fixed.iter().chain(model_type.switched_off) {
        match json.get(*key) {
            Some(found) if *found != from_text(only) => {
                problems.push(format!("`{key}` is {}, which moelab does not support: expected {only}", shown(found)));
            }
            None if absent != only => {
                problems.push(format!("`{key}` is missing, which means {absent}, which moelab does not support: expected {only}"));
            }
            _ => {}
        }
    }
    let of_rules = model_type.rules.iter().flat_map(|rule| rule.reads).copied();
    let of_pairs = model_type.fixed.iter().chain(model_type.switched_off).map(|fixed| fixed.key);
    let known: BTreeSet<&str> =
        keys.map(|key| key.json).chain(of_rules).chain(of_pairs).chain(model_type.ignored.iter().copied()).chain(WITHOUT_EFFECT).collect();
    for (key, found) in json.iter().filter(|(key, _)| !known.contains(key.as_str())) {
        problems.push(format!("`{}` is unknown and may affect the model's output: it is {}", shortened(key), shown(found)));
    }
    if problems.is_empty() { Ok(model_of(&flat)) } else { Err(problems) }
}

/// The model that transformers creates from `model`, with default values for the training settings that `config.json` does not state.
pub(super) fn kept(model_type: &ModelType, model: &ModelConfig) -> Result<ModelConfig, Vec<String>> {
    read(model_type, &write(model_type, model))
}

/// The keys of a `config.json` that do not affect a model's output and that an export writes unchanged.
pub(super) fn carried(json: &Json) -> Json {
    const OWN: [&str; 6] = ["_name_or_path", "architectures", "dtype", "model_type", "torch_dtype", "transformers_version"];
    let also = ["router_aux_loss_coef"];
    let is_carried = |key: &str| (WITHOUT_EFFECT.contains(&key) || also.contains(&key)) && !OWN.contains(&key);
    json.iter().filter(|(key, _)| is_carried(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether a setting only affects training, so that a user may change it for an imported model. Initialisation no longer matters
/// once a model has weights.
pub fn is_setting_of_training(key: &str) -> bool {
    is_training_only(key) && !is_of_start(key)
}

fn is_of_start(key: &str) -> bool {
    key.starts_with("init.") || key == "head.starts_as_embedding"
}

/// The training settings of a model that differ from moelab's defaults, as `model.dropout.ffn = 0.0 (default 0.1)`.
pub fn settings_of_training(model: &ModelConfig) -> Vec<String> {
    let (ours, defaults) = (flat(&resolved(model)), flat(&ModelConfig::default()));
    let mut found = Vec::new();
    ModelConfig::kind().leaves(&mut |key, _, conditions| {
        let applies = conditions.iter().all(|condition| holds(&ours, condition));
        if applies && is_setting_of_training(key) && ours[key] != defaults[key] {
            found.push(format!("model.{key} = {} (default {})", ours[key], defaults[key]));
        }
    });
    found
}

/// A key of a model's config, below `model`, as TOML; `None` if the model's other keys disable it.
pub fn value_of(model: &ModelConfig, key: &str) -> Option<toml::Value> {
    let flat = flat(&resolved(model));
    let mut applies = false;
    ModelConfig::kind().leaves(&mut |leaf, _, conditions| {
        applies |= leaf == key && conditions.iter().all(|condition| holds(&flat, condition));
    });
    applies.then(|| flat[key].clone())
}

/// The model with one key, below `model`, set to a value that its schema allows.
pub fn with_value(model: &ModelConfig, key: &str, value: &toml::Value) -> ModelConfig {
    let mut flat = flat(model);
    flat.insert(key.into(), value.clone());
    model_of(&flat)
}

/// The `config.json` of this type for `model`, even if the type cannot express it.
pub(super) fn write(model_type: &ModelType, model: &ModelConfig) -> Json {
    let model = resolved(model);
    let flat = flat(&model);
    let mut json = Json::new();
    json.insert("architectures".into(), vec![model_type.architecture].into());
    json.insert("model_type".into(), model_type.name.into());
    json.insert("dtype".into(), "float32".into());
    model_type.keys.iter().copied().flatten().for_each(|key| key.write(&flat, &mut json));
    model_type.rules.iter().for_each(|rule| (rule.write)(&model, &mut json));
    json.extend(model_type.fixed.iter().map(|fixed| (fixed.key.to_string(), from_text(fixed.only))));
    json
}

/// A key of a model's config that a Hugging Face file does not keep.
pub(super) struct Difference {
    /// The key, below `model`.
    key: String,
    ours: String,
    theirs: String,
    /// Whether it only affects training.
    pub is_training_only: bool,
}

impl Difference {
    /// The reason why a model is not of a type.
    pub fn reason(&self, model_type: &ModelType) -> String {
        format!("`model.{}` is {}, models of type {} have {}", self.key, self.ours, model_type.name, self.theirs)
    }

    /// Whether the difference is in the structure of the model.
    pub fn is_of_kind(&self) -> bool {
        self.key.ends_with(".kind") || self.key == "router.scores"
    }

    /// The setting that is lost, unless it only matters before training starts.
    pub fn lost_setting(&self) -> Option<String> {
        is_setting_of_training(&self.key).then(|| format!("model.{} = {}", self.key, self.ours))
    }
}

/// The keys that matter in `ours` and differ in `theirs`.
pub(super) fn differences(ours: &ModelConfig, theirs: &ModelConfig) -> Vec<Difference> {
    let (ours, theirs) = (flat(&resolved(ours)), flat(&resolved(theirs)));
    let mut found = Vec::new();
    ModelConfig::kind().leaves(&mut |key, _, conditions| {
        let applies = |flat: &Flat| conditions.iter().all(|condition| holds(flat, condition));
        // If a choice disables a key in one of them, the choice itself differs.
        let matters = applies(&ours) && applies(&theirs) && ours[key] != theirs[key];
        // Without a selection bias, zeros are written.
        let is_zero_bias = key == "router.selection_bias" && ours[key].as_str() == Some("none");
        let is_unused = key == "ffn.dense_width" && ours["ffn.dense_layers"].as_integer() == Some(0);
        if matters && !is_zero_bias && !is_unused {
            let [ours, theirs] = [&ours[key], &theirs[key]].map(toml::Value::to_string);
            found.push(Difference { key: key.into(), ours, theirs, is_training_only: is_training_only(key) });
        }
    });
    found
}

fn holds(flat: &Flat, condition: &Condition) -> bool {
    let key = condition.key.strip_prefix("model.").expect("conditions of a model are on a model");
    flat[key].as_str().is_some_and(|name| condition.among.contains(&name))
}

fn is_training_only(key: &str) -> bool {
    TRAINING_ONLY.iter().any(|only| if only.ends_with('.') { key.starts_with(only) } else { key == *only })
}

/// The config in canonical form: derived numbers are resolved, and unused keys have a fixed value.
fn resolved(model: &ModelConfig) -> ModelConfig {
    let mut resolved = model.clone();
    resolved.ffn.dense_width = model.dense_width();
    if model.router.groups == 1 {
        resolved.router.kept_groups = 1;
    }
    if model.attention.kind == AttentionKind::Heads {
        resolved.attention.kv_heads = model.kv_heads();
        resolved.attention.head_width = model.head_width();
        if model.positions.kind == PositionKind::Rope && model.head_width() > 0 {
            resolved.positions.fraction = f64::from(model.rope_width()) / f64::from(model.head_width());
        }
    }
    resolved
}

fn flat(model: &ModelConfig) -> Flat {
    flattened(&table_of(model))
}

fn parsed(text: &str) -> Flat {
    flattened(&text.parse().expect("a constant of this module is TOML"))
}

fn flattened(table: &toml::Table) -> Flat {
    let mut flat = Flat::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(below) => flat.extend(flattened(below).into_iter().map(|(rest, v)| (format!("{key}.{rest}"), v))),
            value => {
                flat.insert(key.clone(), value.clone());
            }
        }
    }
    flat
}

fn model_of(flat: &Flat) -> ModelConfig {
    let mut root = toml::Table::new();
    for (path, value) in flat {
        let mut table = &mut root;
        let (below, key) = path.rsplit_once('.').unwrap_or(("", path));
        for name in below.split('.').filter(|name| !name.is_empty()) {
            let entry = table.entry(name).or_insert_with(|| toml::Table::new().into());
            table = entry.as_table_mut().expect("no key is a table and a value");
        }
        table.insert(key.into(), value.clone());
    }
    ModelConfig::read(&root.into()).expect("every value was checked against the schema")
}
