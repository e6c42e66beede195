//! What a request gets: the door of this folder.
//!
//! Owns: carrying out the decision. Must not know: HTTP, statuses, or how a caller was authenticated beyond its key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, Now};
use crate::credentials::flight::attempts::FIRST_RENEWAL_RETRY;
use crate::credentials::flight::shared_call::{FlightHandle, Purpose};
use crate::credentials::flight::table::{Flights, Joined};
use crate::credentials::held::Held;
use crate::credentials::limits::peer_quota::{FlightPermit, PeerQuotas};
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::model::Grant;
use crate::credentials::policy::serving::{Decision, RENEWAL_WAIT, Urgency, decide};
use crate::credentials::source::{SourceError, Unavailable};
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::identity::PresentedToken;
use crate::planted::{self, Bug};
use crate::workload::{CredentialKey, PeerKey};

/// A request that has nothing in hand is held this long at most: under the 5 s after which the Rust SDK gives up, and long
/// enough for boto3's second try to be waiting when AWS is back (sdk-contract 7.2 and 8.4).
pub const LONGEST_HOLD: Duration = Duration::from_millis(4_500);
/// When a flight has been in trouble for [`LONGEST_HOLD`], clients are told so at once for this long, so that the last try
/// of boto3, Java and PHP carries a message instead of a time-out (sdk-contract 7.3). Then they are held again.
const ERROR_WINDOW: Duration = Duration::from_secs(2);

/// Hands out credentials.
#[derive(Clone)]
pub struct Provider {
    store: Store,
    flights: Flights,
    failures: RecentRefusals,
    quotas: PeerQuotas,
    clock: Clock,
}

/// What can be said at once.
pub enum Lookup {
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
    pub way: ServedFrom,
    held: Arc<Held>,
}

/// How credentials came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedFrom {
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
    seat: WaitingFor,
    fallback: Option<Arc<Held>>,
    clock: Clock,
}

/// Where a request waits.
enum WaitingFor {
    Aboard(FlightHandle),
    InLine(Box<InLine>),
}

/// A request whose peer has all the flights it may have.
struct InLine {
    provider: Provider,
    key: CredentialKey,
    presented: PresentedToken,
    peer: PeerKey,
}

impl Provider {
    /// A provider over these parts.
    pub fn new(
        store: Store,
        flights: Flights,
        failures: RecentRefusals,
        quotas: PeerQuotas,
        clock: Clock,
    ) -> Self {
        Self { store, flights, failures, quotas, clock }
    }

    /// Looks what can be done for an identity at this moment, without waiting. `peer` is on whose account it goes while
    /// nothing is in hand and nobody has verified who asks.
    pub fn look(&self, key: &CredentialKey, presented: &PresentedToken, peer: PeerKey, now: Now) -> Lookup {
        let held = self.store.get(key);
        if let Some(held) = &held {
            held.asked(now.boot);
            // First whether it is newer than what AWS did not take, then it takes that one's place.
            held.hear_of_token(presented);
            held.remember(presented);
        }
        let refused = self.failures.recall(key, presented.expires, now.boot);
        let decision = decide(held.as_ref().map(|held| held.freshness(now)), refused.is_some());
        match (decision, held, refused) {
            (Decision::Serve, Some(held), _) => Lookup::Serve(Served::from_memory(&held)),
            (Decision::ServeAndNudge(urgency), Some(held), _) => {
                let lane = renewal_lane(urgency);
                self.flights.join(key, presented, lane, Purpose::Background, Some(&held), None);
                Lookup::Serve(Served::from_memory(&held))
            }
            (Decision::WaitThenServe(_), Some(held), _) => self.wait_for_renewal(key, presented, held),
            (Decision::Refuse, _, Some(refused)) => Lookup::Refuse(SourceError::Refused(refused)),
            // Whatever else: nothing in hand.
            (_, _, _) => self.wait_for_flight(key, presented, peer, now),
        }
    }

    fn wait_for_renewal(&self, key: &CredentialKey, presented: &PresentedToken, held: Arc<Held>) -> Lookup {
        // A client stands here and waits, so the flight leaves at once, whatever the rest of its life.
        match self.flights.join(key, presented, Priority::Urgent, Purpose::Background, Some(&held), None) {
            Joined::Landed(Ok(newer)) => Lookup::Serve(Served::from_memory(&newer)),
            Joined::Landed(Err(_)) => Lookup::Serve(Served::from_memory(&held)),
            Joined::Aloft(boarding) => Lookup::Wait(self.waiting(WaitingFor::Aboard(boarding), Some(held))),
        }
    }

