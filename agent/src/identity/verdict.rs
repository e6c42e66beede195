//! What a look at a token can come to.
//!
//! Owns: the four outcomes, and that a verified identity is made by `identity` alone. Must not know: how a token is judged
//! (`verify`), or what becomes of it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::claims::{UnreadableClaims, Validity};
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

    pub(super) fn validity(&self) -> Validity {
        self.proof.validity
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
    pub(super) fn claimed(digest: TokenDigest, validity: Validity, audience: Audience) -> Self {
        Self { digest, validity, audience }
    }

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

    pub(super) const fn validity(&self) -> Validity {
        self.validity
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

    use super::UnverifiedIdentity;
    use crate::identity::claims::Validity;
    use crate::workload::{Audience, TokenDigest};

    pub(in crate::identity) fn unverified(digest: [u8; 32]) -> UnverifiedIdentity {
        let validity = Validity { expires: at(2000), not_before: None, issued: None };
        UnverifiedIdentity::claimed(TokenDigest(digest), validity, Audience::PodIdentity)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }
}
