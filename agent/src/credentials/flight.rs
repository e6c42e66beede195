//! One flight per identity: the only way to AWS.
//!
//! Owns: that however many ask for one identity, over all listeners, at most one call is under way (design, invariant
//! 4); that the flight is a task of its own, so that a client who hangs up cancels nothing; its patience and its retries.
//! Must not know: HTTP, or who asks. moka's `try_get_with` is not used: it runs the fetch inside the first caller's
//! future and starts it again when that caller leaves (facts 5, trap 2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::clock::BootTime;
use crate::credentials::budget::Lane;
use crate::credentials::crew::Crew;
use crate::credentials::held::{Held, LEAST_LIFE};
use crate::credentials::quota::FlightPermit;
use crate::credentials::source::{SourceError, Unavailable};
use crate::identity::Presented;
use crate::planted::{self, Bug};
use crate::workload::{CredentialKey, PeerKey};

/// A flight that somebody waits for lives this long at most (design 4.6).
const LONGEST_FLIGHT: Duration = Duration::from_secs(30);
/// It is given up when nobody asked for this long: SDKs that mean it ask again every second or so (sdk-contract 7.1).
const STILL_WANTED: Duration = Duration::from_secs(10);
/// All flights under way; clones share them.
#[derive(Clone)]
pub struct Flights {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<HashMap<CredentialKey, Arc<Flight>>>,
    crew: Crew,
}

/// How a flight goes.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Under way; with what went wrong at the last attempt, if one failed.
    Aloft(Option<SourceError>),
    /// Over.
    Landed(Result<Arc<Held>, SourceError>),
}

/// Why somebody boards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for it.
    Awaited,
    /// It is good to have: a renewal.
    Background,
}

/// What came of joining.
pub enum Joined {
    /// There is nothing to wait for: another flight landed a moment ago.
    Landed(Result<Arc<Held>, SourceError>),
    /// Under way.
    Aloft(Boarding),
}

/// A seat on a flight. Leaving it changes nothing for the flight.
pub struct Boarding {
    flight: Arc<Flight>,
    progress: watch::Receiver<Progress>,
}

pub(super) struct Flight {
    progress: watch::Sender<Progress>,
    demand: Mutex<Demand>,
    risen: Notify,
    /// On whose account it goes, if it is for an unverified identity with nothing in hand.
    peer: Option<PeerKey>,
}

struct Demand {
    lane: Lane,
    presented: Presented,
    awaited_since: Option<BootTime>,
    last_awaited: Option<BootTime>,
}

impl Flights {
    /// No flight yet.
    pub fn new(crew: Crew) -> Self {
        Self { shared: Arc::new(Shared { table: Mutex::default(), crew }) }
    }

    /// Joins the identity's flight, or starts it.
    ///
    /// `seen` is what the caller found in the store. A flight that landed between that look and this call is noticed, so
    /// that a thousand first requests at once make one call and not two. `permit` is given back when the flight that was
    /// started with it is over, or at once if it started none.
    pub fn join(
        &self,
        key: &CredentialKey,
        presented: &Presented,
        lane: Lane,
        purpose: Purpose,
        seen: Option<&Arc<Held>>,
        permit: Option<FlightPermit>,
    ) -> Joined {
        let now = self.shared.crew.clock.now().boot;
        let mut table = self.shared.table.lock();
        if planted::is_on(Bug::TwoFlights) {
            table.remove(key);
        }
        match table.entry(key.clone()) {
            Entry::Occupied(aloft) => Joined::Aloft(aloft.get().board(presented, lane, purpose, now)),
            Entry::Vacant(vacant) => {
                if let Some(landed) = self.landed_meanwhile(key, presented, purpose, seen) {
                    return Joined::Landed(landed);
                }
                let peer = permit.as_ref().map(FlightPermit::peer);
                let flight = Flight::new(presented.clone(), lane, peer);
                let boarding = flight.board(presented, lane, purpose, now);
                vacant.insert(Arc::clone(&flight));
                drop(table);
                let shared = Arc::clone(&self.shared);
                let key = key.clone();
                self.shared.crew.tasks.spawn("flight", async move { shared.fly(key, flight, permit).await });
                Joined::Aloft(boarding)
            }
        }
    }

    /// Joins the identity's flight if there is one.
    pub fn join_aloft(&self, key: &CredentialKey, presented: &Presented, lane: Lane) -> Option<Boarding> {
        let now = self.shared.crew.clock.now().boot;
        let table = self.shared.table.lock();
        table.get(key).map(|flight| flight.board(presented, lane, Purpose::Awaited, now))
    }

