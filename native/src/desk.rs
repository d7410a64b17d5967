//! The trainer of the app, on a thread with a device of its own.

use std::{io, path::Path};

use moelab::{
    lab::{
        workspace::{Reply, Request},
        workspace_host::Workspace,
    },
    ui::Link,
};

use crate::{machine::Resources, places::Runs, print, runner::Runner};

/// A workspace on another thread.
pub struct Desk {
    runner: Runner<Request, Reply>,
    place: String,
}

impl Desk {
    /// The workspace of a folder; `wake` is called on each reply.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn open(runs: &Path, resources: Resources, wake: impl Fn() + Send + 'static) -> io::Result<Desk> {
        let places = Runs::new(runs, resources);
        let runner = Runner::spawn(move || Workspace::new(places.clone()), wake)?;
        Ok(Desk { runner, place: print::path(runs) })
    }
}

impl Link for Desk {
    fn send(&mut self, request: Request) {
        self.runner.send(request);
    }

    fn poll(&mut self) -> Option<Reply> {
        self.runner.poll()
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn has_files(&self) -> bool {
        true
    }
}
