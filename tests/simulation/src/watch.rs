//! The invariants of docs/design/invariants.md, checked on each answer that a process gets.
//!
//! Owns: what counts as a breach, and what excuses it. Must not know: how the agent works inside.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use pod_identity_agent::clock::{Now, Trust};
use tokio::sync::Notify;

use crate::ledger::{Ledger, Said, Set, TOLERATED_SKEW, Token};
use crate::node::Answer;

/// Less left than this counts as expired (invariant 2).
const MIN_REMAINING_LIFE: Duration = Duration::from_secs(15);
/// Below this SDKs come straight back (invariant 6).
const SHORT_LIFE: Duration = Duration::from_secs(15 * 60);
/// AWS counts as healthy, a clock as right and an identity as unharmed after so long: the slowest pause
/// between renewals is two minutes, and a renewal in line may take one more.
const CALM: Duration = Duration::from_secs(6 * 60);
/// With credentials in hand nobody waits longer: 300 ms (docs/design/decisions.md#freshness) and a little for
/// timers.
const LONGEST_WAIT: Duration = Duration::from_millis(310);
/// A doubt about the time is over after this, with AWS in good health: asked at once, two answers 5 s apart,
/// and what one call may take.
const LONGEST_DOUBT: Duration = Duration::from_secs(15);
/// Own credentials that AWS takes are found within 5 s (docs/design/decisions.md#upstream); a request tells
/// of trouble that is up to 5 s old.
const LONGEST_OWN_TROUBLE: Duration = Duration::from_secs(10);
/// That own credentials are bad the agent learns by a call. A renewal that it takes is repeated after 5 s.
const JUST_LEARNED: Duration = Duration::from_secs(30);
/// The memory of refusals, and a hold.
const REFUSAL_ECHO: Duration = Duration::from_secs(40);

/// Which promise; the number is that of docs/design/invariants.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// 1.
    OwnSetOnly,
    /// 2.
    NeverExpired,
    /// 3.
    HeldIsServed,
    /// 4.
    OneCall,
    /// 5.
    Budget,
    /// 6.
    LongLife,
    /// 7.
    Blame,
    /// 8.
    Gone,
    /// Of docs/design/decisions.md#time: two answers tell the time, and a doubt ends.
    Time,
    /// Of docs/design/decisions.md#upstream: the agent finds own credentials that AWS takes.
    OwnCredentials,
    /// None of these: the agent's code panicked.
    Panic,
}

/// A breach.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of which promise.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
    /// The pods involved, by number.
    pub pods: Vec<usize>,
}

impl Found {
    /// A breach.
    pub fn new(invariant: Invariant, what: impl Into<String>, pods: Vec<usize>) -> Self {
        Self { invariant, what: what.into(), pods }
    }
}

/// The first breach of a story.
#[derive(Debug, Default)]
pub struct Watch {
    first: Mutex<Option<(Duration, Found)>>,
    doubt: Mutex<Doubt>,
    bent: Mutex<Bent>,
    /// Told at the first breach.
    pub noticed: Notify,
}

/// What the agent can know of its clocks.
#[derive(Clone, Copy, Debug, Default)]
struct Bent {
    /// How often the clocks were bent.
    times: u32,
    /// Answers since the clocks were last bent.
    answers: u32,
    /// When the second of them came.
    second_at: Option<Duration>,
    /// The node was paused, and nothing but AWS could tell it so.
    was_paused: bool,
    /// Answers with a wrong date since the last with a right one.
    lies: u32,
    /// When there was one last.
    lied_at: Option<Duration>,
    /// What two of them in a row make of AWS's time, in milliseconds, until two right ones have come.
    deceived_ms: i64,
    /// When AWS last rejected the node's own credentials.
    rejected_at: Option<Duration>,
    /// By how much the wall clock is ahead of the boot clock, and was at least since AWS's time was
    /// confirmed.
    error_ms: i64,
    least_error_ms: i64,
    /// For how long the node was paused in all: so much do both clocks lack.
    paused_ms: i64,
    /// AWS has never said what time it is.
    is_unknown: bool,
}

/// How the agent's time has been.
#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    /// When it was last seen to be wrong or not confirmed.
    doubted_at: Option<Duration>,
    /// When it was last seen to be wrong.
    wrong_at: Option<Duration>,
    /// When it was last seen not to be confirmed.
    unconfirmed_at: Option<Duration>,
    /// Since when it has not been confirmed and somebody was served, with AWS in good health.
    might_ask_since: Option<Duration>,
}

