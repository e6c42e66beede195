//! Every bound of the process by name, and how often it was reached.
//!
//! Owns: the list of bounds, their counts, and that a bound which bites shows in readiness. Must not know: how large a
//! bound is or what happens at it. No bound makes us unready: unscheduling the agent would take from everybody what
//! one peer took too much of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::readiness::{Condition, Readiness};

/// How often the counts are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
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
    IdentitiesOfPeer,
    /// Unverified flights of one peer: its next request waited.
    FlightsOfPeer,
    /// Held requests of one peer: its next was answered 503.
    HeldOfPeer,
    /// Connections of one peer.
    ConnectionsOfPeer,
    /// Connections of all.
    Connections,
}

/// All bounds; their number bounds every array here.
pub const LIMITS: [Limit; 7] = [
    Limit::VerifiedIdentities,
    Limit::UnverifiedIdentities,
    Limit::IdentitiesOfPeer,
    Limit::FlightsOfPeer,
    Limit::HeldOfPeer,
    Limit::ConnectionsOfPeer,
    Limit::Connections,
];

impl Limit {
    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::VerifiedIdentities => "verified_identities",
            Self::UnverifiedIdentities => "unverified_identities",
            Self::IdentitiesOfPeer => "identities_of_peer",
            Self::FlightsOfPeer => "flights_of_peer",
            Self::HeldOfPeer => "held_of_peer",
            Self::ConnectionsOfPeer => "connections_of_peer",
            Self::Connections => "connections",
        }
    }

    const fn condition(self) -> &'static str {
        match self {
            Self::VerifiedIdentities => "room-for-verified-identities",
            Self::UnverifiedIdentities => "room-for-unverified-identities",
            Self::IdentitiesOfPeer => "room-for-identities-of-each-peer",
            Self::FlightsOfPeer => "room-for-flights-of-each-peer",
            Self::HeldOfPeer => "room-for-held-requests-of-each-peer",
            Self::ConnectionsOfPeer => "room-for-connections-of-each-peer",
            Self::Connections => "room-for-connections",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::VerifiedIdentities => "new pods are served and not kept: raise --max-cache-size",
            Self::UnverifiedIdentities => {
                "the least recently used identity makes room: raise --max-cache-size"
            }
            Self::IdentitiesOfPeer => "one peer uses more tokens than it may have kept",
            Self::FlightsOfPeer => "one peer asks for more tokens at once than it may; its requests wait",
            Self::HeldOfPeer => "one peer waits for more answers than it may; it gets 503",
            Self::ConnectionsOfPeer => "one peer opens more connections than it may; they are closed",
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
    pub fn reached(&self, bound: Limit) {
        if let Some(count) = self.reached.get(bound as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it was, since the start.
    pub fn count(&self, bound: Limit) -> u64 {
        self.reached.get(bound as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Shows in readiness which bounds bite, for ever; cancel by dropping. `count` says how often one was reached so far.
pub async fn keep_watching(readiness: Readiness, count: impl Fn(Limit) -> u64 + Send) {
    let mut watched = LIMITS.map(|bound| Watched::new(bound, &readiness));
    loop {
        for watched in &mut watched {
            watched.look(count(watched.bound));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Watched {
    bound: Limit,
    condition: Condition,
    seen: u64,
    last_reached: Option<Instant>,
}

impl Watched {
    fn new(bound: Limit, readiness: &Readiness) -> Self {
        let condition = readiness.advisory(bound.condition());
        condition.met();
        Self { bound, condition, seen: 0, last_reached: None }
    }

    fn look(&mut self, count: u64) {
        if count > self.seen {
            self.seen = count;
            self.last_reached = Some(Instant::now());
            self.condition.unmet(format!("{} ({count} times since start)", self.bound.advice()));
        } else if self.last_reached.is_some_and(|last| last.elapsed() >= SHOWN_FOR) {
            self.last_reached = None;
            self.condition.met();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LIMITS, Limit, Limits, keep_watching};
    use crate::lifecycle::readiness::Readiness;

    #[test]
    fn each_bound_has_a_count_of_its_own() {
        let bounds = Limits::default();
        for (times, bound) in LIMITS.into_iter().enumerate() {
            (0..times).for_each(|_| bounds.reached(bound));
        }
        for (times, bound) in (0..).zip(LIMITS) {
            assert_eq!(bounds.count(bound), times, "{bound:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_that_bites_shows_within_seconds_for_a_minute_and_never_makes_us_unready() {
        let (bounds, readiness) = (Limits::default(), Readiness::new());
        readiness.condition("listener").met();
        let counts = bounds.clone();
        let watching = keep_watching(readiness.clone(), move |bound| counts.count(bound));
        let look = async {
            let bites = || readiness.report().iter().filter(|report| !report.met).count();
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(bites(), 0);
            bounds.reached(Limit::VerifiedIdentities);
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(bites(), 1);
            assert!(readiness.is_ready());
            tokio::time::sleep(Duration::from_secs(64)).await;
            assert_eq!(bites(), 0);
        };
        tokio::select! {
            () = watching => {}
            () = look => {}
        }
    }
}
