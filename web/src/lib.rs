//! moelab in a browser tab: the door between JavaScript and the core.
//!
//! The module runs in a dedicated worker (`worker.js`), so that training never blocks the page. Nothing here waits:
//! a browser completes GPU work only when control returns to its event loop, so every read-back is awaited.
#![cfg(target_arch = "wasm32")]

use std::rc::Rc;

use js_sys::{Function, Promise, Reflect, global};
use log::{Level, LevelFilter, Log, Metadata, Record};
use moelab::{
    data::prepare::{self, NoFiles, Purpose},
    gpu::{AdapterChoice, Device},
    run::config,
    train::trainer::{Progress, Trainer},
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = warn)]
    fn console_warn(text: &str);
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
}

/// Warnings and errors of wgpu and the core, in the browser's console.
struct Console;

impl Log for Console {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record) {
        let text = format!("{}: {}", record.target(), record.args());
        match record.level() {
            Level::Error => console_error(&text),
            Level::Warn => console_warn(&text),
            _ => {}
        }
    }

    fn flush(&self) {}
}

/// A panic becomes a JavaScript error with its text, which the worker hands to the page; left alone it would only say
/// `unreachable`.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| wasm_bindgen::throw_str(&panic.to_string())));
    if log::set_logger(&Console).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// Trains the model that `config_toml` describes for `updates` updates and calls `report(update, loss)` after each, with the
/// number of updates done and the loss before the last one, in nats a token.
///
/// # Errors
/// A text for the user: what was wanted, what was found, what to do.
#[wasm_bindgen]
pub async fn run(config_toml: String, updates: u32, report: Function) -> Result<(), JsValue> {
    let mut trainer = open(config_toml, updates).await.map_err(text)?;
    loop {
        let progress = trainer.advance().map_err(text)?;
        if progress.is_empty() {
            event_loop().await?;
        }
        for event in progress {
            match event {
                Progress::Update(record) => drop(report.call2(&JsValue::NULL, &record.update.into(), &record.train_ce.into())?),
                Progress::WantsRollback => return Err("the run diverged and the page keeps no checkpoint to go back to".into()),
                Progress::Done { .. } => return Ok(()),
                Progress::Eval(_) | Progress::Incident(_) | Progress::CheckpointDue => {}
            }
        }
    }
}

async fn open(config_toml: String, updates: u32) -> Result<Trainer, String> {
    const NAME: &str = "quickstart.toml";
    let read = |path: &str| if path == NAME { Ok(config_toml.clone()) } else { Err("the page has no other config".into()) };
    // A page keeps nothing, and its reader waits for the first losses.
    let sets = [format!("train.updates={updates}"), "train.evaluation.every=0".into(), "train.checkpoint.every=0".into()];
    let config = config::load(&read, NAME, &sets).map_err(|e| e.to_string())?;
    let (config, corpus) = prepare::corpus(config, None, Purpose::Train, &NoFiles).map_err(|e| e.to_string())?;
    let device = Device::open(&AdapterChoice::default()).await.map_err(|e| e.to_string())?;
    Trainer::new(config, Rc::new(device), corpus, Default::default()).map_err(|e| e.to_string())
}

fn text(error: impl std::fmt::Display) -> JsValue {
    JsValue::from_str(&error.to_string())
}

/// Gives control back to the browser for a few milliseconds, in which GPU work can complete. Timers of dedicated workers
/// run at full speed in hidden tabs too.
async fn event_loop() -> Result<(), JsValue> {
    let set_timeout: Function = Reflect::get(&global(), &"setTimeout".into())?.unchecked_into();
    let turn = Promise::new(&mut |resolve, _| {
        set_timeout.call2(&JsValue::NULL, &resolve, &1.into()).expect("setTimeout takes a function and a number");
    });
    JsFuture::from(turn).await.map(drop)
}
