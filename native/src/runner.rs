//! A host on a thread of its own, for a desktop app: messages cross, the device, the data and the run's folder do not.
//!
//! The thread ends when its [`Runner`] is dropped, after the run has saved a checkpoint. A panic of the trainer ends the thread
//! alone, and is told as [`SessionEvent::Failed`].

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
    /// Starts a thread, which makes its environment.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn<E: Environment>(make: impl FnOnce() -> E + Send + 'static) -> io::Result<Runner> {
        let (commands, received) = channel();
        let (told, events) = channel();
        let body = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drive(&mut Host::new(make()), &received, &told))) {
                // Nobody may be listening any more.
                let _ = told.send(SessionEvent::Failed(Box::new(Problem::new(format!("the trainer stopped: {}", words(&*panic))))));
            }
        };
        let thread = thread::Builder::new().name("trainer".into()).spawn(body)?;
        Ok(Runner { commands: Some(commands), events, thread: Some(thread) })
    }

    /// Sends a command. One that comes after the thread has failed is lost; the failure was told.
    pub fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }

    /// The next event that is there. Never blocks.
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
            // Its panic was told.
            let _ = thread.join();
        }
    }
}

/// Drives a host until nobody can send commands any more and its run has ended.
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
        let (told, activity) = host.advance(BUDGET_SECONDS);
        for event in told {
            // A run goes to its end though nobody is listening.
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
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}
