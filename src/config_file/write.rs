//! The effective file: every key that applies, defaults filled in, in the order of the schema.

use super::Root;
use super::schema::{Condition, Field, Kind, literal, lookup, table_of};

/// `config` as TOML with every default filled in.
///
/// Keys that do not apply are left out, so that the file loads without errors; a config from [`load`](super::load) has the
/// defaults there, so it loads to an equal config.
pub fn effective_toml<C: Root>(config: &C) -> String {
    let values = table_of(config);
    let Kind::Table(fields) = C::kind() else { unreachable!("a config is a table of options") };
    let mut text = String::new();
    table(&mut text, &values, &values, &fields, "");
    text
}

/// Appends one table: its own keys, then the tables below it.
fn table(text: &mut String, root: &toml::Table, values: &toml::Table, fields: &[Field], path: &str) {
    let applies = |condition: Condition| {
        let name = lookup(root, condition.key).and_then(toml::Value::as_str);
        name.is_some_and(|name| condition.among.contains(&name))
    };
    let fields: Vec<_> = fields.iter().filter(|field| field.when.is_none_or(applies)).collect();
    let lines = fields.iter().filter(|field| !matches!(field.kind, Kind::Table(_) | Kind::Map(_)));
    block(text, path, lines.map(|field| format!("{} = {}", field.name, literal(&values[field.name]))));
    for field in fields {
        let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        match (&field.kind, &values[field.name]) {
            (Kind::Table(fields), toml::Value::Table(below)) => table(text, root, below, fields, &path),
            (Kind::Map(_), toml::Value::Table(map)) => {
                block(text, &path, map.iter().map(|(key, value)| format!("{key:?} = {}", literal(value))));
            }
            _ => {}
        }
    }
}

/// Appends `[path]` and its lines, or nothing for no lines.
fn block(text: &mut String, path: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() {
        return;
    }
    if !path.is_empty() {
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}[{path}]\n"));
    }
    text.push_str(&lines.join("\n"));
    text.push('\n');
}
