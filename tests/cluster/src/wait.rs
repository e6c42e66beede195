//! Waiting for something on this machine, and not for ever.
//!
//! Owns: the clock. Must not know: what is waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Since when something runs.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "a program for people and tests: its clock is the machine's"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Looks again and again; false if it has not come true in time.
pub(crate) fn until(seconds: u64, mut is_true: impl FnMut() -> bool) -> bool {
    let watch = Stopwatch::start();
    loop {
        if is_true() {
            return true;
        }
        if watch.elapsed() > Duration::from_secs(seconds) {
            return false;
        }
        sleep(LOOK);
    }
}
