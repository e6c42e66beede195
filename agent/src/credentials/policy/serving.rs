//! Serve, wait, join or refuse: the one pure decision about a request, and for how long it is held.
//!
//! Owns: the rules of docs/design/decisions.md#freshness with their numbers. Must not know: where the facts
//! come from or how the decision is carried out. Change a policy here, and the table below tells which
//! promise it touches.

use std::time::Duration;

use crate::credentials::policy::freshness::{Freshness, MIN_REMAINING_LIFE, Urgency};

/// Below this much life SDKs come back at every signed call: boto3 from 15 min on, with room for a renewal in
/// between (docs/design/client-contract.md#refresh; docs/design/decisions.md#freshness).
const SHORT_LIFE: Duration = Duration::from_secs(20 * 60);

/// How long a request waits for a renewal when there are credentials that it can be served. Within the 1 s
/// budget of the most impatient SDK.
pub const RENEWAL_WAIT: Duration = Duration::from_millis(300);

/// A request without credentials is held this long at most: under the 5 s after which the Rust SDK gives up,
/// and long enough for boto3's second try to be waiting when AWS is back
/// (docs/design/client-contract.md#holding and docs/design/client-contract.md#time-limits).
pub const LONGEST_HOLD: Duration = Duration::from_millis(4_500);

/// When a flight has been failing for [`LONGEST_HOLD`], clients get the error at once for this long, so that
/// the last try of boto3, Java and PHP carries a message instead of a time-out
/// (docs/design/client-contract.md#long-outages). Then they are held again. Not while an attempt is under way
/// that is longer than those that failed: a slow AWS may answer it while that last try waits.
const ERROR_WINDOW: Duration = Duration::from_secs(2);

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve what is kept.
    Serve,
    /// Serve what is kept, and see that its renewal is under way.
    ServeAndRenew(Urgency),
    /// Wait up to [`RENEWAL_WAIT`] for the renewal, then serve the best there is.
    WaitThenServe(Urgency),
    /// There are no credentials: join the flight.
    Join,
    /// There are no credentials, and AWS refused a moment ago: say so at once.
    Refuse,
}

/// Whether so little life is left that SDKs come back at every call, as far as the lifetime allows more.
pub fn is_short(cached: &Freshness) -> bool {
    cached.left < SHORT_LIFE.min(cached.lifetime / 3)
}

/// Decides on a request, from what is kept for its identity and whether AWS refused that identity a moment
/// ago.
pub fn decide(cached: Option<Freshness>, was_just_refused: bool) -> Decision {
    let Some(cached) = cached.filter(|cached| cached.left >= MIN_REMAINING_LIFE) else {
        return if was_just_refused { Decision::Refuse } else { Decision::Join };
    };
    if cached.is_quiet {
        return Decision::Serve;
    }
    if cached.left < SHORT_LIFE.min(cached.lifetime / 3) {
        return Decision::WaitThenServe(cached.urgency());
    }
    if cached.is_due { Decision::ServeAndRenew(cached.urgency()) } else { Decision::Serve }
}

/// Whether clients of a failing flight get the error now, or are held: by how long they have been waiting for
/// it.
pub fn in_error_window(awaited_for: Duration) -> bool {
    let round = LONGEST_HOLD + ERROR_WINDOW;
    let into_round =
        Duration::from_nanos((awaited_for.as_nanos() % round.as_nanos()).try_into().unwrap_or(u64::MAX));
    into_round >= LONGEST_HOLD
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Decision::{Join, Refuse, Serve, ServeAndRenew, WaitThenServe};
    use super::{decide, in_error_window};
    use crate::credentials::policy::freshness::Freshness;
    use crate::credentials::policy::freshness::Urgency::{Pressing, Routine};

    const SIX_HOURS: u64 = 6 * 3600;
    const HOUR: u64 = 3600;

    const fn cached(left: u64, lifetime: u64, is_due: bool, is_quiet: bool) -> Option<Freshness> {
        Some(Freshness {
            left: Duration::from_secs(left),
            lifetime: Duration::from_secs(lifetime),
            is_due,
            is_quiet,
        })
    }

    #[test]
    fn the_table_of_decisions() {
        let cases = [
            ("no credentials", None, false, Join),
            ("no credentials, refused a moment ago", None, true, Refuse),
            ("14 s left is expired", cached(14, HOUR, true, false), false, Join),
            ("expired and refused", cached(0, HOUR, true, false), true, Refuse),
            ("15 s left is alive", cached(15, HOUR, true, false), false, WaitThenServe(Pressing)),
            ("fresh", cached(SIX_HOURS, SIX_HOURS, false, false), false, Serve),
            ("due", cached(SIX_HOURS / 2, SIX_HOURS, true, false), false, ServeAndRenew(Routine)),
            (
                "due and pressing",
                cached(SIX_HOURS / 6 - 1, SIX_HOURS, true, false),
                false,
                ServeAndRenew(Pressing),
            ),
            ("20 min of 6 h", cached(1200, SIX_HOURS, true, false), false, ServeAndRenew(Pressing)),
            ("below 20 min of 6 h", cached(1199, SIX_HOURS, true, false), false, WaitThenServe(Pressing)),
            ("20 min of 1 h", cached(1200, HOUR, true, false), false, ServeAndRenew(Routine)),
            ("below 20 min of 1 h", cached(1199, HOUR, true, false), false, WaitThenServe(Routine)),
            ("a third of 15 min", cached(300, 900, true, false), false, ServeAndRenew(Routine)),
            ("below a third of 15 min", cached(299, 900, true, false), false, WaitThenServe(Routine)),
            ("renewal failed a moment ago", cached(60, HOUR, true, true), false, Serve),
            ("refused, but unexpired credentials are kept", cached(60, HOUR, true, true), true, Serve),
            ("quiet does not revive the expired", cached(14, HOUR, true, true), false, Join),
        ];
        for (what, cached, was_just_refused, expected) in cases {
            assert_eq!(decide(cached, was_just_refused), expected, "{what}");
        }
    }

    #[test]
    fn clients_of_a_failing_flight_are_held_for_4500_ms_then_told_for_2000_and_so_on() {
        let cases =
            [(0, false), (4_499, false), (4_500, true), (6_499, true), (6_500, false), (11_000, true)];
        for (ms, expected) in cases {
            assert_eq!(in_error_window(Duration::from_millis(ms)), expected, "{ms} ms");
        }
    }
}
