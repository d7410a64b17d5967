//! Single kernels: each result is checked, then timed.
//!
//! A plan has several copies of an op, each with separate operands, so that a time includes the preparation of operands (copies to
//! images), and caches hold no more than in a step.

mod cases;

use serde::Serialize;

pub use cases::{Case, cases};

use super::{BenchError, floats, median, relative_error};
use crate::{
    gpu::{
        Capabilities, Command, DType, Device, GpuError, KernelInfo, Memory, Plan, PlanOptions, Program, Role, Segment, Step, Tensor,
        TensorId,
    },
    ops::Graph,
    random::Stream,
};

/// Largest relative L2 error between the kernels of two sets of capabilities: each is within 1e-5 of the exact result; Muon amplifies that.
const SIBLING_TOLERANCE: f64 = 1e-4;
/// The same with operands rounded to f16.
const ROUNDED_TOLERANCE: f64 = 3e-3;
/// Consecutive submissions take at least this many seconds, so that one wait matters little.
const ROUND_SECONDS: f64 = 0.05;
/// Rounds end early when one kernel took this many seconds.
const PATIENCE_SECONDS: f64 = 2.0;

/// The measurement of a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The op.
    pub kernel: &'static str,
    /// Its sizes.
    pub shape: String,
    /// The set of capabilities: `portable`, the adapter's own (`cpu`, `gpu`), or the requirements of a source.
    pub tier: String,
    /// Milliseconds of one op: the median of the rounds.
    pub ms: f64,
    /// Useful arithmetic, a multiply-add being 2; 0 where none is counted.
    pub gflops: f64,
    /// Every operand and result once.
    pub gbytes_per_second: f64,
}

/// The number of repetitions.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Copies of the op in a plan.
    pub copies: u32,
    /// Rounds, of which the median is reported.
    pub rounds: u32,
}

/// The values of a case's operand.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Normals times a factor.
    Normal(f32),
    /// Integers (bit patterns of floats too).
    Integers(Vec<u32>),
    /// Zeros.
    Zero,
}

/// An operand of a case.
#[derive(Clone, Debug)]
pub struct Operand {
    /// Shape.
    pub shape: Vec<u32>,
    /// Values.
    pub fill: Fill,
    /// Whether it is a parameter; otherwise an input with a gradient, or integers.
    pub is_parameter: bool,
}

/// A plan with copies of a case, its operands written.
struct Prepared {
    plan: Plan,
    memory: Memory,
    program: Program,
    operands: Vec<Vec<f32>>,
}

/// The kernels that compute a case, to tell whether two sets of capabilities differ in it. None for an optimizer with f16 operands: those of
/// its products are f32 in any case.
pub fn chosen(case: &Case, set: Capabilities) -> Vec<*const KernelInfo> {
    if case.needs_gradients && set.matrices != Capabilities::PORTABLE.matrices {
        return Vec::new();
    }
    let mut g = Graph::new(set);
    record(&mut g, case, 0);
    let kernel = |command: &Command| if let Command::Dispatch(d) = command { Some(std::ptr::from_ref(d.kernel)) } else { None };
    g.program().micro.iter().filter_map(kernel).collect()
}

/// Checks a case under a set of capabilities, named `tier`, then times it by `now` (seconds).
///
/// # Errors
/// A wrong result, or a device error.
pub fn measure(
    device: &Device,
    case: &Case,
    (tier, set): (&str, Capabilities),
    effort: Effort,
    now: &dyn Fn() -> f64,
) -> Result<Record, BenchError> {
    check(device, case, (tier, set))?;
    let mut prepared = prepare(device, case, set, effort.copies)?;
    let mut round = |submissions: u32| -> Result<f64, GpuError> {
        let start = now();
        for _ in 0..submissions {
            prepared.plan.submit(device, &mut prepared.memory, &step(), &[Segment::Micro])?;
        }
        device.wait_idle()?;
        Ok((now() - start) / f64::from(submissions * effort.copies))
    };
    round(1)?; // Drivers compile at first use.
    let estimate = round(1)? * f64::from(effort.copies);
    let submissions = (ROUND_SECONDS / estimate.max(1e-6)).clamp(1.0, 100.0) as u32;
    let (start, mut seconds) = (now(), Vec::new());
    for _ in 0..effort.rounds.max(1) {
        seconds.push(round(submissions)?);
        if now() - start > PATIENCE_SECONDS {
            break;
        }
    }
    let seconds = median(seconds);
    Ok(Record {
        kernel: case.kernel,
        shape: case.shape.clone(),
        tier: tier.into(),
        ms: seconds * 1e3,
        gflops: case.flops / seconds * 1e-9,
        gbytes_per_second: case.bytes() / seconds * 1e-9,
    })
}

