//! moelab in a browser tab: a host whose messages JavaScript carries.
//!
//! The module runs in a dedicated worker (`worker.js`), so that training never blocks the page. Nothing here waits:
//! a browser completes GPU work only when control returns to its event loop, to which the worker returns after each call.
#![cfg(target_arch = "wasm32")]

mod study;
mod workspace;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use log::{Level, LevelFilter, Log, Metadata, Record};
use moelab::{
    data::{Corpus, prepare::NoFiles, shared::SharedData, texts::Texts, tokenizer::Tokenizer},
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Activity, Clock, DeviceFuture, Environment, Host},
        memory::Memory,
        store::Store,
        stored_log::Folders,
        suite::SuiteStore,
    },
    run::{Config, protocol::Problem},
};
use wasm_bindgen::prelude::*;
use workspace::TEXTS;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = warn)]
    fn console_warn(text: &str);
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn milliseconds() -> f64;
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

/// A panic becomes a JavaScript error with its message, which the worker passes to the page; by default it would only say
/// `unreachable`.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| wasm_bindgen::throw_str(&panic.to_string())));
    if log::set_logger(&Console).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// Most updates that are made again after a lost device.
const MOST_REPEATED: u32 = 50;

/// The environment of the page: the adapter, the embedded language, and the folders of runs.
struct Tab {
    place: Place,
    /// Requested once, so that runs share its compiled kernels; replaced once it was lost.
    device: Rc<RefCell<Option<Rc<Device>>>>,
    /// The data that they share.
    data: SharedData,
    /// Texts that they learn, by name.
    texts: Option<Folders>,
}

/// Where runs are kept.
enum Place {
    /// Single runs, which are lost with the tab.
    Memory(BTreeMap<String, Memory>),
    /// The runs of a study.
    Study(Folders),
}

impl Tab {
    fn of_runs() -> Tab {
        Tab { place: Place::Memory(BTreeMap::new()), device: Rc::default(), data: SharedData::default(), texts: None }
    }

    fn of_study(folders: Folders, texts: Option<Folders>) -> Tab {
        Tab { place: Place::Study(folders), device: Rc::default(), data: SharedData::default(), texts }
    }

    /// The runs of these folders, with the device and the data of this tab.
    fn sharing(&self, folders: Folders) -> Tab {
        Tab { place: Place::Study(folders), device: self.device.clone(), data: self.data.clone(), texts: self.texts.clone() }
    }
}

impl Environment for Tab {
    fn device(&mut self) -> DeviceFuture {
        let shared = self.device.clone();
        Box::pin(async move {
            // A device that was lost is requested anew.
            let found = shared.borrow().clone().filter(|device| device.check().is_ok());
            if let Some(device) = found {
                return Ok(device);
            }
            let device = Rc::new(Device::open(&AdapterChoice::default()).await?);
            *shared.borrow_mut() = Some(device.clone());
            Ok(device)
        })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        let found = match &self.texts {
            Some(texts) => {
                let read = |name: &str| texts.root().read(name).ok().flatten();
                self.data.corpus(config, own, &Texts { read: &read })
            }
            None => self.data.corpus(config, own, &NoFiles),
        };
        found.map_err(|error| Problem::new(error.to_string()))
    }

    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        match &mut self.place {
            Place::Memory(folders) => Ok(Box::new(folders.entry(run.to_string()).or_default().clone())),
            Place::Study(_) if run == TEXTS => Err(Problem::new(format!("`{TEXTS}` is the folder of texts: choose another name"))),
            Place::Study(folders) => Ok(folders.folder(run)?),
        }
    }

    fn clock(&self) -> Clock {
        Rc::new(|| milliseconds() / 1e3)
    }

    fn tag(&self) -> String {
        "tab".into()
    }

    fn most_repeated_updates(&self) -> Option<u32> {
        Some(MOST_REPEATED)
    }
}

/// A host for the worker: commands and events as JSON (`run/protocol.rs`).
#[wasm_bindgen]
pub struct WorkerHost {
    host: Host<Tab>,
    activity: Activity,
}

#[wasm_bindgen]
impl WorkerHost {
    /// A host without a run.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default, reason = "JavaScript constructs it")]
    pub fn new() -> WorkerHost {
        WorkerHost { host: Host::new(Tab::of_runs()), activity: Activity::Idle }
    }

    /// Queues a command.
    ///
    /// # Errors
    /// Text that is not a command.
    pub fn send(&mut self, command: &str) -> Result<(), JsValue> {
        let command = serde_json::from_str(command).map_err(|error| JsValue::from_str(&format!("invalid command: {error}: {command}")))?;
        self.host.send(command);
        self.activity = Activity::Busy;
        Ok(())
    }

    /// Works for at most this many milliseconds, and returns the events.
    pub fn advance(&mut self, milliseconds: f64) -> Vec<String> {
        let (events, activity) = self.host.advance(milliseconds / 1e3);
        self.activity = activity;
        events.iter().map(|event| serde_json::to_string(event).expect("keys are strings and floats are written by `exact`")).collect()
    }

    /// Whether there is nothing to do until the next command.
    #[wasm_bindgen(getter)]
    pub fn is_idle(&self) -> bool {
        self.activity == Activity::Idle
    }
}
