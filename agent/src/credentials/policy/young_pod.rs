//! Patience with pods that are younger than their association. Pure.
//!
//! Owns: when a refusal is not yet the last word. Must not know: how a call is made. Associations and IAM are
//! eventually consistent, and pods are often created in the same second as their association: they would
//! start with an error that is gone a moment later (docs/design/decisions.md#young-pods).

use std::time::{Duration, SystemTime};

use crate::credentials::policy::hold::LONGEST_HOLD;
use crate::credentials::source::RefusalClass;

/// A token issued less than this ago belongs to a young pod, or to one that just got a new token.
const YOUNG: Duration = Duration::from_secs(60);
/// No attempt begins later than this after the first: its answer must fit into the 4.5 s that a request is
/// held.
const LAST_ATTEMPT: Duration = Duration::from_millis(4_000);
const _: () = assert!(LAST_ATTEMPT.as_millis() + 500 <= LONGEST_HOLD.as_millis());
/// After a refusal the next attempt comes after this, doubling, with jitter: four or five in all.
pub const FIRST_GRACE_RETRY: Duration = Duration::from_millis(500);

/// Whether a refusal may be too early to be true. When it was given, AWS knows best; where nobody knows, it
/// may have been a moment after the token.
pub fn may_change(class: RefusalClass, issued: Option<SystemTime>, refused_at: Option<SystemTime>) -> bool {
    let is_eventual = match class {
        RefusalClass::NoAssociation | RefusalClass::RoleNotAssumable => true,
        RefusalClass::TokenExpired | RefusalClass::TokenInvalid | RefusalClass::BadRequest => false,
    };
    // Issued in the future is a clock a little behind: as young as can be.
    let is_young = |issued| refused_at.is_none_or(|at| at.duration_since(issued).unwrap_or_default() < YOUNG);
    is_eventual && issued.is_some_and(is_young)
}

/// Whether there is time for another attempt, `pause` from now, in a flight that began `began` ago.
pub fn has_time(began: Duration, pause: Duration) -> bool {
    began + pause <= LAST_ATTEMPT
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{has_time, may_change};
    use crate::credentials::source::RefusalClass;

    #[test]
    fn the_table_of_grace() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        let cases = [
            (RefusalClass::NoAssociation, ago(0), true),
            (RefusalClass::NoAssociation, ago(59), true),
            (RefusalClass::NoAssociation, ago(60), false),
            (RefusalClass::RoleNotAssumable, ago(59), true),
            (RefusalClass::RoleNotAssumable, ago(60), false),
            (RefusalClass::RoleNotAssumable, Some(now + Duration::from_secs(2)), true),
            (RefusalClass::RoleNotAssumable, None, false),
            (RefusalClass::TokenInvalid, ago(1), false),
            (RefusalClass::TokenExpired, ago(1), false),
            (RefusalClass::BadRequest, ago(1), false),
        ];
        for (class, issued, expected) in cases {
            assert_eq!(may_change(class, issued, Some(now)), expected, "{class:?} {issued:?}");
        }
        assert!(may_change(RefusalClass::NoAssociation, ago(3600), None), "nobody knows how old it is");
        assert!(!may_change(RefusalClass::NoAssociation, None, None));
        assert!(!may_change(RefusalClass::TokenInvalid, ago(0), None));
    }

    #[test]
    fn no_attempt_begins_after_four_seconds() {
        assert!(has_time(Duration::from_secs(3), Duration::from_secs(1)));
        assert!(!has_time(Duration::from_secs(3), Duration::from_millis(1_001)));
    }
}
