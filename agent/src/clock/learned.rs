//! What AWS says the time is, and how far that can be trusted. Pure.
//!
//! Owns: the rules of docs/design/decisions.md#time. Must not know: where an answer came from, but for the
//! rank of who gave it.
//!
//! AWS's time is a pair: what an answer said, and the boot clock when it came. From there the boot clock
//! counts on, so that neither a wrong step of the wall clock nor its slewing changes anything. The boot clock
//! stands still while a hypervisor pauses the machine, and then the *right* step of the wall clock looks
//! wrong. The two cases look the same from inside, so after either the pair is not confirmed until AWS
//! answers again.

use std::time::{Duration, SystemTime};

use super::{BootTime, Trust, shift};

/// Closer than this is nothing to report: `Date` has whole seconds, and an answer may take a few to come.
/// SigV4 allows five minutes, and 15 s are the least life of a set.
const SAME_MS: u64 = 5_000;
/// The second that a `Date` names.
const SECOND_MS: i64 = 1_000;
/// Moving the time by more than this takes two answers that agree: one wrong `Date` must not make everything
/// that is held look expired at once.
const FAR_MS: u64 = 60_000;
/// When wall less boot clock has moved by more than this since AWS confirmed the pair, one of the two was
/// bent. Reading them both takes microseconds, and NTP slews the wall clock alone. Its ordinary correction of
/// a quartz (20 ppm) comes to half a second in [`CONFIRMED_FOR`]; the most that the kernel corrects for good
/// (500 ppm) is doubted once in 67 minutes, and the next answer confirms it.
const BENT_MS: u64 = 2_000;
/// Quartz drifts by seconds a day. After this long without an answer the pair wants to be confirmed.
const CONFIRMED_FOR: Duration = Duration::from_secs(6 * 3600);
/// When AWS has denied what the cluster's issuer said of the time, the issuer's clock is ahead. It is not
/// listened to for so long.
const ISSUER_DENIED_FOR: Duration = Duration::from_secs(3600);

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

/// What an answer says of the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) teacher: Teacher,
    /// Its `Date`.
    pub(super) date: SystemTime,
    /// The clocks when the call was made.
    pub(super) asked: Reading,
    /// Tells answers apart: a replayed one does not count twice. `None`: the teacher does not number them.
    pub(super) id: Option<u64>,
}

