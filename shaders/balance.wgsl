// Auxiliary losses of a router over N tokens in sequences of T, E experts, K experts a token. N counts the real tokens of the
// micro-batch, whole sequences: rows that fill it up have no part in any number and get no gradient. c_e: assignments to e;
// p: scores over their sum; f_e = c_e / (N K), P_e = mean_n p_{n,e}, and f_{s,e}, P_{s,e} the same within sequence s:
//   switch = E sum_e f_e P_e                   (Switch: Fedus et al., arXiv 2101.03961; 1 at balance)
//   sequence = mean_s E sum_e f_{s,e} P_{s,e}  (DeepSeek-V3, arXiv 2412.19437; 1 at balance)
//   global batch = E sum_e r_e P_e, r the load of the update's micro-batches so far   (arXiv 2501.11873; 1 at balance)
//   over layers = E sum_e (K mean_l f_{l,e}) (mean_l P_{l,e})   (Mixtral in Hugging Face transformers; K at balance)
//   z = mean_n logsumexp_n^2                   (ST-MoE: Zoph et al., arXiv 2202.08906)
//   loss = what it is added to + balance_coefficient (one of the first four, or 0) + z_coefficient z
//   d_p_{n,e} = d_loss balance_coefficient E load_{s,e} / N        d_logsumexp_n = d_loss z_coefficient 2 logsumexp_n / N
// load is f, f_s [B, E], r, or K / L mean_l f_l of the loss in use: a count, without gradient.
// metrics = a value in each slot (METRIC_*), then a row of E values each (ROW_*), without coefficients. The host finds them by name.
//   gate_e = sum_{n,k: expert = e} gate_{n,k} / N, 0 where it is not measured

import package::lib::index::flat_workgroup;
import package::lib::step::{real_of, step};

struct Params {
    tokens: u32,              // of the micro-batch, those that fill it up included
    experts: u32,
    experts_per_token: u32,
    sequence_length: u32,
    block: u32,               // tokens a block
    blocks_per_sequence: u32, // ceil(T / block)
    balances: u32,            // 0: the z-loss alone
    by_sequence: u32,         // the loss is `sequence`, load has a row a sequence
    has_running_load: u32,    // the loss is `global batch`
    has_gate: u32,            // the gate weights are summed, too
    has_before: u32,          // the loss is added to another
    layer: u32,
    layers: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> probabilities: array<f32>;
@group(0) @binding(2) var<storage, read> logsumexp: array<f32>;
@group(0) @binding(3) var<storage, read> entropy: array<f32>;
@group(0) @binding(4) var<storage, read> expert: array<u32>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>; // [blocks, columns]: of p_e, assignments, logsumexp^2, entropy, gate weights of e
@group(0) @binding(6) var<storage, read> saved_sums: array<f32>;
@group(0) @binding(7) var<storage, read> running_load: array<f32>;
@group(0) @binding(8) var<storage, read_write> loss: array<f32>;
@group(0) @binding(9) var<storage, read_write> metrics: array<f32>;
@group(0) @binding(10) var<storage, read_write> load: array<f32>;
@group(0) @binding(11) var<storage, read> saved_metrics: array<f32>;
@group(0) @binding(12) var<storage, read_write> pooled: array<f32>; // [L, 2E]: f and P of each layer
@group(0) @binding(13) var<storage, read> saved_pooled: array<f32>;
@group(0) @binding(14) var<storage, read> saved_load: array<f32>;
@group(0) @binding(15) var<storage, read> d_loss: array<f32>;
@group(0) @binding(16) var<storage, read_write> d_probabilities: array<f32>;
@group(0) @binding(17) var<storage, read_write> d_logsumexp: array<f32>;
@group(0) @binding(18) var<storage, read> gate: array<f32>;
@group(0) @binding(19) var<storage, read> before: array<f32>; // [1]

const INVOCATIONS = 64u; // no fewer than experts

const METRIC_SWITCH = 0u;
const METRIC_Z = 1u;
const METRIC_ENTROPY = 2u; // mean of a token's, nats
const METRIC_SEQUENCE = 3u;
const SCALARS = 4u;        // slots, before the rows
const ROW_LOAD = 0u;             // f
const ROW_MEAN_PROBABILITY = 1u; // P
const ROW_GATE = 2u;             // mean over tokens of the gate weight
const ROWS = 3u;

var<workgroup> sh_load: array<f32, INVOCATIONS>;
var<workgroup> sh_mean: array<f32, INVOCATIONS>;     // P
var<workgroup> sh_sequence: array<f32, INVOCATIONS>; // sum_s (assignments of the sequence) (its sum of p)
var<workgroup> sh_scalar: array<f32, 2>;             // means of logsumexp^2 and entropy

fn count(owned: u32, first: u32, end: u32) -> u32 {
    var total = 0u;
    for (var a = first * params.experts_per_token; a < end * params.experts_per_token; a++) {
        total += u32(expert[a] == owned);
    }
    return total;
}

fn gate_sum(owned: u32, first: u32, end: u32) -> f32 {
    var total = 0.0;
    for (var a = first * params.experts_per_token; a < end * params.experts_per_token; a++) {
        total += select(0.0, gate[a], expert[a] == owned);
    }
    return total;
}

fn columns_of_sums() -> u32 {
    return 2u * params.experts + 2u + params.has_gate * params.experts;
}

// An invocation owns one column of one block, all of whose tokens are in one sequence, and walks them in order.
// grid: len(sums) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn block_sums(@builtin(global_invocation_id) id: vec3<u32>) {
    let columns = columns_of_sums();
    let column = id.x % columns;
    let block = id.x / columns;
    let start = block / params.blocks_per_sequence * params.sequence_length;
    if (start >= real_of(params.tokens)) {
        return; // Nothing reads the sums of sequences that fill up.
    }
    let first = start + block % params.blocks_per_sequence * params.block;
    let end = min(first + params.block, start + params.sequence_length);
    var sum = 0.0;
    if (column < params.experts) {
        for (var n = first; n < end; n++) {
            sum += probabilities[n * params.experts + column];
        }
    } else if (column < 2u * params.experts) {
        sum = f32(count(column - params.experts, first, end));
    } else if (column == 2u * params.experts) {
        for (var n = first; n < end; n++) {
            sum = fma(logsumexp[n], logsumexp[n], sum);
        }
    } else if (column == 2u * params.experts + 1u) {
        for (var n = first; n < end; n++) {
            sum += entropy[n];
        }
    } else {
        sum = gate_sum(column - 2u * params.experts - 2u, first, end);
    }
    sums[id.x] = sum;
}

