//! One flight: the one call under way for an identity, and those who wait for it.
//!
//! Owns: how those who wait learn how it goes, and for how long somebody still wants it. Must not know: which
//! others are under way (`table`), or how its attempts are made (`attempts`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::table::JoinRequest;
use crate::clock::{BootTime, Now};
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::policy::freshness::Expiry;
use crate::credentials::policy::hold::{Hold, LONGEST_HOLD_OF_ALL};
use crate::credentials::record::Held;
use crate::credentials::source::SourceError;
use crate::workload::{CredentialKey, PeerKey, PresentedToken, Principal, TokenDigest};

/// A flight that somebody waits for lives this long at most (docs/design/decisions.md#upstream).
const LONGEST_FLIGHT: Duration = Duration::from_secs(40);
const _: () = assert!(LONGEST_FLIGHT.as_secs() > LONGEST_HOLD_OF_ALL.as_secs());
/// It is given up when nobody asked for this long, or for as long as the last one waits if that is more: SDKs
/// that still want it ask again every second or so (docs/design/client-contract.md#retries).
const STILL_WANTED: Duration = Duration::from_secs(10);
/// After an answer they come again within this.
const COMES_AGAIN: Duration = Duration::from_secs(2);

/// The number of a flight, which the log lines of the call and of all who waited for it carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightId(u64);

/// How a flight goes.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Under way; with what went wrong at the last attempt, if one failed.
    InFlight(Option<Setback>),
    /// Over.
    Done(Result<Held, SourceError>),
}

/// What went wrong at an attempt.
#[derive(Clone, Debug)]
pub struct Setback {
    /// What.
    pub error: SourceError,
    /// The attempt was only given up for a longer one, which may well be answered.
    pub may_be_slow: bool,
}

/// Why somebody joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for it, so long.
    Awaited(Hold),
    /// It is good to have: a renewal.
    Background,
}

/// A part in a flight. Dropping it changes nothing for the flight.
pub struct FlightHandle {
    flight: Arc<Flight>,
}

pub(super) struct Flight {
    id: FlightId,
    /// Where it stands in the table: each pod has one place.
    place: CredentialKey,
    principal: Principal,
    /// The end of the set that was there when it began.
    replaces: Option<Expiry>,
    /// The token that it began with.
    began: BootTime,
    progress: Mutex<Progress>,
    /// Wakes those who wait in the order in which they came. A `watch` leaves that to chance, and each
    /// setback would wake all of them for nothing.
    ended: Notify,
    demand: Mutex<Demand>,
    priority_raised: Notify,
    /// The peer it is charged to, if it is for an unverified identity without credentials.
    peer: Option<PeerKey>,
}

struct Demand {
    priority: Priority,
    token: PresentedToken,
    /// Each token that was the one to call with.
    called_with: Vec<TokenDigest>,
    asked_from: Option<PeerKey>,
    awaited_since: Option<BootTime>,
    wanted_until: Option<BootTime>,
}

impl Flight {
    pub(super) fn new(
        id: FlightId,
        place: CredentialKey,
        request: &JoinRequest<'_>,
        peer: Option<PeerKey>,
        began: BootTime,
    ) -> Arc<Self> {
        let &JoinRequest { principal, token, priority, seen, .. } = request;
        let began_with = token.token.digest();
        let demand = Demand {
            priority,
            token: token.clone(),
            called_with: vec![began_with],
            asked_from: None,
            awaited_since: None,
            wanted_until: None,
        };
        Arc::new(Self {
            id,
            place,
            principal: principal.clone(),
            replaces: seen.map(|set| set.expiry()),
            began,
            progress: Mutex::new(Progress::InFlight(None)),
            ended: Notify::new(),
            demand: Mutex::new(demand),
            priority_raised: Notify::new(),
            peer,
        })
    }

    /// The tokens that its calls are made with: the one that it began with, and each that lived longer than
    /// those before.
    pub(super) fn called_with(&self) -> Vec<TokenDigest> {
        self.demand.lock().called_with.clone()
    }

    /// When it began.
    pub(super) const fn began(&self) -> BootTime {
        self.began
    }

    /// Takes part: the better priority wins, and the longer-lived token, if it may be called with.
    pub(super) fn join(
        self: &Arc<Self>,
        request: &JoinRequest<'_>,
        may_use_token: bool,
        now: BootTime,
    ) -> FlightHandle {
        let &JoinRequest { token, priority, purpose, asked_from, .. } = request;
        let mut demand = self.demand.lock();
        demand.asked_from = demand.asked_from.or(asked_from);
        if may_use_token && token.expires > demand.token.expires {
            demand.called_with.push(token.token.digest());
            demand.token = token.clone();
        }
        let mut has_begun_to_wait = false;
        if let Purpose::Awaited(hold) = purpose {
            let is_still_wanted = demand.wanted_until.is_some_and(|until| now < until);
            demand.awaited_since = demand.awaited_since.filter(|_| is_still_wanted).or(Some(now));
            let until = now.plus(STILL_WANTED.max(hold.longest() + COMES_AGAIN));
            demand.wanted_until = demand.wanted_until.max(Some(until));
            has_begun_to_wait = demand.awaited_since == Some(now);
        }
        if priority < demand.priority || has_begun_to_wait {
            demand.priority = demand.priority.min(priority);
            self.priority_raised.notify_one();
        }
        drop(demand);
        self.watch()
    }

