//! What AWS remembers: for whom it issued what, and how it was called.
//!
//! Owns: tokens, identities and sets by number, and the checks that only AWS can make (invariants 4, 5 and
//! 8). Must not know: what the agent holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::kind::NO_ASSOCIATION;
use crate::rng::Rng;
use crate::shape::Shape;
use crate::source::{OfEach, Source};
use crate::throttling::{MOST_CALLS, Throttling, Waiting};
use crate::watch::{Found, Invariant};

const MINUTE: Duration = Duration::from_secs(60);
/// Expired sets are gone after this: the worker rests 30 s at most, and clocks may differ by a little.
pub const TO_TIDY: Duration = Duration::from_secs(60);
/// So many identities of one address are kept that no key proves (docs/design/decisions.md#fairness).
const KEPT_OF_AN_ADDRESS: usize = 16;

/// What the last request of a pod began may go on for so long when the pod is gone
/// (docs/design/decisions.md#upstream): 10 s, and an attempt that began within them. What comes later are
/// renewals.
const LAST_FLIGHT: Duration = Duration::from_secs(12);
/// A pod that is gone costs so many calls for renewals at most, whatever AWS says (invariant 8).
const CALLS_WHEN_GONE: u32 = 2;
/// So long after it asked last a pod may cost a second set, if the time is in doubt
/// (docs/design/decisions.md#time): a minute, and the call itself.
const HARDLY_GONE: Duration = Duration::from_secs(60).saturating_add(LAST_FLIGHT);
/// A token may be used for so long after its `exp`: what the clocks may differ by without being corrected. A
/// second and the journey of an answer, and what the worst quartz of a story gains in six hours.
pub const TOLERATED_SKEW: Duration = Duration::from_secs(4);
/// AWS must say so often that there is no association (docs/design/decisions.md#entitlement) ...
const TIMES: u32 = 3;
/// ... and for so long.
pub const NOT_FOUND_FOR: Duration = Duration::from_secs(300);

/// A pod's spell: from, to, and the code that AWS says to it meanwhile.
pub type Spell = (Duration, Duration, &'static str);

/// What STS says of a role that a pod may not assume; and of a spell without an annotation, nothing.
pub const ACCESS_DENIED: &str = "AccessDenied";
/// The annotation of a pod's service account is gone meanwhile.
pub const NO_ROLE: &str = "no role";
/// An annotation is read once a minute at most: who asks so long after a change has it read again ...
const ROLE_IS_STALE: Duration = Duration::from_secs(61);
/// ... and so long after that STS is asked for the old role no more: a loss is believed by a second read ten
/// seconds later, and some may be read before.
const ROLE_IS_LEFT: Duration = Duration::from_secs(60);
/// A role that was taken back by mistake is there so soon.
const TO_FIND_A_ROLE: Duration = Duration::from_secs(90);

/// One pod of the story.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Where it has its credentials from.
    pub source: Source,
    /// Its slot.
    pub slot: u32,
    /// Which pod of its slot.
    pub generation: u32,
    /// The life of the sets that its role gives.
    pub life: Life,
    /// When its association moves to another role.
    pub moves: Vec<Duration>,
    /// When its association or its role is in trouble.
    pub spells: Vec<Spell>,
    /// Since when it is gone.
    pub gone_at: Option<Duration>,
    /// When it asked, with a token that a key proves, so that the last change of its role is read.
    pub noticed_at: Option<Duration>,
}

impl Pod {
    /// Which of its roles the annotation names, if it names one.
    pub fn role_at(&self, at: Duration) -> Option<usize> {
        let is_without = self.without_role().any(|(from, to)| (from..to).contains(&at));
        (!is_without).then(|| self.moves.iter().filter(|moved| **moved <= at).count())
    }

    fn without_role(&self) -> impl Iterator<Item = (Duration, Duration)> {
        self.spells.iter().filter(|(_, _, code)| *code == NO_ROLE).map(|(from, to, _)| (*from, *to))
    }

    /// When its annotation changed last.
    fn changed_at(&self, at: Duration) -> Duration {
        let ends = self.without_role().flat_map(|(from, to)| [from, to]);
        ends.chain(self.moves.iter().copied()).filter(|change| *change <= at).max().unwrap_or_default()
    }

