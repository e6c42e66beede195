//! Every bound of the process by name, and how often it was reached.
//!
//! Owns: the list of bounds, their counts, and that a bound which bites shows in readiness. Must not know: how large a
//! bound is or what happens at it. No bound makes us unready: unscheduling the agent would take from everybody what
//! one peer took too much of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::condition_name::ConditionName;
use super::readiness::{Condition, Readiness};

/// How often the counts are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A bound is shown for this long after it was last reached; it is also how often one is logged at most.
const SHOWN_FOR: Duration = Duration::from_secs(60);

/// Something that is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Sets of verified identities: a newcomer is served and not kept.
    VerifiedIdentities,
    /// Sets of unverified identities: the least recently used made room.
    UnverifiedIdentities,
    /// Unverified identities of one peer: its own least recently used made room.
    IdentitiesPerPeer,
    /// Unverified flights of one peer: its next request waited.
    UpstreamCallsPerPeer,
    /// Held requests of one peer: its next was answered 503.
    HeldRequestsPerPeer,
    /// Connections of one peer.
    ConnectionsPerPeer,
    /// Connections of all.
    Connections,
}

/// All bounds; their number bounds every array here.
pub const LIMITS: [Limit; 7] = [
    Limit::VerifiedIdentities,
    Limit::UnverifiedIdentities,
    Limit::IdentitiesPerPeer,
    Limit::UpstreamCallsPerPeer,
    Limit::HeldRequestsPerPeer,
    Limit::ConnectionsPerPeer,
    Limit::Connections,
];

impl Limit {
    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::VerifiedIdentities => "verified_identities",
            Self::UnverifiedIdentities => "unverified_identities",
            Self::IdentitiesPerPeer => "identities_per_peer",
            Self::UpstreamCallsPerPeer => "upstream_calls_per_peer",
            Self::HeldRequestsPerPeer => "held_requests_per_peer",
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
            Self::ConnectionsPerPeer => ConditionName::LimitConnectionsPerPeer,
            Self::Connections => ConditionName::LimitConnections,
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::VerifiedIdentities => "new pods are served and not kept: raise --max-cache-size",
            Self::UnverifiedIdentities => {
                "the least recently used identity makes room: raise --max-cache-size"
            }
            Self::IdentitiesPerPeer => "one peer uses more tokens than it may have kept",
            Self::UpstreamCallsPerPeer => {
                "one peer asks for more tokens at once than it may; its requests wait"
            }
            Self::HeldRequestsPerPeer => "one peer waits for more answers than it may; it gets 503",
            Self::ConnectionsPerPeer => "one peer opens more connections than it may; they are closed",
            Self::Connections => "there are too many connections; new ones are closed",
        }
    }
}

/// How often each bound was reached since the start. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    reached: Arc<[AtomicU64; LIMITS.len()]>,
}

impl Limits {
    /// A bound was reached.
    pub fn reached(&self, limit: Limit) {
        if let Some(count) = self.reached.get(limit as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it was, since the start.
    pub fn count(&self, limit: Limit) -> u64 {
        self.reached.get(limit as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Shows in readiness which bounds bite, for ever; cancel by dropping. `count` says how often one was reached so far.
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
            self.condition.unmet(format!("{} ({count} times since start)", self.limit.advice()));
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

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_reached_shows_within_seconds_for_a_minute_and_never_makes_us_unready() {
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
