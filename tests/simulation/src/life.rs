//! The life of an agent's process, which ends when it is killed.
//!
//! Owns: that nothing of it goes on then. Must not know: when that is.

use std::sync::Arc;

use tokio::sync::watch;

/// A life; clones are the same.
#[derive(Clone, Debug)]
pub struct Life(Arc<watch::Sender<bool>>);

impl Life {
    /// Nobody has killed it yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }

    /// It is killed.
    pub fn end(&self) {
        self.0.send_replace(false);
    }

    /// What comes of it, unless it is killed before.
    pub async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut life = self.0.subscribe();
        tokio::select! {
            // In this order, so that what is over begins nothing.
            biased;
            _over = life.wait_for(|lives| !lives) => None,
            done = work => Some(done),
        }
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}
