//! Images as read-only storage textures.
//!
//! llvmpipe compiles a read of a sampled texture into code that computes the size and the offset of a mip level for each lane, although
//! there is one level; of a read of a storage texture, half of that is left. Products of matrices take a fifth less time, attention as
//! well, with the same bits (Mesa 22.3.6 and 26.1.6). On SwiftShader storage textures are slower than sampled ones.

const LOAD: &str = "textureLoad(";

/// A module whose sampled textures are storage textures: these have no levels. `source` is the build script's, so every read names level 0.
///
/// # Panics
/// If a read does not.
pub fn with_storage_images(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find(LOAD) {
        let (before, call) = rest.split_at(at + LOAD.len());
        let mut depth = 1;
        let is_end = |c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        };
        let (arguments, after) = call.split_at(call.find(is_end).unwrap_or(call.len()));
        let (place, level) = arguments.rsplit_once(',').unwrap_or((arguments, ""));
        assert_eq!(level.trim(), "0", "textureLoad({arguments}");
        text += before;
        text += place;
        rest = after;
    }
    text += rest;
    text.replace("texture_2d<f32>", "texture_storage_2d<rgba32float, read>")
}