/// What the agent could make of its clocks, by the story's own reckoning: how far the latest time that it may
/// be is ahead of AWS's, and the only one that it has behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    ahead: Duration,
    behind: Duration,
}

impl Clocks {
    /// The worse of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { ahead: self.ahead.max(other.ahead), behind: self.behind.max(other.behind) }
    }
}

/// What a process asked and got.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// With this token.
    pub token: Token,
    /// When it asked.
    pub before: Duration,
    /// When it had the answer.
    pub after: Duration,
    /// For how long AWS had been clear.
    pub clear_for: Duration,
    /// Since when the agent has had the token's key.
    pub known_since: Option<Duration>,
    /// What it could make of its clocks meanwhile.
    pub clocks: Clocks,
}

impl Watch {
    /// Takes note of a breach, if it is the first.
    pub fn report(&self, now: Duration, found: Option<Found>) {
        let Some(found) = found else { return };
        self.first.lock().get_or_insert((now, found));
        self.noticed.notify_one();
    }

    /// The first breach.
    pub fn first(&self) -> Option<(Duration, Found)> {
        self.first.lock().clone()
    }

    /// Looks at the agent's time. A doubt must end: AWS is asked at once, and again after five seconds.
    pub fn see(&self, now: Duration, agent: &Now, is_wrong: bool, clear_for: Duration) -> Option<Found> {
        let mut doubt = self.doubt.lock();
        let mut bent = self.bent.lock();
        bent.is_unknown = agent.trust == Trust::Unknown;
        if is_wrong {
            doubt.wrong_at = Some(now);
        }
        if is_wrong || !agent.is_confirmed() {
            doubt.doubted_at = Some(now);
        } else {
            bent.least_error_ms = bent.error_ms;
        }
        if !agent.is_confirmed() {
            doubt.unconfirmed_at = Some(now);
        }
        if agent.is_confirmed() || clear_for.is_zero() {
            doubt.might_ask_since = None;
        }
        let since = doubt.might_ask_since?;
        (now > since + LONGEST_DOUBT).then(|| {
            let what = format!("AWS is well and pods are served, and the time is {:?} still", agent.trust);
            Found::new(Invariant::Time, what, Vec::new())
        })
    }

    /// Somebody is served: there is a set that the time can be asked with.
    fn see_served(&self, asked: &Asked) {
        let mut doubt = self.doubt.lock();
        if doubt.unconfirmed_at == Some(asked.after) && !asked.clear_for.is_zero() {
            doubt.might_ask_since.get_or_insert(asked.after);
        }
    }

    /// What the agent can make of its clocks now.
    pub fn clocks(&self) -> Clocks {
        let bent = self.bent.lock();
        let by_wall = bent.error_ms - bent.paused_ms;
        // The wall clock itself, and a pause of the length by which it has moved.
        let ahead = by_wall.max(bent.error_ms - bent.least_error_ms).max(bent.deceived_ms).max(0);
        let behind = if bent.is_unknown { -by_wall } else { -bent.deceived_ms }.max(0);
        let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        Clocks { ahead: ms(ahead), behind: ms(behind) }
    }

    /// The wall clock was set: from here on the agent can tell that something is wrong.
    pub fn clock_set(&self, error_ms: i64) {
        let mut bent = self.bent.lock();
        bent.least_error_ms = bent.least_error_ms.min(error_ms);
        let times = bent.times + 1;
        *bent = Bent { times, answers: 0, second_at: None, was_paused: false, error_ms, ..*bent };
    }

    /// The node wakes from a pause, and nothing can tell it so.
    pub fn paused(&self, pause: Duration) {
        let mut bent = self.bent.lock();
        let paused_ms = bent.paused_ms + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let times = bent.times + 1;
        *bent = Bent { times, answers: 0, second_at: None, was_paused: true, paused_ms, ..*bent };
    }

    /// How often the clocks were bent so far.
    pub fn times_bent(&self) -> u32 {
        self.bent.lock().times
    }

    /// AWS answers with a date that is so many seconds off. One such answer must move nothing. After two in a
    /// row nobody could know better until two right ones have come.
    pub fn lied(&self, now: Duration, seconds: i64) {
        let mut bent = self.bent.lock();
        bent.lied_at = Some(now);
        bent.lies += 1;
        if bent.lies > 1 {
            (bent.answers, bent.second_at) = (0, None);
            bent.deceived_ms = seconds * 1000;
        }
    }

