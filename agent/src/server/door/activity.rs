//! What one connection is doing now. Its own task reads it, and so does the search for a connection to close.
//!
//! Owns: the phase of a connection, since when, the deadline that goes with it, and the request to close.
//! Must not know: sockets or HTTP. Everything is atomic: a request takes no lock, and connections are
//! compared only when a limit is reached.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::limits::ConnectionLimits;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No byte of a next request has arrived.
    Idle,
    /// The first byte of a request has arrived, the head is not complete.
    Head,
    /// A request is being answered.
    Answering,
    /// A response is being written; "since" is the last progress.
    Writing,
}

/// Whether a connection is to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseRequest {
    /// It goes on.
    NotRequested,
    /// Close if it is idle. A connection that has received a request by then goes on.
    WhenIdle,
    /// Close whatever it is doing.
    Now,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Activity {
    /// The origin of all milliseconds, the same for all connections that are compared.
    epoch: Instant,
    /// Milliseconds since `epoch`, times four, plus the phase: one word, so that no reader sees half a
    /// change.
    word: AtomicU64,
    /// Whether it has had a request, and so a place for connections.
    placed: AtomicBool,
    close_request: AtomicU8,
    close_requested: Notify,
}

impl Activity {
    /// A connection accepted just now. It counts as idle only after `fresh`: a client that connects is about
    /// to send a request.
    pub fn accepted(epoch: Instant, fresh: Duration) -> Self {
        let since = millis(epoch.elapsed() + fresh);
        Self {
            epoch,
            word: AtomicU64::new(pack(Phase::Idle, since)),
            placed: AtomicBool::new(false),
            close_request: AtomicU8::new(0),
            close_requested: Notify::new(),
        }
    }

    /// Enters a phase now. Any phase but idle withdraws the request to close when idle.
    pub fn enter(&self, phase: Phase) {
        self.word.store(pack(phase, millis(self.epoch.elapsed())), Ordering::Release);
        if phase != Phase::Idle && self.close_request() == CloseRequest::WhenIdle {
            let _withdrawn = self.close_request.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        unpack(self.word.load(Ordering::Acquire)).0
    }

    /// It has a place for connections now.
    pub fn set_placed(&self) {
        self.placed.store(true, Ordering::Release);
    }

    /// Whether it has a place for connections.
    pub fn is_placed(&self) -> bool {
        self.placed.load(Ordering::Acquire)
    }

    /// Since when it is in its phase, in milliseconds for comparison; for a fresh one, when it will be idle.
    pub fn since(&self) -> u64 {
        unpack(self.word.load(Ordering::Acquire)).1
    }

    /// Since when it is idle, in milliseconds for comparison; `None` if it is busy or fresh.
    pub fn idle_since(&self) -> Option<u64> {
        let (phase, since) = unpack(self.word.load(Ordering::Acquire));
        (phase == Phase::Idle && since <= millis(self.epoch.elapsed())).then_some(since)
    }

    /// When its time is over; `None` while a request is being answered, because the endpoint limits that.
    pub fn due(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let (phase, since) = unpack(self.word.load(Ordering::Acquire));
        let limit = match phase {
            Phase::Idle => limits.idle,
            Phase::Head => limits.request_head,
            Phase::Writing => limits.response_write,
            Phase::Answering => return None,
        };
        Some(self.epoch + Duration::from_millis(since) + limit)
    }

    /// Asks the connection to close, and wakes its task.
    pub fn request_close(&self, request: CloseRequest) {
        let value = match request {
            CloseRequest::NotRequested => 0,
            CloseRequest::WhenIdle => 1,
            CloseRequest::Now => 2,
        };
        // "When idle" does not take back "now".
        if self.close_request.fetch_max(value, Ordering::AcqRel) < value {
            self.close_requested.notify_one();
        }
    }

    /// Whether it is to close.
    pub fn close_request(&self) -> CloseRequest {
        match self.close_request.load(Ordering::Acquire) {
            0 => CloseRequest::NotRequested,
            1 => CloseRequest::WhenIdle,
            _ => CloseRequest::Now,
        }
    }

    /// Returns when it is asked to close.
    pub fn close_requested(&self) -> Notified<'_> {
        self.close_requested.notified()
    }
}

fn pack(phase: Phase, since_ms: u64) -> u64 {
    let phase = match phase {
        Phase::Idle => 0,
        Phase::Head => 1,
        Phase::Answering => 2,
        Phase::Writing => 3,
    };
    (since_ms << 2) | phase
}

fn unpack(word: u64) -> (Phase, u64) {
    let phase = match word & 3 {
        0 => Phase::Idle,
        1 => Phase::Head,
        2 => Phase::Answering,
        _ => Phase::Writing,
    };
    (phase, word >> 2)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Activity, CloseRequest, Phase};
    use crate::server::door::limits::ConnectionLimits;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_fresh_connection_is_not_idle_and_becomes_so() {
        let activity = Activity::accepted(Instant::now(), SECOND);
        assert_eq!(activity.idle_since(), None);
        advance(SECOND).await;
        assert_eq!(activity.idle_since(), Some(1000));
        activity.enter(Phase::Answering);
        assert_eq!(activity.idle_since(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_deadline_and_answering_none() {
        let limits = ConnectionLimits::default();
        let activity = Activity::accepted(Instant::now(), Duration::ZERO);
        let left = |activity: &Activity| activity.due(&limits).map(|due| due - Instant::now());
        for (phase, patience) in [
            (Phase::Idle, Some(limits.idle)),
            (Phase::Head, Some(limits.request_head)),
            (Phase::Writing, Some(limits.response_write)),
            (Phase::Answering, None),
        ] {
            activity.enter(phase);
            assert_eq!(left(&activity), patience, "{phase:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_withdraws_close_when_idle_but_not_close_now() {
        let activity = Activity::accepted(Instant::now(), Duration::ZERO);
        activity.request_close(CloseRequest::WhenIdle);
        activity.enter(Phase::Head);
        assert_eq!(activity.close_request(), CloseRequest::NotRequested);
        activity.request_close(CloseRequest::Now);
        activity.request_close(CloseRequest::WhenIdle);
        activity.enter(Phase::Answering);
        assert_eq!(activity.close_request(), CloseRequest::Now);
    }
}
