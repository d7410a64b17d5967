//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) as a model composes it, forward and all
//! gradients, against one twin that is written from the formulas and knows neither packing nor padding.

use moelab::{
    gpu::Tensor,
    ops::{Graph, LatentHeads, RopePairing, Rotation},
};

use crate::{
    harness::{Array, Case, Input, catches},
    rms_norm,
    rope::turn,
};

const EPS: f32 = 1e-6;
const WIDTH: u32 = 24; // D
const KV_RANK: u32 = 12;

/// Ranks and heads of one case; without `query_rank` queries are not compressed.
#[derive(Clone, Copy, Debug)]
struct Shape {
    batch: u32,
    query_rank: Option<u32>,
    heads: LatentHeads,
    rotation: Rotation,
}

/// The operands in order: x, W_kva, norm, W_kvb, W_o, W_qb, and W_qa, norm where queries are compressed.
fn operands(shape: Shape) -> Vec<Input> {
    let Shape { batch, query_rank, heads: LatentHeads { tokens, heads, nope, rope, value }, .. } = shape;
    let weight = |name: &str, out: u32, inner: u32| Input::normal(name, [out, inner]).scaled((inner as f32).powf(-0.5)).param();
    let mut inputs = vec![
        Input::normal("x", [batch * tokens, WIDTH]),
        weight("kv_a", KV_RANK + rope, WIDTH),
        Input::uniform("kv_norm", [KV_RANK], 0.5, 1.5).param(),
        weight("kv_b", heads * (nope + value), KV_RANK),
        weight("output", WIDTH, heads * value),
        weight("q_b", heads * (nope + rope), query_rank.unwrap_or(WIDTH)),
    ];
    if let Some(rank) = query_rank {
        inputs.push(weight("q_a", rank, WIDTH));
        inputs.push(Input::uniform("q_norm", [rank], 0.5, 1.5).param());
    }
    inputs
}

fn record(g: &mut Graph, t: &[Tensor], shape: Shape) -> Tensor {
    let heads = shape.heads;
    let compressed = g.linear(t[0], t[1]); // [N, rank + rope]
    let (c_kv, k_rope) = g.split_columns(compressed, KV_RANK); // [N, rank], [N, rope]
    let c_kv = g.rms_norm(c_kv, t[2], EPS); // [N, rank]
    let kv = g.linear(c_kv, t[3]); // [N, H (nope + value)]
    let c_q = match shape.query_rank {
        Some(_) => {
            let c_q = g.linear(t[0], t[6]); // [N, q_rank]
            g.rms_norm(c_q, t[7], EPS) // [N, q_rank]
        }
        None => t[0],
    };
    let q = g.linear(c_q, t[5]); // [N, H (nope + rope)]
    let (q, kv) = g.latent_heads(q, kv, k_rope, heads, shape.rotation); // [N, H w], [N, 2 H w]
    let y = g.attention(q, kv, heads.packed(), heads.scale(), 0.0); // [N, H w]
    let y = g.take_heads(y, heads.heads, heads.width(), heads.value); // [N, H value]
    g.linear(y, t[4]) // [N, D]
}

/// x [rows, in] times w [out, in] transposed.
fn linear(x: &Array, w: &Array) -> Array {
    let dot = |row: &[f64], w: &[f64]| row.iter().zip(w).map(|(a, b)| a * b).sum::<f64>();
    let y: Vec<f64> = x.rows().flat_map(|row| w.rows().map(|w| dot(row, w)).collect::<Vec<_>>()).collect();
    Array::new([x.shape[0], w.shape[0]], y)
}

