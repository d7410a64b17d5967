//! Rules for keys of `config.json` that depend on each other or have a special form.

use serde_json::{Value as Found, json};

use super::keys::{Flat, Json, Rule, converted, shortened, shown};
use crate::config_file::Value;
use crate::run::model::{BalanceKind, EmbeddingScale, ModelConfig, Recursion, RecursionGradient};

const ROPE_KEYS: &[&str] = &["rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor"];

/// Rotary positions over whole heads, base 10,000 unless stated.
pub(super) const ROPE: Rule = Rule {
    reads: ROPE_KEYS,
    read: |json, flat| read_rope(json, flat, 10_000.0, None),
    write: |model, json| write_rope(model, json, false),
};

/// The same with base 1,000,000 unless stated.
pub(super) const ROPE_OF_MIXTRAL: Rule = Rule { read: |json, flat| read_rope(json, flat, 1e6, None), ..ROPE };

/// Rotary positions over the leading half of every head unless stated.
pub(super) const PARTIAL_ROPE: Rule = Rule {
    reads: ROPE_KEYS,
    read: |json, flat| read_rope(json, flat, 10_000.0, Some(0.5)),
    write: |model, json| write_rope(model, json, true),
};

/// Reads both the form of transformers 5 (`rope_parameters`) and that of 4 (`rope_scaling` and separate keys). As in transformers,
/// a non-empty `rope_scaling` replaces all of `rope_parameters`, and the separate keys provide what neither states.
fn read_rope(json: &Json, flat: &mut Flat, base: f64, partial: Option<f64>) -> Result<(), String> {
    let (none, mut parameters, mut of) = (Json::new(), None, "rope_parameters");
    for key in ["rope_parameters", "rope_scaling"] {
        match json.get(key) {
            None | Some(Found::Null) => {}
            Some(Found::Object(found)) if found.is_empty() => {}
            Some(Found::Object(found)) => (parameters, of) = (Some(found), key),
            Some(found) => return Err(format!("`{key}` is {}, expected an object", shown(found))),
        }
    }
    let parameters = parameters.unwrap_or(&none);
    for (name, found) in parameters {
        let is_plain = match name.as_str() {
            "rope_type" | "type" => found.as_str() == Some("default"),
            name => matches!(name, "rope_theta" | "partial_rotary_factor"),
        };
        if !is_plain {
            return Err(format!("`{of}.{}` is {}: moelab's rotary positions are not scaled", shortened(name), shown(found)));
        }
    }
    match parameters.get("rope_theta").or(json.get("rope_theta")) {
        Some(found) => set(flat, "positions.base", "rope_theta", found)?,
        None => drop(flat.insert("positions.base".into(), base.into())),
    }
    let width = match number(flat, "attention.head_width") {
        0 => number(flat, "width") / number(flat, "attention.heads").max(1),
        stated => stated,
    };
    // A `null` next to the parameters overrides the share of the type, and means whole heads.
    let beside = json.get("partial_rotary_factor");
    let share = parameters.get("partial_rotary_factor").or(beside.filter(|found| !found.is_null()));
    let absent = if beside.is_some_and(Found::is_null) { 1.0 } else { partial.unwrap_or(1.0) };
    read_fraction(flat, share, absent, partial.is_some(), width)
}

/// The share of a head of `width` that is rotated; transformers rounds the rotated width down.
fn read_fraction(flat: &mut Flat, found: Option<&Found>, absent: f64, may_be_partial: bool, width: i64) -> Result<(), String> {
    let Some(share) = found.map_or(Some(absent), Found::as_f64).filter(|share| *share > 0.0 && *share <= 1.0) else {
        return Err(format!(
            "`partial_rotary_factor` is {}, expected a number above 0 and at most 1",
            found.map(shown).unwrap_or_default()
        ));
    };
    if !may_be_partial && share != 1.0 {
        return Err(format!("`partial_rotary_factor` is {share}, models of this type rotate whole heads"));
    }
    let turned = (width as f64 * share).floor();
    flat.insert("positions.fraction".into(), (if width > 0 { turned / width as f64 } else { share }).into());
    Ok(())
}

