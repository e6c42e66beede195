//! What a request gets: the way into this folder.
//!
//! Owns: carrying out the decision. Must not know: HTTP, statuses, or how a caller was authenticated.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::{Clock, Now};
use crate::credentials::flight::shared_call::{FlightId, Purpose};
use crate::credentials::flight::table::{Flights, JoinRequest, Joined};
use crate::credentials::issued::Grant;
use crate::credentials::limits::peer_quota::{FlightPermit, PeerQuotas};
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::policy::freshness::{Freshness, Urgency};
use crate::credentials::policy::hold::Hold;
use crate::credentials::policy::recovery::{Recovery, Remedy};
use crate::credentials::policy::serving::{Decision, decide, is_alive, is_short};
use crate::credentials::record::{Held, IdentityRecord};
use crate::credentials::source::{OfEach, SourceError};
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::waiting::{Fallback, Turn, Waiting, WaitingFor};
use crate::workload::{CredentialKey, PeerKey, PresentedToken, Principal};

/// Hands out credentials.
#[derive(Clone)]
pub struct Provider {
    pub(in crate::credentials) store: Store,
    pub(in crate::credentials) flights: Flights,
    pub(in crate::credentials) refusals: RecentRefusals,
    pub(in crate::credentials) quotas: PeerQuotas,
    pub(in crate::credentials) recovery: Arc<Mutex<OfEach<Recovery>>>,
    pub(in crate::credentials) clock: Clock,
}

/// A request for credentials.
#[derive(Clone, Debug)]
pub struct CredentialRequest {
    /// Who asks.
    pub principal: Principal,
    /// With which token.
    pub token: PresentedToken,
    /// Its source must judge the token before anything is served: nothing from memory.
    pub must_be_judged: bool,
    /// From where it comes: the peer it is charged to while there are no credentials and nobody has verified
    /// who asks.
    pub peer: PeerKey,
    /// For how long it waits where there is nothing to serve.
    pub hold: Hold,
}

/// What can be done at once.
pub enum Lookup {
    /// Here they are.
    Serve(Served),
    /// No, and waiting would not change it.
    Refuse(Failed),
    /// It takes a moment.
    Wait(Waiting),
}

/// Credentials to send.
#[derive(Debug)]
pub struct Served {
    /// The body.
    pub body: Bytes,
    /// Where they came from.
    pub from: ServedFrom,
    held: Held,
}

/// Where credentials came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedFrom {
    /// Memory.
    Memory {
        /// Whether it is the identity's first hit.
        is_first: bool,
    },
    /// AWS, just now.
    Upstream(FlightId),
}

/// Why there are no credentials, and which flight said so.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Why.
    pub error: SourceError,
    /// The flight, unless the refusal is remembered from an earlier one.
    pub flight: Option<FlightId>,
}

impl Provider {
    /// Says what can be done for a request at this moment, without waiting.
    pub fn lookup(&self, request: &CredentialRequest, now: Now) -> Lookup {
        self.heed_issuer(request, now);
        let key = &request.principal.key;
        let found = self.record_of(request, now).map(|record| {
            let (credentials, freshness) = record.asked(&request.token, now);
            let held = Held { record, credentials };
            let freshness = self.after_no_answer(request, &held, freshness, now);
            (held, freshness)
        });
        let may_serve = found.as_ref().filter(|_| !request.must_be_judged);
        // Not looked up for a hit, which it does not concern.
        let is_hit = may_serve.is_some_and(|(_, freshness)| is_alive(freshness));
        let refusal = (!is_hit).then(|| self.refusals.recall(key, request.token.expires, now.boot)).flatten();
        if let Some((held, _)) = may_serve.filter(|(held, _)| self.is_to_be_judged(request, held, now)) {
            return self.wait_or_serve(request, &judgement(request, held), held.clone());
        }
        let decision = decide(may_serve.map(|(_, freshness)| *freshness), refusal.is_some());
        let lookup = match (decision, found, refusal) {
            (Decision::Serve, Some((held, _)), _) => Lookup::Serve(Served::from_memory(held)),
            (Decision::ServeAndRenew(urgency), Some((held, _)), _) => {
                self.flights.start_or_join(&renewal(request, &held, urgency), None);
                Lookup::Serve(Served::from_memory(held))
            }
            (Decision::WaitThenServe(_), Some((held, _)), _) => {
                // A client waits for it, so the flight leaves at once, however much life is left.
                self.wait_or_serve(request, &renewal(request, &held, Urgency::Pressing), held.clone())
            }
            (Decision::Refuse, _, Some(refusal)) => {
                Lookup::Refuse(Failed { error: SourceError::Refused(refusal), flight: None })
            }
            // In all other cases there are no credentials.
            (_, _, _) => self.wait_for_flight(request, now),
        };
        if !now.is_confirmed() {
            // Only now that somebody is served is there a set that the time can be asked with.
            self.clock.ask_soon();
        }
        lookup
    }

