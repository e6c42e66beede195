//! For how long the judge is left alone after it gave no answer. Pure.
//!
//! Owns: these times. Must not know: why it gave none.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::BootTime;
use crate::rng::Rng;

/// After failures in a row. Jittered, because the agents of all nodes see the API server fail at once.
const AFTER_FAILURES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// Where the agent may not ask: at installation the right comes some seconds after the agent; later somebody
/// may give it, and need not restart the agent then. Jittered as well.
const WITHOUT_RIGHT: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(5 * 60));

/// Whether the judge answers, and until when it is left alone.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// In a row, and of one kind.
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
    pub(super) fn failed(&mut self, now: BootTime, rng: &Rng) {
        // Up to 25 calls fail at once where it hangs: that is one failure.
        if self.until(now).is_none() {
            self.count(false, now, rng);
        }
    }

    /// The agent may not ask. Returns whether it knew.
    pub(super) fn forbidden(&mut self, now: BootTime, rng: &Rng) -> bool {
        let knew = self.is_forbidden;
        // A failure a moment ago says less than this.
        if self.until(now).is_none() || !knew {
            self.count(true, now, rng);
        }
        knew
    }

    fn count(&mut self, is_forbidden: bool, now: BootTime, rng: &Rng) {
        let before = if is_forbidden == self.is_forbidden { self.failures } else { 0 };
        self.is_forbidden = is_forbidden;
        self.failures = before.saturating_add(1);
        let backoff = if is_forbidden { WITHOUT_RIGHT } else { AFTER_FAILURES };
        self.until = Some(now.plus(backoff.jittered(self.failures, rng)));
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
    use crate::rng::Rng;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    /// Seven pauses in milliseconds, each noted by `note` once the one before is over.
    fn pauses(rest: &mut Rest, mut note: impl FnMut(&mut Rest, BootTime)) -> [u128; 7] {
        let mut now = at(10);
        [(); 7].map(|()| {
            note(rest, now);
            let until = rest.until(now).unwrap();
            let began = std::mem::replace(&mut now, until);
            assert!(rest.is_trial() && rest.until(now).is_none());
            now.since(began).as_millis()
        })
    }

    fn assert_jittered(pauses: [u128; 7], longest: [u128; 7]) {
        for (pause, longest) in pauses.iter().zip(longest) {
            assert!((longest * 500..=longest * 1_000).contains(pause), "{pauses:?}: {longest} s");
        }
        let are_jittered = pauses.iter().zip(longest).all(|(pause, longest)| *pause < longest * 1_000);
        assert!(are_jittered, "{pauses:?}");
    }

    #[test]
    fn failures_make_longer_pauses_and_an_answer_none() {
        let (mut rest, rng) = (Rest::default(), Rng::seeded(7));
        assert_eq!((rest.until(at(9)), rest.is_trial()), (None, false));
        let pauses = pauses(&mut rest, |rest, now| rest.failed(now, &rng));
        assert_jittered(pauses, [1, 2, 4, 8, 16, 30, 30]);
        rest.answered();
        assert_eq!((rest.until(at(10)), rest.is_trial()), (None, false));
    }

    #[test]
    fn without_the_right_pauses_grow_from_five_seconds_to_five_minutes_and_it_is_said_once() {
        let (mut rest, rng) = (Rest::default(), Rng::seeded(7));
        rest.failed(at(1), &rng);
        assert!(!rest.forbidden(at(1), &rng) && rest.is_forbidden(), "it says more than a failure");
        rest.answered();
        let mut said = 0;
        let pauses = pauses(&mut rest, |rest, now| said += u32::from(!rest.forbidden(now, &rng)));
        assert_jittered(pauses, [5, 10, 20, 40, 80, 160, 300]);
        assert_eq!((said, rest.is_forbidden()), (1, true));
        rest.answered();
        assert!(!rest.is_forbidden() && !rest.forbidden(at(2_000), &rng), "lost again, and said again");
    }

    #[test]
    fn many_that_fail_at_once_are_one_failure() {
        let rng = Rng::seeded(7);
        let after = |failures: u32, forbidden: u32| {
            let mut rest = Rest::default();
            (0..forbidden).for_each(|_| {
                let _knew = rest.forbidden(at(10), &rng);
            });
            (0..failures).for_each(|_| rest.failed(at(10), &rng));
            (rest.until(at(10)).unwrap().since(at(10)), rest.is_forbidden())
        };
        assert!(after(25, 0).0 <= Duration::from_secs(1));
        let (pause, is_forbidden) = after(25, 25);
        assert!(is_forbidden && pause <= Duration::from_secs(5), "{pause:?}");
        assert!(pause >= Duration::from_millis(2_500), "{pause:?}");
    }
}
