//! What one request comes to: a metric, an event, and an answer.
//!
//! Owns: that each request is counted and logged once, also when its client leaves, and which Event its pod
//! gets. Must not know: how the answer was found.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::credentials::Endpoint;
use super::rejection::Rejection;
use super::response;
use crate::association::NoRoute;
use crate::credentials::flight::shared_call::FlightId;
use crate::credentials::provider::{Failed, Served, ServedFrom};
use crate::events::Problem;
use crate::identity::TokenFault;
use crate::server::access_log::Access;
use crate::server::door::connection::Peer;
use crate::telemetry::metrics::Outcome;
use crate::workload::Caller;

/// Accounts for one request: one metric, one event, also when the client leaves and the future is dropped.
pub(super) struct Account<'a> {
    endpoint: &'a Endpoint,
    peer: &'a Peer,
    pub(super) caller: Caller,
    /// The flight that the request waited for.
    pub(super) flight: Option<FlightId>,
    is_open: bool,
}

impl<'a> Account<'a> {
    pub(super) fn open(endpoint: &'a Endpoint, peer: &'a Peer) -> Self {
        Self { endpoint, peer, caller: Caller::Unknown, flight: None, is_open: true }
    }

    pub(super) fn failed(&mut self, failed: Failed) -> Rejection {
        self.flight = failed.flight;
        Rejection::Source(Some(failed.error))
    }

    pub(super) fn close(mut self, answer: Result<Served, Rejection>) -> Response<Full<Bytes>> {
        self.is_open = false;
        match answer {
            Ok(served) => {
                let outcome = match served.from {
                    ServedFrom::Memory { .. } => Outcome::Hit,
                    ServedFrom::Upstream(_) => Outcome::Fetched,
                };
                self.record(outcome, Some(200), None, Some(&served));
                response::json(StatusCode::OK, served.body)
            }
            Err(rejection) => {
                self.tell_owner(&rejection);
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

    /// What is wrong with a token is an Event about its pod only where a key has proven it to be that pod's.
    /// What AWS refuses is reported where its answers arrive: renewals are refused as well, and one answer
    /// refuses many requests.
    fn tell_owner(&self, rejection: &Rejection) {
        match rejection {
            Rejection::Token(fault) => self.tell_of_token(fault),
            Rejection::NoRoute(no_route) => self.tell_of_role(no_route),
            Rejection::NotFound
            | Rejection::Method
            | Rejection::Host
            | Rejection::Malformed(_)
            | Rejection::Undecided
            | Rejection::Absent(_)
            | Rejection::TooManyHeld
            | Rejection::Source(_)
            | Rejection::RefusedSoFar(_) => {}
        }
    }

    /// Only a verified pod is asked for its role.
    fn tell_of_role(&self, no_route: &NoRoute) {
        match no_route {
            NoRoute::NoRole | NoRoute::InvalidRole(_) | NoRoute::OtherAudience(_) | NoRoute::NotAllowed => {
                self.endpoint.events.tell_of_caller(&self.caller, |service_account| Problem::NoRole {
                    service_account: service_account.into(),
                    why: no_route.to_string().into(),
                });
            }
            // A matter of moments.
            NoRoute::Unverified | NoRoute::NotYetKnown => {}
        }
    }

    fn tell_of_token(&self, fault: &TokenFault) {
        match (fault, &self.caller) {
            (TokenFault::ForeignAudience(foreign), Caller::Verified(_)) => {
                let problem = |_: &str| Problem::WrongAudience(foreign.clone());
                self.endpoint.events.tell_of_caller(&self.caller, problem);
            }
            (TokenFault::OtherNode, Caller::Verified(_)) => {
                self.endpoint.events.tell_of_other_node(&self.caller);
            }
            (
                TokenFault::Unreadable(_)
                | TokenFault::Expired
                | TokenFault::SeveralAudiences
                | TokenFault::ForeignAudience(_)
                | TokenFault::Algorithm
                | TokenFault::Forged
                | TokenFault::NotPodBound
                | TokenFault::Contradiction
                | TokenFault::NotAuthenticated
                | TokenFault::OtherNode,
                Caller::Verified(_) | Caller::Claimed(_) | Caller::Unknown,
            ) => {}
        }
    }

    fn record(
        &self,
        outcome: Outcome,
        status: Option<u16>,
        cause: Option<&'static str>,
        served: Option<&Served>,
    ) {
        // With what it waited for a place or for its peer's pace: that is what the client sees.
        let took = self.peer.since.elapsed();
        self.endpoint.metrics.answered(outcome, status, took);
        self.endpoint.access_log.record(&Access {
            outcome,
            is_first_hit: served.is_some_and(|served| served.from == ServedFrom::Memory { is_first: true }),
            status,
            cause,
            peer: self.peer.address,
            charged_to: self.peer.key(),
            took,
            caller: &self.caller,
            flight: self.flight,
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
