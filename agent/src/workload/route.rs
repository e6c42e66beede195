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

/// What the cluster says today of a route that a caller was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteStatus {
    /// It is given still, or nobody knows otherwise.
    Given,
    /// What the caller has by it is its own until it expires, and nothing more is fetched.
    ToExpiry,
    /// It has ended, and with it what the caller has.
    Ended,
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

/// A source of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// EKS Auth.
    EksAuth,
    /// STS, with a web identity.
    WebIdentity,
}

impl Source {
    /// All that there are.
    pub const ALL: [Self; 2] = [Self::EksAuth, Self::WebIdentity];

    /// The name, as logs and metrics spell it. Users' alerts select by it, so it is an interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EksAuth => "eks-auth",
            Self::WebIdentity => "web-identity",
        }
    }
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

    /// The source that it leads to.
    pub const fn source(&self) -> Source {
        match self {
            Self::EksAuth => Source::EksAuth,
            Self::WebIdentity(_) => Source::WebIdentity,
        }
    }
}
