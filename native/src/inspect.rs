//! Commands that inspect a config or a machine without training.

use anyhow::Result;
use moelab::{
    gpu::{
        AdapterSummary, Capabilities, Role,
        memory::{live_bytes, plan_memory},
    },
    lab::footprint::Footprint,
    run::model::cost::{cost, counts},
    train::recording,
};
use moelab_native::{err, out, print};
use serde_json::{Value, json};

use crate::{Common, ConfigArgs, open};

/// What the total excludes.
const NOT_COUNTED: &str = "not counted: compiled kernels, the driver and the tokenized text, about 100 to 150 MiB on llvmpipe";

/// The machine's memory in bytes: total and available. `None` if the system does not report it.
fn machine_memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((1024 * kibibytes("MemTotal")?, 1024 * kibibytes("MemAvailable")?))
}

/// The memory of an adapter in bytes, if it is known.
pub fn memory_of(adapter: &AdapterSummary) -> Option<u64> {
    machine_memory().filter(|_| uses_machine_memory(adapter)).map(|(all, _)| all)
}

/// Whether the adapter uses the machine's memory, as a CPU rasteriser does.
fn uses_machine_memory(adapter: &AdapterSummary) -> bool {
    adapter.tier == Capabilities::CPU.name()
}

/// Compares the total with the memory of the adapter, if it is known. Returns a warning.
fn too_much(total: u64, adapter: &AdapterSummary) -> Option<String> {
    let (all, available) = machine_memory().filter(|_| uses_machine_memory(adapter))?;
    let least = format!("the run would need at least {} of memory", mebibytes(total));
    match () {
        () if total > all => Some(format!("{least}, the machine has {}: it cannot run here", mebibytes(all))),
        () if total > available => Some(format!(
            "{least}, but only {} of the machine's {} are free: it would swap or be killed",
            mebibytes(available),
            mebibytes(all)
        )),
        () => None,
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// All problems of a config, and its memory compared with the adapter's.
pub fn check(common: &Common, args: &ConfigArgs) -> Result<()> {
    let mut config = open::config(args)?;
    open::fill_vocabulary(&mut config)?;
    let device = open::device(common)?;
    let estimate = Footprint::of(&config, recording::kernels_for(&config, &device)?);
    let (most, total) = (device.adapter.max_binding_bytes, estimate.total());
    let machine = machine_memory().filter(|_| uses_machine_memory(&device.adapter));
    let parts = estimate.parts().into_iter().chain([("total", total)]);
    if common.json {
        let mut memory: serde_json::Map<String, Value> = parts.map(|(what, bytes)| (what.to_owned(), bytes.into())).collect();
        memory.insert("largest_tensor".into(), estimate.largest_tensor.into());
        memory.insert("machine".into(), json!(machine.map(|(all, _)| all)));
        memory.insert("machine_available".into(), json!(machine.map(|(_, available)| available)));
        let fits = estimate.largest_tensor <= most && machine.is_none_or(|(all, _)| total <= all);
        print::json(&json!({ "adapter": device.adapter, "bytes": memory, "fits": fits }));
    } else {
        out!("{}: no problems", print::path(&args.config));
        out!("on {} ({} kernels), the buffers and images of a run:", print::name(&device.adapter.name), device.capabilities.name());
        for (what, bytes) in parts {
            out!("  {what:12} {:>12}", mebibytes(bytes));
        }
        out!("  {NOT_COUNTED}");
        out!("  largest tensor {}, limit of the adapter {}", mebibytes(estimate.largest_tensor), mebibytes(most));
        match machine {
            Some((all, free)) => out!("  the adapter uses the machine's memory: {}, {} of it free", mebibytes(all), mebibytes(free)),
            None => out!("  the adapter does not report its memory: compare the total with its data sheet"),
        }
    }
    too_much(total, &device.adapter).into_iter().for_each(|warning| err!("warning: {warning}"));
    let remedy = match estimate.largest_role {
        Role::Parameter | Role::ParameterGradient | Role::State | Role::Stack => {
            "choose another adapter, or a smaller model: its shape depends on the keys of `model`, not on the batch"
        }
        _ => "use a smaller data.batch with more train.micro_batches, or a shorter data.sequence_length",
    };
    anyhow::ensure!(
        estimate.largest_tensor <= most,
        "`{}` has {}, a buffer of the adapter `{}` can have {} (max_storage_buffer_binding_size): {remedy}",
        estimate.largest_name,
        mebibytes(estimate.largest_tensor),
        device.adapter.name,
        mebibytes(most)
    );
    Ok(())
}

/// Parameters, FLOP per token, bytes.
pub fn params(common: &Common, args: &ConfigArgs) -> Result<()> {
    let mut config = open::config(args)?;
    open::fill_vocabulary(&mut config)?;
    let specs = config.parameters();
    let counts = counts(&config.model, &specs);
    let cost = cost(&config.model, &specs, config.data.sequence_length);
    if common.json {
        print::json(&json!({
            "total": counts.total, "active": counts.active, "unique_active": counts.unique_active,
            "ffn_per_layer": counts.ffn_per_layer, "ffn_over_depth": counts.ffn_over_depth, "muon": counts.muon, "adamw": counts.adamw, "parts": counts.parts,
            "flops_per_token": { "forward": cost.forward_flops_per_token, "backward": cost.backward_flops_per_token },
            "muon_flops_per_update": cost.muon_flops_per_update,
            "bytes": { "weights": cost.weight_bytes, "gradients": cost.gradient_bytes, "optimizer": cost.optimizer_bytes },
        }));
        return Ok(());
    }
    let share = |n: u64| format!("{:>14}  {:6.2} %", grouped(n), 100.0 * n as f64 / counts.total as f64);
    out!("total          {}", share(counts.total));
    out!("active/token   {}  in one pass: K of E experts and the rest", share(counts.active));
    out!("unique active  {}  at most, over the depth, each counted once", share(counts.unique_active));
    out!("muon           {}", share(counts.muon));
    out!("adamw          {}", share(counts.adamw));
    for (part, n) in &counts.parts {
        out!("  {:12} {}", format!("{part:?}").to_lowercase(), share(*n));
    }
    out!(
        "FFN weights    {:>14} in use per token and layer, {} over the depth",
        grouped(counts.ffn_per_layer),
        grouped(counts.ffn_over_depth)
    );
    out!("FLOP/token     {:>14} forward, {} backward", grouped(cost.forward_flops_per_token), grouped(cost.backward_flops_per_token));
    out!("FLOP/update    {:>14} Muon", grouped(cost.muon_flops_per_update));
    for (what, bytes) in [("weights", cost.weight_bytes), ("gradients", cost.gradient_bytes), ("optimizer", cost.optimizer_bytes)] {
        out!("{what:14} {:>14}", mebibytes(bytes));
    }
    Ok(())
}

/// 79059840 -> 79,059,840.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let head = digits.len() % 3;
    let mut parts: Vec<&str> = if head > 0 { vec![&digits[..head]] } else { Vec::new() };
    let mut rest = &digits[head..];
    while !rest.is_empty() {
        let (part, tail) = rest.split_at(3);
        parts.push(part);
        rest = tail;
    }
    parts.join(",")
}

/// The compiled step.
pub fn listing(common: &Common, args: &ConfigArgs, tier: open::TierName) -> Result<()> {
    let mut config = open::config(args)?;
    open::fill_vocabulary(&mut config)?;
    let program = recording::training(&config, Capabilities::from(tier)).program;
    let text = program.to_string();
    let (micro, update) = program.dispatches();
    let plan = plan_memory(&program, true);
    let activations = plan.slot_of.iter().flatten().count();
    if common.json {
        print::json(&json!({
            "listing": text.trim_end().lines().collect::<Vec<_>>(), "dispatches": { "micro_batch": micro, "update": update },
            "activations": activations, "slots": plan.slot_bytes.len(), "slot_bytes": plan.total_bytes(), "live_bytes": live_bytes(&program),
        }));
        return Ok(());
    }
    out!("{}", text.trim_end());
    out!(
        "{micro} dispatches per micro-batch, {update} per update; {activations} activations in {} slots of {}, {} of them in use at once",
        plan.slot_bytes.len(),
        mebibytes(plan.total_bytes()),
        mebibytes(live_bytes(&program))
    );
    Ok(())
}

/// The adapters.
pub fn adapters(common: &Common) -> Result<()> {
    for (index, adapter) in pollster::block_on(moelab::gpu::adapters()).iter().enumerate() {
        if common.json {
            let mut record = serde_json::to_value(adapter)?;
            record["index"] = index.into();
            print::json(&record);
        } else {
            let pci = if adapter.pci.is_empty() { String::new() } else { format!("  pci:{}", adapter.pci) };
            out!("index:{index}  {}  ({}, {}, {} kernels){pci}", adapter.name, adapter.kind, adapter.backend, adapter.tier);
        }
    }
    Ok(())
}
