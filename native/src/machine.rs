//! The environment of runs on a machine with files: adapter, data, run folders, clock.
//!
//! A front end creates it where its trainer lives: the command line in its loop, a desktop app on the trainer's thread. The device is
//! requested once, and data are prepared once, so that the runs of a study share compiled kernels and tokenized text.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use anyhow::{Context, Result};
use moelab::{
    data::{
        Corpus,
        prepare::{self, Purpose},
        shared::SharedData,
        tokenizer::Tokenizer,
    },
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Clock, DeviceFuture, Environment, Rasterize},
        store::{Store, StoreError, check_name},
    },
    run::{Config, protocol::Problem},
};

use crate::{corpus, corpus::Files, print, problem::problem, raster, store::Directory};

/// What the user chose of the machine.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The GPU.
    pub adapter: AdapterChoice,
    /// Folder in which tokenized text and trained tokenizers are cached.
    pub cache: PathBuf,
}

/// Where runs are kept.
enum Place {
    /// A single run in this folder. It is a path, which need not be valid UTF-8, so the name in a command is only a label.
    Run(PathBuf),
    /// The runs of a study, each in a folder of its name below this one.
    Study(PathBuf),
}

/// A device, the data of the runs that are made on it, and the place of these runs.
pub struct Machine {
    resources: Resources,
    place: Place,
    clock: Clock,
    /// Shared, and replaced once it was lost.
    device: Rc<RefCell<Option<Rc<Device>>>>,
    most_repeated: Option<u32>,
    data: SharedData,
}

impl Machine {
    /// The environment of a run in `folder`.
    pub fn of_run(resources: Resources, folder: PathBuf) -> Machine {
        Machine {
            resources,
            place: Place::Run(folder),
            clock: clock(),
            most_repeated: None,
            device: Rc::default(),
            data: SharedData::default(),
        }
    }

    /// The environment of the runs of a study below `folder`.
    pub fn of_study(resources: Resources, folder: PathBuf) -> Machine {
        Machine { place: Place::Study(folder), ..Machine::of_run(resources, PathBuf::new()) }
    }

    /// The environment of the runs below `folder`, with the device and the data of this one.
    pub fn sharing(&self, folder: PathBuf) -> Machine {
        let place = Place::Study(folder);
        let (resources, clock) = (self.resources.clone(), self.clock.clone());
        Machine { resources, place, clock, most_repeated: self.most_repeated, device: self.device.clone(), data: self.data.clone() }
    }

    /// The same for a front end with windows: a run whose device is lost goes on by itself and makes at most so many updates again.
    pub fn recovering(self, most_repeated: u32) -> Machine {
        Machine { most_repeated: Some(most_repeated), ..self }
    }

    /// The folder of a run.
    fn path(&self, run: &str) -> Result<PathBuf, StoreError> {
        match &self.place {
            Place::Run(folder) => Ok(folder.clone()),
            Place::Study(folder) => {
                check_name(run)?;
                Ok(folder.join(run))
            }
        }
    }

    /// Simulates a lost device, for a test.
    pub fn lose_device(&self) {
        self.device.borrow().iter().for_each(|device| device.destroy());
    }
}

impl Environment for Machine {
    fn device(&mut self) -> DeviceFuture {
        let (adapter, shared) = (self.resources.adapter.clone(), self.device.clone());
        Box::pin(async move {
            // A device that was lost is requested anew.
            let found = shared.borrow().clone().filter(|device| device.check().is_ok());
            if let Some(device) = found {
                return Ok(device);
            }
            let device = device(&adapter).map(Rc::new).map_err(|error| problem(&error))?;
            *shared.borrow_mut() = Some(device.clone());
            Ok(device)
        })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        corpus::announce(&config);
        let found = self.data.corpus(config, own, &Files::new(&self.resources.cache));
        found.map_err(|error| problem(&error.into()))
    }

    fn validation_corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        let found = prepare::corpus(config, own, Purpose::Evaluate, &Files::new(&self.resources.cache));
        found.map_err(|error| problem(&error.into()))
    }

    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        let path = self.path(run)?;
        let store = Directory::open(&path).with_context(|| print::path(&path));
        Ok(Box::new(store.map_err(|error| problem(&error))?))
    }

    fn store_to_read(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        let path = self.path(run)?;
        let store = Directory::read_only(&path).with_context(|| print::path(&path));
        Ok(Box::new(store.map_err(|error| problem(&error))?))
    }

    fn may_wait(&self) -> bool {
        true
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn tag(&self) -> String {
        tag()
    }

    fn name(&self, run: &str) -> String {
        match &self.place {
            Place::Run(folder) => name(folder),
            Place::Study(_) => run.into(),
        }
    }

    fn most_repeated_updates(&self) -> Option<u32> {
        self.most_repeated
    }

    fn rasterize(&self) -> Option<Rasterize> {
        Some(raster::raster)
    }
}

/// Opens an adapter.
///
/// # Errors
/// If there is none, or not the chosen one, or it cannot run moelab.
pub fn device(adapter: &AdapterChoice) -> Result<Device> {
    Ok(pollster::block_on(Device::open(adapter))?)
}

/// Distinguishes this process from others in file names.
pub fn tag() -> String {
    std::process::id().to_string()
}

/// Seconds since now.
pub fn clock() -> Clock {
    let start = Instant::now();
    Rc::new(move || start.elapsed().as_secs_f64())
}

/// The name of a run, which is that of its folder.
pub fn name(folder: &Path) -> String {
    let canonical: PathBuf = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    canonical.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "run".into())
}
