//! Room for runs, where a browser keeps them.

/// What is stored, and what can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Storage {
    /// Bytes that are stored.
    pub used: f64,
    /// Bytes that the browser allows.
    pub quota: f64,
}

/// What notes about the room are about: no name of a run, which has no spaces.
pub const ABOUT: &str = "room for runs";

/// The room is little below this share of the quota, or below so many bytes.
const LITTLE_SHARE: f64 = 0.2;
const LITTLE_BYTES: f64 = 200.0 * (1 << 20) as f64;

impl Storage {
    /// Bytes that are left.
    pub fn left(&self) -> f64 {
        (self.quota - self.used).max(0.0)
    }

    /// Whether there is little room.
    pub fn is_low(&self) -> bool {
        self.left() < LITTLE_BYTES || self.left() < LITTLE_SHARE * self.quota
    }

    /// What is left, and what to do if that is little.
    pub fn words(&self) -> String {
        let mib = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
        let left = format!("{} of {} are left for runs in this browser", mib(self.left()), mib(self.quota));
        if self.is_low() {
            format!("{left}: download and remove runs that you no longer need (Runs, More), or free space on the disk")
        } else {
            left
        }
    }
}
