//! How often the whole agent may write Events: a burst, then one at a time. Pure.
//!
//! Owns: that rate. Must not know: which Event is next. One fault can refuse every pod of a cluster at once,
//! and a thousand agents must not answer it with a storm of writes.

use std::time::Duration;

use crate::clock::BootTime;

/// So many at once: as client-go lets through for one object (tools/record, `defaultSpamBurst`). A kubelet
/// may write 100 (KubeletConfiguration, `eventBurst`).
const BURST: u32 = 25;
/// Then one in this time: 12 a minute. A kubelet may write 50 a second (`eventRecordQPS`).
const EACH: Duration = Duration::from_secs(5);

/// The rate of writes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all that was taken is given back; `None`: nothing was taken.
    full_at: Option<BootTime>,
}

impl Pace {
    /// How long the next write must wait.
    pub(super) fn wait(&self, now: BootTime) -> Duration {
        let taken = self.full_at.map_or(Duration::ZERO, |full| full.since(now));
        taken.saturating_sub(EACH * (BURST - 1))
    }

    /// A write begins.
    pub(super) fn take(&mut self, now: BootTime) {
        self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)).plus(EACH));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pace;
    use crate::clock::BootTime;

    #[test]
    fn twenty_five_at_once_and_then_one_every_five_seconds() {
        let mut pace = Pace::default();
        let start = BootTime::from_boot(Duration::from_secs(100));
        for n in 0..25 {
            assert_eq!(pace.wait(start), Duration::ZERO, "{n}");
            pace.take(start);
        }
        assert_eq!(pace.wait(start), Duration::from_secs(5));
        let next = start.plus(Duration::from_secs(5));
        assert_eq!(pace.wait(next), Duration::ZERO);
        pace.take(next);
        assert_eq!(pace.wait(next), Duration::from_secs(5));
        let rested = next.plus(Duration::from_secs(125));
        for n in 0..25 {
            assert_eq!(pace.wait(rested), Duration::ZERO, "{n}");
            pace.take(rested);
        }
        assert_eq!(pace.wait(rested), Duration::from_secs(5), "it saves up for no larger burst");
    }
}
