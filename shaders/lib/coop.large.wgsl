// NVIDIA, tiles of 128x256: the fastest where there are enough of them.
//
// requires: f16, subgroups 32, matrices 16x16x16, workgroup_bytes 45072
// rank: 3

const SIDE = 16u;         // rows, columns and depth of a cooperative matrix
const SUBGROUP = 32u;     // invocations of a subgroup
const GRID_ROWS = 2u;     // subgroups along the rows of a workgroup's tile
const GRID_COLUMNS = 4u;
const SPAN_ROWS = 4u;     // cooperative matrices along the rows of a subgroup's part of it
const SPAN_COLUMNS = 4u;
const SPAN = 16u;
const TILE_ROWS = 128u;
const TILE_COLUMNS = 256u;
const TILE_DEPTH = 16u;    // of k staged at a time
const STEPS = 1u;         // cooperative matrices along the depth of a staged tile
const COOP_LANES = 256u;   // invocations of a workgroup
const LOADS_A = 1u;       // times eight f16 that an invocation stages of a at a time
const LOADS_B = 2u;
const BUFFERS = 2u;       // staged tiles of each operand: with two, one is read while the other is written
const STAGE_A = 3072u;    // f16 of a staged tile of a
const STAGE_B = 6144u;
const LEAST_TILES = 132u; // tiles of y below which a smaller tile keeps more of the adapter busy
alias MatA = coop_mat16x16<f16, A>;
alias MatB = coop_mat16x16<f16, B>;
alias MatC = coop_mat16x16<f32, C>;

var<workgroup> sh_a: array<vec4<f16>, 1536>;
var<workgroup> sh_b: array<vec4<f16>, 3072>;
var<workgroup> sh_patch: array<f32, 2048>; // a cooperative matrix of each subgroup
