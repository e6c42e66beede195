//! What AWS says the time is, and how far that can be trusted. Pure.
//!
//! Owns: the rules of docs/design/decisions.md#time. Must not know: where an answer came from, but for the
//! rank of who gave it.
//!
//! AWS's time is a pair: what an answer said, and the boot clock when it came. From there the boot clock
//! counts on, so that a wrong step of the wall clock changes nothing. The boot clock stands still while a
//! hypervisor pauses the machine, and then the *right* step of the wall clock looks wrong. The two cases
//! look the same from inside, so after either the pair is not confirmed until AWS answers again.

use std::time::{Duration, SystemTime};

use super::{BootTime, Trust, shift};

/// Closer than this is the same time: `Date` has whole seconds, and an answer may take a few to come. SigV4
/// allows five minutes, and 15 s are the least life of a set.
const SAME_MS: u64 = 5_000;
/// Moving the time by more than this takes two answers that agree: one wrong `Date` must not make everything
/// that is held look expired at once.
const FAR_MS: u64 = 60_000;
/// When wall less boot clock has moved by more than this, one of the two was bent: reading them both takes
/// microseconds, and NTP slews them alike.
const BENT_MS: u64 = 2_000;
/// Quartz drifts by seconds a day. After this long without an answer the pair wants to be confirmed.
const CONFIRMED_FOR: Duration = Duration::from_secs(6 * 3600);

/// Who says what the time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teacher {
    /// EKS Auth or STS.
    Service,
    /// The instance metadata service. It counts while no service has spoken.
    Metadata,
}

/// One reading of the machine's own clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) wall: SystemTime,
    pub(super) boot: BootTime,
}

/// What is known of AWS's time.
#[derive(Debug, Default)]
pub(super) struct Learned {
    pair: Option<Pair>,
    /// An answer that would move the time far. The next one decides.
    contradiction: Option<Pair>,
    /// Something happened since the pair was last confirmed that makes it doubtful for good.
    is_doubted: bool,
    /// The difference that was reported last.
    reported_ms: i64,
    moves: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    aws: SystemTime,
    at: Reading,
    teacher: Teacher,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that anybody needs to know of.
    Nothing,
    /// The node's clock is off by another number of milliseconds than before.
    Differs(i64),
    /// It would move the time far, so another answer is wanted.
    Contradicts,
}

impl Learned {
    /// AWS's time at this reading, and how far it can be trusted. While it is not confirmed, the latest that
    /// it may be: that is the stricter reading for whatever ends.
    pub(super) fn read(&self, now: Reading) -> (SystemTime, Trust) {
        let Some(pair) = self.pair else { return (now.wall, Trust::Unknown) };
        let counted = pair.counted_on(now.boot);
        let moved_ms = pair.bent_ms(now);
        let is_stale = now.boot.since(pair.at.boot) > CONFIRMED_FOR;
        if !self.is_doubted && !is_stale && moved_ms.unsigned_abs() <= BENT_MS {
            return (counted, Trust::Confirmed);
        }
        if moved_ms.unsigned_abs() <= BENT_MS {
            return (counted, Trust::Unconfirmed);
        }
        let latest = counted.max(now.wall);
        if ms_between(counted, now.wall).unsigned_abs() <= SAME_MS {
            // Two clocks that nobody sets by one another agree: the step set the wall clock right.
            return (latest, Trust::Unconfirmed);
        }
        // A pause of that length, if it was one, and the wall clock was off before it and still is.
        (latest.max(shift(counted, moved_ms)), Trust::Unconfirmed)
    }

    /// The best single guess, for signatures.
    pub(super) fn best_guess(&self, now: Reading) -> SystemTime {
        self.pair.map_or(now.wall, |pair| pair.counted_on(now.boot))
    }

    /// Milliseconds by which AWS is ahead of the node's clock; zero while they are close.
    pub(super) fn offset_ms(&self, now: Reading) -> i64 {
        let offset = ms_between(self.best_guess(now), now.wall);
        if offset.unsigned_abs() <= SAME_MS { 0 } else { offset }
    }

    /// Whether the clocks were bent since the pair was confirmed, and nobody noticed yet.
    pub(super) fn is_newly_bent(&self, now: Reading) -> bool {
        !self.is_doubted && self.pair.is_some_and(|pair| pair.bent_ms(now).unsigned_abs() > BENT_MS)
    }

    /// The pair is doubtful from now on, also if the wall clock is stepped back.
    pub(super) fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// Whether the next answer matters.
    pub(super) fn wants_answer(&self, now: Reading) -> bool {
        match self.read(now).1 {
            Trust::Unknown => self.contradiction.is_some(),
            Trust::Unconfirmed => true,
            Trust::Confirmed => false,
        }
    }