    /// What the back-off of a renewal that AWS did not answer is to this request.
    fn after_no_answer(
        &self,
        request: &CredentialRequest,
        held: &Held,
        freshness: Freshness,
        now: Now,
    ) -> Freshness {
        // A token that is to be judged first renews nothing.
        let may_renew = freshness.is_quiet && !request.must_be_judged;
        let unanswered = may_renew.then(|| held.record.unanswered()).flatten();
        let remedy = unanswered.map_or(Remedy::None, |unanswered| {
            let mut recovery = self.recovery.lock();
            let of_source = recovery.of_mut(request.principal.route.source());
            of_source.remedy(unanswered, is_short(&freshness), now.boot)
        });
        match remedy {
            Remedy::None => freshness,
            Remedy::EndBackoff => {
                held.record.end_quiet();
                Freshness { is_quiet: false, ..freshness }
            }
            Remedy::FindOut => {
                self.flights.start_or_join(&renewal(request, held, Urgency::Pressing), None);
                freshness
            }
        }
    }

    /// A token that a key has proven is the issuer's word: the time of its issue cannot be to come.
    fn heed_issuer(&self, request: &CredentialRequest, now: Now) {
        let is_proven = request.principal.caller.verified().is_some();
        if let Some(issued) = request.token.issued.filter(|issued| is_proven && *issued > now.wall) {
            self.clock.heed_issuer(issued);
        }
    }

    /// What is known of who asks, under either of its names.
    fn record_of(&self, request: &CredentialRequest, now: Now) -> Option<Arc<IdentityRecord>> {
        let CredentialRequest { principal, token, .. } = request;
        let record = self.store.lookup(principal, token.token.digest(), now)?;
        match (&principal.key, record.key()) {
            (CredentialKey::Verified(_), CredentialKey::Unverified(_)) => {
                Some(self.flights.adopt(principal, record))
            }
            (CredentialKey::Verified(_), CredentialKey::Verified(_)) => {
                self.store.asks_by_its_own_name(token.token.digest(), &principal.route);
                Some(record)
            }
            (CredentialKey::Unverified(_), _) => Some(record),
        }
    }

    /// Whether the token found what its pod has by its digest alone, no key being there to verify it, and
    /// its source may be asked about it.
    fn is_to_be_judged(&self, request: &CredentialRequest, held: &Held, now: Now) -> bool {
        !request.principal.is_verified()
            && held.record.principal().is_verified()
            && !held.credentials.expiry().is_over(now)
            && self.store.take_judgement(request.token.token.digest(), &request.principal.route, now)
    }

    /// Waits a moment for the flight, then serves the best there is.
    fn wait_or_serve(&self, request: &CredentialRequest, wish: &JoinRequest<'_>, held: Held) -> Lookup {
        match self.flights.start_or_join(wish, None) {
            Joined::Done(Ok(newer)) => Lookup::Serve(Served::from_memory(newer)),
            Joined::Done(Err(_)) => Lookup::Serve(Served::from_memory(held)),
            Joined::InFlight(flight) => Lookup::Wait(Waiting {
                fallback: Some(Fallback { held, turn: self.turn(request) }),
                is_judgement: wish.is_judgement,
                ..self.waiting(WaitingFor::Flight(flight))
            }),
            Joined::Behind(_) => Lookup::Serve(Served::from_memory(held)),
        }
    }

