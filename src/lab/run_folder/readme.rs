//! `README.md` of a run folder: describes its files.

use crate::{lab::files::SERIES, run::arrays::Layout};

/// Name of the file.
pub const README: &str = "README.md";

/// The text, with the line of Python that reads the array records.
pub fn text(layout: &Layout) -> String {
    let mut text = "# A moelab run

| file | content |
|---|---|
| `config.effective.toml` | every setting: the same file trains the same run |
| `metrics.jsonl` | one JSON object per line: updates, evaluations, samples, incidents |
"
    .to_string();
    if !layout.is_empty() {
        text += "| `series.bin`, `series.json` | series with more than one value per update, as binary records, and their layout |\n";
    }
    text += "| `checkpoints/` | weights, optimizer moments and state; `latest` and `best` each contain the name of a folder |
| `summary.json`, `report.md`, `loss.svg` | the result |
| `SHA256SUMS` | for `sha256sum --check` |

`moelab resume` continues the run; `moelab eval` and `moelab sample` use its weights.

The log is append-only. If a run was rewound to an earlier update, after a crash or because it diverged, it has a line with
`\"kind\":\"rewound\"`: earlier lines of updates after its `to` are obsolete.
";
    if layout.is_empty() {
        return text;
    }
    text += "\nnumpy reads the binary records in one line:\n\n```python\nimport numpy\n";
    text += &layout.numpy_line(SERIES);
    text += "\n```\n
`kind` is 0 for an update and 1 for an evaluation. A record of kind 2 means that the run was rewound to its `update`: earlier
records of later updates are obsolete. Values that were not measured are NaN. `check` is the start of the SHA-256 of the rest of the
record; the record's line of the log has it as `arrays`, in hex.
\n| array | shape | unit | |\n|---|---|---|---|\n";
    for field in layout.fields() {
        let shape: Vec<String> = field.shape.iter().map(usize::to_string).collect();
        text += &format!("| `{}` | {} | {} | {} |\n", field.name, shape.join(" x "), field.unit, field.doc);
    }
    text
}
