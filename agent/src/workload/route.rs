//! By which way a caller gets its credentials.
//!
//! Owns: the list of ways. Must not know: how one is chosen (`association`) or taken (`credentials::source`).

use std::sync::Arc;

use super::role::RoleArn;
use super::token::TokenDigest;

/// The way to credentials. It is part of the key under which they are kept: the same pod may hold a set of
/// each.
///
/// A way that needs more than the token (a role, a session name) carries it in its variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `AssumeRoleForPodIdentity` of EKS Auth, which knows the role itself.
    EksAuth,
    /// `AssumeRoleWithWebIdentity` of STS, for a role that the cluster gives.
    WebIdentity(Arc<WebIdentity>),
}

/// What STS is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebIdentity {
    /// The role.
    pub role: RoleArn,
    /// The audience of tokens that the role is given for.
    pub audience: Arc<str>,
    /// `RoleSessionName`. It is a name and no more: the key of credentials has the pod beside it.
    pub session_name: Arc<str>,
    /// Which endpoint of STS is asked.
    pub endpoint: StsEndpoint,
}

/// Which endpoint of STS is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StsEndpoint {
    /// That of the region.
    Regional,
    /// `sts.amazonaws.com`, where the partition has it.
    Global,
}

impl Route {
    /// The name of what a token earns by this way. A role of its pod may change: what it earned of another
    /// one is not found by it.
    #[must_use]
    pub fn name_of(&self, token: TokenDigest) -> TokenDigest {
        match self {
            Self::EksAuth => token,
            Self::WebIdentity(wanted) => token.with(&[wanted.role.as_str(), &wanted.audience]),
        }
    }

    /// The name of the source, for logs and metrics; a closed set.
    pub const fn source(&self) -> &'static str {
        match self {
            Self::EksAuth => "eks-auth",
            Self::WebIdentity(_) => "web-identity",
        }
    }
}
