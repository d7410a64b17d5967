//! Models of all kinds train: every file of `configs/` at its reduced size, and every two choices of the schema together.
//!
//! Both print how many models they trained. One device serves all of a test: its kernels are compiled once.

use std::collections::{BTreeMap, BTreeSet};

use moelab::{
    data::{
        Corpus,
        prepare::{self, NoFiles, Purpose},
    },
    gpu::{Capabilities, Command, PlanOptions, Role, TensorInfo},
    lab::probe::{CHECKS, Outcome},
    run::{
        Config,
        config::{self, Evaluation, load},
        model::BalanceSchedule,
    },
    train::recording,
};

use crate::{
    harness::{Ran, batch, device, drive, tiers, trainer},
    pairwise::{Axis, Row, applies, cover, depth},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn own_tier() -> Capabilities {
    *tiers().last().expect("an adapter has a tier")
}

fn committed(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(format!("{ROOT}/{folder}")).unwrap().map(|entry| entry.unwrap());
    let mut found: Vec<String> = entries
        .flat_map(|entry| {
            let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            if entry.path().is_dir() { committed(&path) } else { vec![path] }
        })
        .filter(|path| path.ends_with(".toml") && !path.ends_with("/suite.toml"))
        .collect();
    found.sort();
    found
}

/// The config without what changes no kernel and no shape: seeds, rates, coefficients, lengths, probabilities.
fn model_of(config: &Config) -> Config {
    let mut kind = Config { seed: 0, nan: Default::default(), sample: Default::default(), ..config.clone() };
    kind.schedule = Default::default();
    kind.train.evaluation = Evaluation::default();
    kind.train.early_stopping = Default::default();
    kind.train.checkpoint = Default::default();
    kind.train.log_every = 1;
    let overrides = std::mem::take(&mut kind.optimizer.overrides);
    let (adamw, muon) = (&config.optimizer.adamw, &config.optimizer.muon);
    kind.optimizer = config::Optimizer { overrides, ..Default::default() };
    (kind.optimizer.adamw.decay_gains, kind.optimizer.muon.scale) = (adamw.decay_gains, muon.scale);
    kind.optimizer.clip_norm = config.optimizer.clip_norm.min(1.0).ceil();
    kind.model.norm.eps = 1e-5;
    kind.model.balance.coefficient = 0.01;
    kind.model.balance.schedule = BalanceSchedule::default();
    kind.model.depth.recursion.halt_after = 3;
    let dropout = &mut kind.model.dropout;
    for p in [&mut dropout.embedding, &mut dropout.attention, &mut dropout.residual, &mut dropout.ffn, &mut dropout.head] {
        *p = p.ceil();
    }
    kind
}

fn assert_sound(ran: &Ran, updates: usize, what: &str) {
    let finite = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite());
    assert_eq!(ran.updates.len(), updates, "{what}");
    for record in &ran.updates {
        let routed = record.balance.into_iter().chain(record.z).collect::<Vec<_>>();
        assert!(finite(&[record.train_ce, record.grad_norm]) && finite(&routed) && !record.skipped, "{what}: {record:?}");
        assert_eq!(routed.len(), if record.expert_load.is_empty() { 0 } else { 2 }, "absent without a router, {what}: {record:?}");
        assert!(record.grad_norm > 0.0, "{what}: {record:?}");
    }
    assert!(!ran.evals.is_empty() && ran.evals.iter().all(|eval| finite(&[eval.val_ce])), "{what}: {:?}", ran.evals);
}

#[test]
fn every_committed_config_trains_and_passes_its_probes_at_its_reduced_size() {
    let read = |path: &str| std::fs::read_to_string(format!("{ROOT}/{path}")).map_err(|error| error.to_string().into());
    let files = committed("configs");
    let mut models: BTreeMap<String, (String, Config)> = BTreeMap::new();
    for path in &files {
        let reduced = load(&read, path, &[]).unwrap_or_else(|problems| panic!("{problems}")).reduced();
        models.entry(model_of(&reduced).hash()).or_insert((path.clone(), reduced));
    }
    println!("{} files are {} models at their reduced sizes", files.len(), models.len());
    let device = device(own_tier());
    for (path, config) in models.into_values() {
        let began = std::time::Instant::now();
        let (config, corpus) = prepare::corpus(config, None, Purpose::Train, &NoFiles).unwrap_or_else(|error| panic!("{path}: {error}"));
        for check in CHECKS {
            let outcome = check.run(&device, &config, &|_| {}).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(!matches!(outcome, Outcome::Fails(_)), "{path}: {}: {outcome:?}", check.claim);
        }
        let ran = drive(&mut trainer(&config, &device, corpus, PlanOptions::default()));
        assert_sound(&ran, 10, &path);
        assert!(ran.incidents.is_empty(), "an alarm, {path}: {:?}", ran.incidents);
        let [first, last] = [ran.updates.first(), ran.updates.last()].map(|record| record.unwrap().train_ce);
        println!("{path}: {first:.4} -> {last:.4}, {:.1} s", began.elapsed().as_secs_f64());
        // A byte of 256 costs ln 256 = 5.5 at first; no schedule here is so slow that ten updates gain nothing.
        assert!(first < 6.5 && last < first, "{path}: {first} -> {last}");
    }
}

