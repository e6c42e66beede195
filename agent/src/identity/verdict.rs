//! What judging a token can come to.
//!
//! Owns: the outcomes, and that a verified identity is made by `identity` alone. Must not know: how a token
//! is judged (`verify`), or what follows.

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::claims::{UnreadableClaims, Validity};
use crate::workload::{
    Audience, BearerToken, Caller, CredentialKey, ForeignAudience, Pod, PresentedToken, Principal, Route,
    TokenDigest, VerifiedKey,
};

/// What is known of the caller after judging its token.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// The caller may ask for credentials.
    Identified(Identity),
    /// It is proven, or the token itself says, that it is worth nothing. It never goes upstream.
    Refused(RefusedToken),
    /// It could not be verified where verification is required. This says nothing against the token.
    Undecided(Caller),
}

/// A caller that may ask for credentials.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A key of the cluster proves that this is the pod, or the API server says so.
    Verified(VerifiedIdentity),
    /// Nobody here can decide; the source that is asked next must.
    Unverified(UnverifiedIdentity),
    /// It looks expired by a clock that may be wrong, or not valid yet: then the clock may always be behind.
    /// Its source must judge it before anything is served, also if a key has proven all the rest.
    Untimely(UnverifiedIdentity),
}

/// A pod that proved who it is. Only `identity` makes one.
#[derive(Clone, Debug)]
pub struct VerifiedIdentity {
    proof: Arc<Proof>,
}

#[derive(Debug)]
struct Proof {
    token: TokenFacts,
    cluster: Arc<str>,
    pod: Arc<Pod>,
}

/// A token that says who it is, and no more than that. What it says is kept for logs; nothing is looked up by
/// it.
#[derive(Clone, Debug)]
pub struct UnverifiedIdentity {
    claim: Arc<Claim>,
}

#[derive(Debug)]
struct Claim {
    token: TokenFacts,
    caller: Caller,
}

/// What matters of a token, proven or not.
#[derive(Clone, Debug)]
pub(super) struct TokenFacts {
    pub(super) digest: TokenDigest,
    pub(super) validity: Validity,
    pub(super) audience: Audience,
}

/// A token that is worth nothing, and the pod that it belongs to or claims to.
#[derive(Clone, Debug)]
pub struct RefusedToken {
    /// Why.
    pub fault: TokenFault,
    /// Who sent it, as far as that is known.
    pub caller: Caller,
}

/// Why a token is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Header or claims cannot be read.
    #[error("the token cannot be read")]
    Unreadable(#[source] UnreadableClaims),
    /// Past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// It is good for more than one service that the agent calls.
    #[error("the token has more than one of our audiences")]
    SeveralAudiences,
    /// Issued for somebody else.
    #[error("the token's audience is not served: {0}")]
    ForeignAudience(ForeignAudience),
    /// Signed in a way that its key does not sign.
    #[error("the token is signed with an algorithm that its key does not use")]
    Algorithm,
    /// The key it names did not sign it.
    #[error("the token's signature is wrong")]
    Forged,
    /// Genuine, but of no pod.
    #[error("the token is not bound to a pod")]
    NotPodBound,
    /// Genuine, but it contradicts itself, or the API server: its subject is not its service account, say.
    #[error("the token's subject is not its service account")]
    Contradiction,
    /// Genuine, but its pod runs on another node.
    #[error("the token's pod runs on another node")]
    OtherNode,
    /// No key proves it, and the API server, which was asked, does not accept it.
    #[error("the API server does not accept the token")]
    NotAuthenticated,
}

impl Authentication {
    /// Who asks, as far as that is known.
    pub fn caller(&self) -> Caller {
        match self {
            Self::Identified(identity) => identity.caller(),
            Self::Refused(refused) => refused.caller.clone(),
            Self::Undecided(caller) => caller.clone(),
        }
    }
}

impl Identity {
    /// Who asks.
    pub fn caller(&self) -> Caller {
        match self {
            Self::Verified(identity) => Caller::Verified(Arc::clone(&identity.proof.pod)),
            Self::Unverified(identity) | Self::Untimely(identity) => identity.claim.caller.clone(),
        }
    }

    /// For whom the token was issued. An unverified one only says so: good for choosing a source that
    /// verifies it.
    pub fn audience(&self) -> &Audience {
        &self.token().audience
    }

    /// The caller on its way to credentials. A verified pod has one key over all its tokens; an unverified
    /// token finds only what it earned itself.
    pub fn principal(&self, route: Route) -> Principal {
        let key = match self {
            Self::Verified(identity) => {
                let (cluster, pod) = (&identity.proof.cluster, &identity.proof.pod);
                CredentialKey::Verified(VerifiedKey::new(Arc::clone(cluster), Arc::clone(pod), route.clone()))
            }
            Self::Unverified(identity) | Self::Untimely(identity) => {
                CredentialKey::Unverified(route.name_of(identity.claim.token.digest))
            }
        };
        Principal { key, caller: self.caller(), route }
    }

    /// The token as it was presented, with its times.
    pub fn presented(&self, token: BearerToken) -> PresentedToken {
        let Validity { expires, issued, not_before: _ } = self.token().validity;
        PresentedToken { token, expires, issued }
    }

    pub(super) fn token(&self) -> &TokenFacts {
        match self {
            Self::Verified(identity) => &identity.proof.token,
            Self::Unverified(identity) | Self::Untimely(identity) => &identity.claim.token,
        }
    }

    /// Whether its source must judge the token before anything is served.
    pub fn must_be_judged(&self) -> bool {
        match self {
            Self::Untimely(_) => true,
            Self::Verified(_) | Self::Unverified(_) => false,
        }
    }

    /// The same, with times that only its source can judge: it finds no more than the token itself earns.
    pub(super) fn untimely(&self) -> Self {
        Self::Untimely(UnverifiedIdentity::claimed(self.token().clone(), self.caller()))
    }
}

impl VerifiedIdentity {
    /// Only for the code that has just seen the proof.
    pub(super) fn proven(token: TokenFacts, cluster: Arc<str>, pod: Arc<Pod>) -> Self {
        Self { proof: Arc::new(Proof { token, cluster, pod }) }
    }

    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.proof.pod
    }

    /// Until when the token that proved it is valid.
    pub fn expires(&self) -> SystemTime {
        self.proof.token.validity.expires
    }
}

impl UnverifiedIdentity {
    pub(super) fn claimed(token: TokenFacts, caller: Caller) -> Self {
        Self { claim: Arc::new(Claim { token, caller }) }
    }
}
