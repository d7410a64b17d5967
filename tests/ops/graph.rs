//! What the graph itself promises: a detached tensor hands no gradient back, and what a micro-batch stores is what the
//! next one reads.

use moelab::{
    gpu::{Capabilities, DType, Role, Segment, Step, Tensor},
    ops::{Form, Graph},
};

use crate::{
    elementwise::sum,
    harness::{Array, Fixture, Input, check, device, tiers},
    rms_norm,
};

fn scaled(x: &Array, factor: f64) -> Array {
    Array::new(x.shape.clone(), x.data.iter().map(|v| factor * v).collect())
}

#[test]
fn a_detached_term_is_a_constant() {
    for shape in [[1, 1], [7, 5], [9, 64]] {
        let x = Input::normal("x", shape);
        let frozen = scaled(&x.array(), 3.0);
        check(
            &format!("x + detach(3 x) {shape:?}"),
            &[x],
            |g, t| {
                let thrice = g.scale(t[0], 3.0);
                let constant = g.detach(thrice).reshape(shape);
                vec![g.add(t[0], constant)]
            },
            |a| vec![sum(&a[0], &frozen)],
        );
    }
}

/// The norm's backward adds what `x` has been handed to its own gradient; here it must leave that alone.
#[test]
fn a_detached_operand_leaves_the_gradient_of_its_source_alone() {
    for shape in [[7, 5], [9, 64]] {
        let inputs = [Input::normal("x", shape), Input::normal("w", [shape[1]]).param()];
        let frozen = inputs[0].array();
        check(
            &format!("x + rms_norm(detach(x)) {shape:?}"),
            &inputs,
            |g, t| {
                let constant = g.detach(t[0]);
                let y = g.rms_norm(constant, t[1], 1e-3);
                vec![g.add(t[0], y)]
            },
            |a| vec![sum(&a[0], &rms_norm::twin(&frozen, &a[1], 1e-3))],
        );
    }
}

#[test]
fn nothing_is_recorded_for_what_is_detached() {
    let mut g = Graph::new(Capabilities::PORTABLE);
    let x = g.leaf("x", [4]);
    let hidden = g.scale(x, 3.0);
    let constant = g.detach(hidden);
    let y = g.add(constant, constant);
    assert_eq!((g.wants_grad(hidden), g.wants_grad(constant), g.wants_grad(y)), (true, false, false));
    let y = g.add(x, y);
    let d_y = g.input("d_y", [4], DType::F32);
    let forward = g.program().micro.len();
    g.backward_from(&[(y, d_y)]);
    assert_eq!((g.grad(x), g.grad(hidden), g.grad(constant)), (Some(d_y), None, None));
    assert_eq!(g.program().micro.len(), forward);
}

#[test]
#[should_panic(expected = "w is a parameter")]
fn a_parameter_is_not_detached() {
    let mut g = Graph::new(Capabilities::PORTABLE);
    let w = g.param("w", [4]);
    g.detach(w);
}

/// A program that reads the carried z [N, D] and leaves x there: y = z + 2 x, p = z W^T with its gradient d_W = d_p^T z.
/// The store is recorded first of all.
struct Carry<'a> {
    fixture: Fixture<'a>,
    shape: [u32; 2],
}

