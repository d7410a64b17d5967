//! Muon against an f64 twin that takes the Newton-Schulz steps on each matrix directly.

use moelab::{
    gpu::{Step, Tensor},
    ops::{Graph, Muon, MuonScale, Trained},
};

use crate::{
    harness::{Fixture, Input},
    update::{assert_change_close, assert_close, on_every_tier, update},
};

const CONSTANTS: Muon = Muon { momentum: 0.95, scale: MuonScale::MaxOneRowsOverCols, weight_decay: 0.1 };

/// A plain matrix of the twin.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    columns: usize,
    data: Vec<f64>,
}

impl Matrix {
    fn transposed(&self) -> Matrix {
        let at = |i: usize| self.data[i % self.rows * self.columns + i / self.rows];
        Matrix { rows: self.columns, columns: self.rows, data: (0..self.data.len()).map(at).collect() }
    }

    fn times(&self, b: &Matrix) -> Matrix {
        let mut data = vec![0.0; self.rows * b.columns];
        for (a, y) in self.data.chunks(self.columns).zip(data.chunks_mut(b.columns)) {
            for (a, b) in a.iter().zip(b.data.chunks(b.columns)) {
                y.iter_mut().zip(b).for_each(|(y, b)| *y += a * b);
            }
        }
        Matrix { rows: self.rows, columns: b.columns, data }
    }

    /// alpha self + beta b.
    fn mix(&self, alpha: f64, b: &Matrix, beta: f64) -> Matrix {
        let data = self.data.iter().zip(&b.data).map(|(x, y)| alpha * x + beta * y).collect();
        Matrix { data, ..*self }
    }

    fn orthogonalized(&self) -> Matrix {
        if self.rows > self.columns {
            return self.transposed().orthogonalized().transposed();
        }
        let norm = self.data.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-7;
        let mut x = self.mix(1.0 / norm, self, 0.0);
        for _ in 0..5 {
            let gram = x.times(&x.transposed());
            let polynomial = gram.mix(-4.7750, &gram.times(&gram), 2.0315);
            x = x.mix(3.4445, &polynomial.times(&x), 1.0);
        }
        x
    }
}

struct Twin {
    shape: Vec<usize>,
    w: Vec<f64>,
    momentum: Vec<f64>,
}

impl Twin {
    fn update(&mut self, g: &[f64], lr: f64, constants: Muon) {
        let [.., rows, columns] = self.shape[..] else { panic!("a matrix") };
        let beta = f64::from(constants.momentum);
        let scale = match constants.scale {
            MuonScale::MaxOneRowsOverCols => (rows as f64 / columns as f64).max(1.0).sqrt(),
            MuonScale::MatchRmsAdamW => 0.2 * (rows.max(columns) as f64).sqrt(),
        };
        let size = rows * columns;
        for (s, g) in g.chunks(size).enumerate() {
            let momentum = &mut self.momentum[s * size..][..size];
            momentum.iter_mut().zip(g).for_each(|(m, g)| *m += (1.0 - beta) * (g - *m));
            let data = momentum.iter().zip(g).map(|(m, g)| g + beta * (m - g)).collect();
            let x = Matrix { rows, columns, data }.orthogonalized();
            for (w, x) in self.w[s * size..].iter_mut().zip(&x.data) {
                *w = *w * (1.0 - lr * f64::from(constants.weight_decay)) - lr * scale * x;
            }
        }
    }
}

fn muon(g: &mut Graph, parameters: &[Tensor], assignments: Option<Tensor>, clip: Tensor, constants: Muon) {
    let trained: Vec<_> = parameters.iter().map(|&w| Trained { w, assignments }).collect();
    g.muon(&trained, clip, constants);
}

fn step(update: u32) -> Step {
    Step { update, lr_muon: 0.02 + 0.01 * update as f32, clip_norm: 0.0, ..Step::default() }
}

fn gradient(shape: &[u32], name: &str, update: u32) -> Vec<f32> {
    Input::normal(&format!("g.{name}.{update}"), shape).scaled(1e-3).array().data.iter().map(|v| *v as f32).collect()
}

/// Three updates of parameters of these shapes, all by one call.
fn follows(shapes: &[&[u32]], constants: Muon) {
    follows_for(3, shapes, constants);
}

