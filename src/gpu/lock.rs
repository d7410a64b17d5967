//! Locks of what threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What it guards stays valid after a panic elsewhere: each value is written in one assignment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
