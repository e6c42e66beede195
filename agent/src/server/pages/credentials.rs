//! `GET /v1/credentials`, read as the request goes: method and path, host, token, identity, route,
//! credentials.
//!
//! Owns: the order of these steps, and for how long a request is held. Must not know: sockets, keys, AWS.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::account::Account;
use super::client::Client;
use super::host::AllowedHosts;
use super::last_token::LastToken;
use super::presence::PresenceChecks;
use super::rejection::Rejection;
use super::self_probe;
use crate::association::{Associations, Choice, NoRoute, Question};
use crate::clock::{Clock, Now};
use crate::credentials::holding::Holding;
use crate::credentials::policy::hold::{Hold, LONGEST_HOLD};
use crate::credentials::provider::{CredentialRequest, Lookup, Provider, Served};
use crate::credentials::waiting::Waiting;
use crate::events::Events;
use crate::identity::{self, Authentication, Authenticator, Identity};
use crate::lifecycle::shutdown::Shutdown;
use crate::node::self_probe::ProbeKey;
use crate::pods::check::Origin;
use crate::server::access_log::AccessLog;
use crate::server::door::connection::{Peer, Respond};
use crate::server::door::limits::LONGEST_WAIT;
use crate::telemetry::metrics::{Authenticated, AuthenticationMetrics, RequestMetrics};
use crate::workload::{BearerToken, Caller, Principal, Route, RouteStatus};

/// The path that SDKs are pointed at.
const PATH: &str = "/v1/credentials";
/// While draining, holds end this much before the grace period does, so that the answer still gets out.
const TO_ANSWER: Duration = Duration::from_millis(250);
/// Waiting for a place and being held are one wait.
const _: () = assert!(LONGEST_WAIT.as_millis() == LONGEST_HOLD.as_millis());
/// A request that waits for the first keys of tokens gets its answer before the hold is over.
const _: () = assert!(identity::FIRST_KEYS_WAIT.as_millis() < LONGEST_HOLD.as_millis());

/// The credential endpoint.
pub struct Endpoint {
    /// Which `Host` a request may name.
    pub hosts: AllowedHosts,
    /// Who asks.
    pub authenticator: Arc<Authenticator>,
    /// By which route they get credentials.
    pub associations: Associations,
    /// Whether they are where their pods are.
    pub presence: PresenceChecks,
    /// Where what is wrong with them is reported.
    pub events: Events,
    /// What they get.
    pub provider: Provider,
    /// What the agent's own probes are answered with.
    pub probe_key: ProbeKey,
    /// The clock.
    pub clock: Clock,
    /// When holds get short.
    pub shutdown: Shutdown,
    /// What is counted.
    pub metrics: Arc<RequestMetrics>,
    /// The same, of verdicts on tokens.
    pub authentications: Arc<AuthenticationMetrics>,
    /// What is logged.
    pub access_log: Arc<AccessLog>,
}

/// What a caller has a claim to.
enum Claim {
    /// Credentials, from memory or from AWS.
    Request(CredentialRequest),
    /// What is there for it, and nothing else; and its answer once that is over.
    Holding(Holding, Rejection),
}

impl Respond for Endpoint {
    type Memory = LastToken;

    async fn respond(
        &self,
        peer: Peer,
        memory: &LastToken,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        if let Some(answer) = self_probe::answer(&self.probe_key, &peer, &request) {
            return answer;
        }
        let mut account = Account::open(self, &peer);
        let answer = self.answer(&peer, memory, &request, &mut account).await;
        account.close(answer)
    }

    fn refuse(&self, peer: Peer, _request: Request<Incoming>) -> Response<Full<Bytes>> {
        Account::open(self, &peer).close(Err(Rejection::TooManyHeld))
    }
}

