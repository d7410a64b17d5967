//! `check` runs an op on the GPU over NaN-poisoned memory, compares forward with a plain-loop f64 twin, draws a
//! random cotangent, and compares every input's gradient with central differences *of the twin*. Nobody writes a
//! backward twin.
//!
//! Long because building, running and comparing a case share its private parts.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use moelab::{
    gpu::{
        AdapterChoice, Capabilities, Command, DType, Device, KernelInfo, Memory, ModuleInfo, Plan, PlanOptions, Program, Role, Segment,
        Step, Tensor, TensorId,
    },
    ops::{Graph, kernels::MODULES},
    random::Stream,
};

/// Largest relative L2 error of forward and of every gradient, unless a case states a reason.
const TOLERANCE: f64 = 1e-5;
/// Inputs with more elements have their gradient checked on this many sampled coordinates.
const SAMPLED_COORDINATES: usize = 200;

/// The binary's device; tests take turns.
pub fn device() -> MutexGuard<'static, Device> {
    static DEVICE: OnceLock<Mutex<Device>> = OnceLock::new();
    let open = || {
        let device = pollster::block_on(Device::open(&AdapterChoice::Best)).expect("a Vulkan driver (cargo xtask setup)");
        eprintln!("adapter: {} ({})", device.adapter.name, device.adapter.driver);
        Mutex::new(device)
    };
    DEVICE.get_or_init(open).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The portable kernels' capabilities and the adapter's own; all kernels compute the same function.
pub fn tiers(device: &Device) -> Vec<Capabilities> {
    let own = (device.capabilities != Capabilities::PORTABLE).then_some(device.capabilities);
    [Capabilities::PORTABLE].into_iter().chain(own).collect()
}

/// An f64 tensor of a twin.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Array {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Array { shape, data }
    }

    pub fn zeros(shape: impl Into<Vec<usize>>) -> Array {
        let shape = shape.into();
        let len = shape.iter().product();
        Array { shape, data: vec![0.0; len] }
    }

    /// The last dimension.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows of the last dimension.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks(self.width())
    }
}

/// The nearest f16, ties to even.
fn half(value: f32) -> f32 {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;
    const SUBNORMALS: f32 = (1 << 24) as f32;
    if value.abs() < SMALLEST_NORMAL {
        return (value * SUBNORMALS).round_ties_even() / SUBNORMALS;
    }
    let bits = value.to_bits();
    f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
}

#[derive(Clone)]
enum Values {
    F32(Vec<f32>),
    U32(Vec<u32>),
}

/// An operand of the op under test.
#[derive(Clone)]
pub struct Input {
    name: String,
    shape: Vec<u32>,
    values: Values,
    is_param: bool,
}