impl<'a> Carry<'a> {
    fn new(device: &'a moelab::gpu::Device, tier: Capabilities, shape: [u32; 2]) -> Carry<'a> {
        let mut g = Graph::new(tier);
        let (x, w) = (g.leaf("x", shape), g.param("w", [shape[1], shape[1]]));
        let z = g.carried("z", shape);
        g.store(z, x);
        let twice = g.scale(x, 2.0);
        let y = g.add(z, twice);
        let p = g.linear(z, w);
        let seeds = [y, p].map(|t| (t, g.input(&format!("d_{}", t.id.0), shape, DType::F32)));
        g.backward_from(&seeds);
        assert!(!g.wants_grad(z) && g.grad(z).is_none());
        assert_eq!(g.program().find("z").map(|id| g.program().tensor(id).role), Some(Role::State));
        g.output("y", y);
        g.output("p", p);
        let names = seeds.map(|(t, _)| format!("d_{}", t.id.0));
        let inputs = names.map(|name| Input::values(&name, shape, vec![1.0; (shape[0] * shape[1]) as usize]));
        Carry { fixture: Fixture::new(device, g.finish(), &inputs), shape }
    }

    fn write(&mut self, x: f32) {
        let [rows, width] = self.shape;
        self.fixture.write(&Input::values("x", self.shape, vec![x; (rows * width) as usize]));
    }

    /// z as the program's sum, its product and its gradient saw it; W is all ones.
    fn seen(&self, x: f32) -> [f32; 3] {
        let one = |name: &str| {
            let values = self.fixture.read_named(name);
            assert!(values.iter().all(|v| *v == values[0]), "{name}: {values:?}");
            values[0]
        };
        let [rows, width] = self.shape.map(|d| d as f32);
        [one("y") - 2.0 * x, one("p") / width, one("d_w") / rows]
    }
}

#[test]
fn a_micro_batch_reads_what_the_previous_one_stored() {
    let device = device();
    for tier in tiers(&device) {
        for shape in [[1, 1], [3, 5], [16, 64], [67, 128]] {
            let mut carry = Carry::new(&device, tier, shape);
            carry.fixture.write(&Input::values("w", [shape[1], shape[1]], vec![1.0; (shape[1] * shape[1]) as usize]).param());
            let micro = [Segment::ClearGradients, Segment::Micro];
            for (x, wanted) in [(5.0, 0.0), (7.0, 5.0), (-1.0, 7.0)] {
                carry.write(x);
                carry.fixture.run(&Step::default(), &micro);
                assert_eq!(carry.seen(x), [wanted; 3], "{tier:?} {shape:?}");
                assert_eq!(carry.fixture.read_named("z")[0], x);
            }
            // Two micro-batches of one submission.
            carry.write(9.0);
            carry.fixture.run(&Step::default(), &[micro, micro].concat());
            assert_eq!(carry.seen(9.0), [9.0; 3], "{tier:?} {shape:?}");
        }
    }
}

/// Storing an activation keeps its slot to the end, past every tensor that could take it over.
#[test]
fn a_stored_activation_outlives_the_backward() {
    let device = device();
    for tier in tiers(&device) {
        let mut g = Graph::new(tier);
        let x = g.leaf("x", [9, 64]);
        let z = g.carried("z", [9, 64]);
        let next = g.scale(z, 0.5);
        let next = g.add(next, x);
        g.store(z, next);
        let mut y = next;
        for _ in 0..4 {
            y = g.scale(y, -3.0);
        }
        g.output("y", y);
        let mut fixture = Fixture::new(&device, g.finish(), &[Input::values("x", [9, 64], vec![8.0; 9 * 64])]);
        for wanted in [8.0, 12.0, 14.0, 15.0] {
            fixture.run(&Step::default(), &[Segment::Micro]);
            assert_eq!((fixture.read_named("z"), fixture.read_named("y")), (vec![wanted; 9 * 64], vec![81.0 * wanted; 9 * 64]));
        }
    }
}

fn store_twice(g: &mut Graph, z: Tensor, x: Tensor) {
    g.store(z, x);
    g.store(z, x);
}

#[test]
fn what_cannot_be_stored_is_refused() {
    type Wrong = fn(&mut Graph, Tensor, Tensor);
    let cases: [(&str, Wrong); 5] = [
        ("in the micro-batch", store_twice),
        ("in the micro-batch", |g, z, x| {
            g.begin_update();
            g.store(z, x);
        }),
        ("a Input in a Input", |g, _, x| g.store(x, x)),
        ("read before it is written", |g, z, _| {
            let unwritten = g.tensor("unwritten", [4]);
            g.store(z, unwritten);
        }),
        ("differ in length", |g, z, x| {
            let x = g.matmul(x.reshape([4, 1]), x.reshape([4, 1]), Form::Nt);
            g.store(z, x);
        }),
    ];
    for (wanted, wrong) in cases {
        let refused = std::panic::catch_unwind(|| {
            let mut g = Graph::new(Capabilities::PORTABLE);
            let (z, x) = (g.carried("z", [4]), g.leaf("x", [4]));
            wrong(&mut g, z, x);
        });
        let message = *refused.expect_err(wanted).downcast::<String>().unwrap();
        assert!(message.contains(wanted), "{message}");
    }
}
