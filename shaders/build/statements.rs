//! What a shader file states about itself, in comment lines that stay WGSL for every other tool.
//!
//! In the comment block that a file begins with:
//!
//! ```text
//! // requires: images, subgroups 8     what the adapter must have, see `Requires`; nothing: every adapter
//! // fits: n % 4 == 0                  a condition on Params fields and tensors; several lines must all hold
//! // fits_groups: width % 4 == 0        a condition only where operands are whole groups of four (`lib/operand.texels.wgsl`, `.vec4`)
//! // flat: x, d_y                      textures whose rows are a power of two long, whatever the tensor's are
//! // folded: b                         textures with FOLD rows of the tensor in a row, where it has more rows than an image may
//! // whole: rows                        tensors bound four elements at a time have rows of whole groups of four
//! // halves: results                 a sibling writes its results as f16; in a library variant: it does (`lib/operand.halves.wgsl`)
//! // rank: 20                          of the siblings that an adapter has and that fit, the highest is taken
//! // unchecked: bounds                  compiled without bounds checks: the source guards every index and loop itself
//! ```
//!
//! Above an entry point, before its attributes: its own `fits:`; `grid: x, y, z`, the workgroups of a launch, where `/`
//! rounds up and what is left out is 1, see [`crate::expression`] for what both may contain; and `constants: NAME = true, ..`, the
//! values of pipeline constants with which this entry point is compiled.

use std::{collections::BTreeMap, fmt};

/// What an adapter must have to run a source.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Requires {
    /// `images`: reading through textures must pay.
    pub images: bool,
    /// `buffers`: reading through textures must not pay.
    pub buffers: bool,
    /// `f16`: 16-bit floats in shaders.
    pub f16: bool,
    /// `subgroups N`: subgroups of at least N invocations; 0: none.
    pub subgroup: u32,
    /// `matrices MxNxK`: cooperative matrices of this shape, f16 with f32 sums.
    pub matrix: Option<[u32; 3]>,
    /// `invocations N` in a workgroup; 0: as browsers.
    pub invocations: u32,
    /// `workgroup_bytes N` of workgroup memory; 0: as browsers.
    pub workgroup_bytes: u32,
}

impl Requires {
    fn parse(text: &str) -> Result<Requires, String> {
        let mut requires = Requires::default();
        for item in text.split(',').map(str::trim) {
            let (name, value) = item.split_once(' ').unwrap_or((item, ""));
            let number = || value.trim().parse::<u32>().map_err(|_| format!("`requires: {item}`: wanted a whole number after {name}"));
            match name {
                "images" => requires.images = true,
                "buffers" => requires.buffers = true,
                "f16" => requires.f16 = true,
                "subgroups" => requires.subgroup = number()?,
                "invocations" => requires.invocations = number()?,
                "workgroup_bytes" => requires.workgroup_bytes = number()?,
                "matrices" => {
                    let sides: Vec<u32> = value.split('x').filter_map(|side| side.parse().ok()).collect();
                    requires.matrix = Some(sides.try_into().map_err(|_| format!("`requires: {item}`: wanted MxNxK"))?);
                }
                _ => {
                    return Err(format!(
                        "`requires: {item}`: wanted images, buffers, f16, subgroups, matrices, invocations or workgroup_bytes"
                    ));
                }
            }
        }
        Ok(requires)
    }

    /// What both need.
    pub fn and(self, other: Requires) -> Requires {
        Requires {
            images: self.images || other.images,
            buffers: self.buffers || other.buffers,
            f16: self.f16 || other.f16,
            subgroup: self.subgroup.max(other.subgroup),
            matrix: self.matrix.or(other.matrix),
            invocations: self.invocations.max(other.invocations),
            workgroup_bytes: self.workgroup_bytes.max(other.workgroup_bytes),
        }
    }
}

/// As the Rust that makes it again.
impl fmt::Display for Requires {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Requires { images, buffers, f16, subgroup, matrix, invocations, workgroup_bytes } = self;
        write!(
            f,
            "Requirements {{ images: {images}, buffers: {buffers}, f16: {f16}, subgroup: {subgroup}, matrix: {matrix:?}, invocations: {invocations}, workgroup_bytes: {workgroup_bytes} }}"
        )
    }
}

/// What an entry point states.
#[derive(Clone, Default)]
pub struct EntryStatements {
    /// Conditions of this entry point alone.
    pub fits: Vec<String>,
    /// Its grid.
    pub grid: Option<String>,
    /// Values of pipeline constants.
    pub constants: Vec<(String, f64)>,
}

