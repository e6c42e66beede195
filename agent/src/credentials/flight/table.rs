//! One flight per identity.
//!
//! Owns: that however many ask for one identity, over all listeners, at most one call is under way (invariant
//! 4); that a flight is a task of its own, so that a client that hangs up cancels nothing. Must not know:
//! HTTP, who asks, or how attempts are made (`attempts`). moka's `try_get_with` is not used: it runs the
//! fetch inside the first caller's future and starts it again when that caller leaves
//! (docs/design/facts.md#moka).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Now;
use crate::credentials::cached::CachedCredentials;
use crate::credentials::flight::attempts::{Fetched, FlightRunner};
use crate::credentials::flight::outcome::Outcomes;
use crate::credentials::flight::shared_call::{Flight, FlightHandle, FlightId, Purpose};
use crate::credentials::limits::peer_quota::FlightPermit;
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::record::{Held, IdentityRecord};
use crate::credentials::source::{SourceError, Unavailable};
use crate::lifecycle::tasks::Tasks;
use crate::rng::Rng;
use crate::workload::{CredentialKey, PresentedToken, Principal};

/// All flights under way; clones share them.
#[derive(Clone)]
pub struct Flights {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<HashMap<CredentialKey, Arc<Flight>>>,
    runner: FlightRunner,
    outcomes: Outcomes,
    rng: Rng,
    tasks: Tasks,
}

/// A wish for credentials from AWS.
pub struct JoinRequest<'a> {
    /// For whom.
    pub principal: &'a Principal,
    /// The token that was presented; the flight goes on with the newest of all that join.
    pub token: &'a PresentedToken,
    /// How pressing it is.
    pub priority: Priority,
    /// Whether a client waits.
    pub purpose: Purpose,
    /// The set that the caller found in the store. A flight that ended between that look and this request is
    /// noticed, so that a thousand first requests at once make one call and not two.
    pub seen: Option<&'a Arc<CachedCredentials>>,
}

/// What joining led to.
pub enum Joined {
    /// There is nothing to wait for: another flight ended a moment ago.
    Done(Result<Held, SourceError>),
    /// Under way.
    InFlight(FlightHandle),
}

impl Flights {
    /// No flight yet.
    pub(in crate::credentials) fn new(
        runner: FlightRunner,
        outcomes: Outcomes,
        rng: Rng,
        tasks: Tasks,
    ) -> Self {
        Self { shared: Arc::new(Shared { table: Mutex::default(), runner, outcomes, rng, tasks }) }
    }

    /// Joins the identity's flight, or starts it. `permit` is given back when the flight that was started
    /// with it is over, or at once if it started none.
    pub fn start_or_join(&self, request: &JoinRequest<'_>, permit: Option<FlightPermit>) -> Joined {
        let now = self.shared.runner.clock.now();
        let &JoinRequest { principal, token, priority, purpose, .. } = request;
        let mut table = self.shared.table.lock();
        if let Some(flight) = self.under_way(&table, request, now) {
            return Joined::InFlight(flight.join(token, priority, purpose, now.boot));
        }
        if let Some(outcome) = self.ended_meanwhile(request) {
            return Joined::Done(outcome);
        }
        let peer = permit.as_ref().map(FlightPermit::peer);
        let id = FlightId::new(self.shared.rng.number());
        let flight = Flight::new(id, principal.clone(), token.clone(), priority, peer);
        let handle = flight.join(token, priority, purpose, now.boot);
        table.insert(principal.key.clone(), Arc::clone(&flight));
        drop(table);
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn("flight", async move { shared.run(flight, permit).await });
        Joined::InFlight(handle)
    }

    /// Joins the identity's flight if there is one.
    pub fn join(&self, request: &JoinRequest<'_>) -> Option<FlightHandle> {
        let now = self.shared.runner.clock.now();
        let table = self.shared.table.lock();
        let flight = self.under_way(&table, request, now)?;
        Some(flight.join(request.token, request.priority, request.purpose, now.boot))
    }

