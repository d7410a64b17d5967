// Permutation of the A = N K assignments (a = n K + k) into the experts' order, a stable counting sort:
//   offsets_e = number of assignments to experts below e        slot_of_a = offsets_e + rank of a among those of e = expert_a
//   assignment_of_{slot_of_a} = a
// Tokens that only fill the micro-batch up all go to the last expert, whatever they chose: they come last, and no other token's slot
// depends on them.
// Blocks of consecutive assignments are counted, the counts scanned, the blocks scattered. Each (block, expert) pair is
// owned by one invocation that walks the block in order, so no slot is handed out by a race.

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
@group(0) @binding(4) var<storage, read_write> starts: array<u32>;      // [blocks, E], first slot of the pair
@group(0) @binding(5) var<storage, read> saved_starts: array<u32>;
@group(0) @binding(6) var<storage, read_write> offsets: array<u32>;     // [E + 1]
@group(0) @binding(7) var<storage, read_write> slot_of: array<u32>;     // [A]
@group(0) @binding(8) var<storage, read_write> assignment_of: array<u32>; // [A]

const INVOCATIONS = 64u;
const MAX_EXPERTS = 64u;

const SCANNERS = 256u; // invocations of scan

var<workgroup> sh_total: array<u32, MAX_EXPERTS>;
var<workgroup> sh_count: array<u32, SCANNERS>; // of each segment and expert

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

// One workgroup. The blocks are cut into as many segments as there are invocations for each expert; an invocation walks those of one
// segment and one expert in order, to count them and again to number them.
// grid: 1
@compute @workgroup_size(SCANNERS)
fn scan(@builtin(local_invocation_index) local: u32) {
    let experts = params.experts;
    let segments = SCANNERS / experts;
    let owned = local % experts;
    let segment = local / experts;
    let length = (params.blocks + segments - 1u) / segments;
    let first = min(segment * length, params.blocks);
    let end = select(first, min(first + length, params.blocks), segment < segments);
    var count = 0u;
    for (var b = first; b < end; b++) {
        count += saved_counts[b * experts + owned];
    }
    sh_count[local] = count;
    workgroupBarrier();
    if (local < experts) {
        var total = 0u;
        for (var s = 0u; s < segments; s++) {
            total += sh_count[s * experts + local];
        }
        sh_total[local] = total;
    }
    workgroupBarrier();
    var start = 0u;
    for (var e = 0u; e < owned; e++) {
        start += sh_total[e];
    }
    if (local < experts) {
        offsets[local] = start;
        if (local == experts - 1u) {
            offsets[experts] = start + sh_total[local];
        }
    }
    for (var s = 0u; s < min(segment, segments); s++) {
        start += sh_count[s * experts + owned];
    }
    for (var b = first; b < end; b++) {
        starts[b * experts + owned] = start;
        start += saved_counts[b * experts + owned];
    }
}

// An invocation owns one (block, expert) pair and hands out its slots in the order of the assignments.
// grid: blocks * experts / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn scatter(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.blocks * params.experts) {
        return;
    }
    let owned = id.x % params.experts;
    let first = id.x / params.experts * params.block;
    let end = min(first + params.block, params.assignments);
    let real = real_assignments();
    var slot = saved_starts[id.x];
    for (var a = first; a < end; a++) {
        if (expert_of(a, real) == owned) {
            slot_of[a] = slot;
            assignment_of[slot] = a;
            slot++;
        }
    }
}
