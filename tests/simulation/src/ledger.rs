//! What AWS remembers: for whom it issued what, and how it was called.
//!
//! Owns: tokens, identities and sets by number, and the checks that only AWS can make (invariants 4, 5 and
//! 8). Must not know: what the agent holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::watch::{Found, Invariant};

/// Design 4.6: calls under way at first, at most, and successes for one more.
const FIRST_LIMIT: u32 = 8;
const HIGHEST_LIMIT: u32 = 50;
const SUCCESSES_PER_STEP: u32 = 5;
/// A call that takes longer is not counted against those who wait with nothing in hand.
const PUNCTUAL: Duration = Duration::from_millis(1_200);
/// One burst of 429 is one signal.
const HALVING_REST: Duration = Duration::from_secs(2);
/// What the last request of a pod began may go on for so long when the pod is gone
/// (docs/design/decisions.md#upstream): 10 s, and an attempt that began within them. What comes later are
/// renewals.
const LAST_FLIGHT: Duration = Duration::from_secs(12);
/// A pod that is gone costs so many calls for renewals at most, whatever AWS says (invariant 8).
const CALLS_WHEN_GONE: u32 = 2;
/// So long after it asked last a pod may cost a second set, if the time is in doubt
/// (docs/design/decisions.md#time): a minute, and the call itself.
const HARDLY_GONE: Duration = Duration::from_secs(60).saturating_add(LAST_FLIGHT);
/// A token may be used for so long after its `exp`: what the clocks may differ by without being corrected.
pub const TOLERATED_SKEW: Duration = Duration::from_secs(6);

/// A pod's spell: from, to, and the code that AWS says to it meanwhile.
pub type Spell = (Duration, Duration, &'static str);

/// One pod of the story.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its slot.
    pub slot: u32,
    /// Which pod of its slot.
    pub generation: u32,
    /// The life of the sets that its role gives.
    pub life: Duration,
    /// When its association or its role is in trouble.
    pub spells: Vec<Spell>,
    /// Since when it is gone.
    pub gone_at: Option<Duration>,
}

/// What the agent must treat as one caller: the pod, over all tokens that a key has proven to be its own. A
/// token that no key ever could prove is a caller of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// By number.
    Pod(usize),
    /// By number.
    Token(usize),
}

/// What AWS knows of one caller.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Calls for renewals after the pod was gone.
    called_when_gone: u32,
    /// Sets issued that were asked for after the pod was gone, and not to know the time while it was hardly
    /// gone.
    issued_when_gone: u32,
}

/// What AWS said of a pod.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The sets issued to it.
    pub sets: Vec<usize>,
    /// When AWS last refused it.
    pub refused_at: Option<Duration>,
    /// Since the last set: when AWS first said that there is no association, and how often.
    pub not_found: Option<(Duration, u32)>,
}

/// A token in circulation.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// Whose it is.
    pub pod: usize,
    /// Its number.
    pub number: usize,
    /// The key that signed it.
    pub key: u32,
    /// Its `nbf`.
    pub issued: Duration,
    /// Its `exp`.
    pub expires: Duration,
    /// A key has proven it to the agent.
    pub was_verified: bool,
    /// And that key was not withdrawn since.
    pub is_verified: bool,
    /// It earned a set that may be kept under its own name, and renewed there.
    pub has_its_own: bool,
    /// A thief made it, with a key that leaked: AWS knows, and takes it for nobody's.
    pub is_forged: bool,
}

impl Token {
    /// A token of a pod that nobody has presented yet.
    pub const fn new(pod: usize, number: usize, key: u32, issued: Duration, expires: Duration) -> Self {
        let no = false;
        let (was_verified, is_verified, has_its_own, is_forged) = (no, no, no, no);
        Self { pod, number, key, issued, expires, was_verified, is_verified, has_its_own, is_forged }
    }
}

/// A set that was issued.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// To which pod.
    pub pod: usize,
    /// For which token.
    pub token: usize,
    /// A key had proven that token to the agent long enough ago that the pod's name holds the set.
    pub is_the_pods: bool,
    /// It came with a wrong date, so the agent cannot know how long it lives.
    pub is_misdated: bool,
    /// When.
    pub issued: Duration,
    /// Until when AWS takes it.
    pub expires: Duration,
}

