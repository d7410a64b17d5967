//! The graph: records the dispatches of ops, each with a closure that records its backward.
//!
//! A model is recorded once per run. [`Graph::backward`] walks the closures in reverse and appends their dispatches, so
//! automatic differentiation happens only at build time; a step replays a [`Program`].
//!
//! Guarantees: an activation is written by exactly one dispatch (SSA, checked; or by a stated number, each with separate rows);
//! if several ops use it, an explicit add sums its gradients; only gradients of parameters accumulate. Wrong shapes, element types
//! and double writes are programming errors and panic here, at build time, naming kernel, binding and tensor.
//!
//! Long because declaring tensors, recording launches and walking back over them share its private parts.

use std::collections::HashMap;

use super::{halves::fold_roundings, recompute::Recipe};
use crate::gpu::{
    Access, BindingKind, Call, Capabilities, Chosen, Command, DType, Dispatch, ImageRow, Program, Role, Shape, Tensor, TensorId,
    TensorInfo, choose, fold_of,
};

type Closure = Box<dyn FnOnce(&mut Graph, &[Option<Tensor>])>;

/// The constant that tells a kernel with f16 operands that each is split into two.
const SPLIT: &str = "SPLIT";
/// The pipeline constant for the rows of a tensor that lie side by side in a row of its image.
const FOLD: &str = "FOLD";
/// Offsets of the parts of a stack are multiples of this: so must those of bindings be, in bytes.
pub(super) const STACK_ALIGNMENT: u64 = 256;

/// A program under construction.
pub struct Graph {
    /// The capabilities for which kernels are chosen.
    pub capabilities: Capabilities,
    program: Program,
    /// The first tensor of each name; programs have up to a million tensors.
    index: HashMap<String, TensorId>,
    /// Dispatches that have yet to write each tensor before it may be read.
    missing_writes: Vec<u32>,
    wants_grad: Vec<bool>,
    gradients: HashMap<TensorId, Tensor>,
    tape: Vec<(Vec<Tensor>, Closure)>,
    scopes: Vec<String>,
    streams: u32,
    in_update: bool,
    /// (from, to) of the copies that end a micro-batch.
    stores: Vec<(TensorId, TensorId)>,
    /// Tensors as f16 in the list being recorded, until they are written again.
    pub(super) halves: HashMap<TensorId, Tensor>,
    /// How activations are computed again.
    pub(super) recipes: HashMap<TensorId, Recipe>,
    /// Those that backward has computed again.
    pub(super) again: HashMap<TensorId, Tensor>,
}

impl Graph {
    /// An empty graph for adapters that have `capabilities`.
    pub fn new(capabilities: Capabilities) -> Graph {
        Graph {
            capabilities,
            program: Program::default(),
            index: HashMap::new(),
            missing_writes: Vec::new(),
            wants_grad: Vec::new(),
            gradients: HashMap::new(),
            tape: Vec::new(),
            scopes: Vec::new(),
            streams: 0,
            in_update: false,
            stores: Vec::new(),
            halves: HashMap::new(),
            recipes: HashMap::new(),
            again: HashMap::new(),
        }
    }

    /// The recorded program; what was [stored](Graph::store) is copied at the end of a micro-batch. Kernels write f16 themselves where they can.
    pub fn finish(mut self) -> Program {
        let copies = self.stores.drain(..).map(|(source, target)| Command::Copy { source, target });
        self.program.micro.extend(copies);
        fold_roundings(&mut self.program, &self.capabilities);
        self.program
    }

    /// The program recorded so far.
    pub fn program(&self) -> &Program {
        &self.program
    }

    pub(super) fn create(&mut self, name: &str, shape: Shape, dtype: DType, role: Role) -> Tensor {
        let is_local = matches!(role, Role::Activation | Role::Output);
        let name = if is_local && !self.scopes.is_empty() { format!("{}.{name}", self.scopes.join(".")) } else { name.into() };
        assert!(role.is_planned() || !self.index.contains_key(&name), "two tensors named {name}");
        let id = TensorId(self.program.tensors.len() as u32);
        self.index.entry(name.clone()).or_insert(id);
        self.program.tensors.push(TensorInfo { name, shape, dtype, role, values: None, within: None });
        self.missing_writes.push(u32::from(is_local));
        self.wants_grad.push(role == Role::Parameter);
        Tensor { id, shape, dtype, is_detached: false }
    }

