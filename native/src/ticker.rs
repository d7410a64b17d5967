//! Progress of long preparations.

use crate::err;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Nothing is printed for shorter preparations.
const FIRST: Duration = Duration::from_secs(3);
/// The interval between lines.
const BETWEEN: Duration = Duration::from_secs(10);

/// While it exists, prints the progress of a preparation to stderr: nothing in the first seconds, then a line at regular intervals.
pub struct Ticker {
    done: Arc<AtomicU64>,
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts reporting on `what`, of `total` bytes if known.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        Self::every(FIRST, BETWEEN, move |done, elapsed| err!("{}", line(what, done, total, elapsed)))
    }

    fn every(first: Duration, between: Duration, tell: impl Fn(u64, Duration) + Send + 'static) -> Self {
        let (end, ended) = channel::<()>();
        let done = Arc::new(AtomicU64::new(0));
        let (seen, start) = (Arc::clone(&done), Instant::now());
        let thread = thread::spawn(move || {
            let mut wait = first;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                tell(seen.load(Ordering::Relaxed), start.elapsed());
                wait = between;
            }
        });
        Self { done, end: Some(end), thread: Some(thread) }
    }

    /// Adds to the number of processed bytes.
    pub fn add(&self, bytes: usize) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The thread only prints; its failure cannot be reported.
            let _ = thread.join();
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let far = match (done, total) {
        (0, _) => String::new(),
        (_, Some(total)) => format!(": {} of {} MB", megabytes(done), megabytes(total)),
        (_, None) => format!(": {} MB", megabytes(done)),
    };
    format!("{what}{far}, {} s", elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_the_progress() {
        let seconds = Duration::from_secs(13);
        assert_eq!(line("tokenizing", 1_500_000, Some(20_000_000), seconds), "tokenizing: 1.5 of 20.0 MB, 13 s");
        assert_eq!(line("reading", 1_500_000, None, seconds), "reading: 1.5 MB, 13 s");
        assert_eq!(line("training the tokenizer", 0, None, seconds), "training the tokenizer, 13 s");
    }

    #[test]
    fn it_prints_until_it_is_dropped() {
        let (said, heard) = channel();
        let millisecond = Duration::from_millis(1);
        let ticker = Ticker::every(millisecond, millisecond, move |done, _| said.send(done).unwrap());
        ticker.add(7);
        while heard.recv().unwrap() != 7 {}
        drop(ticker);
        while heard.try_recv().is_ok() {}
        assert!(heard.recv().is_err(), "the thread has ended");
    }
}
