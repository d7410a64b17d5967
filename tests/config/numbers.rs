//! Parameter vectors, costs and schedules of the published systems, and the counts that follow from a config.

use moelab::run::ModelConfig;
use moelab::run::config::Config;
use moelab::run::model::cost::{self, Counts};
use moelab::run::model::parameters::{self, Group, Part};
use moelab::run::model::{
    self, AttentionKind, DepthKind, FfnKind, Injection, Networks, NormKind, PositionKind, RecursionStart, RouterScores,
};
use moelab::run::schedule::{Schedule, balance_coefficient};

use crate::{load, load_text};

/// V 49,152 with width D, L layers, E experts of width F, K = 2.
fn system_a(d: u32, l: u32, e: u32, f: u32) -> ModelConfig {
    let mut model = ModelConfig { vocabulary: 49_152, width: d, ..ModelConfig::default() };
    (model.depth.layers, model.router.experts, model.ffn.width) = (l, e, f);
    model
}

fn counts(model: &ModelConfig) -> Counts {
    cost::counts(model, &parameters::parameters(model))
}

#[test]
fn published_parameter_counts() {
    for (d, l, e, f, total, active) in [
        (384, 6, 8, 1536, 79_059_840, 36_592_512),
        (512, 8, 4, 2048, 100_688_384, 67_133_952),
        (256, 4, 4, 2048, 30_415_104, 22_026_496),
        (256, 6, 4, 512, 20_456_704, 17_310_976),
    ] {
        let counts = counts(&system_a(d, l, e, f));
        assert_eq!((counts.total, counts.active), (total, active), "D {d} L {l} E {e} F {f}");
        assert_eq!(counts.muon + counts.adamw, total);
        assert_eq!(counts.parts.values().sum::<u64>(), total);
    }
}

/// A model of the recurrent-depth study: V 50,257, contexts of 1,024.
fn system_c(d: u32, l: u32, inner: u32) -> ModelConfig {
    let mut model = ModelConfig { vocabulary: 50_257, width: d, context: 1024, ..ModelConfig::default() };
    (model.depth.layers, model.attention.heads) = (l, d / 64);
    model.norm.kind = NormKind::LayerNorm;
    model.positions.kind = PositionKind::Learned;
    (model.attention.bias, model.attention.output_bias) = (true, true);
    (model.ffn.kind, model.ffn.width, model.ffn.bias) = (FfnKind::Dense, inner, true);
    model.head.tied = false;
    model
}

/// One block for all depths, with E experts of width F behind a router with biases.
fn shared_moe(d: u32, l: u32, f: u32) -> ModelConfig {
    let mut model = system_c(d, l, f);
    model.depth.kind = DepthKind::Shared;
    model.ffn.kind = FfnKind::Moe;
    (model.router.experts, model.router.bias) = (40, true);
    model
}

#[test]
fn parameters_of_the_recurrent_depth_study() {
    let total = |model: &ModelConfig| counts(model).total;
    assert_eq!(total(&shared_moe(1024, 20, 2048)), 276_115_496);
    assert_eq!(total(&shared_moe(512, 12, 2048)), 137_050_152);
    assert_eq!(total(&shared_moe(640, 16, 2048)), 171_619_880);
    assert_eq!(total(&shared_moe(640, 16, 2184)), 178_588_520);
    let indexed = system_c(1024, 20, 4096);
    assert_eq!(total(&indexed), 355_901_440);
    let mut shared = indexed.clone();
    shared.depth.kind = DepthKind::Shared;
    assert_eq!(total(&shared), 116_573_184);
    let mut gpt2 = indexed;
    gpt2.head.tied = true;
    assert_eq!(total(&gpt2), 304_438_272);
}

#[test]
fn parameters_of_the_recursive_wrapper() {
    let mut model = system_a(512, 8, 4, 2048);
    let base = counts(&model).total;
    model.depth.kind = DepthKind::Recursive;
    let recursion = &mut model.depth.recursion;
    (recursion.networks, recursion.start, recursion.injection) = (Networks::Single, RecursionStart::Learned, Injection::Projected);
    recursion.halting_head = true;
    assert_eq!((base, counts(&model).total), (100_688_384, 101_216_770));
    assert_eq!(counts(&system_a(256, 4, 4, 1024)).total, 22_026_496);
}

