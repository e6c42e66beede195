//! The pace of background renewals: `--max-service-qps`.
//!
//! Owns: that turns come evenly spread. Must not know: who takes them.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Turns at an even pace.
pub struct RenewalRate {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl RenewalRate {
    /// So many per second.
    pub fn per_second(rate: u32) -> Self {
        Self { interval: Duration::from_secs(1) / rate.max(1), next: Mutex::new(None) }
    }

    /// Waits for the next turn.
    pub async fn turn(&self) {
        let now = Instant::now();
        let turn = {
            let mut next = self.next.lock();
            let turn = next.map_or(now, |next| next.max(now));
            *next = Some(turn + self.interval);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}
