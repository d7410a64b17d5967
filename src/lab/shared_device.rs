//! A device that the runs of an environment share.

use std::{cell::OnceCell, pin::Pin, rc::Rc};

use crate::{
    gpu::{AdapterChoice, Device},
    run::protocol::Problem,
};

/// A pending device request.
pub type DeviceFuture = Pin<Box<dyn Future<Output = Result<Rc<Device>, Problem>>>>;

/// A device that is requested once, so that its kernels are compiled once. A device that was lost is requested anew.
#[derive(Default)]
pub struct SharedDevice(Rc<OnceCell<Rc<Device>>>);

impl SharedDevice {
    /// The device; requested from this adapter if there is none.
    pub fn request(&mut self, adapter: &AdapterChoice) -> DeviceFuture {
        if self.opened().is_some_and(|device| device.check().is_err()) {
            self.0 = Rc::default();
        }
        let (adapter, opened) = (adapter.clone(), self.0.clone());
        Box::pin(async move {
            if let Some(device) = opened.get() {
                return Ok(device.clone());
            }
            let device = Rc::new(Device::open(&adapter).await?);
            Ok(opened.get_or_init(|| device).clone())
        })
    }

    /// The device, if it was requested.
    pub fn opened(&self) -> Option<&Rc<Device>> {
        self.0.get()
    }
}
