//! One flight per identity: the only way to AWS.
//!
//! Owns: that however many ask for one identity, over all listeners, at most one call is under way (design, invariant
//! 4); that the flight is a task of its own, so that a client who hangs up cancels nothing. Must not know: HTTP, who asks,
//! or how one is flown (`crew`). moka's `try_get_with` is not used: it runs the fetch inside the first caller's
//! future and starts it again when that caller leaves (facts 5, trap 2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::credentials::flight::attempts::FlightRunner;
use crate::credentials::flight::shared_call::{Flight, FlightHandle, Purpose};
use crate::credentials::held::{Held, MIN_REMAINING_LIFE};
use crate::credentials::limits::peer_quota::FlightPermit;
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::source::{SourceError, Unavailable};
use crate::identity::PresentedToken;
use crate::planted::{self, Bug};
use crate::workload::CredentialKey;

/// All flights under way; clones share them.
#[derive(Clone)]
pub struct Flights {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<HashMap<CredentialKey, Arc<Flight>>>,
    crew: FlightRunner,
}

/// What came of joining.
pub enum Joined {
    /// There is nothing to wait for: another flight landed a moment ago.
    Landed(Result<Arc<Held>, SourceError>),
    /// Under way.
    Aloft(FlightHandle),
}

impl Flights {
    /// No flight yet.
    pub fn new(crew: FlightRunner) -> Self {
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
        presented: &PresentedToken,
        lane: Priority,
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
    pub fn join_aloft(
        &self,
        key: &CredentialKey,
        presented: &PresentedToken,
        lane: Priority,
    ) -> Option<FlightHandle> {
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
        presented: &PresentedToken,
        purpose: Purpose,
        seen: Option<&Arc<Held>>,
    ) -> Option<Result<Arc<Held>, SourceError>> {
        let crew = &self.shared.crew;
        let now = crew.clock.now();
        if let Some(held) = crew.store.get(key) {
            let is_new = seen.is_none_or(|seen| !Arc::ptr_eq(seen, &held));
            if is_new && held.expiry().left(now) >= MIN_REMAINING_LIFE {
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
        self.crew.settle(&landing.key, &landing.flight.presented(), &outcome, landing.flight.peer());
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
        self.flight.land(outcome);
    }
}
