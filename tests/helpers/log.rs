//! What tests compare of `metrics.jsonl`.

// Each test binary uses some of it.
#![allow(dead_code)]

use moelab::run::records::{Event, Rewinds, complete_lines};

/// The events of all lines. A last line without a line feed was torn by a crash and is left out. The error names the line.
pub fn read(text: &str) -> Result<Vec<Event>, String> {
    let event = |(number, line)| Event::from_line(line).map_err(|problem| format!("metrics.jsonl:{}: {problem}", number + 1));
    complete_lines(text).enumerate().map(event).collect()
}

/// The complete lines of the current state of the run, without discarded and `rewound` lines.
pub fn current(text: &str) -> Result<String, String> {
    let events = read(text)?;
    let mut rewinds = Rewinds::default();
    (0..).zip(&events).for_each(|(position, event)| rewinds.note(position, event));
    let rewinds = rewinds.finish();
    let is_current = |(position, event): (u64, &Event)| {
        !matches!(event, Event::Rewound(_)) && event.update().is_none_or(|update| rewinds.keeps(position, update))
    };
    let lines = complete_lines(text).zip((0..).zip(&events)).filter(|(_, entry)| is_current(*entry));
    Ok(lines.map(|(line, _)| format!("{line}\n")).collect())
}

/// The same lines without their `time` and `check`: equal for runs with equal bits.
pub fn without_time(text: &str) -> Result<String, String> {
    let mut lines = String::new();
    for (number, line) in complete_lines(text).enumerate() {
        let mut value: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).map_err(|problem| format!("metrics.jsonl:{}: {problem}", number + 1))?;
        value.remove("time");
        value.remove("check");
        lines += &serde_json::Value::Object(value).to_string();
        lines.push('\n');
    }
    Ok(lines)
}
