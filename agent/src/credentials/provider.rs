//! What a request gets: the door of this folder.
//!
//! Owns: carrying out the decision. Must not know: HTTP, statuses, or how a caller was authenticated beyond its key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, Now};
use crate::credentials::budget::Lane;
use crate::credentials::decide::{Decision, RENEWAL_WAIT, Urgency, decide};
use crate::credentials::failures::Failures;
use crate::credentials::flight::{Boarding, FIRST_RENEWAL_RETRY, Flights, Joined, Purpose};
use crate::credentials::held::Held;
use crate::credentials::model::Grant;
use crate::credentials::source::SourceError;
use crate::credentials::store::Store;
use crate::identity::Presented;
use crate::workload::CredentialKey;

/// A request that has nothing in hand is held this long at most: under the 5 s after which the Rust SDK gives up, and long
/// enough for boto3's second try to be waiting when AWS is back (sdk-contract 7.2 and 8.4).
pub const LONGEST_HOLD: Duration = Duration::from_millis(4_500);
/// When a flight has been in trouble for [`LONGEST_HOLD`], clients are told so at once for this long, so that the last try
/// of boto3, Java and PHP carries a message instead of a time-out (sdk-contract 7.3). Then they are held again.
const TELLING: Duration = Duration::from_secs(2);

/// Hands out credentials.
#[derive(Clone)]
pub struct Provider {
    store: Store,
    flights: Flights,
    failures: Failures,
    clock: Clock,
}

/// What can be said at once.
pub enum AtHand {
    /// Here they are.
    Serve(Served),
    /// No, and waiting would not change it.
    Refuse(SourceError),
    /// It takes a moment.
    Wait(Waiting),
}

/// Credentials to send.
#[derive(Debug)]
pub struct Served {
    /// The body.
    pub body: Bytes,
    /// How they came.
    pub way: Way,
    held: Arc<Held>,
}

/// How credentials came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From memory; `first` the first time for this identity.
    Hit {
        /// Whether it is the identity's first hit.
        first: bool,
    },
    /// From AWS, just now.
    Fetched,
}

/// A request that waits. Dropping it cancels nothing.
pub struct Waiting {
    boarding: Boarding,
    fallback: Option<Arc<Held>>,
    clock: Clock,
}

impl Provider {
    /// A provider over these parts.
    pub fn new(store: Store, flights: Flights, failures: Failures, clock: Clock) -> Self {
        Self { store, flights, failures, clock }
    }

    /// Looks what can be done for an identity at this moment, without waiting.
    pub fn look(&self, key: &CredentialKey, presented: &Presented, now: Now) -> AtHand {
        let held = self.store.get(key);
        if let Some(held) = &held {
            held.remember(presented);
        }
        let refused = self.failures.recall(key, presented.expires, now.boot);
        let decision = decide(held.as_ref().map(|held| held.freshness(now)), refused.is_some());
        match (decision, held, refused) {
            (Decision::Serve, Some(held), _) => AtHand::Serve(Served::from_memory(&held)),
            (Decision::ServeAndNudge(urgency), Some(held), _) => {
                let lane = renewal_lane(urgency);
                self.flights.join(key, presented, lane, Purpose::Background, Some(&held));
                AtHand::Serve(Served::from_memory(&held))
            }
            (Decision::WaitThenServe(_), Some(held), _) => self.wait_for_renewal(key, presented, held),
            (Decision::Refuse, _, Some(refused)) => AtHand::Refuse(SourceError::Refused(refused)),
            // Whatever else: nothing in hand.
            (_, _, _) => self.wait_for_flight(key, presented, now),
        }
    }

    fn wait_for_renewal(&self, key: &CredentialKey, presented: &Presented, held: Arc<Held>) -> AtHand {
        // A client stands here and waits, so the flight leaves at once, whatever the rest of its life.
        match self.flights.join(key, presented, Lane::Urgent, Purpose::Background, Some(&held)) {
            Joined::Landed(Ok(newer)) => AtHand::Serve(Served::from_memory(&newer)),
            Joined::Landed(Err(_)) => AtHand::Serve(Served::from_memory(&held)),
            Joined::Aloft(boarding) => {
                AtHand::Wait(Waiting { boarding, fallback: Some(held), clock: self.clock.clone() })
            }
        }
    }

