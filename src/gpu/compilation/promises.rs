//! Kernels compiled by a browser, asynchronously and as many at a time as it likes.
//!
//! WebGPU has `createComputePipelineAsync`; wgpu does not. So the device's `createComputePipeline` is replaced for a moment: first by a
//! function that starts the asynchronous one, whose result wgpu does not see, then, for each finished pipeline, by one that returns it.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::{JsFuture, spawn_local};

use crate::gpu::pipelines::{Kernel, Pipelines};

const CREATE: &str = "createComputePipeline";
const CREATE_ASYNC: &str = "createComputePipelineAsync";

/// A finished kernel: its index and its pipeline, if it could be compiled.
type Finished = (usize, Option<JsValue>);

/// Kernels that are being compiled.
pub(super) struct Ahead {
    pipelines: Arc<Pipelines>,
    kernels: Vec<Kernel>,
    finished: Rc<RefCell<Vec<Finished>>>,
}

impl Ahead {
    pub(super) fn start(pipelines: &Arc<Pipelines>, kernels: &[Kernel]) -> Ahead {
        let finished = Rc::default();
        for (index, kernel) in kernels.iter().enumerate() {
            match asynchronously(pipelines, kernel) {
                Some(promise) => spawn_local(note(Rc::clone(&finished), index, promise)),
                None => finished.borrow_mut().push((index, None)),
            }
        }
        Ahead { pipelines: pipelines.clone(), kernels: kernels.to_vec(), finished }
    }

    /// The indices of the kernels that were finished since the last call.
    pub(super) fn finished(&mut self, _first: usize) -> Vec<usize> {
        let finished = self.finished.take();
        for (index, pipeline) in &finished {
            let kernel = &self.kernels[*index];
            match pipeline {
                Some(pipeline) => {
                    let pipeline = pipeline.clone();
                    let give: Closure<dyn FnMut(JsValue) -> JsValue> = Closure::new(move |_| pipeline.clone());
                    replaced(&self.pipelines, &give, || self.pipelines.get(kernel));
                }
                // Compiled as usual, so that the error is reported as usual.
                None => drop(self.pipelines.get(kernel)),
            }
        }
        finished.into_iter().map(|(index, _)| index).collect()
    }
}

async fn note(finished: Rc<RefCell<Vec<Finished>>>, index: usize, promise: Promise) {
    let pipeline = JsFuture::from(promise).await.ok();
    finished.borrow_mut().push((index, pipeline));
}

/// Starts to compile a kernel. None if the device has no such function.
fn asynchronously(pipelines: &Pipelines, kernel: &Kernel) -> Option<Promise> {
    let device = browser_device(pipelines)?.clone();
    let create: Function = Reflect::get(&device, &CREATE_ASYNC.into()).ok()?.dyn_into().ok()?;
    let promise = Rc::new(RefCell::new(None));
    let kept = promise.clone();
    let start: Closure<dyn FnMut(JsValue) -> JsValue> = Closure::new(move |descriptor| {
        *kept.borrow_mut() = create.call1(&device, &descriptor).ok().and_then(|promise| promise.dyn_into().ok());
        Object::new().into()
    });
    replaced(pipelines, &start, || pipelines.compile(kernel));
    promise.take()
}

/// The browser's object for the device.
fn browser_device(pipelines: &Pipelines) -> Option<&JsValue> {
    pipelines.device.as_webgpu().map(AsRef::as_ref)
}

/// Runs `with` while the device creates pipelines by `create`.
fn replaced<T>(pipelines: &Pipelines, create: &Closure<dyn FnMut(JsValue) -> JsValue>, with: impl FnOnce() -> T) {
    let Some(device) = browser_device(pipelines) else { return };
    // An own property hides that of the prototype until it is deleted. Neither fails on an object that is not frozen.
    let _ = Reflect::set(device, &CREATE.into(), create.as_ref());
    with();
    let _ = Reflect::delete_property(device.unchecked_ref::<Object>(), &CREATE.into());
}
