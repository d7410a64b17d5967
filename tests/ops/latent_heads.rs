//! The heads of latent attention against their twin, which fills each head by itself.

use moelab::ops::{LatentHeads, RopePairing, Rotation};

use crate::{
    harness::{Array, Case, Input, catches},
    rope::turn,
};

fn twin(q: &Array, kv: &Array, k_rope: &Array, shape: LatentHeads, rotation: Rotation) -> Vec<Array> {
    let [tokens, nope, rope, value] = [shape.tokens, shape.nope, shape.rope, shape.value].map(|v| v as usize);
    let width = shape.width() as usize;
    let (mut packed_q, mut packed_kv) = (Vec::new(), Vec::new());
    let rows = q.data.len() / q.width();
    for n in 0..rows {
        let position = (n % tokens) as f64;
        let padded = |parts: &[&[f64]]| {
            let mut head = parts.concat();
            head.resize(width, 0.0);
            head
        };
        for head in q.data[n * q.width()..][..q.width()].chunks(nope + rope) {
            let mut turned = head[nope..].to_vec();
            turn(&mut turned, position, rotation);
            packed_q.extend(padded(&[&head[..nope], &turned]));
        }
        let mut shared = k_rope.data[n * rope..][..rope].to_vec();
        turn(&mut shared, position, rotation);
        let row = &kv.data[n * kv.width()..][..kv.width()];
        packed_kv.extend(row.chunks(nope + value).flat_map(|head| padded(&[&head[..nope], &shared])));
        packed_kv.extend(row.chunks(nope + value).flat_map(|head| padded(&[&head[nope..]])));
    }
    let packed = shape.heads as usize * width;
    vec![Array::new([rows, packed], packed_q), Array::new([rows, 2 * packed], packed_kv)]
}

fn outcome(case: Case, batch: u32, shape: LatentHeads, rotated: u32, pairs: RopePairing) -> Result<(), String> {
    let LatentHeads { tokens, heads, nope, rope, value } = shape;
    let rotation = Rotation { rotated, base: 10_000.0, pairs };
    let rows = batch * tokens;
    let inputs = [
        Input::normal("q", [rows, heads * (nope + rope)]),
        Input::normal("kv", [rows, heads * (nope + value)]),
        Input::normal("k_rope", [rows, rope]),
    ];
    case.try_check(
        &inputs,
        |g, t| {
            let (q, kv) = g.latent_heads(t[0], t[1], t[2], shape, rotation);
            vec![q, kv]
        },
        |a| twin(&a[0], &a[1], &a[2], shape, rotation),
    )
}

fn shape(tokens: u32, heads: u32, [nope, rope, value]: [u32; 3]) -> LatentHeads {
    LatentHeads { tokens, heads, nope, rope, value }
}

#[test]
fn follows_the_twin() {
    for pairs in [RopePairing::Interleaved, RopePairing::HalfSplit] {
        for (batch, shape, rotated) in [
            (1, shape(1, 1, [0, 2, 1]), 2),
            (2, shape(7, 3, [5, 4, 3]), 4),   // value narrower, odd parts
            (3, shape(13, 2, [3, 2, 11]), 2), // value wider
            (1, shape(67, 4, [0, 8, 8]), 8),  // nothing but rope
            (2, shape(5, 4, [32, 16, 32]), 16),
            (1, shape(11, 2, [16, 16, 32]), 16), // no padding
            (1, shape(13, 2, [4, 10, 6]), 4),    // a part of the rope channels turns
            (1, shape(3, 2, [4, 6, 6]), 0),      // none does
            (1, shape(3, 2, [64, 64, 128]), 64),
            (4, shape(4, 3, [8, 8, 4]), 8),    // these through images: value narrower,
            (2, shape(8, 2, [0, 8, 16]), 8),   // wider,
            (1, shape(16, 2, [4, 16, 12]), 8), // a part turns
        ] {
            outcome(Case::new(format!("latent_heads {batch} x {shape:?}, {rotated} {pairs:?}")), batch, shape, rotated, pairs).unwrap();
        }
    }
}

#[test]
fn catches_mutants_of_the_backward() {
    for pairs in [RopePairing::Interleaved, RopePairing::HalfSplit] {
        let mutants = [
            ("latent_heads", "- d_packed_q[", "+ d_packed_q["),
            ("latent_heads", "d_q[i] = d_packed_q[first + channel];", "d_q[i] = d_packed_q[first];"),
            ("latent_heads", "let first = head_index * params.width", "let first = row * params.width"),
            ("latent_heads", "head_index + row * params.heads", "head_index"),
            ("latent_heads", "k_head_index + params.heads)", "k_head_index)"),
            ("latent_heads", "params.width + channel - params.nope]", "params.width + channel]"),
            ("latent_heads", "var head = 0u;", "var head = 1u;"),
            ("latent_heads", "sum_a * cosine + sum_b * sine", "sum_a * cosine - sum_b * sine"),
            ("latent_heads", "pair + params.rotated / 2u", "pair + params.rope / 2u"),
            ("latent_heads", "2u * pair < params.rotated", "true"),
        ];
        let mutants = if pairs == RopePairing::HalfSplit { &mutants[..] } else { &mutants[..8] };
        catches(mutants, |case| outcome(case, 2, shape(7, 3, [5, 6, 4]), 4, pairs));
    }
}

#[test]
fn catches_mutants_of_the_cpu_backward() {
    let mutants = [
        ("latent_heads_cpu", "* turn.cosine - partners", "* turn.cosine + partners"),
        ("latent_heads_cpu", "d_q[source + c] = flat_texel(d_packed_q, packed + c)", "d_q[source + c] = flat_texel(d_packed_q, packed)"),
        ("latent_heads_cpu", "let v = k + p.heads * p.width", "let v = k"),
        ("latent_heads_cpu", "var head = 0u;", "var head = 1u;"),
        ("latent_heads_cpu", "other += flat_texel", "other = flat_texel"),
        ("latent_heads_cpu", "row % p.tokens", "row"),
        ("latent_heads_cpu", "other.yxwz, turn.swaps", "other.xyzw, turn.swaps"),
        ("latent_heads_cpu", "index >> firstTrailingBit(row_texels)", "0u"),
    ];
    catches(&mutants, |case| outcome(case, 4, shape(4, 3, [8, 8, 4]), 8, RopePairing::Interleaved));
    let split =
        [("latent_heads_cpu", "select(c - half, c + half, is_first)", "c"), ("latent_heads_cpu", "select(1.0, -1.0, is_first)", "1.0")];
    catches(&split, |case| outcome(case, 1, shape(16, 2, [4, 16, 12]), 8, RopePairing::HalfSplit));
}

#[test]
fn heads_share_the_width_of_the_widest() {
    let packed = shape(8, 3, [32, 16, 20]).packed();
    assert_eq!((packed.tokens, packed.query, packed.key_value, packed.width), (8, 3, 3, 48));
    assert_eq!(shape(8, 3, [3, 2, 21]).width(), 24);
    assert_eq!(shape(8, 3, [7, 2, 21]).scale(), 1.0 / 3.0);
}
