//! Mistakes that pods alone would notice, logged once a minute.
//!
//! Owns: that interval. Must not know: what is logged.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::BootTime;

const SAY_AGAIN: Duration = Duration::from_secs(60);

/// When something was logged last. Anybody can send a token that is logged, so that is once a minute at most.
#[derive(Debug, Default)]
pub(super) struct LastTold(Mutex<Option<BootTime>>);

impl LastTold {
    /// Whether it may be logged now; if so, it counts as logged.
    pub(super) fn is_due(&self, now: BootTime) -> bool {
        let mut told = self.0.lock();
        let is_due = told.is_none_or(|told| now.since(told) >= SAY_AGAIN);
        if is_due {
            *told = Some(now);
        }
        is_due
    }
}
