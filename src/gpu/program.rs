//! A program: the static command list of one training step, as plain data without any wgpu object.
//!
//! [`Program`]'s `Display` is the listing.

use std::fmt;

use super::{Access, BindingKind, DType, KernelInfo, Shape, Tensor, TensorId};

/// The role of a tensor in the step, which determines its storage and lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Written by exactly one command, shares its storage with others whose lifetimes do not overlap.
    Activation,
    /// Written by the host (tokens, targets).
    Input,
    /// Trained; lives as long as the run.
    Parameter,
    /// Accumulated gradient of a parameter, cleared at the start of an update.
    ParameterGradient,
    /// Optimizer state, or state carried between micro-batches; initially zero, lives as long as the run.
    State,
    /// Several parameters, their gradients or their states, one after another: see [`TensorInfo::within`].
    Stack,
    /// Set once when the program is compiled.
    Constant,
    /// Read by the host after the step.
    Output,
}

impl Role {
    /// Whether the planner may share its storage.
    pub fn is_planned(self) -> bool {
        self == Role::Activation
    }

    /// Whether it outlives a step: its storage and representations are in a [`Memory`](super::Memory).
    pub fn is_kept(self) -> bool {
        matches!(self, Role::Parameter | Role::ParameterGradient | Role::State | Role::Stack)
    }
}

/// The description of a tensor in a program.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Unique among persistent tensors; programs that share a memory share these by name.
    pub name: String,
    /// Shape at creation.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    /// Its role in the step.
    pub role: Role,
    /// The values of a constant.
    pub values: Option<Vec<f32>>,
    /// The stack that holds its elements, and the byte in it at which they start.
    pub within: Option<(TensorId, u64)>,
}

impl TensorInfo {
    /// Bytes of its elements.
    pub fn bytes(&self) -> u64 {
        u64::from(self.shape.len()) * self.dtype.bytes()
    }
}

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The entry point.
    pub kernel: &'static KernelInfo,
    /// Those that compute the same, itself included.
    pub siblings: &'static [&'static KernelInfo],
    /// Values of overridable constants.
    pub constants: Vec<(&'static str, f64)>,
    /// `Params` as bytes.
    pub params: Vec<u8>,
    /// One tensor per binding, in the order of [`KernelInfo::bindings`].
    pub tensors: Vec<Tensor>,
    /// Grid.
    pub workgroups: [u32; 3],
}

impl Dispatch {
    /// Every (tensor, access, kind) of this launch.
    pub fn uses(&self) -> impl Iterator<Item = (Tensor, Access, BindingKind)> + '_ {
        self.tensors.iter().zip(self.kernel.bindings).map(|(t, b)| (*t, b.access, b.kind))
    }
}

/// One step of the list.
#[derive(Clone, Debug)]
pub enum Command {
    /// Launch a kernel.
    Dispatch(Dispatch),
    /// Fill with zeros.
    Clear(TensorId),
    /// Copy all elements; both tensors have the same bytes.
    Copy {
        /// The source.
        source: TensorId,
        /// The target.
        target: TensorId,
    },
}

impl Command {
    /// Tensors that it accesses, and how.
    pub fn uses(&self) -> Vec<(TensorId, Access, BindingKind)> {
        let storage = BindingKind::Storage { read_only: false };
        match self {
            Command::Dispatch(d) => d.uses().map(|(t, a, k)| (t.id, a, k)).collect(),
            Command::Clear(t) => vec![(*t, Access::Write, storage)],
            Command::Copy { source, target } => vec![(*source, Access::Read, storage), (*target, Access::Write, storage)],
        }
    }
}

/// The command lists of a step. `micro` runs once per micro-batch, `update` once per update, after the last of them.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// All tensors, by id.
    pub tensors: Vec<TensorInfo>,
    /// Forward and backward of one micro-batch.
    pub micro: Vec<Command>,
    /// Gradient norm, clip, optimizers.
    pub update: Vec<Command>,
}

impl Program {
    /// The tensor of this name.
    pub fn find(&self, name: &str) -> Option<TensorId> {
        self.tensors.iter().position(|t| t.name == name).map(|i| TensorId(i as u32))
    }

    /// The description of a tensor.
    pub fn tensor(&self, id: TensorId) -> &TensorInfo {
        &self.tensors[id.0 as usize]
    }

    /// The tensors that a stack holds, in order; none if it is not a stack.
    pub fn parts(&self, stack: TensorId) -> Vec<TensorId> {
        let is_part = |t: &TensorInfo| t.within.is_some_and(|(within, _)| within == stack);
        self.tensors.iter().enumerate().filter(|(_, t)| is_part(t)).map(|(index, _)| TensorId(index as u32)).collect()
    }

    /// Number of kernel launches in (micro, update).
    pub fn dispatches(&self) -> (usize, usize) {
        let count = |list: &[Command]| list.iter().filter(|c| matches!(c, Command::Dispatch(_))).count();
        (count(&self.micro), count(&self.update))
    }

    fn show(&self, f: &mut fmt::Formatter, title: &str, commands: &[Command]) -> fmt::Result {
        writeln!(f, "{title}: {} commands", commands.len())?;
        let name = |id: TensorId| &self.tensor(id).name;
        for (index, command) in commands.iter().enumerate() {
            write!(f, "{index:5}  ")?;
            match command {
                Command::Clear(t) => writeln!(f, "clear {}", name(*t))?,
                Command::Copy { source, target } => writeln!(f, "copy {} -> {}", name(*source), name(*target))?,
                Command::Dispatch(d) => {
                    let [x, y, z] = d.workgroups;
                    write!(f, "{} <{x}, {y}, {z}>", d.kernel.name())?;
                    for ((t, access, kind), b) in d.uses().zip(d.kernel.bindings) {
                        let mark = match (access, kind) {
                            (_, BindingKind::Texels(_)) => "image ",
                            (Access::Read, _) => "",
                            (Access::Write, _) => "=",
                            (Access::ReadWrite, _) => "+=",
                        };
                        write!(f, "  {mark}{}:{} {:?}", b.name, name(t.id), t.shape)?;
                    }
                    writeln!(f)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.show(f, "micro", &self.micro)?;
        self.show(f, "update", &self.update)
    }
}