    fn wait_for_flight(
        &self,
        key: &CredentialKey,
        presented: &PresentedToken,
        peer: PeerKey,
        now: Now,
    ) -> Lookup {
        let joined = match key {
            CredentialKey::Verified(_) => Some(self.embark(key, presented, None)),
            CredentialKey::Unverified(_) => match self.quotas.try_flight(peer) {
                Ok(permit) => Some(self.embark(key, presented, Some(permit))),
                // Who only joins needs no permit.
                Err(_over_quota) => {
                    self.flights.join_aloft(key, presented, self.empty_handed_lane(key)).map(Joined::Aloft)
                }
            },
        };
        match joined {
            Some(Joined::Landed(Ok(held))) => Lookup::Serve(Served::fetched(&held)),
            Some(Joined::Landed(Err(error))) => Lookup::Refuse(error),
            Some(Joined::Aloft(boarding)) => match boarding.trouble() {
                Some(trouble) if in_error_window(boarding.awaited_for(now.boot)) => Lookup::Refuse(trouble),
                Some(_) | None => Lookup::Wait(self.waiting(WaitingFor::Aboard(boarding), None)),
            },
            None => {
                let (provider, key, presented) = (self.clone(), key.clone(), presented.clone());
                let in_line = InLine { provider, key, presented, peer };
                Lookup::Wait(self.waiting(WaitingFor::InLine(Box::new(in_line)), None))
            }
        }
    }

    fn embark(
        &self,
        key: &CredentialKey,
        presented: &PresentedToken,
        permit: Option<FlightPermit>,
    ) -> Joined {
        self.flights.join(key, presented, self.empty_handed_lane(key), Purpose::Awaited, None, permit)
    }

    fn waiting(&self, seat: WaitingFor, fallback: Option<Arc<Held>>) -> Waiting {
        Waiting { seat, fallback, clock: self.clock.clone() }
    }

    fn empty_handed_lane(&self, key: &CredentialKey) -> Priority {
        if self.failures.was_refused_lately(key) {
            return Priority::RecentlyRefused;
        }
        match key {
            CredentialKey::Verified(_) => Priority::VerifiedEmptyHanded,
            CredentialKey::Unverified(_) => Priority::UnverifiedEmptyHanded,
        }
    }
}

const fn renewal_lane(urgency: Urgency) -> Priority {
    match urgency {
        Urgency::Routine => Priority::Renewal,
        Urgency::Pressing => Priority::Urgent,
    }
}

/// Whether clients of a flight in trouble are told now, or held.
fn in_error_window(awaited_for: Duration) -> bool {
    let round = LONGEST_HOLD + ERROR_WINDOW;
    let into_round =
        Duration::from_nanos((awaited_for.as_nanos() % round.as_nanos()).try_into().unwrap_or(u64::MAX));
    into_round >= LONGEST_HOLD
}

impl Served {
    fn from_memory(held: &Arc<Held>) -> Self {
        Self {
            body: held.serve(),
            way: ServedFrom::Hit { first: held.is_first_hit() },
            held: Arc::clone(held),
        }
    }

    fn fetched(held: &Arc<Held>) -> Self {
        Self { body: held.serve(), way: ServedFrom::Fetched, held: Arc::clone(held) }
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
    /// [`SourceError`], when nothing is in hand and the flight has failed, or what was in hand is to be served no more.
    pub async fn outcome(&mut self) -> Result<Served, SourceError> {
        let boarding = match self.seat.taken().await {
            Seated::Landed(outcome) => return outcome.map(|held| Served::fetched(&held)),
            Seated::Aboard(boarding) => boarding,
        };
        let Some(fallback) = self.fallback.clone() else {
            return boarding.landed().await.map(|held| Served::fetched(&held));
        };
        match tokio::time::timeout(RENEWAL_WAIT, boarding.landed()).await {
            Ok(Ok(newer)) => Ok(Served::fetched(&newer)),
            Ok(Err(error)) if fallback.is_dropped() => Err(error),
            Ok(Err(error)) if planted::is_on(Bug::NoFallback) => Err(error),
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
        self.fallback.as_ref().filter(|held| !held.is_dropped()).map(Served::from_memory)
    }

    /// Whether it waits only because its peer has all the flights it may have.
    pub fn is_in_line(&self) -> bool {
        matches!(self.seat, WaitingFor::InLine(_))
    }

    /// What went wrong so far; `None` while it is only slow.
    pub fn trouble(&self) -> Option<SourceError> {
        match &self.seat {
            WaitingFor::Aboard(boarding) => boarding.trouble(),
            WaitingFor::InLine(_) => None,
        }
    }
}

enum Seated<'a> {
    Landed(Result<Arc<Held>, SourceError>),
    Aboard(&'a mut FlightHandle),
}

impl WaitingFor {
    /// Waits for the peer's turn, if need be. Cancel-safe.
    async fn taken(&mut self) -> Seated<'_> {
        if let Self::InLine(in_line) = self {
            let permit = in_line.provider.quotas.flight(in_line.peer).await;
            match in_line.provider.embark(&in_line.key, &in_line.presented, Some(permit)) {
                Joined::Landed(outcome) => return Seated::Landed(outcome),
                Joined::Aloft(boarding) => *self = Self::Aboard(boarding),
            }
        }
        match self {
            Self::Aboard(boarding) => Seated::Aboard(boarding),
            // Cannot be: it was replaced above.
            Self::InLine(_) => Seated::Landed(Err(SourceError::Unavailable(Unavailable::Lost))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::in_error_window;

    #[test]
    fn clients_of_a_troubled_flight_are_held_for_4500_ms_then_told_for_2000_and_so_on() {
        let cases =
            [(0, false), (4_499, false), (4_500, true), (6_499, true), (6_500, false), (11_000, true)];
        for (ms, expected) in cases {
            assert_eq!(in_error_window(Duration::from_millis(ms)), expected, "{ms} ms");
        }
    }
}
