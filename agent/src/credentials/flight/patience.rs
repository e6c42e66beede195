//! How long one attempt may take.
//!
//! Owns: the limits. Must not know: what an attempt does.
//!
//! The first limit on a used connection is short, because the connection may be dead, and then the call is
//! repeated best at once. On a new connection nothing is lost, and AWS is merely slow or hangs: there a short
//! limit would give up a call that is about to be answered, and with it its place in the budget. An identity
//! has one call at a time (invariant 4), so a slow call cannot be left running beside its repetition; hence
//! the steps are steep (docs/design/decisions.md#upstream).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::credentials::limits::upstream_budget::PUNCTUAL;
use crate::credentials::policy::hold::LONGEST_HOLD;
use crate::credentials::source::TimeLimits;

/// On a used connection, while AWS is known to be quick.
const SHORTEST: Duration = PUNCTUAL;
/// On a new connection, and on any after a shorter one was too short. Enough for an EKS Auth that takes 4 s;
/// and where a backend hangs, the repetition is answered within the 4.5 s that a request is held.
const USUAL: Duration = Duration::from_millis(4_200);
const _: () = assert!(USUAL.as_millis() + 300 <= LONGEST_HOLD.as_millis());
/// After that one was too short as well, and where no client waits.
const LONGEST: Duration = Duration::from_secs(10);

/// What the last answer teaches: an AWS that has just taken 3 s is not asked for less.
#[derive(Debug, Default)]
pub(in crate::credentials) struct Patience {
    last_answer_ms: AtomicU64,
}

impl Patience {
    /// The limits of the next attempt of a flight, which has waited so long for an answer that did not come.
    /// Where no client waits there is no hurry, and there may be no second attempt.
    pub(super) fn limits(&self, waited: Duration, is_awaited: bool) -> TimeLimits {
        let twice = Duration::from_millis(self.last_answer_ms.load(Ordering::Relaxed)).saturating_mul(2);
        let usual = twice.clamp(USUAL, LONGEST);
        if !is_awaited || waited >= USUAL {
            TimeLimits { in_all: LONGEST, on_used_connection: LONGEST }
        } else if waited >= SHORTEST {
            TimeLimits { in_all: usual, on_used_connection: usual }
        } else {
            TimeLimits { in_all: usual, on_used_connection: twice.clamp(SHORTEST, usual) }
        }
    }

    /// AWS has answered after this time.
    pub(super) fn answered(&self, after: Duration) {
        self.last_answer_ms.store(millis(after), Ordering::Relaxed);
    }

    /// AWS has not answered within this time. If that was the shortest limit, nobody is given it again until
    /// an answer shows that it is enough.
    pub(super) fn not_answered(&self, within: Duration) {
        if within >= SHORTEST {
            self.last_answer_ms.fetch_max(millis(USUAL / 2), Ordering::Relaxed);
        }
    }

    /// Whether no attempt would have waited longer: AWS is not slow, it does not answer.
    pub(super) fn is_at_its_end(waited: Duration) -> bool {
        waited >= LONGEST
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Patience;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// In milliseconds: in all, and on a used connection.
    fn limits(patience: &Patience, waited: u64, is_awaited: bool) -> (u128, u128) {
        let limits = patience.limits(ms(waited), is_awaited);
        (limits.in_all.as_millis(), limits.on_used_connection.as_millis())
    }

    #[test]
    fn only_the_first_limit_on_a_used_connection_is_short_and_each_is_longer_than_the_one_before() {
        let patience = Patience::default();
        assert_eq!(limits(&patience, 0, true), (4_200, 1_200));
        assert_eq!(limits(&patience, 1_200, true), (4_200, 4_200));
        assert_eq!(limits(&patience, 4_200, true), (10_000, 10_000));
        assert_eq!(limits(&patience, 10_000, true), (10_000, 10_000));
        assert_eq!(limits(&patience, 0, false), (10_000, 10_000), "nobody waits");
        assert!(Patience::is_at_its_end(ms(10_000)) && !Patience::is_at_its_end(ms(9_999)));
    }

    #[test]
    fn a_slow_answer_and_none_at_all_are_remembered_until_a_quick_one() {
        let patience = Patience::default();
        patience.answered(ms(2_000));
        assert_eq!(limits(&patience, 0, true), (4_200, 4_000));
        patience.answered(ms(3_000));
        assert_eq!(limits(&patience, 0, true), (6_000, 6_000));
        patience.answered(ms(9_000));
        assert_eq!(limits(&patience, 0, true), (10_000, 10_000));
        patience.answered(ms(80));
        assert_eq!(limits(&patience, 0, true), (4_200, 1_200));
        patience.not_answered(ms(300));
        assert_eq!(limits(&patience, 0, true), (4_200, 1_200), "given up for another reason");
        patience.not_answered(ms(1_200));
        assert_eq!(limits(&patience, 0, true), (4_200, 4_200));
        patience.answered(ms(80));
        assert_eq!(limits(&patience, 0, true), (4_200, 1_200));
    }
}
