//! The verdict on a token, remembered; and what happens to tokens that no key can decide.
//!
//! Owns: when the sources of keys are asked again. Must not know: HTTP statuses or AWS, or how one
//! token is judged (`verify`).

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::{BootTime, Now};
use crate::config::VerificationMode;
use crate::identity::keys::{FIRST_READS_APART, KeyTable, Refetch, TokenKeys};
use crate::identity::verdict::{Authentication, Identity, RefusedToken, TokenFault};
use crate::identity::verdict_cache::VerdictCache;
use crate::identity::verify::{Policy, Unproven, Verdict, is_over, verify};
use crate::workload::{BearerToken, Caller, PeerKey};

/// How long a token that only an unknown key could prove waits for the sources, where there is another judge:
/// a document comes within a few hundred milliseconds, and clients of the 1 s family
/// (docs/design/client-contract.md#holding) must still get their answer.
const KEY_WAIT: Duration = Duration::from_millis(500);
/// The same where there is no other judge and a source has given nothing yet; the request is held no longer
/// than that.
pub const FIRST_KEYS_WAIT: Duration = Duration::from_millis(4_400);

/// How often each mistake is logged that pods alone would notice.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What is found of a token without waiting.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// This is the verdict.
    Judged(Authentication),
    /// It names an unknown key. [`Authenticator::ask_sources`] has the sources of keys asked and judges it.
    KeyUnknown(KeyUnknown),
}

/// A token that names a key that we do not know.
#[derive(Clone, Debug)]
pub struct KeyUnknown {
    meanwhile: Authentication,
    /// The keys it was looked for among.
    generation: u64,
}

/// Judges tokens, and remembers its verdicts.
#[derive(Debug)]
pub struct Authenticator {
    cache: VerdictCache,
    keys: TokenKeys,
    policy: Policy,
    /// Whether a key has ever proven a token: then keys and issuer are this cluster's.
    has_verified: AtomicBool,
    /// When it was logged last that tokens are of an issuer that is none of `--issuer`.
    told_foreign: LastTold,
    /// When it was logged last that tokens name unknown keys.
    told_unknown: LastTold,
}

/// When something was logged last. Anybody can send such a token, so that is once a minute at most.
#[derive(Debug, Default)]
struct LastTold(Mutex<Option<BootTime>>);

