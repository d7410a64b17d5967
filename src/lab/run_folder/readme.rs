//! `README.md` of a run folder: what its files are, for one who finds it.

use super::SERIES;
use crate::run::arrays::Layout;

/// Name of the file.
pub const README: &str = "README.md";

/// The text, with the line of Python that reads the array records.
pub fn text(layout: &Layout) -> String {
    let mut text = "# A run of moelab

| file | holds |
|---|---|
| `config.effective.toml` | every setting: the same file trains the same run |
| `metrics.jsonl` | one JSON object a line: updates, evaluations, samples, incidents |
"
    .to_string();
    if !layout.is_empty() {
        text += "| `series.bin`, `series.json` | what has more than one value an update, as binary records, and their layout |\n";
    }
    text += "| `checkpoints/` | weights, optimizer moments and state; `latest` and `best` name a folder each |
| `summary.json`, `report.md`, `loss.svg` | how it ended |
| `SHA256SUMS` | for `sha256sum --check` |

`moelab resume` resumes the run, `moelab eval` and `moelab sample` use its weights.

The log is only added to. Where a run went back to an earlier update, after a crash or because it diverged, a line of
`\"kind\":\"rewound\"` says so: the lines before it of updates after its `to` are history.
";
    if layout.is_empty() {
        return text;
    }
    text += "\nnumpy reads the binary records in one line:\n\n```python\nimport numpy\n";
    text += &layout.numpy_line(SERIES);
    text += "\n```\n
`kind` is 0 for an update and 1 for an evaluation. A record of kind 2 says that the run went back to its `update`: the records
before it of later updates are history. What was not measured is NaN. `check` is the beginning of the SHA-256 of the rest of the record, and
stands in the record's line of the log as `arrays`, in hex.
\n| array | shape | unit | |\n|---|---|---|---|\n";
    for field in layout.fields() {
        let shape: Vec<String> = field.shape.iter().map(usize::to_string).collect();
        text += &format!("| `{}` | {} | {} | {} |\n", field.name, shape.join(" x "), field.unit, field.doc);
    }
    text
}