    /// Looks on, without wanting anything.
    pub(super) fn watch(self: &Arc<Self>) -> FlightHandle {
        FlightHandle { flight: Arc::clone(self) }
    }

    pub(super) fn id(&self) -> FlightId {
        self.id
    }

    pub(super) fn place(&self) -> &CredentialKey {
        &self.place
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) fn priority(&self) -> Priority {
        self.demand.lock().priority
    }

    pub(super) fn token(&self) -> PresentedToken {
        self.demand.lock().token.clone()
    }

    pub(super) fn peer(&self) -> Option<PeerKey> {
        self.peer
    }

    /// The first peer that asked for it, if any did.
    pub(super) fn asked_from(&self) -> Option<PeerKey> {
        self.demand.lock().asked_from
    }

    /// Tells those who wait how it ended.
    pub(super) fn finish(&self, outcome: Result<Held, SourceError>) {
        *self.progress.lock() = Progress::Done(outcome);
        self.ended.notify_waiters();
    }

    /// Notes that the last attempt failed, for those who ask how it goes.
    pub(super) fn report(&self, setback: Setback) {
        *self.progress.lock() = Progress::InFlight(Some(setback));
    }

    fn outcome(&self) -> Option<Result<Held, SourceError>> {
        match &*self.progress.lock() {
            Progress::InFlight(_) => None,
            Progress::Done(outcome) => Some(outcome.clone()),
        }
    }

    /// Waits until its priority is raised, or somebody has begun to wait for it.
    pub(super) async fn priority_raised(&self) {
        self.priority_raised.notified().await;
    }

    pub(super) fn setback(&self) -> Option<Setback> {
        match &*self.progress.lock() {
            Progress::InFlight(setback) => setback.clone(),
            Progress::Done(_) => None,
        }
    }

    pub(super) fn last_failure(&self) -> Option<SourceError> {
        self.setback().map(|setback| setback.error)
    }

    /// Whether anybody ever waited for it.
    pub(super) fn was_awaited(&self) -> bool {
        self.demand.lock().wanted_until.is_some()
    }

    /// Whether there was a set when it began.
    pub(super) fn began_with_a_set(&self) -> bool {
        self.replaces.is_some()
    }

    /// Whether the set that was there when it began could still be served.
    pub(super) fn began_with_what_lives(&self, now: Now) -> bool {
        self.replaces.is_some_and(|expiry| !expiry.is_over(now))
    }

    /// Whether another attempt is worth it: a client asked lately, and has not been asking for too long.
    pub(super) fn is_wanted(&self, now: BootTime) -> bool {
        self.patience_left(now).is_some_and(|left| !left.is_zero())
    }

    /// How long until nobody has asked for it for too long; `None` when nobody waits for it at all.
    pub(super) fn deserted_in(&self, now: BootTime) -> Option<Duration> {
        self.demand.lock().wanted_until.map(|until| until.since(now))
    }

    /// How long somebody will still want it; `None` when nobody waits for it at all.
    pub(super) fn patience_left(&self, now: BootTime) -> Option<Duration> {
        let demand = self.demand.lock();
        let since = demand.awaited_since?;
        let until = demand.wanted_until?;
        let life = LONGEST_FLIGHT.saturating_sub(now.since(since));
        Some(life.min(until.since(now)))
    }
}

impl FlightHandle {
    /// Waits until the flight is done. Cancel-safe.
    pub async fn done(&self) -> Result<Held, SourceError> {
        loop {
            // First the ear, then the look: an end between the two is not missed.
            let ended = self.flight.ended.notified();
            if let Some(outcome) = self.flight.outcome() {
                return outcome;
            }
            ended.await;
        }
    }

    /// Which flight it is.
    pub fn id(&self) -> FlightId {
        self.flight.id
    }

    /// What went wrong at the flight's last attempt, if one has failed.
    pub fn last_failure(&self) -> Option<SourceError> {
        self.flight.last_failure()
    }

    /// The same, if it is more than slowness: if no longer attempt is under way that may well be answered.
    pub fn last_word(&self) -> Option<SourceError> {
        self.flight.setback().filter(|setback| !setback.may_be_slow).map(|setback| setback.error)
    }

    /// For how long clients have been waiting for this flight.
    pub fn awaited_for(&self, now: BootTime) -> Duration {
        self.flight.demand.lock().awaited_since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

impl FlightId {
    /// Not yet used in this process, and hardly by another one of the same log.
    pub(super) fn new(random: u64) -> Self {
        Self(random & 0xffff_ffff_ffff)
    }
}

impl fmt::Display for FlightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}
