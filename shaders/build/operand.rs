//! One body for buffers and textures: bindings of the types `Operand` and `Result` of `lib/operand.wgsl`.
//!
//! WGSL passes no buffers to functions, so each binding gets functions of its own: those of the library file that say `operand`
//! (for a `Result`, `result`), with the binding's name in its place. In a variant whose `Operand` is a texture the binding loses
//! its address space.

/// The source with the functions of its operands, from the text of the library file or of a variant of it.
pub fn complete(text: &str, library: &str) -> String {
    let is_texture = library.contains("alias Operand = texture_2d");
    let (mut out, mut operands, mut results) = (String::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let declared = |ty: &str| Some(line.split_once(&format!(": {ty};"))?.0.rsplit_once(' ')?.1.to_string());
        let operand = declared("Operand");
        match is_texture && operand.is_some() {
            true => out += &line.replace("var<storage, read>", "var"),
            false => out += line,
        }
        out.push('\n');
        operands.extend(operand);
        results.extend(declared("Result"));
    }
    for (placeholder, names) in [("operand", operands), ("result", results)] {
        let functions = library.split("\n\n").filter(|part| part.contains("fn ") && part.contains(placeholder));
        let functions: Vec<&str> = functions.collect();
        for name in names {
            for function in &functions {
                out += &format!("\n{}\n", function.trim().replace(placeholder, &name));
            }
        }
    }
    out
}
