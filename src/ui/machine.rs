//! The machine: what trains, and what a config costs on it.

use egui::{CollapsingHeader, Grid, RichText, ScrollArea, Ui};

use super::{
    frame, presets,
    state::State,
    theme::{self, APART, NEAR, bold, size},
    widgets,
};
use crate::lab::workspace::{Adapter, Probed};

/// Draws the screen.
pub fn show(ui: &mut Ui, state: &mut State, may_time: bool) {
    widgets::heading(ui, "Machine", "What trains, and what a model costs on it.");
    if let Some(storage) = &state.storage {
        let colors = theme::colors(ui);
        let color = if storage.is_low() { colors.attention } else { colors.quiet };
        ui.add(egui::Label::new(RichText::new(storage.words()).color(color)).wrap());
        ui.add_space(NEAR);
    }
    if state.probes.is_empty()
        && let Some(live) = state.live.as_ref().filter(|live| !live.adapter.is_empty())
    {
        widgets::fact(ui, "adapter", &live.adapter);
    }
    let Some(probed) = state.probes.last().cloned() else {
        let text = match (&state.probing, &state.probe_problem) {
            (Some(_), _) => "Measuring: the device is opened, and a few updates are made …".to_string(),
            (None, Some(problem)) => format!("The machine could not be measured: {problem}"),
            (None, None) if state.is_busy() => "What is under way would be slowed down: measure once it has ended.".to_string(),
            (None, None) => "A few updates are made, which leave no trace.".to_string(),
        };
        let button = (state.probing.is_none() && !state.is_busy()).then_some("Measure");
        if widgets::empty(ui, "Nothing is measured yet", &text, button)
            && let Some(offer) = presets::quickstart()
        {
            state.probe(offer.text.clone());
        }
        return;
    };
    if ui.available_width() < theme::NARROW {
        adapter(ui, &probed.adapter);
        costs(ui, state, &probed);
    } else {
        ui.spacing_mut().item_spacing.x = APART;
        ui.columns(2, |columns| {
            adapter(&mut columns[0], &probed.adapter);
            costs(&mut columns[1], state, &probed);
        });
        ui.spacing_mut().item_spacing.x = NEAR;
    }
    if may_time {
        kernels(ui, state, &probed);
    }
    tensors(ui, &probed);
    CollapsingHeader::new(format!("Listing: {} launches for a micro-batch, {} for an update", probed.dispatches[0], probed.dispatches[1]))
        .show(ui, |ui| {
            if ui.button("Copy the listing").clicked() {
                ui.ctx().copy_text(probed.listing.clone());
            }
            let lines: Vec<&str> = probed.listing.lines().collect();
            ScrollArea::both().max_height(420.0).auto_shrink([false, true]).show_rows(ui, 16.0, lines.len(), |ui, range| {
                for line in &lines[range] {
                    ui.add(egui::Label::new(RichText::new(*line).font(theme::mono(size::SMALL))).extend());
                }
            });
        });
    widgets::group(ui, "moelab");
    widgets::fact(ui, "version", env!("CARGO_PKG_VERSION"));
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

fn adapter(ui: &mut Ui, adapter: &Adapter) {
    let colors = theme::colors(ui);
    widgets::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let name = if adapter.name.is_empty() { "An adapter without a name" } else { &adapter.name };
        ui.add(egui::Label::new(RichText::new(name).font(bold(size::GROUP)).color(colors.ink)).wrap());
        if frame::is_software(&format!("{} {}", adapter.name, adapter.driver)) {
            let text =
                "A software renderer: it computes on the processor, so its speed says nothing about a GPU. Results are as good as a GPU's.";
            ui.label(RichText::new(text).color(colors.attention));
        }
        let driver = if adapter.driver.is_empty() { "not told by the browser" } else { &adapter.driver };
        widgets::fact(ui, "interface", &adapter.backend);
        widgets::fact(ui, "driver", driver);
        widgets::fact(ui, "kernels", &adapter.kernels);
        widgets::fact(ui, "16-bit floats in shaders", if adapter.f16 { "yes" } else { "no" });
        let lanes = match adapter.subgroup_sizes {
            [0, _] => "none".to_string(),
            [least, most] if least == most => format!("{least} lanes"),
            [least, most] => format!("{least} to {most} lanes"),
        };
        widgets::fact(ui, "subgroups", &lanes);
        widgets::fact(ui, "invocations of a workgroup, at most", &adapter.invocations.to_string());
        widgets::fact(ui, "workgroup memory, at most", &format!("{:.0} KiB", f64::from(adapter.workgroup_bytes) / 1024.0));
        widgets::fact(ui, "largest tensor, at most", &mebibytes(adapter.max_binding_bytes));
    });
}

