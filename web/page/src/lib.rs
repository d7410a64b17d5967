//! The window of moelab in a browser tab: the app without a trainer, which lives in a worker (`worker.js`).
//!
//! Drawn with WebGL, so that the window opens where WebGPU is missing, and says so. Messages are JSON text, as everywhere.
#![cfg(target_arch = "wasm32")]

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use eframe::egui;
use moelab::{
    lab::workspace::{Reply, Request},
    run::protocol::Problem,
    ui::{App, LATENCY, Link},
};
use wasm_bindgen::prelude::*;
use web_sys::{Blob, HtmlAnchorElement, HtmlCanvasElement, MessageEvent, Url, Worker, WorkerOptions, WorkerType};

/// The name of a file and its text, or why it cannot be read.
type Text = (String, Result<String, String>);

/// The worker of the page, and what has arrived from it.
struct TabLink {
    worker: Worker,
    inbox: Rc<RefCell<VecDeque<Reply>>>,
    /// Name and text of files that were dropped onto the page.
    opened: Rc<RefCell<VecDeque<Text>>>,
    /// Called by the browser, as long as it is there.
    _listener: Closure<dyn FnMut(MessageEvent)>,
}

impl TabLink {
    fn open(window: egui::Context) -> Result<TabLink, JsValue> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        let worker = Worker::new_with_options("worker.js", &options)?;
        let inbox: Rc<RefCell<VecDeque<Reply>>> = Rc::default();
        let arrived = inbox.clone();
        let listener = Closure::new(move |message: MessageEvent| {
            let text = message.data().as_string().unwrap_or_default();
            let reply = serde_json::from_str(&text).unwrap_or_else(|error| {
                Reply::Failed(Box::new(Problem::new(format!("a message of the trainer cannot be read: {error}: {text}"))))
            });
            arrived.borrow_mut().push_back(reply);
            window.request_repaint_after(LATENCY);
        });
        worker.set_onmessage(Some(listener.as_ref().unchecked_ref()));
        Ok(TabLink { worker, inbox, opened: Rc::default(), _listener: listener })
    }
}

impl Link for TabLink {
    fn send(&mut self, request: Request) {
        let text = serde_json::to_string(&request).expect("requests are plain data");
        // Fails only if the worker is gone, which is reported by itself.
        let _ = self.worker.post_message(&JsValue::from_str(&text));
    }

    fn poll(&mut self) -> Option<Reply> {
        self.inbox.borrow_mut().pop_front()
    }

    fn place(&self) -> String {
        "this browser".into()
    }

    fn open(&mut self, file: egui::DroppedFileHandle) {
        let opened = self.opened.clone();
        wasm_bindgen_futures::spawn_local(async move {
            let name = file.path().display().to_string();
            let text = file.bytes_async().await;
            let text = text.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not text".to_string()));
            opened.borrow_mut().push_back((name, text));
        });
    }

    fn opened(&mut self) -> Option<(String, Result<String, String>)> {
        self.opened.borrow_mut().pop_front()
    }

    fn save(&mut self, _: &str, files: &[(String, String)]) -> Result<String, String> {
        let failed = |error: JsValue| format!("the browser does not save files: {error:?}");
        for (name, text) in files {
            download(name, text).map_err(failed)?;
        }
        Ok("in the folder of downloads".into())
    }

    fn address(&self) -> Option<String> {
        let address = web_sys::window()?.location().href().ok()?;
        Some(address.split('#').next().unwrap_or_default().to_string())
    }

    fn has_files(&self) -> bool {
        false
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

/// Offers a file as a download.
fn download(name: &str, text: &str) -> Result<(), JsValue> {
    let document = web_sys::window().and_then(|window| window.document()).ok_or("there is no page")?;
    let parts = js_sys::Array::of1(&JsValue::from_str(text));
    let address = Url::create_object_url_with_blob(&Blob::new_with_str_sequence(&parts)?)?;
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
    runner: eframe::WebRunner,
    app: Rc<RefCell<Option<Rc<RefCell<App<TabLink>>>>>>,
    context: Rc<RefCell<Option<egui::Context>>>,
}

#[wasm_bindgen]
impl Page {
    /// A page that shows nothing yet.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default, reason = "JavaScript constructs it")]
    pub fn new() -> Page {
        Page { runner: eframe::WebRunner::new(), app: Rc::default(), context: Rc::default() }
    }

    /// Opens the app on a canvas, with the trainer in a worker.
    ///
    /// # Errors
    /// Without WebGL, or if the worker cannot be made.
    pub async fn open(&self, canvas: HtmlCanvasElement) -> Result<(), JsValue> {
        let (app, context) = (self.app.clone(), self.context.clone());
        let options = eframe::WebOptions::default();
        let make = move |creation: &eframe::CreationContext<'_>| -> Result<Box<dyn eframe::App>, Box<dyn std::error::Error + Send + Sync>> {
            let link = TabLink::open(creation.egui_ctx.clone()).map_err(|error| format!("the worker cannot be made: {error:?}"))?;
            let mut opened = App::new(&creation.egui_ctx, link);
            opened.open_link(&web_sys::window().and_then(|window| window.location().hash().ok()).unwrap_or_default());
            let opened = Rc::new(RefCell::new(opened));
            *app.borrow_mut() = Some(opened.clone());
            *context.borrow_mut() = Some(creation.egui_ctx.clone());
            Ok(Box::new(Tab { app: opened, told: String::new() }))
        };
        self.runner.start(canvas, options, Box::new(make)).await
    }

    /// Does what a button of the page says.
    pub fn act(&self, action: &str) {
        if let Some(app) = &*self.app.borrow() {
            app.borrow_mut().act(action);
        }
        if let Some(context) = &*self.context.borrow() {
            context.request_repaint();
        }
    }

    /// Why the app has stopped, if it has.
    pub fn problem(&self) -> Option<String> {
        self.runner.panic_summary().map(|summary| summary.message())
    }
}