    /// The flight of an identity, under either of its names.
    fn under_way<'a>(
        &self,
        table: &'a HashMap<CredentialKey, Arc<Flight>>,
        request: &JoinRequest<'_>,
        now: Now,
    ) -> Option<&'a Arc<Flight>> {
        let JoinRequest { principal, token, .. } = request;
        table.get(&principal.key).or_else(|| {
            let store = &self.shared.runner.store;
            let other = store.other_name(&principal.key, token.token.digest(), now)?;
            table.get(&other).filter(|flight| flight.principal().route == principal.route)
        })
    }

    /// Keeps what a token earned under the name of the pod that a key has proven it to be of, unless a call
    /// for it is under way. Returns the record that is good for now.
    pub fn adopt(&self, pod: &Principal, earned: Arc<IdentityRecord>) -> Arc<IdentityRecord> {
        // While it is locked no call begins.
        let table = self.shared.table.lock();
        if table.contains_key(earned.key()) {
            return earned;
        }
        self.shared.outcomes.adopt(pod, earned)
    }

    /// How many flights are under way.
    pub fn len(&self) -> usize {
        self.shared.table.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn ended_meanwhile(&self, request: &JoinRequest<'_>) -> Option<Result<Held, SourceError>> {
        let FlightRunner { clock, store, refusals, .. } = &self.shared.runner;
        let now = clock.now();
        if let Some(record) = store.lookup(request.principal, request.token.token.digest(), now) {
            let credentials = record.credentials();
            let is_new = request.seen.is_none_or(|seen| !Arc::ptr_eq(seen, &credentials));
            if is_new && !credentials.expiry().is_over(now) {
                return Some(Ok(Held { record, credentials }));
            }
        }
        match request.purpose {
            Purpose::Awaited if request.seen.is_none() => {
                let refusal = refusals.recall(&request.principal.key, request.token.expires, now.boot);
                refusal.map(|refusal| Err(SourceError::Refused(refusal)))
            }
            Purpose::Awaited | Purpose::Background => None,
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>, flight: Arc<Flight>, mut permit: Option<FlightPermit>) {
        // Whatever happens in here, a panic included, the flight leaves the table and those who wait are
        // told.
        let mut finish =
            FinishOnDrop { shared: Arc::clone(&self), flight: Arc::clone(&flight), outcome: None };
        loop {
            let fetched = self.runner.run(&flight).await;
            // While it is locked nobody joins: those who have joined by now get this answer, or a better one.
            let mut table = self.table.lock();
            if is_of_an_older_token(&fetched, &flight) {
                continue;
            }
            if let (Err(SourceError::Refused(_)), Some(permit)) = (&fetched, &mut permit) {
                permit.refused();
            }
            finish.outcome = Some(self.outcomes.record(&flight, fetched));
            table.remove(&flight.principal().key);
            return;
        }
    }
}

/// Whether a refusal is about a token that is no longer the best of those who wait: it says nothing about
/// the newer one, with which another attempt is made.
fn is_of_an_older_token(fetched: &Result<Fetched, SourceError>, flight: &Flight) -> bool {
    let Err(SourceError::Refused(refusal)) = fetched else { return false };
    refusal.class.is_about_token() && refusal.judged.expires < flight.token().expires
}

/// Ends a flight when dropped.
struct FinishOnDrop {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    outcome: Option<Result<Held, SourceError>>,
}

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        let lost = Err(SourceError::Unavailable(Unavailable::Lost));
        let outcome = self.outcome.take().unwrap_or(lost);
        // First out of the table, then told: a request that comes in between finds the set in the store.
        // Only a flight that was lost is still there.
        let mut table = self.shared.table.lock();
        if table.get(&self.flight.principal().key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            table.remove(&self.flight.principal().key);
        }
        drop(table);
        self.flight.finish(outcome);
    }
}
