//! Experts that no token of an update was sent to: passed over, or trained on a zero gradient.

use std::collections::BTreeMap;

use moelab::{
    data::Corpus,
    gpu::{Capabilities, PlanOptions},
    run::{
        Config,
        checkpoint::{NamedTensor, Snapshot},
        config::IdleExperts,
    },
    train::trainer::Trainer,
};

use crate::harness::{SMALL, batch, config, device, drive, restore, snapshot, tiers, trainer};

const IDLE: usize = 3;

fn small(policy: &str, updates: u32, optimizer_of_experts: &str) -> Config {
    let text = SMALL
        .replace("noise = 0.0 }", "noise = 0.0, bias = true }")
        .replace("ffn.width = 64", "ffn = { width = 64, bias = true }")
        .replace("updates = 10", &format!("updates = {updates}"))
        .replace("micro_batches = 1", "micro_batches = 2");
    let overrides = format!("overrides = {{ \"*.experts.*.weight\" = \"{optimizer_of_experts}\" }}");
    config(&format!("{text}[optimizer]\n{policy}\n{overrides}\n"), 64)
}

fn trained(config: &Config, tier: Capabilities, start: impl Fn(&Trainer) -> Snapshot) -> Snapshot {
    let corpus = Corpus::Batches { training: vec![batch(config, 1), batch(config, 2)], validation: vec![batch(config, 3)] };
    let mut trainer = trainer(config, &device(tier), corpus, PlanOptions::default());
    let start = start(&trainer);
    restore(&mut trainer, &start);
    drive(&mut trainer);
    snapshot(&mut trainer)
}

/// Weights, biases and moments of the experts: name -> bits of each expert.
fn experts(snapshot: &Snapshot) -> BTreeMap<String, Vec<Vec<u32>>> {
    let all = snapshot.tensors.iter().chain(&snapshot.optimizer).filter(|t| t.name.contains(".experts."));
    let bits = |t: &NamedTensor| t.data.chunks(t.data.len() / t.shape[0]).map(|e| e.iter().map(|v| v.to_bits()).collect()).collect();
    all.map(|t| (t.name.clone(), bits(t))).collect()
}

/// All experts take part in the first update; in the second the first layer's router keeps one out.
fn first_and_second(policy: &str, optimizer_of_experts: &str, tier: Capabilities) -> [Snapshot; 2] {
    let mut first = trained(&small(policy, 1, optimizer_of_experts), tier, Trainer::initial_snapshot);
    let bias = first.tensors.iter_mut().find(|t| t.name == "blocks.0.moe.router.bias").unwrap();
    bias.data[IDLE] = -100.0;
    let second = trained(&small(policy, 2, optimizer_of_experts), tier, |_| first.clone());
    [first, second]
}

#[test]
fn an_idle_expert_is_passed_over_or_moves_as_the_config_says() {
    assert_eq!(small("", 1, "muon").optimizer.idle_experts, IdleExperts::ZeroGradient);
    for tier in tiers() {
        for optimizer in ["muon", "adamw"] {
            for (policy, moves) in [("idle_experts = \"skip\"", false), ("", true)] {
                let [first, second] = first_and_second(policy, optimizer, tier).map(|snapshot| experts(&snapshot));
                assert!(first.len() >= 2 * 4 * 2, "{:?}", first.keys());
                for (name, before) in &first {
                    for (e, (before, after)) in before.iter().zip(&second[name]).enumerate() {
                        let is_idle = e == IDLE && name.contains("blocks.0.");
                        assert_eq!(before != after, moves || !is_idle, "{name}, expert {e}, {optimizer}, {policy} ({tier:?})");
                    }
                }
            }
        }
    }
}

/// The counts decide about idle experts and nothing else. Biases are AdamW's, whose corrections are rounded otherwise.
#[test]
fn muon_gives_the_same_bits_where_every_expert_has_tokens() {
    let tier = *tiers().last().unwrap();
    let [skip, zero] = ["skip", "zero_gradient"].map(|policy| {
        let config = small(&format!("idle_experts = \"{policy}\""), 1, "muon");
        experts(&trained(&config, tier, Trainer::initial_snapshot))
    });
    let matrices: Vec<&String> = zero.keys().filter(|name| name.ends_with(".weight")).collect();
    assert_eq!(matrices.len(), 2 * 2 * 2, "{matrices:?}");
    for name in matrices {
        assert!(skip[name] == zero[name], "{name}");
    }
}
