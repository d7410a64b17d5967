//! The siblings of a stem -> one Rust module: `Params`, the constants, and one call struct per entry point, which knows the
//! kernels that compute it.
//!
//! Siblings must declare equal `Params`, and their entry points equal tensors; which of them are buffers and which textures is
//! each sibling's own. A sibling may have some of the entry points only.

use std::fmt::Write;

use super::{
    expression::{Division, Scope},
    reflect::{Access, Binding, Entry, Scalar, Source},
    statements::Statements,
    unroll::Constants,
};

/// One source of a stem.
pub struct Sibling {
    /// The file's stem, dots as underscores, which also names it in listings.
    pub name: String,
    /// `None` for the reference.
    pub bit: Option<u32>,
    /// The generated file.
    pub file: String,
    pub source: Source,
    /// Whole numbers that conditions and grids may name.
    pub constants: Constants,
    pub states: Statements,
}

/// The generated module of a stem.
///
/// # Errors
/// Siblings that do not fit together, naming both, and statements that do not hold.
pub fn stem(name: &str, siblings: &mut [Sibling]) -> Result<String, String> {
    siblings.sort_by_key(|s| s.states.rank);
    for pair in siblings.windows(2) {
        let [a, b] = pair else { continue };
        if a.states.rank == b.states.rank {
            return Err(format!("{} and {}: both have rank {}, wanted different ones", a.name, b.name, a.states.rank));
        }
        if a.source.params.as_ref().map(|p| &p.0) != b.source.params.as_ref().map(|p| &p.0) {
            return Err(format!("{} and {}: Params differ: {} against {}", a.name, b.name, fields(a), fields(b)));
        }
    }
    let mut out = format!(
        "\n#[allow(missing_docs, unused_parens)] // Generated: the fields are described in the shader.\npub mod {name} {{\n    use super::*;\n"
    );
    let params = siblings.first().and_then(|s| s.source.params.clone());
    if let Some((fields, _)) = &params {
        out += "    #[repr(C)]\n    #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]\n";
        let list: String = fields.iter().map(|f| format!(" pub {}: {},", f.name, f.rust)).collect();
        let _ = writeln!(out, "    pub struct Params {{{list} }}");
    }
    constants(siblings, &mut out);
    let mut entries: Vec<&str> = Vec::new();
    for entry in siblings.iter().flat_map(|s| &s.source.entries) {
        if !entries.contains(&&*entry.name) {
            entries.push(&entry.name);
        }
    }
    for entry in entries {
        call(entry, siblings, &mut out)?;
    }
    for sibling in siblings.iter() {
        kernels(sibling, siblings, &mut out)?;
    }
    out += "}\n";
    Ok(out)
}

fn fields(sibling: &Sibling) -> String {
    let list = |fields: &[Scalar]| fields.iter().map(|f| format!("{}: {}", f.name, f.rust)).collect::<Vec<_>>().join(", ");
    sibling.source.params.as_ref().map_or("none".into(), |(fields, _)| format!("{{{}}}", list(fields)))
}

/// Constants that siblings agree on, or that only one has: those of the WGSL, and whole numbers that only files declare. The latter are
/// listed by name as well, for outputs whose slots the WGSL names.
fn constants(siblings: &[Sibling], out: &mut String) {
    let mut all: Vec<Scalar> = Vec::new();
    for sibling in siblings {
        let used = &sibling.source.constants;
        let unused = sibling.constants.iter().filter(|(name, value)| **value >= 0 && used.iter().all(|c| c.name != **name));
        all.extend(used.iter().cloned());
        all.extend(unused.map(|(name, value)| Scalar { name: name.clone(), rust: "u32", value: value.to_string() }));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut names = String::new();
    for group in all.chunk_by(|a, b| a.name == b.name) {
        if let [c, rest @ ..] = group
            && rest.iter().all(|other| other == c)
        {
            let _ = writeln!(out, "    pub const {}: {} = {};", c.name, c.rust, c.value);
            if c.rust == "u32" {
                let _ = write!(names, "({:?}, {}), ", c.name, c.name);
            }
        }
    }
    let _ = writeln!(out, "    pub const CONSTANTS: &[(&str, u32)] = &[{}];", names.trim_end_matches(", "));
}

/// The siblings that have an entry point, lowest rank first.
fn with_entry<'a>(name: &'a str, siblings: &'a [Sibling]) -> impl DoubleEndedIterator<Item = (&'a Sibling, &'a Entry)> {
    siblings.iter().filter_map(move |s| Some((s, s.source.entries.iter().find(|e| e.name == name)?)))
}

/// The tensors of an entry point: the fields of its call.
fn tensors(entry: &Entry) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for binding in &entry.bindings {
        if !fields.contains(&binding.field) {
            fields.push(binding.field.clone());
        }
    }
    fields
}

