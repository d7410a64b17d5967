//! Reflection: one WGSL source -> what Rust has to know of it, validated with exactly what the source states that it requires
//! and checked at browser default limits unless it states others.

use std::collections::BTreeSet;

use naga::{
    AddressSpace, Block, Expression, Function, Handle, Literal, Module, ScalarKind, Statement, StorageAccess, TypeInner,
    proc::Layouter,
    valid::{Capabilities, FunctionInfo, GlobalUse, ModuleInfo, ValidationFlags, Validator},
};

use super::statements::Requires;

const MAX_STORAGE_BUFFERS: u32 = 8;
const MAX_INVOCATIONS: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16 * 1024;
const STEP_GROUP: u32 = 1;
/// What a texture's name ends in where its tensor is bound as a buffer, too.
const TEXELS: &str = "_texels";

/// A scalar field or constant: its name and Rust type, and for a constant its value.
#[derive(Clone, PartialEq)]
pub struct Scalar {
    pub name: String,
    pub rust: &'static str,
    pub value: String,
}

pub struct Source {
    /// The fields of `Params` and its bytes.
    pub params: Option<(Vec<Scalar>, u32)>,
    pub constants: Vec<Scalar>,
    pub overrides: Vec<String>,
    pub entries: Vec<Entry>,
    /// The fields of `Step`, if the source reads them.
    pub step: Option<Vec<Scalar>>,
}

pub struct Entry {
    pub name: String,
    pub uses_params: bool,
    pub uses_step: bool,
    /// Those of the source's that it reads.
    pub overrides: Vec<String>,
    pub bindings: Vec<Binding>,
}

pub struct Binding {
    /// The variable's name.
    pub name: String,
    /// The tensor that it shows.
    pub field: String,
    pub binding: u32,
    pub is_texture: bool,
    pub is_read_only: bool,
    pub dtype: &'static str,
    pub element_bytes: u32,
    pub access: Access,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

/// Parses, validates and reflects a source; `file` names it in messages.
///
/// # Errors
/// Parse and validation errors with the place in the generated text, what the source requires without stating it or states without
/// need, and every limit that is exceeded.
pub fn source(text: &str, file: &str, requires: Requires) -> Result<Source, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string_with_path(text, file))?;
    let info = validate(&module, text, file, requires)?;
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| format!("{file}: {e}"))?;
    let reader = Reader { file, module: &module, layouter: &layouter };
    let params = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params"));
    let mut entries = Vec::new();
    for (index, entry) in module.entry_points.iter().enumerate() {
        let uses = info.get_entry_point(index);
        reader.check_limits(entry, uses, requires)?;
        entries.push(reader.entry(entry, uses, params.map(|(handle, _)| handle))?);
    }
    let params = params.map(|(handle, _)| Ok::<_, String>((reader.fields("Params", handle)?, layouter[handle].size))).transpose()?;
    let step = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Step"));
    Ok(Source {
        params,
        constants: reader.constants(),
        overrides: module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect(),
        entries,
        step: step.map(|(handle, _)| reader.fields("Step", handle)).transpose()?,
    })
}

