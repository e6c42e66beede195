//! The verdict on a token, remembered; and what becomes of those that no key can decide.
//!
//! Owns: when the sources of keys are asked again. Must not know: HTTP statuses or AWS, or how one
//! token is judged (`verify`).

use std::time::{Duration, SystemTime};

use crate::clock::Now;
use crate::config::VerificationMode;
use crate::identity::keys::TokenKeys;
use crate::identity::token::BearerToken;
use crate::identity::verdict::{Authentication, UnverifiedIdentity};
use crate::identity::verdict_cache::{CachedVerdict, VerdictCache};
use crate::identity::verify::{Policy, Verdict, check_times, verify};
use crate::workload::PeerKey;

/// How long a token that only an unknown key could prove waits for the sources, where there is another judge: a document
/// comes within a few hundred milliseconds, and clients of the 1 s family (sdk-contract 7.2) must still get their answer.
const KEY_WAIT: Duration = Duration::from_millis(500);
/// The same where there is no other judge and a source has given nothing yet; the request is held no longer than that.
const FIRST_KEYS_WAIT: Duration = Duration::from_millis(4_400);

/// A first look at a token.
#[derive(Clone, Debug)]
pub enum Look {
    /// This is the verdict.
    Settled(Authentication),
    /// It names a key that we do not know. [`Authenticator::ask`] has the sources asked and settles it.
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
    memory: VerdictCache,
    keys: TokenKeys,
    policy: Policy,
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
        Self { memory: VerdictCache::default(), keys, policy }
    }

    /// Judges a token at the (corrected) wall time `now` with the keys at hand.
    pub fn authenticate(&self, token: &BearerToken, now: SystemTime) -> Authentication {
        match self.look(token, now) {
            Look::Settled(authentication) => authentication,
            Look::KeyUnknown(unknown) => unknown.meanwhile,
        }
    }

    /// The same, and tells whether asking the sources of keys again might change it.
    pub fn look(&self, token: &BearerToken, now: SystemTime) -> Look {
        let digest = token.digest();
        let settled = match self.memory.recall(digest, self.keys.generation()) {
            // Each time anew: a token that was good may have expired since.
            Some(CachedVerdict::Verified(identity)) => {
                check_times(identity.validity(), now).map(|()| Authentication::Verified(identity))
            }
            Some(CachedVerdict::Unverified(identity)) => {
                check_times(identity.validity(), now).map(|()| Authentication::Unverified(identity))
            }
            None => return self.look_anew(token, now),
        };
        Look::Settled(settled.unwrap_or_else(Authentication::Refused))
    }

    fn look_anew(&self, token: &BearerToken, now: SystemTime) -> Look {
        let keys = self.keys.table();
        match verify(token, &keys, &self.policy, now) {
            Verdict::Refused(refusal) => Look::Settled(Authentication::Refused(refusal)),
            Verdict::Verified(identity) => {
                self.memory.remember(CachedVerdict::Verified(identity.clone()), keys.generation());
                Look::Settled(Authentication::Verified(identity))
            }
            Verdict::Unproven { validity, audience, is_key_unknown } => {
                let identity = UnverifiedIdentity::claimed(token.digest(), validity, audience);
                let meanwhile = match self.policy.mode() {
                    VerificationMode::Auto | VerificationMode::Off => Authentication::Unverified(identity),
                    VerificationMode::Required => Authentication::Undecided,
                };
                if is_key_unknown {
                    return Look::KeyUnknown(KeyUnknown { meanwhile });
                }
                self.memory.remember(CachedVerdict::Unverified(identity), keys.generation());
                Look::Settled(meanwhile)
            }
        }
    }

    /// Has the sources asked for a key that we do not know, where the rates allow, waits for them a moment, and settles the
    /// token. Dropping it cancels the waiting and nothing else.
    pub async fn ask(
        &self,
        unknown: &KeyUnknown,
        token: &BearerToken,
        peer: PeerKey,
        now: Now,
    ) -> Authentication {
        let lacks_keys = self.policy.mode() == VerificationMode::Required && !self.keys.are_complete();
        let (asking, patience) = if lacks_keys {
            // There is no other judge, and nobody's rate is spent: the sources are tried all the time.
            (Some(self.keys.watch_reads()), FIRST_KEYS_WAIT)
        } else {
            (self.keys.request_refetch(peer, now.boot), KEY_WAIT)
        };
        let Some(mut asking) = asking else { return unknown.meanwhile.clone() };
        let settled = async {
            loop {
                // First the news, then the look: what came before this call is news as well.
                let may_change = asking.next_result().await;
                match self.look(token, now.wall) {
                    Look::Settled(authentication) => return authentication,
                    Look::KeyUnknown(unknown) if !may_change => return unknown.meanwhile,
                    Look::KeyUnknown(_) => {}
                }
            }
        };
        let settled = tokio::time::timeout(patience, settled).await;
        let authentication = settled.unwrap_or_else(|_elapsed| unknown.meanwhile.clone());
        if let Authentication::Unverified(identity) = authentication {
            // The sources were asked: until they say something new, nobody needs to wait for them with this token.
            self.memory.remember(CachedVerdict::Unverified(identity), self.keys.generation());
        }
        authentication
    }
}

impl KeyUnknown {
    /// What it is while no source has been asked.
    pub fn meanwhile(self) -> Authentication {
        self.meanwhile
    }
}
