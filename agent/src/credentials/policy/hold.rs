//! For how long a request is held for which there is nothing to serve yet, and when it gets the reason.
//!
//! Owns: the rule of docs/design/client-contract.md#holding. Must not know: how clients are distinguished
//! (`server::pages::client`, which has the time of each), or what goes wrong meanwhile.

use std::time::Duration;

/// A request of a client that nothing is known of is held this long at most: under the 5 s after which the
/// Rust SDK gives up, and long enough for boto3's second try to be waiting when AWS is back.
pub const LONGEST_HOLD: Duration = Duration::from_millis(4_500);

/// No request of any client is held longer.
pub const LONGEST_HOLD_OF_ALL: Duration = Duration::from_secs(34);

/// When a flight has been failing for [`LONGEST_HOLD`], clients that nothing is known of get the error at
/// once for this long, so that the last try of one that gives up by itself, as PHP's does, carries a message
/// instead of a time-out. Then they are held again. Not while an attempt is under way that is longer than
/// those that failed: a slow AWS may answer it while that last try waits.
const ERROR_WINDOW: Duration = Duration::from_secs(2);

/// For how long a client's request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Almost as long as this client waits for an answer; then it gets the reason, and tries again by itself.
    Known(Duration),
    /// It may have left long before that, and may not try again afterwards: [`LONGEST_HOLD`], and sometimes
    /// not at all.
    Unknown,
}

impl Hold {
    /// How long it is held at most.
    pub const fn longest(self) -> Duration {
        match self {
            Self::Known(longest) => longest,
            Self::Unknown => LONGEST_HOLD,
        }
    }

    /// Whether it gets the reason at once, by how long clients have been waiting for the flight.
    pub fn is_over_at_once(self, awaited_for: Duration) -> bool {
        match self {
            Self::Known(_) => false,
            Self::Unknown => in_error_window(awaited_for),
        }
    }
}

fn in_error_window(awaited_for: Duration) -> bool {
    let round = LONGEST_HOLD + ERROR_WINDOW;
    let into_round =
        Duration::from_nanos((awaited_for.as_nanos() % round.as_nanos()).try_into().unwrap_or(u64::MAX));
    into_round >= LONGEST_HOLD
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Hold;

    #[test]
    fn unknown_clients_of_a_failing_flight_are_held_for_4500_ms_then_told_for_2000_and_so_on() {
        let cases =
            [(0, false), (4_499, false), (4_500, true), (6_499, true), (6_500, false), (11_000, true)];
        for (ms, expected) in cases {
            assert_eq!(Hold::Unknown.is_over_at_once(Duration::from_millis(ms)), expected, "{ms} ms");
        }
    }

    #[test]
    fn known_clients_are_always_held_for_the_time_of_their_own() {
        let hold = Hold::Known(Duration::from_millis(1_800));
        assert_eq!(hold.longest(), Duration::from_millis(1_800));
        assert!(!hold.is_over_at_once(Duration::from_millis(5_000)));
    }
}
