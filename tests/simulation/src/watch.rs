//! The invariants of docs/design/invariants.md, checked on each answer that a process gets.
//!
//! Owns: what counts as a breach, and what excuses it. Must not know: how the agent works inside.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ledger::{Identity, Ledger, Set, TOLERATED_SKEW, Token};
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
    /// Of docs/design/decisions.md#time: two answers tell the time.
    Time,
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
    doubted_at: Mutex<Option<Duration>>,
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

    /// The agent's time is wrong or not confirmed now.
    pub fn see_doubt(&self, now: Duration) {
        *self.doubted_at.lock() = Some(now);
    }

    /// When the agent's time was last seen to be wrong or not confirmed.
    pub fn doubted_at(&self) -> Option<Duration> {
        *self.doubted_at.lock()
    }

    /// The wall clock was set: from here on the agent can tell that something is wrong.
    pub fn clock_set(&self) {
        let mut bent = self.bent.lock();
        *bent = Bent { times: bent.times + 1, ..Bent::default() };
    }

    /// The node wakes from a pause, and nothing can tell it so.
    pub fn paused(&self) {
        let mut bent = self.bent.lock();
        *bent = Bent { times: bent.times + 1, was_paused: true, ..Bent::default() };
    }

    /// How often the clocks were bent so far.
    pub fn times_bent(&self) -> u32 {
        self.bent.lock().times
    }

    /// AWS answered a call that was made when the clocks had been bent so often. One that a bend has overtaken
    /// tells the agent nothing for sure.
    pub fn answered(&self, now: Duration, times_bent: u32) {
        let mut bent = self.bent.lock();
        if bent.times != times_bent {
            return;
        }
        bent.answers += 1;
        if bent.answers == 2 {
            bent.second_at = Some(now);
        }
    }

    /// Whether two answers have come since the clocks were last bent, and the agent could read them.
    pub fn may_know_the_time(&self, now: Duration) -> bool {
        self.bent.lock().second_at.is_some_and(|at| at < now)
    }

    /// Judges an answer; the set that was served, if one was.
    pub fn judge(&self, ledger: &Ledger, asked: &Asked, answer: &Answer) -> (Option<usize>, Option<Found>) {
        let identity = ledger.identity(asked.token.identity);
        match answer {
            Answer::Served(body) => {
                let set = number_of(body);
                let found = set.and_then(|number| ledger.sets.get(number)).map_or_else(
                    || Some(unknown_set(asked)),
                    |set| self.judge_set(ledger, asked, &identity, set),
                );
                (set, found.or_else(|| self.judge_wait(ledger, asked, &identity)))
            }
            Answer::RefusedByAgent(cause) | Answer::RefusedByAws(cause) | Answer::Trouble(cause) => {
                let is_blamed = match answer {
                    // All tokens are good, and none is refused because the node's clock is behind.
                    Answer::RefusedByAgent(_) => true,
                    Answer::RefusedByAws(code) => {
                        *code != "ExpiredTokenException"
                            && identity.refused_at.is_none_or(|at| at + REFUSAL_ECHO < asked.before)
                    }
                    Answer::Served(_) | Answer::Trouble(_) => false,
                };
                if is_blamed {
                    let what = format!("a pod is blamed for what is not its fault: {cause}");
                    return (None, Some(Found::new(Invariant::Blame, what, vec![asked.token.pod])));
                }
                (None, self.judge_failure(ledger, asked, &identity, cause))
            }
        }
    }

    fn judge_set(&self, ledger: &Ledger, asked: &Asked, identity: &Identity, set: &Set) -> Option<Found> {
        let pod = asked.token.pod;
        if set.pod != pod {
            let what = "a pod was served the credentials of another";
            return Some(Found::new(Invariant::OwnSetOnly, what, vec![pod, set.pod]));
        }
        let left = set.expires.saturating_sub(asked.after);
        if left + TOLERATED_SKEW < MIN_REMAINING_LIFE && !self.is_blind(asked.after) {
            let what = format!("served with {} s left by AWS's clock", left.as_secs());
            return Some(Found::new(Invariant::NeverExpired, what, vec![pod]));
        }
        let enough = SHORT_LIFE.min(set.expires.saturating_sub(set.issued) / 3);
        if left + Duration::from_secs(1) < enough && self.is_calm(ledger, asked, identity) {
            let what = format!("served with {} s left although AWS is healthy", left.as_secs());
            return Some(Found::new(Invariant::LongLife, what, vec![pod]));
        }
        None
    }

    fn judge_wait(&self, ledger: &Ledger, asked: &Asked, identity: &Identity) -> Option<Found> {
        let took = asked.after.saturating_sub(asked.before);
        (took > LONGEST_WAIT && self.holds(ledger, asked, identity)).then(|| {
            let what = format!("credentials are held, and yet the answer took {} ms", took.as_millis());
            Found::new(Invariant::HeldIsServed, what, vec![asked.token.pod])
        })
    }

    fn judge_failure(
        &self,
        ledger: &Ledger,
        asked: &Asked,
        identity: &Identity,
        cause: &str,
    ) -> Option<Found> {
        if self.holds(ledger, asked, identity) {
            let what = format!("unexpired credentials are held, and yet: {cause}");
            return Some(Found::new(Invariant::HeldIsServed, what, vec![asked.token.pod]));
        }
        self.is_calm(ledger, asked, identity).then(|| {
            let what = format!("AWS is healthy, and yet: {cause}");
            Found::new(Invariant::HeldIsServed, what, vec![asked.token.pod])
        })
    }

    /// Judges the hanging up of an impatient process.
    pub fn judge_hang_up(&self, ledger: &Ledger, asked: &Asked) -> Option<Found> {
        self.judge_wait(ledger, asked, &ledger.identity(asked.token.identity))
    }

    /// Whether the agent must have something in hand for this identity, to which it is still entitled.
    fn holds(&self, ledger: &Ledger, asked: &Asked, identity: &Identity) -> bool {
        // Design 4.5: three times "there is no association" over five minutes end entitlement.
        let is_entitled = identity.not_found.is_none_or(|(first, count)| {
            count < 3 || asked.after.saturating_sub(first) < Duration::from_secs(300)
        });
        is_entitled
            && identity.sets.iter().filter_map(|number| ledger.sets.get(*number)).any(|set| {
                set.issued < asked.before
                    && !self.was_in_doubt_since(asked.before)
                    && set.expires > asked.after + MIN_REMAINING_LIFE + TOLERATED_SKEW
            })
    }

    /// Whether there has been no trouble of any kind for a while.
    fn is_calm(&self, ledger: &Ledger, asked: &Asked, _identity: &Identity) -> bool {
        let has_spell = ledger.pods.get(asked.token.pod).is_some_and(|pod| {
            pod.spells.iter().any(|(from, to, _)| *from <= asked.after && asked.before < *to + CALM)
        });
        asked.clear_for >= CALM && !has_spell && !self.was_in_doubt_since(asked.before.saturating_sub(CALM))
    }

    /// Whether the node was paused, and nothing has told the agent so.
    fn is_blind(&self, now: Duration) -> bool {
        let was_paused = self.bent.lock().was_paused;
        was_paused && !self.may_know_the_time(now)
    }

    fn was_in_doubt_since(&self, since: Duration) -> bool {
        self.doubted_at().is_some_and(|at| at >= since)
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
            Self::Time => "two answers that agree tell the agent what time it is",
            Self::Panic => "a panic",
        })
    }
}
