//! What is counted of connections, for the metrics and for tests.
//!
//! Owns: the numbers. Must not know: how they are exported. Labels are field names, so their set is closed.

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened to connections since the start; `connections_open` is a level, all others only grow.
#[derive(Debug, Default)]
pub struct ConnectionStats {
    /// Connections open now.
    pub connections_open: AtomicU64,
    /// Connections accepted.
    pub connections_accepted: AtomicU64,
    /// Connections that waited because their peer had all the places it may have.
    pub connections_delayed_peer: AtomicU64,
    /// Connections that waited because all places were taken.
    pub connections_delayed_full: AtomicU64,
    /// Connections closed at once, or refused after waiting, because their peer had too many.
    pub connections_refused_peer: AtomicU64,
    /// Connections closed at once because there were too many in all.
    pub connections_refused_full: AtomicU64,
    /// Requests that waited for permission to be held.
    pub holds_delayed: AtomicU64,
    /// Requests that were answered later because their peer asks too fast.
    pub requests_paced: AtomicU64,
    /// Idle connections asked to close to make room for a new one.
    pub idle_evicted: AtomicU64,
    /// Connections closed because they were idle for too long.
    pub idle_expired: AtomicU64,
    /// Connections closed because a request head took too long.
    pub slow_heads: AtomicU64,
    /// Connections closed because the client did not read its response.
    pub stalled_writes: AtomicU64,
    /// Requests that were not HTTP/1 or too large, answered by hyper with 400, 414 or 431.
    pub bad_requests: AtomicU64,
    /// Errors of accept, except those of a client that left early.
    pub accept_errors: AtomicU64,
}

/// [`ConnectionStats`] at one moment; the fields mean the same.
#[expect(missing_docs, reason = "the fields are those of ConnectionStats, documented there")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStatsSnapshot {
    pub connections_open: u64,
    pub connections_accepted: u64,
    pub connections_delayed_peer: u64,
    pub connections_delayed_full: u64,
    pub connections_refused_peer: u64,
    pub connections_refused_full: u64,
    pub holds_delayed: u64,
    pub requests_paced: u64,
    pub idle_evicted: u64,
    pub idle_expired: u64,
    pub slow_heads: u64,
    pub stalled_writes: u64,
    pub bad_requests: u64,
    pub accept_errors: u64,
}

impl ConnectionStats {
    /// All numbers now, each read by itself.
    pub fn snapshot(&self) -> ConnectionStatsSnapshot {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ConnectionStatsSnapshot {
            connections_open: read(&self.connections_open),
            connections_accepted: read(&self.connections_accepted),
            connections_delayed_peer: read(&self.connections_delayed_peer),
            connections_delayed_full: read(&self.connections_delayed_full),
            connections_refused_peer: read(&self.connections_refused_peer),
            connections_refused_full: read(&self.connections_refused_full),
            holds_delayed: read(&self.holds_delayed),
            requests_paced: read(&self.requests_paced),
            idle_evicted: read(&self.idle_evicted),
            idle_expired: read(&self.idle_expired),
            slow_heads: read(&self.slow_heads),
            stalled_writes: read(&self.stalled_writes),
            bad_requests: read(&self.bad_requests),
            accept_errors: read(&self.accept_errors),
        }
    }
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
