//! Reflection: one WGSL module -> the Rust that calls it, checked at browser default limits.

use std::fmt::Write;

use naga::{
    AddressSpace, Handle, Module, ScalarKind, StorageAccess, TypeInner,
    proc::Layouter,
    valid::{Capabilities, FunctionInfo, GlobalUse, ModuleInfo, ValidationFlags, Validator},
};

const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_INVOCATIONS: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16 * 1024;
const STEP_GROUP: u32 = 1;

/// The generated Rust module for one WGSL module, and its variant for adapters with subgroups if it has one. The files stand
/// beside the Rust that includes them.
///
/// # Errors
/// Parse and validation errors with the place in the generated text, and every browser limit that is exceeded.
pub fn module(name: &str, source: &str, file: &str, subgroups: Option<(&str, &str)>) -> Result<String, String> {
    let (module, info) = parse(source, file, Capabilities::empty())?;
    let subgroup_source = match subgroups {
        Some((source, file)) => {
            parse(source, file, Capabilities::SUBGROUP)?;
            format!("Some(include_str!({file:?}))")
        }
        None => "None".into(),
    };
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| format!("{name}: {e}"))?;
    let mut out = String::new();
    let w = &mut out;
    line(w, &format!("\n#[allow(missing_docs)] // Generated: the fields are described in the shader.\npub mod {name} {{"));
    line(w, "    use super::*;");
    line(
        w,
        &format!(
            "    pub static MODULE: ModuleInfo = ModuleInfo {{ name: {name:?}, source: include_str!({file:?}), subgroup_source: {subgroup_source} }};"
        ),
    );
    let params = params(name, &module, w)?;
    for (index, entry) in module.entry_points.iter().enumerate() {
        let uses = info.get_entry_point(index);
        check_limits(name, &module, &layouter, entry, uses)?;
        entry_point(name, &module, &layouter, entry, uses, params, w)?;
    }
    out += "}\n";
    Ok(out)
}

fn parse(source: &str, file: &str, capabilities: Capabilities) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string_with_path(source, file))?;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string_with_path(source, file))?;
    Ok((module, info))
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Writes `Params` if the module has it; returns its type and bytes.
fn params(name: &str, module: &Module, out: &mut String) -> Result<Option<(Handle<naga::Type>, u32)>, String> {
    let Some((handle, ty)) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params")) else {
        return Ok(None);
    };
    let TypeInner::Struct { members, span } = &ty.inner else { return Err(format!("{name}: Params is not a struct")) };
    let mut fields = String::new();
    for member in members {
        let field = member.name.clone().unwrap_or_default();
        let rust = match module.types[member.ty].inner {
            TypeInner::Scalar(s) if s.kind == ScalarKind::Uint => "u32",
            TypeInner::Scalar(s) if s.kind == ScalarKind::Sint => "i32",
            TypeInner::Scalar(s) if s.kind == ScalarKind::Float => "f32",
            _ => return Err(format!("{name}: Params.{field} is no scalar; scalars keep WGSL's and Rust's layouts equal")),
        };
        let _ = write!(fields, " pub {field}: {rust},");
    }
    line(out, "    #[repr(C)]\n    #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]");
    line(out, &format!("    pub struct Params {{{fields} }}"));
    Ok(Some((handle, *span)))
}

fn check_limits(name: &str, module: &Module, layouter: &Layouter, entry: &naga::EntryPoint, uses: &FunctionInfo) -> Result<(), String> {
    let used = || module.global_variables.iter().filter(|(h, _)| !uses[*h].is_empty());
    let buffers = used().filter(|(_, v)| matches!(v.space, AddressSpace::Storage { .. })).count();
    let workgroup: u32 = used().filter(|(_, v)| v.space == AddressSpace::WorkGroup).map(|(_, v)| layouter[v.ty].size).sum();
    let invocations: u32 = entry.workgroup_size.iter().product();
    for (what, found, most) in [
        ("storage buffers", buffers as u32, MAX_STORAGE_BUFFERS as u32),
        ("invocations", invocations, MAX_INVOCATIONS),
        ("bytes of workgroup memory", workgroup, MAX_WORKGROUP_BYTES),
    ] {
        if found > most {
            return Err(format!("{name}: {}: {found} {what}, browsers give {most}", entry.name));
        }
    }
    Ok(())
}

