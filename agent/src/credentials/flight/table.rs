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
use crate::workload::{CredentialKey, PeerKey, PresentedToken, Principal, Source, TokenDigest};

/// All flights under way; clones share them.
#[derive(Clone)]
pub struct Flights {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Table>,
    runner: FlightRunner,
    outcomes: Outcomes,
    rng: Rng,
    tasks: Tasks,
}

#[derive(Default)]
struct Table {
    /// By pod, where its source has shown which one a token is of; else by the name that the flight is for.
    by_place: HashMap<CredentialKey, Arc<Flight>>,
    /// Those of verified pods, by each token that they call with.
    by_token: HashMap<TokenDigest, Arc<Flight>>,
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
    /// The source shall judge this very token: a call with another token of the same pod is no answer.
    pub is_judgement: bool,
    /// From where the request came that wishes it; `None`: the schedule does.
    pub asked_from: Option<PeerKey>,
}

/// What joining led to.
pub enum Joined {
    /// There is nothing to wait for: another flight ended a moment ago.
    Done(Result<Held, SourceError>),
    /// Under way.
    InFlight(FlightHandle),
    /// A call for the same pod is under way, and its outcome is not for this request: one of the two is about
    /// a certain token. A pod has one call at a time, so nothing was started.
    Behind(FlightHandle),
}

/// A flight of the same pod.
enum UnderWay<'a> {
    /// Its outcome is for this request, too.
    Joinable(&'a Arc<Flight>),
    /// It is not.
    OfAnotherToken(&'a Arc<Flight>),
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
        let mut table = self.shared.table.lock();
        match self.under_way(&table, request, now) {
            Some(UnderWay::Joinable(flight)) => {
                let flight = Arc::clone(flight);
                return Joined::InFlight(table.join(&flight, request, now));
            }
            Some(UnderWay::OfAnotherToken(flight)) => return Joined::Behind(flight.watch()),
            None => {}
        }
        if let Some(outcome) = self.ended_meanwhile(request) {
            return Joined::Done(outcome);
        }
        let peer = permit.as_ref().map(FlightPermit::peer);
        let id = FlightId::new(self.shared.rng.number());
        let place = self.place_of(request, now);
        let flight = Flight::new(id, place, request, peer, now.boot);
        let handle = flight.join(request, true, now.boot);
        table.insert(&flight);
        drop(table);
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn("flight", async move { shared.run(flight, permit).await });
        Joined::InFlight(handle)
    }

    /// Joins the identity's flight if there is one.
    pub fn join(&self, request: &JoinRequest<'_>) -> Option<FlightHandle> {
        let now = self.shared.runner.clock.now();
        let mut table = self.shared.table.lock();
        match self.under_way(&table, request, now)? {
            UnderWay::Joinable(flight) => {
                let flight = Arc::clone(flight);
                Some(table.join(&flight, request, now))
            }
            UnderWay::OfAnotherToken(_) => None,
        }
    }

    /// The flight of an identity, under either of its names.
    fn under_way<'a>(&self, table: &'a Table, request: &JoinRequest<'_>, now: Now) -> Option<UnderWay<'a>> {
        let JoinRequest { principal, token, .. } = request;
        let digest = token.token.digest();
        let of_either_name = table.get(&principal.key).or_else(|| {
            let other = self.shared.runner.store.other_name(&principal.key, digest, now)?;
            table.get(&other).filter(|flight| flight.principal().route == principal.route)
        });
        if let Some(flight) = of_either_name {
            let is_joinable = is_for(flight, request);
            return Some(if is_joinable {
                UnderWay::Joinable(flight)
            } else {
                UnderWay::OfAnotherToken(flight)
            });
        }
        // Its pod's flight calls with it, and no key or no clock proves it at this moment. That call may end
        // with another token of the pod, so it is waited for, and its outcome is no answer.
        let is_proven = principal.is_verified();
        table.by_token.get(&digest).filter(|_| !is_proven).map(UnderWay::OfAnotherToken)
    }

    /// Where a flight for this is found. A token that nobody can verify, but that its source has granted what
    /// a pod has, stands in that pod's place.
    fn place_of(&self, request: &JoinRequest<'_>, now: Now) -> CredentialKey {
        let JoinRequest { principal, token, .. } = request;
        match &principal.key {
            CredentialKey::Verified(_) => principal.key.clone(),
            CredentialKey::Unverified(_) => {
                let store = &self.shared.runner.store;
                let pod = store.other_name(&principal.key, token.token.digest(), now);
                pod.unwrap_or_else(|| principal.key.clone())
            }
        }
    }

    /// Keeps what a token earned under the name of the pod that a key has proven it to be of, unless a call
    /// for it is under way. Returns the record that is good for now.
    pub fn adopt(&self, pod: &Principal, earned: Arc<IdentityRecord>) -> Arc<IdentityRecord> {
        // While it is locked no call begins.
        let table = self.shared.table.lock();
        let is_for_it = |flight: &Arc<Flight>| flight.principal().key == *earned.key();
        if [earned.key(), &pod.key].iter().any(|place| table.get(place).is_some_and(is_for_it)) {
            return earned;
        }
        self.shared.outcomes.adopt(pod, earned)
    }

    /// How many flights to a source are under way.
    pub fn to(&self, source: Source) -> usize {
        let table = self.shared.table.lock();
        table.by_place.values().filter(|flight| flight.principal().route.source() == source).count()
    }

    /// Ends the entitlement to a set, if only an answer about another association was awaited, and it has
    /// come. Whether it has ended.
    pub(in crate::credentials) fn end_if_over(&self, record: &Arc<IdentityRecord>) -> bool {
        self.shared.outcomes.end_if_over(record)
    }

    /// Who waits for a first set, and why the last attempt failed, if one did.
    pub fn waiting(&self) -> Vec<(Principal, Option<SourceError>)> {
        let table = self.shared.table.lock();
        let waiting = table.by_place.values().filter(|flight| !flight.began_with_a_set());
        waiting.map(|flight| (flight.principal().clone(), flight.last_failure())).collect()
    }

    /// How many flights are under way.
    pub fn len(&self) -> usize {
        self.shared.table.lock().by_place.len()
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
            Purpose::Awaited(_) if request.seen.is_none() => {
                let refusal = refusals.recall(&request.principal.key, request.token.expires, now.boot);
                refusal.map(|refusal| Err(SourceError::Refused(refusal)))
            }
            Purpose::Awaited(_) | Purpose::Background => None,
        }
    }
}

