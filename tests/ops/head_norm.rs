//! Norm of query and key heads against its twin, which norms head by head.

use moelab::ops::Heads;

use crate::{
    harness::{Array, Case, Input, catches},
    rms_norm,
};

fn twin(qkv: &Array, w_q: &Array, w_k: &Array, heads: Heads, eps: f64) -> Array {
    let (query, normed) = (heads.query as usize, (heads.query + heads.key_value) as usize);
    let mut y = qkv.clone();
    for row in y.data.chunks_mut(qkv.width()) {
        for (h, head) in row.chunks_mut(heads.width as usize).take(normed).enumerate() {
            let x = Array::new([1, head.len()], head.to_vec());
            head.copy_from_slice(&rms_norm::twin(&x, if h < query { w_q } else { w_k }, eps).data);
        }
    }
    y
}

/// A second norm of the first one's result with the same gains: their gradients accumulate.
fn twice(case: Case, rows: u32, [query, key_value, width]: [u32; 3]) -> Result<(), String> {
    let heads = Heads { tokens: 1, query, key_value, width };
    case.try_check(
        &[
            Input::normal("qkv", [rows, (query + 2 * key_value) * width]),
            Input::normal("w_q", [width]).param(),
            Input::normal("w_k", [width]).param(),
        ],
        |g, t| {
            let y = g.head_norm(t[0], t[1], t[2], heads, 0.1);
            vec![g.head_norm(y, t[1], t[2], heads, 1.0)]
        },
        |a| {
            let y = twin(&a[0], &a[1], &a[2], heads, f64::from(0.1_f32));
            vec![twin(&y, &a[1], &a[2], heads, 1.0)]
        },
    )
}

#[test]
fn follows_the_twin() {
    for (rows, heads) in
        [(1, [1, 1, 1]), (1, [2, 1, 5]), (7, [3, 3, 16]), (67, [4, 2, 7]), (37, [4, 1, 64]), (3, [2, 2, 67]), (5, [1, 1, 128])]
    {
        twice(Case::new(format!("head_norm of {rows} rows of {heads:?}")), rows, heads).unwrap();
    }
}

#[test]
fn catches_mutants_of_the_backward() {
    let mutants = [
        ("head_norm", "- qkv[h.base + i] * projection", ""),
        ("head_norm", "mean * scale * scale", "mean * scale"),
        ("head_norm", "d_qkv[h.base + i] = d_y[h.base + i];", "d_qkv[h.base + i] = 0.0;"),
        ("head_norm", "select(params.normed_heads, params.q_heads, is_q)", "params.normed_heads"),
        ("head_norm", "head < params.q_heads", "head <= params.q_heads"),
        ("head_norm", "block < params.blocks", "block < 1u"),
        ("head_norm", "d_w_q[id.x] += sum", "d_w_q[id.x] = sum"),
        ("head_norm", "- params.width] += sum", "- params.width] = sum"),
    ];
    catches(&mutants, |case| twice(case, 37, [3, 2, 7]));
}
