//! The verdict on a token, remembered; and what happens to tokens that no key can decide.
//!
//! Owns: which verdict counts. Must not know: HTTP statuses or AWS, or how one token is judged (`verify`,
//! `review`).

mod asking;

use std::time::Duration;

use crate::clock::{BootTime, Now};
use crate::config::VerificationMode;
use crate::identity::claims::UnverifiedClaims;
use crate::identity::foreign_tokens::ForeignTokens;
use crate::identity::keys::{KeyTable, TokenKeys};
use crate::identity::review::{Known, Question, Reviews, judge_reviewed};
use crate::identity::verdict::{Authentication, Identity, RefusedToken, TokenFault};
use crate::identity::verdict_cache::{Recalled, VerdictCache};
use crate::identity::verify::{Policy, Unproven, Verdict, is_over, verify};
use crate::workload::{BearerToken, Caller, PeerKey};

pub use self::asking::FIRST_KEYS_WAIT;

/// What is found of a token without waiting.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// This is the verdict.
    Judged(Authentication),
    /// Nothing that is known here decides it. [`Authenticator::ask_others`] asks those who may know more.
    Open(OpenToken),
}

/// A token that nothing speaks against and nothing proves, and about which somebody can be asked.
#[derive(Clone, Debug)]
pub struct OpenToken {
    /// What it is while nobody has been asked.
    meanwhile: Authentication,
    /// What happens to it if nobody decides.
    mode: VerificationMode,
    /// The keys it was looked for among.
    generation: u64,
    /// Why none of them proves it.
    unproven: Unproven,
}

/// What is found of a token, and whether the API server should be asked about it again.
enum Found {
    Judged(Authentication),
    /// It counts until there is another answer.
    Due(Authentication),
    Open(OpenToken),
}

/// Judges tokens, and remembers its verdicts.
#[derive(Debug)]
pub struct Authenticator {
    cache: VerdictCache,
    keys: TokenKeys,
    /// Where the API server may be asked.
    reviews: Option<Reviews>,
    policy: Policy,
    foreign: ForeignTokens,
}

impl Default for Authenticator {
    /// One that verifies nothing: EKS Auth, which verifies everything, is the judge.
    fn default() -> Self {
        Self::new(TokenKeys::of_sources(0), Policy::off())
    }
}

impl Authenticator {
    /// Judges with these keys by this policy.
    pub fn new(keys: TokenKeys, policy: Policy) -> Self {
        Self {
            cache: VerdictCache::default(),
            keys,
            reviews: None,
            policy,
            foreign: ForeignTokens::default(),
        }
    }

    /// The same, with the API server as the next judge.
    #[must_use]
    pub fn with_reviews(self, reviews: Option<Reviews>) -> Self {
        Self { reviews, ..self }
    }

    /// What is seen of tokens that are not of this cluster, as far as the agent knows it.
    pub fn foreign_tokens(&self) -> ForeignTokens {
        self.foreign.clone()
    }

    /// Judges a token with what is known now.
    pub fn authenticate(&self, token: &BearerToken, now: Now) -> Authentication {
        match self.find(token, now) {
            Found::Judged(authentication) | Found::Due(authentication) => authentication,
            Found::Open(open) => open.meanwhile,
        }
    }

    /// The same, and says whether asking others might change it. Where the API server has judged it a while
    /// ago, it is asked again in the background.
    pub fn lookup(&self, token: &BearerToken, peer: PeerKey, now: Now) -> Lookup {
        match self.find(token, now) {
            Found::Judged(authentication) => Lookup::Judged(authentication),
            Found::Due(authentication) => {
                if let Some((reviews, question)) = self.question(token, peer) {
                    reviews.ask_in_background(&question, now.boot);
                }
                Lookup::Judged(authentication)
            }
            Found::Open(open) => Lookup::Open(open),
        }
    }

    fn find(&self, token: &BearerToken, now: Now) -> Found {
        match self.cache.recall(token.digest(), self.keys.generation(), now.boot) {
            Recalled::Proven(identity) => {
                self.foreign.proven();
                Found::Judged(at_this_time(identity, now))
            }
            Recalled::Identity(identity) => Found::Judged(at_this_time(identity, now)),
            Recalled::Lapsed => self.judge(token, true, now),
            Recalled::Nothing => self.judge(token, false, now),
        }
    }

    fn judge(&self, token: &BearerToken, has_lapsed: bool, now: Now) -> Found {
        let keys = self.keys.table();
        match verify(token, &keys, &self.policy, now) {
            Verdict::Refused(refused) => Found::Judged(Authentication::Refused(refused)),
            Verdict::Verified(identity) => {
                self.foreign.proven();
                let identity = Identity::Verified(identity);
                self.cache.remember(identity.clone(), keys.generation(), None);
                Found::Judged(at_this_time(identity, now))
            }
            Verdict::Unproven { identity, why } => {
                let identity = Identity::Unverified(identity);
                let mode = self.policy.mode_for(identity.audience());
                let meanwhile = match mode {
                    VerificationMode::Auto | VerificationMode::Off => at_this_time(identity.clone(), now),
                    VerificationMode::Required => Authentication::Undecided(identity.caller()),
                };
                let open = OpenToken { meanwhile, mode, generation: keys.generation(), unproven: why };
                match &self.reviews {
                    Some(reviews) => {
                        let known = reviews.known(token.digest(), now.boot);
                        self.judge_by_review(token, identity, open, known, has_lapsed, now)
                    }
                    None => self.judge_by_keys_alone(identity, open, &keys, now),
                }
            }
        }
    }

