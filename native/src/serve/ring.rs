//! The newest messages of the workspace that makes runs, for all clients.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moelab::lab::workspace::Reply;
use serde_json::json;

/// Most messages that are kept, and their bytes.
const MESSAGES: usize = 4096;
const BYTES: usize = 4 << 20;
/// Clients that wait at once; others are answered at once and ask again.
const WAITING: usize = 64;

/// Numbered messages, of which the newest are kept.
#[derive(Default)]
pub struct Ring {
    kept: Mutex<Kept>,
    news: Condvar,
}

#[derive(Default)]
struct Kept {
    messages: VecDeque<String>,
    /// The number of the next message.
    next: u64,
    bytes: usize,
    waiting: usize,
}

impl Ring {
    /// Adds a message.
    pub fn push(&self, reply: &Reply) {
        let Ok(message) = serde_json::to_string(reply) else { return };
        let mut kept = self.lock();
        kept.next += 1;
        kept.bytes += message.len();
        kept.messages.push_back(message);
        while kept.messages.len() > MESSAGES || kept.bytes > BYTES {
            let Some(oldest) = kept.messages.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
        drop(kept);
        self.news.notify_all();
    }

    /// The messages from a number on, after a line with the number of the next one, and whether some are lost. Waits for one if there is none. A client
    /// without a number gets it at once.
    pub fn since(&self, number: Option<u64>, most: Duration) -> Vec<String> {
        let mut kept = self.lock();
        let number = number.unwrap_or(kept.next).min(kept.next);
        if number == kept.next && kept.waiting < WAITING {
            kept.waiting += 1;
            let waited = self.news.wait_timeout_while(kept, most, |kept| kept.next == number);
            kept = waited.unwrap_or_else(PoisonError::into_inner).0;
            kept.waiting -= 1;
        }
        let oldest = kept.next - kept.messages.len() as u64;
        let skipped = usize::try_from(number.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let head = json!({ "next": kept.next, "are_lost": number < oldest }).to_string();
        std::iter::once(head).chain(kept.messages.iter().skip(skipped).cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_client_misses_messages_and_memory_is_bounded() {
        let ring = Ring::default();
        let reply = |number: usize| Reply::Warned { text: format!("{number}:{}", "x".repeat(4096)) };
        (0..3000).for_each(|number| ring.push(&reply(number)));
        assert!(ring.lock().bytes <= BYTES);
        let all = ring.since(Some(0), Duration::ZERO);
        assert!(all[0].contains("\"are_lost\":true") && all[0].contains("\"next\":3000"), "{}", all[0]);
        assert_eq!(all.last(), Some(&serde_json::to_string(&reply(2999)).unwrap()));
        let last = ring.since(Some(2999), Duration::ZERO);
        assert_eq!((last.len(), last[0].contains("\"are_lost\":false")), (2, true));
        assert_eq!(ring.since(Some(u64::MAX), Duration::ZERO).len(), 1);
    }
}