/// What an entry point does to a tensor, over all bindings that show it.
fn access(entry: &Entry, field: &str) -> Access {
    let mut of_field = entry.bindings.iter().filter(|b| b.field == field).map(|b| b.access);
    let first = of_field.next().unwrap_or(Access::Read);
    of_field.fold(first, |all, one| if all == one { all } else { Access::ReadWrite })
}

fn call(name: &str, siblings: &[Sibling], out: &mut String) -> Result<(), String> {
    let all: Vec<(&Sibling, &Entry)> = with_entry(name, siblings).collect();
    let [(first_sibling, first), rest @ ..] = all.as_slice() else { return Ok(()) };
    let fields = tensors(first);
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    for (sibling, entry) in rest {
        let (wanted, found) = (sorted(fields.clone()), sorted(tensors(entry)));
        let differ = |what: String| Err(format!("{} and {}: {name}: {what}", first_sibling.name, sibling.name));
        if wanted != found {
            return differ(format!("the tensors differ: {} against {}", wanted.join(", "), found.join(", ")));
        }
        if let Some(field) = fields.iter().find(|f| access(first, f) != access(entry, f)) {
            return differ(format!("{field} is {:?} against {:?}", access(first, field), access(entry, field)));
        }
    }
    let uses_params = all.iter().any(|(_, e)| e.uses_params);
    let mut overrides: Vec<&String> = Vec::new();
    for (sibling, o) in all.iter().flat_map(|(s, entry)| entry.overrides.iter().map(move |o| (s, o))) {
        let is_stated = sibling.states.entries.get(name).is_some_and(|e| e.constants.iter().any(|(known, _)| known == o));
        if !is_stated && is_of_call(o) && !overrides.contains(&o) {
            overrides.push(o);
        }
    }
    let ty = camel_case(name);
    let mut declared = if uses_params { " pub params: Params,".to_string() } else { String::new() };
    declared.extend(overrides.iter().map(|o| format!(" pub {o}: u32,")));
    declared.extend(fields.iter().map(|f| format!(" pub {f}: Tensor,")));
    let _ = writeln!(out, "    #[derive(Clone, Copy, Debug)]\n    pub struct {ty} {{{declared} }}");
    let upper = name.to_uppercase();
    let kernels: Vec<String> = all.iter().rev().map(|(s, _)| format!("&{}::{upper}", s.name)).collect();
    let _ = writeln!(out, "    impl Call for {ty} {{");
    let _ = writeln!(
        out,
        "        fn siblings(&self) -> &'static [&'static KernelInfo] {{ static ALL: [&KernelInfo; {}] = [{}]; &ALL }}",
        kernels.len(),
        kernels.join(", ")
    );
    let bytes = if uses_params { "bytemuck::bytes_of(&self.params)" } else { "&[]" };
    let _ = writeln!(out, "        fn params(&self) -> &[u8] {{ {bytes} }}");
    let list = fields.iter().map(|f| format!("self.{f}")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "        fn tensors(&self) -> Vec<Tensor> {{ vec![{list}] }}");
    if !overrides.is_empty() {
        let list = overrides.iter().map(|o| format!("({o:?}, f64::from(self.{o}))")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "        fn constants(&self) -> Vec<(&'static str, f64)> {{ vec![{list}] }}");
    }
    out.push_str("    }\n");
    Ok(())
}

/// Whether a call sets this pipeline-overridable constant. Those in capitals tell entry points of one module apart, or are the graph's.
fn is_of_call(constant: &str) -> bool {
    constant.chars().any(char::is_lowercase)
}