fn write_rope(model: &ModelConfig, json: &mut Json, is_partial: bool) {
    let base = model.positions.base;
    let mut parameters = json!({ "rope_type": "default", "rope_theta": base });
    json.insert("rope_theta".into(), base.into());
    if is_partial {
        parameters["partial_rotary_factor"] = model.positions.fraction.into();
        json.insert("partial_rotary_factor".into(), model.positions.fraction.into());
    }
    json.insert("rope_parameters".into(), parameters);
}

/// GPT-2's hidden width, four times D unless stated.
pub(super) const INNER_WIDTH: Rule = Rule {
    reads: &["n_inner"],
    read: |json, flat| match json.get("n_inner").filter(|found| !found.is_null()) {
        Some(found) => set(flat, "ffn.width", "n_inner", found),
        None => set(flat, "ffn.width", "4 n_embd", &json!(4 * number(flat, "width"))),
    },
    write: |model, json| {
        let stated = (model.ffn.width != 4 * model.width).then_some(model.ffn.width);
        json.insert("n_inner".into(), stated.into());
    },
};

/// Dense layers as a list, which must be the first ones.
pub(super) const DENSE_LAYERS: Rule = Rule {
    reads: &["mlp_only_layers"],
    read: |json, flat| {
        let found = json.get("mlp_only_layers").filter(|found| !found.is_null()).cloned().unwrap_or(json!([]));
        let first = found.as_array().filter(|list| list.iter().zip(0u64..).all(|(layer, place)| layer.as_u64() == Some(place)));
        let count = first.ok_or_else(|| format!("`mlp_only_layers` is {}, expected the first layers: [0, 1, ..]", shown(&found)))?.len();
        set(flat, "ffn.dense_layers", "mlp_only_layers", &json!(count))
    },
    write: |model, json| {
        json.insert("mlp_only_layers".into(), (0..model.ffn.dense_layers).collect::<Vec<_>>().into());
    },
};

/// The number of experts under the names of transformers 4 and 5.
pub(super) const EXPERTS: Rule = Rule {
    reads: &["num_experts", "num_local_experts"],
    read: |json, flat| match (json.get("num_experts"), json.get("num_local_experts")) {
        (None, None) => Err("`num_experts` is missing".into()),
        (Some(one), Some(other)) if one != other => {
            Err(format!("`num_experts` is {} and `num_local_experts` {}: expected one number", shown(one), shown(other)))
        }
        (Some(found), _) | (None, Some(found)) => set(flat, "router.experts", "num_experts", found),
    },
    write: |model, json| {
        for key in ["num_experts", "num_local_experts"] {
            json.insert(key.into(), model.router.experts.into());
        }
    },
};

/// The balance loss of training, which transformers adds where `output_router_logits` is true.
pub(super) const BALANCE_LOSS: Rule = Rule {
    reads: &["output_router_logits", "router_aux_loss_coef"],
    read: |json, flat| {
        let is_on = match json.get("output_router_logits") {
            None => false,
            Some(found) => found.as_bool().ok_or_else(|| format!("`output_router_logits` is {}, expected true or false", shown(found)))?,
        };
        flat.insert("balance.kind".into(), if is_on { "hf_mixtral" } else { "none" }.into());
        set(flat, "balance.coefficient", "router_aux_loss_coef", json.get("router_aux_loss_coef").unwrap_or(&json!(0.001)))
    },
    write: |model, json| {
        let is_on = model.balance.kind == BalanceKind::HfMixtral;
        json.insert("output_router_logits".into(), is_on.into());
        if is_on {
            json.insert("router_aux_loss_coef".into(), model.balance.coefficient.into());
        }
    },
};

/// Layers beyond the last that predict further tokens; moelab's models have none.
pub(super) const PREDICTION_LAYERS: Rule = Rule {
    reads: &["num_nextn_predict_layers", "num_mtp_layers"],
    read: |json, _| match json.get("num_nextn_predict_layers").filter(|found| !found.is_null()) {
        Some(found) if found.as_u64().is_none() => {
            Err(format!("`num_nextn_predict_layers` is {}, expected an integer from 0", shown(found)))
        }
        _ => Ok(()),
    },
    write: |_, json| {
        json.insert("num_nextn_predict_layers".into(), 0.into());
    },
};

