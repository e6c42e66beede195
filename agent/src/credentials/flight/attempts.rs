//! How the attempts of one flight are made: its turn, its calls, its pauses.
//!
//! Owns: when AWS is called, how often, and after which pause. Must not know: who else is under way
//! (`table`), or what follows from the outcome (`outcome`).

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use crate::backoff::Backoff;
use crate::clock::{BootTime, Clock};
use crate::credentials::cached::CachedCredentials;
use crate::credentials::flight::final_answers::FinalAnswers;
use crate::credentials::flight::patience::Patience;
use crate::credentials::flight::shared_call::{Flight, Setback};
use crate::credentials::issued::{Issued, Unservable};
use crate::credentials::limits::budgets::Budgets;
use crate::credentials::limits::renewal_rate::RenewalRate;
use crate::credentials::limits::upstream_budget::{Permit, Position, Priority, Ticket};
use crate::credentials::policy::young_pod::{self, FIRST_GRACE_RETRY};
use crate::credentials::receipt::Receipt;
use crate::credentials::source::{
    JudgedToken, OfEach, Refusal, RefusalClass, SourceError, Sources, Unavailable,
};
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::rng::Rng;
use crate::telemetry::metrics::{CallOutcome, UpstreamMetrics};
use crate::workload::PresentedToken;

/// The longest pause between attempts: within one hold of a request there are several.
const SLOWEST_RETRY: Duration = Duration::from_millis(1600);
/// After an attempt that AWS did not answer.
const UNAVAILABLE: Backoff = Backoff::new(Duration::from_millis(100), SLOWEST_RETRY);
/// After throttling: a budget of calls refills in fractions of a second, not in milliseconds.
const THROTTLED: Backoff = Backoff::new(Duration::from_millis(400), SLOWEST_RETRY);
/// After a refusal of a young pod.
const GRACE: Backoff = Backoff::new(FIRST_GRACE_RETRY, SLOWEST_RETRY);

/// What the attempts of a flight need.
pub(in crate::credentials) struct FlightRunner {
    pub(in crate::credentials) clock: Clock,
    pub(in crate::credentials) rng: Rng,
    pub(in crate::credentials) patience: OfEach<Patience>,
    pub(in crate::credentials) budgets: Budgets,
    pub(in crate::credentials) renewal_rate: RenewalRate,
    pub(in crate::credentials) sources: Sources,
    pub(in crate::credentials) store: Store,
    pub(in crate::credentials) refusals: RecentRefusals,
    pub(in crate::credentials) answers: FinalAnswers,
    pub(in crate::credentials) metrics: Arc<UpstreamMetrics>,
}

/// What a flight brought, and the token that earned it.
pub(super) struct Fetched {
    pub(super) credentials: Arc<CachedCredentials>,
    pub(super) receipt: Receipt,
    pub(super) token: PresentedToken,
}

impl FlightRunner {
    /// Calls AWS until it answers for good or nobody wants it any more. All that is logged meanwhile carries
    /// the number of the flight.
    pub(super) async fn run(&self, flight: &Flight) -> Result<Fetched, SourceError> {
        let principal = flight.principal();
        let span = tracing::info_span!(
            "upstream_call",
            call.id = %flight.id(),
            call.source = principal.route.source().as_str(),
            call.key = ?principal.key,
        );
        let attempts = async {
            let ended = self.attempt(flight).await;
            self.answers.ended(&principal.route, ended.as_ref().err());
            ended
        };
        attempts.instrument(span).await
    }

