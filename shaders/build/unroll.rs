//! Unrolls `@unroll for (var i = A; i < B; i++)` on the syntax tree; `A` and `B` are literals or module constants.
//!
//! naga gives no unroll hints and bounds-checks register arrays that are indexed by a loop counter, so register
//! tiles are written as short readable loops and reach the driver as straight code.

use std::collections::HashMap;

use wesl::syntax::*;

/// Whole numbers by name.
pub type Constants = HashMap<String, i64>;

/// Unrolls every marked loop of a module.
pub fn translation_unit(unit: &mut TranslationUnit) -> Result<(), String> {
    let mut constants = Constants::new();
    add_constants(unit, &mut constants);
    for declaration in &mut unit.global_declarations {
        if let GlobalDeclaration::Function(function) = declaration.node_mut() {
            compound(&mut function.body, &constants)?;
        }
    }
    Ok(())
}

/// The whole numbers among a module's constants; what they are made of must precede them.
pub fn add_constants(unit: &TranslationUnit, constants: &mut Constants) {
    for declaration in &unit.global_declarations {
        if let GlobalDeclaration::Declaration(d) = declaration.node()
            && d.kind == DeclarationKind::Const
            && let Some(value) = d.initializer.as_ref().and_then(|e| integer(e, constants))
        {
            constants.insert(d.ident.name().clone(), value);
        }
    }
}

fn compound(body: &mut CompoundStatement, constants: &Constants) -> Result<(), String> {
    for node in &mut body.statements {
        statement(node, constants)?;
    }
    Ok(())
}

fn statement(node: &mut StatementNode, constants: &Constants) -> Result<(), String> {
    if let Statement::For(f) = node.node()
        && f.attributes.iter().any(|a| matches!(a.node(), Attribute::Custom(c) if c.name == "unroll"))
    {
        let (name, range) = header(f, constants)?;
        let mut copies = CompoundStatement::default();
        for value in range {
            let mut body = f.body.clone();
            substitute_compound(&mut body, &name, value);
            compound(&mut body, constants)?;
            copies.statements.push(StatementNode::from(Statement::Compound(body)));
        }
        *node.node_mut() = Statement::Compound(copies);
        return Ok(());
    }
    match node.node_mut() {
        Statement::Compound(body) => compound(body, constants),
        Statement::If(s) => {
            compound(&mut s.if_clause.body, constants)?;
            for clause in &mut s.else_if_clauses {
                compound(&mut clause.body, constants)?;
            }
            s.else_clause.as_mut().map_or(Ok(()), |clause| compound(&mut clause.body, constants))
        }
        Statement::Switch(s) => s.clauses.iter_mut().try_for_each(|c| compound(&mut c.body, constants)),
        Statement::Loop(s) => compound(&mut s.body, constants),
        Statement::For(s) => compound(&mut s.body, constants),
        Statement::While(s) => compound(&mut s.body, constants),
        _ => Ok(()),
    }
}

/// The counter's name and its values.
fn header(f: &ForStatement, constants: &Constants) -> Result<(String, std::ops::Range<i64>), String> {
    let wrong = || "an @unroll loop must read `for (var i = A; i < B; i++)` with literal or constant bounds".to_string();
    let Some(Statement::Declaration(declaration)) = f.initializer.as_ref().map(|s| s.node()) else {
        return Err(wrong());
    };
    let name = declaration.ident.name().clone();
    let start = declaration.initializer.as_ref().and_then(|e| integer(e, constants)).ok_or_else(wrong)?;
    let Some(Expression::Binary(condition)) = f.condition.as_ref().map(|e| e.node()) else { return Err(wrong()) };
    let left_is_counter = matches!(condition.left.node(), Expression::TypeOrIdentifier(t) if *t.ident.name() == name);
    let increments = matches!(f.update.as_ref().map(|s| s.node()), Some(Statement::Increment(_)));
    if condition.operator != BinaryOperator::LessThan || !left_is_counter || !increments {
        return Err(wrong());
    }
    let end = integer(&condition.right, constants).ok_or_else(wrong)?;
    Ok((name, start..end))
}

