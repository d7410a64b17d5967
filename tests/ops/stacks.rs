//! Stacks of parameters: an update of a stack is that of its parts, bit for bit, in fewer launches.

use moelab::{
    gpu::{Capabilities, Memory, Plan, PlanOptions, Segment, Step, Tensor},
    ops::{AdamW, Graph, Muon, MuonScale},
};

use crate::{
    harness::{Fixture, Input, device, tiers},
    update::update,
};

const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
const MUON: Muon = Muon { momentum: 0.9, scale: MuonScale::MaxOneRowsOverCols, weight_decay: 0.05 };
const STEP: Step = Step { lr_adamw: 0.01, lr_muon: 0.02, ..INERT };
const INERT: Step = Step {
    seed_low: 0,
    seed_high: 0,
    update: 0,
    micro_step: 0,
    lr_adamw: 0.0,
    lr_muon: 0.0,
    balance_coefficient: 0.0,
    z_coefficient: 0.0,
    clip_norm: 0.0, // One stack of gradients is summed in another order than its parts; without a clip nothing depends on that.
    inverse_targets: 1.0,
    loss_scale_exponent: 0,
    real_tokens: u32::MAX,
};

/// Records the update of some parameters after a grad norm.
type Optimizer = fn(&mut Graph, &[Tensor], Tensor);

fn adamw(g: &mut Graph, parameters: &[Tensor], clip: Tensor) {
    parameters.iter().for_each(|w| g.adamw(*w, clip, ADAMW));
}

fn muon(g: &mut Graph, parameters: &[Tensor], clip: Tensor) {
    g.muon(&parameters.iter().map(|w| (*w).into()).collect::<Vec<_>>(), clip, MUON);
}

/// The tensors named, after three updates, and the launches of one.
fn updated(
    tier: Capabilities,
    parameters: &[Input],
    names: &[String],
    stacks: Option<Stacks>,
    optimizer: Optimizer,
) -> (Vec<Vec<f32>>, usize) {
    let device = device();
    let mut g = Graph::new(tier);
    let tensors: Vec<Tensor> = parameters.iter().map(|input| input.declare(&mut g)).collect();
    g.begin_update();
    let mut trained = stacks.map_or(tensors.clone(), |stacks| stacks(&mut g, &tensors));
    trained.dedup();
    let clip = g.grad_norm(&trained);
    optimizer(&mut g, &trained, clip);
    g.output("clip", clip);
    let mut fixture = Fixture::new(&device, g.finish(), parameters);
    for round in 0..3 {
        let gradients: Vec<Vec<f32>> = (0..parameters.len())
            .map(|index| {
                let shape = parameters[index].array().shape;
                let shape: Vec<u32> = shape.iter().map(|d| *d as u32).collect();
                Input::normal(&format!("g{index}.{round}"), shape).array().data.iter().map(|v| *v as f32).collect()
            })
            .collect();
        let named: Vec<_> = gradients.iter().enumerate().map(|(index, values)| (format!("w{index}"), values)).collect();
        let named: Vec<(&str, &[f32])> = named.iter().map(|(name, values)| (name.as_str(), values.as_slice())).collect();
        update(&mut fixture, &Step { update: round, ..STEP }, &named);
    }
    let launches = fixture.program.dispatches().1;
    (names.iter().map(|name| fixture.read_named(name)).collect(), launches)
}

type Stacks = fn(&mut Graph, &[Tensor]) -> Vec<Tensor>;

fn is_as_its_parts(shapes: &[&[u32]], states: &[&str], stacks: Stacks, optimizer: Optimizer, wanted_launches: [usize; 2]) {
    let parameters: Vec<Input> = (0..).zip(shapes).map(|(i, shape)| Input::normal(&format!("w{i}"), *shape).scaled(0.1).param()).collect();
    let of_each = |prefix: &str| (0..shapes.len()).map(|i| format!("{prefix}w{i}")).collect::<Vec<_>>();
    let names: Vec<String> = [of_each(""), states.iter().flat_map(|state| of_each(state)).collect()].concat();
    let tiers = tiers(&device());
    for tier in tiers {
        let (wanted, apart) = updated(tier, &parameters, &names, None, optimizer);
        let (found, together) = updated(tier, &parameters, &names, Some(stacks), optimizer);
        for ((name, wanted), found) in names.iter().zip(&wanted).zip(&found) {
            assert_eq!(found, wanted, "{name}, {tier:?}");
        }
        if tier == Capabilities::PORTABLE {
            assert_eq!([apart, together], wanted_launches);
        } else if tier.images {
            assert_eq!(together, apart, "kernels that read images know no stacks");
        }
    }
}

#[test]
fn adamw_updates_a_stack_as_its_parts() {
    // Sizes that need padding, and one beyond a workgroup. Two of grad norm, one of the corrections.
    let shapes: [&[u32]; 5] = [&[64], &[7], &[3, 43], &[1], &[300]];
    is_as_its_parts(&shapes, &["adamw.m.", "adamw.v."], |g, w| g.stack_parameters(w), adamw, [2 + 1 + 5, 2 + 1 + 1]);
}