impl Input {
    fn draw(name: &str, shape: impl Into<Vec<u32>>, f: impl Fn(Stream, u32) -> f32) -> Input {
        let shape = shape.into();
        let seed = name.bytes().fold(17, |h: u64, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let stream = Stream { seed, step: shape.iter().sum(), stream: 9 };
        let values = (0..shape.iter().product()).map(|i| f(stream, i)).collect();
        Input { name: name.into(), shape, values: Values::F32(values), is_param: false }
    }

    /// Standard normal values, the same for the same name and shape.
    pub fn normal(name: &str, shape: impl Into<Vec<u32>>) -> Input {
        Input::draw(name, shape, Stream::normal)
    }

    /// Uniform values in [low, high).
    pub fn uniform(name: &str, shape: impl Into<Vec<u32>>, low: f32, high: f32) -> Input {
        Input::draw(name, shape, move |s, i| low + (high - low) * s.uniform(i))
    }

    pub fn values(name: &str, shape: impl Into<Vec<u32>>, values: Vec<f32>) -> Input {
        Input { name: name.into(), shape: shape.into(), values: Values::F32(values), is_param: false }
    }

    /// Integers; they have no gradient.
    pub fn u32(name: &str, shape: impl Into<Vec<u32>>, values: Vec<u32>) -> Input {
        Input { name: name.into(), shape: shape.into(), values: Values::U32(values), is_param: false }
    }

    /// Rounds every value to f16, so that kernels with f16 operands compute the same function.
    pub fn halves(mut self) -> Input {
        if let Values::F32(values) = &mut self.values {
            values.iter_mut().for_each(|v| *v = half(*v));
        }
        self
    }

    /// Makes it a parameter, whose gradient accumulates through `param_grad`.
    pub fn param(mut self) -> Input {
        self.is_param = true;
        self
    }

    /// Multiplies every value.
    pub fn scaled(mut self, factor: f32) -> Input {
        if let Values::F32(values) = &mut self.values {
            values.iter_mut().for_each(|v| *v *= factor);
        }
        self
    }

    pub fn declare(&self, g: &mut Graph) -> Tensor {
        match (&self.values, self.is_param) {
            (Values::U32(_), _) => g.input(&self.name, self.shape.as_slice(), DType::U32),
            (_, true) => g.param(&self.name, self.shape.as_slice()),
            (_, false) => g.leaf(&self.name, self.shape.as_slice()),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match &self.values {
            Values::F32(v) => bytemuck::cast_slice(v).to_vec(),
            Values::U32(v) => bytemuck::cast_slice(v).to_vec(),
        }
    }

    /// Its values in f64.
    pub fn array(&self) -> Array {
        let data = match &self.values {
            Values::F32(v) => v.iter().map(|v| f64::from(*v)).collect(),
            Values::U32(v) => v.iter().map(|v| f64::from(*v)).collect(),
        };
        Array { shape: self.shape.iter().map(|d| *d as usize).collect(), data }
    }
}

/// A compiled graph with its operands written.
pub struct Fixture<'a> {
    pub device: &'a Device,
    pub plan: Plan,
    pub memory: Memory,
    pub program: Program,
}

impl<'a> Fixture<'a> {
    pub fn new(device: &'a Device, program: Program, inputs: &[Input]) -> Fixture<'a> {
        let mut memory = Memory::default();
        let plan = Plan::compile(device, &program, &mut memory, PlanOptions::default()).expect("compile");
        let mut fixture = Fixture { device, plan, memory, program };
        fixture.plan.poison(device);
        for input in inputs {
            fixture.write(input);
        }
        fixture
    }

    pub fn write(&mut self, input: &Input) {
        let bytes = input.bytes();
        let id = self.program.find(&input.name).expect("a declared input");
        if input.is_param {
            self.memory.write(self.device, &input.name, &bytes);
        } else {
            self.plan.write(self.device, id, &bytes);
        }
    }

    pub fn run(&mut self, step: &Step, segments: &[Segment]) {
        self.plan.submit(self.device, &mut self.memory, step, segments).expect("submit");
    }

    pub fn read_bytes(&self, id: TensorId) -> Vec<u8> {
        let info = self.program.tensor(id);
        let download = match info.role {
            Role::Parameter | Role::ParameterGradient | Role::State => self.memory.download(self.device, std::slice::from_ref(&info.name)),
            _ => self.plan.download(self.device, &[id]),
        };
        download.wait(self.device).expect("read back").remove(0)
    }

    pub fn read(&self, id: TensorId) -> Vec<f32> {
        bytemuck::cast_slice(&self.read_bytes(id)).to_vec()
    }

    pub fn read_named(&self, name: &str) -> Vec<f32> {
        self.read(self.program.find(name).unwrap_or_else(|| panic!("no tensor {name}")))
    }
}

/// Forward and gradients of one op with the kernels that one set of capabilities chooses.
struct Outcome {
    outputs: Vec<Vec<f32>>,
    gradients: Vec<Option<Vec<f32>>>,
}

/// One comparison with its settings.
pub struct Case {
    name: String,
    tolerance: f64,
    step: Step,
    has_seeded_loss: bool,
    has_halves: bool,
    mutations: Vec<(&'static str, &'static str, &'static str)>,
}

impl Case {
    pub fn new(name: impl Into<String>) -> Case {
        let step = Step { seed_low: 5, seed_high: 9, micro_step: 3, inverse_targets: 1.0, ..Step::default() };
        Case { name: name.into(), tolerance: TOLERANCE, step, has_seeded_loss: false, has_halves: false, mutations: Vec::new() }
    }

    /// A looser bound needs its reason at the case.
    pub fn tolerance(mut self, tolerance: f64, reason: &str) -> Case {
        assert!(!reason.is_empty());
        self.tolerance = tolerance;
        self
    }

    pub fn step(mut self, step: Step) -> Case {
        self.step = step;
        self
    }

