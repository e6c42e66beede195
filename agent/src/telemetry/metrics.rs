//! What is counted, and the page that Prometheus reads.
//!
//! Owns: names, labels and help of every series; the crate `prometheus_client` is named nowhere else. Must not know: what
//! the numbers are used for. Labels are closed sets: never a pod, a token, an account or an error's text.
//!
//! Amazon's three series keep their exact names beside ours, so that its dashboards keep working.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::lifecycle::bounds::BOUNDS;
use crate::lifecycle::readiness::Report;
use conditions::Conditions;

mod authentication;
mod conditions;
mod self_probe;

pub use authentication::{Authenticated, AuthenticationMetrics};
pub use self_probe::{ProbedFrom, SelfProbeMetrics};

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
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTypeAndCode {
    r#type: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLane {
    lane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTrust {
    trust: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByBound {
    bound: &'static str,
}

/// A counter whose name gets no `_total`: Amazon's series have none, and OpenMetrics allows that for type `unknown` only.
#[derive(Clone, Debug, Default)]
struct PlainCounter(Arc<AtomicU64>);

impl PlainCounter {
    fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl TypedMetric for PlainCounter {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for PlainCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_gauge(&self.0.load(Ordering::Relaxed))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
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

/// What calls to AWS count.
pub struct UpstreamMetrics {
    calls: Family<ByOutcome, Counter>,
    seconds: Histogram,
    cache_errors: Family<ByTypeAndCode, PlainCounter>,
}

/// What came of a call to AWS, each kind with its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It brought credentials.
    Done,
    /// It failed, and the same call may succeed later.
    Passing(&'static str),
    /// It was refused.
    Final(&'static str),
}

impl CallOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Passing(label) | Self::Final(label) => label,
        }
    }
}

/// The budget of calls to AWS.
#[derive(Clone, Copy, Debug, Default)]
pub struct BudgetNumbers {
    /// Calls that may be under way at once.
    pub limit: u32,
    /// Calls under way.
    pub in_flight: u32,
    /// How many wait in which lane.
    pub waiting: [(&'static str, usize); 5],
}

/// Numbers that are read when Prometheus asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// Sets in hand.
    pub held: u64,
    /// Flights under way.
    pub flights: usize,
    /// The budget.
    pub budget: Option<BudgetNumbers>,
    /// Seconds until the agent's own credentials expire.
    pub own_credentials_seconds: Option<i64>,
    /// Keys that tokens are verified with.
    pub token_keys: usize,
    /// Seconds since the source of keys that was silent longest was last read well.
    pub token_keys_age_seconds: Option<u64>,
    /// The correction of the wall clock, in milliseconds.
    pub clock_correction_ms: i64,
    /// Open connections.
    pub connections_open: u64,
    /// Connections refused for a limit.
    pub connections_refused: u64,
    /// Idle connections closed to make room.
    pub idle_closed: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Sets of verified identities in hand.
    pub verified: u64,
    /// Sets of unverified ones.
    pub unverified: u64,
    /// How often each bound was reached, in the order of [`BOUNDS`].
    pub reached: [u64; BOUNDS.len()],
}

struct Gauges {
    held: Gauge,
    flights: Gauge,
    limit: Gauge,
    in_flight: Gauge,
    waiting: Family<ByLane, Gauge>,
    own_credentials_seconds: Gauge,
    token_keys: Gauge,
    token_keys_age_seconds: Gauge,
    clock_correction_ms: Gauge,
    connections_open: Gauge,
    connections_refused: Gauge,
    idle_closed: Gauge,
    accept_errors: Gauge,
    held_by_trust: Family<ByTrust, Gauge>,
    reached: Family<ByBound, Gauge>,
}

/// All metrics of the process.
pub struct Metrics {
    /// Of the front door.
    pub requests: Arc<RequestMetrics>,
    /// Of the verdicts on tokens.
    pub authentications: Arc<AuthenticationMetrics>,
    /// Of the calls to AWS.
    pub upstream: Arc<UpstreamMetrics>,
    /// Of the probes of ourselves.
    pub self_probe: Arc<SelfProbeMetrics>,
    gauges: Gauges,
    conditions: Conditions,
    registry: Registry,
}

impl Metrics {
    /// Registers everything, so that each series is there from the first scrape on.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Arc::new(RequestMetrics::new(&mut registry));
        let authentications = Arc::new(AuthenticationMetrics::new(&mut registry));
        let upstream = Arc::new(UpstreamMetrics::new(&mut registry));
        let self_probe = Arc::new(SelfProbeMetrics::new(&mut registry));
        let conditions = Conditions::new(&mut registry);
        let gauges = Gauges::new(&mut registry);
        Self { requests, authentications, upstream, self_probe, gauges, conditions, registry }
    }

    /// The page, with these numbers in its gauges.
    pub fn page(&self, snapshot: &Snapshot, conditions: &[Report]) -> String {
        self.gauges.set(snapshot);
        self.conditions.set(conditions);
        let mut page = String::with_capacity(8 * 1024);
        if encode(&mut page, &self.registry).is_err() {
            // Writing to a String does not fail; a page that says so is still better than none.
            let _ = writeln!(page, "# EOF");
        }
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestMetrics {
    fn new(registry: &mut Registry) -> Self {
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

impl UpstreamMetrics {
    fn new(registry: &mut Registry) -> Self {
        let calls = Family::<ByOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_upstream_calls",
            "Calls to AWS, by what came of them",
            calls.clone(),
        );
        let seconds = Histogram::new([0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2]);
        registry.register(
            "pod_identity_agent_upstream_seconds",
            "Time that calls to AWS took",
            seconds.clone(),
        );
        let cache_errors = Family::<ByTypeAndCode, PlainCounter>::default();
        registry.register(
            "pod_identity_cache_errors",
            "Errors of EKS Auth, by whether they are final",
            cache_errors.clone(),
        );
        Self { calls, seconds, cache_errors }
    }

    /// A call to AWS ended.
    pub fn called(&self, outcome: CallOutcome, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.calls.get_or_create(&ByOutcome { outcome: outcome.label() }).inc();
        // Amazon's series, with its words for the two kinds.
        let r#type = match outcome {
            CallOutcome::Done => return,
            CallOutcome::Passing(_) => "recoverable",
            CallOutcome::Final(_) => "irrecoverable",
        };
        self.cache_errors.get_or_create(&ByTypeAndCode { r#type, code: outcome.label() }).inc();
    }
}

impl Gauges {
    fn new(registry: &mut Registry) -> Self {
        Self {
            held: gauge(registry, "held_identities", "Identities with credentials in hand"),
            held_by_trust: family(
                registry,
                "held",
                "Identities with credentials in hand, by whether the agent verified them itself",
            ),
            flights: gauge(registry, "flights", "Identities for which AWS is being asked"),
            limit: gauge(
                registry,
                "upstream_limit",
                "Calls to AWS that may be under way at once, adapted to throttling",
            ),
            in_flight: gauge(registry, "upstream_in_flight", "Calls to AWS under way"),
            waiting: family(registry, "upstream_waiting", "Calls waiting for their turn"),
            own_credentials_seconds: gauge(
                registry,
                "own_credentials_seconds",
                "Life left of the agent's own credentials; -1 where unknown or none",
            ),
            token_keys: gauge(registry, "token_keys", "Keys that tokens are verified with"),
            token_keys_age_seconds: gauge(
                registry,
                "token_keys_age_seconds",
                "Time since the source of keys that was silent longest was read well; -1 where one never was or there is none",
            ),
            clock_correction_ms: gauge(
                registry,
                "clock_correction_milliseconds",
                "By how much AWS's clock is ahead of the node's",
            ),
            connections_open: gauge(
                registry,
                "connections_open",
                "Open connections to the credential endpoint",
            ),
            connections_refused: gauge(
                registry,
                "connections_refused",
                "Connections refused for a limit, since start",
            ),
            idle_closed: gauge(
                registry,
                "connections_idle_closed",
                "Idle connections closed to make room, since start",
            ),
            accept_errors: gauge(registry, "accept_errors", "Accepts that failed, since start"),
            reached: family(
                registry,
                "bound_reached",
                "How often a bound was reached since start; what happens then is in the documentation of each",
            ),
        }
    }

    fn set(&self, now: &Snapshot) {
        self.held.set(signed(now.held));
        self.flights.set(i64::try_from(now.flights).unwrap_or(i64::MAX));
        self.own_credentials_seconds.set(now.own_credentials_seconds.unwrap_or(-1));
        self.token_keys.set(i64::try_from(now.token_keys).unwrap_or(i64::MAX));
        self.token_keys_age_seconds.set(now.token_keys_age_seconds.map_or(-1, signed));
        self.clock_correction_ms.set(now.clock_correction_ms);
        self.connections_open.set(signed(now.connections_open));
        self.connections_refused.set(signed(now.connections_refused));
        self.idle_closed.set(signed(now.idle_closed));
        self.accept_errors.set(signed(now.accept_errors));
        for (trust, held) in [("verified", now.verified), ("unverified", now.unverified)] {
            self.held_by_trust.get_or_create_owned(&ByTrust { trust }).set(signed(held));
        }
        for (bound, reached) in BOUNDS.iter().zip(now.reached) {
            self.reached.get_or_create_owned(&ByBound { bound: bound.label() }).set(signed(reached));
        }
        let Some(budget) = now.budget else { return };
        self.limit.set(i64::from(budget.limit));
        self.in_flight.set(i64::from(budget.in_flight));
        for (lane, waiting) in budget.waiting {
            self.waiting
                .get_or_create_owned(&ByLane { lane })
                .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(format!("pod_identity_agent_{name}"), help, gauge.clone());
    gauge
}

fn family<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Gauge>
where
    L: EncodeLabelSet + std::fmt::Debug + Clone + std::hash::Hash + Eq + Send + Sync + 'static,
{
    let family = Family::<L, Gauge>::default();
    registry.register(format!("pod_identity_agent_{name}"), help, family.clone());
    family
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CallOutcome, Metrics, Outcome, Snapshot};

    #[test]
    fn amazons_three_series_keep_their_exact_names() {
        let metrics = Metrics::new();
        metrics.requests.answered(Outcome::Hit, Some(200), Duration::from_micros(20));
        metrics.requests.answered(Outcome::Refused, Some(403), Duration::from_micros(20));
        metrics.upstream.called(CallOutcome::Passing("throttled"), Duration::from_millis(20));
        let page = metrics.page(&Snapshot::default(), &[]);
        for line in [
            "pod_identity_http_response{code=\"200\"} 1",
            "pod_identity_http_response{code=\"403\"} 1",
            "pod_identity_cache_state{state=\"hit\"} 1",
            "pod_identity_cache_errors{type=\"recoverable\",code=\"throttled\"} 1",
            "pod_identity_agent_requests_total{outcome=\"hit\"} 1",
            "# EOF",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