impl Endpoint {
    async fn answer(
        &self,
        peer: &Peer,
        memory: &LastToken,
        request: &Request<Incoming>,
        account: &mut Account<'_>,
    ) -> Result<Served, Rejection> {
        if request.uri().path() != PATH {
            return Err(Rejection::NotFound);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(Rejection::Method);
        }
        if !self.hosts.allow_request(request.uri(), request.headers()) {
            return Err(Rejection::Host);
        }
        let token = memory.of(request.headers()).map_err(Rejection::Malformed)?;
        let hold = Client::of(request.headers()).hold();
        let deadline = peer.since + hold.longest();
        let (authentication, now) = self.authenticate(peer, &token, deadline, account).await;
        account.caller = authentication.caller();
        let origin = Origin { address: peer.address, is_of_host: peer.is_host };
        let request = match self.claim(peer, token, authentication, &account.caller, now, hold).await? {
            Claim::Request(request) => request,
            Claim::Holding(holding, otherwise) => {
                let caller = &holding.principal().caller;
                self.presence.check(caller, origin).await.map_err(Rejection::Absent)?;
                return holding.serve(self.clock.now()).ok_or(otherwise);
            }
        };
        self.presence.check(&account.caller, origin).await.map_err(Rejection::Absent)?;
        // It may have waited for its judge, its role and its pod: what has ended is decided by the time now.
        match self.provider.lookup(&request, self.clock.now()) {
            Lookup::Serve(served) => Ok(served),
            Lookup::Refuse(failed) => Err(account.failed(failed)),
            Lookup::Wait(waiting) => {
                let served = self.hold(peer, waiting, deadline, account).await?;
                self.presence.check_again(&account.caller).map_err(Rejection::Absent)?;
                self.still_given(&account.caller, &request.principal.route).map_err(Rejection::NoRoute)?;
                Ok(served)
            }
        }
    }

    /// Who asks, and when that is known. A token that nothing here decides waits until others have been
    /// asked.
    async fn authenticate(
        &self,
        peer: &Peer,
        token: &BearerToken,
        deadline: Instant,
        account: &mut Account<'_>,
    ) -> (Authentication, Now) {
        let now = self.clock.now();
        let (authentication, now) = match self.authenticator.lookup(token, peer.key(), now) {
            identity::Lookup::Judged(authentication) => (authentication, now),
            identity::Lookup::Open(open) => {
                account.caller = open.caller();
                // A request that waits for others is held like one that waits for AWS.
                let asked = async {
                    let _hold = peer.hold().await;
                    self.authenticator.ask_others(&open, token, peer.key(), now).await
                };
                let asked = tokio::select! {
                    judged = asked => Some(judged),
                    () = self.until_time_is_over(deadline) => None,
                };
                (asked.unwrap_or_else(|| open.meanwhile()), self.clock.now())
            }
        };
        self.authentications.judged(label(&authentication));
        (authentication, now)
    }

    /// What a caller has a claim to, and by which route.
    async fn claim(
        &self,
        peer: &Peer,
        token: BearerToken,
        authentication: Authentication,
        caller: &Caller,
        now: Now,
        hold: Hold,
    ) -> Result<Claim, Rejection> {
        let identity = match authentication {
            Authentication::Identified(identity) => identity,
            Authentication::Refused(refused) => return Err(Rejection::Token(refused.fault)),
            Authentication::Undecided(_) => return self.earned(&token, now).ok_or(Rejection::Undecided),
        };
        let token = identity.presented(token);
        let route = match self.associations.choose(caller, identity.audience(), now) {
            Choice::Route(route) => Ok(route),
            Choice::Former(route, why) => {
                let holding = self.provider.held_by(&identity.principal(route), now);
                return match holding {
                    Some(holding) => Ok(Claim::Holding(holding, Rejection::NoRoute(why))),
                    None => Err(Rejection::NoRoute(why)),
                };
            }
            Choice::Refused(why) => Err(why),
            Choice::Ask(question) => {
                let question = question.with_token_life(token.life());
                self.ask_for_route(peer, question, now, peer.since + hold.longest()).await
            }
        };
        let principal = identity.principal(route.map_err(Rejection::NoRoute)?);
        let must_be_judged = identity.must_be_judged();
        let peer = peer.key();
        Ok(Claim::Request(CredentialRequest { principal, token, must_be_judged, peer, hold }))
    }

