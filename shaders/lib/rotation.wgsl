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
