//! Serve, wait, join or refuse: the one pure decision about a request.
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

/// Whether it can be served at all.
pub fn is_alive(cached: &Freshness) -> bool {
    cached.left >= MIN_REMAINING_LIFE
}

/// Decides on a request, from what is kept for its identity and whether AWS refused that identity a moment
/// ago.
pub fn decide(cached: Option<Freshness>, was_just_refused: bool) -> Decision {
    let Some(cached) = cached.filter(is_alive) else {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Decision::{Join, Refuse, Serve, ServeAndRenew, WaitThenServe};
    use super::decide;
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
}
