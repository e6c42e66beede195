//! The one clock of the agent: AWS's time and boot time together.
//!
//! Owns: reading the machine's two clocks, and what AWS says the time is ([`learned`]). Must not know: what
//! anybody does with the time. Timers (`tokio::time`) are not clocks: they say when to look again, never
//! whether something is still valid.
//!
//! Two clocks because either can lie: an administrator or NTP may set the wall clock back (expired
//! credentials would look alive), and the boot clock stands still while a hypervisor pauses the machine.
//! Credentials live only while both agree (invariant 2). The boot clock is one that NTP does not slew, else
//! both would lie together.

mod learned;
mod simulated;
mod system;
mod utc;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::learned::{Answer, Change, Learned, Reading};
use self::system::System;

pub use self::learned::Teacher;
pub use self::simulated::{Quartz, Simulated};
pub use self::utc::rfc3339;

/// While AWS's time is not confirmed, AWS is asked for it at most once in this time.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// Time since the machine booted, suspend included, in nanoseconds; it never goes back, and NTP does not slew
/// it.
///
/// Half the size of a `Duration`, because some are kept per identity; good for 584 years of uptime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(u64);

impl BootTime {
    /// A point `since_boot` after boot.
    pub fn from_boot(since_boot: Duration) -> Self {
        Self(nanos(since_boot))
    }

    /// This point moved forward; saturates instead of overflowing.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// Nanoseconds since boot, for an atomic.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long it is from `earlier` to this point, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// AWS's time. While it is unknown, the node's wall clock; while it is not confirmed, the latest that it
    /// may be: what has ended by that is not served, and what has not has not.
    pub wall: SystemTime,
    /// The boot clock.
    pub boot: BootTime,
    /// How far `wall` can be trusted.
    pub trust: Trust,
}

/// How far AWS's time can be trusted (docs/design/decisions.md#time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// AWS has not said what time it is.
    Unknown,
    /// It has, but since then a clock was bent, or it is long ago.
    Unconfirmed,
    /// It has, and nothing speaks against it.
    Confirmed,
}

/// AWS's time and the boot clock. Clones share what AWS says.
#[derive(Clone)]
pub struct Clock {
    source: Source,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    learned: RwLock<Learned>,
    asked_at: Mutex<Option<BootTime>>,
    /// Notified when AWS's next answer matters.
    wants_answer: Notify,
}

#[derive(Clone)]
enum Source {
    System(Arc<System>),
    Simulated(Arc<Simulated>),
}

/// The machine's clocks when a call to AWS is made. Its answer is judged with them: clocks that are bent
/// while it is on its way make it worth less.
#[derive(Clone, Copy, Debug)]
pub struct Asked(Reading);

impl Now {
    /// A moment of which AWS's time is known for sure.
    pub const fn confirmed(wall: SystemTime, boot: BootTime) -> Self {
        Self { wall, boot, trust: Trust::Confirmed }
    }

    /// Whether a moment that AWS named has passed for sure. While AWS's time is not confirmed nobody knows,
    /// and AWS itself must be asked: a final no by a wrong clock could never be taken back.
    pub fn is_surely_past(self, moment: SystemTime) -> bool {
        self.is_confirmed() && moment <= self.wall
    }

    /// Whether AWS's time is known for sure.
    pub const fn is_confirmed(self) -> bool {
        match self.trust {
            Trust::Confirmed => true,
            Trust::Unconfirmed | Trust::Unknown => false,
        }
    }
}

impl Clock {
    /// The machine's own clocks.
    pub fn system() -> Self {
        Self { source: Source::System(Arc::default()), shared: Arc::default() }
    }

    /// Simulated clocks.
    pub fn simulated(simulated: Arc<Simulated>) -> Self {
        Self { source: Source::Simulated(simulated), shared: Arc::default() }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        let reading = self.read();
        let learned = self.shared.learned.read();
        let (wall, trust) = learned.read(reading);
        let is_newly_bent = learned.is_newly_bent(reading);
        drop(learned);
        if is_newly_bent {
            self.doubt();
        }
        Now { wall, boot: reading.boot, trust }
    }

