//! The one clock of the agent: wall time and boot time together.
//!
//! Owns: reading both clocks, and the correction of the wall clock by what AWS says the time is. Must not
//! know: what anybody does with the time. Timers (`tokio::time`) are not clocks: they say when to look again,
//! never whether something is still valid.
//!
//! Two clocks because either can lie: an administrator or NTP may set the wall clock back (expired
//! credentials would look alive), and boot time knows nothing of what AWS thinks the date is. Credentials
//! live only while both agree (invariant 2).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Time since the machine booted, suspend included (`CLOCK_BOOTTIME`), in nanoseconds; it never goes back.
///
/// Half the size of a `Duration`, because some are kept per identity; good for 584 years of uptime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(u64);

impl BootTime {
    /// A point `since_boot` after boot.
    pub fn from_boot(since_boot: Duration) -> Self {
        Self(nanos(since_boot))
    }

    /// This point moved forward; saturates instead of overflowing.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// Nanoseconds since boot, for an atomic.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long it is from `earlier` to this point, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, corrected by [`Clock::correct_by`].
    pub wall: SystemTime,
    /// The boot clock.
    pub boot: BootTime,
}

/// Wall and boot clock, with a correction that every clone shares.
#[derive(Clone)]
pub struct Clock {
    source: Source,
    /// Milliseconds to add to the wall clock to get AWS's time.
    correction_ms: Arc<AtomicI64>,
}

#[derive(Clone)]
enum Source {
    System,
    Simulated(Arc<Simulated>),
}

/// A clock for simulations: it follows tokio's (paused) time, and its wall clock can be set wrong on purpose.
#[derive(Debug)]
pub struct Simulated {
    started: tokio::time::Instant,
    wall_at_start: SystemTime,
    wall_error_ms: AtomicI64,
}

impl Simulated {
    /// Starts now, with the wall clock at `wall`. Must be called inside a tokio runtime.
    pub fn starting_at(wall: SystemTime) -> Arc<Self> {
        Arc::new(Self {
            started: tokio::time::Instant::now(),
            wall_at_start: wall,
            wall_error_ms: AtomicI64::new(0),
        })
    }

    /// Makes the wall clock wrong by `error_ms` milliseconds, as an administrator or a bad NTP server would.
    pub fn set_wall_error_ms(&self, error_ms: i64) {
        self.wall_error_ms.store(error_ms, Ordering::Relaxed);
    }

    fn boot(&self) -> BootTime {
        BootTime::from_boot(tokio::time::Instant::now().saturating_duration_since(self.started))
    }

    fn wall(&self) -> SystemTime {
        shift(
            self.wall_at_start + Duration::from_nanos(self.boot().0),
            self.wall_error_ms.load(Ordering::Relaxed),
        )
    }
}

impl Clock {
    /// The machine's own clocks.
    pub fn system() -> Self {
        Self { source: Source::System, correction_ms: Arc::default() }
    }

    /// A simulated clock.
    pub fn simulated(simulated: Arc<Simulated>) -> Self {
        Self { source: Source::Simulated(simulated), correction_ms: Arc::default() }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        Now {
            wall: shift(self.uncorrected_wall(), self.correction_ms.load(Ordering::Relaxed)),
            boot: self.boot(),
        }
    }

    /// The wall clock as the node has it, without correction: what AWS's time is compared with.
    pub fn uncorrected_wall(&self) -> SystemTime {
        match &self.source {
            #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
            Source::System => SystemTime::now(),
            Source::Simulated(simulated) => simulated.wall(),
        }
    }

    /// Sets the correction of the wall clock, in milliseconds to add.
    pub fn correct_by(&self, correction_ms: i64) {
        self.correction_ms.store(correction_ms, Ordering::Relaxed);
    }

    /// The correction in force, in milliseconds.
    pub fn correction_ms(&self) -> i64 {
        self.correction_ms.load(Ordering::Relaxed)
    }

    fn boot(&self) -> BootTime {
        match &self.source {
            Source::System => BootTime::from_boot(since_boot()),
            Source::Simulated(simulated) => simulated.boot(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("correction_ms", &self.correction_ms()).finish_non_exhaustive()
    }
}

fn since_boot() -> Duration {
    // CLOCK_BOOTTIME exists since Linux 2.6.39 and cannot fail there. Were it to fail, time would stand still
    // at zero for this clock alone, and the wall clock would still end the life of every credential.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

fn shift(time: SystemTime, by_ms: i64) -> SystemTime {
    let by = Duration::from_millis(by_ms.unsigned_abs());
    let shifted = if by_ms >= 0 { time.checked_add(by) } else { time.checked_sub(by) };
    shifted.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{BootTime, Clock, Simulated};

    #[test]
    fn boot_time_saturates_instead_of_overflowing() {
        let start = BootTime::from_boot(Duration::from_secs(5));
        assert_eq!(start.plus(Duration::MAX).since(start), Duration::from_nanos(u64::MAX - 5_000_000_000));
        assert_eq!(start.since(start.plus(Duration::from_secs(1))), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_correction_moves_the_wall_clock_of_every_clone_and_never_the_boot_clock() {
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1000)));
        let clone = clock.clone();
        let before = clone.now();
        clock.correct_by(-2_500);
        assert_eq!(clone.now().wall, UNIX_EPOCH + Duration::from_millis(997_500));
        assert_eq!(clone.now().boot, before.boot);
        assert_eq!(clone.uncorrected_wall(), before.wall);
    }

    #[test]
    fn the_systems_boot_clock_goes_forward() {
        let clock = Clock::system();
        let before = clock.now().boot;
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now().boot.since(before) >= Duration::from_millis(2));
    }
}
