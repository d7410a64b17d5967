//! Turns every `shaders/*.wgsl` into Rust.
//!
//! For each file it resolves imports (WESL), unrolls the loops marked `@unroll`, parses and validates the result with naga, and
//! writes `kernels.rs`: per stem its `Params`, its constants, and one call struct per entry point with exactly the tensors that
//! this entry point uses. A renamed or added binding is a Rust compile error; nothing is listed twice. `step.rs` has the per-step
//! scalars.
//!
//! **Siblings.** Files of one stem (`matmul.wgsl`, `matmul.cpu.wgsl`) compute the same: `X.wgsl` runs on every adapter, a sibling
//! `X.NAME.wgsl` on those that have what it states that it requires, for the shapes that it states to fit. Adding a faster kernel is
//! adding a file; what one states is described in `statements.rs`, what must agree in `generate.rs`.
//!
//! **Library variants.** A library file `L.NAME.wgsl` declares what `L.wgsl` declares and states requirements of its own: each source
//! that imports `L` gets one more sibling with the variant in its place, whose rank is the sum of both. What a library file states
//! holds for every source that imports it. A variant with results of f16 has the entry points that write some, in the sources that ask for it.
//!
//! Guaranteed: the same sources give the same bytes in every build and in every folder. A file's own declarations come first, then
//! the imported ones in the order of their names; what is generated names other files relative to itself.

#[path = "expression.rs"]
mod expression;
#[path = "generate.rs"]
mod generate;
#[path = "operand.rs"]
mod operand;
#[path = "reflect.rs"]
mod reflect;
#[path = "statements.rs"]
mod statements;
#[path = "unroll.rs"]
mod unroll;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    env, fs,
    path::Path,
};

use generate::Sibling;
use statements::Statements;
use unroll::Constants;
use wesl::{
    CompileOptions, ModulePath, NoMangler, Resolver, VirtualResolver,
    syntax::{GlobalDeclaration, PathOrigin},
};

/// The library file of [`operand`].
const OPERANDS: &str = "operand";

const ENABLE_F16: &str = "enable f16;";

/// One `.wgsl` file.
struct File {
    /// Its name without `.wgsl`.
    name: String,
    path: ModulePath,
    text: String,
    states: Statements,
}

impl File {
    /// What stands before the first dot of its name.
    fn stem(&self) -> &str {
        self.name.split('.').next().unwrap_or(&self.name)
    }

    /// Its name in Rust and WESL.
    fn identifier(&self) -> String {
        self.name.replace('.', "_")
    }
}

/// Reads all sources, and writes what Rust needs of them to the output folder of the build.
///
/// # Errors
/// Sources with faults, or that do not agree.
pub fn generate() -> Result<(), String> {
    let out = env::var("OUT_DIR").map_err(|e| e.to_string())?;
    let write = |file: &str, text: &str| {
        let file = Path::new(&out).join(file);
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))
    };
    let (sources, library) = (read_folder(Path::new("shaders"), &[])?, read_folder(Path::new("shaders/lib"), &["lib"])?);
    // All files; a variant takes the place of the library file that it stands in for.
    let resolver = |variant: Option<&File>| {
        let mut resolver = VirtualResolver::new();
        let stands_in = |file: &File| variant.filter(|v| file.name == v.stem()).map_or(&file.text, |v| &v.text).clone();
        let operands = library.iter().find(|file| file.name == OPERANDS).map(stands_in).unwrap_or_default();
        library.iter().for_each(|file| resolver.add_module(file.path.clone(), Cow::Owned(stands_in(file))));
        for file in &sources {
            resolver.add_module(file.path.clone(), Cow::Owned(operand::complete(&file.text, &operands)));
        }
        resolver
    };
    let plain = resolver(None);
    let all: Vec<&File> = library.iter().chain(&sources).collect();
    let mut stems: BTreeMap<String, Vec<Sibling>> = BTreeMap::new();
    let (mut names, mut bits) = (Vec::new(), 0);
    // No browser has cooperative matrices: the page need not carry their kernels, nor those that write their operands; the call structs of the
    // latter remain.
    let is_browser = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32");
    let mut add = |name: String, stem: &str, file_of: &File, resolver: &VirtualResolver, mut states: Statements| {
        let writes_operands = states.requires.f16 && name != stem;
        if is_browser && (states.requires.matrix.is_some() || writes_operands && file_of.states.halves) {
            return Ok(());
        }
        let text = compile(&file_of.path, resolver, states.requires.f16)?;
        let constants = constants(file_of, &all, resolver)?;
        let file = format!("{name}.wgsl");
        let unindented = || text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
        match (is_browser, writes_operands) {
            (false, _) => write(&file, &text)?,
            (true, false) => write(&file, &unindented())?, // A tenth of the trainer's text, after compression.
            (true, true) => write(&file, "")?,
        }
        let mut source = reflect::source(&text, &file, states.requires)?;
        if file_of.states.halves && states.requires.f16 {
            source.entries.retain(|entry| entry.bindings.iter().any(|b| b.dtype == "DType::F16"));
            states.entries.retain(|name, _| source.entries.iter().any(|entry| entry.name == *name));
        }
        let is_replaceable = name != stem;
        let bit = is_replaceable.then_some(bits);
        bits += u32::from(is_replaceable);
        names.push((stem.to_string(), name.clone()));
        stems.entry(stem.to_string()).or_default().push(Sibling { name, bit, file, source, constants, states });
        Ok::<(), String>(())
    };
    for file in &sources {
        let (identifier, stem) = (file.identifier(), file.stem());
        let imports = |library: &File| file.text.contains(&format!("lib::{}::", library.stem()));
        let base = library.iter().filter(|base| base.name == base.stem() && imports(base));
        add(identifier.clone(), stem, file, &plain, base.fold(file.states.clone(), |states, base| states.with(&base.states)))?;
        for variant in library.iter().filter(|v| v.name != v.stem()) {
            if !imports(variant) || variant.states.halves && !file.states.halves {
                continue;
            }
            let states = file.states.clone().with(&variant.states);
            let suffix = variant.name[variant.stem().len()..].replace('.', "_");
            add(format!("{identifier}{suffix}"), stem, file, &resolver(Some(variant)), states)?;
        }
    }
    let mut rust = String::from(
        "// Generated by shaders/build.rs.\n\nuse crate::gpu::{Access, BindingInfo, BindingKind, Call, DType, ImageRow, KernelInfo, ModuleInfo, Requirements, Tensor};\n",
    );
    let mut step = None;
    let mut kernels = Vec::new();
    for (stem, siblings) in &mut stems {
        rust += &generate::stem(stem, siblings)?;
        for Sibling { name, source, .. } in siblings.iter() {
            kernels.extend(source.entries.iter().map(|entry| format!("&{stem}::{name}::{}", entry.name.to_uppercase())));
        }
        step = step.or_else(|| siblings.iter().find_map(|s| s.source.step.clone()));
    }
    rust += "\n/// Every WGSL module, as the drivers get it.\npub static MODULES: &[&ModuleInfo] = &[";
    rust += &names.iter().map(|(stem, name)| format!("&{stem}::{name}::MODULE")).collect::<Vec<_>>().join(", ");
    rust += "];\n\n/// Every entry point.\npub static KERNELS: &[&KernelInfo] = &[";
    rust += &kernels.join(", ");
    rust += "];\n";
    write("kernels.rs", &rust)?;
    let step_text = library.iter().find(|file| file.name == "step").map(|file| &*file.text).unwrap_or_default();
    write("step.rs", &step.map_or(Ok(String::new()), |fields| generate::step(&fields, step_text))?)
}

