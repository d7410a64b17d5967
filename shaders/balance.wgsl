// Auxiliary losses of one layer's router over N tokens, E experts, K experts a token:
//   aux = E sum_e f_e P_e, f_e = c_e / (N K), P_e = mean_n p_{n,e}     (Switch: Fedus et al., arXiv 2101.03961; 1 at balance)
//   z = mean_n logsumexp_n^2                                           (ST-MoE: Zoph et al., arXiv 2202.08906)
//   loss = balance_coefficient aux + z_coefficient z
//   d_p_{n,e} = d_loss balance_coefficient E f_e / N        d_logsumexp_n = d_loss z_coefficient 2 logsumexp_n / N
// The load f is a count and has no gradient. metrics = [aux, z, mean entropy, f_0 .. f_{E-1}], without coefficients.

import package::lib::index::flat_workgroup;
import package::lib::step::step;

struct Params {
    tokens: u32,
    experts: u32,
    experts_per_token: u32,
    block: u32,  // tokens a block
    blocks: u32, // ceil(N / block)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> probabilities: array<f32>;
@group(0) @binding(2) var<storage, read> logsumexp: array<f32>;
@group(0) @binding(3) var<storage, read> entropy: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>; // [blocks, E + 2]: of p_e, logsumexp^2, entropy
@group(0) @binding(5) var<storage, read> saved_sums: array<f32>;
@group(0) @binding(6) var<storage, read> offsets: array<u32>;
@group(0) @binding(7) var<storage, read_write> loss: array<f32>;
@group(0) @binding(8) var<storage, read_write> metrics: array<f32>;
@group(0) @binding(9) var<storage, read> d_loss: array<f32>;
@group(0) @binding(10) var<storage, read_write> d_probabilities: array<f32>;
@group(0) @binding(11) var<storage, read_write> d_logsumexp: array<f32>;

const INVOCATIONS = 64u;
const SCALARS = 3u; // of metrics, before the load

var<workgroup> sh_mean: array<f32, 66>; // E + 2

// f_e
fn load(e: u32) -> f32 {
    return f32(offsets[e + 1u] - offsets[e]) / f32(params.tokens * params.experts_per_token);
}

// An invocation owns one column of one block and walks the tokens in order.
@compute @workgroup_size(INVOCATIONS)
fn block_sums(@builtin(global_invocation_id) id: vec3<u32>) {
    let columns = params.experts + 2u;
    if (id.x >= params.blocks * columns) {
        return;
    }
    let column = id.x % columns;
    let first = id.x / columns * params.block;
    let end = min(first + params.block, params.tokens);
    var sum = 0.0;
    if (column < params.experts) {
        for (var n = first; n < end; n++) {
            sum += probabilities[n * params.experts + column];
        }
    } else if (column == params.experts) {
        for (var n = first; n < end; n++) {
            sum = fma(logsumexp[n], logsumexp[n], sum);
        }
    } else {
        for (var n = first; n < end; n++) {
            sum += entropy[n];
        }
    }
    sums[id.x] = sum;
}

// One workgroup; an invocation owns every 64th column and walks the blocks in order.
@compute @workgroup_size(INVOCATIONS)
fn forward(@builtin(local_invocation_index) local: u32) {
    let columns = params.experts + 2u;
    for (var column = local; column < columns; column += INVOCATIONS) {
        var sum = 0.0;
        for (var b = 0u; b < params.blocks; b++) {
            sum += saved_sums[b * columns + column];
        }
        sh_mean[column] = sum / f32(params.tokens);
    }
    workgroupBarrier();
    if (local < params.experts) {
        metrics[SCALARS + local] = load(local);
    }
    if (local == 0u) {
        var aux = 0.0;
        for (var e = 0u; e < params.experts; e++) {
            aux = fma(load(e), sh_mean[e], aux);
        }
        aux *= f32(params.experts);
        let z = sh_mean[params.experts];
        metrics[0] = aux;
        metrics[1] = z;
        metrics[2] = sh_mean[params.experts + 1u];
        loss[0] = step.balance_coefficient * aux + step.z_coefficient * z;
    }
}

// An invocation owns one element of d_probabilities, the first of a row also d_logsumexp.
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.tokens * params.experts) {
        return;
    }
    let e = i % params.experts;
    let scale = d_loss[0] / f32(params.tokens);
    d_probabilities[i] = scale * step.balance_coefficient * f32(params.experts) * load(e);
    if (e == 0u) {
        let n = i / params.experts;
        d_logsumexp[n] = scale * step.z_coefficient * 2.0 * logsumexp[n];
    }
}
