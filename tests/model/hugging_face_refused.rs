//! Files of Hugging Face that are broken, or of models that moelab has not, are refused with all that is wrong; none panics.

use std::fs;

use moelab::{
    config_file::Value as _,
    interop::hugging_face::{Imported, describe, export},
    random::Stream,
    run::checkpoint::NamedTensor,
    run::{ModelConfig, model::BalanceKind},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::hugging_face::import;

/// A model's files, to be broken.
#[derive(Clone)]
struct Files {
    config: Value,
    /// Name, type, shape, bytes.
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Files {
    fn of(model: &str) -> Files {
        let folder = format!("{}/tests/fixtures/hf/{model}", env!("CARGO_MANIFEST_DIR"));
        let bytes = fs::read(format!("{folder}/model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| (name.to_string(), view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        Files { config: serde_json::from_slice(&fs::read(format!("{folder}/config.json")).unwrap()).unwrap(), tensors: tensors.collect() }
    }

    fn set(mut self, key: &str, value: Value) -> Files {
        self.config[key] = value;
        self
    }

    fn tensor(&mut self, name: &str) -> &mut (String, Dtype, Vec<usize>, Vec<u8>) {
        self.tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
    }

    fn weights(tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
        let view = |(name, dtype, shape, bytes): &'_ (String, Dtype, Vec<usize>, Vec<u8>)| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap().data().to_vec())
        };
        let data: Vec<(String, Vec<u8>)> = tensors.iter().map(view).collect();
        let views = data
            .iter()
            .zip(tensors)
            .map(|((name, bytes), (_, dtype, shape, _))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    fn import(&self) -> Result<Imported, String> {
        let weights = Files::weights(&self.tensors);
        imported(self.config.to_string().as_bytes(), &[("model.safetensors", &weights)])
    }

    /// What the refusal says.
    fn refusal(&self) -> String {
        self.import().expect_err("a refusal")
    }
}

fn imported(config: &[u8], files: &[(&str, &[u8])]) -> Result<Imported, String> {
    import(config, files).map_err(|error| error.to_string())
}

#[test]
fn tensors_that_are_not_those_of_the_model_are_told() {
    let mut files = Files::of("mixtral");
    files.tensors.retain(|tensor| tensor.0 != "model.layers.1.block_sparse_moe.experts.2.w3.weight");
    files.tensor("model.norm.weight").2 = vec![8, 8];
    files.tensor("model.layers.0.self_attn.q_proj.weight").1 = Dtype::I32;
    files.tensors.push(("model.layers.9.extra".into(), Dtype::F32, vec![1], vec![0; 4]));
    let said = files.refusal();
    for told in [
        "`model.layers.1.block_sparse_moe.experts.2.w3.weight` [24, 64] is missing",
        "`model.norm.weight` is [8, 8], expected [64] of F32, BF16 or F16",
        "`model.layers.0.self_attn.q_proj.weight` is I32, expected [32, 64] of F32, BF16 or F16",
        "`model.layers.9.extra` [1] is not a tensor of such a model",
    ] {
        assert!(said.contains(told), "no {told:?} in {said}");
    }
    let mut files = Files::of("mixtral");
    files.tensor("model.layers.0.input_layernorm.weight").3[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(files.refusal().contains("`model.layers.0.input_layernorm.weight` is NaN at element 1"));
    let mut hrm = Files::of("hrm_text");
    hrm.tensor("model.z_L_init").3[..4].copy_from_slice(&1f32.to_le_bytes());
    assert!(hrm.refusal().contains("`model.z_L_init` is not zero"));
    let mut tied = Files::of("mixtral");
    let mut head = tied.tensor("model.embed_tokens.weight").clone();
    head.0 = "lm_head.weight".into();
    tied.tensors.push(head);
    assert!(tied.import().is_ok(), "the embedding under a second name");
    tied.tensor("lm_head.weight").3[0] ^= 1;
    assert!(tied.refusal().contains("`lm_head.weight` is not the embedding"));
}

#[test]
fn what_would_change_the_function_is_refused() {
    let yarn = json!({ "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0 });
    for (model, key, value, told) in [
        ("llama", "rope_parameters", yarn, "`rope_parameters.factor` is 4.0: moelab's rotary positions are not scaled"),
        ("llama", "rope_scaling", json!({ "type": "linear", "factor": 2.0 }), "not scaled"),
        ("llama", "partial_rotary_factor", json!(0.5), "rotate whole heads"),
        ("llama", "attention_sinks", json!(4), "`attention_sinks` is unknown"),
        ("llama", "quantization_config", json!({ "bits": 4 }), "`quantization_config` is {\"bits\":4}, which moelab does not support"),
        ("llama", "hidden_act", json!("gegelu"), "`hidden_act` is \"gegelu\", expected one of \"silu\""),
        ("mixtral", "sliding_window", json!(4096), "`sliding_window` is 4096, which moelab does not support: expected null"),
        ("qwen3_moe", "mlp_only_layers", json!([1]), "expected the first layers"),
        ("qwen3_moe", "decoder_sparse_step", json!(2), "`decoder_sparse_step` is 2"),
        ("qwen3_moe", "use_sliding_window", json!(true), "`use_sliding_window` is true"),
        ("glm4_moe", "n_group", json!(8), "8 groups of 8 experts"),
        ("deepseek_v3", "n_group", json!(1), "`topk_group` is 2, expected at most `n_group`, 1"),
        ("deepseek_v3", "num_key_value_heads", json!(2), "as many as `num_attention_heads`"),
        ("deepseek_v3", "scoring_func", json!("softmax"), "expected \"sigmoid\""),
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true), "`scale_attn_by_inverse_layer_idx` is true"),
        ("hrm_text", "prefix_lm", json!(true), "`prefix_lm` is true"),
        ("hrm_text", "embedding_scale", json!(49), "is 49, expected 1, the root of `hidden_size`"),
        ("hrm_text", "L_bp_cycles", json!([2, 2]), "`L_bp_cycles` is [2,2]"),
        ("hrm_text", "num_hidden_layers", json!(2), "expected 16, for 8 calls"),
        ("llama", "model_type", json!("olmoe"), "QK norm covers whole projections"),
        ("llama", "model_type", json!("bert"), "expected one of gpt2, llama, mixtral"),
        ("llama", "hidden_size", json!("64"), "`hidden_size` is \"64\", expected an integer from 2 to 16384"),
        ("llama", "num_hidden_layers", json!(1e12), "expected an integer"),
        ("llama", "rms_norm_eps", json!(-1.0), "`rms_norm_eps` is -1.0, expected a number from"),
        ("llama", "head_dim", json!(0), "expected null or an integer"),
        ("qwen3_moe", "head_dim", json!(null), "`head_dim` is null, expected an integer"),
        ("glm4_moe", "norm_topk_prob", json!(null), "`norm_topk_prob` is null, expected true or false"),
        ("deepseek_v3", "head_dim", json!(12), "`head_dim` is 12, expected `qk_rope_head_dim`"),
        ("mixtral", "router_aux_loss_coef", json!(null), "`router_aux_loss_coef` is null"),
        ("llama", "rope_parameters", json!({ "rope_theta": null }), "`rope_theta` is null"),
        ("llama", "\u{1b}[31m", json!("\u{202e}"), "`\\u{1b}[31m` is unknown and may affect the model's output: it is \"\\u{202e}\""),
    ] {
        let said = Files::of(model).set(key, value).refusal();
        assert!(said.contains(told), "{model} {key}: no {told:?} in {said}");
    }
    let mut files = Files::of("llama");
    files.config.as_object_mut().unwrap().remove("vocab_size");
    let said = files.set("hidden_size", json!(0)).refusal();
    assert!(said.contains("`vocab_size` is missing") && said.contains("`hidden_size` is 0"), "every problem at once: {said}");
}

#[test]
fn a_key_that_must_be_stated_is_missed() {
    let mut files = Files::of("hrm_text");
    files.config.as_object_mut().unwrap().remove("prefix_lm");
    assert!(files.refusal().contains("`prefix_lm` is missing, which means true"));
}

#[test]
fn many_and_long_problems_make_a_short_message() {
    let mut files = Files::of("llama");
    for key in 0..5000 {
        files = files.set(&format!("{}{key}", "x".repeat(100)), json!(["y".repeat(70)]));
    }
    let said = files.refusal();
    assert!(said.len() < 4000 && said.contains("and 4984 more"), "{} bytes", said.len());
    let mut files = Files::of("llama");
    for tensor in 0..5000 {
        files.tensors.push((format!("{}{tensor}", "\u{1b}".repeat(100)), Dtype::F32, vec![1; 300], vec![0; 4]));
    }
    let said = files.refusal();
    assert!(said.len() < 8000 && said.contains("and 4984 more") && !said.contains('\u{1b}'), "{} bytes", said.len());
}

#[test]
fn headers_are_held_against_the_model_before_the_weights() {
    let files = Files::of("llama");
    let weights = Files::weights(&files.tensors);
    let described = describe(files.config.to_string().as_bytes()).unwrap();
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let check = |head: &[u8], length: usize| described.check_headers(&[("w", head, length as u64)]).map_err(|error| error.to_string());
    assert_eq!(check(&weights[..header], weights.len()), Ok(()));
    assert!(check(&weights[..header], weights.len() + 1).unwrap_err().contains("do not fill the file"));
    assert!(check(&[0xff; 64], 3_000_000_000).unwrap_err().contains("at most"));
    assert!(check(&weights[..header - 1], weights.len()).unwrap_err().contains("truncated"));
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let files = Files::of("llama");
    let [first, rest] = [&files.tensors[..7], &files.tensors[6..]].map(Files::weights);
    let said = imported(files.config.to_string().as_bytes(), &[("1", &first), ("2", &rest)]).unwrap_err();
    assert!(said.contains("is in both `1` and `2`"), "{said}");
}

#[test]
fn layers_that_predict_further_tokens_are_left_out_and_told() {
    let mut files = Files::of("deepseek_v3");
    let wanted = files.import().unwrap();
    files.tensors.push(("model.layers.2.eh_proj.weight".into(), Dtype::F32, vec![2], vec![0; 8]));
    let found = files.import().unwrap();
    assert_eq!(found.tensors, wanted.tensors);
    assert!(found.notes.iter().any(|note| note.starts_with("1 tensors of layers that predict further tokens")), "{:?}", found.notes);
    let said = files.set("num_nextn_predict_layers", json!(0)).refusal();
    assert!(said.contains("`model.layers.2.eh_proj.weight` [2] is not a tensor of such a model"), "{said}");
}

#[test]
fn a_width_that_heads_do_not_divide_is_read_where_the_width_of_a_head_is_stated() {
    let mut files = Files::of("llama").set("hidden_size", json!(62)).set("intermediate_size", json!(62));
    for (_, _, shape, bytes) in &mut files.tensors {
        shape.iter_mut().filter(|side| **side == 64).for_each(|side| *side = 62);
        bytes.truncate(4 * shape.iter().product::<usize>());
    }
    let restored: Vec<(&str, Vec<usize>)> = vec![("q_proj", vec![64, 62]), ("o_proj", vec![62, 64])];
    for (end, shape) in restored {
        for tensor in files.tensors.iter_mut().filter(|tensor| tensor.0.contains(end)) {
            tensor.2 = shape.clone();
            tensor.3 = vec![0; 4 * 64 * 62];
        }
    }
    let found = files.import().unwrap();
    assert_eq!((found.model.width, found.model.attention.heads, found.model.attention.head_width), (62, 4, 16));
    let said = export(&found.model, &found.tensors, None, None).unwrap_err().to_string();
    assert!(said.contains("a width of 62 does not divide into 4 heads"), "transformers does not load such a model: {said}");
}

#[test]
fn training_is_what_the_files_state() {
    let set = |model: &str, key: &str, value: Value| Files::of(model).set(key, value).import().unwrap();
    let mut plain = Files::of("gpt2");
    for key in ["resid_pdrop", "embd_pdrop", "attn_pdrop"] {
        plain.config.as_object_mut().unwrap().remove(key);
    }
    let gpt2 = plain.import().unwrap().model.dropout;
    assert_eq!([gpt2.residual, gpt2.embedding, gpt2.attention, gpt2.ffn, gpt2.head], [0.1, 0.1, 0.1, 0.0, 0.0]);
    let quiet = Files::of("mixtral").import().unwrap();
    assert_eq!((quiet.model.balance.kind, quiet.model.router.noise), (BalanceKind::Off, 0.0));
    assert!(quiet.notes.iter().any(|note| note.contains("`router_aux_loss_coef` is 0.001: no balance loss")), "{:?}", quiet.notes);
    let balanced = set("mixtral", "output_router_logits", json!(true)).model.balance;
    assert_eq!((balanced.kind, balanced.coefficient), (BalanceKind::HfMixtral, 0.001));
    let jittered = set("mixtral", "router_jitter_noise", json!(0.01));
    assert!(jittered.notes.iter().any(|note| note.starts_with("`router_jitter_noise` is 0.01")), "{:?}", jittered.notes);
}

#[test]
fn other_forms_of_the_same_model_are_read() {
    let wanted = Files::of("gpt2").import().unwrap();
    let mut bare = Files::of("gpt2");
    for tensor in &mut bare.tensors {
        tensor.0 = tensor.0.strip_prefix("transformer.").unwrap().to_string();
    }
    bare.tensors.push(("h.0.attn.bias".into(), Dtype::F32, vec![1, 1, 2, 2], vec![0; 16]));
    assert_eq!(bare.import().unwrap(), wanted, "the base model alone, with its masks");

    let files = Files::of("llama");
    let wanted = files.import().unwrap();
    let [first, rest] = [&files.tensors[..7], &files.tensors[7..]].map(Files::weights);
    let config = files.config.to_string();
    assert_eq!(imported(config.as_bytes(), &[("1", &first), ("2", &rest)]).unwrap(), wanted, "several files");

    let mut old = Files::of("llama");
    old.config.as_object_mut().unwrap().remove("rope_parameters");
    assert_eq!(old.set("rope_theta", json!(10000)).set("rope_scaling", json!(null)).import().unwrap(), wanted, "keys of transformers 4");

    let mut halves = Files::of("llama");
    for (_, dtype, _, bytes) in &mut halves.tensors {
        *dtype = Dtype::BF16;
        *bytes = bytes.chunks_exact(4).flat_map(|b| [b[2], b[3]]).collect();
    }
    let halves = halves.import().unwrap();
    assert!(halves.notes[0].contains("BF16"), "{:?}", halves.notes);
    for (half, whole) in halves.tensors.iter().zip(&wanted.tensors) {
        let cut: Vec<f32> = whole.data.iter().map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)).collect();
        assert_eq!(half.data, cut, "{}", half.name);
    }
}

#[test]
fn no_value_and_no_byte_makes_it_panic() {
    let odd = [
        json!(null),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1e300),
        json!(u64::MAX),
        json!("x"),
        json!([]),
        json!([1, "a"]),
        json!({}),
        json!(true),
    ];
    for model in ["gpt2", "qwen3_moe", "glm4_moe", "deepseek_v3_query_rank", "hrm_text"] {
        let files = Files::of(model);
        let weights = Files::weights(&files.tensors);
        for key in files.config.as_object().unwrap().keys() {
            for value in &odd {
                let config = files.clone().set(key, value.clone()).config.to_string();
                let _ = imported(config.as_bytes(), &[("w", &weights)]);
            }
        }
    }
    let files = Files::of("hrm_text");
    let (config, weights) = (files.config.to_string().into_bytes(), Files::weights(&files.tensors));
    let stream = Stream { seed: 1, step: 0, stream: 0 };
    for i in 0..400 {
        let bits = stream.bits(i);
        let (mut config, mut weights) = (config.clone(), weights.clone());
        let flip = |bytes: &mut Vec<u8>, most: usize| {
            let at = bits[0] as usize % most.min(bytes.len());
            bytes[at] ^= 1 << (bits[1] % 8);
            bytes.truncate(if bits[2].is_multiple_of(4) { at } else { bytes.len() });
        };
        if i % 2 == 0 {
            flip(&mut config, usize::MAX)
        } else {
            flip(&mut weights, 4096)
        }
        let _ = imported(&config, &[("w", &weights)]);
    }
    assert!(imported(b"[]", &[]).unwrap_err().contains("it is not a JSON object"));
    assert!(imported(&vec![b' '; 2 << 20], &[]).unwrap_err().contains("expected at most 1048576"));
}

/// Reasons for which a model is not written.
fn reasons(change: &str) -> Vec<String> {
    let plain = r#"
        vocabulary = 97
        width = 64
        context = 16
        depth.layers = 2
        embedding.scale = "one"
        positions.pairing = "half_split"
        attention.heads = 4
        ffn.gated = true
        head.tied = false
    "#;
    let mut model: toml::Table = plain.parse().unwrap();
    for (key, value) in change.parse::<toml::Table>().unwrap() {
        match (model.get_mut(&key), value) {
            (Some(toml::Value::Table(there)), toml::Value::Table(changes)) => there.extend(changes),
            (_, value) => {
                model.insert(key, value);
            }
        }
    }
    let model = ModelConfig::read(&model.into()).unwrap();
    let none: [NamedTensor; 0] = [];
    match export(&model, &none, None, None) {
        Ok(_) => Vec::new(),
        Err(refusal) => refusal.reasons.into_iter().map(|reason| format!("{}: {reason}", refusal.model_type)).collect(),
    }
}

#[test]
fn a_model_without_a_counterpart_is_refused_with_every_reason() {
    assert_eq!(reasons(""), [""; 0]);
    assert_eq!(reasons("router.noise = 0.3\ndropout.ffn = 0.2"), [""; 0], "what training alone reads is no reason");
    for (change, wanted) in [
        (
            "embedding.scale = \"sqrt_width\"",
            vec!["mixtral: `model.embedding.scale` is \"sqrt_width\", models of type mixtral have \"one\""],
        ),
        ("ffn.gated = false", vec!["mixtral: `model.ffn.gated` is false, models of type mixtral have true"]),
        ("router.softmax = \"all\"", vec!["mixtral: `model.router.softmax` is \"all\", models of type mixtral have \"selected\""]),
        (
            "router.selection_bias = \"loss_free\"",
            vec!["mixtral: `model.router.selection_bias` is \"loss_free\", models of type mixtral have \"none\""],
        ),
        ("depth.kind = \"shared\"", vec!["mixtral: `model.depth.kind` is \"shared\", models of type mixtral have \"indexed\""]),
        ("attention.gate = true", vec!["mixtral: `model.attention.gate` is true, models of type mixtral have false"]),
        ("norm.gain = false", vec!["mixtral: `model.norm.gain` is false, models of type mixtral have true"]),
        ("router.scores = \"sigmoid\"", vec!["glm4_moe: no shared expert: such models have at least one"]),
        (
            "ffn.gated = false\npositions = { pairing = \"interleaved\", fraction = 0.5 }\nrouter.scale = 2.0",
            vec![
                "mixtral: `model.positions.pairing` is \"interleaved\", models of type mixtral have \"half_split\"",
                "mixtral: `model.positions.fraction` is 0.5, models of type mixtral have 1.0",
                "mixtral: `model.ffn.gated` is false, models of type mixtral have true",
                "mixtral: `model.router.scale` is 2.0, models of type mixtral have 1.0",
            ],
        ),
        (
            "ffn = { kind = \"dense\" }\nattention = { heads = 4, qk_norm = true, head_width = 20 }\nwidth = 62",
            vec![
                "llama: `model.attention.qk_norm` is true, models of type llama have false",
                "llama: a width of 62 does not divide into 4 heads",
            ],
        ),
    ] {
        assert_eq!(reasons(change), wanted, "{change}");
    }
}
