//! For whom a token was issued.
//!
//! Owns: the audiences that this agent knows. Must not know: which source serves an audience (`association`).

use std::sync::Arc;

/// The audience of tokens meant for EKS Pod Identity (EKS user guide, "How EKS Pod Identity works").
const POD_IDENTITY_AUDIENCE: &str = "pods.eks.amazonaws.com";

/// The audience of tokens meant for IAM roles for service accounts, unless another was agreed on.
pub const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";

/// For whom a token was issued, as far as this agent cares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// EKS Pod Identity.
    PodIdentity,
    /// STS, by this name.
    WebIdentity(Arc<str>),
    /// No service that this agent serves.
    Foreign,
}

/// The audiences that this agent serves: that of EKS Pod Identity, and those of web identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedAudiences {
    web_identity: Vec<Arc<str>>,
}

impl Audience {
    /// Its name in tokens, where it has one that this agent serves.
    pub fn name(&self) -> Option<Arc<str>> {
        match self {
            Self::PodIdentity => Some(POD_IDENTITY_AUDIENCE.into()),
            Self::WebIdentity(name) => Some(Arc::clone(name)),
            Self::Foreign => None,
        }
    }

    /// Whether its source verifies tokens itself. STS does as well, but of a role that the agent has chosen:
    /// what a token claims must not choose one.
    pub const fn has_judge(&self) -> bool {
        match self {
            Self::PodIdentity | Self::Foreign => true,
            Self::WebIdentity(_) => false,
        }
    }
}

impl ServedAudiences {
    /// Those of EKS Pod Identity, and these for STS.
    pub fn new<'a>(web_identity: impl IntoIterator<Item = &'a str>) -> Self {
        Self { web_identity: web_identity.into_iter().map(Arc::from).collect() }
    }

    /// What the `aud` of a token amounts to.
    pub fn meant_by(&self, audiences: &[Box<str>]) -> Audience {
        let is_meant = |name: &str| audiences.iter().any(|audience| &**audience == name);
        if is_meant(POD_IDENTITY_AUDIENCE) {
            return Audience::PodIdentity;
        }
        let web_identity = self.web_identity.iter().find(|name| is_meant(name));
        web_identity.map_or(Audience::Foreign, |name| Audience::WebIdentity(Arc::clone(name)))
    }

    /// Whether a token is good for more than one of the services that agents call: each of them could use it
    /// at the other.
    pub fn are_several_in(&self, audiences: &[Box<str>]) -> bool {
        let is_one = |name: &str| {
            [POD_IDENTITY_AUDIENCE, WEB_IDENTITY_AUDIENCE].contains(&name)
                || self.web_identity.iter().any(|served| **served == *name)
        };
        let mut first = None;
        audiences
            .iter()
            .filter(|audience| is_one(audience))
            .any(|audience| *first.get_or_insert(audience) != audience)
    }
}

#[cfg(test)]
mod tests {
    use super::{Audience, ServedAudiences};

    fn in_token(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| Box::from(*name)).collect()
    }

    #[test]
    fn the_audience_of_a_token_is_one_that_is_served_or_foreign() {
        let web = |name: &str| Audience::WebIdentity(name.into());
        let (none, two) = (ServedAudiences::default(), ServedAudiences::new(["sts.amazonaws.com", "mine"]));
        for (served, names, expected) in [
            (&none, vec!["pods.eks.amazonaws.com"], Audience::PodIdentity),
            (&none, vec!["other", "pods.eks.amazonaws.com"], Audience::PodIdentity),
            (&none, vec!["sts.amazonaws.com"], Audience::Foreign),
            (&none, vec![], Audience::Foreign),
            (&two, vec!["pods.eks.amazonaws.com"], Audience::PodIdentity),
            (&two, vec!["sts.amazonaws.com"], web("sts.amazonaws.com")),
            (&two, vec!["vault", "mine"], web("mine")),
            (&two, vec!["vault"], Audience::Foreign),
        ] {
            assert_eq!(served.meant_by(&in_token(&names)), expected, "{names:?}");
        }
    }

    #[test]
    fn a_token_for_two_services_of_aws_is_noticed_whether_both_are_served_or_not() {
        let (none, two) = (ServedAudiences::default(), ServedAudiences::new(["sts.amazonaws.com", "mine"]));
        for (served, names, expected) in [
            (&none, vec!["pods.eks.amazonaws.com", "sts.amazonaws.com"], true),
            (&none, vec!["pods.eks.amazonaws.com", "pods.eks.amazonaws.com"], false),
            (&none, vec!["pods.eks.amazonaws.com", "mine"], false),
            (&two, vec!["mine", "pods.eks.amazonaws.com"], true),
            (&two, vec!["mine", "sts.amazonaws.com"], true),
            (&two, vec!["mine", "vault"], false),
            (&two, vec![], false),
        ] {
            assert_eq!(served.are_several_in(&in_token(&names)), expected, "{names:?}");
        }
    }
}