fn entry_point(
    name: &str,
    module: &Module,
    layouter: &Layouter,
    entry: &naga::EntryPoint,
    uses: &FunctionInfo,
    params: Option<(Handle<naga::Type>, u32)>,
    out: &mut String,
) -> Result<(), String> {
    let mut uses_params = false;
    let mut uses_step = false;
    let mut fields = Vec::new();
    let mut infos = Vec::new();
    for (handle, variable) in module.global_variables.iter() {
        let Some(binding) = &variable.binding else { continue };
        if uses[handle].is_empty() {
            continue;
        }
        if binding.group == STEP_GROUP {
            uses_step = true;
        } else if variable.space == AddressSpace::Uniform {
            uses_params = true;
            if Some(variable.ty) != params.map(|p| p.0) || binding.binding != 0 {
                return Err(format!("{name}: the uniform at group 0 must be `params: Params` at binding 0"));
            }
        } else {
            let field = variable.name.clone().unwrap_or_default();
            infos.push(binding_info(name, module, layouter, variable, binding.binding, uses[handle])?);
            fields.push(field);
        }
    }
    let overrides: Vec<String> = module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect();
    let ty = camel_case(&entry.name);
    let upper = entry.name.to_uppercase();
    let mut declared = String::new();
    if uses_params {
        declared += " pub params: Params,";
    }
    for field in &overrides {
        let _ = write!(declared, " pub {field}: u32,");
    }
    for field in &fields {
        let _ = write!(declared, " pub {field}: Tensor,");
    }
    let params_bytes = if uses_params { params.map_or(0, |p| p.1) } else { 0 };
    line(
        out,
        &format!(
            "    pub static {upper}: KernelInfo = KernelInfo {{ module: &MODULE, entry: {:?}, params_bytes: {params_bytes}, uses_step: {uses_step}, bindings: &[{}] }};",
            entry.name,
            infos.join(", ")
        ),
    );
    line(out, &format!("    #[derive(Clone, Copy, Debug)]\n    pub struct {ty} {{{declared} }}"));
    let invocations: u32 = entry.workgroup_size.iter().product();
    line(
        out,
        &format!("    impl {ty} {{\n        /// Invocations of one workgroup.\n        pub const WORKGROUP: u32 = {invocations};\n    }}"),
    );
    line(out, &format!("    impl Call for {ty} {{"));
    line(out, &format!("        fn kernel(&self) -> &'static KernelInfo {{ &{upper} }}"));
    let bytes = if uses_params { "bytemuck::bytes_of(&self.params)" } else { "&[]" };
    line(out, &format!("        fn params(&self) -> &[u8] {{ {bytes} }}"));
    let list = fields.iter().map(|f| format!("self.{f}")).collect::<Vec<_>>().join(", ");
    line(out, &format!("        fn tensors(&self) -> Vec<Tensor> {{ vec![{list}] }}"));
    if !overrides.is_empty() {
        let list = overrides.iter().map(|f| format!("({f:?}, f64::from(self.{f}))")).collect::<Vec<_>>().join(", ");
        line(out, &format!("        fn constants(&self) -> Vec<(&'static str, f64)> {{ vec![{list}] }}"));
    }
    line(out, "    }");
    Ok(())
}

fn binding_info(
    name: &str,
    module: &Module,
    layouter: &Layouter,
    variable: &naga::GlobalVariable,
    binding: u32,
    uses: GlobalUse,
) -> Result<String, String> {
    let field = variable.name.clone().unwrap_or_default();
    let (kind, dtype, bytes) = match (&module.types[variable.ty].inner, variable.space) {
        (TypeInner::Image { .. }, _) => ("BindingKind::Image".to_string(), "DType::F32", 16),
        (TypeInner::Array { base, .. }, AddressSpace::Storage { access }) => {
            let inner = &module.types[*base].inner;
            let kind = match inner {
                TypeInner::Atomic(s) => s.kind,
                other => other.scalar_kind().ok_or_else(|| format!("{name}: {field} is no array of scalars or vectors"))?,
            };
            let dtype = match (kind, layouter[*base].size) {
                (ScalarKind::Uint, _) => "DType::U32",
                (ScalarKind::Float, _) => "DType::F32",
                _ => return Err(format!("{name}: {field} is neither f32 nor u32")),
            };
            let read_only = !access.contains(StorageAccess::STORE);
            (format!("BindingKind::Storage {{ read_only: {read_only} }}"), dtype, layouter[*base].size)
        }
        _ => return Err(format!("{name}: {field} must be a storage array or a texture_2d")),
    };
    let access = match (uses.contains(GlobalUse::READ) || kind == "BindingKind::Image", uses.contains(GlobalUse::WRITE)) {
        (_, false) => "Read",
        (false, true) => "Write",
        (true, true) => "ReadWrite",
    };
    Ok(format!(
        "BindingInfo {{ name: {field:?}, binding: {binding}, kind: {kind}, dtype: {dtype}, element_bytes: {bytes}, access: Access::{access} }}"
    ))
}

fn camel_case(name: &str) -> String {
    name.split('_')
        .map(|part| {
            let mut letters = part.chars();
            letters.next().map(|c| c.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
        })
        .collect()
}
