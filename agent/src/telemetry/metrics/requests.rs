//! What requests for credentials count.
//!
//! Owns: how a request can end, and the series about it. Must not know: how it is answered.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::ByOutcome;
use super::amazon::AmazonMetrics;

/// How a request for credentials ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Served from memory.
    Hit,
    /// Served after waiting for AWS.
    Fetched,
    /// Refused: by the agent, or by AWS.
    Refused,
    /// Not served, and not the caller's fault.
    Unavailable,
    /// Not a request for credentials: wrong method, wrong path, wrong host.
    Invalid,
    /// The client left before the answer.
    Cancelled,
}

/// All outcomes; their number bounds the arrays here.
pub(super) const OUTCOMES: [Outcome; 6] = [
    Outcome::Hit,
    Outcome::Fetched,
    Outcome::Refused,
    Outcome::Unavailable,
    Outcome::Invalid,
    Outcome::Cancelled,
];

impl Outcome {
    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Fetched => "fetched",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What requests for credentials count.
pub struct RequestMetrics {
    /// One of each outcome, made beforehand: a hit must not pay for a look-up.
    answered: [(Counter, Histogram); OUTCOMES.len()],
    amazon: AmazonMetrics,
}

impl RequestMetrics {
    pub(super) fn new(registry: &mut Registry, amazon: AmazonMetrics) -> Self {
        let counts = Family::<ByOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_requests",
            "Requests for credentials. hit: served from the cache; fetched: served after waiting for AWS; \
             refused: by the agent or by AWS; unavailable: answered 503, to be tried again; invalid: wrong \
             method, path or host; cancelled: the client left before the answer",
            counts.clone(),
        );
        let seconds = Family::<ByOutcome, Histogram>::new_with_constructor(durations);
        registry.register_with_unit(
            "pod_identity_agent_request_duration",
            "Time from the arrival of a request to its answer, with what it waited for a place",
            Unit::Seconds,
            seconds.clone(),
        );
        let answered = OUTCOMES.map(|outcome| {
            let label = ByOutcome { outcome: outcome.as_str() };
            (counts.get_or_create_owned(&label), seconds.get_or_create_owned(&label))
        });
        Self { answered, amazon }
    }

    /// A request ended. `status` is `None` when the client left before one was sent.
    pub fn answered(&self, outcome: Outcome, status: Option<u16>, took: Duration) {
        if let Some((count, seconds)) = self.answered.get(outcome as usize) {
            count.inc();
            seconds.observe(took.as_secs_f64());
        }
        self.amazon.answered(outcome, status);
    }
}

/// From a hit (tens of microseconds) to the hold of a client that is not known (4.5 s). Few buckets: each
/// costs a series per outcome.
fn durations() -> Histogram {
    Histogram::new([0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0])
}
