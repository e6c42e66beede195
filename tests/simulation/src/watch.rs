//! The invariants of docs/design/invariants.md, checked on each answer that a process gets.
//!
//! Owns: what counts as a breach, and what excuses it. Must not know: how the agent works inside.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use parking_lot::Mutex;
use pod_identity_agent::clock::{Now, Trust};
use tokio::sync::Notify;

use crate::ledger::{Ledger, NOT_FOUND_FOR, NotFound, Said, Set, TOLERATED_SKEW, Token};
use crate::node::{Answer, NO_ROLE, NOT_YET_KNOWN};
use crate::shape::Shape;
use crate::source::Source;
use crate::story::World;

/// Less left than this counts as expired (invariant 2).
const MIN_REMAINING_LIFE: Duration = Duration::from_secs(15);
/// Below this SDKs come straight back (invariant 6).
const SHORT_LIFE: Duration = Duration::from_secs(15 * 60);
/// AWS counts as healthy, a clock as right and an identity as unharmed after so long: the slowest pause
/// between renewals is two minutes, and a renewal in line may take one more.
const CALM: Duration = Duration::from_secs(6 * 60);
/// Of bent clocks nothing is left so long after two answers have told the time: what has expired by them is
/// forgotten, and what is short is renewed at the next request.
const AFTER_DOUBT: Duration = Duration::from_secs(15);
/// After AWS has first said that there is no association, nobody is served for longer who asks all the time.
const LONGEST_UNENTITLED: Duration = Duration::from_secs(10 * 60);
/// When AWS has said for as long as it must that there is no association, it may have to say it so often
/// again: the agent may have another association's set renewed first, and the pod's tokens may have names of
/// their own.
const TIMES_AT_MOST: u32 = 3;
/// `--max-stale-after-refusal` is kept to with that and a pause between two renewals.
const STALE_SLACK: Duration = Duration::from_secs(60);
/// A new key is found by a token that it has signed (docs/design/decisions.md#fairness: one reading in 10 s,
/// and 500 ms for it).
const TO_FIND_A_KEY: Duration = Duration::from_secs(15);
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
    /// Of docs/design/decisions.md#entitlement: what ends it ends it within minutes, and for those alone.
    Entitlement,
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
    /// What the node's clocks show.
    shown: Shown,
    /// By how much the wall clock was ahead of the boot clock at least since AWS's time was confirmed.
    least_ahead_ms: i64,
    /// AWS has never said what time it is.
    is_unknown: bool,
    /// When the node woke from a pause or the agent was started: who had asked before that may have waited
    /// for too long, or lost its connection.
    interrupted_at: Option<Duration>,
}

/// What the node's own clocks show, whatever the agent makes of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// By how many milliseconds the wall clock is ahead of AWS's.
    pub wall_ahead_ms: i64,
    /// By how many it is ahead of the boot clock.
    pub ahead_of_boot_ms: i64,
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
    /// How far it was behind AWS's own when somebody last looked.
    behind: Duration,
}

/// What the agent could make of its clocks, by the story's own reckoning: how far the latest time that it may
/// be is ahead of AWS's, and the only one that it has behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    ahead: Duration,
    behind: Duration,
}

impl Clocks {
    /// The latest time that it may be at this one.
    pub fn latest(self, now: Duration) -> Duration {
        now + self.ahead
    }

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
    /// The same when it was asked.
    pub was_known_since: Option<Duration>,
    /// All pods of the node are without an association, by AWS's word.
    pub is_everybody_without: bool,
    /// When there was last no room for all that could be kept, or on the account of its address.
    pub crowded_at: Option<Duration>,
    /// What it could make of its clocks meanwhile.
    pub clocks: Clocks,
    /// What the agent was asked for, and how it is set up.
    pub shape: Shape,
    /// Since when the token's key has been in the document.
    pub published_since: Option<Duration>,
    /// Since when this pod has been asking all the time.
    pub asking_since: Duration,
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
    pub fn see(
        &self,
        now: Duration,
        agent: &Now,
        true_time: SystemTime,
        shown: Shown,
        clear_for: Duration,
    ) -> Option<Found> {
        let mut doubt = self.doubt.lock();
        let mut bent = self.bent.lock();
        bent.is_unknown = agent.trust == Trust::Unknown;
        bent.shown = shown;
        doubt.behind = true_time.duration_since(agent.wall).unwrap_or_default();
        let skew = agent.wall.duration_since(true_time).unwrap_or(doubt.behind);
        let is_wrong = skew > TOLERATED_SKEW;
        // What is not confirmed may be wrong, as a quartz is after half a day.
        let is_sure = agent.is_confirmed();
        if is_wrong && is_sure && bent.second_at.is_some_and(|at| at < now) {
            let what = format!("two answers have come, and the time is {skew:?} off");
            return Some(Found::new(Invariant::Time, what, Vec::new()));
        }
        if is_wrong {
            doubt.wrong_at = Some(now);
        }
        if is_wrong || !agent.is_confirmed() {
            doubt.doubted_at = Some(now);
        } else {
            bent.least_ahead_ms = shown.ahead_of_boot_ms;
        }
        bent.least_ahead_ms = bent.least_ahead_ms.min(shown.ahead_of_boot_ms);
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
        let by_wall = bent.shown.wall_ahead_ms;
        // The wall clock itself, and a pause of the length by which it has moved.
        let jumped = bent.shown.ahead_of_boot_ms - bent.least_ahead_ms;
        let ahead = by_wall.max(jumped).max(bent.deceived_ms).max(0);
        let behind = if bent.is_unknown { -by_wall } else { -bent.deceived_ms }.max(0);
        let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        Clocks { ahead: ms(ahead), behind: ms(behind) }
    }

