//! The environment of a slot: it makes one run after another on the same device, so that kernels are compiled once.

use std::{cell::OnceCell, path::PathBuf, rc::Rc};

use anyhow::Context;
use moelab::{
    data::{Corpus, prepare::Purpose, tokenizer::Tokenizer},
    gpu::Device,
    lab::{
        host::{Clock, DeviceFuture, Environment, Rasterize},
        store::{Store, check_name},
    },
    run::{Config, protocol::Problem},
};
use moelab_native::{print, raster, store::Directory};

use crate::{Common, exit, open};

/// A slot's device, and the folder of the study.
pub struct Slot {
    common: Common,
    folder: PathBuf,
    clock: Clock,
    device: Rc<OnceCell<Rc<Device>>>,
}

impl Slot {
    /// A slot for the runs of the study in `folder`.
    pub fn new(common: Common, folder: PathBuf) -> Slot {
        Slot { common, folder, clock: open::clock(), device: Rc::default() }
    }
}

impl Environment for Slot {
    fn device(&mut self) -> DeviceFuture {
        // A lost device is requested anew.
        if self.device.get().is_some_and(|device| device.check().is_err()) {
            self.device = Rc::default();
        }
        let (common, opened) = (self.common.clone(), self.device.clone());
        Box::pin(async move {
            if let Some(device) = opened.get() {
                return Ok(device.clone());
            }
            let device = open::device(&common).map(Rc::new).map_err(|error| exit::problem(&error))?;
            Ok(opened.get_or_init(|| device).clone())
        })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        open::corpus_with(&self.common, config, own, Purpose::Evaluate).map_err(|error| exit::problem(&error))
    }

    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        check_name(run)?;
        let path = self.folder.join(run);
        let store = Directory::open(&path).with_context(|| print::path(&path));
        Ok(Box::new(store.map_err(|error| exit::problem(&error))?))
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn tag(&self) -> String {
        open::tag()
    }

    fn rasterize(&self) -> Option<Rasterize> {
        Some(raster::raster)
    }
}
