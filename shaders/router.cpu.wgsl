// The matrix products of the router: as forward, backward and backward_weight of router.wgsl, with x, w, d_residual and
// d_logits (rows of 64, zero beyond E up to a multiple of 4) read through their images.
//
// requires: images
// rank: 10

import package::router::params;

@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(2) var w: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;
@group(0) @binding(4) var saved_d_logits: texture_2d<f32>;
@group(0) @binding(5) var d_residual: texture_2d<f32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> d_w: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> bias: array<f32>;

const LANES = 8u;

fn texels() -> u32 {
    return params.width / 4u;
}

// An invocation owns the logits of four tokens and four experts. Beyond the last it repeats the last and stores nothing.
// grid: tokens / (4 * LANES), experts / 4
@compute @workgroup_size(LANES)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let token = id.x * 4u;
    let expert = id.y * 4u;
    if (token >= params.tokens) {
        return;
    }
    var sum = array<vec4<f32>, 16>();
    for (var t = 0u; t < texels(); t++) {
        var weight = array<vec4<f32>, 4>();
        @unroll for (var e = 0u; e < 4u; e++) {
            weight[e] = textureLoad(w, vec2<u32>(t, min(expert + e, params.experts - 1u)), 0);
        }
        @unroll for (var n = 0u; n < 4u; n++) {
            let value = textureLoad(x, vec2<u32>(t, min(token + n, params.tokens - 1u)), 0);
            @unroll for (var e = 0u; e < 4u; e++) {
                sum[4u * n + e] = fma(value, weight[e], sum[4u * n + e]);
            }
        }
    }
    @unroll for (var n = 0u; n < 4u; n++) {
        @unroll for (var e = 0u; e < 4u; e++) {
            if (token + n < params.tokens && expert + e < params.experts) {
                var logit = dot(sum[4u * n + e], vec4<f32>(1.0));
                if (params.has_bias != 0u) {
                    logit += bias[expert + e];
                }
                logits[(token + n) * params.experts + expert + e] = logit;
            }
        }
    }
}

// d_x. An invocation owns four texels of four tokens.
// grid: width / (16 * LANES), tokens / 4
@compute @workgroup_size(LANES)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let texel = id.x * 4u;
    let token = id.y * 4u;
    if (texel >= texels()) {
        return;
    }
    var sum = array<vec4<f32>, 16>();
    for (var e = 0u; e < params.experts; e += 4u) {
        var d = array<vec4<f32>, 4>();
        @unroll for (var n = 0u; n < 4u; n++) {
            d[n] = textureLoad(saved_d_logits, vec2<u32>(e / 4u, min(token + n, params.tokens - 1u)), 0);
        }
        @unroll for (var c = 0u; c < 4u; c++) {
            let row = min(e + c, params.experts - 1u);
            @unroll for (var q = 0u; q < 4u; q++) {
                let weight = textureLoad(w, vec2<u32>(texel + q, row), 0);
                @unroll for (var n = 0u; n < 4u; n++) {
                    sum[4u * n + q] = fma(vec4<f32>(d[n][c]), weight, sum[4u * n + q]);
                }
            }
        }
    }
    @unroll for (var n = 0u; n < 4u; n++) {
        if (token + n < params.tokens) {
            @unroll for (var q = 0u; q < 4u; q++) {
                var value = sum[4u * n + q];
                if (params.has_d_residual != 0u) {
                    value += textureLoad(d_residual, vec2<u32>(texel + q, token + n), 0);
                }
                d_x[(token + n) * texels() + texel + q] = value;
            }
        }
    }
}

// d_w. An invocation owns one texel of four experts and walks the tokens in order.
// grid: width / (4 * LANES), experts / 4
@compute @workgroup_size(LANES)
fn backward_weight(@builtin(global_invocation_id) id: vec3<u32>) {
    let expert = id.y * 4u;
    if (id.x >= texels()) {
        return;
    }
    var sum = array<vec4<f32>, 4>();
    for (var n = 0u; n < params.tokens; n++) {
        let value = textureLoad(x, vec2<u32>(id.x, n), 0);
        let d = textureLoad(saved_d_logits, vec2<u32>(id.y, n), 0);
        @unroll for (var e = 0u; e < 4u; e++) {
            sum[e] = fma(vec4<f32>(d[e]), value, sum[e]);
        }
    }
    @unroll for (var e = 0u; e < 4u; e++) {
        if (expert + e < params.experts) {
            d_w[(expert + e) * texels() + id.x] += sum[e];
        }
    }
}