    /// How often the time was moved.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// An answer came at `now` with this `Date`.
    pub(super) fn learn(&mut self, teacher: Teacher, date: SystemTime, now: Reading) -> Change {
        let has_service_spoken = [self.pair, self.contradiction]
            .into_iter()
            .flatten()
            .any(|pair| pair.teacher == Teacher::Service);
        if teacher == Teacher::Metadata && has_service_spoken {
            return Change::Nothing;
        }
        // Half a second: the middle of the second that `Date` names.
        let said = shift(date, 500);
        let expected = self.best_guess(now);
        let off = ms_between(said, expected).unsigned_abs();
        let agrees = |pair: Pair| ms_between(said, pair.counted_on(now.boot)).unsigned_abs() <= SAME_MS;
        if off > FAR_MS && !self.contradiction.is_some_and(agrees) {
            self.contradiction = Some(Pair { aws: said, at: now, teacher });
            self.is_doubted = true;
            return Change::Contradicts;
        }
        if off > SAME_MS {
            self.moves += 1;
        }
        let aws = if off > SAME_MS { said } else { expected };
        self.pair = Some(Pair { aws, at: now, teacher });
        self.contradiction = None;
        self.is_doubted = false;
        let offset = self.offset_ms(now);
        if ms_apart(offset, self.reported_ms) <= SAME_MS {
            return Change::Nothing;
        }
        self.reported_ms = offset;
        Change::Differs(offset)
    }
}

impl Pair {
    /// AWS's time when the boot clock shows `boot`.
    fn counted_on(self, boot: BootTime) -> SystemTime {
        let ahead = boot.since(self.at.boot);
        // An answer may be noted between two readings: then the earlier one comes before it.
        let behind = self.at.boot.since(boot);
        let counted = self.aws.checked_add(ahead).unwrap_or(self.aws);
        counted.checked_sub(behind).unwrap_or(counted)
    }

    /// Milliseconds by which the wall clock has gained on the boot clock since.
    fn bent_ms(self, now: Reading) -> i64 {
        let by_boot = Self { aws: self.at.wall, ..self }.counted_on(now.boot);
        ms_between(now.wall, by_boot)
    }
}

/// `later` less `earlier`, in milliseconds.
fn ms_between(later: SystemTime, earlier: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match later.duration_since(earlier) {
        Ok(ahead) => ms(ahead),
        Err(behind) => -ms(behind.duration()),
    }
}

