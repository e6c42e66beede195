//! By which way a caller gets its credentials.
//!
//! Owns: the list of ways. Must not know: how one is chosen (`association`) or taken (`credentials::source`).

/// The way to credentials. It is part of the key under which they are kept: the same pod may hold a set of
/// each.
///
/// A way that needs more than the token (a role, a session name) carries it in its variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `AssumeRoleForPodIdentity` of EKS Auth, which knows the role itself.
    EksAuth,
}

impl Route {
    /// The name of the source, for logs and metrics; a closed set.
    pub const fn source(&self) -> &'static str {
        match self {
            Self::EksAuth => "eks-auth",
        }
    }
}
