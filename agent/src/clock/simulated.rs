//! A machine's clocks for simulations: they follow tokio's (paused) time, and can be bent on purpose.
//!
//! Owns: wrong steps of the wall clock, and pauses of the machine. Must not know: who reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{BootTime, nanos, shift};

/// The clocks of a simulated machine.
#[derive(Debug)]
pub struct Simulated {
    started: tokio::time::Instant,
    wall_at_start: SystemTime,
    wall_error_ms: AtomicI64,
    /// For how long the machine was paused in all: so much do both clocks lack.
    paused_ns: AtomicU64,
}

impl Simulated {
    /// Starts now, with the wall clock at `wall`. Must be called inside a tokio runtime.
    pub fn starting_at(wall: SystemTime) -> Arc<Self> {
        Arc::new(Self {
            started: tokio::time::Instant::now(),
            wall_at_start: wall,
            wall_error_ms: AtomicI64::new(0),
            paused_ns: AtomicU64::new(0),
        })
    }

    /// Makes the wall clock wrong by `error_ms` milliseconds, as an administrator or a bad NTP server would.
    /// After a pause, its length is what makes the wall clock right again.
    pub fn set_wall_error_ms(&self, error_ms: i64) {
        self.wall_error_ms.store(error_ms, Ordering::Relaxed);
    }

    /// The hypervisor pauses the machine: both clocks stand still while the world goes on. The caller then
    /// advances tokio's time by as much, before anything else runs; timers fire late, as on a machine that
    /// wakes.
    pub fn stand_still(&self, pause: Duration) {
        self.paused_ns.fetch_add(nanos(pause), Ordering::Relaxed);
    }

    pub(super) fn boot(&self) -> BootTime {
        let since = tokio::time::Instant::now().saturating_duration_since(self.started);
        BootTime(nanos(since).saturating_sub(self.paused_ns.load(Ordering::Relaxed)))
    }

    pub(super) fn wall(&self) -> SystemTime {
        shift(
            self.wall_at_start + Duration::from_nanos(self.boot().0),
            self.wall_error_ms.load(Ordering::Relaxed),
        )
    }
}
