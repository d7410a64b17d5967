//! `moelab-app`: the app in a window of its own.

use std::path::PathBuf;

use clap::Parser;
use eframe::egui;
use moelab::{
    gpu::AdapterChoice,
    ui::{App, LATENCY},
};
use moelab_native::{desk::Desk, machine::Resources};

/// Configure, start and watch runs in a window.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The folder of runs and studies. Those of the command line are shown too, while they are made and afterwards.
    #[arg(default_value = "runs")]
    runs: PathBuf,
    /// The GPU to use: name:TEXT, index:NUMBER or pci:ADDRESS (see `moelab adapters`).
    #[arg(long)]
    adapter: Option<AdapterChoice>,
    /// Folder in which tokenized text and trained tokenizers are cached.
    #[arg(long, default_value = "cache")]
    cache: PathBuf,
}

/// The app as eframe wants it.
struct Window(App<Desk>);

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.0.ui(ui);
    }

    fn logic(&mut self, context: &egui::Context, _: &mut eframe::Frame) {
        // While the window is hidden as well.
        self.0.receive(context);
    }
}

fn main() -> eframe::Result {
    let args = Args::parse();
    let resources = Resources { adapter: args.adapter.unwrap_or_default(), cache: args.cache };
    let viewport =
        egui::ViewportBuilder::default().with_title("moelab").with_inner_size([1280.0, 800.0]).with_min_inner_size([360.0, 480.0]);
    let options = eframe::NativeOptions { viewport, ..Default::default() };
    eframe::run_native(
        "moelab",
        options,
        Box::new(move |creation| {
            let window = creation.egui_ctx.clone();
            let desk = Desk::open(&args.runs, resources, move || window.request_repaint_after(LATENCY))?;
            Ok(Box::new(Window(App::new(&creation.egui_ctx, desk))))
        }),
    )
}
