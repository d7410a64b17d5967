//! The environment of a run on the command line: adapter, files and clock.

use std::{path::PathBuf, rc::Rc};

use anyhow::Context;
use moelab::{
    data::{Corpus, prepare::Purpose, tokenizer::Tokenizer},
    gpu::Device,
    lab::{
        host::{Clock, DeviceFuture, Environment, Rasterize},
        store::Store,
    },
    run::{Config, protocol::Problem},
};
use moelab_native::{print, raster, store::Directory};

use crate::{Common, exit, open};

/// A single run in one folder. The folder is a path, which need not be valid UTF-8, so the name in a command is only a label.
pub struct Machine {
    common: Common,
    folder: PathBuf,
    clock: Clock,
    device: Rc<std::cell::OnceCell<Rc<Device>>>,
}

impl Machine {
    /// The environment of a run in `folder`.
    pub fn new(common: &Common, folder: PathBuf) -> Machine {
        Machine { common: common.clone(), folder, clock: open::clock(), device: Rc::default() }
    }

    /// Simulates a lost device, for a test.
    pub fn lose_device(&self) {
        self.device.get().into_iter().for_each(|device| device.destroy());
    }
}

impl Environment for Machine {
    fn device(&mut self) -> DeviceFuture {
        let (common, opened) = (self.common.clone(), self.device.clone());
        Box::pin(async move {
            let device = open::device(&common).map(Rc::new).map_err(|error| exit::problem(&error))?;
            Ok(opened.get_or_init(|| device).clone())
        })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        open::corpus_with(&self.common, config, own, Purpose::Train).map_err(|error| exit::problem(&error))
    }

    fn store(&mut self, _: &str) -> Result<Box<dyn Store>, Problem> {
        let store = Directory::open(&self.folder).with_context(|| print::path(&self.folder));
        Ok(Box::new(store.map_err(|error| exit::problem(&error))?))
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn tag(&self) -> String {
        open::tag()
    }

    fn name(&self, _: &str) -> String {
        open::name(&self.folder)
    }

    fn rasterize(&self) -> Option<Rasterize> {
        Some(raster::raster)
    }
}
