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
pub const BASE: &str = "[model]
vocabulary = 256
width = 16
context = 16
depth.layers = 1
attention.heads = 2
ffn.width = 16
router = { experts = 4, top_k = 2 }
[data]
sequence_length = 16
batch = 2
[train]
updates = 6
micro_batches = 1
log_every = 1
evaluation = { every = 3, windows = 4 }
[sample]
prompts = []
";