#[test]
fn muon_updates_a_stack_as_its_parts() {
    let states = ["muon.momentum."];
    // Of two sizes, one of them in experts; and one whose bytes are no multiple of 256, which is in no stack.
    let shapes: [&[u32]; 6] = [&[64, 32], &[2, 64, 32], &[128, 64], &[17, 21], &[64, 32], &[128, 64]];
    let sorted: Stacks = |g, w| {
        let stacks = g.stack_matrices(w);
        let mut seen = Vec::new();
        stacks
            .into_iter()
            .filter(|stack| {
                !seen.contains(&stack.id) && {
                    seen.push(stack.id);
                    true
                }
            })
            .collect()
    };
    let products = 19;
    is_as_its_parts(&shapes, &states, sorted, muon, [2 + 12 + products, 2 + 6 + products]);
    // Gates of routers.
    let shapes: [&[u32]; 3] = [&[4, 64], &[4, 64], &[4, 64]];
    is_as_its_parts(&shapes, &states, |g, w| g.stack_matrices(w), muon, [2 + 3, 2 + 1]);
}

/// A stack has a limit: what a binding can hold.
#[test]
fn stacks_fit_a_binding() {
    let mut g = Graph::new(Capabilities { binding_bytes: 1024, ..Capabilities::PORTABLE });
    let w: Vec<Tensor> = (0..5).map(|i| g.param(&format!("w{i}"), [100])).collect(); // 512 bytes each, padded
    let stacks = g.stack_parameters(&w);
    assert_eq!(stacks[0], stacks[1]);
    assert_eq!(stacks[2], stacks[3]);
    assert_ne!(stacks[0], stacks[2]);
    assert_eq!(stacks[4], w[4], "one parameter needs no stack");
    assert_eq!(stacks[0].bytes(), 1024);
}

#[test]
fn a_stack_accumulates_the_gradients_of_its_parts() {
    let device = device();
    let mut g = Graph::new(Capabilities::PORTABLE);
    let inputs = [Input::normal("x", [9, 7]), Input::normal("a", [7]).param(), Input::normal("b", [7]).param()];
    let t: Vec<Tensor> = inputs.iter().map(|input| input.declare(&mut g)).collect();
    let first = g.rms_norm(t[0], t[1], 1e-3);
    let second = g.rms_norm(first, t[2], 1e-3);
    let cotangent = Input::normal("d", [9, 7]);
    let d = cotangent.declare(&mut g);
    g.backward_from(&[(second, d)]);
    let apart = g.program().clone();
    g.begin_update();
    let stacks = g.stack_parameters(&t[1..]);
    assert_eq!(stacks[0], stacks[1]);
    let d_stack = g.param_grad(stacks[0]);
    let together = g.finish();
    let inputs = [&inputs[..], &[cotangent]].concat();
    let gradients = |program| {
        let mut fixture = Fixture::new(&device, program, &inputs);
        // Twice, after a clear: a gradient that is not cleared would count double.
        for _ in 0..2 {
            fixture.run(&Step::default(), &[Segment::ClearGradients, Segment::Micro, Segment::Micro]);
        }
        let parts = [fixture.read_named("d_a"), fixture.read_named("d_b")];
        let whole = fixture.program.find("d_a and 1 more").map(|id| {
            let bytes =
                fixture.memory.download(&device, &[fixture.program.tensor(id).name.clone()]).wait(&device).expect("read back").remove(0);
            bytemuck::cast_slice::<u8, f32>(&bytes).to_vec()
        });
        (parts, whole)
    };
    let (wanted, _) = gradients(apart);
    let (found, whole) = gradients(together);
    assert_eq!(found, wanted);
    let whole = whole.expect("the stack");
    assert_eq!(whole.len() as u32, d_stack.shape.len());
    assert_eq!((&whole[..7], &whole[64..71]), (&wanted[0][..], &wanted[1][..]));
    assert!(whole[7..64].iter().chain(&whole[71..]).all(|padding| *padding == 0.0));
}

/// A layer norm's gradients of gain and bias are two parts of one stack, written by one launch.
#[test]
fn a_launch_may_write_two_parts() {
    let device = device();
    let mut g = Graph::new(Capabilities::PORTABLE);
    let inputs = [Input::normal("x", [67, 131]), Input::normal("gain", [131]).param(), Input::normal("bias", [131]).param()];
    let t: Vec<Tensor> = inputs.iter().map(|input| input.declare(&mut g)).collect();
    let y = g.layer_norm(t[0], t[1], t[2], 1e-5);
    let cotangent = Input::normal("d", [67, 131]);
    let d = cotangent.declare(&mut g);
    g.backward_from(&[(y, d)]);
    let apart = g.program().clone();
    g.begin_update();
    let stacks = g.stack_parameters(&t[1..]);
    assert_eq!(stacks[0], stacks[1]);
    let inputs = [&inputs[..], &[cotangent]].concat();
    let [wanted, found] = [apart, g.finish()].map(|program| {
        let mut fixture = Fixture::new(&device, program, &inputs);
        fixture.run(&Step::default(), &[Segment::ClearGradients, Segment::Micro]);
        ["d_gain", "d_bias"].map(|name| fixture.read_named(name))
    });
    assert!(wanted.iter().all(|gradient| gradient.iter().any(|d| *d != 0.0)));
    assert_eq!(found, wanted);
}

#[test]
#[should_panic(expected = "plans of one memory disagree on where a is")]
fn the_plan_with_the_stack_comes_first() {
    let device = device();
    let program = |stacked: bool| {
        let mut g = Graph::new(Capabilities::PORTABLE);
        let w = [g.param("a", [64]), g.param("b", [64])];
        g.begin_update();
        let trained = if stacked { g.stack_parameters(&w) } else { w.to_vec() };
        let clip = g.grad_norm(&trained[..1]);
        g.output("clip", clip);
        g.finish()
    };
    let mut memory = Memory::default();
    for stacked in [false, true] {
        Plan::compile(&device, &program(stacked), &mut memory, PlanOptions::default()).expect("compile");
    }
}
