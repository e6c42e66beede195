//! What one connection is doing right now: seen by its own task, and by whoever looks for a connection to close.
//!
//! Owns: the phase of a connection, since when, the deadline that goes with it, and the request to close. Must not
//! know: sockets or HTTP. Everything is atomic: a request costs no lock, and only a full house looks at others.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
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

/// What somebody asks of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseRequest {
    /// To go on.
    Nothing,
    /// To close if it is idle. A connection that has a request by then forgets it.
    CloseWhenIdle,
    /// To close whatever it is doing.
    CloseNow,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Activity {
    /// The origin of all milliseconds, the same for all connections that are compared.
    epoch: Instant,
    /// Milliseconds since `epoch`, times four, plus the phase: one word, so that nobody reads half a change.
    word: AtomicU64,
    ask: AtomicU8,
    asked: Notify,
}

impl Activity {
    /// A connection accepted just now. It counts as idle only after `fresh`: a client that connects is about to ask.
    pub fn accepted(epoch: Instant, fresh: Duration) -> Self {
        let since = millis(epoch.elapsed() + fresh);
        Self {
            epoch,
            word: AtomicU64::new(pack(Phase::Idle, since)),
            ask: AtomicU8::new(0),
            asked: Notify::new(),
        }
    }

    /// Goes over to a phase, now. Having something to do withdraws the request to close when idle.
    pub fn enter(&self, phase: Phase) {
        self.word.store(pack(phase, millis(self.epoch.elapsed())), Ordering::Release);
        if phase != Phase::Idle && self.ask() == CloseRequest::CloseWhenIdle {
            let _withdrawn = self.ask.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        unpack(self.word.load(Ordering::Acquire)).0
    }

    /// Since when it is idle, in milliseconds for comparison; `None` if it is busy or fresh.
    pub fn idle_since(&self) -> Option<u64> {
        let (phase, since) = unpack(self.word.load(Ordering::Acquire));
        (phase == Phase::Idle && since <= millis(self.epoch.elapsed())).then_some(since)
    }

    /// When its patience ends; `None` while a request is being answered, because the endpoint limits that.
    pub fn due(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let (phase, since) = unpack(self.word.load(Ordering::Acquire));
        let patience = match phase {
            Phase::Idle => limits.idle,
            Phase::Head => limits.request_head,
            Phase::Writing => limits.response_write,
            Phase::Answering => return None,
        };
        Some(self.epoch + Duration::from_millis(since) + patience)
    }

    /// Asks something of the connection and wakes its task.
    pub fn ask_to(&self, ask: CloseRequest) {
        let value = match ask {
            CloseRequest::Nothing => 0,
            CloseRequest::CloseWhenIdle => 1,
            CloseRequest::CloseNow => 2,
        };
        // "Now" is not taken back by "when idle".
        if self.ask.fetch_max(value, Ordering::AcqRel) < value {
            self.asked.notify_one();
        }
    }

    /// What is asked of it.
    pub fn ask(&self) -> CloseRequest {
        match self.ask.load(Ordering::Acquire) {
            0 => CloseRequest::Nothing,
            1 => CloseRequest::CloseWhenIdle,
            _ => CloseRequest::CloseNow,
        }
    }

    /// Returns when something is asked.
    pub fn asked(&self) -> Notified<'_> {
        self.asked.notified()
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
        activity.ask_to(CloseRequest::CloseWhenIdle);
        activity.enter(Phase::Head);
        assert_eq!(activity.ask(), CloseRequest::Nothing);
        activity.ask_to(CloseRequest::CloseNow);
        activity.ask_to(CloseRequest::CloseWhenIdle);
        activity.enter(Phase::Answering);
        assert_eq!(activity.ask(), CloseRequest::CloseNow);
    }
}
