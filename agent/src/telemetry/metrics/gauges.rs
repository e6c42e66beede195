//! Numbers that others keep, read when Prometheus asks.
//!
//! Owns: which numbers, and their series. Must not know: who keeps them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::lifecycle::limits::LIMITS;

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
    /// How often each bound was reached, in the order of [`LIMITS`].
    pub reached: [u64; LIMITS.len()],
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

/// The series.
pub(super) struct Gauges {
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

impl Gauges {
    pub(super) fn new(registry: &mut Registry) -> Self {
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

    pub(super) fn set(&self, now: &Snapshot) {
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
        for (bound, reached) in LIMITS.iter().zip(now.reached) {
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
