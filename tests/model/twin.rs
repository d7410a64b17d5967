//! Whole models against a plain-loop f64 twin: loss, and gradients by central differences of the twin. What a recursion keeps
//! gradients away from is constant in the twin: calls without gradient run on the unmoved weights.

use std::collections::BTreeMap;

use moelab::{
    data::dataset::Batch,
    gpu::{Device, Memory, Plan, PlanOptions, Segment, Step},
    random::Stream,
    run::{
        Config,
        model::{DepthIdentity, DepthKind, HeadReads, Injection, ModelConfig, Networks, RecursionStart, StateUpdate, parameters},
    },
    train::recording,
};

use crate::harness::{batch, config, device, tiers};

type Weights = BTreeMap<String, Vec<f64>>;
/// Rows of D.
type Rows = Vec<Vec<f64>>;

fn matvec(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

struct Twin<'a> {
    model: &'a ModelConfig,
    tokens: usize,
}

impl Twin<'_> {
    fn rms_norm(&self, x: &Rows, gain: &[f64]) -> Rows {
        let row = |x: &Vec<f64>| {
            let square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
            let r = 1.0 / (square + self.model.norm.eps).sqrt();
            x.iter().zip(gain).map(|(x, g)| x * r * g).collect()
        };
        x.iter().map(row).collect()
    }

    fn layer_norm(x: &Rows, gain: &[f64], bias: &[f64]) -> Rows {
        let row = |x: &Vec<f64>| {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let r = 1.0 / (variance + 1e-5).sqrt();
            x.iter().zip(gain).zip(bias).map(|((x, g), b)| (x - mean) * r * g + b).collect()
        };
        x.iter().map(row).collect()
    }

    /// RoPE, interleaved, over the whole head.
    fn turn(&self, head: &mut [f64], position: usize) {
        let width = head.len();
        for pair in 0..width / 2 {
            let angle = position as f64 * self.model.positions.base.powf(-2.0 * pair as f64 / width as f64);
            let (a, b) = (head[2 * pair], head[2 * pair + 1]);
            head[2 * pair] = a * angle.cos() - b * angle.sin();
            head[2 * pair + 1] = b * angle.cos() + a * angle.sin();
        }
    }

    fn attention(&self, x: &Rows, w: &Weights, prefix: &str) -> Rows {
        let (heads, width) = (self.model.attention.heads as usize, self.model.head_width() as usize);
        let qkv: Rows = x.iter().map(|x| matvec(&w[&format!("{prefix}attention.qkv.weight")], x)).collect();
        let part = |n: usize, which: usize, head: usize| {
            let first = (which * heads + head) * width;
            let mut part = qkv[n][first..first + width].to_vec();
            if which < 2 {
                self.turn(&mut part, n % self.tokens);
            }
            part
        };
        let mut y = vec![vec![0.0; heads * width]; x.len()];
        for (n, y) in y.iter_mut().enumerate() {
            let start = n / self.tokens * self.tokens;
            for head in 0..heads {
                let q = part(n, 0, head);
                let dot = |m: usize| q.iter().zip(part(m, 1, head)).map(|(q, k)| q * k).sum::<f64>() / (width as f64).sqrt();
                let scores: Vec<f64> = (start..=n).map(dot).collect();
                let peak = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|s| (s - peak).exp()).sum();
                for (m, score) in (start..=n).zip(&scores) {
                    let p = (score - peak).exp() / total;
                    part(m, 2, head).iter().enumerate().for_each(|(c, v)| y[head * width + c] += p * v);
                }
            }
        }
        y.iter().map(|y| matvec(&w[&format!("{prefix}attention.output.weight")], y)).collect()
    }

    fn ffn(x: &[f64], up: &[f64], down: &[f64]) -> Vec<f64> {
        let hidden: Vec<f64> = matvec(up, x).into_iter().map(silu).collect();
        matvec(down, &hidden)
    }

    /// Top-K experts with a softmax over those selected.
    fn moe(&self, x: &[f64], w: &Weights, prefix: &str) -> Vec<f64> {
        let (e, k) = self.model.experts();
        let logits = matvec(&w[&format!("{prefix}moe.router.weight")], x);
        let mut order: Vec<usize> = (0..e as usize).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        order.truncate(k as usize);
        let total: f64 = order.iter().map(|e| logits[*e].exp()).sum();
        let expert = |name: &str, index: usize| {
            let all = &w[&format!("{prefix}moe.experts.{name}.weight")];
            all.chunks(all.len() / e as usize).nth(index).unwrap().to_vec()
        };
        let mut y = vec![0.0; x.len()];
        for index in order {
            let out = Self::ffn(x, &expert("up", index), &expert("down", index));
            y.iter_mut().zip(out).for_each(|(y, o)| *y += logits[index].exp() / total * o);
        }
        y
    }

    fn network(&self, mut x: Rows, w: &Weights, prefix: &str) -> Rows {
        let depth = &self.model.depth;
        let is_shared = depth.kind == DepthKind::Shared;
        for layer in 0..depth.layers {
            let own = format!("{prefix}blocks.{}.", if is_shared { 0 } else { layer });
            let step = format!("{prefix}steps.{layer}.");
            if let Some(embedding) = w.get(&format!("{step}embedding")) {
                x.iter_mut().for_each(|x| x.iter_mut().zip(embedding).for_each(|(x, e)| *x += e));
            }
            let norms = if is_shared && depth.identity == DepthIdentity::Norm { &step } else { &own };
            let h = self.attention(&self.rms_norm(&x, &w[&format!("{norms}attention_norm.weight")]), w, &own);
            add(&mut x, &h);
            let h = self.rms_norm(&x, &w[&format!("{norms}ffn_norm.weight")]);
            let h: Rows = h
                .iter()
                .map(|h| match w.get(&format!("{own}ffn.up.weight")) {
                    Some(up) => Self::ffn(h, up, &w[&format!("{own}ffn.down.weight")]),
                    None => self.moe(h, w, &own),
                })
                .collect();
            add(&mut x, &h);
        }
        self.rms_norm(&x, &w[&format!("{prefix}final_norm.weight")])
    }

    /// What the head reads, with the weights `w`; calls without gradient use `still`.
    fn depth(&self, embedded: [Rows; 2], [w, still]: [&Weights; 2]) -> Rows {
        let options = &self.model.depth.recursion;
        if self.model.depth.kind != DepthKind::Recursive {
            return self.network(embedded[0].clone(), w, "");
        }
        // Two runs at once: one with the weights `w`, one with `still`, which gives what is constant.
        let mut states = [w, still]
            .map(|w| {
                let start = |name: &str| w[&format!("recursion.{name}")].clone();
                let rows = embedded[0].len();
                match options.start {
                    RecursionStart::Embedding => None,
                    RecursionStart::Learned => Some([vec![start("low_start"); rows], vec![start("high_start"); rows]]),
                }
            })
            .into_iter()
            .zip(&embedded)
            .map(|(learned, embedded)| learned.unwrap_or_else(|| [vec![vec![0.0; embedded[0].len()]; embedded.len()], embedded.clone()]))
            .collect::<Vec<[Rows; 2]>>();
        let mut outputs = embedded.to_vec();
        for call in options.plan() {
            for (run, w) in [w, still].into_iter().enumerate() {
                let own = usize::from(call.is_high);
                let (mut x, mut other) = (states[run][own].clone(), states[run][1 - own].clone());
                if options.injection == Injection::Projected {
                    let name = if call.is_high { "low_to_high" } else { "high_to_low" };
                    other = other.iter().map(|x| matvec(&w[&format!("recursion.{name}.weight")], x)).collect();
                }
                add(&mut x, &other);
                if options.embedding_injection && !call.is_high {
                    add(&mut x, &embedded[run]);
                }
                if options.injection == Injection::Projected {
                    let name = if call.is_high { "high_norm" } else { "low_norm" };
                    x = Self::layer_norm(&x, &w[&format!("recursion.{name}.weight")], &w[&format!("recursion.{name}.bias")]);
                }
                let prefix = match (options.networks, call.is_high) {
                    (Networks::Single, _) => "",
                    (Networks::Separate, true) => "high.",
                    (Networks::Separate, false) => "low.",
                };
                outputs[run] = self.network(x, w, prefix);
                match options.update {
                    StateUpdate::Replace => states[run][own] = outputs[run].clone(),
                    StateUpdate::Residual => add(&mut states[run][own], &outputs[run]),
                }
            }
            if !call.has_gradient {
                states[0][usize::from(call.is_high)] = states[1][usize::from(call.is_high)].clone();
            }
        }
        match options.head {
            HeadReads::State => states[0][1].clone(),
            HeadReads::Call => outputs[0].clone(),
        }
    }

    /// Mean cross-entropy.
    fn loss(&self, batch: &Batch, w: &Weights, still: &Weights) -> f64 {
        let d = self.model.width as usize;
        let embed = |w: &Weights| -> Rows {
            let row = |t: &u32| {
                w["embedding.weight"][*t as usize * d..][..d].iter().map(|v| v * f64::from(self.model.embedding_scale())).collect()
            };
            batch.tokens.iter().map(row).collect()
        };
        let x = self.depth([embed(w), embed(still)], [w, still]);
        let loss = |x: &Vec<f64>, target: u32| {
            let logits = matvec(&w["embedding.weight"], x);
            logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[target as usize]
        };
        x.iter().zip(&batch.targets).map(|(x, t)| loss(x, *t)).sum::<f64>() / x.len() as f64
    }
}

