// Cooperative matrices of CPU rasterisers (lavapipe of Mesa 26): tiles of 32x32.
//
// requires: f16, subgroups 8, matrices 8x8x8
// rank: 4

const SIDE = 8u;         // rows, columns and depth of a cooperative matrix
const SUBGROUP = 8u;     // invocations of a subgroup
const GRID_ROWS = 2u;     // subgroups along the rows of a workgroup's tile
const GRID_COLUMNS = 2u;
const SPAN_ROWS = 2u;     // cooperative matrices along the rows of a subgroup's part of it
const SPAN_COLUMNS = 2u;
const SPAN = 4u;
const TILE_ROWS = 32u;
const TILE_COLUMNS = 32u;
const TILE_DEPTH = 32u;    // of k staged at a time
const STEPS = 4u;         // cooperative matrices along the depth of a staged tile
const COOP_LANES = 32u;   // invocations of a workgroup
const LOADS_A = 4u;       // times eight f16 that an invocation stages of a at a time
const LOADS_B = 4u;
const BUFFERS = 2u;       // staged tiles of each operand: with two, one is read while the other is written
const STAGE_A = 1280u;    // f16 of a staged tile of a
const STAGE_B = 1280u;
const LEAST_TILES = 0u;   // tiles of y below which a smaller tile keeps more of the adapter busy
alias MatA = coop_mat8x8<f16, A>;
alias MatB = coop_mat8x8<f16, B>;
alias MatC = coop_mat8x8<f32, C>;

var<workgroup> sh_a: array<vec4<f16>, 640>;
var<workgroup> sh_b: array<vec4<f16>, 640>;
var<workgroup> sh_patch: array<f32, 256>; // a cooperative matrix of each subgroup
