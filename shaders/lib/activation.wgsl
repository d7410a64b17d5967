// Activation functions and their derivatives. `kind` is a pipeline constant, so a pipeline holds one function only:
//   silu: x sigmoid(x)      gelu: x Phi(x), Phi the normal distribution function (exact, by erf)
//   gelu_tanh: x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), the usual tanh form rewritten      relu_squared: max(x, 0)^2
//   relu: max(x, 0)      sigmoid: 1 / (1 + exp(-x)), of a gate

override kind: u32 = 0u;

const SILU = 0u;
const GELU = 1u;
const GELU_TANH = 2u;
const RELU_SQUARED = 3u;
const RELU = 4u;
const SIGMOID = 5u;

const GELU_TANH_SLOPE = 1.5957691216057308; // 2 sqrt(2/pi)
const GELU_TANH_CUBIC = 0.044715;

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp(min(-x, vec4<f32>(80.0)))); // exp(80) is finite
}

// erf(x) = sign(x) (1 - exp(-|x| R(|x|))), R a degree-7 weighted minimax fit of -ln(erfc(a)) / a on [0, 4], made for
// this file; absolute error in f32 below 1e-7. Beyond 4 erf is 1 in f32.
fn erf(x: vec4<f32>) -> vec4<f32> {
    let a = min(abs(x), vec4<f32>(4.0));
    var r = fma(vec4<f32>(3.14385252e-05), a, vec4<f32>(-0.000308788236));
    r = fma(r, a, vec4<f32>(0.00103235524));
    r = fma(r, a, vec4<f32>(0.000537010725));
    r = fma(r, a, vec4<f32>(-0.0195840281));
    r = fma(r, a, vec4<f32>(0.102919646));
    r = fma(r, a, vec4<f32>(0.636597753));
    r = fma(r, a, vec4<f32>(1.1283803));
    return sign(x) * (1.0 - exp(-a * r));
}

fn normal_cdf(x: vec4<f32>) -> vec4<f32> {
    return 0.5 + 0.5 * erf(x * 0.7071067811865476);
}

fn gelu_tanh_argument(x: vec4<f32>) -> vec4<f32> {
    return GELU_TANH_SLOPE * (x + GELU_TANH_CUBIC * x * x * x);
}

fn activate(x: vec4<f32>) -> vec4<f32> {
    if (kind == SILU) {
        return x * sigmoid(x);
    } else if (kind == GELU) {
        return x * normal_cdf(x);
    } else if (kind == GELU_TANH) {
        return x * sigmoid(gelu_tanh_argument(x));
    } else if (kind == RELU) {
        return max(x, vec4<f32>(0.0));
    } else if (kind == SIGMOID) {
        return sigmoid(x);
    }
    let positive = max(x, vec4<f32>(0.0));
    return positive * positive;
}

// d activate(x) / d x
fn activate_slope(x: vec4<f32>) -> vec4<f32> {
    if (kind == SILU) {
        let s = sigmoid(x);
        return s * (1.0 + x * (1.0 - s));
    } else if (kind == GELU) {
        return normal_cdf(x) + x * (0.3989422804014327 * exp(-0.5 * x * x));
    } else if (kind == GELU_TANH) {
        let s = sigmoid(gelu_tanh_argument(x));
        return s * (1.0 + x * (1.0 - s) * (GELU_TANH_SLOPE * (1.0 + 3.0 * GELU_TANH_CUBIC * x * x)));
    } else if (kind == RELU) {
        return select(vec4<f32>(0.0), vec4<f32>(1.0), x > vec4<f32>(0.0));
    } else if (kind == SIGMOID) {
        let s = sigmoid(x);
        return s * (1.0 - s);
    }
    return 2.0 * max(x, vec4<f32>(0.0));
}
