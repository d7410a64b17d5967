//! The model types of transformers that moelab supports, each with its keys in `config.json` and its tensors.
//!
//! Written after transformers 5.23 (`models/*/configuration_*.py`, `models/*/modeling_*.py`, `conversion_mapping.py`), whose
//! files are also those of 4.x: one tensor per expert. The meaning of an absent key and of `null` is checked against it for every
//! key (`tests/fixtures/hf/variants.json`). OLMoE is not supported: its QK norm covers a whole projection, moelab's each head.
//!
//! Long because it is one table of model types.

use super::keys::Key;
use super::model_type::{Fixed, Layout, ModelType, Row};
use super::rules::{
    BALANCE_LOSS, DENSE_LAYERS, EMBEDDING_SCALE, EXPERTS, GRADIENT_CYCLES, INNER_WIDTH, KEPT_GROUPS, PARTIAL_ROPE, PREDICTION_LAYERS, ROPE,
    ROPE_OF_MIXTRAL, ROTARY_HEAD, SAME_HEADS, STACKS,
};
use crate::run::model::ModelConfig;

/// All model types; a model that fits several is written as the first.
pub(super) const MODEL_TYPES: [&ModelType; 7] = [&GPT2, &LLAMA, &MIXTRAL, &QWEN3_MOE, &GLM4_MOE, &DEEPSEEK_V3, &HRM_TEXT];

const ACTIVATIONS: &[(&str, &str)] = &[
    ("\"silu\"", "silu"),
    ("\"swish\"", "silu"),
    ("\"gelu\"", "gelu"),
    ("\"gelu_pytorch_tanh\"", "gelu_tanh"),
    ("\"gelu_new\"", "gelu_tanh"),
    ("\"relu\"", "relu"),
    ("\"relu2\"", "relu_squared"),
];

/// Keys of every model type but GPT-2.
const COMMON: &[Key] = &[
    Key::same("vocab_size", &["vocabulary"]),
    Key::same("hidden_size", &["width"]),
    Key::same("num_attention_heads", &["attention.heads"]),
    Key::named("hidden_act", &["ffn.activation"], ACTIVATIONS).or("\"silu\""),
    Key::same("max_position_embeddings", &["context"]),
    Key::same("tie_word_embeddings", &["head.tied"]).or("false"),
    Key::same("initializer_range", &["init.std"]).or("0.02"),
];
/// eps of the norms; the types have different defaults.
const EPS: Key = Key::same("rms_norm_eps", &["norm.eps"]);
const LAYERS: &[Key] = &[Key::same("num_hidden_layers", &["depth.layers"])];
const DROPOUT: &[Key] = &[Key::same("attention_dropout", &["dropout.attention"]).or("0.0")];
/// The same; `null` means none.
const DROPOUT_OR_NULL: &[Key] = &[DROPOUT[0].or_null("0.0")];
const KV_HEADS: Key = Key::positive("num_key_value_heads", &["attention.kv_heads"]);
/// D / H if absent.
const HEAD_WIDTH: Key = Key::positive("head_dim", &["attention.head_width"]).or("null");
const BIAS_ON_ALL: &[Key] = &[Key::same("attention_bias", &["attention.bias", "attention.output_bias"]).or("false")];
const DENSE: &[Key] = &[Key::same("intermediate_size", &["ffn.width"])];
const EXPERTS_A_TOKEN: Key = Key::same("num_experts_per_tok", &["router.top_k"]);
const DENSE_AND_EXPERTS: &[Key] =
    &[Key::same("intermediate_size", &["ffn.dense_width"]), Key::same("moe_intermediate_size", &["ffn.width"])];
// The router of GLM-4.5 and DeepSeek-V3.
const ROUTED_EXPERTS: Key = Key::same("n_routed_experts", &["router.experts"]);
const SHARED_EXPERTS: Key = Key::same("n_shared_experts", &["ffn.shared_experts"]).or("1");
const SCALE: Key = Key::same("routed_scaling_factor", &["router.scale"]);
const GROUPS: Key = Key::same("n_group", &["router.groups"]);
const GROUPS_A_TOKEN: Key = Key::same("topk_group", &["router.kept_groups"]);
const FIRST_DENSE: Key = Key::same("first_k_dense_replace", &["ffn.dense_layers"]);
const SIGMOID_OFF: &[Fixed] = &[
    Fixed::new("scoring_func", "\"sigmoid\""),
    Fixed::new("topk_method", "\"noaux_tc\""),
    Fixed::new("moe_layer_freq", "1"),
    Fixed::new("quantization_config", "null"),
];
const OFF: &[Fixed] = &[Fixed::new("quantization_config", "null")];

