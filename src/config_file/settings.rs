//! The settings of a config that differ from the defaults, by class: these identify a run.

use std::collections::BTreeMap;

use super::Root;
use super::schema::{Class, Kind, literal, lookup, table_of};

/// Values as TOML, by class and full path.
pub type Settings = BTreeMap<Class, BTreeMap<String, String>>;

/// Every key of a config with its value as TOML, and whether it has an effect there.
pub fn values<C: Root>(config: &C) -> BTreeMap<String, (String, bool)> {
    let values = table_of(config);
    let mut found = BTreeMap::new();
    C::kind().leaves(&mut |path, field, conditions| {
        let name = |key: &str| lookup(&values, key).and_then(toml::Value::as_str);
        let applies = conditions.iter().all(|condition| name(condition.key).is_some_and(|name| condition.among.contains(&name)));
        let absent = if matches!(field.kind, Kind::Map(_)) { "{}" } else { "" };
        found.insert(path.to_owned(), (lookup(&values, path).map_or(absent.to_owned(), literal), applies));
    });
    found
}

/// The keys of `config` that apply and differ from the defaults. Keys at their default are left out, so that a key added by a
/// later release changes nothing.
pub fn settings<C: Root>(config: &C) -> Settings {
    let values = table_of(config);
    let defaults = table_of(&C::default());
    let mut found = Settings::new();
    C::kind().leaves(&mut |path, field, conditions| {
        let name = |key: &str| lookup(&values, key).and_then(toml::Value::as_str);
        if !conditions.iter().all(|condition| name(condition.key).is_some_and(|name| condition.among.contains(&name))) {
            return;
        }
        let absent = match field.kind {
            Kind::Map(_) => "{}".to_owned(),
            _ => String::new(),
        };
        let text = |table: &toml::Table| lookup(table, path).map_or(absent.clone(), literal);
        if text(&values) != text(&defaults) {
            found.entry(field.class).or_default().insert(path.to_owned(), text(&values));
        }
    });
    found
}
