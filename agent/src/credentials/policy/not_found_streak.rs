//! How often AWS has said that there is no association.
//!
//! Owns: when it has said so often and long enough to be believed. Must not know: what follows
//! (`entitlement`).

use std::time::Duration;

use crate::clock::BootTime;

/// "No association" must have been said for this long (docs/design/decisions.md#entitlement).
pub(super) const PERIOD: Duration = Duration::from_secs(300);
/// And so many times.
const TIMES: u32 = 3;
/// How often, and since when, AWS has said that there is no association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFoundStreak {
    /// How often, the last time included; a success or any word of an association ends it.
    pub times: u32,
    /// The first time.
    pub since: BootTime,
}

impl NotFoundStreak {
    /// Whether it is to be believed. `max_stale` is `--max-stale-after-refusal`.
    pub(super) fn is_over(self, now: BootTime, max_stale: Option<Duration>) -> bool {
        let lasted = now.since(self.since);
        let is_over_by_table = self.times >= TIMES && lasted >= PERIOD;
        is_over_by_table || max_stale.is_some_and(|max| lasted >= max)
    }

    /// The next time that AWS said so.
    pub fn and_again(earlier: Option<Self>, now: BootTime) -> Self {
        let since = earlier.map_or(now, |earlier| earlier.since);
        Self { times: earlier.map_or(0, |earlier| earlier.times).saturating_add(1), since }
    }
}