    /// AWS answered a call that was made when the clocks had been bent so often. One that a bend has
    /// overtaken tells the agent nothing for sure.
    pub fn answered(&self, now: Duration, times_bent: u32) {
        let mut bent = self.bent.lock();
        if bent.times != times_bent {
            return;
        }
        bent.lies = 0;
        bent.answers += 1;
        if bent.answers == 2 {
            (bent.second_at, bent.deceived_ms) = (Some(now), 0);
        }
    }

    /// AWS rejected the node's own credentials: only by that can the agent learn that they are bad.
    pub fn rejected(&self, now: Duration) {
        self.bent.lock().rejected_at = Some(now);
    }

    /// Whether two answers have come since the clocks were last bent, and the agent could read them.
    pub fn may_know_the_time(&self, now: Duration) -> bool {
        self.bent.lock().second_at.is_some_and(|at| at < now)
    }

    /// Judges an answer; the set that was served, if one was.
    pub fn judge(&self, ledger: &Ledger, asked: &Asked, answer: &Answer) -> (Option<usize>, Option<Found>) {
        let said = ledger.said_of(asked.token.pod);
        match answer {
            Answer::Served(body) => {
                self.see_served(asked);
                let set = number_of(body);
                let found = set
                    .and_then(|number| ledger.sets.get(number))
                    .map_or_else(|| Some(unknown_set(asked)), |set| self.judge_set(ledger, asked, set));
                (set, found.or_else(|| self.judge_wait(ledger, asked, &said)))
            }
            Answer::RefusedByAgent(cause) | Answer::RefusedByAws(cause) | Answer::Trouble(cause) => {
                let is_blamed = match answer {
                    // All tokens are good, and none is refused because the node's clock is behind.
                    Answer::RefusedByAgent(_) => true,
                    Answer::RefusedByAws(code) => {
                        *code != "ExpiredTokenException"
                            && said.refused_at.is_none_or(|at| at + REFUSAL_ECHO < asked.before)
                    }
                    Answer::Served(_) | Answer::Trouble(_) => false,
                };
                if is_blamed {
                    let what = format!("a pod is blamed for what is not its fault: {cause}");
                    return (None, Some(Found::new(Invariant::Blame, what, vec![asked.token.pod])));
                }
                (None, self.judge_failure(ledger, asked, &said, cause))
            }
        }
    }

    fn judge_set(&self, ledger: &Ledger, asked: &Asked, set: &Set) -> Option<Found> {
        let pod = asked.token.pod;
        if set.pod != pod {
            let what = "a pod was served the credentials of another";
            return Some(Found::new(Invariant::OwnSetOnly, what, vec![pod, set.pod]));
        }
        let left = set.expires.saturating_sub(asked.after);
        let is_told = !set.is_misdated && !self.is_blind(asked.after);
        if left + TOLERATED_SKEW < MIN_REMAINING_LIFE && is_told {
            let what = format!("served with {} s left by AWS's clock", left.as_secs());
            return Some(Found::new(Invariant::NeverExpired, what, vec![pod]));
        }
        let enough = SHORT_LIFE.min(set.expires.saturating_sub(set.issued) / 3);
        let was_right = !self.was_wrong_since(asked.before.saturating_sub(CALM));
        if left + Duration::from_secs(1) < enough && was_right && self.is_calm(ledger, asked) {
            let what = format!("served with {} s left although AWS is healthy", left.as_secs());
            return Some(Found::new(Invariant::LongLife, what, vec![pod]));
        }
        None
    }

    fn judge_wait(&self, ledger: &Ledger, asked: &Asked, said: &Said) -> Option<Found> {
        let took = asked.after.saturating_sub(asked.before);
        (took > LONGEST_WAIT && self.holds(ledger, asked, said)).then(|| {
            let what = format!("credentials are held, and yet the answer took {} ms", took.as_millis());
            Found::new(Invariant::HeldIsServed, what, vec![asked.token.pod])
        })
    }

    fn judge_failure(&self, ledger: &Ledger, asked: &Asked, said: &Said, cause: &str) -> Option<Found> {
        if self.holds(ledger, asked, said) {
            let what = format!("unexpired credentials are held, and yet: {cause}");
            return Some(Found::new(Invariant::HeldIsServed, what, vec![asked.token.pod]));
        }
        if cause.starts_with("own_credentials") && asked.clear_for > LONGEST_OWN_TROUBLE {
            let what = format!("the node has credentials that AWS takes, and yet: {cause}");
            return Some(Found::new(Invariant::OwnCredentials, what, vec![asked.token.pod]));
        }
        self.is_calm(ledger, asked).then(|| {
            let what = format!("AWS is healthy, and yet: {cause}");
            Found::new(Invariant::HeldIsServed, what, vec![asked.token.pod])
        })
    }