    fn judge_by_keys_alone(&self, identity: Identity, open: OpenToken, keys: &KeyTable, now: Now) -> Found {
        match &open.unproven {
            Unproven::KeyUnknown => return Found::Open(open),
            Unproven::ForeignIssuer(issuer) => self.say_foreign(issuer, keys, open.what_follows(), now),
            Unproven::NoKeys => {}
        }
        match &open.meanwhile {
            // What is remembered is good for EKS Auth, which must not get this one.
            Authentication::Undecided(_) => {}
            Authentication::Identified(_) | Authentication::Refused(_) => {
                self.cache.remember(identity, keys.generation(), None);
            }
        }
        Found::Judged(open.meanwhile)
    }

    /// Judges a token by what the API server has said of it before.
    fn judge_by_review(
        &self,
        token: &BearerToken,
        identity: Identity,
        open: OpenToken,
        known: Known,
        has_lapsed: bool,
        now: Now,
    ) -> Found {
        let has_other_judge = match open.mode {
            VerificationMode::Auto | VerificationMode::Off => true,
            VerificationMode::Required => false,
        };
        match known {
            Known::Authenticated { user, again_at } => {
                // Its pod is served, and the flags are wrong: while the API server is away it would not be.
                // Without --jwks they are not: an API server of EKS may publish other keys than it signs
                // with.
                if self.policy.has_given_keys() || matches!(open.unproven, Unproven::ForeignIssuer(_)) {
                    self.say_open(&open, "the API server authenticates it", now);
                }
                match judge_reviewed(token, &user, &self.policy) {
                    Ok(verified) => {
                        self.count_until(again_at, Identity::Verified(verified), open.generation, now)
                    }
                    Err(refused) => Found::Judged(Authentication::Refused(refused)),
                }
            }
            Known::Denied { again_at } if has_other_judge => {
                self.count_until(again_at, identity, open.generation, now)
            }
            Known::Denied { again_at } if now.boot < again_at => {
                let (fault, caller) = (TokenFault::NotAuthenticated, identity.caller());
                Found::Judged(Authentication::Refused(RefusedToken { fault, caller }))
            }
            // Somebody has waited for it before.
            Known::Nothing { again_at } if has_other_judge && has_lapsed => {
                self.count_until(again_at, identity, open.generation, now)
            }
            Known::Denied { .. } | Known::Nothing { .. } => Found::Open(open),
        }
    }

    /// What counts until the API server is asked again, and after that until it has answered.
    fn count_until(&self, again_at: BootTime, identity: Identity, generation: u64, now: Now) -> Found {
        let authentication = at_this_time(identity.clone(), now);
        if again_at <= now.boot {
            return Found::Due(authentication);
        }
        self.cache.remember(identity, generation, Some(again_at));
        Found::Judged(authentication)
    }

    /// What the API server is asked about a token, where it is asked.
    fn question(&self, token: &BearerToken, peer: PeerKey) -> Option<(&Reviews, Question)> {
        let reviews = self.reviews.as_ref()?;
        let claims = UnverifiedClaims::of(token).ok()?;
        let audience = self.policy.audience(&claims.audiences).ok()?.name();
        Some((reviews, Question { token: token.clone(), audience, peer }))
    }

    fn say_foreign(&self, issuer: &str, keys: &KeyTable, follows: &str, now: Now) {
        self.foreign.of_issuer(issuer, &self.policy.issuers(keys), follows, now.boot);
    }

    /// No keys at all are reported elsewhere: as a condition.
    fn say_unknown(&self, follows: &str, now: Now) {
        let keys = self.keys.view(now.boot).keys;
        if keys > 0 {
            self.foreign.of_key(keys, &self.policy.issuers(&self.keys.table()), follows, now.boot);
        }
    }

    /// Says why no key could decide a token.
    fn say_open(&self, open: &OpenToken, follows: &str, now: Now) {
        match &open.unproven {
            Unproven::KeyUnknown => self.say_unknown(follows, now),
            Unproven::ForeignIssuer(issuer) => self.say_foreign(issuer, &self.keys.table(), follows, now),
            Unproven::NoKeys => {}
        }
    }
}

/// Judges the times, each time anew: a token that was good may have expired since. One that looks untimely,
/// and has not expired for sure, is its source's to judge.
fn at_this_time(identity: Identity, now: Now) -> Authentication {
    let validity = identity.token().validity;
    if is_over(validity, now) {
        return Authentication::Refused(RefusedToken {
            fault: TokenFault::Expired,
            caller: identity.caller(),
        });
    }
    match validity.check(now.wall) {
        Ok(()) => Authentication::Identified(identity),
        Err(_untimely) => Authentication::Identified(identity.untimely()),
    }
}

impl OpenToken {
    /// Who the token says it is.
    pub fn caller(&self) -> Caller {
        self.meanwhile.caller()
    }

    /// What happens to it if nobody decides.
    fn what_follows(&self) -> &'static str {
        match self.mode {
            VerificationMode::Auto | VerificationMode::Off => "EKS Auth judges it",
            VerificationMode::Required => "the pod gets 503",
        }
    }

    /// For how long it waits for those who may know more.
    const fn longest_wait(&self) -> Duration {
        match self.mode {
            VerificationMode::Auto | VerificationMode::Off => asking::KEY_WAIT,
            VerificationMode::Required => FIRST_KEYS_WAIT,
        }
    }

    /// What it is while nobody has been asked.
    pub fn meanwhile(self) -> Authentication {
        self.meanwhile
    }
}