    /// How many flights are under way.
    pub fn len(&self) -> usize {
        self.shared.table.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn landed_meanwhile(
        &self,
        key: &CredentialKey,
        presented: &Presented,
        purpose: Purpose,
        seen: Option<&Arc<Held>>,
    ) -> Option<Result<Arc<Held>, SourceError>> {
        let crew = &self.shared.crew;
        let now = crew.clock.now();
        if let Some(held) = crew.store.get(key) {
            let is_new = seen.is_none_or(|seen| !Arc::ptr_eq(seen, &held));
            if is_new && held.expiry().left(now) >= LEAST_LIFE {
                return Some(Ok(held));
            }
        }
        match purpose {
            Purpose::Awaited if seen.is_none() => {
                let refused = crew.failures.recall(key, presented.expires, now.boot);
                refused.map(|refused| Err(SourceError::Refused(refused)))
            }
            Purpose::Awaited | Purpose::Background => None,
        }
    }
}

impl Shared {
    async fn fly(self: Arc<Self>, key: CredentialKey, flight: Arc<Flight>, mut permit: Option<FlightPermit>) {
        // Whatever happens in here, a panic included, the flight leaves the table and those who wait are told.
        let mut landing = Landing { shared: Arc::clone(&self), key, flight, outcome: None };
        let outcome = self.crew.attempt(&landing.key, &landing.flight).await;
        self.crew.settle(&landing.key, &landing.flight.presented(), &outcome, landing.flight.peer);
        if let (Err(SourceError::Refused(_)), Some(permit)) = (&outcome, &mut permit) {
            permit.refused();
        }
        landing.outcome = Some(outcome);
    }
}

/// Ends a flight when dropped.
struct Landing {
    shared: Arc<Shared>,
    key: CredentialKey,
    flight: Arc<Flight>,
    outcome: Option<Result<Arc<Held>, SourceError>>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let lost = Err(SourceError::Unavailable(Unavailable::Lost));
        let outcome = self.outcome.take().unwrap_or(lost);
        // First out of the table, then told: who comes in between finds the set in the store.
        if !planted::is_on(Bug::FlightStays) {
            self.shared.table.lock().remove(&self.key);
        }
        self.flight.progress.send_replace(Progress::Landed(outcome));
    }
}

impl Flight {
    fn new(presented: Presented, lane: Lane, peer: Option<PeerKey>) -> Arc<Self> {
        let demand = Demand { lane, presented, awaited_since: None, last_awaited: None };
        Arc::new(Self {
            progress: watch::Sender::new(Progress::Aloft(None)),
            demand: Mutex::new(demand),
            risen: Notify::new(),
            peer,
        })
    }

    /// Takes a seat: the better lane and the longer-lived token win.
    fn board(
        self: &Arc<Self>,
        presented: &Presented,
        lane: Lane,
        purpose: Purpose,
        now: BootTime,
    ) -> Boarding {
        let mut demand = self.demand.lock();
        if presented.expires > demand.presented.expires {
            demand.presented = presented.clone();
        }
        if purpose == Purpose::Awaited {
            let is_still_wanted = demand.last_awaited.is_some_and(|last| now.since(last) < STILL_WANTED);
            demand.awaited_since = demand.awaited_since.filter(|_| is_still_wanted).or(Some(now));
            demand.last_awaited = Some(now);
        }
        if lane < demand.lane || (purpose == Purpose::Awaited && demand.awaited_since == Some(now)) {
            demand.lane = demand.lane.min(lane);
            self.risen.notify_one();
        }
        drop(demand);
        Boarding { flight: Arc::clone(self), progress: self.progress.subscribe() }
    }

    pub(super) fn lane(&self) -> Lane {
        self.demand.lock().lane
    }

    pub(super) fn presented(&self) -> Presented {
        self.demand.lock().presented.clone()
    }

    /// Tells those who wait that the last attempt failed.
    pub(super) fn tell_trouble(&self, trouble: SourceError) {
        self.progress.send_replace(Progress::Aloft(Some(trouble)));
    }

    /// Waits until it has risen to a better lane, or somebody has begun to wait for it.
    pub(super) async fn risen(&self) {
        self.risen.notified().await;
    }

    pub(super) fn trouble(&self) -> Option<SourceError> {
        match &*self.progress.borrow() {
            Progress::Aloft(trouble) => trouble.clone(),
            Progress::Landed(_) => None,
        }
    }

    /// Whether another attempt is worth it: a client asked lately, and has not been asking for too long.
    pub(super) fn is_wanted(&self, now: BootTime) -> bool {
        self.patience_left(now).is_some_and(|left| !left.is_zero())
    }

    /// How long somebody will still want it; `None` when nobody waits for it at all.
    pub(super) fn patience_left(&self, now: BootTime) -> Option<Duration> {
        let demand = self.demand.lock();
        let since = demand.awaited_since?;
        let last = demand.last_awaited?;
        let life = LONGEST_FLIGHT.saturating_sub(now.since(since));
        Some(life.min(STILL_WANTED.saturating_sub(now.since(last))))
    }
}

impl Boarding {
    /// Waits until the flight has landed. Cancel-safe.
    pub async fn landed(&mut self) -> Result<Arc<Held>, SourceError> {
        let lost = Err(SourceError::Unavailable(Unavailable::Lost));
        let landed = self.progress.wait_for(|progress| matches!(progress, Progress::Landed(_))).await;
        match landed.as_deref() {
            Ok(Progress::Landed(outcome)) => outcome.clone(),
            Ok(Progress::Aloft(_)) | Err(_) => lost,
        }
    }

    /// What went wrong at the flight's last attempt, if one has failed.
    pub fn trouble(&self) -> Option<SourceError> {
        self.flight.trouble()
    }

    /// For how long clients have been waiting for this flight.
    pub fn awaited_for(&self, now: BootTime) -> Duration {
        self.flight.demand.lock().awaited_since.map_or(Duration::ZERO, |since| now.since(since))
    }
}