fn add(x: &mut Rows, y: &Rows) {
    x.iter_mut().zip(y).for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
}

/// The loss and every gradient as the device computes them.
fn trained(device: &Device, config: &Config, weights: &Weights, batch: &Batch) -> (f64, Weights) {
    let mut memory = Memory::default();
    let training = recording::training(config, device.capabilities);
    let plan = Plan::compile(device, &training.program, &mut memory, PlanOptions::default()).unwrap();
    for (name, values) in weights {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        memory.write(device, name, bytemuck::cast_slice(&values));
    }
    plan.write(device, training.tokens, bytemuck::cast_slice(&batch.tokens));
    plan.write(device, training.targets, bytemuck::cast_slice(&batch.targets));
    plan.write(device, training.loss_seed, bytemuck::bytes_of(&1.0f32));
    let step = Step { inverse_targets: 1.0 / batch.target_count() as f32, ..Step::default() };
    plan.submit(device, &mut memory, &step, &[Segment::ClearGradients, Segment::Micro]).unwrap();
    let names: Vec<&String> = weights.keys().collect();
    let find = |name: &&String| training.program.find(&format!("d_{name}")).unwrap_or_else(|| panic!("no gradient of {name}"));
    let mut wanted = vec![training.statistics];
    wanted.extend(names.iter().map(find));
    let floats =
        |bytes: Vec<u8>| bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect::<Vec<_>>();
    let mut parts = plan.download(device, &wanted).wait(device).unwrap().into_iter().map(floats);
    let statistics = parts.next().unwrap();
    (statistics[0] / statistics[1], names.into_iter().cloned().zip(parts).collect())
}

