// A tile of rows for kernels that work on four elements at a time: a workgroup owns 16 groups of four columns of 16 rows, an
// invocation every fourth row of one group.

const TILE_WIDTH = 64u;   // columns of a workgroup
const TILE_ROWS = 16u;    // rows of a workgroup
const COLUMNS = 16u;      // groups of four columns
const ROWS = 4u;
const REPEATS = 4u;       // rows of an invocation, ROWS apart

// (group of columns, row) of an invocation's `repeat`-th row.
fn place(workgroup: vec3<u32>, local: vec3<u32>, repeat: u32) -> vec2<u32> {
    return workgroup.xy * vec2<u32>(COLUMNS, TILE_ROWS) + local.xy + vec2<u32>(0u, repeat * ROWS);
}
