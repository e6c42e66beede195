//! A value that AWS's readers see some time after it was changed: IAM is eventually consistent.
//!
//! Owns: which version is seen when. Must not know: what the value is, nor who decides on the delay.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// Versions that wait to be seen; the oldest is seen early if there are more. A test that changes more than
/// this within the delay does not look at each of them.
const WAITING: usize = 64;

/// A value with its versions to come.
#[derive(Debug)]
pub(crate) struct Eventually<T> {
    seen: T,
    /// Oldest first, each with the time from which it is seen.
    coming: VecDeque<(SystemTime, T)>,
}

impl<T: Clone> Eventually<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { seen: value, coming: VecDeque::new() }
    }

    /// What readers see at `now`.
    pub(crate) fn at(&mut self, now: SystemTime) -> &T {
        while self.coming.len() > WAITING || self.coming.front().is_some_and(|(from, _)| *from <= now) {
            if let Some((_, value)) = self.coming.pop_front() {
                self.seen = value;
            }
        }
        &self.seen
    }

    /// The newest version, seen or not: what a change is made to.
    pub(crate) fn newest(&self) -> &T {
        self.coming.back().map_or(&self.seen, |(_, value)| value)
    }

    /// Replaces the newest version; the new one is seen after `delay`, and never before an older one.
    pub(crate) fn change(&mut self, value: T, now: SystemTime, delay: Duration) {
        let from = now.checked_add(delay).unwrap_or(now);
        // A version that would be seen later than its successor is never seen.
        self.coming.retain(|(other, _)| *other <= from);
        self.coming.push_back((from, value));
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn second(number: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(number)
    }

    #[test]
    fn a_change_is_seen_after_its_delay_and_builds_on_the_newest() {
        let mut value = Eventually::new(vec![1]);
        value.change(vec![1, 2], second(10), Duration::from_secs(5));
        assert_eq!(value.newest(), &[1, 2]);
        assert_eq!(value.at(second(14)), &[1]);
        assert_eq!(value.at(second(15)), &[1, 2]);
    }

    #[test]
    fn without_a_delay_a_change_is_seen_at_once_and_older_ones_do_not_come_back() {
        let mut value = Eventually::new(1);
        value.change(2, second(0), Duration::from_secs(9));
        value.change(3, second(1), Duration::ZERO);
        assert_eq!(value.at(second(1)), &3);
        assert_eq!(value.at(second(60)), &3);
    }
}
