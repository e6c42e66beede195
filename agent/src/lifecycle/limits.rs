//! Every limit of the process by name, and how often it was reached.
//!
//! Owns: the list of limits, their counts, and the condition that shows that a limit was reached. Must not
//! know: how large a limit is, or what happens when it is reached. No limit makes the agent unready: that
//! would take credentials from every pod of the node because of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::condition_name::ConditionName;
use super::readiness::{Condition, Readiness};

/// How often the counts are read.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A condition stays unmet for this long after its limit was last reached. So each limit is logged at most
/// once in this time.
const SHOWN_FOR: Duration = Duration::from_secs(60);

/// A limit of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Verified identities in the cache. At the limit, credentials of another identity are served but not
    /// cached.
    VerifiedIdentities,
    /// Unverified identities in the cache. At the limit, the least recently used one is dropped.
    UnverifiedIdentities,
    /// Unverified identities of one peer in the cache. At the limit, its own least recently used one is
    /// dropped.
    IdentitiesPerPeer,
    /// Upstream calls under way for unverified tokens of one peer. At the limit, its next request waits.
    UpstreamCallsPerPeer,
    /// Held requests of one peer. At the limit, its next request waits for permission to be held.
    HeldRequestsPerPeer,
    /// Requests per second of one peer. Above it, they are answered later.
    RequestRatePerPeer,
    /// Connections of one peer. At the limit, its idle and silent ones close, its next request waits for a
    /// place, and a connection for which there is no room to wait either is closed.
    ConnectionsPerPeer,
    /// Connections of all peers. At the limit, idle ones close and the next request waits for a place.
    Connections,
}

/// All limits.
pub const LIMITS: [Limit; 8] = [
    Limit::VerifiedIdentities,
    Limit::UnverifiedIdentities,
    Limit::IdentitiesPerPeer,
    Limit::UpstreamCallsPerPeer,
    Limit::HeldRequestsPerPeer,
    Limit::RequestRatePerPeer,
    Limit::ConnectionsPerPeer,
    Limit::Connections,
];

impl Limit {
    /// The value of the label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::VerifiedIdentities => "verified_identities",
            Self::UnverifiedIdentities => "unverified_identities",
            Self::IdentitiesPerPeer => "identities_per_peer",
            Self::UpstreamCallsPerPeer => "upstream_calls_per_peer",
            Self::HeldRequestsPerPeer => "held_requests_per_peer",
            Self::RequestRatePerPeer => "request_rate_per_peer",
            Self::ConnectionsPerPeer => "connections_per_peer",
            Self::Connections => "connections",
        }
    }

    const fn condition(self) -> ConditionName {
        match self {
            Self::VerifiedIdentities => ConditionName::LimitVerifiedIdentities,
            Self::UnverifiedIdentities => ConditionName::LimitUnverifiedIdentities,
            Self::IdentitiesPerPeer => ConditionName::LimitIdentitiesPerPeer,
            Self::UpstreamCallsPerPeer => ConditionName::LimitUpstreamCallsPerPeer,
            Self::HeldRequestsPerPeer => ConditionName::LimitHeldRequestsPerPeer,
            Self::RequestRatePerPeer => ConditionName::LimitRequestRatePerPeer,
            Self::ConnectionsPerPeer => ConditionName::LimitConnectionsPerPeer,
            Self::Connections => ConditionName::LimitConnections,
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::VerifiedIdentities => {
                "the cache is full, so new pods are served without it; raise --max-cache-size"
            }
            Self::UnverifiedIdentities => {
                "the cache is full, so the least recently used identity was dropped; raise --max-cache-size"
            }
            Self::IdentitiesPerPeer => {
                "one peer uses more unverified tokens than the cache keeps for one peer"
            }
            Self::UpstreamCallsPerPeer => {
                "one peer reached its limit of AWS calls at once for unverified tokens; its requests wait"
            }
            Self::HeldRequestsPerPeer => {
                "one peer has too many requests waiting for an answer; further ones get 503 after 4.5 s"
            }
            Self::RequestRatePerPeer => {
                "one peer asks faster than --pod-request-rate; what exceeds it is answered later"
            }
            Self::ConnectionsPerPeer => {
                "one peer has too many connections; idle and silent ones are closed, requests wait"
            }
            Self::Connections => {
                "too many connections on this node; idle and silent ones are closed, requests wait"
            }
        }
    }
}

/// How often each limit was reached since the start. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    reached: Arc<[AtomicU64; LIMITS.len()]>,
}

impl Limits {
    /// A limit was reached.
    pub fn reached(&self, limit: Limit) {
        if let Some(count) = self.reached.get(limit as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often this limit was reached since the start.
    pub fn count(&self, limit: Limit) -> u64 {
        self.reached.get(limit as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Shows in readiness which limits are being reached. Runs until it is dropped. `count` returns how often a
/// limit was reached so far.
pub async fn watch(readiness: Readiness, count: impl Fn(Limit) -> u64 + Send) {
    let mut watched = LIMITS.map(|limit| WatchedLimit::new(limit, &readiness));
    loop {
        for watched in &mut watched {
            watched.update(count(watched.limit));
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

struct WatchedLimit {
    limit: Limit,
    condition: Condition,
    last_count: u64,
    last_reached: Option<Instant>,
}

impl WatchedLimit {
    fn new(limit: Limit, readiness: &Readiness) -> Self {
        let condition = readiness.advisory(limit.condition());
        condition.met();
        Self { limit, condition, last_count: 0, last_reached: None }
    }

    fn update(&mut self, count: u64) {
        if count > self.last_count {
            self.last_count = count;
            self.last_reached = Some(Instant::now());
            self.condition.unmet(format!("{} ({count} times since the start)", self.limit.advice()));
        } else if self.last_reached.is_some_and(|last| last.elapsed() >= SHOWN_FOR) {
            self.last_reached = None;
            self.condition.met();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LIMITS, Limit, Limits, watch};
    use crate::lifecycle::condition_name::ConditionName;
    use crate::lifecycle::readiness::Readiness;

    #[test]
    fn each_limit_has_a_count_of_its_own() {
        let limits = Limits::default();
        for (times, limit) in LIMITS.into_iter().enumerate() {
            (0..times).for_each(|_| limits.reached(limit));
        }
        for (times, limit) in (0..).zip(LIMITS) {
            assert_eq!(limits.count(limit), times, "{limit:?}");
        }
    }

    #[test]
    fn the_condition_of_a_limit_has_the_words_of_its_label() {
        for limit in LIMITS {
            let words = limit.label().replace('_', "-");
            assert_eq!(limit.condition().as_str(), format!("limit-{words}"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_reached_shows_for_a_minute_and_never_makes_the_agent_unready() {
        let (limits, readiness) = (Limits::default(), Readiness::new());
        readiness.condition(ConditionName::ListenerIpv4).met();
        let counts = limits.clone();
        let watching = watch(readiness.clone(), move |limit| counts.count(limit));
        let check = async {
            let shown = || readiness.report().iter().filter(|report| !report.met).count();
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(shown(), 0);
            limits.reached(Limit::VerifiedIdentities);
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(shown(), 1);
            assert!(readiness.is_ready());
            tokio::time::sleep(Duration::from_secs(64)).await;
            assert_eq!(shown(), 0);
        };
        tokio::select! {
            () = watching => {}
            () = check => {}
        }
    }
}