    /// Whether it may be told that it has no role.
    pub fn may_lack_role(&self, from: Duration, to: Duration) -> bool {
        self.without_role().any(|(began, ended)| began <= to && from < ended + TO_FIND_A_ROLE)
    }

    /// Whether the agent must have this set of a role, if it lives: the role is the one of now, and was not
    /// lost since.
    pub fn must_have(&self, set: &Set, at: Duration) -> bool {
        self.role_at(at) == Some(set.role)
            && self.without_role().all(|(began, ended)| began > at || ended + TO_FIND_A_ROLE < set.came)
    }
}

/// How long the sets of a role live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// All alike.
    Steady(Duration),
    /// Between a minute and six hours, drawn for each; and often 59 minutes.
    Drawn,
    /// Six hours, and each a third shorter than the one before, down to a minute; then six hours again.
    Shrinking,
}

impl Life {
    /// The life of the set that comes after so many.
    fn of_set(self, number: usize, chance: &mut Rng) -> Duration {
        match self {
            Self::Steady(life) => life,
            Self::Drawn if chance.percent(20) => 59 * MINUTE,
            Self::Drawn => chance.between(MINUTE, 360 * MINUTE),
            Self::Shrinking => {
                let steps = i32::try_from(number % 15).unwrap_or_default();
                (360 * MINUTE).mul_f64((2.0_f64 / 3.0).powi(steps)).max(MINUTE)
            }
        }
    }
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
    /// Since the last set: AWS's word that there is no association.
    pub not_found: Option<NotFound>,
}

/// AWS has said that there is no association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// The first time.
    pub first: Duration,
    /// The last time.
    pub last: Duration,
    /// How often.
    pub times: u32,
    /// How often when it had said so for as long as it must.
    pub late: u32,
}

impl NotFound {
    /// Whether AWS has said it for so long, and so often, that the pod may be entitled to nothing any more.
    pub fn may_end_it(&self, at: Duration, shape: &Shape) -> bool {
        let since = at.saturating_sub(self.first);
        let is_stale = shape.max_stale.is_some_and(|stale| since >= stale);
        is_stale || (self.times >= TIMES && since >= NOT_FOUND_FOR)
    }
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
    /// When the agent last had a request with it that nothing proved at that moment. What that began is a
    /// call for this token by itself.
    pub unproven_at: Option<Duration>,
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
        let unproven_at = None;
        Self {
            pod,
            number,
            key,
            issued,
            expires,
            was_verified,
            is_verified,
            unproven_at,
            has_its_own,
            is_forged,
        }
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
    /// When the agent had it.
    pub came: Duration,
    /// Until when AWS takes it, to the second, as it says.
    pub expires: Duration,
    /// For which of the roles that its association has had.
    pub role: usize,
    /// It was served from memory: the agent has kept it.
    pub was_kept: bool,
    /// The agent that had it was killed.
    pub is_lost: bool,
    /// AWS has said so often that its pod has no association that the agent may have it no more. What another
    /// token of that pod has earned, which no key proves to be of it, it may have still.
    pub may_be_over: bool,
}

impl Set {
    /// Whether the agent must have it, if it lives.
    pub const fn is_there(&self) -> bool {
        !self.is_lost && !self.may_be_over
    }
}

/// How the agent must keep a set.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Under the pod's name.
    pub is_the_pods: bool,
    /// With a wrong idea of its life, or not at all because of one.
    pub is_misdated: bool,
    /// The agent was in doubt about the time, and any answer tells it.
    pub tells_the_time: bool,
    /// When the agent has it.
    pub came: Duration,
}