/// How the agent must keep a set.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Under the pod's name.
    pub is_the_pods: bool,
    /// With a wrong idea of its life.
    pub is_misdated: bool,
    /// The agent was in doubt about the time, and any answer tells it.
    pub tells_the_time: bool,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// All pods so far.
    pub pods: Vec<Pod>,
    /// All tokens so far.
    pub tokens: Vec<Token>,
    /// All sets so far.
    pub sets: Vec<Set>,
    identities: BTreeMap<Name, Identity>,
    said: BTreeMap<usize, Said>,
    /// The tokens of the calls under way, and since when they are.
    calling: Vec<(usize, Duration)>,
    by_text: BTreeMap<String, usize>,
    /// Calls so far.
    pub calls: u64,
    under_way: u32,
    share: Share,
}

impl Ledger {
    /// A pod starts; its number.
    pub fn add_pod(&mut self, pod: Pod) -> usize {
        self.pods.push(pod);
        self.pods.len() - 1
    }

    /// A token was minted.
    pub fn add_token(&mut self, text: String, token: Token) {
        self.by_text.insert(text, self.tokens.len());
        self.tokens.push(token);
    }

    /// The token of this text.
    pub fn token(&self, text: &str) -> Option<Token> {
        self.by_text.get(text).and_then(|number| self.tokens.get(*number)).copied()
    }

    /// The token of this number as it is now.
    pub fn token_now(&self, number: usize) -> Option<Token> {
        self.tokens.get(number).copied()
    }

    /// What AWS said of a pod; nothing if it is new.
    pub fn said_of(&self, pod: usize) -> Said {
        self.said.get(&pod).cloned().unwrap_or_default()
    }

    /// The agent judged a token: whether a key has proven it.
    pub fn judged(&mut self, number: usize, is_verified: bool) {
        if let Some(token) = self.tokens.get_mut(number) {
            token.was_verified |= is_verified;
            token.is_verified |= is_verified;
        }
    }

    /// The agent has read the document, and has these keys no more.
    pub fn withdrawn(&mut self, is_known: impl Fn(u32) -> bool) {
        for token in &mut self.tokens {
            token.is_verified &= is_known(token.key);
        }
    }

    fn name_of(&self, token: Token) -> Name {
        let is_proven = self.token_now(token.number).is_some_and(|token| token.was_verified);
        if is_proven { Name::Pod(token.pod) } else { Name::Token(token.number) }
    }

    /// How many names may have a set that has not been expired for `grace`: tokens, and pods with a token
    /// that was proven.
    pub fn living(&self, now: Duration, grace: Duration) -> usize {
        let lives = |set: &&Set| set.is_misdated || set.expires + grace > now;
        let (mut names, mut sets) = (BTreeSet::new(), 0);
        for set in self.sets.iter().filter(lives) {
            sets += 1;
            names.insert(Name::Token(set.token));
            if self.tokens.get(set.token).is_some_and(|token| token.was_verified) {
                names.insert(Name::Pod(set.pod));
            }
        }
        names.len().min(sets)
    }

    /// Calls under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// A call comes in.
    pub fn arrive(&mut self, token: Token, now: Duration, is_in_doubt: bool) -> Option<Found> {
        self.calls += 1;
        self.under_way += 1;
        let gone_at = self.pods.get(token.pod).and_then(|pod| pod.gone_at);
        let is_for_nobody = gone_at.is_some_and(|gone_at| now > gone_at + LAST_FLIGHT);
        let is_second = self.calling.iter().any(|(other, _)| self.is_known_to_be_one(*other, token.number));
        self.calling.push((token.number, now));
        let identity = self.identities.entry(self.name_of(token)).or_default();
        identity.called_when_gone += u32::from(is_for_nobody);
        if identity.called_when_gone > CALLS_WHEN_GONE {
            let what = format!("{} calls for a pod that is gone", identity.called_when_gone);
            return Some(Found::new(Invariant::Gone, what, vec![token.pod]));
        }
        if is_second {
            return Some(Found::new(
                Invariant::OneCall,
                "two calls of one identity at once",
                vec![token.pod],
            ));
        }
        let most = self.share.most(now);
        let is_young = |(_, since): &&(usize, Duration)| now.saturating_sub(*since) < PUNCTUAL;
        let young = u32::try_from(self.calling.iter().filter(is_young).count()).unwrap_or(u32::MAX);
        if self.under_way > HIGHEST_LIMIT || young > most {
            let what = format!("{} calls at once, {young} of them young, of {most} allowed", self.under_way);
            return Some(Found::new(Invariant::Budget, what, vec![token.pod]));
        }
        if now > token.expires + TOLERATED_SKEW && !is_in_doubt {
            return Some(Found::new(Invariant::Blame, "a token was used past its exp", vec![token.pod]));
        }
        None
    }

