//! How one flight is flown: its turn, its attempts, its pauses.
//!
//! Owns: when AWS is called, how often, and after which pause. Must not know: who else is under way (`flights`), or what
//! comes of the outcome (`settle`).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BootTime, Clock};
use crate::credentials::flight::shared_call::Flight;
use crate::credentials::held::Held;
use crate::credentials::limits::renewal_rate::RenewalRate;
use crate::credentials::limits::upstream_budget::{Permit, Position, Priority, Ticket, UpstreamBudget};
use crate::credentials::model::Issued;
use crate::credentials::policy::entitlement::Entitlement;
use crate::credentials::policy::young_pod::{self, FIRST_GRACE_RETRY};
use crate::credentials::source::eks_auth::EksAuth;
use crate::credentials::source::{Refused, RefusedCode, SourceError, Unavailable};
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::store::schedule::Schedule;
use crate::identity::PresentedToken;
use crate::lifecycle::tasks::Tasks;
use crate::rng::Rng;
use crate::telemetry::metrics::{CallOutcome, UpstreamMetrics};
use crate::workload::CredentialKey;

/// After a failed attempt the next comes after this, doubling up to [`SLOWEST_RETRY`], with jitter.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// After throttling it is this at first: a budget of calls refills in fractions of a second, not in milliseconds.
const FIRST_THROTTLED_RETRY: Duration = Duration::from_millis(400);
/// The longest pause between attempts: within one hold of a request there are several.
const SLOWEST_RETRY: Duration = Duration::from_millis(1600);
/// Renewals that fail are tried again after this, doubling up to [`SLOWEST_RENEWAL_RETRY`], with jitter.
pub const FIRST_RENEWAL_RETRY: Duration = Duration::from_secs(5);
/// The longest pause between renewals of one set.
pub(super) const SLOWEST_RENEWAL_RETRY: Duration = Duration::from_secs(120);

/// What a flight needs.
pub struct FlightRunner {
    /// The clock.
    pub clock: Clock,
    /// Jitter.
    pub chance: Rng,
    /// The share of AWS.
    pub budget: UpstreamBudget,
    /// The pace of background renewals.
    pub pace: RenewalRate,
    /// AWS.
    pub source: EksAuth,
    /// Where a set goes.
    pub store: Store,
    /// Where a refusal goes.
    pub failures: RecentRefusals,
    /// What a refusal means for a set in hand.
    pub entitlement: Entitlement,
    /// Where the next renewal goes.
    pub schedule: Schedule,
    /// The longest time to keep a set before its renewal.
    pub renew_after: Duration,
    /// Who runs the tasks.
    pub tasks: Tasks,
    /// What is counted.
    pub metrics: Arc<UpstreamMetrics>,
}

impl FlightRunner {
    /// Attempts until AWS answers for good or nobody wants it any more.
    pub(super) async fn attempt(
        &self,
        key: &CredentialKey,
        flight: &Flight,
    ) -> Result<Arc<Held>, SourceError> {
        let mut attempts = 0;
        let mut place = Position::End;
        let began = self.clock.now().boot;
        loop {
            let Some(permit) = self.turn(flight, place).await else {
                return Err(flight.trouble().unwrap_or(SourceError::Unavailable(Unavailable::Timeout)));
            };
            let presented = flight.presented();
            if presented.expires <= self.clock.now().wall {
                // Never a token past its `exp` (design 4.6): the answer is known, and a newer token will come.
                return Err(SourceError::Refused(token_expired()));
            }
            let trouble = match self.call(&presented, &permit).await {
                Ok(issued) => return self.take_in_hand(key, &issued, presented),
                Err(SourceError::Refused(refused)) => {
                    let pause = self.pause(FIRST_GRACE_RETRY, SLOWEST_RETRY, attempts);
                    if !self.has_grace(key, flight, &refused, began, pause) {
                        return Err(SourceError::Refused(refused));
                    }
                    flight.report_failure(SourceError::Refused(refused));
                    drop(permit);
                    tokio::time::sleep(pause).await;
                    attempts += 1;
                    place = Position::End;
                    continue;
                }
                Err(trouble) => trouble,
            };
            tracing::debug!(key = ?key, err = %trouble, attempts, "an attempt at EKS Auth failed");
            flight.report_failure(trouble.clone());
            if !flight.is_wanted(self.clock.now().boot) {
                return Err(trouble);
            }
            match trouble {
                SourceError::Throttled => {
                    // The place in the budget is kept over the pause, and the place in line after it.
                    tokio::time::sleep(self.pause(FIRST_THROTTLED_RETRY, SLOWEST_RETRY, attempts)).await;
                    drop(permit);
                    place = Position::Head;
                }
                SourceError::Unavailable(_) | SourceError::OwnIdentity(_) | SourceError::Refused(_) => {
                    drop(permit);
                    tokio::time::sleep(self.pause(FIRST_RETRY, SLOWEST_RETRY, attempts)).await;
                    place = Position::End;
                }
            }
            attempts += 1;
        }
    }