const fn ms_apart(one: i64, other: i64) -> u64 {
    one.abs_diff(other)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{Change, Learned, Reading, Teacher};
    use crate::clock::{BootTime, Trust};

    const START: u64 = 1_000_000;
    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(START.saturating_add_signed(seconds))
    }

    /// The boot clock shows `boot`, and the wall clock is `wall_error` seconds off by it.
    fn reading(boot: i64, wall_error: i64) -> Reading {
        let since = Duration::from_secs(boot.unsigned_abs());
        Reading { wall: at(boot + wall_error), boot: BootTime::from_boot(since) }
    }

    fn learned(wall_error: i64) -> Learned {
        let mut learned = Learned::default();
        for boot in [0, 1] {
            learned.learn(Teacher::Service, at(boot), reading(boot, wall_error));
        }
        learned
    }

    /// In seconds after the start, and how far it is trusted.
    fn read(learned: &Learned, now: Reading) -> (i64, Trust) {
        let (time, trust) = learned.read(now);
        (super::ms_between(time, at(0)).div_euclid(1000), trust)
    }

    #[test]
    fn the_wall_clock_judges_until_aws_has_said_what_time_it_is() {
        let mut learned = Learned::default();
        assert_eq!(read(&learned, reading(0, -90)), (-90, Trust::Unknown));
        assert_eq!(learned.learn(Teacher::Service, at(0), reading(0, -90)), Change::Contradicts);
        assert_eq!(read(&learned, reading(1, -90)), (-89, Trust::Unknown), "one answer is not believed");
        assert!(learned.wants_answer(reading(1, -90)));
        assert_eq!(learned.learn(Teacher::Service, at(1), reading(1, -90)), Change::Differs(90_500));
        assert_eq!(read(&learned, reading(10, -90)), (10, Trust::Confirmed));
        let mut close = Learned::default();
        assert_eq!(close.learn(Teacher::Service, at(0), reading(0, 30)), Change::Differs(-29_500));
        assert_eq!(
            read(&close, reading(10, 30)),
            (10, Trust::Confirmed),
            "one answer is enough for so little"
        );
    }

    #[test]
    fn a_step_of_the_wall_clock_never_moves_the_time_back_and_is_doubted() {
        for (what, before, after, latest) in [
            ("an hour fast, set right by NTP", HOUR, 0, 100),
            ("right, set an hour back", 0, -HOUR, 100),
            ("right, set an hour forward", 0, HOUR, 100 + HOUR),
            ("an hour slow, set right by NTP", -HOUR, 0, 100),
            ("an hour slow, and a pause of ten minutes", -HOUR, -HOUR + 600, 100 + 600),
        ] {
            let learned = learned(before);
            assert_eq!(read(&learned, reading(100, before)), (100, Trust::Confirmed), "{what}");
            assert_eq!(read(&learned, reading(100, after)), (latest, Trust::Unconfirmed), "{what}");
            assert!(learned.is_newly_bent(reading(100, after)), "{what}");
        }
    }

    #[test]
    fn one_answer_confirms_what_was_right_and_two_move_what_was_paused() {
        let mut right = learned(0);
        right.learn(Teacher::Service, at(100), reading(100, HOUR));
        assert_eq!(read(&right, reading(101, HOUR)), (101, Trust::Confirmed));
        let mut paused = learned(0);
        // The boot clock stood still for an hour, and NTP has set the wall clock right.
        let said = at(100 + HOUR);
        assert_eq!(paused.learn(Teacher::Service, said, reading(100, HOUR)), Change::Contradicts);
        assert_eq!(read(&paused, reading(100, HOUR)), (100 + HOUR, Trust::Unconfirmed));
        assert_eq!(
            paused.learn(Teacher::Service, said, reading(100, HOUR)),
            Change::Nothing,
            "the node is right"
        );
        assert_eq!(read(&paused, reading(101, HOUR)), (101 + HOUR, Trust::Confirmed));
    }

    #[test]
    fn one_answer_with_a_wrong_date_moves_nothing_and_the_next_decides() {
        let mut learned = learned(0);
        assert_eq!(learned.learn(Teacher::Service, at(25 * HOUR), reading(2, 0)), Change::Contradicts);
        assert_eq!(read(&learned, reading(2, 0)), (2, Trust::Unconfirmed));
        learned.learn(Teacher::Service, at(-HOUR), reading(3, 0));
        assert_eq!(read(&learned, reading(3, 0)), (3, Trust::Unconfirmed), "nor two that disagree");
        learned.learn(Teacher::Service, at(4), reading(4, 0));
        assert_eq!(read(&learned, reading(4, 0)), (4, Trust::Confirmed));
    }

    #[test]
    fn a_doubt_outlives_the_step_back_and_ends_with_an_answer() {
        let mut learned = learned(0);
        learned.doubt();
        assert_eq!(read(&learned, reading(100, 0)), (100, Trust::Unconfirmed));
        learned.learn(Teacher::Service, at(101), reading(101, 0));
        assert_eq!(read(&learned, reading(102, 0)), (102, Trust::Confirmed));
    }

    #[test]
    fn six_hours_without_an_answer_want_one() {
        let learned = learned(-HOUR);
        assert_eq!(read(&learned, reading(6 * HOUR, -HOUR)), (6 * HOUR, Trust::Confirmed));
        let later = reading(6 * HOUR + 2, -HOUR);
        assert_eq!(
            read(&learned, later),
            (6 * HOUR + 2, Trust::Unconfirmed),
            "and the wall clock is no judge"
        );
        assert!(learned.wants_answer(later));
    }

    #[test]
    fn the_metadata_service_counts_until_a_service_has_spoken() {
        let mut learned = Learned::default();
        learned.learn(Teacher::Metadata, at(0), reading(0, 0));
        assert_eq!(read(&learned, reading(1, 0)), (1, Trust::Confirmed));
        learned.learn(Teacher::Service, at(30), reading(2, 0));
        for _ in 0..3 {
            learned.learn(Teacher::Metadata, at(HOUR), reading(3, 0));
        }
        assert_eq!(read(&learned, reading(12, 0)), (40, Trust::Confirmed));
    }

    #[test]
    fn what_is_close_is_the_same_and_a_difference_is_reported_once() {
        let mut learned = Learned::default();
        assert_eq!(learned.learn(Teacher::Service, at(4), reading(0, 0)), Change::Nothing);
        assert_eq!(read(&learned, reading(0, 0)), (0, Trust::Confirmed));
        assert_eq!(learned.learn(Teacher::Service, at(31), reading(1, 0)), Change::Differs(30_500));
        assert_eq!(learned.learn(Teacher::Service, at(33), reading(2, 0)), Change::Nothing);
        assert_eq!(learned.offset_ms(reading(2, 0)), 30_500);
        assert_eq!(learned.learn(Teacher::Service, at(33), reading(3, 30)), Change::Differs(0));
    }
}
