// Four elements of a tensor at a time, tensors being buffers: any width. What lies beyond the end is 0, and is not stored.
//
// `operand` and `result` stand for bindings of these types: `x: Operand` gives load_x, load_x_of and load_x_from, and
// `y: Result` gives store_y, store_y_of and store_y_from. `at` is (a group of four columns, row) of rows of `width` elements.

alias Operand = array<f32>;
alias Result = array<f32>;
const WHOLE_GROUPS = false; // whether every row is whole groups of four

// Of the elements from `first` on, `count` are there.
fn load_operand_from(first: u32, count: u32) -> vec4<f32> {
    var value = vec4<f32>();
    @unroll for (var c = 0u; c < 4u; c++) {
        if (c < count) {
            value[c] = operand[first + c];
        }
    }
    return value;
}

// Within a row.
fn load_operand(at: vec2<u32>, width: u32) -> vec4<f32> {
    return load_operand_from(at.y * width + 4u * at.x, width - 4u * at.x);
}

// Of n elements in rows of a multiple of four, of which the last may be short.
fn load_operand_of(at: vec2<u32>, width: u32, n: u32) -> vec4<f32> {
    return load_operand_from(at.y * width + 4u * at.x, n - at.y * width - 4u * at.x);
}

fn store_result_from(first: u32, count: u32, value: vec4<f32>) {
    @unroll for (var c = 0u; c < 4u; c++) {
        if (c < count) {
            result[first + c] = value[c];
        }
    }
}

fn store_result(at: vec2<u32>, width: u32, value: vec4<f32>) {
    store_result_from(at.y * width + 4u * at.x, width - 4u * at.x, value);
}

fn store_result_of(at: vec2<u32>, width: u32, n: u32, value: vec4<f32>) {
    store_result_from(at.y * width + 4u * at.x, n - at.y * width - 4u * at.x, value);
}

// Adds to what is there.
fn add_to_result(at: vec2<u32>, width: u32, value: vec4<f32>) {
    @unroll for (var c = 0u; c < 4u; c++) {
        if (4u * at.x + c < width) {
            result[at.y * width + 4u * at.x + c] += value[c];
        }
    }
}
