//! A machine's clocks for simulations: they follow tokio's (paused) time, and can be bent on purpose.
//!
//! Owns: wrong steps of the wall clock, pauses of the machine, and a quartz that is fast or slow. Must not
//! know: who reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::{BootTime, nanos, shift};

/// The clocks of a simulated machine.
#[derive(Debug)]
pub struct Simulated {
    started: tokio::time::Instant,
    wall_at_start: SystemTime,
    wall_error_ms: AtomicI64,
    counted: Mutex<Counted>,
}

/// What the machine had counted when its quartz or its pauses changed last.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Since the start, by true time.
    at: Duration,
    /// By the quartz.
    boot: Duration,
    /// By a quartz that is right. It counts for the wall clock if NTP steers that.
    steady: Duration,
    quartz: Quartz,
}

/// How the machine's quartz runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quartz {
    /// Millionths by which it is fast; negative: slow.
    pub fast_ppm: i32,
    /// NTP has the wall clock run as it should; the boot clock is nobody's to steer.
    pub is_wall_steered: bool,
}

impl Simulated {
    /// Starts now, with the wall clock at `wall`. Must be called inside a tokio runtime.
    pub fn starting_at(wall: SystemTime) -> Arc<Self> {
        Arc::new(Self {
            started: tokio::time::Instant::now(),
            wall_at_start: wall,
            wall_error_ms: AtomicI64::new(0),
            counted: Mutex::default(),
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
        let now = self.counted();
        *self.counted.lock() = Counted { at: now.at + pause, ..now };
    }

    /// From now on the quartz runs like this.
    pub fn run_with(&self, quartz: Quartz) {
        let now = self.counted();
        *self.counted.lock() = Counted { quartz, ..now };
    }

    /// The boot clock.
    pub fn boot(&self) -> BootTime {
        BootTime(nanos(self.counted().boot))
    }

    /// The wall clock.
    pub fn wall(&self) -> SystemTime {
        let now = self.counted();
        let counted = if now.quartz.is_wall_steered { now.steady } else { now.boot };
        shift(self.wall_at_start + counted, self.wall_error_ms.load(Ordering::Relaxed))
    }

    fn counted(&self) -> Counted {
        let last = *self.counted.lock();
        let at = tokio::time::Instant::now().saturating_duration_since(self.started);
        let steady = at.saturating_sub(last.at);
        let off = steady.mul_f64(f64::from(last.quartz.fast_ppm.unsigned_abs()) / 1e6);
        let boot = if last.quartz.fast_ppm < 0 { steady.saturating_sub(off) } else { steady + off };
        Counted { at: at.max(last.at), boot: last.boot + boot, steady: last.steady + steady, ..last }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Quartz, Simulated};

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_fast_quartz_gains_and_ntp_steers_the_wall_clock_alone() {
        for is_wall_steered in [true, false] {
            let clocks = Simulated::starting_at(UNIX_EPOCH);
            clocks.run_with(Quartz { fast_ppm: 100, is_wall_steered });
            tokio::time::advance(10 * HOUR).await;
            let gained = Duration::from_millis(3_600);
            assert_eq!(Duration::from_nanos(clocks.boot().as_nanos()), 10 * HOUR + gained);
            let wall = 10 * HOUR + if is_wall_steered { Duration::ZERO } else { gained };
            assert_eq!(clocks.wall(), UNIX_EPOCH + wall);
            // A pause stops both, and nothing is gained in it.
            clocks.stand_still(HOUR);
            tokio::time::advance(HOUR).await;
            assert_eq!(clocks.wall(), UNIX_EPOCH + wall);
        }
    }
}