// f and P of an expert, and its load of the loss in use.
fn expert_means(e: u32) {
    let columns = columns_of_sums();
    let tokens = real_of(params.tokens);
    var sum = 0.0;
    var assignments = 0.0;
    var products = 0.0;
    var gates = 0.0;
    for (var s = 0u; s < tokens / params.sequence_length; s++) {
        var sequence_sum = 0.0;
        var sequence_assignments = 0.0;
        for (var b = s * params.blocks_per_sequence; b < (s + 1u) * params.blocks_per_sequence; b++) {
            let block_sum = saved_sums[b * columns + e];
            sum += block_sum;
            sequence_sum += block_sum;
            sequence_assignments += saved_sums[b * columns + params.experts + e];
            if (params.has_gate != 0u) {
                gates += saved_sums[b * columns + 2u * params.experts + 2u + e];
            }
        }
        assignments += sequence_assignments;
        products = fma(sequence_assignments, sequence_sum, products);
        if (params.by_sequence != 0u) {
            load[s * params.experts + e] = sequence_assignments / f32(params.sequence_length * params.experts_per_token);
        }
    }
    sh_load[e] = assignments / f32(tokens * params.experts_per_token);
    sh_mean[e] = sum / f32(tokens);
    sh_sequence[e] = products;
    metrics[SCALARS + ROW_LOAD * params.experts + e] = sh_load[e];
    metrics[SCALARS + ROW_MEAN_PROBABILITY * params.experts + e] = sh_mean[e];
    metrics[SCALARS + ROW_GATE * params.experts + e] = gates / f32(tokens);
    if (params.has_running_load != 0u) {
        load[e] = running_load[e];
    } else if (params.by_sequence == 0u) {
        load[e] = sh_load[e];
    }
}

