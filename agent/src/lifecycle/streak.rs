//! Whether only failures come: the mark of a mistake in the configuration.
//!
//! Owns: when failures say something. Must not know: what succeeds or fails.
//!
//! One failure is the affair of the one that met it. Nothing but failures is the affair of an admin: one is
//! enough where nothing ever succeeded, and ten minutes of them where something did.

use std::time::Duration;

use crate::clock::BootTime;

/// After a success, failures alone say something after this time.
pub const LONG: Duration = Duration::from_secs(10 * 60);
/// How often time alone is looked at while there are failures.
pub const CHECK: Duration = Duration::from_secs(30);

/// What matters of all successes and failures since the start.
#[derive(Clone, Debug)]
pub struct Streak<T> {
    has_succeeded: bool,
    /// Those since the last success.
    failures: Option<Failures<T>>,
}

/// Failures with no success between them, and no more than [`LONG`] from one to the next.
#[derive(Clone, Debug)]
struct Failures<T> {
    first: BootTime,
    last: BootTime,
    last_one: T,
}

/// Failures that say something.
#[derive(Debug, PartialEq, Eq)]
pub struct OnlyFailures<'a, T> {
    /// Since when nothing succeeds: `since the start` or `for ten minutes`.
    pub since: &'static str,
    /// The last one.
    pub last_one: &'a T,
}

impl<T> Default for Streak<T> {
    fn default() -> Self {
        Self { has_succeeded: false, failures: None }
    }
}

impl<T> Streak<T> {
    /// Something has succeeded. Returns whether that changes anything.
    pub fn succeeded(&mut self) -> bool {
        let is_change = !self.has_succeeded || self.failures.is_some();
        *self = Self { has_succeeded: true, failures: None };
        is_change
    }

    /// Something has failed.
    pub fn failed(&mut self, what: T, now: BootTime) {
        let before = self.failures.take().filter(|before| now.since(before.last) < LONG);
        let first = before.map_or(now, |before| before.first);
        self.failures = Some(Failures { first, last: now, last_one: what });
    }

    /// Whether anything has ever succeeded.
    pub const fn has_succeeded(&self) -> bool {
        self.has_succeeded
    }

    /// Whether something has succeeded, and nothing failed since.
    pub const fn has_only_succeeded(&self) -> bool {
        self.has_succeeded && self.failures.is_none()
    }

    /// Whether there are failures since the last success, so that time may make them say something, or
    /// nothing any more.
    pub const fn has_failures(&self) -> bool {
        self.failures.is_some()
    }

    /// What the failures say: there was one and never a success, or nothing but failures in the last
    /// [`LONG`].
    pub fn says(&self, now: BootTime) -> Option<OnlyFailures<'_, T>> {
        let Failures { first, last, last_one } = self.failures.as_ref()?;
        let since = if !self.has_succeeded {
            "since the start"
        } else if now.since(*first) >= LONG && now.since(*last) < LONG {
            "for ten minutes"
        } else {
            return None;
        };
        Some(OnlyFailures { since, last_one })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::Streak;
    use crate::clock::{Clock, Simulated};

    /// What happens, one letter each: `+` a success, `-` a failure, `.` a minute passes. What it says then.
    async fn play(story: &str) -> Option<&'static str> {
        let time = Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let clock = Clock::simulated(time);
        let mut streak = Streak::default();
        for (index, event) in story.char_indices() {
            match event {
                '+' => drop(streak.succeeded()),
                '-' => streak.failed(index, clock.now().boot),
                _ => tokio::time::sleep(Duration::from_secs(60)).await,
            }
        }
        let said = streak.says(clock.now().boot)?;
        assert_eq!(Some(*said.last_one), story.rfind('-'), "{story}");
        Some(said.since)
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_says_something_where_nothing_succeeded_and_ten_minutes_of_them_where_something_did()
    {
        for (what, story, expected) in [
            ("nothing happened", "", None),
            ("one failure", "-", Some("since the start")),
            ("long ago", "-....................", Some("since the start")),
            ("a success after it", "-+", None),
            ("one among others", "+-", None),
            ("its retries", "+-...-...-...", None),
            ("for ten minutes", "+-...-...-....", Some("for ten minutes")),
            ("a success among them", "+-...-.+..-....-", None),
            ("one now and one then", "+-..........-", None),
            ("an end of them", "+-...-...-..............", None),
        ] {
            assert_eq!(play(story).await, expected, "{what}: {story}");
        }
    }

    #[test]
    fn a_success_changes_something_after_a_failure_and_once_at_the_start() {
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH));
        let mut streak = Streak::default();
        assert!(streak.succeeded() && !streak.succeeded() && streak.has_succeeded());
        streak.failed((), clock.now().boot);
        assert!(streak.has_failures() && streak.succeeded() && !streak.has_failures());
    }
}