/// Scalars under which every case does its full work.
fn step() -> Step {
    Step { lr_adamw: 1e-3, lr_muon: 1.0, inverse_targets: 1.0 / 512.0, ..Step::default() }
}

/// Records a copy of a case; returns its operands.
fn record(g: &mut Graph, case: &Case, copy: u32) -> Vec<Tensor> {
    let declare = |g: &mut Graph, (index, operand): (usize, &Operand)| {
        let (name, shape) = (format!("operand.{copy}.{index}"), operand.shape.as_slice());
        match (&operand.fill, operand.is_parameter) {
            (Fill::Integers(_), _) => g.input(&name, shape, DType::U32),
            (_, true) => g.param(&name, shape),
            (_, false) => g.leaf(&name, shape),
        }
    };
    let operands: Vec<Tensor> = case.operands.iter().enumerate().map(|o| declare(g, o)).collect();
    for (index, y) in (case.record)(g, &operands).into_iter().enumerate() {
        g.output(&format!("output.{copy}.{index}"), y);
    }
    operands
}

fn prepare(device: &Device, case: &Case, set: Capabilities, copies: u32) -> Result<Prepared, GpuError> {
    let mut g = Graph::new(set);
    let mut declared: Vec<Vec<Tensor>> = Vec::new();
    for copy in 0..copies {
        declared.push(record(&mut g, case, copy));
    }
    let program = g.finish();
    let mut memory = Memory::default();
    let plan = Plan::compile(device, &program, &mut memory, PlanOptions::default())?;
    let mut prepared = Prepared { plan, memory, program, operands: Vec::new() };
    for (copy, tensors) in declared.iter().enumerate() {
        for (index, (t, operand)) in tensors.iter().zip(&case.operands).enumerate() {
            let stream = Stream { seed: copy as u64, step: index as u32, stream: 0 };
            prepared.write(device, *t, operand, stream, case.needs_gradients);
        }
    }
    if let Some(seed) = prepared.program.find("loss_seed") {
        prepared.plan.write(device, seed, bytemuck::bytes_of(&1.0_f32));
    }
    Ok(prepared)
}

impl Prepared {
    /// Sets an operand, and the gradient of a parameter for an optimizer.
    fn write(&mut self, device: &Device, t: Tensor, operand: &Operand, stream: Stream, with_gradient: bool) {
        let normals = |stream: Stream| (0..t.shape.len()).map(move |i| stream.normal(i));
        let values: Vec<f32> = match &operand.fill {
            Fill::Normal(scale) => normals(stream).map(|v| scale * v).collect(),
            Fill::Integers(bits) => bits.iter().map(|b| f32::from_bits(*b)).collect(),
            Fill::Zero => vec![0.0; t.shape.len() as usize],
        };
        if operand.is_parameter {
            let name = &self.program.tensor(t.id).name;
            self.memory.write(device, name, bytemuck::cast_slice(&values));
            if with_gradient {
                let gradient: Vec<f32> = normals(Stream { stream: 1, ..stream }).collect();
                self.memory.write(device, &format!("d_{name}"), bytemuck::cast_slice(&gradient));
            }
        } else {
            self.plan.write(device, t.id, bytemuck::cast_slice(&values));
        }
        self.operands.push(values);
    }
}

