//! Conditions and grids: small WGSL expressions over the u32 fields of `Params`, the module's constants, and the shapes of
//! tensors: `len(t)`, `width(t)`, the last dimension, `rows(t)`, and `min`, `max`; conditions
//! also over `whole_tiles`, those of the grid. They become Rust.

use wesl::syntax::{BinaryOperator, Expression, ExpressionNode, LiteralExpression};

use super::unroll::Constants;

/// What names mean.
pub struct Scope<'a> {
    /// Fields of `Params` that are u32.
    pub params: &'a [String],
    /// Constants of the source and of the library files that it imports.
    pub constants: &'a Constants,
    /// Tensors of the call, in the order of its fields.
    pub tensors: &'a [String],
    /// The Rust of the number of the grid's tiles that are whole, where the grid is known.
    pub whole_tiles: Option<&'a str>,
}

/// What `/` means.
#[derive(Clone, Copy, PartialEq)]
pub enum Division {
    /// Rounds up: tiles that cover an extent.
    Up,
    /// Rounds down.
    Down,
}

impl Scope<'_> {
    /// The Rust of an expression.
    ///
    /// # Errors
    /// What is no expression, and names that mean nothing here.
    pub fn rust(&self, text: &str, division: Division) -> Result<String, String> {
        let expression: Expression = text.parse().map_err(|e| format!("`{text}`: {e}"))?;
        self.emit(&expression, division).map_err(|e| format!("`{text}`: {e}"))
    }

    /// The Rust of a grid, three expressions: tiles that cover it, or whole ones.
    ///
    /// # Errors
    /// As [`Scope::rust`], and more than three.
    pub fn grid(&self, text: &str, division: Division) -> Result<String, String> {
        let call: Expression = format!("grid({text})").parse().map_err(|e| format!("grid `{text}`: {e}"))?;
        let Expression::FunctionCall(call) = call else { return Err(format!("grid `{text}`: wanted x, y, z")) };
        let parts = call.arguments.iter().map(|e| self.emit(e, division));
        let mut parts = parts.collect::<Result<Vec<_>, _>>().map_err(|e| format!("grid `{text}`: {e}"))?;
        if parts.is_empty() || parts.len() > 3 {
            return Err(format!("grid `{text}`: wanted one to three expressions"));
        }
        parts.resize(3, "1".into());
        Ok(format!("[{}]", parts.join(", ")))
    }

    fn emit(&self, e: &Expression, division: Division) -> Result<String, String> {
        let node = |e: &ExpressionNode| self.emit(e.node(), division);
        match e {
            Expression::Literal(LiteralExpression::AbstractInt(value)) => Ok(format!("{value}_u32")),
            Expression::Literal(LiteralExpression::U32(value)) => Ok(format!("{value}_u32")),
            Expression::Parenthesized(p) => node(&p.expression),
            Expression::TypeOrIdentifier(name) => self.name(&name.ident.name()),
            Expression::Binary(b) => {
                let (left, right) = (node(&b.left)?, node(&b.right)?);
                Ok(match b.operator {
                    BinaryOperator::Division if division == Division::Up => format!("{left}.div_ceil({right})"),
                    operator => format!("({left} {operator} {right})"),
                })
            }
            Expression::FunctionCall(call) => {
                let function = call.ty.ident.name().to_string();
                match (&*function, call.arguments.as_slice()) {
                    ("min" | "max", [a, b]) => Ok(format!("{}.{function}({})", node(a)?, node(b)?)),
                    ("len" | "width" | "rows", [t]) => self.shape(&function, t),
                    _ => Err(format!("{function}: wanted len(t), width(t), rows(t), min(a, b) or max(a, b)")),
                }
            }
            _ => Err("wanted whole numbers, names, operators and calls".into()),
        }
    }

    fn name(&self, name: &str) -> Result<String, String> {
        if name == "whole_tiles" {
            return self.whole_tiles.map(str::to_string).ok_or_else(|| "whole_tiles are what the grid says".into());
        }
        if let Some(value) = self.constants.get(name) {
            return Ok(format!("{value}_u32"));
        }
        if self.params.iter().any(|field| field == name) {
            return Ok(format!("p.{name}"));
        }
        Err(format!("{name} is neither a u32 of Params nor a constant of the source or of what it imports"))
    }

    fn shape(&self, function: &str, tensor: &ExpressionNode) -> Result<String, String> {
        let Expression::TypeOrIdentifier(name) = tensor.node() else { return Err(format!("{function}: wanted a tensor")) };
        let name = name.ident.name().to_string();
        let index = self.tensors.iter().position(|t| *t == name).ok_or_else(|| format!("{name} is no tensor of this entry point"))?;
        Ok(match function {
            "len" => format!("t[{index}].shape.len()"),
            "width" => format!("t[{index}].shape.last()"),
            _ => format!("(t[{index}].shape.len() / t[{index}].shape.last())"),
        })
    }
}