    /// The first output is a loss that takes its gradient from `loss_seed`; the others get none.
    pub fn seeded_loss(mut self) -> Case {
        self.has_seeded_loss = true;
        self
    }

    /// All operands and gradients are representable in f16, so kernels with f16 operands are compared as well.
    pub fn halves(mut self) -> Case {
        self.has_halves = true;
        self
    }

    /// Replaces text in a module's WGSL, to see the comparison fail.
    pub fn mutate(mut self, module: &'static str, from: &'static str, to: &'static str) -> Case {
        self.mutations.push((module, from, to));
        self
    }

    /// Panics with the first difference under any set of capabilities.
    pub fn check(self, inputs: &[Input], graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>, twin: impl Fn(&[Array]) -> Vec<Array>) {
        if let Err(message) = self.try_check(inputs, graph, twin) {
            panic!("{message}");
        }
    }

    pub fn try_check(
        &self,
        inputs: &[Input],
        graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>,
        twin: impl Fn(&[Array]) -> Vec<Array>,
    ) -> Result<(), String> {
        let arrays: Vec<Array> = inputs.iter().map(Input::array).collect();
        let expected = twin(&arrays);
        let cotangents: Vec<Vec<f32>> = expected.iter().enumerate().map(|(i, y)| self.cotangent(i, y.data.len())).collect();
        let outcomes: Vec<_> = {
            let (device, mut seen) = (device(), Vec::new());
            let matrices = device.with_matrices(MODULES).map(|all| all.sets(MODULES)).unwrap_or_default();
            let split = matrices.iter().map(|(name, set)| (format!("{name}, split"), Capabilities { splits_operands: true, ..*set }));
            let rounded = matrices.iter().filter(|_| self.has_halves).cloned();
            let sets = device.capabilities.sets(MODULES).into_iter().chain(rounded).chain(split);
            sets.filter_map(|(name, set)| Some((name, self.run(&device, set, &mut seen, inputs, &graph, &cotangents)?))).collect()
        };
        for (tier, outcome) in &outcomes {
            for (i, (found, wanted)) in outcome.outputs.iter().zip(&expected).enumerate() {
                let found: Vec<f64> = found.iter().map(|v| f64::from(*v)).collect();
                self.compare(tier, &format!("output {i}"), &found, &wanted.data)?;
            }
        }
        let total = |arrays: &[Array]| -> f64 {
            let dot = |y: &Array, c: &Vec<f32>| y.data.iter().zip(c).map(|(y, c)| y * f64::from(*c)).sum::<f64>();
            twin(arrays).iter().zip(&cotangents).map(|(y, c)| dot(y, c)).sum()
        };
        for (i, input) in inputs.iter().enumerate() {
            if !matches!(input.values, Values::F32(_)) {
                continue;
            }
            let coordinates = coordinates(arrays[i].data.len());
            let numeric = central_differences(&arrays, i, &coordinates, &total);
            for (tier, outcome) in &outcomes {
                let zeros = vec![0.0; arrays[i].data.len()];
                let found = outcome.gradients[i].as_ref().unwrap_or(&zeros);
                let found: Vec<f64> = coordinates.iter().map(|c| f64::from(found[*c])).collect();
                self.compare(tier, &format!("gradient of {}", input.name), &found, &numeric)?;
            }
        }
        Ok(())
    }

    fn cotangent(&self, output: usize, len: usize) -> Vec<f32> {
        let stream = Stream { seed: 77, step: output as u32, stream: 1 };
        match (self.has_seeded_loss, output) {
            (true, 0) => vec![0.75],
            (true, _) => vec![0.0; len],
            _ => (0..len as u32).map(|i| half(stream.normal(i))).collect(),
        }
    }