fn integer(e: &ExpressionNode, constants: &Constants) -> Option<i64> {
    match e.node() {
        Expression::Literal(LiteralExpression::U32(v)) => Some(i64::from(*v)),
        Expression::Literal(LiteralExpression::I32(v)) => Some(i64::from(*v)),
        Expression::Literal(LiteralExpression::AbstractInt(v)) => Some(*v),
        Expression::Parenthesized(p) => integer(&p.expression, constants),
        Expression::TypeOrIdentifier(t) => constants.get(&*t.ident.name()).copied(),
        Expression::Binary(b) => {
            let (left, right) = (integer(&b.left, constants)?, integer(&b.right, constants)?);
            match b.operator {
                BinaryOperator::Addition => left.checked_add(right),
                BinaryOperator::Subtraction => left.checked_sub(right),
                BinaryOperator::Multiplication => left.checked_mul(right),
                BinaryOperator::Division => left.checked_div(right),
                _ => None,
            }
        }
        _ => None,
    }
}

fn substitute_compound(body: &mut CompoundStatement, name: &str, value: i64) {
    for node in &mut body.statements {
        substitute_statement(node.node_mut(), name, value);
    }
}

fn substitute_statement(s: &mut Statement, name: &str, value: i64) {
    let expression = |e: &mut ExpressionNode| substitute(e, name, value);
    match s {
        Statement::Compound(body) => substitute_compound(body, name, value),
        Statement::Assignment(s) => {
            expression(&mut s.lhs);
            expression(&mut s.rhs);
        }
        Statement::Increment(s) => expression(&mut s.expression),
        Statement::Decrement(s) => expression(&mut s.expression),
        Statement::If(s) => {
            expression(&mut s.if_clause.expression);
            substitute_compound(&mut s.if_clause.body, name, value);
            for clause in &mut s.else_if_clauses {
                expression(&mut clause.expression);
                substitute_compound(&mut clause.body, name, value);
            }
            if let Some(clause) = &mut s.else_clause {
                substitute_compound(&mut clause.body, name, value);
            }
        }
        Statement::Switch(s) => {
            expression(&mut s.expression);
            for clause in &mut s.clauses {
                substitute_compound(&mut clause.body, name, value);
            }
        }
        Statement::Loop(s) => substitute_compound(&mut s.body, name, value),
        Statement::For(s) => {
            if let Some(initializer) = &mut s.initializer {
                substitute_statement(initializer.node_mut(), name, value);
            }
            s.condition.iter_mut().for_each(expression);
            if let Some(update) = &mut s.update {
                substitute_statement(update.node_mut(), name, value);
            }
            substitute_compound(&mut s.body, name, value);
        }
        Statement::While(s) => {
            expression(&mut s.condition);
            substitute_compound(&mut s.body, name, value);
        }
        Statement::Return(s) => s.expression.iter_mut().for_each(expression),
        Statement::FunctionCall(s) => s.call.arguments.iter_mut().for_each(expression),
        Statement::Declaration(s) => s.initializer.iter_mut().for_each(expression),
        _ => {}
    }
}

fn substitute(e: &mut ExpressionNode, name: &str, value: i64) {
    match e.node_mut() {
        Expression::Parenthesized(p) => substitute(&mut p.expression, name, value),
        Expression::NamedComponent(n) => substitute(&mut n.base, name, value),
        Expression::Indexing(i) => {
            substitute(&mut i.base, name, value);
            substitute(&mut i.index, name, value);
        }
        Expression::Unary(u) => substitute(&mut u.operand, name, value),
        Expression::Binary(b) => {
            substitute(&mut b.left, name, value);
            substitute(&mut b.right, name, value);
        }
        Expression::FunctionCall(c) => c.arguments.iter_mut().for_each(|a| substitute(a, name, value)),
        Expression::TypeOrIdentifier(t) if *t.ident.name() == name => {
            *e.node_mut() = Expression::Literal(LiteralExpression::U32(value as u32));
            return;
        }
        _ => return,
    }
    fold(e);
}

/// Integer arithmetic on literals is folded, so that tile indices stay readable in the generated text.
fn fold(e: &mut ExpressionNode) {
    if let Expression::Binary(b) = e.node()
        && let (Expression::Literal(LiteralExpression::U32(l)), Expression::Literal(LiteralExpression::U32(r))) =
            (b.left.node(), b.right.node())
    {
        let value = match b.operator {
            BinaryOperator::Addition => l.checked_add(*r),
            BinaryOperator::Multiplication => l.checked_mul(*r),
            BinaryOperator::Division => l.checked_div(*r),
            BinaryOperator::Remainder => l.checked_rem(*r),
            _ => None,
        };
        if let Some(value) = value {
            *e.node_mut() = Expression::Literal(LiteralExpression::U32(value));
        }
    }
}
