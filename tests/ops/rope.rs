//! Rotary positions against their twin, which turns each pair as a complex number.

use moelab::ops::{Heads, RopePairing, Rotation};

use crate::harness::{Array, Case, Input, catches, device, run, tiers};

/// Turns the leading channels of a head.
pub fn turn(head: &mut [f64], position: f64, rotation: Rotation) {
    let rotated = rotation.rotated as usize;
    for i in 0..rotated / 2 {
        let (a, b) = if rotation.pairs == RopePairing::Interleaved { (2 * i, 2 * i + 1) } else { (i, i + rotated / 2) };
        let (sin, cos) = (position / rotation.base.powf(2.0 * i as f64 / rotated as f64)).sin_cos();
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
    }
}

fn twin(qkv: &Array, heads: Heads, rotation: Rotation) -> Vec<Array> {
    let hd = heads.width as usize;
    let q_width = heads.query as usize * hd;
    let (mut q, mut kv) = (Vec::new(), Vec::new());
    for (n, row) in qkv.rows().enumerate() {
        let mut row = row.to_vec();
        let position = (n % heads.tokens as usize) as f64;
        for head in row.chunks_mut(hd).take((heads.query + heads.key_value) as usize) {
            turn(head, position, rotation);
        }
        q.extend_from_slice(&row[..q_width]);
        kv.extend_from_slice(&row[q_width..]);
    }
    let rows = qkv.data.len() / qkv.width();
    vec![Array::new([rows, q_width], q), Array::new([rows, qkv.width() - q_width], kv)]
}

fn outcome(case: Case, batch: u32, heads: Heads, rotation: Rotation) -> Result<(), String> {
    let Heads { tokens, query, key_value, width } = heads;
    case.try_check(
        &[Input::normal("qkv", [batch * tokens, (query + 2 * key_value) * width])],
        |g, t| {
            let (q, kv) = g.rope(t[0], heads, rotation);
            vec![q, kv]
        },
        |a| twin(&a[0], heads, rotation),
    )
}

fn follows(batch: u32, tokens: u32, [query, key_value, width]: [u32; 3], rotated: u32, pairs: RopePairing) {
    let heads = Heads { tokens, query, key_value, width };
    let rotation = Rotation { rotated, base: 10_000.0, pairs };
    let case = Case::new(format!("rope {batch}x{tokens} {heads:?} {rotation:?}"));
    outcome(case, batch, heads, rotation).unwrap_or_else(|message| panic!("{message}"));
}

#[test]
fn mutants_of_the_kernel_for_gpus_are_caught() {
    let heads = Heads { tokens: 5, query: 4, key_value: 2, width: 16 };
    for (pairs, mutants) in [
        (
            RopePairing::Interleaved,
            &[
                ("rope_vec4", "angles[first + at.c]", "angles[at.c]"),
                ("rope_vec4", "select(other, other.yxwz, turn.swaps)", "other"),
                ("rope_vec4", "|| at.head >= params.turned_heads", ""),
            ][..],
        ),
        (
            RopePairing::HalfSplit,
            &[
                ("rope_vec4", "select(c - half, c + half, is_first)", "c"),
                (
                    "rope_vec4",
                    "(params.heads - params.q_heads) + at.head - params.q_heads",
                    "(params.heads - params.q_heads) + at.head - params.turned_heads",
                ),
                ("rope_vec4", "at.c >= rotated", "at.c > rotated"),
                ("rope_vec4", "turn.cosine - partners", "turn.cosine + partners"),
            ][..],
        ),
    ] {
        catches(mutants, |case| outcome(case, 2, heads, Rotation { rotated: 8, base: 10_000.0, pairs }));
    }
}

#[test]
fn follows_the_twin() {
    for pairs in [RopePairing::Interleaved, RopePairing::HalfSplit] {
        follows(1, 1, [1, 1, 4], 4, pairs);
        follows(2, 7, [2, 1, 5], 4, pairs); // odd head width: the last channel passes
        follows(3, 13, [4, 4, 16], 16, pairs); // images
        follows(1, 67, [4, 2, 48], 24, pairs); // partial
        follows(2, 5, [2, 1, 64], 40, pairs);
        follows(1, 3, [4, 2, 16], 12, pairs); // half-split pairs within a texel: no images
        follows(1, 13, [4, 2, 16], 0, pairs); // split only
    }
}

#[test]
fn the_first_token_stays_as_it_is() {
    let heads = Heads { tokens: 4, query: 2, key_value: 1, width: 16 };
    let rotation = Rotation { rotated: 16, base: 10_000.0, pairs: RopePairing::HalfSplit };
    let values: Vec<f32> = (0..2 * 4 * 64).map(|i| i as f32 / 7.0).collect();
    let input = Input::values("qkv", [8, 64], values.clone());
    let tiers = tiers(&device()); // not in the loop's head, which would hold the device
    for tier in tiers {
        let outputs = run(tier, std::slice::from_ref(&input), |g, t| {
            let (q, kv) = g.rope(t[0], heads, rotation);
            vec![q, kv]
        });
        for row in [0, 4] {
            assert_eq!(outputs[0][row * 32..][..32], values[row * 64..][..32]);
            assert_eq!(outputs[1][row * 32..][..32], values[row * 64 + 32..][..32]);
        }
        assert_ne!(outputs[0][32..64], values[64..96]);
    }
}