    /// A call is over, one way or another.
    pub fn leave(&mut self, token: Token) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(index) = self.calling.iter().position(|(number, _)| *number == token.number) {
            self.calling.swap_remove(index);
        }
    }

    /// Whether the agent knows that two tokens are of one caller: it is the same token, or keys that it still
    /// has have proven both to be of one pod.
    fn is_known_to_be_one(&self, one: usize, other: usize) -> bool {
        let pod = |number| self.token_now(number).filter(|token| token.is_verified).map(|token| token.pod);
        one == other || (pod(one).is_some() && pod(one) == pod(other))
    }

    /// A set is issued to a call that came at `arrived`; its number and its life.
    pub fn issue(
        &mut self,
        token: Token,
        arrived: Duration,
        now: Duration,
        kept: Kept,
    ) -> (usize, Duration, Option<Found>) {
        self.share.answered(now);
        let pod = self.pods.get(token.pod);
        let life = pod.map_or(Duration::from_secs(3600), |pod| pod.life);
        let gone_for = pod.and_then(|pod| pod.gone_at).and_then(|gone_at| arrived.checked_sub(gone_at));
        let was_gone = gone_for.is_some_and(|gone_for| !gone_for.is_zero());
        let is_excused = kept.tells_the_time && gone_for.is_some_and(|gone_for| gone_for < HARDLY_GONE);
        let number = self.sets.len();
        let Kept { is_the_pods, is_misdated, .. } = kept;
        let (pod, expires) = (token.pod, now + life);
        self.sets.push(Set { pod, token: token.number, is_the_pods, is_misdated, issued: now, expires });
        if let Some(token) = self.tokens.get_mut(token.number) {
            token.has_its_own |= !is_the_pods;
        }
        let said = self.said.entry(token.pod).or_default();
        said.sets.push(number);
        said.not_found = None;
        let identity = self.identities.entry(self.name_of(token)).or_default();
        identity.issued_when_gone += u32::from(was_gone && !is_excused);
        let found = (identity.issued_when_gone > 1)
            .then(|| Found::new(Invariant::Gone, "a pod that is gone was renewed twice", vec![token.pod]));
        (number, life, found)
    }

    /// AWS refuses this identity.
    pub fn refuse(&mut self, token: Token, code: &str, now: Duration) {
        self.share.answered(now);
        let said = self.said.entry(token.pod).or_default();
        said.refused_at = Some(now);
        if code == "ResourceNotFoundException" {
            let (first, count) = said.not_found.unwrap_or((now, 0));
            said.not_found = Some((first, count + 1));
        }
    }

    /// AWS throttles.
    pub fn throttle(&mut self, now: Duration) {
        self.share.throttled(now);
    }
}

/// The limit that the agent's budget must have, reckoned from AWS's own answers.
#[derive(Debug)]
struct Share {
    limit: u32,
    successes: u32,
    halved_at: Option<Duration>,
    /// The limit before the last halving: calls admitted under it may still come in for a moment.
    before: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { limit: FIRST_LIMIT, successes: 0, halved_at: None, before: FIRST_LIMIT }
    }
}

impl Share {
    fn answered(&mut self, _now: Duration) {
        self.successes += 1;
        if self.successes >= SUCCESSES_PER_STEP {
            self.successes = 0;
            self.limit = (self.limit + 1).min(HIGHEST_LIMIT);
        }
    }

    fn throttled(&mut self, now: Duration) {
        self.successes = 0;
        if self.halved_at.is_none_or(|at| now.saturating_sub(at) >= HALVING_REST) {
            self.halved_at = Some(now);
            self.before = self.limit;
            self.limit = (self.limit / 2).max(1);
        }
    }

    /// The most calls that may be under way now. Rounded up by one: a success may count before or after a 429
    /// of the same moment.
    fn most(&self, now: Duration) -> u32 {
        let is_recent = self.halved_at.is_some_and(|at| now.saturating_sub(at) < HALVING_REST);
        (if is_recent { self.limit.max(self.before) } else { self.limit }) + 1
    }
}