const ATTENTION: &[Row] = &[
    Row::Whole("attention_norm", "input_layernorm"),
    Row::Split("attention.qkv", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    Row::Whole("attention.q_norm", "self_attn.q_norm"),
    Row::Whole("attention.k_norm", "self_attn.k_norm"),
    Row::Whole("attention.output", "self_attn.o_proj"),
    Row::Whole("ffn_norm", "post_attention_layernorm"),
];
const FFN: &[Row] =
    &[Row::Whole("ffn.up", "mlp.up_proj"), Row::Whole("ffn.gate", "mlp.gate_proj"), Row::Whole("ffn.down", "mlp.down_proj")];
const MOE: &[Row] = &[
    Row::Whole("moe.router", "mlp.gate"),
    Row::Experts("moe.experts.up", "mlp.experts.*.up_proj"),
    Row::Experts("moe.experts.gate", "mlp.experts.*.gate_proj"),
    Row::Experts("moe.experts.down", "mlp.experts.*.down_proj"),
];
const BIAS_AND_SHARED_EXPERTS: &[Row] = &[
    Row::State("moe.router.selection_bias", "mlp.gate.e_score_correction_bias"),
    Row::Whole("moe.shared.up", "mlp.shared_experts.up_proj"),
    Row::Whole("moe.shared.gate", "mlp.shared_experts.gate_proj"),
    Row::Whole("moe.shared.down", "mlp.shared_experts.down_proj"),
];
const DECODER: Layout = Layout {
    top: &[Row::Whole("embedding", "model.embed_tokens"), Row::Whole("head", "lm_head")],
    networks: &[("", "model.")],
    network: &[Row::Whole("final_norm", "norm")],
    blocks: "layers",
    block: &[ATTENTION, FFN, MOE],
};

static GPT2: ModelType = ModelType {
    name: "gpt2",
    architecture: "GPT2LMHeadModel",
    always: r#"
        norm.kind = "layer_norm"
        positions.kind = "learned"
        attention = { bias = true, output_bias = true }
        ffn = { gated = false, bias = true }
    "#,
    keys: &[&[
        Key::same("vocab_size", &["vocabulary"]),
        Key::same("n_positions", &["context"]),
        Key::same("n_embd", &["width"]),
        Key::same("n_layer", &["depth.layers"]),
        Key::same("n_head", &["attention.heads"]),
        Key::named(
            "activation_function",
            &["ffn.activation"],
            &[
                ("\"gelu_new\"", "gelu_tanh"),
                ("\"gelu_pytorch_tanh\"", "gelu_tanh"),
                ("\"gelu\"", "gelu"),
                ("\"silu\"", "silu"),
                ("\"relu\"", "relu"),
                ("\"relu2\"", "relu_squared"),
            ],
        )
        .or("\"gelu_new\""),
        Key::same("layer_norm_epsilon", &["norm.eps"]).or("1e-5"),
        Key::same("tie_word_embeddings", &["head.tied"]).or("true"),
        Key::same("resid_pdrop", &["dropout.residual"]).or("0.1"),
        Key::same("embd_pdrop", &["dropout.embedding"]).or("0.1"),
        Key::same("attn_pdrop", &["dropout.attention"]).or("0.1"),
        Key::same("initializer_range", &["init.std"]).or("0.02"),
    ]],
    rules: &[INNER_WIDTH],
    fixed: &[
        Fixed::new("scale_attn_weights", "true"),
        Fixed::new("scale_attn_by_inverse_layer_idx", "false"),
        Fixed::new("add_cross_attention", "false"),
    ],
    switched_off: OFF,
    ignored: &[],
    limits: |_| Vec::new(),
    unwritable: |_| Vec::new(),
    layout: Layout {
        top: &[Row::Whole("embedding", "transformer.wte"), Row::Whole("positions", "transformer.wpe"), Row::Whole("head", "lm_head")],
        networks: &[("", "transformer.")],
        network: &[Row::Whole("final_norm", "ln_f")],
        blocks: "h",
        block: &[&[
            Row::Whole("attention_norm", "ln_1"),
            Row::Transposed("attention.qkv", "attn.c_attn"),
            Row::Transposed("attention.output", "attn.c_proj"),
            Row::Whole("ffn_norm", "ln_2"),
            Row::Transposed("ffn.up", "mlp.c_fc"),
            Row::Transposed("ffn.down", "mlp.c_proj"),
        ]],
    },
};

static LLAMA: ModelType = ModelType {
    name: "llama",
    architecture: "LlamaForCausalLM",
    always: "",
    keys: &[
        COMMON,
        LAYERS,
        BIAS_ON_ALL,
        DENSE,
        DROPOUT_OR_NULL,
        &[
            EPS.or("1e-6"),
            KV_HEADS.or("null").or_null("null"),
            HEAD_WIDTH.or_null("null"),
            Key::same("mlp_bias", &["ffn.bias"]).or("false"),
        ],
    ],
    rules: &[ROPE],
    fixed: &[],
    switched_off: OFF,
    ignored: &[],
    limits: |_| Vec::new(),
    unwritable: width_divides_into_heads,
    layout: DECODER,
};

static MIXTRAL: ModelType = ModelType {
    name: "mixtral",
    architecture: "MixtralForCausalLM",
    always: r#"ffn.kind = "moe""#,
    keys: &[
        COMMON,
        LAYERS,
        DENSE,
        DROPOUT,
        &[
            EPS.or("1e-5"),
            EXPERTS_A_TOKEN.or("2"),
            KV_HEADS.or("8"),
            HEAD_WIDTH.or_null("null"),
            Key::same("num_local_experts", &["router.experts"]).or("8"),
        ],
    ],
    rules: &[ROPE_OF_MIXTRAL, BALANCE_LOSS],
    fixed: &[Fixed::new("sliding_window", "null")],
    switched_off: OFF,
    ignored: &[],
    limits: |_| Vec::new(),
    unwritable: |_| Vec::new(),
    layout: Layout {
        block: &[
            ATTENTION,
            &[
                Row::Whole("moe.router", "block_sparse_moe.gate"),
                Row::Experts("moe.experts.gate", "block_sparse_moe.experts.*.w1"),
                Row::Experts("moe.experts.down", "block_sparse_moe.experts.*.w2"),
                Row::Experts("moe.experts.up", "block_sparse_moe.experts.*.w3"),
            ],
        ],
        ..DECODER
    },
};

static QWEN3_MOE: ModelType = ModelType {
    name: "qwen3_moe",
    architecture: "Qwen3MoeForCausalLM",
    always: r#"
        attention.qk_norm = true
        ffn.kind = "moe"
    "#,
    keys: &[
        COMMON,
        LAYERS,
        BIAS_ON_ALL,
        DENSE_AND_EXPERTS,
        DROPOUT,
        &[
            EPS.or("1e-6"),
            EXPERTS_A_TOKEN.or("8"),
            KV_HEADS.or("4"),
            HEAD_WIDTH,
            Key::named("norm_topk_prob", &["router.softmax"], &[("true", "selected"), ("false", "all")]).or("false"),
        ],
    ],
    rules: &[ROPE, DENSE_LAYERS, EXPERTS, BALANCE_LOSS],
    fixed: &[Fixed::new("decoder_sparse_step", "1"), Fixed::new("use_sliding_window", "false")],
    switched_off: OFF,
    // Only used if `use_sliding_window` is true.
    ignored: &["sliding_window", "max_window_layers"],
    limits: |_| Vec::new(),
    unwritable: |_| Vec::new(),
    layout: DECODER,
};

static GLM4_MOE: ModelType = ModelType {
    name: "glm4_moe",
    architecture: "Glm4MoeForCausalLM",
    always: r#"
        ffn.kind = "moe"
        router = { scores = "sigmoid", selection_bias = "loss_free" }
    "#,
    keys: &[
        COMMON,
        LAYERS,
        DENSE_AND_EXPERTS,
        DROPOUT,
        &[
            EPS.or("1e-5"),
            EXPERTS_A_TOKEN.or("8"),
            ROUTED_EXPERTS.or("128"),
            SHARED_EXPERTS,
            SCALE.or("1.0"),
            GROUPS.or("1"),
            GROUPS_A_TOKEN.or("1"),
            FIRST_DENSE.or("1"),
            KV_HEADS.or("8"),
            HEAD_WIDTH,
            Key::same("norm_topk_prob", &["router.normalize"]).or("true"),
            Key::same("attention_bias", &["attention.bias"]).or("false"),
            Key::same("use_qk_norm", &["attention.qk_norm"]).or("false"),
        ],
    ],
    rules: &[PARTIAL_ROPE, KEPT_GROUPS, PREDICTION_LAYERS],
    fixed: &[],
    switched_off: SIGMOID_OFF,
    ignored: &[],
    limits: sigmoid_router,
    unwritable: |_| Vec::new(),
    layout: Layout { block: &[ATTENTION, FFN, MOE, BIAS_AND_SHARED_EXPERTS], ..DECODER },
};

static DEEPSEEK_V3: ModelType = ModelType {
    name: "deepseek_v3",
    architecture: "DeepseekV3ForCausalLM",
    always: r#"
        attention = { kind = "latent", latent.eps = 1e-6 }
        ffn.kind = "moe"
        router = { scores = "sigmoid", selection_bias = "loss_free" }
    "#,
    keys: &[
        COMMON,
        LAYERS,
        BIAS_ON_ALL,
        DENSE_AND_EXPERTS,
        DROPOUT_OR_NULL,
        &[
            EPS.or("1e-6"),
            EXPERTS_A_TOKEN.or("8"),
            ROUTED_EXPERTS.or("256"),
            SHARED_EXPERTS,
            SCALE.or("2.5"),
            GROUPS.or("8"),
            GROUPS_A_TOKEN.or("4"),
            FIRST_DENSE.or("3"),
            Key::same("norm_topk_prob", &["router.normalize"]).or("true").or_null("false"),
            Key::positive("q_lora_rank", &["attention.latent.query_rank"]).or("1536").or_null("null"),
            Key::same("kv_lora_rank", &["attention.latent.kv_rank"]),
            Key::same("qk_nope_head_dim", &["attention.latent.nope_width"]),
            Key::same("qk_rope_head_dim", &["attention.latent.rope_width"]),
            Key::same("v_head_dim", &["attention.latent.value_width"]),
            Key::named("rope_interleave", &["positions.pairing"], &[("true", "interleaved"), ("false", "half_split")])
                .or("true")
                .or_null("false"),
        ],
    ],
    rules: &[ROPE, SAME_HEADS, ROTARY_HEAD, KEPT_GROUPS, PREDICTION_LAYERS],
    fixed: &[],
    switched_off: SIGMOID_OFF,
    ignored: &["qk_head_dim"],
    limits: sigmoid_router,
    unwritable: |_| Vec::new(),
    layout: Layout {
        block: &[
            &[
                Row::Whole("attention_norm", "input_layernorm"),
                Row::Whole("attention.query", "self_attn.q_proj"),
                Row::Whole("attention.query_down", "self_attn.q_a_proj"),
                Row::Whole("attention.query_norm", "self_attn.q_a_layernorm"),
                Row::Whole("attention.query_up", "self_attn.q_b_proj"),
                Row::Whole("attention.kv_down", "self_attn.kv_a_proj_with_mqa"),
                Row::Whole("attention.kv_norm", "self_attn.kv_a_layernorm"),
                Row::Whole("attention.kv_up", "self_attn.kv_b_proj"),
                Row::Whole("attention.output", "self_attn.o_proj"),
                Row::Whole("ffn_norm", "post_attention_layernorm"),
            ],
            FFN,
            MOE,
            BIAS_AND_SHARED_EXPERTS,
        ],
        ..DECODER
    },
};

static HRM_TEXT: ModelType = ModelType {
    name: "hrm_text",
    architecture: "HrmTextForCausalLM",
    always: r#"
        norm.gain = false
        attention.gate = true
        depth.kind = "recursive"
        [depth.recursion]
        networks = "separate"
        update = "replace"
        injection = "sum"
        embedding_injection = false
        start = "embedding"
        head = "state"
        halting_head = false
    "#,
    keys: &[
        COMMON,
        DENSE,
        DROPOUT_OR_NULL,
        &[
            EPS.or("1e-6"),
            HEAD_WIDTH.or("128"),
            Key::same("H_cycles", &["depth.recursion.high_cycles"]),
            Key::same("L_cycles", &["depth.recursion.low_cycles"]),
        ],
    ],
    rules: &[ROPE, STACKS, EMBEDDING_SCALE, GRADIENT_CYCLES],
    fixed: &[
        Fixed::new("attention_bias", "false"),
        Fixed::new("mlp_bias", "false"),
        Fixed { key: "prefix_lm", only: "false", absent: "true" },
    ],
    switched_off: OFF,
    ignored: &[],
    limits: |_| Vec::new(),
    unwritable: width_divides_into_heads,
    layout: Layout {
        top: &[Row::Whole("embedding", "model.embed_tokens"), Row::Zeros("model.z_L_init"), Row::Whole("head", "lm_head")],
        networks: &[("low.", "model.L_module."), ("high.", "model.H_module.")],
        network: &[],
        blocks: "layers",
        block: &[&[
            Row::Stacked(&["attention.gate", "attention.qkv"], "attn.gqkv_proj"),
            Row::Whole("attention.output", "attn.o_proj"),
            Row::Stacked(&["ffn.gate", "ffn.up"], "mlp.gate_up_proj"),
            Row::Whole("ffn.down", "mlp.down_proj"),
        ]],
    },
};

fn width_divides_into_heads(model: &ModelConfig) -> Vec<String> {
    let (d, h) = (model.width, model.attention.heads);
    (d % h != 0).then(|| format!("a width of {d} does not divide into {h} heads")).into_iter().collect()
}

/// The score of a group needs two experts, and there is always a shared expert.
fn sigmoid_router(model: &ModelConfig) -> Vec<String> {
    let (e, groups) = (model.router.experts, model.router.groups);
    let a_group = e / groups.max(1);
    let groups =
        (a_group < 2 || e % groups != 0).then(|| format!("{groups} groups of {e} experts: expected two or more experts per group"));
    let shared = (model.ffn.shared_experts == 0).then(|| "no shared expert: such models have at least one".to_string());
    groups.into_iter().chain(shared).collect()
}