fn costs(ui: &mut Ui, state: &mut State, probed: &Probed) {
    let colors = theme::colors(ui);
    widgets::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let is_first = presets::quickstart().is_some_and(|offer| offer.text == probed.config);
        let title = if is_first { "The quickstart on it" } else { "The config that was measured last" };
        ui.label(RichText::new(title).font(bold(size::GROUP)).color(colors.ink));
        widgets::fact(ui, "an update", &format!("{:.1} ms", 1e3 * probed.seconds_per_update));
        widgets::fact(ui, "tokens per second", &widgets::count(probed.tokens_per_update as f64 / probed.seconds_per_update));
        widgets::fact(ui, "FLOP/s of the model", &widgets::count(probed.flop_per_update / probed.seconds_per_update));
        widgets::fact(ui, "until the first update", &format!("{:.1} s", probed.seconds_to_open));
        for (name, bytes) in &probed.buffers.parts {
            widgets::fact(ui, name, &mebibytes(*bytes));
        }
        widgets::fact(ui, "all buffers", &mebibytes(probed.buffers.total()));
        ui.add_space(NEAR);
        let is_idle = state.probing.is_none() && !state.is_busy();
        ui.add_enabled_ui(is_idle, |ui| {
            if ui.button("Measure again").clicked() {
                state.probe(probed.config.clone());
            }
        });
        if state.probing.is_some() {
            widgets::quiet(ui, "Measuring …");
        }
    });
}

/// The time of each kernel, which only a trainer on a thread of its own can measure.
fn kernels(ui: &mut Ui, state: &mut State, probed: &Probed) {
    let colors = theme::colors(ui);
    CollapsingHeader::new("Kernels: where the time of an update goes").show(ui, |ui| {
        ui.add_enabled_ui(state.probing.is_none() && !state.is_busy(), |ui| {
            if ui.button("Time the kernels").on_hover_text("Each is replayed alone; takes some seconds.").clicked() {
                state.probe_kernels(probed.config.clone());
            }
        });
        if state.probing.is_some() {
            widgets::quiet(ui, "Measuring …");
        }
        Grid::new("kernels").num_columns(6).spacing([16.0, 4.0]).show(ui, |ui| {
            if !probed.kernels.is_empty() {
                for head in ["part", "kernel", "launches", "ms", "share of the time", "GFLOP/s"] {
                    ui.label(RichText::new(head).color(colors.quiet));
                }
                ui.end_row();
            }
            for kernel in &probed.kernels {
                ui.label(&kernel.part);
                ui.label(RichText::new(&kernel.kernel).font(theme::mono(size::SMALL)));
                right(ui, &kernel.launches.to_string());
                right(ui, &format!("{:.2}", kernel.ms));
                ui.horizontal(|ui| {
                    let (rect, _) = ui.allocate_exact_size(egui::vec2(100.0, 12.0), egui::Sense::hover());
                    let mut filled = rect;
                    filled.set_width(100.0 * kernel.share as f32);
                    ui.painter().rect_filled(filled, 2.0, colors.outline);
                    ui.label(format!("{:.1} %", 100.0 * kernel.share));
                });
                right(ui, &kernel.gflops.map_or(String::new(), |gflops| format!("{gflops:.1}")));
                ui.end_row();
            }
        });
    });
}

fn right(ui: &mut Ui, text: &str) {
    ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| ui.label(text));
}

/// The largest tensors as bars against the limit of the adapter.
fn tensors(ui: &mut Ui, probed: &Probed) {
    let colors = theme::colors(ui);
    CollapsingHeader::new(format!("Memory: the {} largest tensors", probed.buffers.tensors.len())).show(ui, |ui| {
        let most = probed.buffers.tensors.first().map_or(1, |(_, bytes)| (*bytes).max(1));
        Grid::new("tensors").num_columns(3).spacing([16.0, 4.0]).show(ui, |ui| {
            for (name, bytes) in &probed.buffers.tensors {
                ui.label(RichText::new(name).font(theme::mono(size::SMALL)));
                ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| ui.label(mebibytes(*bytes)));
                let (rect, _) = ui.allocate_exact_size(egui::vec2(160.0, 12.0), egui::Sense::hover());
                let mut filled = rect;
                filled.set_width(160.0 * *bytes as f32 / most as f32);
                ui.painter().rect_filled(filled, 2.0, colors.outline);
                ui.end_row();
            }
        });
    });
}
