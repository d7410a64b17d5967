//! Filters outgoing events by subscription and collects values of series into blocks.

use std::rc::Rc;

use crate::{
    gpu::Compilation,
    run::{
        protocol::{OpeningPhase, SeriesBlock, SessionEvent, Subscription},
        records::UpdateRecord,
    },
};

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Nothing: there is more to do immediately.
    Busy,
    /// The device, or a browser's event loop.
    Waiting,
    /// A command: the run is paused, or there is none.
    Idle,
}

impl Activity {
    /// After work that the device or a browser does by itself: `progressed` if some of it was finished.
    pub fn of(progressed: bool) -> Activity {
        if progressed { Activity::Busy } else { Activity::Waiting }
    }
}

/// Seconds since any fixed moment.
pub type Clock = Rc<dyn Fn() -> f64>;

/// Collects events in their order: values of series come before whatever happened after them.
pub struct Publisher {
    clock: Clock,
    subscription: Subscription,
    block: SeriesBlock,
    /// When the last block was returned.
    last_block: f64,
    events: Vec<SessionEvent>,
}

impl Publisher {
    /// Without subscribed series.
    pub fn new(clock: Clock) -> Publisher {
        let subscription = Subscription::default();
        Publisher { last_block: f64::NEG_INFINITY, clock, subscription, block: SeriesBlock::default(), events: Vec::new() }
    }

    /// Changes the subscription.
    pub fn subscribe(&mut self, subscription: Subscription) {
        self.give_block();
        self.block = SeriesBlock::new(&subscription.series);
        self.subscription = subscription;
    }

    /// Adds an event.
    pub fn push(&mut self, event: SessionEvent) {
        self.give_block();
        self.events.push(event);
    }

    /// A phase of the opening starts.
    pub fn opening(&mut self, phase: OpeningPhase) {
        self.push(SessionEvent::Opening { phase, done: 0, total: 0, detail: None });
    }

    /// The next kernel is compiled.
    pub fn compiling(&mut self, compilation: &Compilation) {
        let (done, total) = (compilation.done() as u32, compilation.total() as u32);
        self.push(SessionEvent::Opening { phase: OpeningPhase::Kernels, done, total, detail: compilation.next() });
    }

    /// Adds a warning.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.push(SessionEvent::Warning { text: text.into() });
    }

    /// Adds an update.
    pub fn update(&mut self, record: UpdateRecord, is_logged: bool) {
        if !self.subscription.series.is_empty() {
            self.block.push(&record);
        }
        if is_logged && self.subscription.records {
            self.push(SessionEvent::Update(Box::new(record)));
        }
    }

    /// Returns the collected events.
    pub fn take(&mut self) -> Vec<SessionEvent> {
        if (self.clock)() - self.last_block >= self.subscription.every_seconds {
            self.give_block();
        }
        std::mem::take(&mut self.events)
    }

    fn give_block(&mut self) {
        if !self.block.updates.is_empty() {
            let block = std::mem::replace(&mut self.block, SeriesBlock::new(&self.subscription.series));
            self.last_block = (self.clock)();
            self.events.push(SessionEvent::Series(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn blocks_respect_the_interval_and_precede_later_events() {
        let now = Rc::new(Cell::new(0.0));
        let mut publisher = Publisher::new({
            let now = now.clone();
            Rc::new(move || now.get())
        });
        publisher.update(UpdateRecord { update: 1, ..UpdateRecord::default() }, true);
        assert_eq!(publisher.take(), [], "nothing was subscribed to");
        publisher.subscribe(Subscription { series: vec!["train_ce".into()], every_seconds: 1.0, records: false });
        let mut seen = Vec::new();
        for update in 2..=30 {
            now.set(f64::from(update) / 10.0);
            publisher.update(UpdateRecord { update, ..UpdateRecord::default() }, true);
            if update == 15 {
                publisher.warn("here");
            }
            for event in publisher.take() {
                seen.push(match event {
                    SessionEvent::Series(block) => (block.updates[0], block.updates.len()),
                    _ => (0, 0),
                });
            }
        }
        assert_eq!(seen, [(2, 1), (3, 10), (13, 3), (0, 0), (16, 10)]);
        publisher.subscribe(Subscription { records: true, ..Subscription::default() });
        publisher.update(UpdateRecord { update: 31, ..UpdateRecord::default() }, true);
        publisher.update(UpdateRecord { update: 32, ..UpdateRecord::default() }, false);
        let events = publisher.take();
        assert!(
            matches!(&events[..], [SessionEvent::Series(rest), SessionEvent::Update(record)] if rest.updates == [26, 27, 28, 29, 30] && record.update == 31),
            "{events:?}"
        );
    }
}
