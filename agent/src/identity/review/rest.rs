//! For how long the judge is left alone after it gave no answer. Pure.
//!
//! Owns: these times. Must not know: why it gave none.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::BootTime;

/// After failures in a row.
const AFTER_FAILURES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// Where the agent may not ask: somebody may give it the right, and need not restart it then.
const WITHOUT_RIGHT: Duration = Duration::from_secs(5 * 60);

/// Whether the judge answers, and until when it is left alone.
#[derive(Debug, Default)]
pub(super) struct Rest {
    failures: u32,
    is_forbidden: bool,
    until: Option<BootTime>,
}

impl Rest {
    /// It has answered.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// It gave no answer.
    pub(super) fn failed(&mut self, now: BootTime) {
        self.failures = self.failures.saturating_add(1);
        self.is_forbidden = false;
        self.until = Some(now.plus(AFTER_FAILURES.pause(self.failures)));
    }

    /// The agent may not ask. Returns whether it knew.
    pub(super) fn forbidden(&mut self, now: BootTime) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now.plus(WITHOUT_RIGHT));
        std::mem::replace(&mut self.is_forbidden, true)
    }

    /// Until when it is left alone; `None`: it is asked.
    pub(super) fn until(&self, now: BootTime) -> Option<BootTime> {
        self.until.filter(|until| now < *until)
    }

    /// Whether the agent may not ask, by its last answer.
    pub(super) fn is_forbidden(&self) -> bool {
        self.is_forbidden
    }

    /// Whether the next question finds out if it answers again. Until then there is one at a time.
    pub(super) fn is_trial(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Rest;
    use crate::clock::BootTime;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn failures_make_longer_pauses_a_missing_right_five_minutes_and_an_answer_none() {
        let mut rest = Rest::default();
        assert_eq!((rest.until(at(9)), rest.is_trial()), (None, false));
        let pauses = [1, 2, 4, 8, 16, 30, 30].map(|pause| {
            rest.failed(at(10));
            assert!(rest.is_trial() && !rest.is_forbidden());
            (rest.until(at(10)), Some(at(10 + pause)))
        });
        pauses.iter().for_each(|(found, expected)| assert_eq!(found, expected));
        assert_eq!(rest.until(at(40)), None);
        assert_eq!([rest.forbidden(at(100)), rest.forbidden(at(400))], [false, true], "said once");
        assert_eq!((rest.until(at(400)), rest.is_forbidden()), (Some(at(700)), true));
        rest.answered();
        assert_eq!((rest.until(at(400)), rest.is_forbidden(), rest.is_trial()), (None, false, false));
        assert!(!rest.forbidden(at(800)), "lost again, and said again");
    }
}