    /// Whether a refusal of a young pod is asked again after `pause`. Only for who waits with nothing in hand, and not if
    /// the same was tried in vain a moment ago.
    fn has_grace(
        &self,
        key: &CredentialKey,
        flight: &Flight,
        refused: &Refused,
        began: BootTime,
        pause: Duration,
    ) -> bool {
        let now = self.clock.now();
        young_pod::may_change(refused.code, flight.presented().issued, now.wall)
            && young_pod::has_time(now.boot.since(began), pause)
            && flight.is_wanted(now.boot)
            && !self.failures.was_refused_lately(key)
            && self.store.get(key).is_none()
    }

    /// One call, within its place in the budget.
    async fn call(&self, presented: &PresentedToken, permit: &Permit) -> Result<Issued, SourceError> {
        let started = tokio::time::Instant::now();
        let result = self.source.fetch(&presented.token).await;
        self.metrics.called(outcome(&result), started.elapsed());
        match &result {
            // A refusal is AWS in good health.
            Ok(_) | Err(SourceError::Refused(_)) => permit.succeeded(),
            Err(SourceError::Throttled) => permit.throttled(),
            Err(SourceError::Unavailable(_) | SourceError::OwnIdentity(_)) => {}
        }
        result
    }

    fn take_in_hand(
        &self,
        key: &CredentialKey,
        issued: &Issued,
        presented: PresentedToken,
    ) -> Result<Arc<Held>, SourceError> {
        let jitter = self.chance.fraction();
        match Held::new(key.clone(), issued, presented, self.clock.now(), self.renew_after, jitter) {
            Ok(held) => Ok(Arc::new(held)),
            Err(error) => {
                tracing::error!(err = %error, "AWS issued credentials that no SDK can read");
                Err(SourceError::Unavailable(Unavailable::Unreadable))
            }
        }
    }

    /// Waits for a place in the budget. `None`: nobody wants it any more.
    async fn turn(&self, flight: &Flight, place: Position) -> Option<Permit> {
        if flight.lane() == Priority::Renewal {
            // Only renewals in good time are paced; somebody who needs it ends the waiting.
            tokio::select! {
                // In a fixed order, so that a simulated story is the same each time.
                biased;
                () = self.pace.turn() => {}
                () = flight.priority_raised() => {}
            }
        }
        let mut lane = flight.lane();
        let mut ticket = self.budget.queue(lane, place);
        loop {
            match self.wait_in_line(flight, &mut ticket).await {
                Waited::Admitted(permit) => return Some(permit),
                Waited::Unwanted => return None,
                Waited::Risen if flight.lane() < lane => {
                    lane = flight.lane();
                    ticket.rise_to(lane);
                }
                Waited::Risen => {}
            }
        }
    }

    async fn wait_in_line(&self, flight: &Flight, ticket: &mut Ticket) -> Waited {
        tokio::select! {
            // In this order: a permit that is there is not passed over because patience ended in the same moment.
            biased;
            permit = ticket.admitted() => permit.map_or(Waited::Unwanted, Waited::Admitted),
            () = flight.priority_raised() => Waited::Risen,
            () = self.until_unwanted(flight) => Waited::Unwanted,
        }
    }

    /// Sleeps until nobody has asked for too long. For a renewal that nobody waits for: for ever, it keeps its place.
    async fn until_unwanted(&self, flight: &Flight) {
        loop {
            match flight.patience_left(self.clock.now().boot) {
                None => std::future::pending().await,
                Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }

    /// An exponential pause with jitter: between half and the whole of it.
    pub(super) fn pause(&self, first: Duration, longest: Duration, doublings: u32) -> Duration {
        let whole = first.saturating_mul(2_u32.saturating_pow(doublings.min(16))).min(longest);
        whole.mul_f64(0.5 + self.chance.fraction() / 2.0)
    }
}

enum Waited {
    Admitted(Permit),
    Risen,
    Unwanted,
}

fn outcome(result: &Result<Issued, SourceError>) -> CallOutcome {
    match result {
        Ok(_) => CallOutcome::Done,
        Err(error @ SourceError::Refused(_)) => CallOutcome::Final(error.label()),
        Err(error @ (SourceError::Throttled | SourceError::Unavailable(_) | SourceError::OwnIdentity(_))) => {
            CallOutcome::Passing(error.label())
        }
    }
}

fn token_expired() -> Refused {
    Refused::new(RefusedCode::ExpiredToken, "the service account token has expired", None)
}