/// The static tables of one sibling.
fn kernels(sibling: &Sibling, siblings: &[Sibling], out: &mut String) -> Result<(), String> {
    let Sibling { name, bit, file, source, constants, states } = sibling;
    let _ = writeln!(out, "    pub mod {name} {{\n        use super::*;");
    let _ = writeln!(
        out,
        "        pub static MODULE: ModuleInfo = ModuleInfo {{ name: {name:?}, bit: {bit:?}, source: include_str!({file:?}), requires: {}, unchecked: {} }};",
        states.requires, states.unchecked
    );
    let none = Vec::new();
    let fields: &[Scalar] = source.params.as_ref().map_or(&none, |p| &p.0);
    let params: Vec<String> = fields.iter().filter(|f| f.rust == "u32").map(|f| f.name.clone()).collect();
    if let Some(unknown) = states.entries.keys().find(|name| source.entries.iter().all(|e| e.name != **name)) {
        return Err(format!("{name}: `{unknown}` has statements and is no entry point"));
    }
    for entry in &source.entries {
        let at = |e: String| format!("{name}: {}: {e}", entry.name);
        let tensors = with_entry(&entry.name, siblings).next().map_or_else(Vec::new, |(_, first)| tensors(first));
        let scope = Scope { params: &params, constants, tensors: &tensors, whole_tiles: None };
        let own = states.entries.get(&entry.name).cloned().unwrap_or_default();
        let grid_of = |division| scope.grid(own.grid.as_deref().ok_or("states no `// grid:`")?, division);
        let (grid, whole) = (grid_of(Division::Up).map_err(at)?, grid_of(Division::Down).map_err(at)?);
        let whole_tiles = format!("{whole}.iter().fold(1_u32, |n, side| n.saturating_mul(*side)).min(u32::MAX - 1)");
        let scope = Scope { whole_tiles: Some(&whole_tiles), ..scope };
        let conditions = states.fits.iter().chain(&own.fits).map(|text| scope.rust(text, Division::Down));
        let mut conditions = conditions.collect::<Result<Vec<_>, _>>().map_err(at)?;
        if states.whole_rows {
            let is_grouped = |b: &&Binding| !b.is_texture && (b.element_bytes == 16 || b.element_bytes == 8 && b.dtype == "DType::F16");
            let grouped = entry.bindings.iter().filter(is_grouped);
            let places = grouped.filter_map(|b| tensors.iter().position(|t| *t == b.field));
            conditions.extend(places.map(|place| format!("t[{place}].shape.last() % 4 == 0")));
        }
        let fits = if conditions.is_empty() { "true".to_string() } else { conditions.join(" && ") };
        let bindings: Vec<String> = entry.bindings.iter().map(|b| binding(b, &tensors, states)).collect();
        if let Some((unknown, _)) = own.constants.iter().find(|(name, _)| !source.overrides.contains(name)) {
            return Err(at(format!("`constants: {unknown}`: the source has no override of this name")));
        }
        let overrides = entry.overrides.iter().filter(|o| is_of_call(o) && own.constants.iter().all(|(name, _)| name != *o));
        let overrides = overrides.map(|o| format!("{o:?}")).collect::<Vec<_>>().join(", ");
        let stated = own.constants.iter().map(|(name, value)| format!("({name:?}, {value:?})")).collect::<Vec<_>>().join(", ");
        let bytes = if entry.uses_params { source.params.as_ref().map_or(0, |p| p.1) } else { 0 };
        let _ = writeln!(
            out,
            "        pub static {}: KernelInfo = KernelInfo {{ module: &MODULE, entry: {:?}, params_bytes: {bytes}, uses_step: {}, overrides: &[{overrides}], constants: &[{stated}], bindings: &[{}], fits: {}, grid: {} }};",
            entry.name.to_uppercase(),
            entry.name,
            entry.uses_step,
            bindings.join(", "),
            function(&fits),
            function(&grid)
        );
    }
    out.push_str("    }\n");
    Ok(())
}

/// A closure over the parameters' bytes `p` and the tensors `t`.
fn function(body: &str) -> String {
    let (p, t) = (body.contains("p."), body.contains("t["));
    let params = if p { "let p: &Params = bytemuck::from_bytes(p); " } else { "" };
    format!("|{}, {}| {{ {params}{body} }}", if p { "p" } else { "_" }, if t { "t" } else { "_" })
}

fn binding(b: &Binding, tensors: &[String], states: &Statements) -> String {
    let Binding { name, field, binding, is_texture, is_read_only, dtype, element_bytes, access } = b;
    let kind = match is_texture {
        true => format!("BindingKind::Texels(ImageRow::{})", states.image_row(name)),
        false => format!("BindingKind::Storage {{ read_only: {is_read_only} }}"),
    };
    let field = tensors.iter().position(|t| t == field).unwrap_or_default();
    format!(
        "BindingInfo {{ name: {name:?}, field: {field}, binding: {binding}, kind: {kind}, dtype: {dtype}, element_bytes: {element_bytes}, access: Access::{access:?} }}"
    )
}

/// The Rust of the per-step scalars; the fields' docs are the comments of the WGSL text.
///
/// # Errors
/// A field without a comment.
pub fn step(fields: &[Scalar], text: &str) -> Result<String, String> {
    let mut out = String::from(
        "/// What the host sets before each micro-step, from `shaders/lib/step.wgsl`. Schedules never touch the compiled plan.\n",
    );
    out += "#[repr(C)]\n#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]\npub struct Step {\n";
    for Scalar { name, rust, .. } in fields {
        let is_field = |line: &&str| line.trim_start().strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(':'));
        let comment = text.lines().find(is_field).and_then(|line| line.split_once("// ")).map(|(_, comment)| comment.trim());
        let comment = comment.ok_or_else(|| format!("lib/step.wgsl: {name} has no comment on its line: say what it is"))?;
        let _ = writeln!(out, "    /// {}{}.\n    pub {name}: {rust},", comment[..1].to_uppercase(), &comment[1..]);
    }
    out += "}\n";
    Ok(out)
}

fn camel_case(name: &str) -> String {
    name.split('_')
        .map(|part| {
            let mut letters = part.chars();
            letters.next().map(|c| c.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
        })
        .collect()
}