/// Every result of one copy: outputs, parameters and their gradients, by name.
fn results(device: &Device, case: &Case, set: Capabilities) -> Result<(Prepared, Vec<Vec<f64>>), GpuError> {
    let mut prepared = prepare(device, case, set, 1)?;
    prepared.plan.poison(device);
    prepared.plan.submit(device, &mut prepared.memory, &step(), &[Segment::Micro])?;
    let named = |roles: &[Role]| {
        let all = prepared.program.tensors.iter().enumerate().filter(|(_, t)| roles.contains(&t.role));
        let mut all: Vec<(String, TensorId)> = all.map(|(i, t)| (t.name.clone(), TensorId(i as u32))).collect();
        all.sort();
        all
    };
    let outputs: Vec<TensorId> = named(&[Role::Output]).into_iter().map(|(_, id)| id).collect();
    let kept: Vec<String> = named(&[Role::Parameter, Role::ParameterGradient]).into_iter().map(|(name, _)| name).collect();
    let mut found = Vec::new();
    if !outputs.is_empty() {
        found.extend(prepared.plan.download(device, &outputs).wait(device)?.iter().map(|b| floats(b)));
    }
    if !kept.is_empty() {
        found.extend(prepared.memory.download(device, &kept).wait(device)?.iter().map(|b| floats(b)));
    }
    Ok((prepared, found))
}

fn check(device: &Device, case: &Case, (tier, set): (&str, Capabilities)) -> Result<(), BenchError> {
    let (prepared, found) = results(device, case, set)?;
    let is_rounded = set.matrices != Capabilities::PORTABLE.matrices && !set.splits_operands;
    let bounded = |bound: f64| if is_rounded { ROUNDED_TOLERANCE } else { bound };
    let (error, bound, wanted) = match case.product {
        Some(product) => (product.error(&prepared.operands, &found[0]), bounded(cases::PRODUCT_TOLERANCE), "the exact product"),
        None => {
            let other = if set.images { Capabilities::PORTABLE } else { Capabilities::CPU };
            let (_, wanted) = results(device, case, other)?;
            let worst = found.iter().zip(&wanted).map(|(a, b)| relative_error(a, b)).fold(0.0, f64::max);
            (if found.len() == wanted.len() { worst } else { f64::INFINITY }, bounded(SIBLING_TOLERANCE), "other kernels")
        }
    };
    if error < bound {
        return Ok(());
    }
    let problem = format!("expected a relative error against {wanted} below {bound:e}, found {error:.3e}");
    Err(BenchError::Wrong { kernel: case.kernel.into(), shape: case.shape.clone(), tier: tier.into(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gpu::AdapterChoice, ops::Form};

    /// A product of square matrices that claims to be a b^T, but records another form on CPU kernels, portable ones, or both.
    fn case(cpu: Form, portable: Form) -> Case {
        let record = move |g: &mut Graph, t: &[Tensor]| vec![g.matmul(t[0], t[1], if g.capabilities.images { cpu } else { portable })];
        Case { record: Box::new(record), ..cases::matmul(Form::Nt, 64, 64, 64) }
    }

    #[test]
    fn a_wrong_result_is_not_timed() {
        let device = pollster::block_on(Device::open(&AdapterChoice::Best)).expect("a Vulkan driver (cargo xtask setup)");
        let began = std::time::Instant::now();
        let is_refused =
            |case: &Case, set: Capabilities| match measure(&device, case, (set.name(), set), Effort { copies: 1, rounds: 1 }, &|| {
                began.elapsed().as_secs_f64()
            }) {
                Ok(record) => {
                    assert!(record.ms > 0.0 && record.gflops > 0.0, "{record:?}");
                    false
                }
                Err(BenchError::Wrong { problem, .. }) => {
                    assert!(problem.contains("expected a relative error"), "{problem}");
                    true
                }
                Err(other) => panic!("{other}"),
            };
        for set in [Capabilities::PORTABLE, Capabilities::CPU] {
            assert!(!is_refused(&case(Form::Nt, Form::Nt), set));
            assert!(is_refused(&case(Form::Nn, Form::Nn), set), "a b instead of a b^T, {}", set.name());
            let without_product = |cpu| Case { product: None, ..case(cpu, Form::Nt) };
            assert!(!is_refused(&without_product(Form::Nt), set));
            assert!(is_refused(&without_product(Form::Nn), set), "kernels that differ, {}", set.name());
        }
    }
}
