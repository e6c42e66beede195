//! `GET /v1/credentials`, read as the request goes: method and path, host, token, identity, source, credentials.
//!
//! Owns: the order of these steps, and for how long a request is held. Must not know: sockets, keys, AWS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::host::AllowedHosts;
use super::rejection::Rejection;
use super::{response, self_probe};
use crate::association;
use crate::clock::{Clock, Now};
use crate::credentials::provider::{LONGEST_HOLD, Lookup, Provider, Served, ServedFrom, Waiting};
use crate::identity::{Authentication, Authenticator, BearerToken, Look, MalformedToken, PresentedToken};
use crate::lifecycle::shutdown::Shutdown;
use crate::node::self_probe::ProbeKey;
use crate::server::access_log::{Access, AccessLog};
use crate::server::door::connection::{Peer, Respond};
use crate::telemetry::metrics::{Authenticated, AuthenticationMetrics, Outcome, RequestMetrics};
use crate::workload::CredentialKey;

/// The path that SDKs are pointed at.
const PATH: &str = "/v1/credentials";
/// While draining, holds end this much before the grace period does, so that the answer still gets out.
const TO_ANSWER: Duration = Duration::from_millis(250);

/// The credential endpoint.
pub struct Endpoint {
    /// Which `Host` a request may name.
    pub hosts: AllowedHosts,
    /// Who asks.
    pub authenticator: Authenticator,
    /// What they get.
    pub provider: Provider,
    /// What our own probes are answered with.
    pub seal: ProbeKey,
    /// The clock.
    pub clock: Clock,
    /// When holds get short.
    pub shutdown: Shutdown,
    /// What is counted.
    pub metrics: Arc<RequestMetrics>,
    /// The same, of verdicts on tokens.
    pub authentications: Arc<AuthenticationMetrics>,
    /// What is logged.
    pub access: Arc<AccessLog>,
}

/// A caller who may ask for credentials.
struct Caller {
    key: CredentialKey,
    presented: PresentedToken,
}

impl Respond for Endpoint {
    async fn respond(&self, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Some(answer) = self_probe::answer(&self.seal, &peer, &request) {
            return answer;
        }
        let mut account = Account::open(self, &peer);
        let answer = self.answer(&peer, &request, &mut account).await;
        account.close(answer)
    }
}

impl Endpoint {
    async fn answer(
        &self,
        peer: &Peer,
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
        let token = bearer_token(request.headers()).map_err(Rejection::Malformed)?;
        account.token = Some(token.clone());
        let now = self.clock.now();
        let deadline = Instant::now() + LONGEST_HOLD;
        let caller = self.identify(peer, token, now, deadline).await?;
        match self.provider.look(&caller.key, &caller.presented, peer.key(), now) {
            Lookup::Serve(served) => Ok(served),
            Lookup::Refuse(error) => Err(Rejection::Source(Some(error))),
            Lookup::Wait(waiting) => self.hold(peer, waiting, deadline).await,
        }
    }

    async fn identify(
        &self,
        peer: &Peer,
        token: BearerToken,
        now: Now,
        deadline: Instant,
    ) -> Result<Caller, Rejection> {
        let authentication = match self.authenticator.look(&token, now.wall) {
            Look::Settled(authentication) => authentication,
            Look::KeyUnknown(unknown) => {
                // Whoever waits for keys is held like whoever waits for AWS; who may not be held does without.
                let asked = match peer.try_hold() {
                    Ok(_hold) => tokio::select! {
                        drained = self.authenticator.ask(&unknown, &token, peer.key(), now) => Some(drained),
                        () = self.until_time_is_over(deadline) => None,
                    },
                    Err(_too_many) => None,
                };
                asked.unwrap_or_else(|| unknown.meanwhile())
            }
        };
        self.authentications.judged(label(&authentication));
        let (key, audience, expires, issued) = match &authentication {
            Authentication::Verified(identity) => {
                (identity.key(), identity.audience(), identity.expires(), identity.issued())
            }
            Authentication::Unverified(identity) => {
                (identity.key(), identity.audience(), identity.expires(), identity.issued())
            }
            Authentication::Refused(refusal) => return Err(Rejection::Refused(refusal.clone())),
            Authentication::Undecided => return Err(Rejection::Undecided),
        };
        association::source_for(audience).map_err(Rejection::Association)?;
        Ok(Caller { key, presented: PresentedToken { token, expires, issued } })
    }

    /// Holds the request until there is an answer or its time is over. The flight goes on without it.
    async fn hold(&self, peer: &Peer, mut waiting: Waiting, deadline: Instant) -> Result<Served, Rejection> {
        let Ok(_hold) = peer.try_hold() else {
            return waiting.fallback().ok_or(Rejection::TooManyHeld);
        };
        let outcome = tokio::select! {
            outcome = waiting.outcome() => Some(outcome),
            () = self.until_time_is_over(deadline) => None,
        };
        match outcome {
            Some(Ok(served)) => Ok(served),
            Some(Err(error)) => Err(Rejection::Source(Some(error))),
            None if waiting.is_in_line() => Err(Rejection::TooManyHeld),
            None => waiting.fallback().ok_or_else(|| Rejection::Source(waiting.trouble())),
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
        Authentication::Verified(_) => Authenticated::Verified,
        Authentication::Unverified(_) => Authenticated::Unverified,
        Authentication::Refused(_) => Authenticated::Refused,
        Authentication::Undecided => Authenticated::Undecided,
    }
}

fn bearer_token(headers: &HeaderMap) -> Result<BearerToken, MalformedToken> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(MalformedToken::Missing)?;
    if values.next().is_some() {
        return Err(MalformedToken::Repeated);
    }
    BearerToken::from_header(value.as_bytes())
}

/// Accounts for one request: one metric, one event, also when the client leaves and the future is dropped.
struct Account<'a> {
    endpoint: &'a Endpoint,
    peer: &'a Peer,
    started: Instant,
    token: Option<BearerToken>,
    is_open: bool,
}

impl<'a> Account<'a> {
    fn open(endpoint: &'a Endpoint, peer: &'a Peer) -> Self {
        Self { endpoint, peer, started: Instant::now(), token: None, is_open: true }
    }

    fn close(mut self, answer: Result<Served, Rejection>) -> Response<Full<Bytes>> {
        self.is_open = false;
        match answer {
            Ok(served) => {
                let outcome = match served.way {
                    ServedFrom::Hit { .. } => Outcome::Hit,
                    ServedFrom::Fetched => Outcome::Fetched,
                };
                self.record(outcome, Some(200), None, Some(&served));
                response::json(StatusCode::OK, served.body)
            }
            Err(rejection) => {
                let response = rejection.to_response();
                self.record(
                    rejection.outcome(),
                    Some(response.status().as_u16()),
                    Some(rejection.cause()),
                    None,
                );
                response
            }
        }
    }

    fn record(
        &self,
        outcome: Outcome,
        status: Option<u16>,
        cause: Option<&'static str>,
        served: Option<&Served>,
    ) {
        let took = self.started.elapsed();
        self.endpoint.metrics.answered(outcome, status, took);
        self.endpoint.access.record(&Access {
            outcome,
            is_first_hit: served.is_some_and(|served| served.way == ServedFrom::Hit { first: true }),
            status,
            cause,
            peer: self.peer.address,
            took,
            token: self.token.as_ref(),
            grant: served.map(Served::grant),
        });
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.record(Outcome::Cancelled, None, None, None);
        }
    }
}
