//! That the agent may not read the service accounts of a namespace. Pure.
//!
//! Owns: when it tries again. Must not know: which namespace that is.

use std::time::Duration;

use super::super::pause::Pause;
use super::account::Rank;
use crate::backoff::Backoff;
use crate::clock::BootTime;
use crate::rng::Rng;

/// Where the agent may not ask: at installation the right comes some seconds after the agent. For each
/// namespace, because rights may be given for some of them.
const WITHOUT_RIGHT: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(5 * 60));
/// While a pod waits, the right may just have been given: then it is tried again after this time, or half of
/// it.
const WITHOUT_RIGHT_FOR_WAITING: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(10));

/// The agent may not read the accounts of a namespace.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub(super) pause: Pause,
    /// When it is tried again for a pod that waits, if that is sooner.
    pub(super) for_waiting: Option<BootTime>,
}

impl Refusal {
    pub(super) fn note(&mut self, now: BootTime, rng: &Rng) {
        self.pause.begin(WITHOUT_RIGHT, now, rng);
        self.for_waiting = Some(now.plus(WITHOUT_RIGHT_FOR_WAITING.jittered(1, rng)));
    }

    /// Until when it is not tried.
    pub(super) fn until(&self, rank: Rank, now: BootTime) -> Option<BootTime> {
        let until = self.pause.until(now)?;
        match rank {
            Rank::New | Rank::Waiting => Some(self.for_waiting.map_or(until, |sooner| sooner.min(until))),
            Rank::Due => Some(until),
        }
    }
}