/// What is known of AWS's time.
#[derive(Debug, Default)]
pub(super) struct Learned {
    pair: Option<Pair>,
    /// An answer that would move the time far. The next one decides.
    contradiction: Option<Pair>,
    /// Something happened since the pair was last confirmed that makes it doubtful for good.
    is_doubted: bool,
    /// The cluster's issuer says that it is later than the pair does: it is at least so late.
    at_least: Option<Count>,
    issuer_denied_at: Option<BootTime>,
    /// The id of the last answer.
    last_answer: Option<u64>,
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

/// A time that the boot clock counts on.
#[derive(Clone, Copy, Debug)]
struct Count {
    from: SystemTime,
    at: BootTime,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that anybody needs to know of.
    Nothing,
    /// The node's clock is off by another number of milliseconds than before.
    Differs(i64),
    /// It would move the time far, or the clocks were bent while it was on its way: another one is wanted.
    Contradicts,
}

impl Learned {
    /// AWS's time at this reading, and how far it can be trusted. While it is not confirmed, the latest that
    /// it may be: that is the stricter reading for whatever ends.
    pub(super) fn read(&self, now: Reading) -> (SystemTime, Trust) {
        let Some(pair) = self.pair else { return (now.wall, Trust::Unknown) };
        let is_stale = now.boot.since(pair.at.boot) > CONFIRMED_FOR;
        if !self.is_doubted && !is_stale && !pair.is_bent(now) {
            return (pair.counted_on(now.boot), Trust::Confirmed);
        }
        let latest = pair.latest(now);
        (self.at_least.map_or(latest, |count| latest.max(count.on(now.boot))), Trust::Unconfirmed)
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
        !self.is_doubted && self.pair.is_some_and(|pair| pair.is_bent(now))
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

    /// Whether an answer would have moved the time far, and the next one decides.
    pub(super) fn has_contradiction(&self) -> bool {
        self.contradiction.is_some()
    }

    /// How often the time was moved.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// The cluster's issuer, by a token that a key has proven, says that it was this late already. Whether
    /// that is a new reason to doubt the pair. It never moves the time: only AWS does.
    pub(super) fn heed_issuer(&mut self, issued: SystemTime, now: Reading) -> bool {
        let (time, trust) = self.read(now);
        let is_believable = self.issuer_denied_at.is_none_or(|at| now.boot.since(at) >= ISSUER_DENIED_FOR);
        let is_later = issued > time && ms_between(issued, time).unsigned_abs() > FAR_MS;
        if trust == Trust::Unknown || !is_believable || !is_later {
            return false;
        }
        self.at_least = Some(Count { from: issued, at: now.boot });
        self.is_doubted = true;
        true
    }

    /// An answer came at `now`.
    pub(super) fn learn(&mut self, answer: Answer, now: Reading) -> Change {
        if self.says_nothing(answer) {
            return Change::Nothing;
        }
        self.last_answer = answer.id.or(self.last_answer);
        // Half a second: the middle of the second that `Date` names.
        let said = Pair { aws: shift(answer.date, 500), at: now, teacher: answer.teacher };
        let expected = self.best_guess(now);
        let off = ms_between(said.aws, expected).unsigned_abs();
        let is_second = self.contradiction.is_some_and(|first| first.agrees_with(said));
        // What was said before a clock was bent says nothing of which one it was, and must not hide it.
        let is_overtaken = now.bent_since(answer.asked).unsigned_abs() > BENT_MS;
        if is_overtaken || (off > FAR_MS && !is_second) {
            self.is_doubted = true;
            self.contradiction = (off > FAR_MS).then_some(said);
            return Change::Contradicts;
        }
        if off > SAME_MS {
            self.moves += 1;
            self.confirm(said);
        } else {
            self.confirm(Pair { aws: answer.nearest_to(expected, now), ..said });
        }
        let offset = self.offset_ms(now);
        if ms_apart(offset, self.reported_ms) <= SAME_MS {
            return Change::Nothing;
        }
        self.reported_ms = offset;
        Change::Differs(offset)
    }

    /// Whether an answer says nothing: a lesser teacher's, or the last one once more.
    fn says_nothing(&self, answer: Answer) -> bool {
        let has_service_spoken = [self.pair, self.contradiction]
            .into_iter()
            .flatten()
            .any(|pair| pair.teacher == Teacher::Service);
        let is_replayed = answer.id.is_some() && answer.id == self.last_answer;
        is_replayed || (answer.teacher == Teacher::Metadata && has_service_spoken)
    }

    fn confirm(&mut self, pair: Pair) {
        let issuer_ahead_ms = self.at_least.map_or(0, |count| ms_between(count.on(pair.at.boot), pair.aws));
        if issuer_ahead_ms > 0 && issuer_ahead_ms.unsigned_abs() > FAR_MS {
            self.issuer_denied_at = Some(pair.at.boot);
        }
        self.pair = Some(pair);
        self.contradiction = None;
        self.at_least = None;
        self.is_doubted = false;
    }
}

impl Answer {
    /// What is nearest to an expected time of all that it allows: it was given within the second that its
    /// `Date` names, before it was read and after it was asked for. So a quartz that drifts and a clock that
    /// was a little off at first are off by a second and the journey at most when an answer has come, and not
    /// by all that is too little to be reported.
    fn nearest_to(self, expected: SystemTime, now: Reading) -> SystemTime {
        let journey = i64::try_from(now.boot.since(self.asked.boot).as_millis()).unwrap_or(i64::MAX);
        expected.clamp(self.date, shift(self.date, SECOND_MS.saturating_add(journey)))
    }
}

impl Reading {
    /// Milliseconds by which the wall clock has gained on the boot clock since an earlier reading.
    fn bent_since(self, earlier: Self) -> i64 {
        ms_between(self.wall, Count { from: earlier.wall, at: earlier.boot }.on(self.boot))
    }
}

impl Count {
    /// The time when the boot clock shows `boot`.
    fn on(self, boot: BootTime) -> SystemTime {
        let ahead = boot.since(self.at);
        // An answer may be noted between two readings: then the earlier one comes before it.
        let behind = self.at.since(boot);
        let counted = self.from.checked_add(ahead).unwrap_or(self.from);
        counted.checked_sub(behind).unwrap_or(counted)
    }
}

impl Pair {
    /// AWS's time when the boot clock shows `boot`.
    fn counted_on(self, boot: BootTime) -> SystemTime {
        Count { from: self.aws, at: self.at.boot }.on(boot)
    }