/// Whatever depends on the batch, at the full published sizes: inner layers that a browser's adapter cannot bind whole are computed in
/// parts. Weights of one system are larger than a browser can bind.
#[test]
fn every_committed_batch_fits_the_bindings_of_a_browser() {
    let read = |path: &str| std::fs::read_to_string(format!("{ROOT}/{path}")).map_err(|error| error.to_string().into());
    let mut largest = 0;
    for path in &committed("configs") {
        let config = load(&read, path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let whole = Capabilities { binding_bytes: u64::MAX, ..Capabilities::PORTABLE };
        let [parts, whole] = [Capabilities::PORTABLE, whole].map(|tier| {
            let programs = [recording::training(&config, tier).program, recording::evaluation(&config, tier).program];
            let of_batch = |tensor: &&TensorInfo| matches!(tensor.role, Role::Activation | Role::Output | Role::Input);
            programs.iter().flat_map(|program| &program.tensors).filter(of_batch).map(TensorInfo::bytes).max().unwrap()
        });
        assert!(parts <= Capabilities::PORTABLE.binding_bytes, "{path}: {parts} bytes");
        largest = largest.max(whole);
    }
    assert!(largest > Capabilities::PORTABLE.binding_bytes, "the largest tensor has {largest} bytes: nothing is cut");
}

/// An op whose kernel is gone finds another, whatever the adapter: no module is needed that others are said to replace.
#[test]
fn every_module_that_others_can_replace_can_be_done_without() {
    let read = |path: &str| std::fs::read_to_string(format!("{ROOT}/{path}")).map_err(|error| error.to_string().into());
    let card = Capabilities { f16: true, subgroup_sizes: [32; 2], workgroup_bytes: 48 << 10, ..Capabilities::PORTABLE };
    let rasteriser = Capabilities { subgroup_sizes: [8; 2], ..Capabilities::CPU };
    let mut seen = BTreeSet::new();
    let mut models: BTreeMap<String, (String, Config)> = BTreeMap::new();
    for path in committed("configs") {
        let config = load(&read, &path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        // With as many layers, and as much of everything else.
        let kind = Config { data: Default::default(), ..model_of(&config) };
        models.entry(kind.hash()).or_insert((path, config));
    }
    for (path, config) in models.into_values() {
        for mut tier in [rasteriser, card, Capabilities { matrices: [[16; 3]; 4], ..card }] {
            loop {
                let program = recording::training(&config, tier).program;
                let mut launches = program.micro.iter().chain(&program.update);
                let next = launches.find_map(|command| match command {
                    Command::Dispatch(d) => Some(d.kernel.module).filter(|module| module.bit.is_some()),
                    _ => None,
                });
                let Some(module) = next else { break };
                assert!(!tier.without.contains(module), "{path}: {}", module.name);
                tier.without = tier.without.with(module);
                seen.insert(module.name);
            }
        }
    }
    assert!(["attention_cpu", "matmul_cpu_subgroups", "matmul_coop_large", "matmul_vec4"].iter().all(|name| seen.contains(name)));
}

/// What the pairs have in common: sizes, and the numbers that only matter where a choice wants them.
const BASE: &str = r#"
[model]
width = 64
context = 16
depth = { layers = 2, recursion = { high_cycles = 2, low_cycles = 2, low_gradient_steps = 1, halt_after = 2 } }
attention = { heads = 4, latent = { kv_rank = 16, rope_width = 8, value_width = 16 } }
ffn.width = 64
router.experts = 4
balance = { coefficient = 0.01, schedule = { hold = 0, decay_end = 2, end = 0.001 } }
[data]
sequence_length = 16
batch = 2
[train]
updates = 3
evaluation.every = 0
checkpoint.every = 0
[optimizer]
adamw.lr = 0.003
[schedule]
kind = "constant"
warmup = 0
"#;

/// Axes that are numbers or tables, and two whose default does not come first: the first values of all axes must go together.
/// All other choices and switches come from the schema.
const NUMBERS: [(&str, &[&str]); 17] = [
    ("model.depth.recursion.embedding_injection", &["true", "false"]),
    ("model.head.tied", &["false", "true"]),
    ("model.positions.fraction", &["1.0", "0.5"]),
    ("model.attention.kv_heads", &["0", "2"]),
    ("model.attention.latent.query_rank", &["0", "16"]),
    ("model.attention.latent.nope_width", &["8", "0"]),
    ("model.ffn.dense_layers", &["0", "1"]),
    ("model.ffn.shared_experts", &["0", "2"]),
    ("model.router.top_k", &["2", "1"]),
    ("model.router.noise", &["0.0", "0.1"]),
    ("model.router.scale", &["1.0", "2.5"]),
    ("model.router.groups", &["1", "2"]),
    ("model.balance.z_coefficient", &["0.0", "0.001"]),
    (
        "model.dropout",
        &[
            "{ embedding = 0.0, attention = 0.0, residual = 0.0, ffn = 0.0, head = 0.0 }",
            "{ embedding = 0.1, attention = 0.1, residual = 0.1, ffn = 0.1, head = 0.1 }",
        ],
    ),
    ("train.micro_batches", &["1", "2"]),
    ("optimizer.clip_norm", &["1.0", "0.0"]),
    ("optimizer.overrides", &["{}", "{ '*' = 'adamw' }"]),
];

/// Every choice and switch of model and optimizers, and the numbers above, each with what it applies to.
fn axes() -> Vec<Axis> {
    let all = config::explain();
    let mut axes: Vec<(Axis, &[String])> = Vec::new();
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let axis = |key: &str, values| Axis { key: key.to_owned(), values, needs: Vec::new() };
    let mut numbers = BTreeMap::from(NUMBERS);
    for key in &all {
        let stated = numbers.remove(key.key.as_str()).map(owned);
        let is_chosen = key.key.starts_with("model.") || key.key.starts_with("optimizer.");
        let by_schema = || {
            let switch = owned(if key.allowed == "true or false" { &["false", "true"] } else { &[] });
            let mut values: Vec<String> = key.choices.iter().map(|(name, _)| format!("\"{name}\"")).chain(switch).collect();
            values.sort_by_key(|value| *value != key.default);
            values
        };
        let values = stated.or_else(|| is_chosen.then(by_schema)).unwrap_or_default();
        if !values.is_empty() {
            axes.push((axis(&key.key, values), &key.applies));
        }
    }
    assert_eq!(numbers.keys().collect::<Vec<_>>(), [&"model.dropout"], "axes that are no keys; a whole table is none");
    axes.extend(numbers.into_iter().map(|(key, values)| (axis(key, owned(values)), &[][..])));
    for at in 0..axes.len() {
        for condition in axes[at].1 {
            // It reads: `model.norm.kind` is "rms_norm" or "layer_norm".
            let decider = condition.split('`').nth(1).expect("a condition names a key");
            let decider = axes.iter().position(|(axis, _)| axis.key == decider).expect("conditions are on choices");
            let names: Vec<&str> = condition.split('"').skip(1).step_by(2).collect();
            let of = &axes[decider].0.values;
            let among = (0..of.len()).filter(|value| names.contains(&of[*value].trim_matches('"'))).collect();
            assert!(decider < at, "{} is decided by {condition}", axes[at].0.key);
            axes[at].0.needs.push((decider, among));
        }
    }
    axes.into_iter().map(|(axis, _)| axis).collect()
}

/// The config of a row, or the first line of why not. What decides about other keys lies in a later layer than they do, so that
/// keys which do not apply are dropped.
fn config_of(axes: &[Axis], row: &Row) -> Result<Config, String> {
    let lines = |wanted: usize| {
        let of_depth = (0..axes.len()).filter(|at| depth(axes, *at) == wanted);
        of_depth.map(|at| format!("{} = {}\n", axes[at].key, axes[at].values[row[at]])).collect::<String>()
    };
    let layer = |wanted: usize| format!("extends = \"{}.toml\"\n{}", wanted + 1, lines(wanted));
    let deepest = (0..axes.len()).map(|at| depth(axes, at)).max().unwrap_or(0);
    let mut files: BTreeMap<String, String> = (0..=deepest).map(|depth| (format!("{depth}.toml"), layer(depth))).collect();
    files.insert(format!("{}.toml", deepest + 1), BASE.to_owned());
    let loaded = load(&|name: &str| files.get(name).cloned().ok_or("no such file".into()), "0.toml", &[]);
    let mut config = loaded.map_err(|problems| problems.to_string().lines().next().unwrap_or_default().to_owned())?;
    config.model.vocabulary = 64;
    Ok(config)
}

/// The axes that apply are those that the effective config shows, with the row's values.
fn assert_applies(axes: &[Axis], row: &Row, config: &Config) {
    let toml = |text: &str| toml::Value::Table(text.parse().unwrap());
    let effective = toml(&config.to_effective_toml());
    for (axis, value) in axes.iter().zip(row) {
        let wanted = toml(&format!("value = {}", axis.values[*value]))["value"].clone();
        if !wanted.is_table() {
            let found = axis.key.split('.').try_fold(&effective, |table, key| table.get(key));
            assert_eq!(found, applies(axis, |at| Some(row[at])).then_some(&wanted), "{}", axis.key);
        }
    }
}

/// What contradicts itself: a shared block that is dense in some layers, states that never see a token, a share of a latent head
/// turned, and a head that is the embedding and a copy of it.
const REFUSED: [&str; 11] = [
    "model.depth.kind = \"shared\" with model.ffn.dense_layers = 1",
    "model.depth.identity = \"none\" with model.ffn.dense_layers = 1",
    "model.depth.identity = \"embedding\" with model.ffn.dense_layers = 1",
    "model.depth.identity = \"norm\" with model.ffn.dense_layers = 1",
    "model.depth.recursion.embedding_injection = false with model.depth.recursion.start = \"learned\"",
    "model.positions.fraction = 0.5 with model.attention.kind = \"latent\"",
    "model.positions.fraction = 0.5 with model.attention.latent.query_rank = 0",
    "model.positions.fraction = 0.5 with model.attention.latent.query_rank = 16",
    "model.positions.fraction = 0.5 with model.attention.latent.nope_width = 8",
    "model.positions.fraction = 0.5 with model.attention.latent.nope_width = 0",
    "model.head.tied = true with model.head.starts_as_embedding = true",
];

#[test]
fn every_two_choices_train_together() {
    let axes = axes();
    assert!(axes.len() > 45, "{}", axes.len());
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let cover = cover(&axes, |row| match config_of(&axes, row) {
        Ok(config) => {
            assert_applies(&axes, row, &config);
            true
        }
        Err(reason) => {
            *reasons.entry(reason).or_default() += 1;
            false
        }
    });
    println!(
        "{} axes, {} pairs of choices in {} models; {} pairs refused:",
        axes.len(),
        cover.covered,
        cover.rows.len(),
        cover.refused.len()
    );
    reasons.iter().for_each(|(reason, count)| println!("  {count} times {reason}"));
    let name = |(axis, value): (usize, usize)| format!("{} = {}", axes[axis].key, axes[axis].values[value]);
    let refused: Vec<_> = cover.refused.iter().map(|(a, b)| format!("{} with {}", name(*a), name(*b))).collect();
    println!("  {}", refused.join("\n  "));
    assert_eq!(refused, REFUSED, "the pairs that the config's checks refuse");
    let device = device(own_tier());
    for row in &cover.rows {
        let config = config_of(&axes, row).expect("it was accepted");
        let live = (0..axes.len()).filter(|at| applies(&axes[*at], |at| Some(row[at])));
        let what = live.map(|at| name((at, row[at]))).collect::<Vec<_>>().join("\n  ");
        let corpus = Corpus::Batches { training: vec![batch(&config, 1)], validation: vec![batch(&config, 2)] };
        let ran = drive(&mut trainer(&config, &device, corpus, PlanOptions::default()));
        assert_sound(&ran, 3, &what);
        // The same batch each time: two updates gain something on it, whatever noise and dropout do.
        let [first, last] = [&ran.updates[0], &ran.updates[2]].map(|record| record.train_ce);
        assert!(last < first, "{first} -> {last}\n  {what}");
    }
}
