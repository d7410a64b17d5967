//! The window of moelab in a browser tab: the app without a trainer, which lives in a worker (`worker.js`), in this window in a module of its own, or on
//! the machine of `moelab serve`, which a worker talks to (`remote.js`).
//!
//! Drawn with WebGL, so that the window opens where WebGPU is missing, and says so. Messages are JSON text, as everywhere.
#![cfg(target_arch = "wasm32")]

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use eframe::{WebRunner, egui};
use js_sys::{Array, Function, Uint8Array};
use moelab::{
    lab::{
        suite::SuiteCommand,
        workspace::{Reply, Request},
    },
    run::protocol::{Command, Problem},
    ui::{App, LATENCY, Link},
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, HtmlAnchorElement, HtmlCanvasElement, HtmlElement, MessageEvent, Response, Url};

#[wasm_bindgen]
extern "C" {
    /// The way to the trainer: a worker, or a port to this window.
    pub type Port;
    #[wasm_bindgen(method, catch, js_name = postMessage)]
    fn post(this: &Port, message: &JsValue, transfer: &Array) -> Result<(), JsValue>;
    #[wasm_bindgen(method, setter, js_name = onmessage)]
    fn set_onmessage(this: &Port, listener: &Function);
}

/// The name of a file and its content, or why it cannot be read.
type Content = (String, Result<Vec<u8>, String>);

/// The context of the window; another one once its graphics were lost.
type Window = Rc<RefCell<Option<egui::Context>>>;

/// The port of the page, and what has arrived at it.
struct TabLink {
    port: Port,
    window: Window,
    inbox: Rc<RefCell<VecDeque<Reply>>>,
    /// Files that were dropped onto the page, or chosen.
    opened: Rc<RefCell<VecDeque<Content>>>,
    /// The machine that has the runs; `None` if it is this browser.
    machine: Option<String>,
    /// Whether the browser was asked to keep what is stored.
    is_kept: bool,
    /// Called by the browser, as long as it is there.
    _listener: Closure<dyn FnMut(MessageEvent)>,
}

impl TabLink {
    fn open(port: Port, machine: Option<String>, window: Window) -> TabLink {
        let inbox: Rc<RefCell<VecDeque<Reply>>> = Rc::default();
        let (arrived, shown) = (inbox.clone(), window.clone());
        let listener = Closure::new(move |message: MessageEvent| {
            arrived.borrow_mut().push_back(reply(&message.data()));
            if let Some(window) = &*shown.borrow() {
                window.request_repaint_after(LATENCY);
            }
        });
        port.set_onmessage(listener.as_ref().unchecked_ref());
        TabLink { port, window, inbox, opened: Rc::default(), is_kept: machine.is_some(), machine, _listener: listener }
    }

    /// Adds a file that was read.
    fn add(&self, name: String, content: Result<Vec<u8>, String>) {
        self.opened.borrow_mut().push_back((name, content));
        self.window.borrow().iter().for_each(egui::Context::request_repaint);
    }
}

/// A message of the trainer: text, or text and a file.
fn reply(message: &JsValue) -> Reply {
    let (text, file) = match message.dyn_ref::<Array>() {
        Some(parts) => (parts.get(0), Uint8Array::new(&parts.get(1)).to_vec()),
        None => (message.clone(), Vec::new()),
    };
    let text = text.as_string().unwrap_or_default();
    match serde_json::from_str(&text) {
        Ok(Reply::Exported { run, .. }) => Reply::Exported { run, archive: file },
        Ok(reply) => reply,
        Err(error) => Reply::Failed(Box::new(Problem::new(format!("a message of the trainer cannot be read: {error}: {text}")))),
    }
}