/// How many such layers a file may contain.
pub(super) fn prediction_layers(json: &Json) -> u64 {
    json.get("num_nextn_predict_layers").and_then(Found::as_u64).unwrap_or(0)
}

/// Training settings of `config.json` without a counterpart in moelab, one line each.
pub(super) fn not_carried(json: &Json) -> Vec<String> {
    let stated = |key: &str| json.get(key).and_then(Found::as_f64).filter(|value| *value != 0.0);
    let note = |key: &str, what: &str| stated(key).map(|value| format!("`{key}` is {value}: {what}"));
    let is_off = json.get("output_router_logits").and_then(Found::as_bool) != Some(true);
    let without_loss = is_off.then(|| note("router_aux_loss_coef", "no balance loss, as `output_router_logits` is not true")).flatten();
    [
        note("router_jitter_noise", "moelab's noise is on the router's logits (model.router.noise), and is off"),
        note("aux_loss_alpha", "transformers trains without this balance loss; set model.balance to train with one"),
        without_loss,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A token cannot choose from more groups than exist.
pub(super) const KEPT_GROUPS: Rule = Rule {
    reads: &[],
    read: |_, flat| match (number(flat, "router.groups"), number(flat, "router.kept_groups")) {
        (groups, kept) if kept > groups => Err(format!("`topk_group` is {kept}, expected at most `n_group`, {groups}")),
        _ => Ok(()),
    },
    write: |_, _| {},
};

/// DeepSeek-V3's `head_dim` is that of the rotary positions.
pub(super) const ROTARY_HEAD: Rule = Rule {
    reads: &["head_dim"],
    read: |json, flat| match json.get("head_dim") {
        Some(found) if found.as_i64() != Some(number(flat, "attention.latent.rope_width")) => {
            Err(format!("`head_dim` is {}, expected `qk_rope_head_dim` or no such key", shown(found)))
        }
        _ => Ok(()),
    },
    write: |_, _| {},
};

/// Latent attention has as many heads of keys as of queries.
pub(super) const SAME_HEADS: Rule = Rule {
    reads: &["num_key_value_heads"],
    read: |json, flat| {
        let absent = json!(128);
        let found = json.get("num_key_value_heads").unwrap_or(&absent);
        match found.is_null() || found.as_i64() == Some(number(flat, "attention.heads")) {
            true => Ok(()),
            false => Err(format!("`num_key_value_heads` is {}, expected as many as `num_attention_heads`", shown(found))),
        }
    },
    write: |model, json| {
        json.insert("num_key_value_heads".into(), model.attention.heads.into());
    },
};

/// HrmText states the blocks of a stack, and the total number that a token passes through.
pub(super) const STACKS: Rule = Rule {
    reads: &["num_hidden_layers", "num_layers_per_stack"],
    read: |json, flat| {
        let calls = number(flat, "depth.recursion.high_cycles") * (number(flat, "depth.recursion.low_cycles") + 1);
        let all = json.get("num_hidden_layers");
        let Some(found) = json.get("num_layers_per_stack").filter(|found| !found.is_null()) else {
            return set(flat, "depth.layers", "num_hidden_layers", all.ok_or("`num_hidden_layers` is missing")?);
        };
        set(flat, "depth.layers", "num_layers_per_stack", found)?;
        let wanted = calls * number(flat, "depth.layers");
        match all.filter(|all| all.as_i64() != Some(wanted)) {
            Some(all) => Err(format!("`num_hidden_layers` is {}, expected {wanted}, for {calls} calls of a stack", shown(all))),
            None => Ok(()),
        }
    },
    write: |model, json| {
        let Recursion { high_cycles, low_cycles, .. } = model.depth.recursion;
        json.insert("num_layers_per_stack".into(), model.depth.layers.into());
        json.insert("num_hidden_layers".into(), (model.depth.layers * high_cycles * (low_cycles + 1)).into());
    },
};

/// HrmText's factor on the embedding: 1 / initializer_range unless stated. moelab has 1 and sqrt(D).
pub(super) const EMBEDDING_SCALE: Rule = Rule {
    reads: &["embedding_scale"],
    read: |json, flat| {
        let stated = json.get("embedding_scale").filter(|found| !found.is_null());
        let root = (number(flat, "width") as f64).sqrt();
        let inverse = 1.0 / flat["init.std"].as_float().unwrap_or(1.0);
        let scale = match stated {
            Some(found) => found.as_f64().ok_or_else(|| format!("`embedding_scale` is {}, expected a number", shown(found)))?,
            None => inverse,
        };
        let name = if scale == 1.0 {
            "one"
        } else if (scale / root - 1.0).abs() < 1e-6 {
            "sqrt_width"
        } else if (scale / inverse - 1.0).abs() < 1e-6 {
            "inverse_init_std"
        } else {
            return Err(format!(
                "the factor on the embedding (`embedding_scale`) is {scale}, expected 1, the root of `hidden_size`, {root}, or \
                 1 / `initializer_range`, {inverse}"
            ));
        };
        flat.insert("embedding.scale".into(), name.into());
        Ok(())
    },
    write: |model, json| {
        let scale = match model.embedding.scale {
            EmbeddingScale::One => 1.0,
            EmbeddingScale::SqrtWidth => f64::from(model.width).sqrt(),
            EmbeddingScale::InverseInitStd => 1.0 / model.init.std,
        };
        json.insert("embedding_scale".into(), scale.into());
    },
};

/// HrmText's last updates of the low state with gradient, a number for each high cycle; the list is padded with leading ones.
pub(super) const GRADIENT_CYCLES: Rule = Rule {
    reads: &["L_bp_cycles"],
    read: |json, flat| {
        let found = json.get("L_bp_cycles").filter(|found| !found.is_null()).cloned().unwrap_or(json!([2]));
        let (high, low) = (number(flat, "depth.recursion.high_cycles") as usize, number(flat, "depth.recursion.low_cycles"));
        let stated: Option<Vec<i64>> = found.as_array().and_then(|list| list.iter().map(Found::as_i64).collect());
        let refused = || format!("`L_bp_cycles` is {}, expected `L_cycles` for every high cycle, or 1 for all but the last", shown(&found));
        let stated = stated.filter(|list| list.len() <= high && !list.is_empty()).ok_or_else(refused)?;
        let led: Vec<i64> = std::iter::repeat_n(1, high - stated.len()).chain(stated).collect();
        let (last, before) = led.split_last().ok_or_else(refused)?;
        let gradient = match () {
            () if high > 1 && led.iter().all(|steps| *steps >= low) => "all",
            () if *last >= 1 && before.iter().all(|steps| *steps == 1) => {
                set(flat, "depth.recursion.low_gradient_steps", "L_bp_cycles", &json!(last))?;
                "low_steps"
            }
            () => return Err(refused()),
        };
        flat.insert("depth.recursion.gradient".into(), gradient.into());
        Ok(())
    },
    write: |model, json| {
        let Recursion { gradient, high_cycles, low_cycles, low_gradient_steps, .. } = model.depth.recursion;
        let steps = match gradient {
            RecursionGradient::All => vec![low_cycles; high_cycles as usize],
            RecursionGradient::LowSteps => vec![low_gradient_steps],
            // The nearest equivalent: transformers passes gradients through every update of the high state.
            RecursionGradient::LastCycle => vec![low_cycles],
        };
        json.insert("L_bp_cycles".into(), steps.into());
    },
};

/// Sets a key of the model's config to a value that its schema allows.
fn set(flat: &mut Flat, ours: &str, theirs: &str, found: &Found) -> Result<(), String> {
    let kind = ModelConfig::kind().find(ours).cloned().expect("a key of this module is a key of the model");
    let value = converted(found, &kind).ok_or_else(|| format!("`{theirs}` is {}, expected {}", shown(found), kind.allowed()))?;
    flat.insert(ours.into(), value);
    Ok(())
}

/// An integer of the model's config.
fn number(flat: &Flat, key: &str) -> i64 {
    flat[key].as_integer().expect("a key of this module is an integer")
}
