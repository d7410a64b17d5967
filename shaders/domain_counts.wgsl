// Assignments by domain and expert: counts_{c,e} = number of (n, k) with domain_n = c and expert_{n,k} = e. Tokens that only fill
// the micro-batch up, and those of no domain (C or more), are not counted.

import package::lib::step::real_of;

struct Params {
    tokens: u32, // of the micro-batch, those that fill it up included
    experts_per_token: u32,
    experts: u32,
    domains: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> expert: array<u32>;
@group(0) @binding(2) var<storage, read> domain: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<f32>; // [C, E]; exact below 2^24

const INVOCATIONS = 64u;

var<workgroup> sh_count: array<u32, INVOCATIONS>;

// A workgroup owns one count, an invocation every 64th token; their sums meet in a tree.
// grid: domains * experts
@compute @workgroup_size(INVOCATIONS)
fn count(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let owned_domain = workgroup.x / params.experts;
    let owned = workgroup.x % params.experts;
    var total = 0u;
    for (var n = local; n < real_of(params.tokens); n += INVOCATIONS) {
        if (domain[n] == owned_domain) {
            for (var k = 0u; k < params.experts_per_token; k++) {
                total += u32(expert[n * params.experts_per_token + k] == owned);
            }
        }
    }
    sh_count[local] = total;
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_count[local] += sh_count[local + half];
        }
        workgroupBarrier();
    }
    if (local == 0u) {
        counts[workgroup.x] = f32(sh_count[0]);
    }
}