/// Compares a model with its twin, on every tier.
fn compare(axes: &str) {
    const SIZES: &str = "seed = 5\n[model]\nwidth = 8\ncontext = 6\nattention.heads = 2\nnorm.eps = 1e-5\n\
        dropout = { embedding = 0.0, attention = 0.0, residual = 0.0, ffn = 0.0, head = 0.0 }\n";
    const EXPERTS: &str = "ffn.width = 12\nrouter = { experts = 3, top_k = 2, noise = 0.0 }\nbalance.kind = \"none\"\n";
    let experts = if axes.contains("dense") { "" } else { EXPERTS };
    let text = format!("{SIZES}{experts}{axes}\n[data]\nsequence_length = 6\nbatch = 2\n");
    let config = config(&text, 11);
    let batch = batch(&config, 3);
    // Larger than a training's, so that no gradient is lost in rounding.
    let weights: Weights = parameters::parameters(&config.model)
        .into_iter()
        .enumerate()
        .map(|(index, spec)| {
            let stream = Stream { seed: 8, step: 0, stream: index as u32 };
            let centre = if spec.is_gain_or_bias() && spec.name.ends_with("weight") { 1.0 } else { 0.0 };
            let value = |i: u32| centre + f64::from(0.3 * stream.normal(i));
            (spec.name.clone(), (0..spec.len() as u32).map(|i| f64::from(value(i) as f32)).collect())
        })
        .collect();
    let twin = Twin { model: &config.model, tokens: 6 };
    let wanted = twin.loss(&batch, &weights, &weights);
    for tier in tiers() {
        let device = device(tier);
        let (loss, gradients) = trained(&device, &config, &weights, &batch);
        assert!((loss / wanted - 1.0).abs() < 1e-5, "{axes}: the loss is {loss}, wanted {wanted}");
        for (name, found) in &gradients {
            let mut moved = weights.clone();
            let mut slope = |i: usize| {
                let h = 1e-5;
                let mut at = |value: f64| {
                    moved.get_mut(name).unwrap()[i] = value;
                    twin.loss(&batch, &moved, &weights)
                };
                let value = weights[name][i];
                let slope = (at(value + h) - at(value - h)) / (2.0 * h);
                at(value);
                slope
            };
            let sampled: Vec<usize> = (0..found.len()).step_by(found.len().div_ceil(24)).collect();
            let numeric: Vec<f64> = sampled.iter().map(|i| slope(*i)).collect();
            let norm = numeric.iter().map(|v| v * v).sum::<f64>().sqrt();
            let difference = sampled.iter().zip(&numeric).map(|(i, n)| (found[*i] - n).powi(2)).sum::<f64>().sqrt();
            let name_and_tier = format!("{axes}: d_{name} on {}", tier.name());
            assert!(difference <= 2e-5 * norm.max(1e-3), "{name_and_tier}: relative difference {:.1e}", difference / norm.max(1e-30));
        }
    }
}