/// Validates with what is stated, and holds that all of it is needed.
fn validate(module: &Module, text: &str, file: &str, requires: Requires) -> Result<ModuleInfo, String> {
    let stated = [
        (requires.f16, "f16", Capabilities::SHADER_FLOAT16),
        (requires.subgroup > 0, "subgroups", Capabilities::SUBGROUP),
        (requires.matrix.is_some(), "matrices", Capabilities::COOPERATIVE_MATRIX),
    ];
    #[expect(clippy::result_large_err, reason = "an error ends the build")]
    let with = |without: &str| {
        let granted = stated.iter().filter(|(is_stated, name, _)| *is_stated && *name != without);
        Validator::new(ValidationFlags::all(), granted.fold(Capabilities::empty(), |all, (_, _, c)| all | *c))
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(module)
    };
    let info = with("").map_err(|e| {
        let names: Vec<&str> = stated.iter().filter(|(is_stated, ..)| *is_stated).map(|(_, name, _)| *name).collect();
        let stated = if names.is_empty() { "nothing".into() } else { names.join(", ") };
        format!("{}\n{file}: the source states `// requires:` {stated} beside images and limits", e.emit_to_string_with_path(text, file))
    })?;
    for (is_stated, name, _) in stated {
        if is_stated && with(name).is_ok() {
            return Err(format!("{file}: states `// requires: {name}` and does not use it: leave it out"));
        }
    }
    let has_texture = module.global_variables.iter().any(|(_, v)| matches!(module.types[v.ty].inner, TypeInner::Image { .. }));
    if has_texture != requires.images {
        return Err(match has_texture {
            true => format!("{file}: binds a texture: state `// requires: images`"),
            false => format!("{file}: states `// requires: images` and binds no texture"),
        });
    }
    Ok(info)
}

struct Reader<'a> {
    file: &'a str,
    module: &'a Module,
    layouter: &'a Layouter,
}