    fn is_bent(self, now: Reading) -> bool {
        now.bent_since(self.at).unsigned_abs() > BENT_MS
    }

    fn agrees_with(self, other: Self) -> bool {
        ms_between(other.aws, self.counted_on(other.at.boot)).unsigned_abs() <= SAME_MS
    }

    /// The latest that it may be, by what the clocks have done since.
    fn latest(self, now: Reading) -> SystemTime {
        let counted = self.counted_on(now.boot);
        if !self.is_bent(now) {
            return counted;
        }
        let latest = counted.max(now.wall);
        if ms_between(counted, now.wall).unsigned_abs() <= SAME_MS {
            // Two clocks that nobody sets by one another agree: the step set the wall clock right.
            return latest;
        }
        // A pause of that length, if it was one, and the wall clock was off before it and still is.
        latest.max(shift(counted, now.bent_since(self.at)))
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

    use super::{Answer, Change, Learned, Reading, Teacher};
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
            learn(&mut learned, Teacher::Service, at(boot), reading(boot, wall_error));
        }
        learned
    }

    /// An answer that came at once.
    fn learn(learned: &mut Learned, teacher: Teacher, date: SystemTime, now: Reading) -> Change {
        learned.learn(Answer { teacher, date, asked: now, id: None }, now)
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
        assert_eq!(learn(&mut learned, Teacher::Service, at(0), reading(0, -90)), Change::Contradicts);
        assert_eq!(read(&learned, reading(1, -90)), (-89, Trust::Unknown), "one answer is not believed");
        assert!(learned.wants_answer(reading(1, -90)));
        assert_eq!(learn(&mut learned, Teacher::Service, at(1), reading(1, -90)), Change::Differs(90_500));
        assert_eq!(read(&learned, reading(10, -90)), (10, Trust::Confirmed));
        let mut close = Learned::default();
        assert_eq!(learn(&mut close, Teacher::Service, at(0), reading(0, 30)), Change::Differs(-29_500));
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
        learn(&mut right, Teacher::Service, at(100), reading(100, HOUR));
        assert_eq!(read(&right, reading(101, HOUR)), (101, Trust::Confirmed));
        let mut paused = learned(0);
        // The boot clock stood still for an hour, and NTP has set the wall clock right.
        let said = at(100 + HOUR);
        assert_eq!(learn(&mut paused, Teacher::Service, said, reading(100, HOUR)), Change::Contradicts);
        assert_eq!(read(&paused, reading(100, HOUR)), (100 + HOUR, Trust::Unconfirmed));
        assert_eq!(
            learn(&mut paused, Teacher::Service, said, reading(100, HOUR)),
            Change::Nothing,
            "the node is right"
        );
        assert_eq!(read(&paused, reading(101, HOUR)), (101 + HOUR, Trust::Confirmed));
    }

    #[test]
    fn one_answer_with_a_wrong_date_moves_nothing_and_the_next_decides() {
        let mut learned = learned(0);
        assert_eq!(learn(&mut learned, Teacher::Service, at(25 * HOUR), reading(2, 0)), Change::Contradicts);
        assert_eq!(read(&learned, reading(2, 0)), (2, Trust::Unconfirmed));
        learn(&mut learned, Teacher::Service, at(-HOUR), reading(3, 0));
        assert_eq!(read(&learned, reading(3, 0)), (3, Trust::Unconfirmed), "nor two that disagree");
        learn(&mut learned, Teacher::Service, at(4), reading(4, 0));
        assert_eq!(read(&learned, reading(4, 0)), (4, Trust::Confirmed));
    }

    #[test]
    fn a_doubt_outlives_the_step_back_and_ends_with_an_answer() {
        let mut learned = learned(0);
        learned.doubt();
        assert_eq!(read(&learned, reading(100, 0)), (100, Trust::Unconfirmed));
        learn(&mut learned, Teacher::Service, at(101), reading(101, 0));
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
        learn(&mut learned, Teacher::Metadata, at(0), reading(0, 0));
        assert_eq!(read(&learned, reading(1, 0)), (1, Trust::Confirmed));
        learn(&mut learned, Teacher::Service, at(30), reading(2, 0));
        for _ in 0..3 {
            learn(&mut learned, Teacher::Metadata, at(HOUR), reading(3, 0));
        }
        assert_eq!(read(&learned, reading(12, 0)), (40, Trust::Confirmed));
    }

