//! The machine's own clocks.
//!
//! Owns: reading both at the same moment, and a boot clock that nobody slews. Must not know: what the time is
//! good for.
//!
//! `CLOCK_BOOTTIME` will not do: NTP slews it like the wall clock, by up to 8.3 % with chrony, so that a wall
//! clock that is slewed back by an hour would stop both. `CLOCK_MONOTONIC_RAW` is not slewed, and stands
//! still in suspend; the time of that is the difference of the two clocks that are slewed alike.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::learned::Reading;
use super::{BootTime, nanos};

/// Two readings that are further apart than this were interrupted, and are taken again.
const INTERRUPTED: Duration = Duration::from_millis(100);

/// The clocks of this machine.
#[derive(Debug, Default)]
pub(super) struct System {
    /// For how long it has been suspended in all. What is measured is at most that, and less by what passes
    /// between two readings; the most that was ever measured is right, and never goes back.
    suspended_ns: AtomicU64,
}

impl System {
    /// Both clocks at the same moment: one read before and one after an interruption would look bent.
    pub(super) fn read(&self) -> Reading {
        let mut before = self.boot();
        for _ in 0..3 {
            let wall = system_wall();
            let after = self.boot();
            if after.since(before) < INTERRUPTED {
                return Reading { wall, boot: before };
            }
            before = after;
        }
        Reading { wall: system_wall(), boot: before }
    }

    fn boot(&self) -> BootTime {
        let with_suspend = read_clock(ClockId::CLOCK_BOOTTIME);
        let without = read_clock(ClockId::CLOCK_MONOTONIC);
        let measured = nanos(with_suspend.saturating_sub(without));
        let suspended = self.suspended_ns.fetch_max(measured, Ordering::Relaxed).max(measured);
        BootTime::from_boot(read_clock(ClockId::CLOCK_MONOTONIC_RAW)).plus(Duration::from_nanos(suspended))
    }
}

fn system_wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    SystemTime::now()
}

fn read_clock(clock: ClockId) -> Duration {
    // All three exist since Linux 2.6.39 and cannot fail there. Were they to fail, time would stand still for
    // the boot clock alone, and the wall clock would still end the life of every credential.
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::time::ClockId;

    use super::{System, read_clock};

    #[test]
    fn the_boot_clock_goes_forward() {
        let system = System::default();
        let before = system.boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(system.boot().since(before) >= Duration::from_millis(2));
    }

    #[test]
    fn it_ticks_as_the_quartz_does_with_suspend_and_without_slewing() {
        let system = System::default();
        let before = read_clock(ClockId::CLOCK_MONOTONIC_RAW);
        let boot = Duration::from_nanos(system.boot().as_nanos());
        let after = read_clock(ClockId::CLOCK_MONOTONIC_RAW);
        let with_suspend = read_clock(ClockId::CLOCK_BOOTTIME);
        let suspended = with_suspend.saturating_sub(read_clock(ClockId::CLOCK_MONOTONIC));
        let slack = Duration::from_millis(5);
        assert!(before + suspended <= boot + slack && boot <= after + suspended + slack);
    }

    #[test]
    fn time_in_suspend_that_was_seen_once_is_never_taken_back() {
        let system = System::default();
        let hour = Duration::from_secs(3600);
        let before = system.boot();
        system.suspended_ns.fetch_add(u64::try_from(hour.as_nanos()).unwrap(), super::Ordering::Relaxed);
        let later = system.boot().since(before);
        assert!(later >= hour && later < hour + Duration::from_secs(60), "{later:?}");
    }
}
