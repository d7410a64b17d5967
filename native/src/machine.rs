//! The environment of runs on the command line: adapter, files and clock.
//!
//! The device is requested once, so that the runs of a study share its compiled kernels.

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

/// Where runs are kept.
enum Place {
    /// A single run in this folder. It is a path, which need not be valid UTF-8, so the name in a command is only a label.
    Run(PathBuf),
    /// The runs of a study, each in a folder of its name below this one.
    Study(PathBuf),
}

/// A device, and the place of the runs that are made on it.
pub struct Machine {
    common: Common,
    place: Place,
    clock: Clock,
    device: Rc<OnceCell<Rc<Device>>>,
}

impl Machine {
    /// The environment of a run in `folder`.
    pub fn of_run(common: &Common, folder: PathBuf) -> Machine {
        Machine { common: common.clone(), place: Place::Run(folder), clock: open::clock(), device: Rc::default() }
    }

    /// The environment of the runs of a study below `folder`.
    pub fn of_study(common: &Common, folder: PathBuf) -> Machine {
        Machine { place: Place::Study(folder), ..Machine::of_run(common, PathBuf::new()) }
    }

    /// Simulates a lost device, for a test.
    pub fn lose_device(&self) {
        self.device.get().into_iter().for_each(|device| device.destroy());
    }
}

impl Environment for Machine {
    fn device(&mut self) -> DeviceFuture {
        // A device that was lost is requested anew.
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
        open::corpus_with(&self.common, config, own, Purpose::Train).map_err(|error| exit::problem(&error))
    }

    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        let path = match &self.place {
            Place::Run(folder) => folder.clone(),
            Place::Study(folder) => {
                check_name(run)?;
                folder.join(run)
            }
        };
        let store = Directory::open(&path).with_context(|| print::path(&path));
        Ok(Box::new(store.map_err(|error| exit::problem(&error))?))
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn tag(&self) -> String {
        open::tag()
    }

    fn name(&self, run: &str) -> String {
        match &self.place {
            Place::Run(folder) => open::name(folder),
            Place::Study(_) => run.into(),
        }
    }

    fn rasterize(&self) -> Option<Rasterize> {
        Some(raster::raster)
    }
}