    #[test]
    fn what_is_close_is_not_reported_and_a_difference_is_reported_once() {
        let mut learned = Learned::default();
        assert_eq!(learn(&mut learned, Teacher::Service, at(4), reading(0, 0)), Change::Nothing);
        assert_eq!(read(&learned, reading(0, 0)), (4, Trust::Confirmed), "nor is it wrong by so much");
        assert_eq!(learn(&mut learned, Teacher::Service, at(31), reading(1, 0)), Change::Differs(30_500));
        assert_eq!(learn(&mut learned, Teacher::Service, at(33), reading(2, 0)), Change::Nothing);
        assert_eq!(learned.offset_ms(reading(2, 0)), 31_000);
        assert_eq!(learn(&mut learned, Teacher::Service, at(33), reading(3, 30)), Change::Differs(0));
    }

    #[test]
    fn an_answer_tells_the_time_to_a_second_and_its_journey() {
        for (what, journey, said, expected) in [
            ("as expected", 0, 100, 100_000),
            ("the quartz is slow", 0, 102, 102_000),
            ("it is fast", 0, 98, 99_000),
            ("perhaps the answer was given at the start of its journey", 3, 97, 100_000),
            ("it cannot have been given before it was asked for", 1, 97, 99_000),
        ] {
            let mut learned = learned(0);
            let asked = reading(100 - journey, 0);
            let answer = Answer { teacher: Teacher::Service, date: at(said), asked, id: None };
            learned.learn(answer, reading(100, 0));
            let time = super::ms_between(learned.best_guess(reading(100, 0)), at(0));
            assert_eq!(time, expected, "{what}");
        }
    }

    #[test]
    fn a_quartz_that_drifts_is_never_off_by_more_than_it_gains_between_two_answers() {
        for slow_ppm in [-100, 100] {
            let mut learned = learned(0);
            for hours in 1..=10 * 24 {
                let truth = hours * HOUR;
                let now = reading(truth - truth * slow_ppm / 1_000_000, 0);
                let off = super::ms_between(learned.best_guess(now), at(truth)).abs();
                assert!(off <= 2_000, "{off} ms off after {hours} h");
                learn(&mut learned, Teacher::Service, at(truth), now);
            }
        }
    }

    #[test]
    fn a_replayed_answer_does_not_count_twice() {
        let mut learned = learned(0);
        let answer = |id, said, boot| {
            let asked = reading(boot, 0);
            Answer { teacher: Teacher::Service, date: at(said), asked, id: Some(id) }
        };
        for boot in [2, 3, 4] {
            let _change = learned.learn(answer(1, -HOUR, boot), reading(boot, 0));
            assert_eq!(read(&learned, reading(boot, 0)), (boot, Trust::Unconfirmed), "the same answer");
        }
        learned.learn(answer(2, -HOUR + 1, 4), reading(4, 0));
        assert_eq!(read(&learned, reading(4, 0)), (-HOUR + 1, Trust::Confirmed), "another one that agrees");
        learned.learn(answer(2, -HOUR - 50, 5), reading(5, 0));
        assert_eq!(read(&learned, reading(5, 0)), (-HOUR + 2, Trust::Confirmed), "nor does it move a little");
    }

    #[test]
    fn an_answer_that_a_bend_has_overtaken_contradicts_at_most() {
        // The call is made at 10, the node is paused for an hour, the guest agent sets the wall clock right,
        // and then the answer is read that was given before the pause.
        let mut learned = learned(0);
        let call =
            |said| Answer { teacher: Teacher::Service, date: at(said), asked: reading(10, 0), id: None };
        assert_eq!(learned.learn(call(10), reading(10, HOUR)), Change::Contradicts);
        assert_eq!(read(&learned, reading(10, HOUR)), (10 + HOUR, Trust::Unconfirmed));
        assert!(learned.wants_answer(reading(10, HOUR)));
        // Given after it, it is one of two.
        assert_eq!(learned.learn(call(10 + HOUR), reading(10, HOUR)), Change::Contradicts);
        assert_eq!(read(&learned, reading(10, HOUR)).1, Trust::Unconfirmed);
        learn(&mut learned, Teacher::Service, at(11 + HOUR), reading(11, HOUR));
        assert_eq!(read(&learned, reading(11, HOUR)), (11 + HOUR, Trust::Confirmed));
        // Nor does an overtaken answer move the time by a little.
        let late = Answer { asked: reading(12, HOUR), ..call(40 + HOUR) };
        assert_eq!(learned.learn(late, reading(12, HOUR + 60)), Change::Contradicts);
        assert_eq!(read(&learned, reading(12, HOUR)), (12 + HOUR, Trust::Unconfirmed));
    }

