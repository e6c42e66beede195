//! Whether a set that is checked in the background is renewed. Pure.
//!
//! Owns: for whom renewals are made (invariant 8), and how a failed one is repeated. Must not know: how a
//! renewal is done, or what a request does meanwhile (`serving`).
//!
//! A set is renewed only if somebody was served since it came. What fails is tried again for those who go on
//! asking, as often as the back-off allows. For a pod that does not, and may be gone, it is repeated once,
//! when a sixth of the life is left, and never urgently: two calls in all, whatever AWS says.

use std::time::Duration;

use crate::credentials::policy::freshness::{Freshness, MIN_REMAINING_LIFE, Urgency};

/// A pod that asked so lately is there still, most likely.
const HARDLY_GONE: Duration = Duration::from_secs(60);

/// For whom a renewal would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nobody was served since the set came, or since the repeated renewal failed as well.
    Nobody,
    /// Somebody was served since the set came, or since its last renewal failed.
    Somebody,
    /// A renewal has failed, and nobody was served since.
    FailedOnce,
    /// A renewal has brought the set, and nobody was served since: of the two calls that a pod which is gone
    /// may cost one was not needed.
    RenewedOnce,
}

/// What is known of a set that is checked.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// How much life it has.
    pub freshness: Freshness,
    /// The life that AWS's next answer may show that there was all along: the set is kept by it.
    pub left_at_most: Duration,
    /// How long until its renewal is due.
    pub due_in: Duration,
    /// For whom it would be renewed.
    pub demand: Demand,
    /// Whether the pod has a token that is still valid.
    pub has_token: bool,
    /// The last call for a pod that may be gone is wanted after this time, however much life is left then:
    /// `--max-stale-after-refusal` will be over.
    pub repeat_in: Option<Duration>,
}

/// What a check leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// It has expired.
    Forget,
    /// It is checked again after this time.
    CheckAfter(Duration),
    /// It is renewed, and checked again after this time, unless the outcome plans otherwise.
    Renew(Urgency, Duration),
}

impl Demand {
    /// What it becomes when a renewal fails.
    #[must_use]
    pub const fn after_failure(self) -> Self {
        match self {
            Self::Somebody => Self::FailedOnce,
            Self::FailedOnce | Self::RenewedOnce | Self::Nobody => Self::Nobody,
        }
    }

    /// What it becomes when a renewal brings a set.
    #[must_use]
    pub const fn after_success(self) -> Self {
        match self {
            Self::Somebody => Self::RenewedOnce,
            Self::FailedOnce | Self::RenewedOnce | Self::Nobody => Self::Nobody,
        }
    }

    /// Whether a set that was asked for so long ago may be renewed only because the answer tells the time. If
    /// another answer has come and contradicts, doubt must not wait for the next request: the pod that the
    /// first one was asked with may cost a second call, if it can hardly be gone.
    pub fn may_tell_the_time(self, asked_ago: Duration, has_contradiction: bool) -> bool {
        match self {
            Self::Somebody => true,
            Self::FailedOnce | Self::RenewedOnce => has_contradiction && asked_ago < HARDLY_GONE,
            Self::Nobody => false,
        }
    }
}

/// Decides on a check.
pub fn next_step(checked: &Checked) -> NextStep {
    let Freshness { left, lifetime, .. } = checked.freshness;
    if checked.left_at_most < MIN_REMAINING_LIFE {
        return NextStep::Forget;
    }
    let until_expired = checked.left_at_most.saturating_sub(MIN_REMAINING_LIFE);
    let until_last_sixth = left.saturating_sub(lifetime / 6);
    if !checked.has_token {
        return NextStep::CheckAfter(until_expired);
    }
    match checked.demand {
        Demand::Nobody | Demand::RenewedOnce => NextStep::CheckAfter(until_expired),
        Demand::Somebody => {
            let urgency = checked.freshness.urgency();
            let again = match urgency {
                Urgency::Routine => until_last_sixth,
                Urgency::Pressing => until_expired,
            };
            NextStep::Renew(urgency, again)
        }
        Demand::FailedOnce => {
            let repeat_in = checked.repeat_in.map_or(until_last_sixth, |time| time.min(until_last_sixth));
            if repeat_in.is_zero() {
                NextStep::Renew(Urgency::Routine, until_expired)
            } else {
                NextStep::CheckAfter(repeat_in)
            }
        }
    }
}