#[test]
fn parameters_of_latent_attention_and_shared_experts() {
    let latent = |rank: u32, width: u32| {
        let mut attention = model::Attention { kind: AttentionKind::Latent, bias: true, output_bias: true, ..Default::default() };
        let latent = &mut attention.latent;
        (latent.query_rank, latent.kv_rank, latent.nope_width) = (rank, rank, 0);
        (latent.rope_width, latent.value_width) = (width, width);
        attention
    };
    let mut model = ModelConfig { attention: latent(128, 32), ..system_a(256, 6, 4, 512) };
    (model.ffn.gated, model.ffn.shared_experts) = (true, 1);
    model.router.scores = RouterScores::Sigmoid;
    assert_eq!(counts(&model).total, 25_622_464);
    let specs = parameters::parameters(&model);
    let below = |prefix: &str| specs.iter().filter(|s| s.name.starts_with(prefix)).map(|s| s.len()).sum::<u64>();
    assert_eq!((below("blocks.0.attention."), below("blocks.0.moe.")), (205_600, 1_967_104));

    // The ancestors: D 512, L 3.
    let baseline = system_a(512, 3, 8, 1024);
    assert_eq!(counts(&baseline).total, 53_493_248);
    let mut dense = system_a(512, 3, 8, 2048);
    (dense.ffn.kind, dense.ffn.gated) = (FfnKind::Dense, true);
    assert_eq!(counts(&dense).total, 37_752_320);
    let latent_dense = ModelConfig { attention: latent(128, 64), ..dense.clone() };
    assert_eq!(counts(&latent_dense).total, 36_281_024);
    // Two of them carried a whole unused model of 51,383,296 parameters in every layer, which a config does not repeat.
    dense.ffn.width = 10_944;
    assert_eq!(counts(&dense).total, 232_894_976 - 3 * 51_383_296);
    let wide = ModelConfig { attention: latent(128, 64), ..dense };
    assert_eq!(counts(&wide).total, 231_423_680 - 3 * 51_383_296);
}

