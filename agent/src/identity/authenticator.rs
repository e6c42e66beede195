//! The verdict on a token.
//!
//! Owns: the order of the checks and the four outcomes. Must not know: HTTP statuses or AWS. In this first form no
//! key is known, so a well-formed token is [`Authentication::Unverified`] at best: EKS Auth, which verifies everything,
//! is the judge (design 4.3, `auto`).

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::claims::{UnreadableClaims, Untimely, UnverifiedClaims};
use crate::identity::token::BearerToken;
use crate::workload::{CredentialKey, Pod, TokenDigest, VerifiedKey};

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

/// A token that says who it is, and no more than that.
#[derive(Clone, Debug)]
pub struct UnverifiedIdentity {
    digest: TokenDigest,
    claims: UnverifiedClaims,
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

/// Judges tokens.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {}

impl Authenticator {
    /// Judges a token at the (corrected) wall time `now`.
    pub fn authenticate(&self, token: &BearerToken, now: SystemTime) -> Authentication {
        let claims = match UnverifiedClaims::of(token) {
            Ok(claims) => claims,
            Err(unreadable) => return Authentication::Refused(Refusal::Unreadable(unreadable)),
        };
        match claims.check_times(now) {
            Ok(()) => Authentication::Unverified(UnverifiedIdentity { digest: token.digest(), claims }),
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

    /// What the token says: good for a log line and for choosing whom to ask, for nothing else.
    pub fn claims(&self) -> &UnverifiedClaims {
        &self.claims
    }
}
