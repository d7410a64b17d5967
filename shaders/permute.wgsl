// Permutation of the A = N K assignments (a = n K + k) into the experts' order, a stable counting sort:
//   offsets_e = number of assignments to experts below e        slot_of_a = offsets_e + rank of a among those of e = expert_a
//   assignment_of_{slot_of_a} = a
// Tokens that only fill the micro-batch up all go to the last expert, whatever they chose: they come last, and no other token's slot
// depends on them.
// Blocks of consecutive assignments are counted, then scattered; every workgroup adds up the counts before its own blocks by itself, which
// takes less than a launch between the two. Each (block, expert) pair is owned by one invocation that walks the block in order, so no
// slot is handed out by a race.

import package::lib::step::real_of;

struct Params {
    assignments: u32,
    experts: u32,
    experts_per_token: u32,
    block: u32,  // assignments a block
    blocks: u32, // ceil(A / block)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> expert: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;      // [blocks, E]
@group(0) @binding(3) var<storage, read> saved_counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> offsets: array<u32>;     // [E + 1]
@group(0) @binding(5) var<storage, read_write> slot_of: array<u32>;     // [A]
@group(0) @binding(6) var<storage, read_write> assignment_of: array<u32>; // [A]

const INVOCATIONS = 64u; // no fewer than experts

var<workgroup> sh_earlier: array<u32, INVOCATIONS>; // counts of each segment and expert before the workgroup's first block
var<workgroup> sh_all: array<u32, INVOCATIONS>;     // of all blocks
var<workgroup> sh_total: array<u32, INVOCATIONS>;   // assignments to each expert

fn real_assignments() -> u32 {
    return real_of(params.assignments / params.experts_per_token) * params.experts_per_token;
}

fn expert_of(a: u32, real: u32) -> u32 {
    return select(params.experts - 1u, expert[a], a < real);
}

// An invocation owns one (block, expert) pair.
// grid: blocks * experts / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn count(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.blocks * params.experts) {
        return;
    }
    let owned = id.x % params.experts;
    let first = id.x / params.experts * params.block;
    let end = min(first + params.block, params.assignments);
    let real = real_assignments();
    var total = 0u;
    for (var a = first; a < end; a++) {
        total += u32(expert_of(a, real) == owned);
    }
    counts[id.x] = total;
}

// The first slot of each (block, expert) pair that an invocation of the workgroup owns. The blocks are cut into as many segments as there
// are invocations for each expert; an invocation counts those of one segment and one expert.
fn first_slot(workgroup: u32, local: u32) -> u32 {
    let experts = params.experts;
    let first_block = workgroup * INVOCATIONS / experts;
    let segments = INVOCATIONS / experts;
    let segment = local / experts;
    let counted = local % experts;
    let length = (params.blocks + segments - 1u) / segments;
    let first = min(segment * length, params.blocks);
    let end = select(first, min(first + length, params.blocks), segment < segments);
    var all = 0u;
    var earlier = 0u;
    for (var b = first; b < end; b++) {
        let count = saved_counts[b * experts + counted];
        all += count;
        earlier += select(0u, count, b < first_block);
    }
    sh_all[local] = all;
    sh_earlier[local] = earlier;
    workgroupBarrier();
    if (local < experts) {
        var total = 0u;
        for (var s = 0u; s < segments; s++) {
            total += sh_all[s * experts + local];
        }
        sh_total[local] = total;
    }
    workgroupBarrier();
    let pair = workgroup * INVOCATIONS + local;
    let owned = pair % experts;
    var slot = 0u;
    for (var e = 0u; e < owned; e++) {
        slot += sh_total[e];
    }
    for (var s = 0u; s < segments; s++) {
        slot += sh_earlier[s * experts + owned];
    }
    for (var b = first_block; b < min(pair / experts, params.blocks); b++) {
        slot += saved_counts[b * experts + owned];
    }
    return slot;
}

// An invocation owns one (block, expert) pair and hands out its slots in the order of the assignments. The first E also own an offset.
// grid: blocks * experts / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn scatter(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let pair = workgroup.x * INVOCATIONS + local;
    var slot = first_slot(workgroup.x, local);
    if (pair >= params.blocks * params.experts) {
        return;
    }
    let owned = pair % params.experts;
    if (pair < params.experts) {
        offsets[pair] = slot; // Of the first block.
        if (pair == params.experts - 1u) {
            offsets[params.experts] = slot + sh_total[pair];
        }
    }
    let first = pair / params.experts * params.block;
    let end = min(first + params.block, params.assignments);
    let real = real_assignments();
    for (var a = first; a < end; a++) {
        if (expert_of(a, real) == owned) {
            slot_of[a] = slot;
            assignment_of[slot] = a;
            slot++;
        }
    }
}
