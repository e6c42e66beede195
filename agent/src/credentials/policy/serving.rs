//! Serve, wait, join or refuse: the one pure decision about a request.
//!
//! Owns: the rules of design 4.5 with their numbers. Must not know: where the facts come from or how the decision is
//! carried out. Change a policy here, and the table below tells which promise it touches.

use std::time::Duration;

use crate::credentials::held::{Freshness, MIN_REMAINING_LIFE};
use crate::planted::{self, Bug};

/// Below this much life SDKs come back at every signed call: boto3 from 15 min on, with room for a renewal in between
/// (sdk-contract section 6; design 4.5).
const SHORT_LIFE: Duration = Duration::from_secs(20 * 60);

/// How long a request waits for a renewal when it has something in hand. Within the 1 s budget of the most impatient SDK.
pub const RENEWAL_WAIT: Duration = Duration::from_millis(300);

/// How pressing a renewal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Due, with plenty of life left.
    Routine,
    /// Less than a sixth of the lifetime is left.
    Pressing,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve what is held.
    Serve,
    /// Serve what is held, and see that its renewal is under way.
    ServeAndNudge(Urgency),
    /// Wait up to [`RENEWAL_WAIT`] for the renewal, then serve the best in hand.
    WaitThenServe(Urgency),
    /// Nothing in hand: join the flight.
    Join,
    /// Nothing in hand, and AWS refused a moment ago: say so at once.
    Refuse,
}

/// Decides on a request, from what is held for its identity and whether AWS refused that identity a moment ago.
pub fn decide(held: Option<Freshness>, was_just_refused: bool) -> Decision {
    let least =
        if planted::is_on(Bug::ServesTheExpired) { Duration::from_secs(1) } else { MIN_REMAINING_LIFE };
    let held = held.filter(|_| !(was_just_refused && planted::is_on(Bug::RefusalBeatsHeld)));
    let Some(held) = held.filter(|held| held.left >= least) else {
        return if was_just_refused { Decision::Refuse } else { Decision::Join };
    };
    if held.is_quiet {
        return Decision::Serve;
    }
    if held.left < SHORT_LIFE.min(held.lifetime / 3) && !planted::is_on(Bug::NeverWaits) {
        return Decision::WaitThenServe(urgency(&held));
    }
    if held.is_due { Decision::ServeAndNudge(urgency(&held)) } else { Decision::Serve }
}

/// Below a sixth of its lifetime a set's renewal rises in the queue.
pub fn urgency(held: &Freshness) -> Urgency {
    if held.left < held.lifetime / 6 { Urgency::Pressing } else { Urgency::Routine }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Decision::{Join, Refuse, Serve, ServeAndNudge, WaitThenServe};
    use super::Urgency::{Pressing, Routine};
    use super::decide;
    use crate::credentials::held::Freshness;

    const SIX_HOURS: u64 = 6 * 3600;
    const HOUR: u64 = 3600;

    const fn held(left: u64, lifetime: u64, is_due: bool, is_quiet: bool) -> Option<Freshness> {
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
            ("nothing in hand", None, false, Join),
            ("nothing in hand, refused a moment ago", None, true, Refuse),
            ("14 s left is expired", held(14, HOUR, true, false), false, Join),
            ("expired and refused", held(0, HOUR, true, false), true, Refuse),
            ("15 s left is alive", held(15, HOUR, true, false), false, WaitThenServe(Pressing)),
            ("fresh", held(SIX_HOURS, SIX_HOURS, false, false), false, Serve),
            ("due", held(SIX_HOURS / 2, SIX_HOURS, true, false), false, ServeAndNudge(Routine)),
            (
                "due and pressing",
                held(SIX_HOURS / 6 - 1, SIX_HOURS, true, false),
                false,
                ServeAndNudge(Pressing),
            ),
            ("20 min of 6 h", held(1200, SIX_HOURS, true, false), false, ServeAndNudge(Pressing)),
            ("below 20 min of 6 h", held(1199, SIX_HOURS, true, false), false, WaitThenServe(Pressing)),
            ("20 min of 1 h", held(1200, HOUR, true, false), false, ServeAndNudge(Routine)),
            ("below 20 min of 1 h", held(1199, HOUR, true, false), false, WaitThenServe(Routine)),
            ("a third of 15 min", held(300, 900, true, false), false, ServeAndNudge(Routine)),
            ("below a third of 15 min", held(299, 900, true, false), false, WaitThenServe(Routine)),
            ("renewal failed a moment ago", held(60, HOUR, true, true), false, Serve),
            ("refused, but unexpired credentials in hand", held(60, HOUR, true, true), true, Serve),
            ("quiet does not revive the expired", held(14, HOUR, true, true), false, Join),
        ];
        for (what, held, was_just_refused, expected) in cases {
            assert_eq!(decide(held, was_just_refused), expected, "{what}");
        }
    }
}