/// What a file states.
#[derive(Clone, Default)]
pub struct Statements {
    pub requires: Requires,
    pub fits: Vec<String>,
    pub fits_groups: Vec<String>,
    pub flat: Vec<String>,
    pub folded: Vec<String>,
    /// Tensors bound four elements at a time have rows of whole groups.
    pub whole_rows: bool,
    /// A sibling has results of f16.
    pub halves: bool,
    pub rank: u32,
    /// Compiled without bounds checks.
    pub unchecked: bool,
    pub entries: BTreeMap<String, EntryStatements>,
}

impl Statements {
    /// A file's statements together with those of a library variant that it imports.
    pub fn with(mut self, variant: &Statements) -> Statements {
        self.requires = self.requires.and(variant.requires);
        if variant.requires.images || variant.whole_rows {
            self.fits.append(&mut self.fits_groups);
        }
        self.whole_rows |= variant.whole_rows;
        self.fits.extend(variant.fits.iter().cloned());
        self.flat.extend(variant.flat.iter().cloned());
        self.folded.extend(variant.folded.iter().cloned());
        self.rank += variant.rank;
        self
    }

    /// What a row of a texture holds: a variant of `ImageRow`.
    pub fn image_row(&self, name: &String) -> &'static str {
        match (self.flat.contains(name), self.folded.contains(name)) {
            (true, _) => "Flat",
            (false, true) => "Folded",
            (false, false) => "Row",
        }
    }

    /// Reads a file's comments.
    ///
    /// # Errors
    /// A statement that is none, or that stands above no entry point.
    pub fn parse(source: &str) -> Result<Statements, String> {
        let mut all = Statements::default();
        let mut pending: Option<EntryStatements> = None;
        let mut in_header = true;
        for (number, line) in source.lines().enumerate() {
            let line = line.trim_end();
            in_header &= line.starts_with("//");
            let at = |e: String| format!("line {}: {e}", number + 1);
            if let Some((key, value)) = statement(line) {
                let own = (!in_header).then(|| pending.get_or_insert_with(Default::default));
                match (key, own) {
                    ("fits", None) => all.fits.push(value.into()),
                    ("fits_groups", None) => all.fits_groups.push(value.into()),
                    ("requires", None) => all.requires = all.requires.and(Requires::parse(value).map_err(at)?),
                    ("flat", None) => all.flat.extend(names(value)),
                    ("folded", None) => all.folded.extend(names(value)),
                    ("rank", None) => all.rank = value.parse().map_err(|_| at(format!("`rank: {value}`: wanted a whole number")))?,
                    ("whole", None) if value == "rows" => all.whole_rows = true,
                    ("whole", None) => return Err(at(format!("`whole: {value}`: wanted rows"))),
                    ("halves", None) if value == "results" => all.halves = true,
                    ("halves", None) => return Err(at(format!("`halves: {value}`: wanted results"))),
                    ("unchecked", None) if value == "bounds" => all.unchecked = true,
                    ("unchecked", None) => return Err(at(format!("`unchecked: {value}`: wanted bounds"))),
                    ("fits", Some(entry)) => entry.fits.push(value.into()),
                    ("grid", Some(entry)) => entry.grid = Some(value.into()),
                    ("constants", Some(entry)) => entry.constants = constants(value).map_err(at)?,
                    (key, None) => return Err(at(format!("`{key}:` belongs above an entry point"))),
                    (key, Some(_)) => return Err(at(format!("`{key}:` belongs into the comment that the file begins with"))),
                }
            } else if let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
                if let Some(entry) = pending.take() {
                    all.entries.insert(name.to_string(), entry);
                }
            } else if pending.is_some() && !line.starts_with("//") && !line.starts_with('@') {
                return Err(at("`grid:` and `fits:` belong right above an entry point".into()));
            }
        }
        Ok(all)
    }
}

fn statement(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix("// ")?.split_once(": ")?;
    ["requires", "fits", "fits_groups", "flat", "folded", "whole", "halves", "rank", "unchecked", "grid", "constants"]
        .contains(&key)
        .then_some((key, value.trim()))
}

fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(|name| name.trim().to_string())
}

/// `NAME = true, OTHER = 3`.
fn constants(text: &str) -> Result<Vec<(String, f64)>, String> {
    let one = |item: &str| {
        let (name, value) = item.split_once('=')?;
        let value = match value.trim() {
            "true" => 1.0,
            "false" => 0.0,
            number => number.parse().ok()?,
        };
        Some((name.trim().to_string(), value))
    };
    text.split(',').map(|item| one(item).ok_or_else(|| format!("`constants: {item}`: wanted NAME = a number, true or false"))).collect()
}
