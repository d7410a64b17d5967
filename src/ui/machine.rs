//! The machine: what trains, and what it costs.

use egui::{RichText, Ui};

use super::{
    curves, frame,
    state::State,
    theme::{self, bold, size},
    widgets,
};
use crate::run::model::cost;

/// Draws the screen.
pub fn show(ui: &mut Ui, state: &mut State) {
    widgets::heading(ui, "Machine", "What trains, and what a model costs on it.");
    let colors = theme::colors(ui);
    widgets::card(ui, |ui| {
        ui.set_max_width(560.0);
        let Some(live) = state.live.as_ref().filter(|live| !live.adapter.is_empty()) else {
            ui.label("The adapter is known once a run has been opened.");
            return;
        };
        ui.label(RichText::new(&live.adapter).font(bold(size::GROUP)).color(colors.ink));
        if frame::is_software(&live.adapter) {
            let text =
                "A software renderer: it computes on the processor, so its speed says nothing about a GPU. Results are as good as a GPU's.";
            ui.label(RichText::new(text).color(colors.attention));
        }
        if let Some(speed) = live.tokens_per_second {
            widgets::fact(ui, "training tokens per second", &widgets::count(speed));
        }
        let Some(config) = curves::read(&live.config) else { return };
        let specs = config.parameters();
        let costs = cost::cost(&config.model, &specs, config.data.sequence_length);
        let flop = (costs.forward_flops_per_token + costs.backward_flops_per_token) as f64;
        if let Some(speed) = live.tokens_per_second {
            widgets::fact(ui, "model FLOP/s", &widgets::count(flop * speed));
        }
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
        widgets::fact(ui, "weights", &mib(costs.weight_bytes));
        widgets::fact(ui, "gradients", &mib(costs.gradient_bytes));
        widgets::fact(ui, "moments of the optimizers", &mib(costs.optimizer_bytes));
    });
    widgets::group(ui, "moelab");
    widgets::fact(ui, "version", env!("CARGO_PKG_VERSION"));
}