    fn wait_for_flight(&self, request: &CredentialRequest, now: Now) -> Lookup {
        let joined = if request.principal.is_verified() {
            Some(self.start_or_join(request, None))
        } else {
            match self.quotas.try_flight(request.peer) {
                Ok(permit) => Some(self.start_or_join(request, Some(permit))),
                // A request that only joins needs no permit.
                Err(_over_quota) => self.flights.join(&self.first_call(request)).map(Joined::InFlight),
            }
        };
        match joined {
            Some(Joined::Done(Ok(held))) => Lookup::Serve(Served::from_memory(held)),
            Some(Joined::Done(Err(error))) => Lookup::Refuse(Failed { error, flight: None }),
            Some(Joined::InFlight(flight)) => match flight.last_word() {
                Some(error) if request.hold.is_over_at_once(flight.awaited_for(now.boot)) => {
                    Lookup::Refuse(Failed { error, flight: Some(flight.id()) })
                }
                Some(_) | None => Lookup::Wait(self.waiting(WaitingFor::Flight(flight))),
            },
            Some(Joined::Behind(other)) => {
                Lookup::Wait(self.waiting(WaitingFor::OtherToken(other, self.turn(request))))
            }
            None => Lookup::Wait(self.waiting(WaitingFor::PeerQuota(self.turn(request)))),
        }
    }

    fn turn(&self, request: &CredentialRequest) -> Box<Turn> {
        Box::new(Turn { provider: self.clone(), request: request.clone() })
    }

    pub(super) fn start_or_join(&self, request: &CredentialRequest, permit: Option<FlightPermit>) -> Joined {
        // What is held is as good as not there, but for noticing that a call has just ended.
        let CredentialRequest { principal, token, must_be_judged, .. } = request;
        let held = self.store.lookup(principal, token.token.digest(), self.clock.now());
        let held = held.filter(|_| *must_be_judged).map(|record| record.credentials());
        self.flights.start_or_join(&JoinRequest { seen: held.as_ref(), ..self.first_call(request) }, permit)
    }

    /// The wish of a client that has no credentials.
    fn first_call<'a>(&self, request: &'a CredentialRequest) -> JoinRequest<'a> {
        let CredentialRequest { principal, token, must_be_judged, .. } = request;
        let priority = if self.refusals.was_refused_lately(&principal.key, token.expires) {
            Priority::RecentlyRefused
        } else if principal.is_verified() {
            Priority::VerifiedWaiting
        } else {
            Priority::UnverifiedWaiting
        };
        let (purpose, is_judgement) = (Purpose::Awaited(request.hold), *must_be_judged);
        let asked_from = Some(request.peer);
        JoinRequest { principal, token, priority, purpose, seen: None, is_judgement, asked_from }
    }

    /// Of a request that has nothing to fall back to.
    fn waiting(&self, waiting_for: WaitingFor) -> Waiting {
        Waiting { waiting_for, fallback: None, is_judgement: false, clock: self.clock.clone() }
    }
}

/// The wish for a renewal of what a client is served meanwhile, under the name that it is kept by.
fn renewal<'a>(request: &'a CredentialRequest, held: &'a Held, urgency: Urgency) -> JoinRequest<'a> {
    JoinRequest {
        principal: held.record.principal(),
        token: &request.token,
        priority: urgency.priority(),
        purpose: Purpose::Background,
        seen: Some(&held.credentials),
        is_judgement: false,
        asked_from: Some(request.peer),
    }
}

/// The wish to have a token judged by its source, under its own name.
fn judgement<'a>(request: &'a CredentialRequest, held: &'a Held) -> JoinRequest<'a> {
    let renewal = renewal(request, held, Urgency::Pressing);
    JoinRequest { principal: &request.principal, is_judgement: true, ..renewal }
}

impl Served {
    pub(super) fn from_memory(held: Held) -> Self {
        let (body, is_first) = held.serve_from_memory();
        Self { body, from: ServedFrom::Memory { is_first }, held }
    }

    /// From memory, for somebody for whom it is not renewed.
    pub(in crate::credentials) fn as_it_is(held: Held) -> Self {
        Self { body: held.credentials.body(), from: ServedFrom::Memory { is_first: false }, held }
    }

    pub(super) fn fetched(held: Held, flight: FlightId) -> Self {
        Self { body: held.serve_fetched(), from: ServedFrom::Upstream(flight), held }
    }

    /// What they were issued for, for the log.
    pub fn grant(&self) -> &Grant {
        self.held.credentials.grant()
    }
}