impl Link for TabLink {
    fn send(&mut self, request: Request) {
        let makes_runs = matches!(&request, Request::Session { command: Command::Start { .. } })
            || matches!(&request, Request::Study { command: SuiteCommand::Run { .. }, .. });
        if makes_runs && !std::mem::replace(&mut self.is_kept, true) {
            // Otherwise browsers may remove what is stored when the disk is full. Some ask the user, and the answer does not matter here.
            let _ = web_sys::window().map(|window| window.navigator().storage().persist());
        }
        let text = JsValue::from_str(&serde_json::to_string(&request).expect("requests are plain data"));
        // Fails only if the worker is gone, which is reported by itself.
        let _ = match request {
            Request::Import { archive, .. } => {
                let file = Uint8Array::from(archive.as_slice());
                self.port.post(&Array::of2(&text, &file), &Array::of1(&file.buffer()))
            }
            _ => self.port.post(&text, &Array::new()),
        };
    }

    fn poll(&mut self) -> Option<Reply> {
        self.inbox.borrow_mut().pop_front()
    }

    fn place(&self) -> String {
        self.machine.clone().unwrap_or_else(|| "this browser".into())
    }

    fn open(&mut self, file: egui::DroppedFileHandle) {
        let (opened, window) = (self.opened.clone(), self.window.clone());
        wasm_bindgen_futures::spawn_local(async move {
            let name = file.path().display().to_string();
            let content = file.bytes_async().await;
            opened.borrow_mut().push_back((name, content.map(|bytes| bytes.to_vec())));
            window.borrow().iter().for_each(egui::Context::request_repaint);
        });
    }

    fn opened(&mut self) -> Option<Content> {
        self.opened.borrow_mut().pop_front()
    }

    fn has_archives(&self) -> bool {
        self.machine.is_none()
    }

    fn download(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        download(name, &Uint8Array::from(bytes)).map_err(unsaved)
    }

    fn choose(&mut self) {
        let document = web_sys::window().and_then(|window| window.document());
        if let Some(element) = document.and_then(|document| document.get_element_by_id("file")) {
            element.unchecked_into::<HtmlElement>().click();
        }
    }

    fn fetch(&mut self, name: &str) {
        let (opened, window, name) = (self.opened.clone(), self.window.clone(), name.to_string());
        wasm_bindgen_futures::spawn_local(async move {
            let content = fetched(&name).await.map_err(|error| format!("it cannot be loaded: {error:?}"));
            opened.borrow_mut().push_back((name, content));
            window.borrow().iter().for_each(egui::Context::request_repaint);
        });
    }

    fn save(&mut self, _: &str, files: &[(String, String)]) -> Result<String, String> {
        for (name, text) in files {
            download(name, &JsValue::from_str(text)).map_err(unsaved)?;
        }
        Ok("in the folder of downloads".into())
    }

    fn address(&self) -> Option<String> {
        let address = web_sys::window()?.location().href().ok()?;
        Some(address.split('#').next().unwrap_or_default().to_string())
    }

    fn has_files(&self) -> bool {
        self.machine.is_some()
    }
}

/// The app as eframe wants it, and its copy in the page for those who cannot see a canvas.
struct Tab {
    app: Rc<RefCell<App<TabLink>>>,
    told: String,
}

impl eframe::App for Tab {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.app.borrow_mut().ui(ui);
        let told = self.app.borrow().told();
        if told != self.told {
            mirror(&told);
            self.told = told;
        }
    }

    fn logic(&mut self, context: &egui::Context, _: &mut eframe::Frame) {
        self.app.borrow_mut().receive(context);
    }
}

fn unsaved(error: JsValue) -> String {
    format!("the browser does not save files: {error:?}")
}

/// A file beside the page.
async fn fetched(name: &str) -> Result<Vec<u8>, JsValue> {
    let window = web_sys::window().ok_or("there is no page")?;
    let response: Response = JsFuture::from(window.fetch_with_str(name)).await?.unchecked_into();
    if !response.ok() {
        return Err(JsValue::from_str(&format!("status {}", response.status())));
    }
    Ok(Uint8Array::new(&JsFuture::from(response.array_buffer()?).await?).to_vec())
}

/// Offers a file as a download.
fn download(name: &str, content: &JsValue) -> Result<(), JsValue> {
    let document = web_sys::window().and_then(|window| window.document()).ok_or("there is no page")?;
    let address = Url::create_object_url_with_blob(&Blob::new_with_buffer_source_sequence(&Array::of1(content))?)?;
    let link: HtmlAnchorElement = document.create_element("a")?.unchecked_into();
    link.set_href(&address);
    link.set_download(name);
    link.click();
    Url::revoke_object_url(&address)
}