impl LastTold {
    fn is_due(&self, now: Now) -> bool {
        let mut told = self.0.lock();
        let is_due = told.is_none_or(|told| now.boot.since(told) >= SAY_AGAIN);
        if is_due {
            *told = Some(now.boot);
        }
        is_due
    }
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
            policy,
            has_verified: AtomicBool::new(false),
            told_foreign: LastTold::default(),
            told_unknown: LastTold::default(),
        }
    }

    /// Judges a token with the keys that are known now.
    pub fn authenticate(&self, token: &BearerToken, now: Now) -> Authentication {
        match self.lookup(token, now) {
            Lookup::Judged(authentication) => authentication,
            Lookup::KeyUnknown(unknown) => unknown.meanwhile,
        }
    }

    /// The same, and says whether asking the sources of keys again might change it.
    pub fn lookup(&self, token: &BearerToken, now: Now) -> Lookup {
        let Some(identity) = self.cache.recall(token.digest(), self.keys.generation()) else {
            return self.judge(token, now);
        };
        Lookup::Judged(at_this_time(identity, now))
    }

    fn judge(&self, token: &BearerToken, now: Now) -> Lookup {
        let keys = self.keys.table();
        match verify(token, &keys, &self.policy, now) {
            Verdict::Refused(refused) => Lookup::Judged(Authentication::Refused(refused)),
            Verdict::Verified(identity) => {
                self.has_verified.store(true, Ordering::Relaxed);
                let identity = Identity::Verified(identity);
                self.cache.remember(identity.clone(), keys.generation());
                Lookup::Judged(at_this_time(identity, now))
            }
            Verdict::Unproven { identity, why } => {
                let identity = Identity::Unverified(identity);
                let meanwhile = match self.policy.mode() {
                    VerificationMode::Auto | VerificationMode::Off => at_this_time(identity.clone(), now),
                    VerificationMode::Required => Authentication::Undecided(identity.caller()),
                };
                match why {
                    Unproven::KeyUnknown => {
                        return Lookup::KeyUnknown(KeyUnknown { meanwhile, generation: keys.generation() });
                    }
                    Unproven::ForeignIssuer(issuer) => self.say_foreign(&issuer, &keys, now),
                    Unproven::NoKeys => {}
                }
                match meanwhile {
                    // What is remembered is good for EKS Auth, which must not get this one.
                    Authentication::Undecided(_) => {}
                    Authentication::Identified(_) | Authentication::Refused(_) => {
                        self.cache.remember(identity, keys.generation());
                    }
                }
                Lookup::Judged(meanwhile)
            }
        }
    }

    fn say_foreign(&self, issuer: &str, keys: &KeyTable, now: Now) {
        if self.told_foreign.is_due(now) {
            let (expected, follows) = (self.policy.issuers(keys), self.what_follows());
            tracing::warn!(
                issuer,
                expected,
                "a token is of an issuer that is none of --issuer, nor the one that the API server names; \
                 {follows}"
            );
        }
    }

    /// Once a token was verified, an unknown key is the token's affair. No keys at all are reported
    /// elsewhere: as a condition.
    fn say_unknown(&self, now: Now) {
        let keys = self.keys.view(now.boot).keys;
        if keys > 0 && !self.has_verified.load(Ordering::Relaxed) && self.told_unknown.is_due(now) {
            let (issuer, follows) = (self.policy.issuers(&self.keys.table()), self.what_follows());
            tracing::warn!(
                issuer,
                keys,
                "tokens name keys that none of --jwks has, and none was verified yet: are these the keys of \
                 this cluster? {follows}"
            );
        }
    }

    /// What happens to a token that no key can decide.
    fn what_follows(&self) -> &'static str {
        match self.policy.mode() {
            VerificationMode::Auto | VerificationMode::Off => "EKS Auth judges it",
            VerificationMode::Required => "the pod gets 503",
        }
    }

    /// Judges a token each time that a source has been read, until a key decides or all have been read.
    async fn until_judged(&self, mut reads: Refetch, token: &BearerToken, now: Now) -> Lookup {
        // First the result, then the lookup: a result from before this call counts as well.
        while reads.next_result().await {
            if let Lookup::Judged(authentication) = self.lookup(token, now) {
                return Lookup::Judged(authentication);
            }
        }
        self.lookup(token, now)
    }

    /// Has a source that has given nothing yet read often while somebody waits for it: after an outage its
    /// own retries are half a minute apart. Never ends.
    async fn keep_asking(&self, now: Now) -> Infallible {
        let began = Instant::now();
        loop {
            self.keys.request_first_read(now.boot.plus(began.elapsed()));
            tokio::time::sleep(FIRST_READS_APART).await;
        }
    }

    /// Has the sources asked for a key that we do not know, where the rates allow, waits for them a moment,
    /// and judges the token. Dropping it cancels the waiting and nothing else.
    pub async fn ask_sources(
        &self,
        unknown: &KeyUnknown,
        token: &BearerToken,
        peer: PeerKey,
        now: Now,
    ) -> Authentication {
        let lacks_keys = self.policy.mode() == VerificationMode::Required && !self.keys.are_complete();
        let asked = if lacks_keys {
            // There is no other judge.
            let asking = self.until_judged(self.keys.watch_reads(), token, now);
            tokio::select! {
                asked = tokio::time::timeout(FIRST_KEYS_WAIT, asking) => asked.ok(),
                never = self.keep_asking(now) => match never {},
            }
        } else {
            let Some(refetch) = self.keys.request_refetch(peer, now.boot) else {
                self.say_unknown(now);
                return unknown.meanwhile.clone();
            };
            tokio::time::timeout(KEY_WAIT, self.until_judged(refetch, token, now)).await.ok()
        };
        // Also when the time is over: a key may have come in the same moment.
        let (authentication, generation) = match asked.unwrap_or_else(|| self.lookup(token, now)) {
            Lookup::Judged(authentication) => return authentication,
            Lookup::KeyUnknown(unknown) => (unknown.meanwhile, unknown.generation),
        };
        self.say_unknown(now);
        if let Authentication::Identified(identity @ Identity::Unverified(_)) = &authentication {
            // The sources were asked: until they say something new, no request needs to wait for them with
            // this token. Since that lookup they may have: then it is judged anew.
            self.cache.remember(identity.clone(), generation);
        }
        authentication
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

impl KeyUnknown {
    /// Who the token says it is.
    pub fn caller(&self) -> Caller {
        self.meanwhile.caller()
    }

    /// What it is while no source has been asked.
    pub fn meanwhile(self) -> Authentication {
        self.meanwhile
    }
}
