//! A study of nine runs, three arms with three seeds, that takes moments on a CPU.

/// The study.
pub const STUDY: &str = "question = \"Is one expert enough, and is the balance loss needed?\"
base = \"base.toml\"
[arms.none]
set = [\"model.balance.coefficient=0.0\"]
[arms.top1]
set = [\"model.router.top_k=1\"]
";

/// The config of its control.
pub const BASE: &str = include_str!("tiny.toml");
