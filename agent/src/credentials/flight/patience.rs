//! How long one attempt may take.
//!
//! Owns: the limits. Must not know: what an attempt does.
//!
//! The first limit is short, because a call that is lost (a dead connection, a backend that hangs) is
//! repeated best at once. The later ones are long, because a limit that never grows makes an AWS that is
//! merely slow one that never answers. An identity has one call at a time (invariant 4), so a slow call
//! cannot be left running beside its repetition; hence the steps are steep: with an answer after 3 s, boto3's
//! second try is served (docs/design/decisions.md#upstream).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The limits after no, one, two and more attempts that got no answer in time.
const LIMITS: [Duration; 3] =
    [Duration::from_millis(1200), Duration::from_millis(4800), Duration::from_secs(10)];

/// What the last answer teaches: an AWS that has just taken 3 s is not asked for less.
#[derive(Debug, Default)]
pub(in crate::credentials) struct Patience {
    last_answer_ms: AtomicU64,
}

impl Patience {
    /// The limit of the next attempt of a flight, `timeouts` of which got no answer in time. Where no client
    /// waits there is no hurry, and there may be no second attempt.
    pub(super) fn limit(&self, timeouts: usize, is_awaited: bool) -> Duration {
        let [first, second, longest] = LIMITS;
        let twice = Duration::from_millis(self.last_answer_ms.load(Ordering::Relaxed)).saturating_mul(2);
        match (timeouts, is_awaited) {
            (0, true) => twice.clamp(first, second),
            (0, false) | (1, _) => second,
            (_, _) => longest,
        }
    }

    /// AWS has answered after this time.
    pub(super) fn answered(&self, after: Duration) {
        self.last_answer_ms.store(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Patience;

    #[test]
    fn limits_grow_and_a_slow_answer_is_remembered_until_a_quick_one() {
        let patience = Patience::default();
        let limits =
            |patience: &Patience| (0..4).map(|n| patience.limit(n, true).as_millis()).collect::<Vec<_>>();
        assert_eq!(limits(&patience), [1200, 4800, 10_000, 10_000]);
        assert_eq!(patience.limit(0, false).as_millis(), 4800);
        patience.answered(Duration::from_secs(2));
        assert_eq!(limits(&patience), [4000, 4800, 10_000, 10_000]);
        patience.answered(Duration::from_secs(9));
        assert_eq!(patience.limit(0, true).as_millis(), 4800);
        patience.answered(Duration::from_millis(80));
        assert_eq!(patience.limit(0, true).as_millis(), 1200);
    }
}