impl Table {
    fn get(&self, place: &CredentialKey) -> Option<&Arc<Flight>> {
        self.by_place.get(place)
    }

    fn insert(&mut self, flight: &Arc<Flight>) {
        self.by_place.insert(flight.place().clone(), Arc::clone(flight));
        self.index(flight);
    }

    fn join(&mut self, flight: &Arc<Flight>, request: &JoinRequest<'_>, now: Now) -> FlightHandle {
        // It may be judged by itself at this moment: then the pod's flight does not call with it as well.
        let by_itself = self.get(&of_token(request));
        let is_free = by_itself.is_none_or(|other| Arc::ptr_eq(other, flight));
        let handle = flight.join(request, is_free, now.boot);
        self.index(flight);
        handle
    }

    /// So that a token which its pod's flight calls with is not called with once more by itself.
    fn index(&mut self, flight: &Arc<Flight>) {
        if flight.principal().is_verified() {
            for token in flight.called_with() {
                self.by_token.insert(token, Arc::clone(flight));
            }
        }
    }

    /// Removes this flight, and none that took its place.
    fn remove(&mut self, flight: &Arc<Flight>) {
        if self.by_place.get(flight.place()).is_some_and(|found| Arc::ptr_eq(found, flight)) {
            self.by_place.remove(flight.place());
        }
        for token in flight.called_with() {
            if self.by_token.get(&token).is_some_and(|found| Arc::ptr_eq(found, flight)) {
                self.by_token.remove(&token);
            }
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
            table.remove(&flight);
            return;
        }
    }
}

/// Whether the outcome of a flight for the same pod is for this request, too. What one token is judged to be
/// says nothing of the pod's others.
fn is_for(flight: &Flight, request: &JoinRequest<'_>) -> bool {
    match (&flight.principal().key, &request.principal.key) {
        // Before a key could prove it, the pod was no more than its token.
        (CredentialKey::Unverified(_), CredentialKey::Verified(_)) => {
            flight.principal().key == of_token(request)
        }
        (CredentialKey::Verified(_), CredentialKey::Unverified(_)) => !request.is_judgement,
        (CredentialKey::Verified(_), CredentialKey::Verified(_))
        | (CredentialKey::Unverified(_), CredentialKey::Unverified(_)) => {
            flight.principal().key == request.principal.key
        }
    }
}

/// The name of what the token of a request earns by itself.
fn of_token(request: &JoinRequest<'_>) -> CredentialKey {
    CredentialKey::Unverified(request.principal.route.name_of(request.token.token.digest()))
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
        self.shared.table.lock().remove(&self.flight);
        self.flight.finish(outcome);
    }
}
