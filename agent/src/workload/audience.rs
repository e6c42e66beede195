//! For whom a token was issued.
//!
//! Owns: the audiences that this agent knows. Must not know: which source serves an audience (`association`).

/// The audience of tokens meant for EKS Pod Identity (EKS user guide, "How EKS Pod Identity works").
const POD_IDENTITY_AUDIENCE: &str = "pods.eks.amazonaws.com";

/// The audience of tokens meant for IAM roles for service accounts.
const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";

/// For whom a token was issued, as far as this agent cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// EKS Pod Identity.
    PodIdentity,
    /// No service that this agent serves.
    Foreign,
}

impl Audience {
    /// What the `aud` of a token amounts to.
    pub fn of(audiences: &[Box<str>]) -> Self {
        let is_pod_identity = audiences.iter().any(|audience| &**audience == POD_IDENTITY_AUDIENCE);
        if is_pod_identity { Self::PodIdentity } else { Self::Foreign }
    }

    /// Its name in tokens, where it has one that this agent serves.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::PodIdentity => Some(POD_IDENTITY_AUDIENCE),
            Self::Foreign => None,
        }
    }

    /// Whether a token is good for more than one of the services that this agent calls: each of them could
    /// use it at the other.
    pub fn are_several_of_ours(audiences: &[Box<str>]) -> bool {
        let names = |wanted: &str| audiences.iter().any(|audience| &**audience == wanted);
        names(POD_IDENTITY_AUDIENCE) && names(WEB_IDENTITY_AUDIENCE)
    }
}