    #[test]
    fn the_issuers_word_makes_the_time_doubtful_and_later_and_never_moves_it() {
        let mut learned = learned(0);
        assert!(!learned.heed_issuer(at(160), reading(100, 0)), "clocks may be a minute apart");
        assert!(!learned.heed_issuer(at(-HOUR), reading(100, 0)), "an old token says nothing");
        assert!(learned.heed_issuer(at(HOUR), reading(100, 0)));
        assert_eq!(read(&learned, reading(110, 0)), (HOUR + 10, Trust::Unconfirmed));
        assert_eq!(learned.best_guess(reading(110, 0)), at(110));
        assert!(!learned.heed_issuer(at(HOUR + 30), reading(120, 0)), "that is nothing new");
        // AWS agrees with it, by two answers.
        for boot in [130, 131] {
            learn(&mut learned, Teacher::Service, at(boot + HOUR), reading(boot, 0));
        }
        assert_eq!(read(&learned, reading(140, 0)), (140 + HOUR, Trust::Confirmed));
        assert!(learned.heed_issuer(at(3 * HOUR), reading(150, 0)), "it was right, and is listened to");
        // AWS denies it.
        learn(&mut learned, Teacher::Service, at(151 + HOUR), reading(151, 0));
        assert_eq!(read(&learned, reading(151, 0)), (151 + HOUR, Trust::Confirmed));
        let almost = reading(150 + HOUR, 0);
        assert!(!learned.heed_issuer(at(9 * HOUR), almost), "not for an hour");
        assert!(learned.heed_issuer(at(9 * HOUR), reading(151 + HOUR, 0)));
        assert!(!Learned::default().heed_issuer(at(9 * HOUR), reading(0, 0)), "then the wall clock judges");
    }

    /// The wall clock, slewed by so many parts per million from `START` on.
    fn slewed(boot: i64, wall_error: i64, ppm: i64) -> Reading {
        let slewed = super::shift(reading(boot, wall_error).wall, boot * ppm / 1000);
        Reading { wall: slewed, ..reading(boot, wall_error) }
    }

    #[test]
    fn an_hour_that_is_slewed_away_is_seen_and_the_correction_of_a_quartz_is_not() {
        // chrony, at its fastest (83,333 ppm): it is seen within half a minute, long before it matters.
        let learned_fast = learned(HOUR);
        assert_eq!(read(&learned_fast, slewed(23, HOUR, -83_333)), (23, Trust::Confirmed));
        let later = slewed(HOUR, HOUR, -83_333);
        assert_eq!(read(&learned_fast, later), (2 * HOUR - 300, Trust::Unconfirmed), "the stricter reading");
        for ppm in [-100, 20, 100] {
            let mut learned = learned(0);
            let last = 6 * HOUR - 700;
            let (time, trust) = read(&learned, slewed(last, 0, ppm));
            let is_doubted = (last * ppm / 1000).unsigned_abs() > super::BENT_MS + 1;
            assert_eq!(
                (time, trust == Trust::Unconfirmed),
                (last + 2 * i64::from(ppm > 20), is_doubted),
                "{ppm}"
            );
            learned.learn(
                Answer { teacher: Teacher::Service, date: at(last), asked: slewed(last, 0, ppm), id: None },
                slewed(last, 0, ppm),
            );
            assert_eq!(read(&learned, slewed(last + HOUR, 0, ppm)).1, Trust::Confirmed, "{ppm}");
        }
        // The most that a kernel corrects for good costs one answer in 67 minutes.
        let mut learned = learned(0);
        let mut answers = 0;
        for minutes in 0..24 * 60 {
            let now = slewed(minutes * 60, 0, 500);
            if learned.wants_answer(now) {
                answers += 1;
                learn(&mut learned, Teacher::Service, at(minutes * 60), now);
            }
        }
        assert!((15..=22).contains(&answers), "{answers} in a day");
    }
}
