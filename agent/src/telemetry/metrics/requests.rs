//! What the front door counts.
//!
//! Owns: how a request can end, and the series about it, Amazon's two among them. Must not know: how it is answered.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::ByOutcome;
use super::plain_counter::PlainCounter;

/// How a request for credentials ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Served from memory.
    Hit,
    /// Served after waiting for AWS.
    Fetched,
    /// Refused: by us, or by AWS.
    Refused,
    /// Not served, and not the caller's fault.
    Unavailable,
    /// Not a request for credentials: wrong method, wrong path, wrong host.
    Invalid,
    /// The client left before the answer.
    Cancelled,
}

/// All outcomes; their number bounds the arrays here.
const OUTCOMES: [Outcome; 6] = [
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

/// What the front door counts.
pub struct RequestMetrics {
    /// One of each outcome, made beforehand: a hit must not pay for a look-up.
    answered: [(Counter, Histogram); OUTCOMES.len()],
    by_status: Family<ByCode, PlainCounter>,
    status_200: PlainCounter,
    cache_hit: PlainCounter,
    cache_miss: PlainCounter,
}

impl RequestMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let counts = Family::<ByOutcome, Counter>::default();
        let seconds = Family::<ByOutcome, Histogram>::new_with_constructor(request_seconds);
        registry.register(
            "pod_identity_agent_requests",
            "Requests for credentials, by how they ended",
            counts.clone(),
        );
        registry.register(
            "pod_identity_agent_request_seconds",
            "Time from the request's head to the answer, by how it ended",
            seconds.clone(),
        );
        let by_status = Family::<ByCode, PlainCounter>::default();
        registry.register("pod_identity_http_response", "Pod Identity http response code", by_status.clone());
        let cache = Family::<ByState, PlainCounter>::default();
        registry.register("pod_identity_cache_state", "The state of credential in cache", cache.clone());
        let answered = OUTCOMES.map(|outcome| {
            let label = ByOutcome { outcome: outcome.as_str() };
            (counts.get_or_create_owned(&label), seconds.get_or_create_owned(&label))
        });
        Self {
            answered,
            status_200: by_status.get_or_create_owned(&ByCode { code: 200 }),
            by_status,
            cache_hit: cache.get_or_create_owned(&ByState { state: "hit" }),
            cache_miss: cache.get_or_create_owned(&ByState { state: "miss" }),
        }
    }

    /// A request ended. `status` is `None` when the client left before one was sent.
    pub fn answered(&self, outcome: Outcome, status: Option<u16>, took: Duration) {
        if let Some((count, seconds)) = self.answered.get(outcome as usize) {
            count.inc();
            seconds.observe(took.as_secs_f64());
        }
        match status {
            Some(200) => self.status_200.inc(),
            Some(code) => self.by_status.get_or_create(&ByCode { code }).inc(),
            None => {}
        }
        match outcome {
            Outcome::Hit => self.cache_hit.inc(),
            Outcome::Fetched | Outcome::Unavailable => self.cache_miss.inc(),
            Outcome::Refused | Outcome::Invalid | Outcome::Cancelled => {}
        }
    }
}

/// From a hit (tens of microseconds) to the longest hold (4.5 s). Few buckets: each costs a series per outcome.
fn request_seconds() -> Histogram {
    Histogram::new([0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0])
}