/// After what time a set is looked at that nobody has looked at since AWS moved the time.
pub fn look_in(checked: &Checked) -> Duration {
    match next_step(checked) {
        NextStep::Forget => Duration::ZERO,
        NextStep::CheckAfter(time) => time,
        NextStep::Renew(..) => checked.due_in,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Demand::{FailedOnce, Nobody, RenewedOnce, Somebody};
    use super::NextStep::{CheckAfter, Forget, Renew};
    use super::{Checked, look_in, next_step};
    use crate::credentials::policy::freshness::Freshness;
    use crate::credentials::policy::freshness::Urgency::{Pressing, Routine};

    #[test]
    fn the_table_of_checks() {
        let s = Duration::from_secs;
        // Of an hour: half of it is left, a moment more than a sixth, a sixth, the end.
        let cases = [
            ("expired", 14, Somebody, true, None, Forget),
            ("expired, and of nobody", 14, Nobody, true, None, Forget),
            ("due", 1_800, Somebody, true, None, Renew(Routine, s(1_200))),
            ("due, with a sixth left", 599, Somebody, true, None, Renew(Pressing, s(584))),
            ("nobody asked", 1_800, Nobody, true, None, CheckAfter(s(1_785))),
            ("nobody asked since it was renewed", 1_800, RenewedOnce, true, None, CheckAfter(s(1_785))),
            ("no token renews it", 1_800, Somebody, false, None, CheckAfter(s(1_785))),
            ("it failed, and nobody asked since", 1_800, FailedOnce, true, None, CheckAfter(s(1_200))),
            ("a moment too early", 601, FailedOnce, true, None, CheckAfter(s(1))),
            ("once more, and not urgently", 600, FailedOnce, true, None, Renew(Routine, s(585))),
            ("in the last minute", 60, FailedOnce, true, None, Renew(Routine, s(45))),
            ("no token repeats it", 60, FailedOnce, false, None, CheckAfter(s(45))),
            ("stale for 30 s more at most", 1_800, FailedOnce, true, Some(30), CheckAfter(s(30))),
            ("it may be stale no longer", 1_800, FailedOnce, true, Some(0), Renew(Routine, s(1_785))),
            ("and if nobody asks", 1_800, Nobody, true, Some(0), CheckAfter(s(1_785))),
        ];
        for (what, left, demand, has_token, repeat_in, expected) in cases {
            let freshness = Freshness { left: s(left), lifetime: s(3600), is_due: true, is_quiet: false };
            let left_at_most = freshness.left;
            let (due_in, repeat_in) = (Duration::ZERO, repeat_in.map(s));
            let checked = Checked { freshness, left_at_most, due_in, demand, has_token, repeat_in };
            assert_eq!(next_step(&checked), expected, "{what}");
        }
    }

    #[test]
    fn when_the_time_has_moved_a_set_is_looked_at_when_it_is_due_or_over() {
        let s = Duration::from_secs;
        for (what, left, due_in, demand, expected) in [
            ("not due yet", 2_000, 200, Somebody, 200),
            ("due by now", 1_700, 0, Somebody, 0),
            ("over by now", 14, 0, Somebody, 0),
            ("nobody wants it", 2_000, 200, Nobody, 1_985),
            ("once more in the last sixth", 2_000, 0, FailedOnce, 1_400),
        ] {
            let freshness =
                Freshness { left: s(left), lifetime: s(3600), is_due: due_in == 0, is_quiet: false };
            let (due_in, left_at_most) = (s(due_in), freshness.left);
            let checked =
                Checked { freshness, left_at_most, due_in, demand, has_token: true, repeat_in: None };
            assert_eq!(look_in(&checked), s(expected), "{what}");
        }
    }

    #[test]
    fn two_failures_in_a_row_for_nobody_are_the_last() {
        assert_eq!(Somebody.after_failure(), FailedOnce);
        assert_eq!(FailedOnce.after_failure(), Nobody);
        assert_eq!(Nobody.after_failure(), Nobody);
        assert_eq!(RenewedOnce.after_failure(), Nobody, "nor is there a third call after a success");
        assert_eq!(Somebody.after_success(), RenewedOnce);
        for spent in [FailedOnce, RenewedOnce, Nobody] {
            assert_eq!(spent.after_success(), Nobody, "{spent:?}");
        }
    }

    #[test]
    fn the_time_is_asked_with_a_set_that_somebody_wants_and_once_more_with_one_of_a_minute_ago() {
        for (demand, asked_ago, has_contradiction, expected) in [
            (Somebody, 7_200, false, true),
            (Somebody, 7_200, true, true),
            (FailedOnce, 5, false, false),
            (FailedOnce, 5, true, true),
            (FailedOnce, 60, true, false),
            (RenewedOnce, 5, false, false),
            (RenewedOnce, 59, true, true),
            (RenewedOnce, 60, true, false),
            (Nobody, 0, true, false),
        ] {
            let may = demand.may_tell_the_time(Duration::from_secs(asked_ago), has_contradiction);
            assert_eq!(may, expected, "{demand:?}, {asked_ago} s, {has_contradiction}");
        }
    }
}
