//! Sequences that fill a micro-batch up have no part in a training or an evaluation, whatever stands in them; and what the
//! micro-batches of an update weigh.

use moelab::{
    data::{Corpus, dataset::Batch},
    gpu::PlanOptions,
    run::Config,
};

use crate::harness::{Ran, batch, config, device, drive, tiers, trainer};

const SMALL: &str = r#"
seed = 3
[model]
width = 64
context = 16
depth.layers = 2
attention.heads = 4
ffn.width = 32
router = { experts = 6, top_k = 2, noise = 0.3 }
dropout = { embedding = 0.1, attention = 0.1, residual = 0.1, ffn = 0.1, head = 0.1 }
[data]
sequence_length = 16
batch = 3
[train]
updates = 3
micro_batches = 2
evaluation.every = 0
[schedule]
kind = "constant"
warmup = 0
"#;

/// A batch whose first `real` sequences are text and whose others are `filler`.
fn filled(config: &Config, seed: u64, real: u32, filler: u32) -> Batch {
    let mut batch = batch(config, seed);
    let end = (real * config.data.sequence_length) as usize;
    batch.tokens[end..].fill(filler);
    batch.targets[end..].fill(Batch::IGNORED);
    batch
}

/// Training batches of these numbers of real sequences, in turn.
fn run(config: &Config, real: &[u32], filler: u32) -> Ran {
    let training = real.iter().zip(1..).map(|(real, seed)| filled(config, seed, *real, filler)).collect();
    let validation = vec![batch(config, 91), filled(config, 92, 1, filler)];
    let own = *tiers().last().unwrap();
    drive(&mut trainer(config, &device(own), Corpus::Batches { training, validation }, PlanOptions::default()))
}

/// [`SMALL`] with the keys of a second text in its tables.
fn with(text: &str, keys: &str) -> Config {
    fn lay(over: toml::Table, under: &mut toml::Table) {
        for (key, value) in over {
            match (value, under.get_mut(&key)) {
                (toml::Value::Table(over), Some(toml::Value::Table(under))) => lay(over, under),
                (value, _) => drop(under.insert(key, value)),
            }
        }
    }
    let mut table: toml::Table = text.parse().unwrap();
    lay(keys.parse().unwrap(), &mut table);
    config(&table.to_string(), 64)
}

/// Weights, every number of an update's line, every number of an evaluation: to the bit.
#[test]
fn what_fills_up_changes_no_bit_of_a_run() {
    for keys in [
        "[model.balance]\nkind = \"switch\"\nz_coefficient = 0.01",
        "[model.balance]\nkind = \"sequence\"",
        "[model.balance]\nkind = \"global_batch\"\n[optimizer]\nidle_experts = \"skip\"",
        "[model.balance]\nkind = \"hf_mixtral\"\n[model.router]\nselection_bias = \"loss_free\"\nselection_bias_rate = 0.01",
        "[model.depth]\nkind = \"recursive\"\nrecursion = { carry = \"next_data\", halt_after = 4, gradient = \"all\" }",
    ] {
        let config = with(SMALL, keys);
        let [zeros, others] = [0, 37].map(|filler| run(&config, &[3, 1, 2], filler));
        assert_eq!(zeros.weights_sha256, others.weights_sha256, "{keys}");
        assert_eq!(zeros.updates, others.updates, "{keys}");
        assert_eq!(zeros.evals, others.evals, "{keys}");
        let tokens: Vec<u64> = zeros.updates.iter().map(|record| record.tokens).collect();
        assert_eq!(tokens, [4 * 16, 9 * 16, 12 * 16], "3 + 1, 2 + 3 and 1 + 2 sequences of 16 tokens");
    }
}

/// Without anything random the update of unequal micro-batches is that of the same sequences in any other division; by the other
/// rule it is the mean of the micro-batches' own.
#[test]
fn an_update_weighs_every_target_alike_or_every_micro_batch() {
    let steady = SMALL.replace("0.1", "0.0").replace("noise = 0.3", "noise = 0.0").replace("updates = 3", "updates = 1");
    let own = device(*tiers().last().unwrap());
    // Cross-entropy and gradient norm of the update that takes these of three sequences, in micro-batches of up to `rows`.
    let update = |weighting: &str, rows: u32, parts: &[&[usize]]| {
        let mut config = with(&steady, &format!("model.balance.kind = \"none\"\ntrain.weighting = \"{weighting}\""));
        let all = batch(&config, 5);
        (config.data.batch, config.train.micro_batches) = (rows, parts.len() as u32);
        let pick = |values: &[u32], part: &[usize], filler: u32| {
            let mut picked: Vec<u32> = part.iter().flat_map(|row| values[row * 16..(row + 1) * 16].to_vec()).collect();
            picked.resize(rows as usize * 16, filler);
            picked
        };
        let part = |part: &&[usize]| Batch { tokens: pick(&all.tokens, part, 0), targets: pick(&all.targets, part, Batch::IGNORED) };
        let training: Vec<Batch> = parts.iter().map(part).collect();
        let corpus = Corpus::Batches { validation: training[..1].to_vec(), training };
        let record = drive(&mut trainer(&config, &own, corpus, PlanOptions::default())).updates.remove(0);
        [record.train_ce, record.grad_norm]
    };
    let assert_near = |what: &str, found: [f64; 2], wanted: [f64; 2]| {
        let is_near = found.iter().zip(wanted).all(|(f, w)| (f / w - 1.0).abs() < 1e-5);
        assert!(is_near, "{what}: {found:?}, wanted {wanted:?}");
    };
    let whole = update("token", 3, &[&[0, 1, 2]]);
    for (rows, parts) in [(1, &[&[0][..], &[1], &[2]][..]), (2, &[&[0, 1], &[2]]), (2, &[&[0], &[1, 2]]), (3, &[&[0, 1], &[2]])] {
        assert_near(&format!("{parts:?}"), update("token", rows, parts), whole);
    }
    let [two, one] = [update("token", 2, &[&[0, 1]]), update("token", 1, &[&[2]])];
    // |2/3 a + 1/3 b| is known, so that a.b is, and |a/2 + b/2| with it.
    let product = (9.0 * whole[1].powi(2) - 4.0 * two[1].powi(2) - one[1].powi(2)) / 4.0;
    let norm = (two[1].powi(2) + one[1].powi(2) + 2.0 * product).sqrt() / 2.0;
    let published = update("micro_batch", 2, &[&[0, 1], &[2]]);
    assert_near("mean of means", published, [(two[0] + one[0]) / 2.0, norm]);
    assert!((published[1] / whole[1] - 1.0).abs() > 1e-3, "the two rules differ: {published:?}, {whole:?}");
}