/// A set as it is issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its number.
    pub number: usize,
    /// Until when AWS takes it.
    pub expires: Duration,
    /// For which of the roles that its association has had.
    pub role: usize,
    /// What it breaks.
    pub found: Option<Found>,
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
    /// The tokens of the calls under way, and the roles that STS is asked for.
    calling: Vec<(usize, Option<usize>)>,
    by_text: BTreeMap<String, usize>,
    /// Calls so far.
    pub calls: u64,
    under_way: OfEach<u32>,
    throttling: OfEach<Throttling>,
    waiting: OfEach<Waiting>,
    crowded_at: Option<Duration>,
    crowded_addresses: BTreeMap<u32, Duration>,
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

    /// The agent judged a token: whether a key has proven it. Then it looks what role its pod has.
    pub fn judged(&mut self, number: usize, is_verified: bool, now: Duration) {
        let Some(token) = self.tokens.get_mut(number) else { return };
        if !is_verified {
            token.unproven_at = Some(now);
            return;
        }
        (token.was_verified, token.is_verified) = (true, true);
        if let Some(pod) = self.pods.get_mut(token.pod)
            && pod.noticed_at.is_none_or(|noticed| noticed < pod.changed_at(now))
            && pod.changed_at(now) + ROLE_IS_STALE < now
        {
            pod.noticed_at = Some(now);
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

    /// The agent was killed: what it had, it has no more.
    pub fn restarted(&mut self) {
        for set in &mut self.sets {
            set.is_lost = true;
        }
        for token in &mut self.tokens {
            (token.is_verified, token.has_its_own) = (false, false);
        }
        for said in self.said.values_mut() {
            said.not_found = None;
        }
    }

    /// A set was served that had come before it was asked for.
    pub fn served_from_memory(&mut self, set: usize) {
        if let Some(set) = self.sets.get_mut(set) {
            set.was_kept = true;
        }
    }

    /// A pod without credentials begins to wait.
    pub fn waits(&mut self, pod: usize, now: Duration) {
        let source = self.source_of(pod);
        self.waiting.of_mut(source).begins(pod, now);
    }

    /// Whether more waited for this source at any moment since then than are called for at once.
    pub fn was_crowd_since(&self, source: Source, since: Duration) -> bool {
        self.waiting.of(source).crowd_at.is_some_and(|at| at >= since)
    }

    /// Where a pod has its credentials from.
    pub fn source_of(&self, pod: usize) -> Source {
        self.pods.get(pod).map_or(Source::EksAuth, |pod| pod.source)
    }

    /// The role that the service account of a slot is annotated with: what its last pod is to have.
    pub fn annotated(&self, slot: u32, now: Duration) -> Option<usize> {
        let pod = self.pods.iter().rev().find(|pod| pod.slot == slot)?;
        pod.role_at(now).filter(|_| pod.source == Source::Sts)
    }

    /// How many sets STS issued, and how many of them for another role than the first of their pod.
    pub fn of_roles(&self) -> (usize, usize) {
        let of_sts = || self.sets.iter().filter(|set| self.source_of(set.pod) == Source::Sts);
        (of_sts().count(), of_sts().filter(|set| set.role > 0).count())
    }

    /// Whether STS is asked for a role that its pod has left, and since when that pod has asked again. By now
    /// the agent can know, unless it was interrupted since that moment.
    pub fn asks_for_left_role(&self, token: Token, role: usize, now: Duration) -> Option<Duration> {
        let pod = self.pods.get(token.pod)?;
        let noticed_at = pod.noticed_at.filter(|noticed| *noticed > pod.changed_at(now))?;
        let is_left = pod.role_at(now) != Some(role) && now > noticed_at + ROLE_IS_LEFT;
        is_left.then_some(noticed_at)
    }

    /// It waits no more.
    pub fn waits_no_more(&mut self, pod: usize) {
        let source = self.source_of(pod);
        self.waiting.of_mut(source).since.remove(&pod);
    }

    /// How many pods AWS knows no association of now, and how many pods there are.
    pub fn without_association(&self, now: Duration) -> (usize, usize) {
        let living = || self.pods.iter().filter(|pod| pod.gone_at.is_none());
        let has_none = |pod: &&Pod| {
            let mut spells = pod.spells.iter().filter(|(_, _, code)| *code == NO_ASSOCIATION);
            spells.any(|(from, to, _)| (*from..*to).contains(&now))
        };
        (living().filter(has_none).count(), living().count())
    }

    /// Whether nobody else has been without an association since then.
    pub fn is_alone_without(&self, pod: usize, since: Duration, now: Duration) -> bool {
        let others = self.pods.iter().enumerate().filter(|(number, _)| *number != pod);
        let mut spells = others.flat_map(|(_, pod)| &pod.spells);
        !spells.any(|(from, to, code)| *code == NO_ASSOCIATION && *from <= now && *to >= since)
    }

    /// A set was issued to a pod: whether there is room for it, in all and on the account of its address.
    fn note_room(&mut self, pod: usize, shape: &Shape, now: Duration) {
        if shape.is_roomy() {
            return;
        }
        let address_of = |pod: usize| self.pods.get(pod).map(|pod| pod.slot / shape.pods_per_address);
        let address = address_of(pod);
        let lives = |set: &&Set| !set.is_lost && set.expires + TO_TIDY > now;
        let (mut tokens, mut neighbours) = (BTreeSet::new(), BTreeSet::new());
        for set in self.sets.iter().filter(lives) {
            tokens.insert(set.token);
            if address_of(set.pod) == address {
                neighbours.insert(set.token);
            }
        }
        if tokens.len() > shape.most_identities {
            self.crowded_at = Some(now);
        }
        if let (true, Some(address)) = (neighbours.len() > KEPT_OF_AN_ADDRESS, address) {
            self.crowded_addresses.insert(address, now);
        }
    }

    /// When there was last no room for all, or for all of this address.
    pub fn crowded_at(&self, address: u32) -> Option<Duration> {
        self.crowded_at.max(self.crowded_addresses.get(&address).copied())
    }

    /// How many names may have a set that has not been expired for `grace`: tokens, and pods with a token
    /// that was proven.
    pub fn living(&self, now: Duration, grace: Duration) -> usize {
        let lives = |set: &&Set| !set.is_lost && (set.is_misdated || set.expires + grace > now);
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

    /// Calls of this source under way.
    pub fn under_way(&self, source: Source) -> u32 {
        *self.under_way.of(source)
    }

    /// A call comes in, at `latest` by what the agent can make of its clocks. `role`: of STS.
    pub fn arrive(
        &mut self,
        (token, role): (Token, Option<usize>),
        now: Duration,
        latest: Duration,
        is_in_doubt: bool,
        nodes: u32,
    ) -> Option<Found> {
        let source = self.source_of(token.pod);
        self.calls += 1;
        *self.under_way.of_mut(source) += 1;
        let gone_at = self.pods.get(token.pod).and_then(|pod| pod.gone_at);
        let is_for_nobody = gone_at.is_some_and(|gone_at| now > gone_at + LAST_FLIGHT);
        let mut for_the_same = self.calling.iter().filter(|(_, other)| *other == role);
        let is_second =
            for_the_same.any(|(other, _)| self.is_known_to_be_one(*other, token.number, now, latest));
        self.calling.push((token.number, role));
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
        let has_a_set = self.said.get(&token.pod).is_some_and(|said| {
            let mut sets = said.sets.iter().rev().filter_map(|set| self.sets.get(*set));
            sets.any(|set| set.is_there() && set.expires > now)
        });
        let is_throttled = self.throttling.of(source).is_on(now);
        if let Some(what) = self.waiting.of_mut(source).called(!has_a_set, now).filter(|_| is_throttled) {
            return Some(Found::new(Invariant::Budget, what, vec![token.pod]));
        }
        let about_to_ask = self.throttling.of_mut(source).called(token.number, now);
        let under_way = self.under_way(source);
        if under_way + about_to_ask > nodes * MOST_CALLS {
            let what = format!("{under_way} calls at once, and {about_to_ask} to be made again");
            return Some(Found::new(Invariant::Budget, what, vec![token.pod]));
        }
        if now > token.expires + TOLERATED_SKEW && !is_in_doubt {
            return Some(Found::new(Invariant::Blame, "a token was used past its exp", vec![token.pod]));
        }
        None
    }

    /// A call is over, one way or another.
    pub fn leave(&mut self, token: Token, role: Option<usize>) {
        let under_way = self.under_way.of_mut(self.source_of(token.pod));
        *under_way = under_way.saturating_sub(1);
        if let Some(index) = self.calling.iter().position(|call| *call == (token.number, role)) {
            self.calling.swap_remove(index);
        }
    }

    /// Whether the agent knows that two tokens are of one caller: it is the same token, or keys that it still
    /// has have proven both to be of one pod. One that may have expired, or that nothing proved when it was
    /// presented, AWS is to judge, by itself.
    fn is_known_to_be_one(&self, one: usize, other: usize, now: Duration, latest: Duration) -> bool {
        let was_open = |token: &Token| token.unproven_at.is_some_and(|at| now <= at + LAST_FLIGHT);
        let is_proven = |token: &Token| token.is_verified && latest < token.expires && !was_open(token);
        let pod = |number| self.token_now(number).filter(is_proven).map(|token| token.pod);
        one == other || (pod(one).is_some() && pod(one) == pod(other))
    }

    /// A set is issued to a call that came at `arrived`; its number and its life.
    pub fn issue(
        &mut self,
        (token, role): (Token, Option<usize>),
        arrived: Duration,
        now: Duration,
        kept: Kept,
        chance: &mut Rng,
        shape: &Shape,
    ) -> Issued {
        let source = self.source_of(token.pod);
        self.throttling.of_mut(source).granted(kept.came);
        let pod = self.pods.get(token.pod);
        let so_far = self.said.get(&token.pod).map_or(0, |said| said.sets.len());
        let life = pod.map_or(60 * MINUTE, |pod| pod.life.of_set(so_far, chance));
        let of_association = || pod.map_or(0, |pod| pod.moves.iter().filter(|at| **at <= now).count());
        let role = role.unwrap_or_else(of_association);
        let gone_for = pod.and_then(|pod| pod.gone_at).and_then(|gone_at| arrived.checked_sub(gone_at));
        let was_gone = gone_for.is_some_and(|gone_for| !gone_for.is_zero());
        let is_excused = kept.tells_the_time && gone_for.is_some_and(|gone_for| gone_for < HARDLY_GONE);
        let number = self.sets.len();
        let Kept { is_the_pods, is_misdated, came, .. } = kept;
        // AWS says it in whole seconds.
        let expires = Duration::from_secs((now + life).as_secs());
        self.sets.push(Set {
            pod: token.pod,
            token: token.number,
            is_the_pods,
            is_misdated,
            issued: now,
            came,
            expires,
            role,
            was_kept: false,
            is_lost: false,
            may_be_over: false,
        });
        if let Some(token) = self.tokens.get_mut(token.number) {
            token.has_its_own |= !is_the_pods;
        }
        self.note_room(token.pod, shape, came);
        let said = self.said.entry(token.pod).or_default();
        if said.not_found.take().is_some_and(|not_found| not_found.may_end_it(now, shape)) {
            // What it had before has not come back.
            for number in &said.sets {
                if let Some(set) = self.sets.get_mut(*number) {
                    set.may_be_over = true;
                }
            }
        }
        said.sets.push(number);
        let identity = self.identities.entry(self.name_of(token)).or_default();
        identity.issued_when_gone += u32::from(was_gone && !is_excused);
        let found = (identity.issued_when_gone > 1)
            .then(|| Found::new(Invariant::Gone, "a pod that is gone was renewed twice", vec![token.pod]));
        Issued { number, expires, role, found }
    }

    /// AWS refuses this identity.
    pub fn refuse(&mut self, token: Token, code: &str, now: Duration) {
        let source = self.source_of(token.pod);
        self.throttling.of_mut(source).granted(now);
        let said = self.said.entry(token.pod).or_default();
        said.refused_at = Some(now);
        if code == NO_ASSOCIATION {
            let so_far = said.not_found.unwrap_or(NotFound { first: now, last: now, times: 0, late: 0 });
            let (times, is_late) = (so_far.times + 1, now >= so_far.first + NOT_FOUND_FOR);
            let late = so_far.late + u32::from(is_late);
            said.not_found = Some(NotFound { last: now, times, late, ..so_far });
        }
    }

    /// AWS throttles. It does not go on for long that most calls are refused for it.
    pub fn throttle(&mut self, token: Token, now: Duration) -> Option<Found> {
        let source = self.source_of(token.pod);
        let what = self.throttling.of_mut(source).throttled(token.number, now)?;
        Some(Found::new(Invariant::Budget, what, vec![token.pod]))
    }

    /// Takes a call out of the account's bucket, if there is one in it.
    pub fn may_call(&mut self, source: Source, per_second: u32, at_once: u32, now: Duration) -> bool {
        self.throttling.of_mut(source).take(per_second, at_once, now)
    }
}