// One workgroup; an invocation owns one expert, the first two also a sum over all tokens, and walks the blocks in order.
// grid: 1
@compute @workgroup_size(INVOCATIONS)
fn forward(@builtin(local_invocation_index) local: u32) {
    let tokens = real_of(params.tokens);
    if (local < params.experts) {
        expert_means(local);
    }
    if (local < 2u) {
        let columns = columns_of_sums();
        var sum = 0.0;
        for (var b = 0u; b < tokens / params.sequence_length * params.blocks_per_sequence; b++) {
            sum += saved_sums[b * columns + 2u * params.experts + local];
        }
        sh_scalar[local] = sum / f32(tokens);
    }
    workgroupBarrier();
    if (local > 0u) {
        return;
    }
    var switched = 0.0;
    var sequence = 0.0;
    var running = 0.0;
    for (var e = 0u; e < params.experts; e++) {
        switched = fma(sh_load[e], sh_mean[e], switched);
        sequence += sh_sequence[e];
        if (params.has_running_load != 0u) {
            running = fma(running_load[e], sh_mean[e], running);
        }
    }
    switched *= f32(params.experts);
    sequence *= f32(params.experts) / (f32(params.sequence_length * params.experts_per_token) * f32(tokens));
    running *= f32(params.experts);
    metrics[METRIC_SWITCH] = switched;
    metrics[METRIC_Z] = sh_scalar[0];
    metrics[METRIC_ENTROPY] = sh_scalar[1];
    metrics[METRIC_SEQUENCE] = sequence;
    var balance = select(select(switched, running, params.has_running_load != 0u), sequence, params.by_sequence != 0u);
    balance *= f32(params.balances);
    let own = step.balance_coefficient * balance + step.z_coefficient * sh_scalar[0];
    if (params.has_before != 0u) {
        loss[0] = before[0] + own;
    } else {
        loss[0] = own;
    }
}

// Copies f and P of one layer, the first two rows. An invocation owns one of them.
// grid: 2 * experts / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn pool_layer(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < 2u * params.experts) {
        pooled[params.layer * 2u * params.experts + id.x] = saved_metrics[SCALARS + id.x];
    }
}

// The loss over layers. One workgroup; an invocation owns one expert and walks the layers in order.
// grid: 1
@compute @workgroup_size(INVOCATIONS)
fn forward_layers(@builtin(local_invocation_index) local: u32) {
    if (local < params.experts) {
        var f = 0.0;
        var p = 0.0;
        for (var l = 0u; l < params.layers; l++) {
            f += saved_pooled[l * 2u * params.experts + local];
            p += saved_pooled[l * 2u * params.experts + params.experts + local];
        }
        sh_load[local] = f32(params.experts_per_token) * f / f32(params.layers);
        sh_mean[local] = p / f32(params.layers);
        load[local] = sh_load[local] / f32(params.layers);
    }
    workgroupBarrier();
    if (local == 0u) {
        var balance = 0.0;
        for (var e = 0u; e < params.experts; e++) {
            balance = fma(sh_load[e], sh_mean[e], balance);
        }
        loss[0] = step.balance_coefficient * f32(params.experts) * balance;
    }
}

// What a real token's probability of an expert gets, and what its logsumexp gets.
fn d_probability(token: u32, e: u32, tokens: u32) -> f32 {
    let s = select(0u, token / params.sequence_length, params.by_sequence != 0u);
    let scale = d_loss[0] / f32(tokens);
    return scale * step.balance_coefficient * f32(params.experts) * saved_load[s * params.experts + e];
}

fn d_logsumexp_of(token: u32, tokens: u32) -> f32 {
    return d_loss[0] / f32(tokens) * step.z_coefficient * 2.0 * logsumexp[token];
}

// d_probabilities and d_logsumexp. An invocation owns one element of the former; that of a token's first expert, its logsumexp, too.
// grid: len(d_probabilities) / INVOCATIONS
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
    let tokens = real_of(params.tokens);
    let token = i / params.experts;
    let e = i % params.experts;
    if (token >= tokens) {
        d_probabilities[i] = 0.0;
    } else {
        d_probabilities[i] = d_probability(token, e, tokens);
    }
    if (e == 0u && token >= tokens) {
        d_logsumexp[token] = 0.0;
    } else if (e == 0u) {
        d_logsumexp[token] = d_logsumexp_of(token, tokens);
    }
}

// d_probabilities alone. An invocation owns one element.
// grid: len(d_probabilities) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_balance(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.tokens * params.experts) {
        return;
    }
    let tokens = real_of(params.tokens);
    if (i >= tokens * params.experts) {
        d_probabilities[i] = 0.0;
        return;
    }
    d_probabilities[i] = d_probability(i / params.experts, i % params.experts, tokens);
}

// d_logsumexp alone. An invocation owns one token.
// grid: tokens / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_z(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.tokens) {
        return;
    }
    let tokens = real_of(params.tokens);
    if (id.x >= tokens) {
        d_logsumexp[id.x] = 0.0;
        return;
    }
    d_logsumexp[id.x] = d_logsumexp_of(id.x, tokens);
}
