//! The verdict on a token.
//!
//! Owns: the order of the checks and the four outcomes. Must not know: HTTP statuses or AWS. In this first form no
//! key is known, so a well-formed token is [`Authentication::Unverified`] at best: EKS Auth, which verifies everything,
//! is the judge (design 4.3, `auto`).

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::claims::{UnreadableClaims, Untimely, UnverifiedClaims, Validity};
use crate::identity::memory::Memory;
use crate::identity::token::BearerToken;
use crate::workload::{Audience, CredentialKey, Pod, TokenDigest, VerifiedKey};

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

/// A pod that proved who it is.
#[derive(Clone, Debug)]
pub struct VerifiedIdentity {
    pod: Pod,
    key: Arc<VerifiedKey>,
    expires: SystemTime,
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
    /// The claims cannot be read.
    #[error("the token cannot be read")]
    Unreadable(#[source] UnreadableClaims),
    /// Past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before its `nbf`.
    #[error("the token is not valid yet")]
    NotYetValid,
}

/// Judges tokens, and remembers its verdicts.
#[derive(Debug, Default)]
pub struct Authenticator {
    memory: Memory,
}

impl Authenticator {
    /// Judges a token at the (corrected) wall time `now`.
    pub fn authenticate(&self, token: &BearerToken, now: SystemTime) -> Authentication {
        let digest = token.digest();
        let identity = match self.memory.recall(digest) {
            Some(known) => known,
            None => match UnverifiedClaims::of(token) {
                Ok(claims) => {
                    let audience = Audience::of(&claims.audiences);
                    UnverifiedIdentity { digest, validity: claims.validity, audience }
                }
                Err(unreadable) => return Authentication::Refused(Refusal::Unreadable(unreadable)),
            },
        };
        // Each time anew: a token that was good may have expired since.
        match identity.validity.check(now) {
            Ok(()) => {
                self.memory.remember(identity);
                Authentication::Unverified(identity)
            }
            Err(Untimely::Expired) => Authentication::Refused(Refusal::Expired),
            Err(Untimely::NotYetValid) => Authentication::Refused(Refusal::NotYetValid),
        }
    }
}

impl VerifiedIdentity {
    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Until when the token that proved it is valid.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The key under which its credentials are held, over all its tokens.
    pub fn key(&self) -> CredentialKey {
        CredentialKey::Verified(Arc::clone(&self.key))
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

    /// For whom the token says that it was issued: good for choosing whom to ask, who will verify it.
    pub fn audience(&self) -> Audience {
        self.audience
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::{Authentication, Authenticator, Refusal, UnverifiedIdentity, Validity};
    use crate::identity::BearerToken;
    use crate::workload::{Audience, TokenDigest};

    pub(in crate::identity) fn unverified(digest: [u8; 32]) -> UnverifiedIdentity {
        let validity = Validity { expires: at(2000), not_before: None };
        UnverifiedIdentity { digest: TokenDigest(digest), validity, audience: Audience::PodIdentity }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_that_was_good_is_refused_once_it_has_expired() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"aud":"pods.eks.amazonaws.com","exp":2000,"nbf":1000}"#);
        let token = BearerToken::from_header(format!("e30.{claims}.sig").as_bytes()).unwrap();
        let authenticator = Authenticator::default();
        for _ in 0..2 {
            let verdict = authenticator.authenticate(&token, at(1500));
            assert!(
                matches!(verdict, Authentication::Unverified(known) if known.audience() == Audience::PodIdentity)
            );
        }
        let verdict = authenticator.authenticate(&token, at(2061));
        assert!(matches!(verdict, Authentication::Refused(Refusal::Expired)), "{verdict:?}");
    }
}