    /// AWS's time as the best single guess, for signatures.
    pub fn to_sign_with(&self) -> SystemTime {
        let reading = self.read();
        self.shared.learned.read().best_guess(reading)
    }

    /// Milliseconds by which AWS is ahead of the node's clock; zero while they are close, or AWS has not
    /// answered yet.
    pub fn offset_ms(&self) -> i64 {
        let reading = self.read();
        self.shared.learned.read().offset_ms(reading)
    }

    /// A call to AWS is made now.
    pub fn asking(&self) -> Asked {
        Asked(self.read())
    }

    /// An answer that is surely this teacher's came a moment ago with this `Date`, to a call that was made
    /// then. By its id, if the teacher gives one, a replay of it is recognised.
    pub fn learn(&self, teacher: Teacher, date: SystemTime, asked: Asked, id: Option<&[u8]>) {
        let (reading, id) = (self.read(), id.map(fingerprint));
        let answer = Answer { teacher, date, asked: asked.0, id };
        let change = self.shared.learned.write().learn(answer, reading);
        match change {
            Change::Nothing => {}
            Change::Differs(0) => tracing::info!("node clock agrees with AWS time"),
            Change::Differs(offset_ms) => {
                tracing::warn!(clock.off_ms = offset_ms, "node clock differs from AWS time; using AWS time");
            }
            Change::Contradicts => self.shared.wants_answer.notify_one(),
        }
    }

    /// A key has proven a token that was issued at this time. The cluster's issuer is no judge of the time,
    /// but a machine that it finds a minute behind may have been paused: then AWS is asked.
    pub fn heed_issuer(&self, issued: SystemTime) {
        let reading = self.read();
        if self.shared.learned.write().heed_issuer(issued, reading) {
            tracing::info!("a token was issued later than now; AWS's time is to be confirmed");
            self.shared.wants_answer.notify_one();
        }
    }

    /// Waits until AWS's next answer matters. For one who waits.
    pub async fn answer_wanted(&self) {
        self.shared.wants_answer.notified().await;
    }

    /// Whether AWS's next answer matters.
    pub fn wants_answer(&self) -> bool {
        let reading = self.read();
        self.shared.learned.read().wants_answer(reading)
    }

    /// Whether AWS's next answer decides between the time and the last answer, which contradicts it.
    pub fn has_contradiction(&self) -> bool {
        self.shared.learned.read().has_contradiction()
    }

    /// Whether AWS may be asked for the time now; if so, it counts as asked.
    pub fn may_ask(&self) -> bool {
        let now = self.read().boot;
        let mut asked_at = self.shared.asked_at.lock();
        let is_rested = is_rested(*asked_at, now);
        if is_rested {
            *asked_at = Some(now);
        }
        is_rested
    }

    /// After how long AWS may be asked for the time again.
    pub fn may_ask_in(&self) -> Duration {
        let now = self.read().boot;
        self.shared.asked_at.lock().map_or(Duration::ZERO, |at| ASK_INTERVAL.saturating_sub(now.since(at)))
    }

    /// Has AWS asked for the time, if its answer matters and it was not asked a moment ago.
    pub fn ask_soon(&self) {
        if self.wants_answer() && is_rested(*self.shared.asked_at.lock(), self.read().boot) {
            self.shared.wants_answer.notify_one();
        }
    }

    /// How often AWS's answers moved the time. When they did, what was planned by the time before is void.
    pub fn moves(&self) -> u64 {
        self.shared.learned.read().moves()
    }

    fn doubt(&self) {
        self.shared.learned.write().doubt();
        tracing::info!("the node's clock was set, or the machine was paused; AWS's time is to be confirmed");
        self.shared.wants_answer.notify_one();
    }