    /// Written by the host before a step; has no gradient.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        self.create(name, shape.into(), dtype, Role::Input)
    }

    /// Written by the host, f32, with a gradient (for tests).
    pub fn leaf(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        let t = self.create(name, shape.into(), DType::F32, Role::Input);
        self.wants_grad[t.id.0 as usize] = true;
        t
    }

    /// Trained; its gradient accumulates over uses and micro-batches.
    pub fn param(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        self.create(name, shape.into(), DType::F32, Role::Parameter)
    }

    /// Optimizer state, zero at first.
    pub fn state(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        self.create(name, shape.into(), DType::F32, Role::State)
    }

    /// Optimizer state of counters, zero at first.
    pub fn state_u32(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        self.create(name, shape.into(), DType::U32, Role::State)
    }

    /// State carried from one micro-batch to the next by [`Graph::store`], zero before the first: a micro-batch reads what the
    /// previous one stored. It has no gradient. Checkpoints include it with the optimizer's state; programs that share a memory
    /// share it by name, so an evaluation that must not disturb training needs a different name.
    pub fn carried(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        self.state(name, shape)
    }

    /// Stores `x` in `carried` for the next micro-batch. The copy is made at the end of the micro-batch, after the backward,
    /// regardless of when this is called: the program only reads what the previous micro-batch stored.
    ///
    /// # Panics
    /// If `carried` is not a state or is already stored to, if `x` is a state or is not written yet, or if the shapes differ.
    pub fn store(&mut self, carried: Tensor, x: Tensor) {
        let [target, source] = [carried, x].map(|t| self.program.tensor(t.id));
        let what = format!("store of {} {:?} in {} {:?}", source.name, x.shape, target.name, carried.shape);
        assert!(target.role == Role::State && source.role != Role::State, "{what}: a {:?} in a {:?}", source.role, target.role);
        assert!(source.dtype == target.dtype && source.shape.len() == target.shape.len(), "{what}: they differ in length or type");
        assert_eq!(self.missing_writes[x.id.0 as usize], 0, "{what}: read before it is written");
        assert!(!self.in_update && self.stores.iter().all(|(_, t)| *t != carried.id), "{what}: expected one store, in the micro-batch");
        self.stores.push((x.id, carried.id));
    }

    /// Values that never change.
    pub fn constant(&mut self, name: &str, shape: impl Into<Shape>, values: Vec<f32>) -> Tensor {
        let t = self.create(name, shape.into(), DType::F32, Role::Constant);
        assert_eq!(values.len(), t.shape.len() as usize, "constant {name}: {} values for {:?}", values.len(), t.shape);
        self.program.tensors[t.id.0 as usize].values = Some(values);
        t
    }

    /// An f32 activation; exactly one dispatch must write it.
    pub fn tensor(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        self.create(name, shape.into(), DType::F32, Role::Activation)
    }

    /// An f32 activation that `parts` dispatches write, each its own rows.
    pub fn tensor_in_parts(&mut self, name: &str, shape: impl Into<Shape>, parts: u32) -> Tensor {
        let t = self.tensor(name, shape);
        self.missing_writes[t.id.0 as usize] = parts;
        t
    }

    /// A u32 activation.
    pub fn tensor_u32(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        self.create(name, shape.into(), DType::U32, Role::Activation)
    }

    /// An f16 activation, for kernels that read f16.
    pub(super) fn tensor_f16(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        self.create(name, shape.into(), DType::F16, Role::Activation)
    }

    /// As [`Graph::tensor_in_parts`], of u32.
    pub fn tensor_u32_in_parts(&mut self, name: &str, shape: impl Into<Shape>, parts: u32) -> Tensor {
        let t = self.tensor_u32(name, shape);
        self.missing_writes[t.id.0 as usize] = parts;
        t
    }

    /// An f32 activation of `x`'s shape.
    pub fn like(&mut self, name: &str, x: Tensor) -> Tensor {
        self.tensor(name, x.shape)
    }

    /// Stores `parts` one after another, as the new tensor `name` [elements]. Their own handles remain valid.
    ///
    /// # Panics
    /// If they do not outlive a step, are in a stack already, or kernels read them as images: these are kept for each tensor.
    pub(super) fn stack(&mut self, name: &str, parts: &[Tensor]) -> Tensor {
        assert!(!self.capabilities.images, "stack {name}: for kernels that read buffers");
        let offsets = parts.iter().scan(0, |end, part| {
            let start = *end;
            *end += part.bytes().next_multiple_of(STACK_ALIGNMENT);
            Some(start)
        });
        let offsets: Vec<u64> = offsets.collect();
        let bytes: u64 = parts.iter().map(|part| part.bytes().next_multiple_of(STACK_ALIGNMENT)).sum();
        let elements = u32::try_from(bytes / DType::F32.bytes()).expect("a stack fits a binding");
        let stack = self.create(name, Shape::from([elements]), DType::F32, Role::Stack);
        for (part, offset) in parts.iter().zip(offsets) {
            let info = &mut self.program.tensors[part.id.0 as usize];
            assert!(info.role.is_kept() && info.dtype == DType::F32, "stack {name}: {} is a {:?}", info.name, info.role);
            assert!(info.within.is_none(), "stack {name}: {} is in another", info.name);
            info.within = Some((stack.id, offset));
        }
        stack
    }

    /// Makes a tensor readable by the host after the step: its storage is not shared.
    pub fn output(&mut self, name: &str, t: Tensor) {
        let info = &mut self.program.tensors[t.id.0 as usize];
        assert!(matches!(info.role, Role::Activation | Role::Output), "output {name}: {} is a {:?}", info.name, info.role);
        info.role = Role::Output;
        let before = std::mem::replace(&mut info.name, name.into());
        if self.index.get(&before) == Some(&t.id) {
            self.index.remove(&before);
        }
        self.index.entry(name.into()).or_insert(t.id);
    }

    /// The tensor of this name.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.index.get(name).map(|&id| {
            let info = self.program.tensor(id);
            Tensor { id, shape: info.shape, dtype: info.dtype, is_detached: false }
        })
    }

    /// Prefixes the names of activations until [`Graph::end_scope`].
    pub fn scope(&mut self, name: impl Into<String>) {
        self.scopes.push(name.into());
    }

    /// Ends the innermost scope.
    pub fn end_scope(&mut self) {
        self.scopes.pop();
    }

    /// A new stream id for random numbers; the same graph has the same ids.
    pub fn next_stream(&mut self) -> u32 {
        self.streams += 1;
        self.streams
    }

    /// The following commands run once per update, after the last micro-batch. Their products have f32 operands in any case: Muon folds
    /// the normalisation of a gradient into its first polynomial, whose terms exceed the range of f16.
    pub fn begin_update(&mut self) {
        self.in_update = true;
        self.halves.clear();
        self.capabilities.matrices = Capabilities::PORTABLE.matrices;
    }

    fn push(&mut self, command: Command) {
        if self.in_update { self.program.update.push(command) } else { self.program.micro.push(command) }
    }

    /// Records a kernel launch, with the best kernel for the call that the adapter supports and that fits, see [`choose`].
    ///
    /// # Panics
    /// If none fits, or an operand has the wrong type, size or state.
    pub fn dispatch(&mut self, call: impl Call) {
        let name = || call.siblings().iter().map(|k| k.name()).collect::<Vec<_>>().join(", ");
        let is_recorded = self.try_dispatch(&call);
        assert!(is_recorded, "none of {} fits {:?}", name(), call.tensors().iter().map(|t| t.shape).collect::<Vec<_>>());
    }

    /// Like [`Graph::dispatch`], but records nothing and returns false if no kernel fits: for kernels that not every adapter
    /// supports, where the portable alternative is another sequence of launches.
    pub fn try_dispatch(&mut self, call: &impl Call) -> bool {
        let chosen = choose(call, &self.capabilities);
        let is_found = chosen.is_some();
        if let Some(chosen) = chosen {
            self.launch(call, chosen);
        }
        is_found
    }

    /// Whether a kernel of this call fits.
    pub fn can_dispatch(&self, call: &impl Call) -> bool {
        choose(call, &self.capabilities).is_some()
    }

    fn launch(&mut self, call: &impl Call, chosen: Chosen) {
        let Chosen { kernel, mut tensors, grid } = chosen;
        let fields = call.tensors();
        let mut constants: Vec<_> = call.constants().into_iter().filter(|(name, _)| kernel.overrides.contains(name)).collect();
        for (t, b) in tensors.iter_mut().zip(kernel.bindings) {
            if b.dtype == DType::F16 && t.dtype == DType::F32 {
                *t = self.halves(*t);
                if self.capabilities.splits_operands && constants.iter().all(|(name, _)| *name != SPLIT) {
                    constants.push((SPLIT, 1.0));
                }
            }
            if b.kind == BindingKind::Texels(ImageRow::Folded) && fold_of(fields[b.field], *t) > 1 {
                constants.push((FOLD, f64::from(fold_of(fields[b.field], *t))));
            }
        }
        let workgroups = kernel.folded(grid);
        let mut reads_grad = false;
        for (t, b) in tensors.iter().zip(kernel.bindings) {
            let info = self.program.tensor(t.id);
            let what = || format!("{}: {} = {} {:?}", kernel.name(), b.name, info.name, t.shape);
            assert_eq!(t.dtype, b.dtype, "{}: expected {}, found {}", what(), b.dtype.name(), t.dtype.name());
            assert_eq!(t.bytes() % u64::from(b.element_bytes), 0, "{}: expected whole elements of {} bytes", what(), b.element_bytes);
            let is_written = self.missing_writes[t.id.0 as usize] == 0;
            let is_local = matches!(info.role, Role::Activation | Role::Output);
            // A kernel may write as a buffer what it reads as a texture; it is then not the first write.
            let reads = kernel.bindings.iter().any(|other| other.field == b.field && other.access.reads());
            match b.access {
                Access::Read | Access::ReadWrite => assert!(is_written, "{}: read before it is written", what()),
                Access::Write => assert!(reads || !(is_written && is_local), "{}: written twice", what()),
            }
            reads_grad |= b.access.reads() && self.wants_grad(*t);
        }
        for (t, b) in tensors.iter().zip(kernel.bindings) {
            if b.access.writes() {
                self.halves.remove(&t.id);
                let missing = &mut self.missing_writes[t.id.0 as usize];
                *missing = missing.saturating_sub(1);
                let role = self.program.tensor(t.id).role;
                if reads_grad && matches!(role, Role::Activation | Role::Output) {
                    self.wants_grad[t.id.0 as usize] = true;
                }
            }
        }
        let (siblings, params) = (call.siblings(), call.params().to_vec());
        self.push(Command::Dispatch(Dispatch { kernel, siblings, constants, params, tensors, workgroups }));
    }

    /// Fills a tensor with zeros; counts as its first write.
    pub fn clear(&mut self, t: Tensor) {
        self.halves.remove(&t.id);
        self.missing_writes[t.id.0 as usize] = 0;
        self.push(Command::Clear(t.id));
    }

    /// An f32 activation of zeros; kernels may add to it.
    pub(super) fn zeros_like(&mut self, name: &str, x: Tensor) -> Tensor {
        let zeros = self.like(name, x);
        self.clear(zeros);
        zeros
    }

    /// Whether this tensor needs a gradient: it is a parameter or depends on one, and is not detached.
    pub fn wants_grad(&self, t: Tensor) -> bool {
        !t.is_detached && self.wants_grad[t.id.0 as usize]
    }

    /// `x` as a constant: the same elements, at no cost, but ops on this handle do not add gradients to `x`.
    ///
    /// # Panics
    /// If `x` is a parameter, to whose gradient kernels add unconditionally.
    pub fn detach(&self, x: Tensor) -> Tensor {
        let info = self.program.tensor(x.id);
        assert_ne!(info.role, Role::Parameter, "detach: {} is a parameter", info.name);
        Tensor { is_detached: true, ..x }
    }

    /// Calls `f` with the gradient of `y` when the backward walk reaches this op, if `y` has one.
    pub fn on_backward(&mut self, y: Tensor, f: impl FnOnce(&mut Graph, Tensor) + 'static) {
        self.on_backward_many(&[y], move |g, gradients| {
            if let [Some(d_y)] = gradients {
                f(g, *d_y);
            }
        });
    }

    /// Calls `f` with the gradients of `ys` when the backward walk reaches this op, if any has one.
    pub fn on_backward_many(&mut self, ys: &[Tensor], f: impl FnOnce(&mut Graph, &[Option<Tensor>]) + 'static) {
        if ys.iter().any(|y| self.wants_grad(*y)) {
            self.tape.push((ys.to_vec(), Box::new(f)));
        }
    }

    /// The gradient of a parameter, or of a [stack of them](Graph::stack_parameters); kernels add to it.
    ///
    /// # Panics
    /// If `w` is neither.
    pub fn param_grad(&mut self, w: Tensor) -> Tensor {
        let info = self.program.tensor(w.id);
        assert!(matches!(info.role, Role::Parameter | Role::Stack), "param_grad: {} is a {:?}", info.name, info.role);
        let name = format!("d_{}", info.name);
        let shape = info.shape;
        let is_gradient = |t: &Tensor| matches!(self.program.tensor(t.id).role, Role::ParameterGradient | Role::Stack);
        let known = self.find(&name).filter(is_gradient);
        known.unwrap_or_else(|| self.create(&name, shape, DType::F32, Role::ParameterGradient)).reshape(w.shape)
    }

    /// Adds a gradient of an activation. A second one is added to the first. That of a detached handle is dropped.
    pub fn add_grad(&mut self, x: Tensor, d_x: Tensor) {
        if x.is_detached {
            return;
        }
        assert_eq!(x.shape.len(), d_x.shape.len(), "add_grad: {:?} against {:?}", x.shape, d_x.shape);
        let sum = match self.gradients.get(&x.id).copied() {
            Some(first) => self.sum("d_sum", first, d_x),
            None => d_x,
        };
        self.gradients.insert(x.id, sum);
    }

    /// The gradient added so far; a detached handle has none.
    pub fn grad(&self, x: Tensor) -> Option<Tensor> {
        if x.is_detached {
            return None;
        }
        self.gradients.get(&x.id).map(|g| g.reshape(x.shape))
    }

    /// Takes the gradient of `x` added so far, for an op that adds its own gradient in the same pass and sets the sum.
    pub fn take_grad(&mut self, x: Tensor) -> Option<Tensor> {
        let gradient = self.grad(x)?;
        self.gradients.remove(&x.id);
        Some(gradient)
    }

    /// d(total) / d(loss), a scalar `[1]` that the host writes: the weight of the micro-batch in its update, or a test's cotangent.
    pub fn loss_seed(&mut self) -> Tensor {
        self.find("loss_seed").unwrap_or_else(|| self.input("loss_seed", [1], DType::F32))
    }

    /// Walks the tape in reverse from `loss` `[1]` and appends every op's backward.
    pub fn backward(&mut self, loss: Tensor) {
        assert_eq!(loss.shape.len(), 1, "backward: the loss has shape {:?}", loss.shape);
        let seed = self.loss_seed();
        self.backward_from(&[(loss, seed)]);
    }

    /// As [`Graph::backward`], from several tensors with given gradients.
    pub fn backward_from(&mut self, seeds: &[(Tensor, Tensor)]) {
        for (y, d_y) in seeds {
            self.add_grad(*y, *d_y);
        }
        while let Some((ys, closure)) = self.tape.pop() {
            let gradients: Vec<_> = ys.iter().map(|y| self.grad(*y)).collect();
            if gradients.iter().any(Option::is_some) {
                closure(self, &gradients);
            }
        }
    }
}