#[test]
fn indexed_depth_follows_the_twin() {
    compare("depth.layers = 2");
    compare("depth.layers = 2\nffn = { kind = \"dense\", width = 12 }");
}

#[test]
fn shared_depth_follows_the_twin() {
    compare("depth = { kind = \"shared\", layers = 3 }");
    compare("depth = { kind = \"shared\", layers = 3, identity = \"embedding\" }");
    compare("depth = { kind = \"shared\", layers = 2, identity = \"norm\" }\nffn = { kind = \"dense\", width = 12 }");
}

#[test]
fn recursive_depth_follows_the_twin() {
    let recursion = |keys: &str| {
        compare(&format!(
            "depth = {{ kind = \"recursive\", layers = 1, recursion = {{ {keys} }} }}\nffn = {{ kind = \"dense\", width = 12 }}"
        ))
    };
    recursion("high_cycles = 2, low_cycles = 2, gradient = \"all\"");
    recursion("high_cycles = 2, low_cycles = 3, gradient = \"low_steps\", low_gradient_steps = 2");
    recursion("high_cycles = 2, low_cycles = 2, gradient = \"last_cycle\", networks = \"single\"");
    recursion(
        "high_cycles = 2, low_cycles = 2, gradient = \"last_cycle\", networks = \"single\", start = \"learned\", \
         injection = \"projected\", embedding_injection = true, update = \"residual\", head = \"call\"",
    );
    recursion("high_cycles = 1, low_cycles = 2, gradient = \"all\", start = \"learned\", embedding_injection = true");
}