    fn read(&self) -> Reading {
        match &self.source {
            Source::System(system) => system.read(),
            Source::Simulated(simulated) => Reading { wall: simulated.wall(), boot: simulated.boot() },
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("offset_ms", &self.offset_ms()).finish_non_exhaustive()
    }
}

fn is_rested(asked_at: Option<BootTime>, now: BootTime) -> bool {
    asked_at.is_none_or(|at| now.since(at) >= ASK_INTERVAL)
}

/// Half a request id would do: nobody gains by two that are alike.
fn fingerprint(id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn shift(time: SystemTime, by_ms: i64) -> SystemTime {
    let by = Duration::from_millis(by_ms.unsigned_abs());
    let shifted = if by_ms >= 0 { time.checked_add(by) } else { time.checked_sub(by) };
    shifted.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::{BootTime, Clock, Simulated, Teacher, Trust};

    const HOUR: Duration = Duration::from_secs(3600);
    const HALF_SECOND: Duration = Duration::from_millis(500);
    const START: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn boot_time_saturates_instead_of_overflowing() {
        let start = BootTime::from_boot(Duration::from_secs(5));
        assert_eq!(start.plus(Duration::MAX).since(start), Duration::from_nanos(u64::MAX - 5_000_000_000));
        assert_eq!(start.since(start.plus(Duration::from_secs(1))), Duration::ZERO);
    }

    /// An answer of EKS Auth that came at once.
    fn learn(clock: &Clock, date: SystemTime) {
        clock.learn(Teacher::Service, date, clock.asking(), None);
    }

    fn an_hour_fast() -> (Arc<Simulated>, Clock) {
        let simulated = Simulated::starting_at(START);
        simulated.set_wall_error_ms(3_600_000);
        (Arc::clone(&simulated), Clock::simulated(simulated))
    }

    #[tokio::test(start_paused = true)]
    async fn what_aws_says_counts_for_every_clone_and_steps_of_the_wall_clock_change_nothing() {
        let (simulated, clock) = an_hour_fast();
        let clone = clock.clone();
        assert_eq!((clone.now().wall, clone.now().trust), (START + HOUR, Trust::Unknown));
        learn(&clock, START);
        learn(&clock, START);
        assert_eq!((clone.now().wall, clone.now().trust), (START + HALF_SECOND, Trust::Confirmed));
        assert_eq!((clone.offset_ms(), clone.to_sign_with()), (-3_599_500, START + HALF_SECOND));
        // NTP sets it right.
        simulated.set_wall_error_ms(0);
        tokio::time::sleep(HOUR).await;
        assert_eq!(clone.now().wall, START + HOUR + HALF_SECOND);
        assert_eq!((clone.now().trust, clone.offset_ms()), (Trust::Unconfirmed, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_noticed_once_and_asked_about_once_in_five_seconds() {
        let simulated = Simulated::starting_at(START);
        let clock = Clock::simulated(Arc::clone(&simulated));
        learn(&clock, START);
        assert!(!clock.wants_answer());
        simulated.set_wall_error_ms(-3_600_000);
        clock.now();
        clock.answer_wanted().await;
        simulated.set_wall_error_ms(0);
        assert!(clock.wants_answer(), "a step back does not undo a doubt");
        assert!(clock.may_ask());
        tokio::time::sleep(Duration::from_millis(4_999)).await;
        assert!(!clock.may_ask());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(clock.may_ask());
        learn(&clock, START + Duration::from_secs(5));
        assert!(!clock.wants_answer() && clock.now().is_confirmed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_machine_is_told_the_time_by_two_answers() {
        let simulated = Simulated::starting_at(START);
        let clock = Clock::simulated(Arc::clone(&simulated));
        learn(&clock, START);
        let before = clock.now();
        simulated.stand_still(HOUR);
        tokio::time::advance(HOUR).await;
        assert_eq!(clock.now(), before, "from inside nothing happened");
        simulated.set_wall_error_ms(3_600_000);
        assert_eq!((clock.now().wall, clock.now().trust), (START + HOUR, Trust::Unconfirmed));
        assert!(!clock.now().is_surely_past(START), "who knows");
        learn(&clock, START + HOUR);
        learn(&clock, START + HOUR);
        assert_eq!((clock.now().wall, clock.now().trust), (START + HOUR + HALF_SECOND, Trust::Confirmed));
        assert!(clock.now().is_surely_past(START));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_the_future_has_aws_asked() {
        let simulated = Simulated::starting_at(START);
        let clock = Clock::simulated(simulated);
        learn(&clock, START);
        clock.heed_issuer(START + HOUR);
        tokio::time::timeout(HOUR, clock.answer_wanted()).await.unwrap();
        assert!(!clock.now().is_confirmed() && clock.now().wall >= START + HOUR);
    }
}
