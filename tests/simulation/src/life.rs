//! The life of an agent's process, which ends when it is killed.
//!
//! Owns: that nothing of it goes on then. Must not know: when that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A life; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Life(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// Wakes all in the order in which they came; a `watch` leaves that to chance, and the story with it.
    ended: Notify,
}

impl Life {
    /// Nobody has killed it yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// It is killed.
    pub fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.ended.notify_waiters();
    }

    /// What comes of it, unless it is killed before.
    pub async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let ended = self.0.ended.notified();
        if self.0.is_over.load(Ordering::Relaxed) {
            return None;
        }
        tokio::select! {
            // In this order, so that what is over begins nothing.
            biased;
            () = ended => None,
            done = work => Some(done),
        }
    }
}
