//! Element-wise ops against their twins, below, at and beyond one workgroup, with and without images.

use crate::harness::{Array, Input, check};

fn map(a: &Array, f: impl Fn(f64) -> f64) -> Array {
    Array::new(a.shape.clone(), a.data.iter().map(|v| f(*v)).collect())
}

pub fn sum(a: &Array, b: &Array) -> Array {
    Array::new(a.shape.clone(), a.data.iter().zip(&b.data).map(|(a, b)| a + b).collect())
}

const SHAPES: [[u32; 2]; 6] = [[1, 1], [3, 23], [1, 64], [17, 64], [33, 192], [131, 5]];

#[test]
fn add_follows_the_twin() {
    for shape in SHAPES {
        let inputs = [Input::normal("a", shape), Input::normal("b", shape)];
        check(&format!("add {shape:?}"), &inputs, |g, t| vec![g.add(t[0], t[1])], |a| vec![sum(&a[0], &a[1])]);
    }
}

#[test]
fn scale_follows_the_twin() {
    for shape in SHAPES {
        let inputs = [Input::normal("a", shape)];
        check(&format!("scale {shape:?}"), &inputs, |g, t| vec![g.scale(t[0], -1.75)], |a| vec![map(&a[0], |v| -1.75 * v)]);
    }
}

#[test]
fn gradients_of_a_fan_out_meet() {
    for shape in SHAPES {
        check(
            &format!("x + x + 3 x {shape:?}"),
            &[Input::normal("x", shape)],
            |g, t| {
                let twice = g.add(t[0], t[0]);
                let thrice = g.scale(t[0], 3.0);
                vec![g.add(twice, thrice)]
            },
            |a| vec![map(&a[0], |v| 5.0 * v)],
        );
    }
}

#[test]
fn only_what_wants_a_gradient_gets_one() {
    let mut g = moelab::ops::Graph::new(moelab::gpu::Capabilities::PORTABLE);
    let a = g.leaf("a", [4]);
    let b = g.input("b", [4], moelab::gpu::DType::F32);
    let y = g.add(a, b);
    let d_y = g.input("d_y", [4], moelab::gpu::DType::F32);
    g.backward_from(&[(y, d_y)]);
    assert_eq!((g.grad(a), g.grad(b)), (Some(d_y), None));
}
