// Rotary positions: which channel turns with which. Pair i of the leading `rotated` channels is (2 i, 2 i + 1) when
// interleaved, (i, i + rotated / 2) when half-split; a pair (a, b) turns to (a cos - b sin, b cos + a sin).

// A channel's part in its pair: x' = x cos + sign x[partner] sin.
struct Pairing {
    pair: u32,
    partner: u32, // channel
    sign: f32,
}

fn pairing(channel: u32, rotated: u32, half_split: bool) -> Pairing {
    let half = rotated / 2u;
    let first = select(channel % 2u == 0u, channel < half, half_split);
    let pair = select(channel / 2u, channel % half, half_split);
    let distance = select(1u, half, half_split);
    return Pairing(pair, select(channel - distance, channel + distance, first), select(1.0, -1.0, first));
}

// Four channels' rotation: x' = x cosine + partners sine. The partners are another texel, or this one as yxwz.
struct TexelTurn {
    cosine: vec4<f32>,
    sine: vec4<f32>,
    partner: u32, // texel of the head
    swaps: bool,
}

fn angle_texel(angles: texture_2d<f32>, index: u32) -> vec4<f32> {
    return textureLoad(angles, vec2<u32>(index % 16u, index / 16u), 0);
}

// Of a texel that does not turn.
fn still(c: u32) -> TexelTurn {
    return TexelTurn(vec4<f32>(1.0), vec4<f32>(0.0), c, false);
}

// Of texel c, whose channels are each other's partners; `angle` is (cos, sin, cos, sin) of its two pairs.
fn interleaved_turn(angle: vec4<f32>, c: u32) -> TexelTurn {
    return TexelTurn(angle.xxzz, angle.yyww * vec4<f32>(-1.0, 1.0, -1.0, 1.0), c, true);
}

// Of texel c, whose partners are `half` texels away; a and b are the angles of its four pairs.
fn split_turn(a: vec4<f32>, b: vec4<f32>, c: u32, half: u32) -> TexelTurn {
    let is_first = c < half;
    let sign = select(1.0, -1.0, is_first);
    return TexelTurn(vec4<f32>(a.xz, b.xz), sign * vec4<f32>(a.yw, b.yw), select(c - half, c + half, is_first), false);
}

// Of texel c of a head whose `rotated` leading texels turn. The table of angles is flat, in rows of 16 texels, of which
// each is (cos, sin, cos, sin) of two neighbouring pairs; `first` is that of the position.
fn texel_turn(angles: texture_2d<f32>, first: u32, c: u32, rotated: u32, half_split: bool) -> TexelTurn {
    if (c >= rotated) {
        return still(c);
    }
    if (!half_split) {
        return interleaved_turn(angle_texel(angles, first + c), c);
    }
    let half = rotated / 2u;
    let pair = first + 2u * select(c - half, c, c < half);
    return split_turn(angle_texel(angles, pair), angle_texel(angles, pair + 1u), c, half);
}

// The four partners, given the texel that holds them.
fn partners(other: vec4<f32>, turn: TexelTurn) -> vec4<f32> {
    return select(other, other.yxwz, turn.swaps);
}
