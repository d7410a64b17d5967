//! `moelab-app`: the app in a window of its own.

mod layout;

use std::path::PathBuf;

use clap::Parser;
use eframe::egui;
use layout::Layout;
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
struct Window {
    app: App<Desk>,
    /// As it was last remembered, and the file.
    layout: Layout,
    file: Option<PathBuf>,
    /// When it was last compared with the window, on the app's clock.
    compared_at: f64,
}

/// Seconds between two looks at the layout.
const COMPARE: f64 = 2.0;

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.app.ui(ui);
        let now = ui.input(|input| input.time);
        if now - self.compared_at < COMPARE {
            return;
        }
        self.compared_at = now;
        let layout = Layout::of(ui.ctx(), self.app.screen());
        if let Some(file) = self.file.as_ref().filter(|_| layout != self.layout) {
            layout.write(file);
            self.layout = layout;
        }
    }

    fn logic(&mut self, context: &egui::Context, _: &mut eframe::Frame) {
        // While the window is hidden as well.
        self.app.receive(context);
    }
}

fn main() -> eframe::Result {
    let args = Args::parse();
    let resources = Resources { adapter: args.adapter.unwrap_or_default(), cache: args.cache };
    let file = layout::file();
    let layout = file.as_deref().map_or(Layout::default(), Layout::read);
    let viewport = egui::ViewportBuilder::default().with_title("moelab").with_inner_size(layout.size).with_min_inner_size([360.0, 480.0]);
    let options = eframe::NativeOptions { viewport, ..Default::default() };
    eframe::run_native(
        "moelab",
        options,
        Box::new(move |creation| {
            let window = creation.egui_ctx.clone();
            let desk = Desk::open(&args.runs, resources, move || window.request_repaint_after(LATENCY))?;
            let mut app = App::new(&creation.egui_ctx, desk);
            layout.apply(&creation.egui_ctx);
            app.open_screen(layout.screen());
            Ok(Box::new(Window { app, layout, file, compared_at: 0.0 }))
        }),
    )
}