    /// `None` if these kernels are among those `seen` already.
    fn run(
        &self,
        device: &Device,
        tier: Capabilities,
        seen: &mut Vec<Vec<*const KernelInfo>>,
        inputs: &[Input],
        graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>,
        cotangents: &[Vec<f32>],
    ) -> Option<Outcome> {
        let mut g = Graph::new(tier);
        let tensors: Vec<Tensor> = inputs.iter().map(|i| i.declare(&mut g)).collect();
        let outputs = graph(&mut g, &tensors);
        assert_eq!(outputs.len(), cotangents.len(), "{}: the twin returns another number of outputs", self.name);
        let mut extra = Vec::new();
        if self.has_seeded_loss {
            g.backward(outputs[0]);
            extra.push(Input::values("loss_seed", [1], cotangents[0].clone()));
        } else {
            let mut seeds = Vec::new();
            for (i, (y, c)) in outputs.iter().zip(cotangents).enumerate() {
                if y.dtype == DType::F32 && g.wants_grad(*y) {
                    let name = format!("cotangent_{i}");
                    seeds.push((*y, g.input(&name, y.shape, DType::F32)));
                    extra.push(Input::values(&name, y.shape.as_slice(), c.clone()));
                }
            }
            g.backward_from(&seeds);
        }
        let gradients: Vec<Option<Tensor>> = (inputs.iter().zip(&tensors))
            .map(|(input, t)| if input.is_param { g.find(&format!("d_{}", input.name)) } else { g.grad(*t) })
            .collect();
        let wanted: Vec<Tensor> = outputs.iter().copied().chain(gradients.iter().flatten().copied()).collect();
        for (i, t) in wanted.iter().enumerate() {
            if g.program().tensor(t.id).role == Role::Activation {
                g.output(&format!("wanted_{i}"), *t);
            }
        }
        let program = g.finish();
        let kernels = kernels_of(&program);
        if seen.contains(&kernels) {
            return None;
        }
        seen.push(kernels);
        let program = self.mutated(program);
        let all: Vec<Input> = inputs.iter().cloned().chain(extra).collect();
        let mut fixture = Fixture::new(device, program, &all);
        fixture.run(&self.step, &[Segment::ClearGradients, Segment::Micro]);
        let read = |t: &Tensor| match t.dtype {
            DType::U32 => bytemuck::cast_slice(&fixture.read_bytes(t.id)).iter().map(|v: &u32| *v as f32).collect(),
            _ => fixture.read(t.id),
        };
        let gradients = gradients.iter().map(|t| t.as_ref().map(read)).collect();
        Some(Outcome { outputs: outputs.iter().map(read).collect(), gradients })
    }

    fn mutated(&self, mut program: Program) -> Program {
        for (module, from, to) in &self.mutations {
            for command in program.micro.iter_mut().chain(&mut program.update) {
                if let Command::Dispatch(d) = command
                    && is_of(d.kernel.module.name, module)
                {
                    let old = d.kernel.module;
                    assert!(old.source.contains(from), "{module} has no text `{from}`:\n{}", old.source);
                    let changed = |text: &str| &*Box::leak(text.replace(from, to).into_boxed_str());
                    let module = ModuleInfo { source: changed(old.source), ..*old };
                    d.kernel = Box::leak(Box::new(KernelInfo { module: Box::leak(Box::new(module)), ..*d.kernel }));
                }
            }
        }
        program
    }