#[test]
fn committed_baselines_have_the_published_parameters() {
    let counts = |path: &str| {
        let config = load("configs", path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        cost::counts(&config.model, &config.parameters())
    };
    let exp8 = counts("exp8/baseline.toml");
    assert_eq!((exp8.total, exp8.active, exp8.muon, exp8.adamw), (79_059_840, 36_592_512, 60_180_480, 18_879_360));
    let parts = [
        (Part::Embedding, 18_874_368),
        (Part::Attention, 3_538_944),
        (Part::Router, 18_432),
        (Part::Experts, 56_623_104),
        (Part::Norms, 4_992),
    ];
    assert_eq!(exp8.parts, parts.into());
    let json = serde_json::to_value(&exp8).unwrap();
    assert_eq!((&json["active"], &json["parts"]["experts"]), (&36_592_512.into(), &56_623_104.into()));
    let exp3 = counts("exp3/baseline.toml");
    assert_eq!((exp3.total, exp3.muon, exp3.adamw), (20_456_704, 7_870_464, 12_586_240));
}

#[test]
fn names_and_shapes_of_every_axis() {
    let listed = |text: &str| {
        let config = load_text(text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let line = |spec: &parameters::ParamSpec| {
            let group = if spec.group == Group::Muon { "muon" } else { "adamw" };
            format!("{} {:?} {group}", spec.name, spec.shape)
        };
        config.parameters().iter().map(line).collect::<Vec<_>>()
    };
    let moe = "[model]\nwidth = 48\ndepth.layers = 1\nhead.tied = false\nattention = { heads = 4, kv_heads = 2, head_width = 16 }\n\
               ffn = { width = 24, gated = true, bias = true }\nrouter.experts = 3\n";
    assert_eq!(
        listed(moe),
        [
            "embedding.weight [256, 48] adamw",
            "blocks.0.attention_norm.weight [48] adamw",
            "blocks.0.attention.qkv.weight [128, 48] muon",
            "blocks.0.attention.output.weight [48, 64] muon",
            "blocks.0.ffn_norm.weight [48] adamw",
            "blocks.0.moe.router.weight [3, 48] muon",
            "blocks.0.moe.experts.up.weight [3, 24, 48] muon",
            "blocks.0.moe.experts.up.bias [3, 24] adamw",
            "blocks.0.moe.experts.gate.weight [3, 24, 48] muon",
            "blocks.0.moe.experts.gate.bias [3, 24] adamw",
            "blocks.0.moe.experts.down.weight [3, 48, 24] muon",
            "blocks.0.moe.experts.down.bias [3, 48] adamw",
            "final_norm.weight [48] adamw",
            "head.weight [256, 48] adamw",
        ]
    );
    let dense = "[model]\nwidth = 48\ndepth.layers = 1\nattention.heads = 4\nffn = { kind = 'dense', width = 24 }\n";
    let ffn: Vec<_> = listed(dense).into_iter().filter(|line| line.contains(".ffn.")).collect();
    assert_eq!(ffn, ["blocks.0.ffn.up.weight [24, 48] muon", "blocks.0.ffn.down.weight [48, 24] muon"]);
}

#[test]
fn one_expert_costs_what_a_dense_network_costs_and_its_router() {
    let mut one = system_a(64, 2, 1, 128);
    one.router.top_k = 1;
    let mut dense = one.clone();
    dense.ffn.kind = FfnKind::Dense;
    let (one_counts, dense_counts) = (counts(&one), counts(&dense));
    assert_eq!(one_counts.total - dense_counts.total, 2 * 64);
    assert_eq!((one_counts.active, dense_counts.active), (one_counts.total, dense_counts.total));
    let flops = |model: &ModelConfig| cost::cost(model, &parameters::parameters(model), 32).forward_flops_per_token;
    assert_eq!(flops(&one) - flops(&dense), 2 * 2 * 64);
}

#[test]
fn costs_by_hand() {
    // D 8, H 2, F 12, E 3, K 2, V 20, L 1, T 5.
    let mut model = ModelConfig { vocabulary: 20, width: 8, ..ModelConfig::default() };
    (model.depth.layers, model.attention.heads, model.ffn.width, model.router.experts) = (1, 2, 12, 3);
    let specs = parameters::parameters(&model);
    let cost = cost::cost(&model, &specs, 5);
    let linear = 2 * (24 * 8 + 8 * 8 + 3 * 8 + 2 * (2 * 12 * 8) + 20 * 8);
    // 3 positions on average, q k^T and p v, 2 FLOP each, over 8 dimensions.
    let scores = 3 * 2 * 2 * 8;
    assert_eq!(cost.forward_flops_per_token, linear + scores);
    assert_eq!(cost.backward_flops_per_token, 2 * linear + scores * 5 / 2);
    let newton_schulz = |short: u64, long: u64| 2 * short * short * (2 * long + short);
    let matrices = newton_schulz(8, 24) + newton_schulz(8, 8) + newton_schulz(3, 8) + 6 * newton_schulz(8, 12);
    assert_eq!(cost.muon_flops_per_update, 5 * matrices);
    let counts = counts(&model);
    assert_eq!(cost.weight_bytes, 4 * counts.total);
    assert_eq!(cost.optimizer_bytes, 8 * counts.adamw + 4 * counts.muon);
}

fn schedule(text: &str, updates: u32) -> Schedule {
    let text = format!("[schedule]\n{text}\n[train]\nupdates = {updates}\nmicro_batches = 4\n");
    load_text(&text, &[]).unwrap_or_else(|problems| panic!("{problems}")).learning_rates()
}

fn assert_multipliers(schedule: &Schedule, table: &[(u32, f64)]) {
    for &(updates, wanted) in table {
        let found = schedule.at_update(updates);
        // The published digits are cut off, not rounded.
        assert!((found - wanted).abs() < 1e-6, "{found} at {updates}, {wanted} wanted, of {schedule:?}");
    }
}

#[test]
fn multipliers_of_the_published_runs() {
    // The horizon was given in micro-batches, 1000, but counted down in updates, of which 250 ran.
    let as_run = |kind: &str, min_ratio: f64| {
        let text = format!("kind = \"{kind}\"\nwarmup = 50\nhorizon = 1000\nmin_ratio = {min_ratio:?}");
        schedule(&text, 250)
    };
    let warm_up = [(0, 0.0), (2, 0.04), (5, 0.1), (50, 1.0)];
    let cosine = [(100, 0.993_863), (200, 0.945_763), (249, 0.906_025), (250, 0.905_113)];
    let slower = [(100, 0.995_226), (200, 0.957_815), (249, 0.926_909), (250, 0.926_199)];
    let linear = [(100, 0.952_632), (200, 0.857_895), (249, 0.811_474), (250, 0.810_526)];
    for (schedule, table) in [(as_run("cosine", 0.1), cosine), (as_run("cosine", 0.3), slower), (as_run("linear", 0.1), linear)] {
        assert_multipliers(&schedule, &warm_up);
        assert_multipliers(&schedule, &table);
    }
}

#[test]
fn multipliers_as_intended() {
    let exp8 = load("configs", "exp8/baseline.toml", &[]).unwrap().learning_rates();
    assert_eq!((exp8.warmup, exp8.horizon), (12, 250));
    assert_multipliers(&exp8, &[(0, 0.0), (6, 0.5), (12, 1.0), (131, 0.55), (250, 0.1), (400, 0.1)]);
    let as_run = load("configs", "exp8/baseline.toml", &["schedule.horizon=1000", "schedule.warmup=50"]).unwrap();
    assert_multipliers(&as_run.learning_rates(), &[(250, 0.905_113)]);
}

#[test]
fn a_cosine_to_zero_with_a_long_warm_up() {
    // Learning rates of the recurrent-depth study at a peak of 3e-4: 9.5e-6 and 9.5e-5 at its step 20.
    for (updates, warmup, rate) in [(20_000, 600, 9.5e-6), (2_000, 60, 9.5e-5)] {
        let schedule = schedule(&format!("min_ratio = 0.0\nwarmup = {warmup}"), updates);
        assert!((schedule.at_update(19) * 3e-4 / rate - 1.0).abs() < 1e-9);
        assert!(schedule.at_update(updates).abs() < 1e-12);
    }
}

#[test]
fn the_unit_is_what_it_says() {
    let updates = schedule("unit = \"updates\"\nwarmup = 10", 100);
    let micro_steps = schedule("unit = \"micro_steps\"\nwarmup = 40", 100);
    assert_eq!((micro_steps.warmup, micro_steps.horizon), (40, 400));
    for s in 0..=120 {
        assert!((updates.at_update(s) - micro_steps.at_update(s)).abs() < 1e-12);
    }
}

#[test]
fn shapes_at_their_corners() {
    let whole = schedule("kind = \"cosine\"\nwarmup = 20", 20);
    assert_multipliers(&whole, &[(0, 0.0), (10, 0.5), (19, 0.95), (20, 1.0), (21, 1.0)]);
    assert_multipliers(&schedule("kind = \"constant\"\nwarmup = 0", 10), &[(0, 1.0), (10, 1.0)]);
    assert_multipliers(&schedule("kind = \"linear\"\nwarmup = 0\nmin_ratio = 0.0", 10), &[(0, 1.0), (5, 0.5), (10, 0.0), (11, 0.0)]);
    let step = schedule("kind = \"step\"\nwarmup = 0", 100);
    assert_multipliers(&step, &[(0, 1.0), (24, 1.0), (25, 0.5), (50, 0.25), (99, 0.125), (100, 0.0625), (500, 0.0625)]);
    assert_multipliers(&schedule("kind = \"step\"\nwarmup = 0", 2), &[(0, 1.0), (1, 0.5)]);
    assert_multipliers(&schedule("warmup = \"100%\"", 8), &[(4, 0.5), (8, 1.0)]);
}

#[test]
fn a_clamped_floor_cuts_the_line_off() {
    // The reasoning study: 100 updates, floor 0.1.
    let run = |warmup: u32| schedule(&format!("kind = \"linear\"\nwarmup = {warmup}\nmin_ratio = 0.1\nfloor = \"clamped\""), 100);
    assert_multipliers(&run(20), &[(0, 0.0), (10, 0.5), (20, 1.0), (60, 0.5), (92, 0.1), (99, 0.1)]);
    assert_multipliers(&run(50), &[(94, 0.12), (95, 0.1), (99, 0.1)]);
    assert_multipliers(&run(0), &[(0, 1.0), (89, 0.11), (90, 0.1)]);
    // A warm-up as long as the run, which once divided by zero.
    assert_multipliers(&run(100), &[(50, 0.5), (99, 0.99), (100, 1.0)]);
}

#[test]
fn warm_up_hold_and_decay() {
    let run = schedule("kind = \"hold_then_linear\"\nwarmup = 0\nmin_ratio = 0.0\ndecay = 200", 1000);
    assert_multipliers(&run, &[(0, 1.0), (800, 1.0), (900, 0.5), (1000, 0.0), (1001, 0.0)]);
    let run = schedule("kind = \"hold_then_linear\"\nwarmup = 10\ndecay = \"20%\"\nmin_ratio = 0.1", 100);
    assert_multipliers(&run, &[(5, 0.5), (10, 1.0), (80, 1.0), (90, 0.55), (100, 0.1)]);
}

#[test]
fn a_range_rises_by_equal_factors() {
    let run = schedule("kind = \"range\"\nwarmup = 0\nmin_ratio = 1e-4", 100);
    assert_multipliers(&run, &[(0, 1e-4), (25, 1e-3), (50, 1e-2), (75, 0.1), (100, 1.0), (150, 1.0)]);
    for s in 0..100 {
        assert!((run.at_update(s + 1) / run.at_update(s) - 1e4f64.powf(0.01)).abs() < 1e-12, "{s}");
    }
    let late = schedule("kind = \"range\"\nwarmup = 10\nmin_ratio = 0.01\nhorizon = 30", 40);
    assert_multipliers(&late, &[(5, 0.5), (10, 0.01), (20, 0.1), (30, 1.0), (40, 1.0)]);
    let text = "[schedule]\nkind = \"range\"\nmin_ratio = 0.0";
    let problem = load_text(&format!("train.updates = 10\n{text}"), &[]).unwrap_err().to_string();
    assert!(problem.contains("a learning rate of 0 cannot rise exponentially"), "{problem}");
}

#[test]
fn the_balance_coefficient_of_the_recurrent_depth_study() {
    let at = |start: f64, updates: u32, done: u32| {
        let text = format!(
            "[model.balance]\ncoefficient = {start}\nschedule = {{ kind = \"hold_then_linear\", end = 0.01, hold = \"5%\", decay_end = \"30%\" }}\n\
             [train]\nupdates = {updates}\n"
        );
        let config = load_text(&text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        balance_coefficient(&config.model.balance, done, updates)
    };
    // Two runs that were compared at update 500 had coefficients of 0.014 and 0.05 there: percentages are of the run.
    for (start, updates, table) in [
        (0.03, 2_000, &[(0, 0.03), (100, 0.03), (350, 0.02), (500, 0.014), (600, 0.01), (2_000, 0.01)][..]),
        (0.05, 2_000, &[(500, 0.018)]),
        (0.05, 20_000, &[(500, 0.05), (1_000, 0.05), (3_500, 0.03), (6_000, 0.01), (20_000, 0.01)]),
    ] {
        for &(done, wanted) in table {
            assert!(
                (at(start, updates, done) - wanted).abs() < 1e-12,
                "{} at {done} of {updates}, wanted {wanted}",
                at(start, updates, done)
            );
        }
    }
    let constant = load_text("[model]\nbalance.coefficient = 0.02\n", &[]).unwrap();
    assert_eq!(balance_coefficient(&constant.model.balance, 77, 100), 0.02);
}

#[test]
fn evaluations_stand_after_the_update_that_completes_the_count() {
    let due = |text: &str| {
        let config = load_text(&format!("[train]\nupdates = 12\nmicro_batches = 4\n{text}"), &[]).unwrap();
        (0..=12).filter(|&updates| config.evaluation_due(updates)).collect::<Vec<_>>()
    };
    assert_eq!(due("evaluation = { every = 5 }"), [5, 10, 12]);
    assert_eq!(due("evaluation = { every = 10, unit = \"micro_steps\" }"), [3, 5, 8, 10, 12]);
    assert_eq!(due("evaluation = { every = 0 }"), [12]);
}

#[test]
fn what_follows_from_a_config() {
    let config = Config::default();
    assert_eq!((config.tokens_per_micro_batch(), config.tokens_per_update()), (12_288, 49_152));
    assert_eq!((config.model.head_width(), config.model.rope_width(), config.model.qkv_rows()), (48, 48, 1152));
    assert!((config.model.embedding_scale() - 384f32.sqrt()).abs() < 1e-6);
}

#[test]
fn the_ends_of_a_range_are_in_it() {
    let is_taken = |text: &str| load_text(text, &[]).is_ok();
    for (table, key, least, most) in [("train", "micro_batches", 1, 65_536), ("nan", "stop_after", 0, 1000)] {
        for (value, wanted) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            assert_eq!(is_taken(&format!("[{table}]\n{key} = {value}\n")), wanted, "{key} = {value}");
        }
    }
}
