//! Size limits of the kernels. Configs are checked against them without a device; the ops rely on them.

/// Maximum experts per layer: the router's kernels keep a token's logits in registers.
pub const MAX_EXPERTS: u32 = 64;
/// Maximum experts per token: the kernels keep their gate weights in registers.
pub const MAX_EXPERTS_PER_TOKEN: u32 = 16;

/// Maximum bytes of one chunk's logits: 512 rows at V = 49,152, below the 128 MiB that browsers can bind.
const MAX_LOGITS_BYTES: u64 = 96 << 20;
/// Maximum rows of a chunk, so that small vocabularies fit a texture as well.
const MAX_CHUNK_ROWS: u64 = 8192;
/// Rows of a matmul tile; chunks consist of whole tiles if possible.
pub const TILE_ROWS: u64 = 64;

/// Rows of logits [rows, V] that the loss head processes at a time.
pub fn rows_per_chunk(vocabulary: u32) -> u32 {
    let rows = (MAX_LOGITS_BYTES / (4 * u64::from(vocabulary))).clamp(1, MAX_CHUNK_ROWS);
    let whole_tiles = if rows < TILE_ROWS { rows } else { rows / TILE_ROWS * TILE_ROWS };
    whole_tiles as u32
}