    /// What a token has earned that nobody can verify any more, while its pod is given its route. Its key may
    /// have been withdrawn because it leaked, so nothing is fetched with the token.
    fn earned(&self, token: &BearerToken, now: Now) -> Option<Claim> {
        let holding = self.provider.earned_by(token, now)?;
        let Principal { caller, route, .. } = holding.principal();
        match self.associations.status(caller, route) {
            RouteStatus::Given | RouteStatus::ToExpiry => Some(Claim::Holding(holding, Rejection::Undecided)),
            RouteStatus::Ended => None,
        }
    }

    /// The route of a caller that has to wait for its role: it is held like one that waits for AWS.
    async fn ask_for_route(
        &self,
        peer: &Peer,
        question: Question,
        now: Now,
        deadline: Instant,
    ) -> Result<Route, NoRoute> {
        let asked = async {
            let _hold = peer.hold().await;
            self.associations.ask(question, now).await
        };
        tokio::select! {
            route = asked => route,
            () = self.until_time_is_over(deadline) => Err(NoRoute::NotYetKnown),
        }
    }

    /// Whether one that was held meanwhile is still given its route. Another one is for its next request.
    fn still_given(&self, caller: &Caller, route: &Route) -> Result<(), NoRoute> {
        match self.associations.status(caller, route) {
            RouteStatus::Given | RouteStatus::ToExpiry => Ok(()),
            RouteStatus::Ended => Err(NoRoute::NotYetKnown),
        }
    }

    /// Holds the request until there is an answer or its time is over. The flight goes on without it.
    async fn hold(
        &self,
        peer: &Peer,
        mut waiting: Waiting,
        deadline: Instant,
        account: &mut Account<'_>,
    ) -> Result<Served, Rejection> {
        account.flight = waiting.flight();
        let is_held = AtomicBool::new(false);
        // Without permission it waits as well, and takes the outcome if that comes first.
        let holding = async {
            let _hold = peer.hold().await;
            is_held.store(true, Ordering::Relaxed);
            pending::<Infallible>().await
        };
        let outcome = tokio::select! {
            outcome = waiting.outcome() => Some(outcome),
            never = holding => match never {},
            () = self.until_time_is_over(deadline) => None,
        };
        account.flight = waiting.flight();
        let is_over_quota = !is_held.into_inner() || waiting.is_over_quota();
        match outcome {
            Some(Ok(served)) => Ok(served),
            Some(Err(failed)) => Err(account.failed(failed)),
            None => waiting.fallback().ok_or_else(|| {
                if is_over_quota { Rejection::TooManyHeld } else { Rejection::so_far(waiting.last_failure()) }
            }),
        }
    }

    /// Until the hold is over: its own deadline, or the end of the grace period if shutdown begins meanwhile.
    async fn until_time_is_over(&self, deadline: Instant) {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return,
            () = self.shutdown.wait_for_draining() => {}
        }
        let grace = self.shutdown.remaining_grace().unwrap_or_default().saturating_sub(TO_ANSWER);
        tokio::select! {
            () = tokio::time::sleep_until(deadline.min(Instant::now() + grace)) => {}
            () = self.shutdown.wait_for_stopped() => {}
        }
    }
}

const fn label(authentication: &Authentication) -> Authenticated {
    match authentication {
        Authentication::Identified(Identity::Verified(_)) => Authenticated::Verified,
        Authentication::Identified(Identity::Unverified(_) | Identity::Untimely(_)) => {
            Authenticated::Unverified
        }
        Authentication::Refused(_) => Authenticated::Refused,
        Authentication::Undecided(_) => Authenticated::Undecided,
    }
}