    async fn attempt(&self, flight: &Flight) -> Result<Fetched, SourceError> {
        let (mut failures, mut waited) = (0, Duration::ZERO);
        let mut position = Position::End;
        let began = self.clock.now().boot;
        loop {
            let Some(permit) = self.turn(flight, position).await else {
                return Err(flight.last_failure().unwrap_or(SourceError::Unavailable(Unavailable::Timeout)));
            };
            let token = flight.token();
            if self.clock.now().is_surely_past(token.expires) {
                // Never a token past its `exp` (docs/design/decisions.md#renewals): the answer is known, and
                // a newer token will come.
                return Err(SourceError::Refused(token_expired(&token)));
            }
            let Called { result, took } = self.call(flight, &token, &permit, waited).await;
            let failure = match result {
                Ok(Usable { credentials, receipt }) => return Ok(Fetched { credentials, receipt, token }),
                Err(SourceError::Refused(refusal)) => {
                    let pause = GRACE.jittered(failures + 1, &self.rng);
                    if !self.has_grace(flight, &refusal, began, pause) {
                        return Err(SourceError::Refused(refusal));
                    }
                    flight.report(Setback { error: SourceError::Refused(refusal), may_be_slow: false });
                    drop(permit);
                    tokio::time::sleep(pause).await;
                    failures += 1;
                    position = Position::End;
                    continue;
                }
                Err(failure) => failure,
            };
            failures += 1;
            let is_timeout = matches!(failure, SourceError::Unavailable(Unavailable::Timeout));
            waited = if is_timeout { waited.max(took) } else { waited };
            tracing::debug!(err = %failure, failures, "an attempt failed");
            let may_be_slow = is_timeout && !Patience::is_at_its_end(waited);
            flight.report(Setback { error: failure.clone(), may_be_slow });
            if !flight.is_wanted(self.clock.now().boot) {
                return Err(failure);
            }
            match failure {
                SourceError::Throttled => {
                    // The place in the budget is kept over the pause, and the place in line after it.
                    tokio::time::sleep(THROTTLED.jittered(failures, &self.rng)).await;
                    drop(permit);
                    position = Position::Head;
                }
                SourceError::Unavailable(_) | SourceError::OwnIdentity(_) | SourceError::Refused(_) => {
                    drop(permit);
                    tokio::select! {
                        // In a fixed order, so that a simulated story is the same each time.
                        biased;
                        () = self.sources.mended(&failure) => {}
                        () = tokio::time::sleep(UNAVAILABLE.jittered(failures, &self.rng)) => {}
                    }
                    position = Position::End;
                }
            }
        }
    }

    /// Whether a refusal of a young pod is asked again after `pause`. Only for an identity that waits without
    /// credentials, and not if the same was tried without success a moment ago.
    fn has_grace(&self, flight: &Flight, refusal: &Refusal, began: BootTime, pause: Duration) -> bool {
        let now = self.clock.now();
        let key = &flight.principal().key;
        let refused_at = refusal.answered_at.or(now.is_confirmed().then_some(now.wall));
        young_pod::may_change(refusal.class, flight.token().issued, refused_at)
            && young_pod::has_time(now.boot.since(began), pause)
            && flight.is_wanted(now.boot)
            && !self.refusals.was_refused_lately(key, refusal.judged.expires)
            && self.store.get(key).is_none()
    }

    /// One call, within its place in the budget. It is given up when nobody has asked for too long.
    async fn call(
        &self,
        flight: &Flight,
        token: &PresentedToken,
        permit: &Permit,
        waited: Duration,
    ) -> Called {
        let started = tokio::time::Instant::now();
        let source = flight.principal().route.source();
        let patience = self.patience.of(source);
        let limits = patience.limits(waited, flight.is_wanted(self.clock.now().boot));
        let fetching = permit.during(self.sources.fetch(&flight.principal().route, token, limits));
        let fetched = tokio::select! {
            // In this order: an answer that is there is not passed over.
            biased;
            fetched = fetching => fetched,
            () = self.until(|now| flight.deserted_in(now)) => {
                Err(SourceError::Unavailable(Unavailable::Timeout))
            }
        };
        let result = fetched.and_then(|issued| self.servable(issued));
        let took = started.elapsed();
        self.metrics.called(source, outcome(&result), took);
        match &result {
            // A refusal is AWS in good health.
            Ok(_) | Err(SourceError::Refused(_)) => {
                patience.answered(took);
                permit.succeeded();
            }
            Err(SourceError::Throttled) => permit.throttled(),
            Err(SourceError::Unavailable(Unavailable::Timeout)) => patience.not_answered(took),
            Err(SourceError::Unavailable(_) | SourceError::OwnIdentity(_)) => {}
        }
        Called { result, took }
    }

