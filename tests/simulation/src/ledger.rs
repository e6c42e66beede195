//! What AWS remembers: for whom it issued what, and how it was called.
//!
//! Owns: tokens, identities and sets by number, and the checks that only AWS can make (invariants 4, 5 and
//! 8). Must not know: what the agent holds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::watch::{Found, Invariant};

/// Design 4.6: calls under way at first, at most, and successes for one more.
const FIRST_LIMIT: u32 = 8;
const HIGHEST_LIMIT: u32 = 50;
/// A call that takes longer is not counted against those who wait with nothing in hand.
const PUNCTUAL: Duration = Duration::from_millis(1_200);
const SUCCESSES_PER_STEP: u32 = 5;
/// One burst of 429 is one signal.
const HALVING_REST: Duration = Duration::from_secs(2);
/// What the last request of a pod began may go on for so long when the pod is gone
/// (docs/design/decisions.md#upstream): 10 s, and an attempt that began within them. What comes later are
/// renewals.
const LAST_FLIGHT: Duration = Duration::from_secs(12);
/// A pod that is gone costs so many calls for renewals at most, whatever AWS says (invariant 8).
const CALLS_WHEN_GONE: u32 = 2;
/// A token may be used for so long after its `exp`: what the clocks may differ by without being corrected.
pub const TOLERATED_SKEW: Duration = Duration::from_secs(6);

/// A pod's spell: from, to, and the code that AWS says to it meanwhile.
pub type Spell = (Duration, Duration, &'static str);

/// One pod of the story.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its slot.
    pub slot: u32,
    /// The life of the sets that its role gives.
    pub life: Duration,
    /// When its association or its role is in trouble.
    pub spells: Vec<Spell>,
    /// Since when it is gone.
    pub gone_at: Option<Duration>,
}

/// What the agent must treat as one caller: see `node::identity_of`.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Calls under way.
    under_way: u32,
    /// Calls for renewals after the pod was gone.
    called_when_gone: u32,
    /// Sets issued that were asked for after the pod was gone.
    issued_when_gone: u32,
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
    /// Under which identity.
    pub identity: usize,
    /// Its `exp`.
    pub expires: Duration,
}

/// A set that was issued.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// To which pod.
    pub pod: usize,
    /// When.
    pub issued: Duration,
    /// Until when AWS takes it.
    pub expires: Duration,
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
    identities: BTreeMap<usize, Identity>,
    by_text: BTreeMap<String, usize>,
    /// Calls so far.
    pub calls: u64,
    under_way: u32,
    /// Of the identities that have a call under way, since when.
    since: BTreeMap<usize, Duration>,
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

    /// An identity; a blank one if it is new.
    pub fn identity(&self, number: usize) -> Identity {
        self.identities.get(&number).cloned().unwrap_or_default()
    }

    /// How many identities have a set that has not been expired for `grace`.
    pub fn living(&self, now: Duration, grace: Duration) -> usize {
        let lives = |set: &usize| self.sets.get(*set).is_some_and(|set| set.expires + grace > now);
        self.identities.values().filter(|identity| identity.sets.iter().any(lives)).count()
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
        let identity = self.identities.entry(token.identity).or_default();
        identity.under_way += 1;
        identity.called_when_gone += u32::from(is_for_nobody);
        if identity.called_when_gone > CALLS_WHEN_GONE {
            let what = format!("{} calls for a pod that is gone", identity.called_when_gone);
            return Some(Found::new(Invariant::Gone, what, vec![token.pod]));
        }
        if identity.under_way > 1 {
            return Some(Found::new(
                Invariant::OneCall,
                "two calls of one identity at once",
                vec![token.pod],
            ));
        }
        self.since.insert(token.identity, now);
        let most = self.share.most(now);
        let punctual = self.since.values().filter(|since| now.saturating_sub(**since) < PUNCTUAL).count();
        if self.under_way > HIGHEST_LIMIT || u32::try_from(punctual).unwrap_or(u32::MAX) > most {
            let what =
                format!("{} calls at once, {punctual} of them young, of {most} allowed", self.under_way);
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
        if let Some(identity) = self.identities.get_mut(&token.identity) {
            identity.under_way = identity.under_way.saturating_sub(1);
        }
        self.since.remove(&token.identity);
    }

    /// A set is issued to a call that came at `arrived`; its number and its life.
    pub fn issue(
        &mut self,
        token: Token,
        arrived: Duration,
        now: Duration,
    ) -> (usize, Duration, Option<Found>) {
        self.share.answered(now);
        let pod = self.pods.get(token.pod);
        let life = pod.map_or(Duration::from_secs(3600), |pod| pod.life);
        let was_gone = pod.and_then(|pod| pod.gone_at).is_some_and(|gone_at| arrived > gone_at);
        let number = self.sets.len();
        self.sets.push(Set { pod: token.pod, issued: now, expires: now + life });
        let identity = self.identities.entry(token.identity).or_default();
        identity.sets.push(number);
        identity.not_found = None;
        identity.issued_when_gone += u32::from(was_gone);
        let found = (identity.issued_when_gone > 1)
            .then(|| Found::new(Invariant::Gone, "a pod that is gone was renewed twice", vec![token.pod]));
        (number, life, found)
    }

    /// AWS refuses this identity.
    pub fn refuse(&mut self, token: Token, code: &str, now: Duration) {
        self.share.answered(now);
        let identity = self.identities.entry(token.identity).or_default();
        identity.refused_at = Some(now);
        if code == "ResourceNotFoundException" {
            let (first, count) = identity.not_found.unwrap_or((now, 0));
            identity.not_found = Some((first, count + 1));
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