impl Reader<'_> {
    fn fields(&self, what: &str, handle: Handle<naga::Type>) -> Result<Vec<Scalar>, String> {
        let TypeInner::Struct { members, .. } = &self.module.types[handle].inner else {
            return Err(format!("{}: {what} is not a struct", self.file));
        };
        let field = |member: &naga::StructMember| {
            let name = member.name.clone().unwrap_or_default();
            let rust = match self.module.types[member.ty].inner {
                TypeInner::Scalar(s) if s.kind == ScalarKind::Uint => "u32",
                TypeInner::Scalar(s) if s.kind == ScalarKind::Sint => "i32",
                TypeInner::Scalar(s) if s.kind == ScalarKind::Float => "f32",
                _ => return Err(format!("{}: {what}.{name} is no scalar; scalars keep WGSL's and Rust's layouts equal", self.file)),
            };
            Ok(Scalar { name, rust, value: String::new() })
        };
        members.iter().map(field).collect()
    }

    fn constants(&self) -> Vec<Scalar> {
        let scalar = |c: &naga::Constant| {
            let (rust, value) = match self.module.global_expressions[c.init] {
                naga::Expression::Literal(Literal::U32(v)) => ("u32", v.to_string()),
                naga::Expression::Literal(Literal::I32(v)) => ("i32", v.to_string()),
                naga::Expression::Literal(Literal::F32(v)) => ("f32", format!("{v:?}")),
                _ => return None,
            };
            Some(Scalar { name: c.name.clone()?, rust, value })
        };
        let mut all: Vec<Scalar> = self.module.constants.iter().filter_map(|(_, c)| scalar(c)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn check_limits(&self, entry: &naga::EntryPoint, uses: &FunctionInfo, requires: Requires) -> Result<(), String> {
        let used = || self.module.global_variables.iter().filter(|(h, _)| !uses[*h].is_empty());
        let buffers = used().filter(|(_, v)| matches!(v.space, AddressSpace::Storage { .. })).count();
        let workgroup: u32 = used().filter(|(_, v)| v.space == AddressSpace::WorkGroup).map(|(_, v)| self.layouter[v.ty].size).sum();
        let invocations: u32 = entry.workgroup_size.iter().product();
        for (what, found, most) in [
            ("storage buffers", buffers as u32, MAX_STORAGE_BUFFERS),
            ("invocations", invocations, MAX_INVOCATIONS.max(requires.invocations)),
            ("workgroup_bytes", workgroup, MAX_WORKGROUP_BYTES.max(requires.workgroup_bytes)),
        ] {
            if found > most {
                return Err(format!("{}: {}: {found} {what}, browsers and what the source requires give {most}", self.file, entry.name));
            }
        }
        Ok(())
    }

    fn entry(&self, entry: &naga::EntryPoint, uses: &FunctionInfo, params: Option<Handle<naga::Type>>) -> Result<Entry, String> {
        let (mut uses_params, mut uses_step) = (false, false);
        let mut bindings = Vec::new();
        for (handle, variable) in self.module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            if uses[handle].is_empty() {
                continue;
            }
            if binding.group == STEP_GROUP {
                uses_step = true;
            } else if variable.space == AddressSpace::Uniform {
                uses_params = true;
                if Some(variable.ty) != params || binding.binding != 0 {
                    return Err(format!("{}: the uniform at group 0 must be `params: Params` at binding 0", self.file));
                }
            } else {
                bindings.push(self.binding(variable, binding.binding, uses[handle])?);
            }
        }
        let mut overrides = BTreeSet::new();
        self.overrides_of(&entry.function, &mut overrides);
        let overrides = overrides.into_iter().filter_map(|handle| self.module.overrides[handle].name.clone()).collect();
        Ok(Entry { name: entry.name.clone(), uses_params, uses_step, overrides, bindings })
    }

    /// The overrides that a function and what it calls read.
    fn overrides_of(&self, function: &Function, found: &mut BTreeSet<Handle<naga::Override>>) {
        found.extend(function.expressions.iter().filter_map(|(_, expression)| match expression {
            Expression::Override(handle) => Some(*handle),
            _ => None,
        }));
        self.overrides_of_calls(&function.body, found);
    }

    fn overrides_of_calls(&self, block: &Block, found: &mut BTreeSet<Handle<naga::Override>>) {
        for statement in block {
            match statement {
                Statement::Call { function, .. } => self.overrides_of(&self.module.functions[*function], found),
                Statement::Block(inner) => self.overrides_of_calls(inner, found),
                Statement::If { accept, reject, .. } => {
                    self.overrides_of_calls(accept, found);
                    self.overrides_of_calls(reject, found);
                }
                Statement::Loop { body, continuing, .. } => {
                    self.overrides_of_calls(body, found);
                    self.overrides_of_calls(continuing, found);
                }
                Statement::Switch { cases, .. } => cases.iter().for_each(|case| self.overrides_of_calls(&case.body, found)),
                _ => {}
            }
        }
    }

    fn binding(&self, variable: &naga::GlobalVariable, binding: u32, uses: GlobalUse) -> Result<Binding, String> {
        let name = variable.name.clone().unwrap_or_default();
        let wrong = |why: &str| format!("{}: {name} {why}", self.file);
        let (is_texture, is_read_only, dtype, element_bytes) = match (&self.module.types[variable.ty].inner, variable.space) {
            (TypeInner::Image { .. }, _) => (true, true, "DType::F32", 16),
            (TypeInner::Array { base, .. }, AddressSpace::Storage { access }) => {
                let scalar = match &self.module.types[*base].inner {
                    TypeInner::Atomic(s) => *s,
                    other => other.scalar().ok_or_else(|| wrong("is no array of scalars or vectors"))?,
                };
                let dtype = match (scalar.kind, scalar.width) {
                    (ScalarKind::Uint, 4) => "DType::U32",
                    (ScalarKind::Float, 4) => "DType::F32",
                    (ScalarKind::Float, 2) => "DType::F16",
                    _ => return Err(wrong("is not f32, f16 or u32")),
                };
                (false, !access.contains(StorageAccess::STORE), dtype, self.layouter[*base].size)
            }
            _ => return Err(wrong("must be a storage array or a texture_2d")),
        };
        let access = match (is_texture || uses.contains(GlobalUse::READ), uses.contains(GlobalUse::WRITE)) {
            (_, false) => Access::Read,
            (false, true) => Access::Write,
            (true, true) => Access::ReadWrite,
        };
        let field = name.strip_suffix(TEXELS).filter(|_| is_texture).unwrap_or(&name).to_string();
        Ok(Binding { name, field, binding, is_texture, is_read_only, dtype, element_bytes, access })
    }
}