    /// What is issued must be something that an SDK can read and use; else there was no answer.
    fn servable(&self, issued: Issued) -> Result<Usable, SourceError> {
        let now = self.clock.now();
        let is_over = issued.is_over(self.clock.to_sign_with(), now.trust).then_some(Unservable::Expired);
        match is_over.map_or_else(|| CachedCredentials::new(&issued, now), Err) {
            Ok(credentials) => Ok(Usable { credentials: Arc::new(credentials), receipt: issued.receipt }),
            Err(error) => {
                self.sources.answer_log.report_unusable(&error, now.boot);
                Err(SourceError::Unavailable(Unavailable::Unreadable))
            }
        }
    }

    /// Waits for a place in the budget. `None`: nobody wants it any more.
    async fn turn(&self, flight: &Flight, position: Position) -> Option<Permit> {
        if flight.priority() == Priority::Renewal {
            // Only renewals in good time are paced; a client that needs it ends the waiting.
            tokio::select! {
                // In a fixed order, so that a simulated story is the same each time.
                biased;
                () = self.renewal_rate.turn() => {}
                () = flight.priority_raised() => {}
            }
        }
        let mut priority = flight.priority();
        let mut ticket = self.budgets.of(flight.principal().route.source()).queue(priority, position);
        loop {
            match self.wait_in_line(flight, &mut ticket).await {
                Waited::Admitted(permit) => return Some(permit),
                Waited::Unwanted => return None,
                Waited::PriorityRaised if flight.priority() < priority => {
                    priority = flight.priority();
                    ticket.raise_to(priority);
                }
                Waited::PriorityRaised => {}
            }
        }
    }

    async fn wait_in_line(&self, flight: &Flight, ticket: &mut Ticket) -> Waited {
        tokio::select! {
            // In this order: a permit that is there is not passed over because patience ended in the same
            // moment.
            biased;
            permit = ticket.admitted() => permit.map_or(Waited::Unwanted, Waited::Admitted),
            () = flight.priority_raised() => Waited::PriorityRaised,
            () = self.until(|now| flight.patience_left(now)) => Waited::Unwanted,
        }
    }

    /// Sleeps until nobody wants a flight any more, which is so long from now; but that may move. For a
    /// renewal that nobody waits for: for ever, it keeps its place.
    async fn until(&self, is_unwanted_in: impl Fn(BootTime) -> Option<Duration>) {
        loop {
            match is_unwanted_in(self.clock.now().boot) {
                None => std::future::pending().await,
                Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }
}

/// What a call came to, and how long that took.
struct Called {
    result: Result<Usable, SourceError>,
    took: Duration,
}

/// What AWS issued and an SDK can use.
struct Usable {
    credentials: Arc<CachedCredentials>,
    receipt: Receipt,
}

enum Waited {
    Admitted(Permit),
    PriorityRaised,
    Unwanted,
}

pub(in crate::credentials) fn outcome<T>(result: &Result<T, SourceError>) -> CallOutcome {
    match result {
        Ok(_) => CallOutcome::Done,
        Err(error @ SourceError::Refused(_)) => CallOutcome::Final(error.label()),
        Err(error @ (SourceError::Throttled | SourceError::Unavailable(_) | SourceError::OwnIdentity(_))) => {
            CallOutcome::Passing(error.label())
        }
    }
}

fn token_expired(token: &PresentedToken) -> Refusal {
    let sentence = "the service account token has expired";
    let judged = JudgedToken::from(token);
    Refusal::new(RefusalClass::TokenExpired, "ExpiredTokenException", sentence, None, judged)
}
