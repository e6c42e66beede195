//! For how long somebody is left alone who gave no answer. Pure.
//!
//! Owns: the count of failures in a row. Must not know: who it is, or why.

use crate::backoff::Backoff;
use crate::clock::BootTime;
use crate::rng::Rng;

/// Failures in a row, and until when nobody asks.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
    until: Option<BootTime>,
}

impl Pause {
    /// There was an answer.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// There was none. Calls that fail beside each other are one failure.
    pub(super) fn begin(&mut self, backoff: Backoff, now: BootTime, rng: &Rng) {
        if self.until(now).is_none() {
            self.failures = self.failures.saturating_add(1);
            self.until = Some(now.plus(backoff.jittered(self.failures, rng)));
        }
    }

    /// Until when nobody asks; `None`: now.
    pub(super) fn until(&self, now: BootTime) -> Option<BootTime> {
        self.until.filter(|until| now < *until)
    }

    /// Whether the last answer was none: the next question finds out.
    pub(super) const fn is_trial(&self) -> bool {
        self.failures > 0
    }
}
