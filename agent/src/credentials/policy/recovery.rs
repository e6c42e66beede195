//! Whether AWS is back, for sets that could not be renewed because it gave no answer. Pure.
//!
//! Owns: when a request may end the back-off of its own identity. Must not know: how renewals are made, or
//! what the request does meanwhile (`serving`).
//!
//! The back-off of an identity grows to two minutes, and is for an AWS that does not answer. When it has
//! answered anybody, that is over for all. With little life left nobody should have to wait for such luck:
//! then one call of the node in four seconds finds out, whichever pod asks, and none of them waits for it.

use std::time::Duration;

use crate::clock::BootTime;
use crate::credentials::source::SourceError;

/// Between two calls for one identity, and between two calls of the node that find out.
const PAUSE: Duration = Duration::from_secs(4);

/// A renewal that failed for no reason of its own identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// When its call began: what AWS has answered since then speaks for it, also if this call hung on.
    began: BootTime,
    at: BootTime,
    /// AWS answers, and wants less: that it answers others is no reason to ask again.
    is_throttled: bool,
}

/// What a request does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing: the back-off stands.
    None,
    /// AWS has answered since then: the set is renewed as if nothing had failed.
    EndBackoff,
    /// It starts a call and does not wait for it.
    FindOut,
}

/// What is known of AWS as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    answered_at: Option<BootTime>,
    tried_at: Option<BootTime>,
}

impl Unanswered {
    /// Of a renewal that failed at `at`; `None` if AWS has answered it, and for this identity alone.
    pub const fn of(error: &SourceError, began: BootTime, at: BootTime) -> Option<Self> {
        match error {
            SourceError::Unavailable(_) | SourceError::OwnIdentity(_) => {
                Some(Self { began, at, is_throttled: false })
            }
            SourceError::Throttled => Some(Self { began, at, is_throttled: true }),
            SourceError::Refused(_) => None,
        }
    }
}

impl Recovery {
    /// AWS has answered somebody, with credentials or a refusal.
    pub const fn answered(&mut self, now: BootTime) {
        self.answered_at = Some(now);
    }

    /// It has not.
    pub const fn not_answered(&mut self, now: BootTime) {
        self.tried_at = Some(now);
    }

    /// What a request for an identity with this unanswered does. `is_short`: little life is left.
    pub fn remedy(&mut self, unanswered: Unanswered, is_short: bool, now: BootTime) -> Remedy {
        if now.since(unanswered.at) < PAUSE {
            return Remedy::None;
        }
        if !unanswered.is_throttled && self.answered_at.is_some_and(|answered| answered > unanswered.began) {
            return Remedy::EndBackoff;
        }
        if is_short && self.tried_at.is_none_or(|tried| now.since(tried) >= PAUSE) {
            self.tried_at = Some(now);
            return Remedy::FindOut;
        }
        Remedy::None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Recovery, Remedy, Unanswered};
    use crate::clock::BootTime;
    use crate::credentials::source::{SourceError, Unavailable};

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn the_table_of_remedies() {
        use Remedy::{EndBackoff, FindOut, None as Nothing};
        // The call was made at 90 s, and failed at 100 s.
        let cases = [
            ("plenty of life", false, None, 100, false, 200, Nothing),
            ("little life", false, None, 100, true, 104, FindOut),
            ("a moment too early", false, None, 100, true, 103, Nothing),
            ("another identity has just tried", false, None, 103, true, 106, Nothing),
            ("and four seconds ago", false, None, 103, true, 107, FindOut),
            ("AWS has answered another one", false, Some(101), 100, false, 104, EndBackoff),
            ("but this one has just been tried", false, Some(101), 100, false, 103, Nothing),
            ("it did while this call hung on", false, Some(91), 100, false, 104, EndBackoff),
            ("it had answered before", false, Some(89), 100, false, 200, Nothing),
            ("it answers, and throttles", true, Some(101), 100, false, 200, Nothing),
            ("it throttles, and little life is left", true, Some(101), 100, true, 104, FindOut),
        ];
        for (what, is_throttled, answered, tried, is_short, now, expected) in cases {
            let mut recovery = Recovery { answered_at: answered.map(at), tried_at: Some(at(tried)) };
            let unanswered = Unanswered { began: at(90), at: at(100), is_throttled };
            assert_eq!(recovery.remedy(unanswered, is_short, at(now)), expected, "{what}");
        }
    }

    #[test]
    fn one_call_of_the_node_in_four_seconds_finds_out_however_many_ask() {
        let mut recovery = Recovery::default();
        let silence = SourceError::Unavailable(Unavailable::Timeout);
        let unanswered = Unanswered::of(&silence, at(0), at(0)).unwrap();
        recovery.not_answered(at(0));
        let asked = (0..60_000_u64).filter(|ms| {
            let now = BootTime::from_boot(Duration::from_millis(*ms));
            recovery.remedy(unanswered, true, now) == Remedy::FindOut
        });
        assert_eq!(asked.count(), 14);
    }
}
