//! A host on a separate thread, for a desktop app: only messages cross threads, not the device, the data or the run folder.
//!
//! The thread ends when its [`Runner`] is dropped, after the run has saved a checkpoint. A panic of the trainer ends its run, is
//! reported as [`SessionEvent::Failed`], and the next run gets a new environment, with a new device.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use moelab::{
    lab::host::{Activity, Environment, Host},
    run::protocol::{Command, Problem, SessionEvent},
};

/// Most seconds that pass between two looks at the commands, but for what cannot be cut.
const BUDGET_SECONDS: f64 = 0.02;

/// A thread with a host.
pub struct Runner {
    /// Dropped to end the thread.
    commands: Option<Sender<Command>>,
    events: Receiver<SessionEvent>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts a thread, which creates its environment, and creates it again after a panic.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn spawn<E: Environment>(make: impl Fn() -> E + Send + 'static) -> io::Result<Runner> {
        let (commands, received) = channel();
        let (sender, events) = channel();
        let body = move || {
            while let Err(panic) = catch_unwind(AssertUnwindSafe(|| drive(&mut Host::new(make()), &received, &sender))) {
                // The receiver may have been dropped.
                let _ = sender.send(SessionEvent::Failed(Box::new(Problem::new(format!("the trainer stopped: {}", words(&*panic))))));
            }
        };
        let thread = thread::Builder::new().name("trainer".into()).spawn(body)?;
        Ok(Runner { commands: Some(commands), events, thread: Some(thread) })
    }

    /// Sends a command.
    pub fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }

    /// The next available event. Never blocks.
    pub fn poll(&self) -> Option<SessionEvent> {
        self.events.try_recv().ok()
    }

    /// Waits for the next event; `None` if there is none in time, or if the thread has ended.
    pub fn wait(&self, most: Duration) -> Option<SessionEvent> {
        self.events.recv_timeout(most).ok()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was reported.
            let _ = thread.join();
        }
    }
}

/// Drives a host until the sender is dropped and its run has ended.
fn drive<E: Environment>(host: &mut Host<E>, commands: &Receiver<Command>, events: &Sender<SessionEvent>) {
    let mut is_closing = false;
    loop {
        while !is_closing {
            match commands.try_recv() {
                Ok(command) => host.send(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    is_closing = true;
                    host.send(Command::Stop);
                }
            }
        }
        let (new_events, activity) = host.advance(BUDGET_SECONDS);
        for event in new_events {
            // The run continues even if nobody is listening.
            let _ = events.send(event);
        }
        match activity {
            Activity::Busy => {}
            Activity::Waiting => host.wait(),
            Activity::Idle if is_closing => return,
            Activity::Idle => match commands.recv() {
                Ok(command) => host.send(command),
                Err(_) => {
                    is_closing = true;
                    host.send(Command::Stop);
                }
            },
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