    /// Judges the hanging up of an impatient process.
    pub fn judge_hang_up(&self, ledger: &Ledger, asked: &Asked) -> Option<Found> {
        self.judge_wait(ledger, asked, &ledger.said_of(asked.token.pod))
    }

    /// Whether the agent must have something in hand for this said, to which it is still entitled.
    fn holds(&self, ledger: &Ledger, asked: &Asked, said: &Said) -> bool {
        // Design 4.5: three times "there is no association" over five minutes end entitlement.
        let is_entitled = said.not_found.is_none_or(|(first, count)| {
            count < 3 || asked.after.saturating_sub(first) < Duration::from_secs(300)
        });
        // By the latest time that it may be for the agent; of a token the times are judged by the source
        // then.
        let Clocks { ahead, behind } = asked.clocks;
        let is_timely = asked.token.expires > asked.after + ahead + TOLERATED_SKEW
            && asked.token.issued + behind <= asked.before + TOLERATED_SKEW;
        let is_proven = ledger.token_now(asked.token.number).is_some_and(|token| token.is_verified)
            && asked.known_since.is_some_and(|since| since < asked.before);
        is_entitled
            && is_timely
            && said.sets.iter().filter_map(|number| ledger.sets.get(*number)).any(|set| {
                set.issued < asked.before
                    && !set.is_misdated
                    && (set.token == asked.token.number || (set.is_the_pods && is_proven))
                    && set.expires > asked.after + ahead + MIN_REMAINING_LIFE + TOLERATED_SKEW
            })
    }

    /// Whether there has been no trouble of any kind for a while.
    fn is_calm(&self, ledger: &Ledger, asked: &Asked) -> bool {
        let has_spell = ledger.pods.get(asked.token.pod).is_some_and(|pod| {
            pod.spells.iter().any(|(from, to, _)| *from <= asked.after && asked.before < *to + CALM)
        });
        let Bent { lied_at, rejected_at, .. } = *self.bent.lock();
        let is_lied_to = lied_at.is_some_and(|at| at + CALM > asked.before);
        let has_just_learned = rejected_at.is_some_and(|at| at + JUST_LEARNED > asked.before);
        asked.clear_for >= CALM && !has_spell && !is_lied_to && !has_just_learned
    }

    /// Whether the node was paused, and nothing has told the agent so.
    fn is_blind(&self, now: Duration) -> bool {
        let was_paused = self.bent.lock().was_paused;
        was_paused && !self.may_know_the_time(now)
    }

    /// Whether the agent's time was wrong or not confirmed since then.
    pub fn was_in_doubt_since(&self, since: Duration) -> bool {
        self.doubt.lock().doubted_at.is_some_and(|at| at >= since)
    }

    fn was_wrong_since(&self, since: Duration) -> bool {
        self.doubt.lock().wrong_at.is_some_and(|at| at >= since)
    }
}

/// The number of the set in a body. All five fields must be there, and the three of the set must belong
/// together.
fn number_of(body: &[u8]) -> Option<usize> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let field = |name: &str| body.get(name).and_then(serde_json::Value::as_str);
    let number = field("AccessKeyId")?.strip_prefix("ASIA")?;
    let belongs = field("SecretAccessKey")?.strip_prefix("secret-") == Some(number)
        && field("Token")?.strip_prefix("session-") == Some(number)
        && field("Expiration").is_some();
    belongs.then(|| number.parse().ok()).flatten()
}

fn unknown_set(asked: &Asked) -> Found {
    Found::new(Invariant::OwnSetOnly, "served a set that AWS never issued", vec![asked.token.pod])
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnSetOnly => "invariant 1, nobody gets another pod's credentials",
            Self::NeverExpired => "invariant 2, expired credentials are never served",
            Self::HeldIsServed => "invariant 3, no failure becomes an error for who holds credentials",
            Self::OneCall => "invariant 4, one call in flight per identity",
            Self::Budget => "invariant 5, calls stay within the budget",
            Self::LongLife => "invariant 6, no short-lived credentials while AWS is healthy",
            Self::Blame => "invariant 7, nobody is blamed for what is not their fault",
            Self::Gone => "invariant 8, a pod that is gone costs nothing",
            Self::Time => "two answers that agree tell the agent what time it is, and it asks for them",
            Self::OwnCredentials => "own credentials that AWS takes are found within seconds",
            Self::Panic => "a panic",
        })
    }
}
