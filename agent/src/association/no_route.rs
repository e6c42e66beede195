//! Why a caller has no route to credentials.
//!
//! Owns: the list, and one sentence for each. Must not know: which status an answer has (`server`).

use std::sync::Arc;

/// Why no source serves a caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// None of the token's audiences is one that this agent serves.
    #[error("the token was issued for no audience that this agent serves")]
    ForeignAudience,
    /// Tokens for EKS Pod Identity are not exchanged here.
    #[error("this agent is not set up for EKS Pod Identity")]
    PodIdentityOff,
    /// Tokens for STS are not exchanged here.
    #[error("this agent is not set up to give roles to service accounts")]
    WebIdentityOff,
    /// Nobody has verified who asks, and a role is given to nobody for a claim alone: STS would be the only
    /// judge of a role that the agent chose.
    #[error("the token could not be verified, and a role is given to a verified pod only")]
    Unverified,
    /// Neither an annotation nor an entry of the role map.
    #[error("the service account has no role: neither an annotation nor an entry of the role map names one")]
    NoRole,
    /// The annotation is there, and no role can be read from it; the sentence says why.
    #[error("{0}")]
    InvalidRole(Arc<str>),
    /// The role is given for tokens of another audience.
    #[error("the service account's role is for tokens of another audience")]
    OtherAudience,
    /// The role limits do not let this namespace have this role.
    #[error("the role limits of this cluster do not allow this namespace to use this role")]
    NotAllowed,
    /// The API server, or a file, has not said yet. It may say so a moment later.
    #[error("the role of the service account is not known yet")]
    NotYetKnown,
}
