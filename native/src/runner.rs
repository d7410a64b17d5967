//! A trainer on a separate thread, for a study's slots and the desktop app: only messages cross threads, not the device, the data or the
//! run folder.
//!
//! The thread ends when its [`Runner`] is dropped, after the run has saved a checkpoint. A panic of the trainer ends its run, is
//! reported as a failure, and the next run gets a new environment, with a new device.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use moelab::{
    lab::{
        host::{Activity, Environment, Host},
        workspace::{Reply, Request},
        workspace_host::{Places, Workspace},
    },
    run::protocol::{Command, Problem, SessionEvent},
};

/// Most seconds that pass between two looks at the commands, but for what cannot be cut.
const BUDGET_SECONDS: f64 = 0.02;

/// What is driven by messages.
///
/// Two implementations: the host of a session, and a workspace.
pub trait Driven {
    /// A message to it.
    type Command: Send + 'static;
    /// A message from it.
    type Event: Send + 'static;

    /// Queues a command.
    fn send(&mut self, command: Self::Command);

    /// Works for at most `budget` seconds.
    fn advance(&mut self, budget: f64) -> (Vec<Self::Event>, Activity);

    /// Blocks until the device has completed work.
    fn wait(&mut self);

    /// Stops what is under way, with a checkpoint.
    fn stop(&mut self);

    /// The event that reports a panic.
    fn failed(problem: Problem) -> Self::Event;
}

impl<E: Environment> Driven for Host<E> {
    type Command = Command;
    type Event = SessionEvent;

    fn send(&mut self, command: Command) {
        Host::send(self, command);
    }

    fn advance(&mut self, budget: f64) -> (Vec<SessionEvent>, Activity) {
        Host::advance(self, budget)
    }

    fn wait(&mut self) {
        Host::wait(self);
    }

    fn stop(&mut self) {
        Host::send(self, Command::Stop);
    }

    fn failed(problem: Problem) -> SessionEvent {
        SessionEvent::Failed(Box::new(problem))
    }
}

impl<P: Places> Driven for Workspace<P> {
    type Command = Request;
    type Event = Reply;

    fn send(&mut self, request: Request) {
        Workspace::send(self, request);
    }

    fn advance(&mut self, budget: f64) -> (Vec<Reply>, Activity) {
        Workspace::advance(self, budget)
    }

    fn wait(&mut self) {
        Workspace::wait(self);
    }

    fn stop(&mut self) {
        Workspace::stop(self);
    }

    fn failed(problem: Problem) -> Reply {
        Reply::Failed(Box::new(problem))
    }
}

/// A thread with something that is driven.
pub struct Runner<C = Command, E = SessionEvent> {
    /// Dropped to end the thread.
    commands: Option<Sender<C>>,
    events: Receiver<E>,
    thread: Option<JoinHandle<()>>,
}

impl<C: Send + 'static, E: Send + 'static> Runner<C, E> {
    /// Starts a thread, which creates what it drives, and creates it again after a panic. `wake` is called after events were sent.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn spawn<D: Driven<Command = C, Event = E>>(
        make: impl Fn() -> D + Send + 'static,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Runner<C, E>> {
        let (commands, received) = channel();
        let (sender, events) = channel();
        let body = move || {
            while let Err(panic) = catch_unwind(AssertUnwindSafe(|| drive(&mut make(), &received, &sender, &wake))) {
                // The receiver may have been dropped.
                let _ = sender.send(D::failed(Problem::new(format!("the trainer stopped: {}", words(&*panic)))));
                wake();
            }
        };
        let thread = thread::Builder::new().name("trainer".into()).spawn(body)?;
        Ok(Runner { commands: Some(commands), events, thread: Some(thread) })
    }

    /// Sends a command.
    pub fn send(&self, command: C) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }

    /// The next available event. Never blocks.
    pub fn poll(&self) -> Option<E> {
        self.events.try_recv().ok()
    }

    /// Waits for the next event; `None` if there is none in time, or if the thread has ended.
    pub fn wait(&self, most: Duration) -> Option<E> {
        self.events.recv_timeout(most).ok()
    }
}

impl<C, E> Drop for Runner<C, E> {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was reported.
            let _ = thread.join();
        }
    }
}

/// Drives until the sender is dropped and the run has ended.
fn drive<D: Driven>(driven: &mut D, commands: &Receiver<D::Command>, events: &Sender<D::Event>, wake: &impl Fn()) {
    let mut is_closing = false;
    loop {
        while !is_closing {
            match commands.try_recv() {
                Ok(command) => driven.send(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    is_closing = true;
                    driven.stop();
                }
            }
        }
        let (new_events, activity) = driven.advance(BUDGET_SECONDS);
        let has_news = !new_events.is_empty();
        for event in new_events {
            // The run continues even if nobody is listening.
            let _ = events.send(event);
        }
        if has_news {
            wake();
        }
        match activity {
            Activity::Busy => {}
            Activity::Waiting => driven.wait(),
            Activity::Idle if is_closing => return,
            Activity::Idle => match commands.recv() {
                Ok(command) => driven.send(command),
                Err(_) => {
                    is_closing = true;
                    driven.stop();
                }
            },
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