fn twin(a: &[Array], shape: Shape) -> Array {
    let LatentHeads { tokens, heads, nope, rope, value } = shape.heads;
    let [tokens, heads, nope, rope, value] = [tokens, heads, nope, rope, value].map(|v| v as usize);
    let rank = KV_RANK as usize;
    let norm = |x: &Array, w: &Array| rms_norm::twin(x, w, f64::from(EPS));
    let c_q = if shape.query_rank.is_some() { norm(&linear(&a[0], &a[6]), &a[7]) } else { a[0].clone() };
    let q = linear(&c_q, &a[5]);
    let compressed = linear(&a[0], &a[1]);
    let rows = a[0].shape[0];
    let c_kv = Array::new([rows, rank], compressed.rows().flat_map(|r| r[..rank].to_vec()).collect());
    let kv = linear(&norm(&c_kv, &a[2]), &a[3]);
    let turned = |part: &[f64], n: usize| {
        let mut part = part.to_vec();
        turn(&mut part, (n % tokens) as f64, shape.rotation);
        part
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut y = Array::zeros([rows, heads * value]);
    for n in 0..rows {
        for h in 0..heads {
            let q = &q.data[(n * heads + h) * (nope + rope)..][..nope + rope];
            let q_rope = turned(&q[nope..], n);
            let past = n - n % tokens..=n;
            let kv_of = |j: usize| &kv.data[(j * heads + h) * (nope + value)..][..nope + value];
            let score = |j: usize| {
                let k_rope = turned(&compressed.data[j * (rank + rope) + rank..][..rope], j);
                (dot(&q[..nope], &kv_of(j)[..nope]) + dot(&q_rope, &k_rope)) / ((nope + rope) as f64).sqrt()
            };
            let weights: Vec<f64> = past.clone().map(|j| score(j).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (weight, j) in weights.iter().zip(past) {
                for (c, v) in kv_of(j)[nope..].iter().enumerate() {
                    y.data[(n * heads + h) * value + c] += weight / total * v;
                }
            }
        }
    }
    linear(&y, &a[4])
}

fn outcome(case: Case, shape: Shape) -> Result<(), String> {
    case.try_check(&operands(shape), |g, t| vec![record(g, t, shape)], |a| vec![twin(a, shape)])
}

fn shape(query_rank: Option<u32>, [nope, rope, value]: [u32; 3], pairs: RopePairing) -> Shape {
    let heads = LatentHeads { tokens: 7, heads: 3, nope, rope, value };
    Shape { batch: 2, query_rank, heads, rotation: Rotation { rotated: rope, base: 10_000.0, pairs } }
}

fn follows(shape: Shape) {
    outcome(Case::new(format!("latent attention {shape:?}")), shape).unwrap();
}

#[test]
fn follows_the_twin() {
    for pairs in [RopePairing::Interleaved, RopePairing::HalfSplit] {
        follows(shape(Some(10), [6, 4, 5], pairs)); // value narrower than a query
        follows(shape(None, [6, 4, 14], pairs)); // value wider
        follows(shape(None, [0, 8, 8], pairs)); // nothing but rope, no padding
        follows(shape(Some(16), [0, 4, 9], pairs));
    }
}

#[test]
fn follows_the_twin_through_images_and_beyond_a_tile() {
    let rotation = Rotation { rotated: 8, base: 10_000.0, pairs: RopePairing::Interleaved };
    let heads = LatentHeads { tokens: 48, heads: 4, nope: 24, rope: 8, value: 20 };
    follows(Shape { batch: 1, query_rank: Some(16), heads, rotation });
    follows(Shape { batch: 3, query_rank: None, heads: LatentHeads { tokens: 2, ..heads }, rotation });
}

#[test]
fn catches_mutants_of_every_part() {
    let mutants = [
        ("split_columns", "gradient = load_d_right_from(", "gradient = -load_d_right_from("),
        ("latent_heads", "q[first + channel] * turn.cosine +", "q[first + channel] * turn.cosine -"),
        ("latent_heads", "k_rope[first + turn.partner] * turn.sine", "k_rope[first + turn.partner] * -turn.sine"),
        ("latent_heads", "sum_b += ", "sum_b = "),
        ("take_heads", "load_d_y_from(head * params.value + c", "load_d_y_from(head * params.value"),
    ];
    catches(&mutants, |case| outcome(case, shape(Some(10), [6, 4, 5], RopePairing::Interleaved)));
}