fn follows_for(updates: u32, shapes: &[&[u32]], constants: Muon) {
    let names: Vec<String> = (0..shapes.len()).map(|i| format!("w{i}")).collect();
    let parameters: Vec<Input> = shapes.iter().zip(&names).map(|(s, n)| Input::normal(n, *s).scaled(0.1).param()).collect();
    let mut twins: Vec<Twin> = Vec::new();
    for p in &parameters {
        let array = p.array();
        twins.push(Twin { momentum: vec![0.0; array.data.len()], shape: array.shape, w: array.data });
    }
    for i in 0..updates {
        for ((twin, shape), name) in twins.iter_mut().zip(shapes).zip(&names) {
            let g: Vec<f64> = gradient(shape, name, i).iter().map(|v| f64::from(*v)).collect();
            twin.update(&g, f64::from(step(i).lr_muon), constants);
        }
    }
    on_every_tier(
        &parameters,
        |g, t| {
            let clip = g.grad_norm(t);
            muon(g, t, None, clip, constants);
            clip
        },
        |tier, fixture| {
            for i in 0..updates {
                let gradients: Vec<Vec<f32>> = shapes.iter().zip(&names).map(|(s, n)| gradient(s, n, i)).collect();
                let named: Vec<_> = names.iter().map(String::as_str).zip(gradients.iter().map(Vec::as_slice)).collect();
                update(fixture, &step(i), &named);
            }
            for ((twin, name), parameter) in twins.iter().zip(&names).zip(&parameters) {
                let what = format!("muon {name} {:?} of {shapes:?} ({tier:?})", twin.shape);
                let found: Vec<f64> = fixture.read_named(name).iter().map(|v| f64::from(*v)).collect();
                assert_change_close(&what, &found, &twin.w, &parameter.array().data, 1e-5);
                assert_close(&what, &fixture.read_named(&format!("muon.momentum.{name}")), &twin.momentum, 1e-5);
            }
        },
    );
}

#[test]
fn matrices_of_one_shape_class() {
    follows(&[&[64, 64]], CONSTANTS);
    follows(&[&[64, 192], &[192, 64], &[64, 64]], CONSTANTS);
}

#[test]
fn each_expert_on_its_own() {
    follows(&[&[3, 64, 128], &[3, 128, 64]], CONSTANTS);
    follows(&[&[2, 67, 64], &[2, 70, 128]], CONSTANTS);
}

/// More slices than an image has room for: the parameter is cut into two stacks.
#[test]
fn more_matrices_than_a_stack_holds() {
    follows_for(1, &[&[130, 17, 64]], CONSTANTS);
}

#[test]
fn odd_shapes_and_several_classes() {
    follows(&[&[37, 131], &[67, 71], &[2, 131, 17], &[19, 100]], CONSTANTS);
}

#[test]
fn router_gates_and_other_small_matrices() {
    follows(&[&[8, 128], &[128, 8], &[1, 1], &[1, 33], &[2, 5, 7], &[16, 16], &[3, 16, 300]], CONSTANTS);
}

#[test]
fn the_scale_that_matches_adamw() {
    let constants = Muon { scale: MuonScale::MatchRmsAdamW, weight_decay: 0.0, ..CONSTANTS };
    follows(&[&[64, 192], &[8, 64]], constants);
}

/// A gradient that is not finite leaves parameters and momenta untouched bit for bit, in other classes, too.
#[test]
fn a_bad_gradient_changes_nothing() {
    let parameters = [Input::normal("a", [64, 64]).param(), Input::normal("b", [8, 64]).param()];
    let states = ["a", "b", "muon.momentum.a", "muon.momentum.b"];
    let gradients = |i: u32| [gradient(&[64, 64], "a", i), gradient(&[8, 64], "b", i)];
    on_every_tier(
        &parameters,
        |g, t| {
            let clip = g.grad_norm(t);
            muon(g, t, None, clip, CONSTANTS);
            clip
        },
        |_, fixture| {
            let bits =
                |f: &Fixture| -> Vec<Vec<u32>> { states.iter().map(|n| f.read_named(n).iter().map(|v| v.to_bits()).collect()).collect() };
            let [d_a, d_b] = gradients(0);
            update(fixture, &step(0), &[("a", &d_a), ("b", &d_b)]);
            let before = bits(fixture);
            for (bad, which) in [(f32::NAN, 0), (f32::INFINITY, 1), (f32::NEG_INFINITY, 0)] {
                let mut d = gradients(1);
                d[which][511] = bad;
                update(fixture, &step(1), &[("a", &d[0]), ("b", &d[1])]);
                assert_eq!(bits(fixture), before, "{bad}");
            }
            let [d_a, d_b] = gradients(1);
            update(fixture, &step(1), &[("a", &d_a), ("b", &d_b)]);
            assert!(bits(fixture).iter().zip(&before).all(|(a, b)| a != b), "a good gradient must change everything again");
        },
    );
}

