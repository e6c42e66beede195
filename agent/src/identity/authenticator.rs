//! The verdict on a token, remembered; and what becomes of those that no key can decide.
//!
//! Owns: the four outcomes, and when the sources of keys are asked again. Must not know: HTTP statuses or AWS, or how one
//! token is judged (`verify`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Now;
use crate::config::VerificationMode;
use crate::identity::claims::{UnreadableClaims, Validity};
use crate::identity::keys::TokenKeys;
use crate::identity::memory::{Known, Memory};
use crate::identity::token::BearerToken;
use crate::identity::verify::{Policy, Verdict, timely, verify};
use crate::workload::{Audience, CredentialKey, Pod, TokenDigest, VerifiedKey};

/// How long a token that only an unknown key could prove waits for the sources, where there is another judge: a document
/// comes within a few hundred milliseconds, and clients of the 1 s family (sdk-contract 7.2) must still get their answer.
const KEY_WAIT: Duration = Duration::from_millis(500);
/// The same where there is no other judge and a source has given nothing yet; the request is held no longer than that.
const FIRST_KEYS_WAIT: Duration = Duration::from_millis(4_400);

/// What is known of the caller after looking at its token.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// A key of the cluster proves that this is the pod.
    Verified(VerifiedIdentity),
    /// No key can decide; whoever is asked next must.
    Unverified(UnverifiedIdentity),
    /// It is proven, or says itself, that this token is worth nothing. It never goes upstream.
    Refused(Refusal),
    /// It could not be verified where verification is required. This says nothing against the token.
    Undecided,
}

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

/// A pod that proved who it is. Only `identity` makes one.
#[derive(Clone, Debug)]
pub struct VerifiedIdentity {
    proof: Arc<Proof>,
}

#[derive(Debug)]
struct Proof {
    digest: TokenDigest,
    pod: Pod,
    key: Arc<VerifiedKey>,
    validity: Validity,
    audience: Audience,
}

/// A token that says who it is, and no more than that. What it says is not in here: nothing may be looked up by it.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedIdentity {
    digest: TokenDigest,
    validity: Validity,
    audience: Audience,
}

/// Why a token is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Header or claims cannot be read.
    #[error("the token cannot be read")]
    Unreadable(#[source] UnreadableClaims),
    /// Past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before its `nbf`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It would open more than one of our doors.
    #[error("the token has more than one of our audiences")]
    SeveralAudiences,
    /// Issued by somebody else than this cluster.
    #[error("the token's issuer is not one of --issuer")]
    ForeignIssuer,
    /// Issued for somebody else.
    #[error("the token is not for audience pods.eks.amazonaws.com")]
    ForeignAudience,
    /// Signed in a way that its key does not sign.
    #[error("the token is signed with an algorithm that its key does not use")]
    Algorithm,
    /// The key it names did not sign it.
    #[error("the token's signature is wrong")]
    Forged,
    /// Genuine, but of no pod.
    #[error("the token is not bound to a pod")]
    NotPodBound,
    /// Genuine, but its subject is not its service account.
    #[error("the token's subject is not its service account")]
    Contradiction,
    /// Genuine, but its pod runs on another node.
    #[error("the token's pod runs on another node")]
    OtherNode,
}

/// Judges tokens, and remembers its verdicts.
#[derive(Debug)]
pub struct Authenticator {
    memory: Memory,
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
        Self { memory: Memory::default(), keys, policy }
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
            Some(Known::Verified(identity)) => {
                timely(identity.proof.validity, now).map(|()| Authentication::Verified(identity))
            }
            Some(Known::Unverified(identity)) => {
                timely(identity.validity, now).map(|()| Authentication::Unverified(identity))
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
                self.memory.remember(Known::Verified(identity.clone()), keys.generation());
                Look::Settled(Authentication::Verified(identity))
            }
            Verdict::Unproven { validity, audience, is_key_unknown } => {
                let identity = UnverifiedIdentity { digest: token.digest(), validity, audience };
                let meanwhile = match self.policy.mode() {
                    VerificationMode::Auto | VerificationMode::Off => Authentication::Unverified(identity),
                    VerificationMode::Required => Authentication::Undecided,
                };
                if is_key_unknown {
                    return Look::KeyUnknown(KeyUnknown { meanwhile });
                }
                self.memory.remember(Known::Unverified(identity), keys.generation());
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
        peer: IpAddr,
        now: Now,
    ) -> Authentication {
        let lacks_keys = self.policy.mode() == VerificationMode::Required && !self.keys.are_complete();
        let (asking, patience) = if lacks_keys {
            // There is no other judge, and nobody's rate is spent: the sources are tried all the time.
            (Some(self.keys.await_first()), FIRST_KEYS_WAIT)
        } else {
            (self.keys.ask(peer, now.boot), KEY_WAIT)
        };
        let Some(mut asking) = asking else { return unknown.meanwhile.clone() };
        let settled = async {
            loop {
                // First the news, then the look: what came before this call is news as well.
                let may_change = asking.has_news().await;
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
            self.memory.remember(Known::Unverified(identity), self.keys.generation());
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

impl VerifiedIdentity {
    /// Only for the one who has just seen the proof.
    pub(super) fn proven(
        digest: TokenDigest,
        pod: Pod,
        key: Arc<VerifiedKey>,
        validity: Validity,
        audience: Audience,
    ) -> Self {
        Self { proof: Arc::new(Proof { digest, pod, key, validity, audience }) }
    }

    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.proof.pod
    }

    /// Until when the token that proved it is valid.
    pub fn expires(&self) -> SystemTime {
        self.proof.validity.expires
    }

    /// When that token was issued.
    pub fn issued(&self) -> Option<SystemTime> {
        self.proof.validity.issued
    }

    /// The key under which its credentials are held, over all its tokens.
    pub fn key(&self) -> CredentialKey {
        CredentialKey::Verified(Arc::clone(&self.proof.key))
    }

    /// The digest of the token that proved it.
    pub fn digest(&self) -> TokenDigest {
        self.proof.digest
    }

    /// For whom the token was issued.
    pub fn audience(&self) -> Audience {
        self.proof.audience
    }
}

impl UnverifiedIdentity {
    /// The key under which credentials are held that this very token earned.
    pub fn key(&self) -> CredentialKey {
        CredentialKey::Unverified(self.digest)
    }

    /// The digest of the token.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }

    /// Until when the token says that it is valid.
    pub fn expires(&self) -> SystemTime {
        self.validity.expires
    }

    /// When the token says that it was issued.
    pub fn issued(&self) -> Option<SystemTime> {
        self.validity.issued
    }

    /// For whom the token says that it was issued: good for choosing whom to ask, who will verify it.
    pub fn audience(&self) -> Audience {
        self.audience
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{UnverifiedIdentity, Validity};
    use crate::workload::{Audience, TokenDigest};

    pub(in crate::identity) fn unverified(digest: [u8; 32]) -> UnverifiedIdentity {
        let validity = Validity { expires: at(2000), not_before: None, issued: None };
        UnverifiedIdentity { digest: TokenDigest(digest), validity, audience: Audience::PodIdentity }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }
}