    /// The wall clock was set: from here on the agent can tell that something is wrong.
    pub fn clock_set(&self) {
        let mut bent = self.bent.lock();
        let times = bent.times + 1;
        *bent = Bent { times, answers: 0, second_at: None, was_paused: false, ..*bent };
    }

    /// The node wakes from a pause, and nothing can tell it so.
    pub fn paused(&self, now: Duration) {
        let mut bent = self.bent.lock();
        let (times, interrupted_at) = (bent.times + 1, Some(now));
        *bent = Bent { times, answers: 0, second_at: None, was_paused: true, interrupted_at, ..*bent };
    }

    /// Another agent is started, which knows nothing.
    pub fn restarted(&self, now: Duration) {
        let mut bent = self.bent.lock();
        let (times, shown, interrupted_at) = (bent.times + 1, bent.shown, Some(now));
        let least_ahead_ms = shown.ahead_of_boot_ms;
        *bent = Bent { times, shown, least_ahead_ms, is_unknown: true, interrupted_at, ..Bent::default() };
        *self.doubt.lock() = Doubt::default();
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

    /// Whether two wrong dates in a row have told the agent a wrong time, and two right ones have not come
    /// yet.
    pub fn is_deceived(&self) -> bool {
        self.bent.lock().deceived_ms != 0
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

    /// Whether somebody who asked then was interrupted since.
    pub fn was_interrupted_since(&self, asked: Duration) -> bool {
        self.bent.lock().interrupted_at.is_some_and(|at| at >= asked)
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
                let (number, expiration) = number_of(body).unzip();
                let Some(set) = number.and_then(|number| ledger.sets.get(number)) else {
                    return (None, Some(unknown_set(asked)));
                };
                let found = (expiration.as_deref() != Some(&*written(set.expires)))
                    .then(|| other_expiration(asked))
                    .or_else(|| self.judge_set(ledger, asked, set));
                (number, found.or_else(|| self.judge_wait(ledger, asked, &said)))
            }
            Answer::RefusedByAgent(cause) | Answer::RefusedByAws(cause) | Answer::Trouble(cause) => {
                let is_blamed = match answer {
                    // All tokens are good while they last, and none is refused because the node's clock is
                    // behind.
                    // That there is none is remembered for seconds, which stand still while the node does.
                    Answer::RefusedByAgent(NO_ROLE) => {
                        let pod = ledger.pods.get(asked.token.pod);
                        !self.was_interrupted_since(asked.before.saturating_sub(REFUSAL_ECHO))
                            && !pod.is_some_and(|pod| pod.may_lack_role(asked.before, asked.after))
                    }
                    Answer::RefusedByAgent(_) => asked.token.expires > asked.after,
                    // The memory of refusals stands still while the node does.
                    Answer::RefusedByAws(code) => {
                        *code != "ExpiredTokenException"
                            && !self.was_interrupted_since(asked.before.saturating_sub(REFUSAL_ECHO))
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
        let is_shown_to_nobody = asked.shape.is_required && self.is_unproven(asked);
        if is_shown_to_nobody && !was_given_by_then(ledger, asked, set) {
            let what = "what no key proves was served where that is required, and was not given to it before";
            return Some(Found::new(Invariant::OwnSetOnly, what, vec![pod]));
        }
        let left = set.expires.saturating_sub(asked.after);
        let is_told = !set.is_misdated && !self.is_blind(asked.after);
        // By so much as the agent is behind, and may be.
        let tolerated = self.doubt.lock().behind.min(TOLERATED_SKEW);
        if left + tolerated < MIN_REMAINING_LIFE && is_told {
            let what = format!("served with {} ms left by AWS's clock", left.as_millis());
            return Some(Found::new(Invariant::NeverExpired, what, vec![pod]));
        }
        if let Some(what) = self.is_entitled_no_more(ledger, asked, set) {
            return Some(Found::new(Invariant::Entitlement, what, vec![pod]));
        }
        let issued_lately = [
            of_the_name(ledger, asked).max_by_key(|set| set.came),
            may_be_of_the_name(ledger, asked).max_by_key(|set| set.came),
        ];
        let life = |set: &Set| set.expires.saturating_sub(set.issued);
        let shortest = issued_lately.into_iter().flatten().map(life).fold(life(set), Duration::min);
        let enough = SHORT_LIFE.min(shortest / 3);
        let was_right = !self.was_wrong_since(asked.before.saturating_sub(AFTER_DOUBT));
        // Nothing is renewed for a token that may be shown to nobody.
        let may_be_renewed = !is_shown_to_nobody;
        if left + Duration::from_secs(1) < enough
            && was_right
            && may_be_renewed
            && self.is_calm(ledger, asked)
        {
            let what = format!("served with {} s left although AWS is healthy", left.as_secs());
            return Some(Found::new(Invariant::LongLife, what, vec![pod]));
        }
        None
    }

    /// Whether the agent had no key for this token at any moment of the request.
    fn is_unproven(&self, asked: &Asked) -> bool {
        asked.known_since.is_none() && asked.was_known_since.is_none()
    }

    /// Why the pod should have this set no more, if it should not.
    fn is_entitled_no_more(&self, ledger: &Ledger, asked: &Asked, set: &Set) -> Option<String> {
        let newest =
            of_the_name(ledger, asked).filter(|set| set.came < asked.before).map(|set| set.role).max();
        if newest.is_some_and(|role| role > set.role) {
            return Some("served credentials of a role that its association has left".to_owned());
        }
        let pod = asked.token.pod;
        let NotFound { first, last, times, late } = ledger.said_of(pod).not_found?;
        let is_alone = ledger.is_alone_without(pod, first.saturating_sub(3 * NOT_FOUND_FOR), asked.after);
        if !is_alone || last + REFUSAL_ECHO > asked.before {
            return None;
        }
        let since = asked.before.saturating_sub(first);
        let asks_on = asked.asking_since <= first && asked.clear_for >= since.max(LONGEST_UNENTITLED);
        let is_stale = asked.shape.max_stale.is_some_and(|stale| since > stale + STALE_SLACK);
        let is_over = asks_on && (since > LONGEST_UNENTITLED || is_stale);
        (late >= TIMES_AT_MOST || is_over).then(|| {
            format!("served {since:?} after AWS first said that there is no association, and {times} times")
        })
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
        let awake_for =
            self.bent.lock().interrupted_at.map_or(asked.after, |at| asked.after.saturating_sub(at));
        if cause.starts_with("own_credentials") && asked.clear_for.min(awake_for) > LONGEST_OWN_TROUBLE {
            let what = format!("the node has credentials that AWS takes, and yet: {cause}");
            return Some(Found::new(Invariant::OwnCredentials, what, vec![asked.token.pod]));
        }
        let has_expired = asked.token.expires <= asked.after;
        // Where it is required, a key must be there in time.
        let is_to_be_found = asked.published_since.is_none_or(|at| at + TO_FIND_A_KEY > asked.before);
        // Of a crowd of accounts two are read in a second.
        let is_unread = cause == NOT_YET_KNOWN;
        let is_excused = has_expired || is_unread || (asked.shape.is_required && is_to_be_found);
        (self.is_calm(ledger, asked) && !is_excused).then(|| {
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
        let is_over = said.not_found.is_some_and(|not_found| not_found.may_end_it(asked.after, &asked.shape));
        // If AWS says it of everybody at once, it is AWS's own trouble.
        let is_everybodys = asked.is_everybody_without;
        let is_entitled = !is_over || is_everybodys;
        // By the latest time that it may be for the agent; of a token the times are judged by the source
        // then.
        let Clocks { ahead, behind } = asked.clocks;
        let is_timely = asked.token.expires > asked.after + ahead + TOLERATED_SKEW
            && asked.token.issued + behind <= asked.before + TOLERATED_SKEW;
        let is_proven = ledger.token_now(asked.token.number).is_some_and(|token| token.is_verified)
            && asked.known_since.is_some_and(|since| since < asked.before);
        let is_interrupted = self.bent.lock().interrupted_at.is_some_and(|at| at >= asked.before);
        let role = said.sets.iter().filter_map(|set| ledger.sets.get(*set)).map(|set| set.role).max();
        is_entitled
            && is_timely
            && !is_interrupted
            && (is_proven || !asked.shape.is_required)
            && said.sets.iter().filter_map(|number| ledger.sets.get(*number)).any(|set| {
                set.came < asked.before
                    && !set.is_misdated
                    && set.is_there()
                    && Some(set.role) == role
                    && ledger.pods.get(set.pod).is_none_or(|pod| {
                        pod.source == Source::EksAuth || pod.must_have(set, asked.after)
                    })
                    && (set.token == asked.token.number || (set.is_the_pods && is_proven))
                    // What is proven and was kept once stays, whatever room there is; the rest needs room.
                    && (asked.crowded_at.is_none_or(|at| at < set.came)
                        || (set.was_kept && set.is_the_pods && is_proven))
                    && set.expires > asked.after + ahead + MIN_REMAINING_LIFE + TOLERATED_SKEW
            })
    }

    /// Whether there has been no trouble of any kind for a while.
    fn is_calm(&self, ledger: &Ledger, asked: &Asked) -> bool {
        let has_spell = ledger.pods.get(asked.token.pod).is_some_and(|pod| {
            pod.spells.iter().any(|(from, to, _)| *from <= asked.after && asked.before < *to + CALM)
        });
        let Bent { lied_at, rejected_at, interrupted_at, .. } = *self.bent.lock();
        let is_interrupted = interrupted_at.is_some_and(|at| at + LONGEST_OWN_TROUBLE >= asked.before);
        let is_lied_to = lied_at.is_some_and(|at| at + CALM > asked.before);
        let has_just_learned = rejected_at.is_some_and(|at| at + JUST_LEARNED > asked.before);
        asked.clear_for >= CALM && !has_spell && !is_lied_to && !has_just_learned && !is_interrupted
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

/// Whether the pod had this set, or one that ends as late, when its source last granted a set to this very
/// token, which a key had proven: so much is served where no key proves it any more
/// (docs/design/decisions.md#two-names). Nothing is fetched for it.
fn was_given_by_then(ledger: &Ledger, asked: &Asked, set: &Set) -> bool {
    let was_proven = ledger.token_now(asked.token.number).is_some_and(|token| token.was_verified);
    let numbers = ledger.said_of(asked.token.pod).sets;
    let sets = || numbers.iter().filter_map(|number| ledger.sets.get(*number)).filter(|set| !set.is_lost);
    let granted = sets().filter(|set| set.token == asked.token.number).map(|set| set.came).max();
    let had = |earlier: &Set| granted.is_some_and(|granted| earlier.came <= granted);
    let was_fetched = set.came > asked.before;
    was_proven && !was_fetched && sets().any(|earlier| had(earlier) && set.expires <= earlier.expires)
}

/// The sets that the agent may find for who asks, by either name.
fn of_the_name<'a>(ledger: &'a Ledger, asked: &Asked) -> impl Iterator<Item = &'a Set> {
    let is_proven = ledger.token_now(asked.token.number).is_some_and(|token| token.is_verified);
    let token = asked.token.number;
    let sets = ledger.said_of(asked.token.pod).sets;
    sets.into_iter()
        .filter_map(|set| ledger.sets.get(set))
        .filter(move |set| set.is_there() && (set.token == token || (set.is_the_pods && is_proven)))
}

/// The sets that the agent may have compared with what it serves, by either name: also what a token earned
/// before a key had proven it and after, which may be kept as the pod's.
fn may_be_of_the_name<'a>(ledger: &'a Ledger, asked: &Asked) -> impl Iterator<Item = &'a Set> {
    let is_proven = ledger.token_now(asked.token.number).is_some_and(|token| token.is_verified);
    let token = asked.token.number;
    let was_proven = |set: &Set| ledger.token_now(set.token).is_some_and(|token| token.was_verified);
    let sets = ledger.said_of(asked.token.pod).sets;
    sets.into_iter()
        .filter_map(|set| ledger.sets.get(set))
        .filter(move |set| set.is_there() && (set.token == token || (is_proven && was_proven(set))))
}

/// The number of the set in a body, and when it says that it expires. All five fields must be there, and the
/// three of the set must belong together.
fn number_of(body: &[u8]) -> Option<(usize, String)> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let field = |name: &str| body.get(name).and_then(serde_json::Value::as_str);
    let number = field("AccessKeyId")?.strip_prefix("ASIA")?;
    let belongs = field("SecretAccessKey")?.strip_prefix("secret-") == Some(number)
        && field("Token")?.strip_prefix("session-") == Some(number);
    let expiration = field("Expiration")?.to_owned();
    belongs.then(|| number.parse().ok()).flatten().map(|number| (number, expiration))
}

/// The moment as AWS has it, as SDKs read it.
fn written(moment: Duration) -> String {
    DateTime::from(UNIX_EPOCH + World::BEGINNING + moment).fmt(Format::DateTime).unwrap_or_default()
}

fn other_expiration(asked: &Asked) -> Found {
    let what = "the set does not expire when AWS says that it does";
    Found::new(Invariant::NeverExpired, what, vec![asked.token.pod])
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
            Self::Entitlement => "what ends an entitlement ends it within minutes",
            Self::Panic => "a panic",
        })
    }
}