/// Shows what the app says in an ordinary element, which screen readers follow.
fn mirror(text: &str) {
    let document = web_sys::window().and_then(|window| window.document());
    if let Some(element) = document.and_then(|document| document.get_element_by_id("status")) {
        element.set_text_content(Some(text));
    }
}

/// The handle of the page's JavaScript.
#[wasm_bindgen]
pub struct Page {
    runner: RefCell<WebRunner>,
    /// The port, until the app is made.
    port: Rc<RefCell<Option<Port>>>,
    /// The machine that has the runs; `None` if it is this browser.
    machine: Option<String>,
    app: Rc<RefCell<Option<Rc<RefCell<App<TabLink>>>>>>,
    window: Window,
}

#[wasm_bindgen]
impl Page {
    /// A page that shows nothing yet, with the trainer at this port, which is on the named machine, or in this browser.
    #[wasm_bindgen(constructor)]
    pub fn new(port: Port, machine: Option<String>) -> Page {
        let (runner, port) = (RefCell::new(WebRunner::new()), Rc::new(RefCell::new(Some(port))));
        Page { runner, port, machine, app: Rc::default(), window: Rc::default() }
    }

    /// Opens the app on a canvas, or opens it again as it was, after the graphics of the canvas were lost.
    ///
    /// # Errors
    /// Without WebGL.
    pub async fn open(&self, canvas: HtmlCanvasElement) -> Result<(), JsValue> {
        // One that has panicked, as drawing may on graphics that are lost, cannot be used any more.
        if self.runner.borrow().has_panicked() {
            self.runner.replace(WebRunner::new());
        }
        let (port, machine, kept, window) = (self.port.clone(), self.machine.clone(), self.app.clone(), self.window.clone());
        let make = move |creation: &eframe::CreationContext<'_>| -> Result<Box<dyn eframe::App>, Box<dyn std::error::Error + Send + Sync>> {
            let context = creation.egui_ctx.clone();
            let before = window.replace(Some(context.clone()));
            let known = kept.borrow().clone();
            let app = match known {
                Some(app) => {
                    // Its theme and its size.
                    if let Some(options) = before.map(|before| before.options(Clone::clone)) {
                        context.options_mut(|now| *now = options);
                    }
                    app.borrow().dress(&context);
                    app
                }
                None => {
                    let port = port.take().ok_or("the page has no port")?;
                    let mut app = App::new(&context, TabLink::open(port, machine.clone(), window.clone()));
                    app.open_link(&web_sys::window().and_then(|window| window.location().hash().ok()).unwrap_or_default());
                    Rc::new(RefCell::new(app))
                }
            };
            kept.replace(Some(app.clone()));
            Ok(Box::new(Tab { app, told: String::new() }))
        };
        let runner = self.runner.borrow().clone();
        runner.start(canvas, eframe::WebOptions::default(), Box::new(make)).await
    }

    /// Stops to draw, until it is opened again.
    pub fn close(&self) {
        self.runner.borrow().destroy();
    }

    /// Does what a button of the page says.
    pub fn act(&self, action: &str) {
        self.with(|app| app.act(action));
    }

    /// Adds a file that the user has chosen.
    pub fn add(&self, name: String, bytes: Vec<u8>) {
        self.with(|app| app.link().add(name, Ok(bytes)));
    }

    /// Takes note of the bytes that are stored, and of those that can be.
    pub fn note_storage(&self, used: f64, quota: f64) {
        self.with(|app| app.note_storage(used, quota));
    }

    /// Why the app has stopped, if it has.
    pub fn problem(&self) -> Option<String> {
        self.runner.borrow().panic_summary().map(|summary| summary.message())
    }

    fn with(&self, change: impl FnOnce(&mut App<TabLink>)) {
        if let Some(app) = &*self.app.borrow() {
            change(&mut app.borrow_mut());
        }
        self.window.borrow().iter().for_each(egui::Context::request_repaint);
    }
}