/// Bits of weights and momenta of each expert after every update, on every tier; idle experts have no gradient.
fn expert_bits(shapes: &[&[u32]], assignments: &[Vec<u32>], follows_counts: bool) -> Vec<Vec<Vec<u32>>> {
    let names: Vec<String> = (0..shapes.len()).map(|i| format!("w{i}")).collect();
    let experts = assignments[0].len();
    let mut inputs: Vec<Input> = shapes.iter().zip(&names).map(|(s, n)| Input::normal(n, *s).scaled(0.1).param()).collect();
    inputs.push(Input::u32("counts", [experts as u32], vec![1; experts]));
    let all = std::cell::RefCell::new(Vec::new());
    on_every_tier(
        &inputs,
        |g, t| {
            let (counts, parameters) = t.split_last().unwrap();
            let clip = g.grad_norm(parameters);
            muon(g, parameters, follows_counts.then_some(*counts), clip, CONSTANTS);
            clip
        },
        |_, fixture| {
            let bits = |f: &Fixture, e: usize| {
                let states = names.iter().flat_map(|n| [n.clone(), format!("muon.momentum.{n}")]);
                let of_expert = |values: Vec<f32>| values.chunks(values.len() / experts).nth(e).unwrap().to_vec();
                states.flat_map(|n| of_expert(f.read_named(&n))).map(f32::to_bits).collect::<Vec<u32>>()
            };
            for (i, counts) in (0..).zip(assignments) {
                fixture.write(&Input::u32("counts", [experts as u32], counts.clone()));
                let drawn = |(shape, name): (&&[u32], &String)| {
                    let mut d = gradient(shape, name, i);
                    let size = d.len() / experts;
                    d.chunks_mut(size).zip(counts).filter(|(_, c)| **c == 0).for_each(|(d, _)| d.fill(0.0));
                    d
                };
                let gradients: Vec<Vec<f32>> = shapes.iter().zip(&names).map(drawn).collect();
                let named: Vec<_> = names.iter().map(String::as_str).zip(gradients.iter().map(Vec::as_slice)).collect();
                update(fixture, &step(i), &named);
                all.borrow_mut().push((0..experts).map(|e| bits(fixture, e)).collect());
            }
        },
    );
    all.into_inner()
}

/// Tall, wide and ragged matrices, small ones, and more than a stack holds. Without counts an idle expert has a zero gradient:
/// its momentum still moves it. The other experts come out the same to the bit.
#[test]
fn experts_without_assignments_are_left_as_they_are() {
    let shapes: [&[&[u32]]; 4] =
        [&[&[3, 64, 128], &[3, 128, 64]], &[&[3, 67, 64], &[3, 37, 131]], &[&[3, 5, 7], &[3, 16, 300]], &[&[130, 17, 64]]];
    for shapes in shapes {
        let experts = shapes[0][0];
        let of = |first: [u32; 3]| (0..experts).map(|e| first[e as usize % 3]).collect::<Vec<u32>>();
        let assignments = [of([2, 1, 1]), of([5, 0, 3]), of([0, 0, 1])];
        // Many experts are slow, and one update with idle ones tells of where they lie.
        let assignments = &assignments[..if experts > 3 { 2 } else { 3 }];
        let (skipped, zero) = (expert_bits(shapes, assignments, true), expert_bits(shapes, assignments, false));
        let mut was_idle = vec![false; experts as usize];
        for (i, (skipped_now, zero_now)) in skipped.iter().zip(&zero).enumerate() {
            let update = i % assignments.len();
            if update == 0 {
                assert!(skipped_now == zero_now, "{shapes:?}: where all experts have assignments the counts change no bit");
                was_idle.fill(false);
                continue;
            }
            for (e, count) in assignments[update].iter().enumerate() {
                let what = format!("{shapes:?}, expert {e} in update {update}");
                was_idle[e] |= *count == 0;
                assert_eq!(skipped_now[e] == skipped[i - 1][e], *count == 0, "{what}, skipped");
                assert!(zero_now[e] != zero[i - 1][e], "{what}, zero gradient");
                assert_eq!(skipped_now[e] == zero_now[e], !was_idle[e], "{what}: others are as without counts");
            }
        }
    }
}