    fn wait_for_flight(&self, key: &CredentialKey, presented: &Presented, now: Now) -> AtHand {
        let lane = self.empty_handed_lane(key);
        match self.flights.join(key, presented, lane, Purpose::Awaited, None) {
            Joined::Landed(Ok(held)) => AtHand::Serve(Served::fetched(&held)),
            Joined::Landed(Err(error)) => AtHand::Refuse(error),
            Joined::Aloft(boarding) => match boarding.trouble() {
                Some(trouble) if is_telling(boarding.awaited_for(now.boot)) => AtHand::Refuse(trouble),
                Some(_) | None => {
                    AtHand::Wait(Waiting { boarding, fallback: None, clock: self.clock.clone() })
                }
            },
        }
    }

    fn empty_handed_lane(&self, key: &CredentialKey) -> Lane {
        if self.failures.was_refused_lately(key) {
            return Lane::RecentlyRefused;
        }
        match key {
            CredentialKey::Verified(_) => Lane::VerifiedEmptyHanded,
            CredentialKey::Unverified(_) => Lane::UnverifiedEmptyHanded,
        }
    }
}

const fn renewal_lane(urgency: Urgency) -> Lane {
    match urgency {
        Urgency::Routine => Lane::Renewal,
        Urgency::Pressing => Lane::Urgent,
    }
}

/// Whether clients of a flight in trouble are told now, or held.
fn is_telling(awaited_for: Duration) -> bool {
    let round = LONGEST_HOLD + TELLING;
    let into_round =
        Duration::from_nanos((awaited_for.as_nanos() % round.as_nanos()).try_into().unwrap_or(u64::MAX));
    into_round >= LONGEST_HOLD
}

impl Served {
    fn from_memory(held: &Arc<Held>) -> Self {
        Self { body: held.serve(), way: Way::Hit { first: held.is_first_hit() }, held: Arc::clone(held) }
    }

    fn fetched(held: &Arc<Held>) -> Self {
        Self { body: held.serve(), way: Way::Fetched, held: Arc::clone(held) }
    }

    /// What they were issued for, for the log.
    pub fn grant(&self) -> &Grant {
        self.held.grant()
    }
}

impl Waiting {
    /// Waits for the flight. With something in hand, for 300 ms at most; else for as long as the caller cares to poll.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`SourceError`], when nothing is in hand and the flight has failed.
    pub async fn outcome(&mut self) -> Result<Served, SourceError> {
        let Some(fallback) = self.fallback.clone() else {
            return self.boarding.landed().await.map(|held| Served::fetched(&held));
        };
        match tokio::time::timeout(RENEWAL_WAIT, self.boarding.landed()).await {
            Ok(Ok(newer)) => Ok(Served::fetched(&newer)),
            Ok(Err(_)) => Ok(Served::from_memory(&fallback)),
            Err(_elapsed) => {
                // Once per back-off interval: the next requests are not made to wait for the same slow AWS.
                fallback.be_quiet_until(self.clock.now().boot.plus(FIRST_RENEWAL_RETRY));
                Ok(Served::from_memory(&fallback))
            }
        }
    }

    /// What is in hand, for a caller who may not wait.
    pub fn fallback(&self) -> Option<Served> {
        self.fallback.as_ref().map(Served::from_memory)
    }

    /// What went wrong so far; `None` while it is only slow.
    pub fn trouble(&self) -> Option<SourceError> {
        self.boarding.trouble()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::is_telling;

    #[test]
    fn clients_of_a_troubled_flight_are_held_for_4500_ms_then_told_for_2000_and_so_on() {
        let cases =
            [(0, false), (4_499, false), (4_500, true), (6_499, true), (6_500, false), (11_000, true)];
        for (ms, expected) in cases {
            assert_eq!(is_telling(Duration::from_millis(ms)), expected, "{ms} ms");
        }
    }
}