    fn compare(&self, tier: &str, what: &str, found: &[f64], wanted: &[f64]) -> Result<(), String> {
        let fail = |why: String| Err(format!("{} ({tier}), {what}: {why}", self.name));
        if found.len() != wanted.len() {
            return fail(format!("wanted {} elements, found {}", wanted.len(), found.len()));
        }
        if let Some(i) = found.iter().position(|v| !v.is_finite()) {
            return fail(format!("element {i} of {} is {}: not written, or not finite", found.len(), found[i]));
        }
        let norm = wanted.iter().map(|w| w * w).sum::<f64>().sqrt();
        let difference = found.iter().zip(wanted).map(|(f, w)| (f - w).powi(2)).sum::<f64>().sqrt();
        // Where nothing is wanted, terms of up to 300 (the inverse deviation of a constant row) cancel, on some adapters but for a rounding.
        let bound = self.tolerance * if norm > 0.0 { norm } else { 1.0 };
        if difference > bound + 1e-30 {
            let worst = (0..found.len()).max_by(|a, b| (found[*a] - wanted[*a]).abs().total_cmp(&(found[*b] - wanted[*b]).abs()));
            let i = worst.unwrap_or(0);
            return fail(format!(
                "relative L2 error {:.2e}, allowed {:.0e}; worst at {i} of {}: wanted {}, found {}",
                difference / norm.max(1e-300),
                self.tolerance,
                found.len(),
                wanted[i],
                found[i]
            ));
        }
        Ok(())
    }
}

/// What an adapter can run.
trait Runs {
    /// Whether the adapter runs a source of this file.
    fn runs(&self, file: &str) -> bool;
}

impl Runs for Device {
    fn runs(&self, file: &str) -> bool {
        let all = [self.with_matrices(MODULES).unwrap_or(self.capabilities), Capabilities::PORTABLE];
        MODULES.iter().any(|m| is_of(m.name, file) && all.iter().any(|set| set.satisfy(&m.requires)))
    }
}

/// The kernels of a program, in order.
fn kernels_of(program: &Program) -> Vec<*const KernelInfo> {
    let kernel = |command: &Command| match command {
        Command::Dispatch(d) => Some(std::ptr::from_ref(d.kernel)),
        _ => None,
    };
    program.micro.iter().chain(&program.update).filter_map(kernel).collect()
}

/// Whether a source is this file's: its own, or made with a library variant.
fn is_of(source: &str, file: &str) -> bool {
    source
        .strip_prefix(file)
        .is_some_and(|variant| ["", "_subgroups", "_texels", "_halves", "_large", "_small", "_raster", "_raster16"].contains(&variant))
}

fn coordinates(len: usize) -> Vec<usize> {
    if len <= SAMPLED_COORDINATES {
        return (0..len).collect();
    }
    // The last element is always among them: tails are where kernels forget to write.
    let stream = Stream { seed: 3, step: 0, stream: 2 };
    let sample = (1..SAMPLED_COORDINATES as u32).map(|i| stream.bits(i)[0] as usize % len);
    sample.chain([len - 1]).collect()
}

fn central_differences(arrays: &[Array], input: usize, coordinates: &[usize], total: &impl Fn(&[Array]) -> f64) -> Vec<f64> {
    let mut moved = arrays.to_vec();
    let slope = |c: &usize| {
        let value = arrays[input].data[*c];
        let h = 1e-5 * value.abs().max(1.0);
        moved[input].data[*c] = value + h;
        let above = total(&moved);
        moved[input].data[*c] = value - h;
        let below = total(&moved);
        moved[input].data[*c] = value;
        (above - below) / (2.0 * h)
    };
    coordinates.iter().map(slope).collect()
}

/// Checks an op with the usual bound.
pub fn check(name: &str, inputs: &[Input], graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>, twin: impl Fn(&[Array]) -> Vec<Array>) {
    Case::new(name).check(inputs, graph, twin);
}

/// Panics unless a comparison passes as it is and fails with each (module, text, replacement) in its WGSL.
pub fn catches(mutants: &[(&'static str, &'static str, &'static str)], outcome: impl Fn(Case) -> Result<(), String>) {
    outcome(Case::new("control")).expect("the comparison without a mutant");
    for (module, from, to) in mutants {
        let mutant = format!("{module}: `{from}` -> `{to}`");
        if !device().runs(module) {
            eprintln!("skipped: {mutant}: the adapter does not run this kernel");
            continue;
        }
        assert!(outcome(Case::new(&mutant).mutate(module, from, to)).is_err(), "not caught: {mutant}");
    }
}

/// Forward outputs on one tier, as bytes, for exact tests.
pub fn run_bytes(tier: Capabilities, inputs: &[Input], graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>) -> Vec<Vec<u8>> {
    let device = device();
    let mut g = Graph::new(tier);
    let tensors: Vec<Tensor> = inputs.iter().map(|i| i.declare(&mut g)).collect();
    let outputs = graph(&mut g, &tensors);
    for (i, t) in outputs.iter().enumerate() {
        if g.program().tensor(t.id).role == Role::Activation {
            g.output(&format!("wanted_{i}"), *t);
        }
    }
    let mut fixture = Fixture::new(&device, g.finish(), inputs);
    fixture.run(&Case::new("").step, &[Segment::ClearGradients, Segment::Micro]);
    outputs.iter().map(|t| fixture.read_bytes(t.id)).collect()
}

/// Forward outputs as f32.
pub fn run(tier: Capabilities, inputs: &[Input], graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>) -> Vec<Vec<f32>> {
    run_bytes(tier, inputs, graph).iter().map(|b| bytemuck::cast_slice(b).to_vec()).collect()
}

/// Forward outputs as u32.
pub fn run_u32(tier: Capabilities, inputs: &[Input], graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>) -> Vec<Vec<u32>> {
    run_bytes(tier, inputs, graph).iter().map(|b| bytemuck::cast_slice(b).to_vec()).collect()
}