/// Reads the `.wgsl` files of one folder in the order of their names; dots of a name become underscores in module paths.
fn read_folder(folder: &Path, prefix: &[&str]) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let file_name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(name) = file_name.strip_suffix(".wgsl").map(str::to_string) else { continue };
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let states = Statements::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let components = prefix.iter().map(|p| p.to_string()).chain([name.replace('.', "_")]).collect();
        files.push(File { name, path: ModulePath::new(PathOrigin::Absolute, components), text, states });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// The WGSL of a source; a library variant has no way to enable f16 for it.
fn compile(path: &ModulePath, resolver: &VirtualResolver, has_f16: bool) -> Result<String, String> {
    let options = CompileOptions { condcomp: false, validate: false, ..Default::default() };
    // Names are kept as written, so that a driver's message speaks of what the author wrote; naga refuses clashes.
    let result = wesl::compile_sourcemap(path, resolver, &NoMangler, &options).map_err(|e| format!("{path}: {e}"))?;
    let mut syntax = result.syntax;
    unroll::translation_unit(&mut syntax).map_err(|e| format!("shaders/{}.wgsl: {e}", path.components[0]))?;
    // wesl loads modules in the order of a hash set, and joins them so.
    let own = resolver.resolve_module(path).map_err(|e| format!("{path}: {e}"))?;
    let own: HashSet<String> = own.global_declarations.iter().filter_map(|d| name_of(d)).collect();
    syntax.global_declarations.sort_by_cached_key(|d| name_of(d).filter(|name| !own.contains(name)));
    let text = syntax.to_string();
    Ok(if has_f16 && !text.contains(ENABLE_F16) { format!("{ENABLE_F16}\n\n{text}") } else { text })
}

/// The whole numbers among the constants of a source and of the files that it imports, used in WGSL or not.
fn constants(file: &File, others: &[&File], resolver: &VirtualResolver) -> Result<Constants, String> {
    let mut all = Constants::new();
    let imported = others.iter().map(|other| &other.path).filter(|path| file.text.contains(&format!("{path}::")));
    for path in imported.chain([&file.path]) {
        let unit = resolver.resolve_module(path).map_err(|e| format!("{path}: {e}"))?;
        unroll::add_constants(&unit, &mut all);
    }
    Ok(all)
}

fn name_of(declaration: &GlobalDeclaration) -> Option<String> {
    let ident = match declaration {
        GlobalDeclaration::Declaration(d) => &d.ident,
        GlobalDeclaration::TypeAlias(alias) => &alias.ident,
        GlobalDeclaration::Struct(s) => &s.ident,
        GlobalDeclaration::Function(f) => &f.ident,
        GlobalDeclaration::Void | GlobalDeclaration::ConstAssert(_) => return None,
    };
    Some(ident.name().to_string())
}
