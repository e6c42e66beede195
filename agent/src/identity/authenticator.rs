//! The verdict on a token, remembered; and what happens to tokens that no key can decide.
//!
//! Owns: when the sources of keys are asked again. Must not know: HTTP statuses or AWS, or how one
//! token is judged (`verify`).

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{BootTime, Now};
use crate::config::VerificationMode;
use crate::identity::keys::TokenKeys;
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

/// How often it is said that tokens are of an issuer that is none of `--issuer`.
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
}

/// Judges tokens, and remembers its verdicts.
#[derive(Debug)]
pub struct Authenticator {
    cache: VerdictCache,
    keys: TokenKeys,
    policy: Policy,
    /// When it was said last that tokens are of an issuer that is none of `--issuer`.
    said: Mutex<Option<BootTime>>,
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
        Self { cache: VerdictCache::default(), keys, policy, said: Mutex::default() }
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
                    Unproven::KeyUnknown => return Lookup::KeyUnknown(KeyUnknown { meanwhile }),
                    Unproven::ForeignIssuer(issuer) => self.say_foreign(&issuer, now),
                    Unproven::NoKeys => {}
                }
                self.cache.remember(identity, keys.generation());
                Lookup::Judged(meanwhile)
            }
        }
    }

    /// Anybody can send such a token, so it is said once a minute whatever the issuer.
    fn say_foreign(&self, issuer: &str, now: Now) {
        let mut said = self.said.lock();
        if said.is_none_or(|said| now.boot.since(said) >= SAY_AGAIN) {
            *said = Some(now.boot);
            tracing::warn!(
                issuer,
                expected = self.policy.issuers(),
                "a token is of an issuer that is none of --issuer; EKS Auth judges it"
            );
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
        let (refetch, patience) = if lacks_keys {
            // There is no other judge, and no rate is spent: the sources are read all the time.
            (Some(self.keys.watch_reads()), FIRST_KEYS_WAIT)
        } else {
            (self.keys.request_refetch(peer, now.boot), KEY_WAIT)
        };
        let Some(mut refetch) = refetch else { return unknown.meanwhile.clone() };
        let judged = async {
            loop {
                // First the result, then the lookup: a result from before this call counts as well.
                let may_change = refetch.next_result().await;
                match self.lookup(token, now) {
                    Lookup::Judged(authentication) => return authentication,
                    Lookup::KeyUnknown(unknown) if !may_change => return unknown.meanwhile,
                    Lookup::KeyUnknown(_) => {}
                }
            }
        };
        let judged = tokio::time::timeout(patience, judged).await;
        let authentication = judged.unwrap_or_else(|_elapsed| unknown.meanwhile.clone());
        if let Authentication::Identified(identity @ Identity::Unverified(_)) = &authentication {
            // The sources were asked: until they say something new, no request needs to wait for them with
            // this token.
            self.cache.remember(identity.clone(), self.keys.generation());
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
