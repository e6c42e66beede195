//! For whom a token was issued.
//!
//! Owns: the audiences that this agent knows. Must not know: which source serves an audience (`association`).

use std::fmt;
use std::sync::Arc;

/// The audience of tokens meant for EKS Pod Identity (EKS user guide, "How EKS Pod Identity works").
const POD_IDENTITY_AUDIENCE: &str = "pods.eks.amazonaws.com";

/// The audience of tokens meant for IAM roles for service accounts, unless another was agreed on.
pub const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";

/// So many audiences are named to people: as many as an agent serves for STS, and that of EKS Pod Identity.
const MOST_NAMED: usize = 9;
/// What is quoted of one, in characters: the longest known ones are URLs.
const LONGEST_NAME: usize = 100;

/// For whom a token was issued, as far as this agent cares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// EKS Pod Identity.
    PodIdentity,
    /// STS, by this name.
    WebIdentity(Arc<str>),
}

/// The audiences that this agent serves: that of EKS Pod Identity, if it asks EKS Auth, and those of web
/// identity, if it asks STS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedAudiences {
    has_pod_identity: bool,
    web_identity: Vec<Arc<str>>,
}

/// That a token was issued for nobody whom this agent serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignAudience {
    in_token: Box<str>,
    served: Box<str>,
    advice: &'static str,
}

impl Audience {
    /// Its name in tokens.
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::PodIdentity => POD_IDENTITY_AUDIENCE.into(),
            Self::WebIdentity(name) => Arc::clone(name),
        }
    }

    /// Whether its source verifies tokens itself. STS does as well, but of a role that the agent has chosen:
    /// what a token claims must not choose one.
    pub const fn has_judge(&self) -> bool {
        match self {
            Self::PodIdentity => true,
            Self::WebIdentity(_) => false,
        }
    }
}

impl Default for ServedAudiences {
    /// That of EKS Pod Identity alone.
    fn default() -> Self {
        Self::new(true, [])
    }
}

impl ServedAudiences {
    /// That of EKS Pod Identity or not, and these for STS.
    pub fn new<'a>(has_pod_identity: bool, web_identity: impl IntoIterator<Item = &'a str>) -> Self {
        Self { has_pod_identity, web_identity: web_identity.into_iter().map(Arc::from).collect() }
    }

    /// What the `aud` of a token amounts to.
    ///
    /// # Errors
    /// [`ForeignAudience`], where none of them is served.
    pub fn meant_by(&self, audiences: &[Box<str>]) -> Result<Audience, ForeignAudience> {
        let is_meant = |name: &str| audiences.iter().any(|audience| &**audience == name);
        if self.has_pod_identity && is_meant(POD_IDENTITY_AUDIENCE) {
            return Ok(Audience::PodIdentity);
        }
        let web_identity = self.web_identity.iter().find(|name| is_meant(name));
        web_identity
            .map(|name| Audience::WebIdentity(Arc::clone(name)))
            .ok_or_else(|| self.foreign(audiences))
    }

    fn foreign(&self, audiences: &[Box<str>]) -> ForeignAudience {
        let is_in_token = |name: &str| audiences.iter().any(|audience| &**audience == name);
        let pod_identity = self.has_pod_identity.then_some(POD_IDENTITY_AUDIENCE);
        let served = pod_identity.into_iter().chain(self.web_identity.iter().map(AsRef::as_ref));
        let advice = if is_in_token(POD_IDENTITY_AUDIENCE) {
            "EKS Pod Identity is off in this agent (--pod-identity=false)"
        } else if !self.web_identity.is_empty() {
            "the audience of the pod's token, that of its annotation or role map entry, and one of \
             --web-identity-audience must be the same"
        } else if is_in_token(WEB_IDENTITY_AUDIENCE) {
            "roles for it need --service-account-roles or --role-map"
        } else {
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE must name the token that EKS Pod Identity injects"
        };
        let (in_token, served) = (listed(audiences.iter().map(AsRef::as_ref)), listed(served));
        ForeignAudience { in_token: in_token.into(), served: served.into(), advice }
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

impl ForeignAudience {
    /// What to look at: the usual mistake behind it.
    pub const fn advice(&self) -> &'static str {
        self.advice
    }
}

impl fmt::Display for ForeignAudience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_token, served, advice: _ } = self;
        write!(f, "it is for {in_token}, and this agent serves {served}")
    }
}

/// Names for people: what a token says may be anything.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return "nobody".to_owned();
    }
    let is_plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    let shown = |name: &str| match is_plain(name) && name.len() <= LONGEST_NAME {
        true => name.to_owned(),
        false => format!("{:?}", name.chars().take(LONGEST_NAME).collect::<String>()),
    };
    let named: Vec<_> = names.by_ref().take(MOST_NAMED).map(shown).collect();
    let more = names.next().map_or("", |_| ", …");
    format!("{}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Audience, ServedAudiences};

    fn in_token(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| Box::from(*name)).collect()
    }

    fn both() -> ServedAudiences {
        ServedAudiences::new(true, ["sts.amazonaws.com", "mine"])
    }

    #[test]
    fn the_audience_of_a_token_is_one_that_is_served_or_foreign() {
        let web = |name: &str| Some(Audience::WebIdentity(name.into()));
        let (none, two) = (ServedAudiences::default(), both());
        let no_eks = ServedAudiences::new(false, ["sts.amazonaws.com"]);
        for (served, names, expected) in [
            (&none, vec!["pods.eks.amazonaws.com"], Some(Audience::PodIdentity)),
            (&none, vec!["other", "pods.eks.amazonaws.com"], Some(Audience::PodIdentity)),
            (&none, vec!["sts.amazonaws.com"], None),
            (&none, vec![], None),
            (&two, vec!["pods.eks.amazonaws.com"], Some(Audience::PodIdentity)),
            (&two, vec!["sts.amazonaws.com"], web("sts.amazonaws.com")),
            (&two, vec!["vault", "mine"], web("mine")),
            (&two, vec!["vault"], None),
            (&no_eks, vec!["pods.eks.amazonaws.com"], None),
            (&no_eks, vec!["sts.amazonaws.com"], web("sts.amazonaws.com")),
        ] {
            assert_eq!(served.meant_by(&in_token(&names)).ok(), expected, "{names:?}");
        }
    }

    #[test]
    fn a_foreign_token_is_told_what_it_has_what_is_served_and_what_to_look_at() {
        let (none, two) = (ServedAudiences::default(), both());
        let no_eks = ServedAudiences::new(false, ["sts.amazonaws.com"]);
        for (served, names, sentence, advice) in [
            (
                &two,
                vec!["vault"],
                "it is for vault, and this agent serves pods.eks.amazonaws.com, sts.amazonaws.com, mine",
                "--web-identity-audience must be the same",
            ),
            (
                &none,
                vec!["sts.amazonaws.com"],
                "it is for sts.amazonaws.com, and this agent serves pods.eks.amazonaws.com",
                "need --service-account-roles or --role-map",
            ),
            (
                &no_eks,
                vec!["pods.eks.amazonaws.com"],
                "it is for pods.eks.amazonaws.com, and this agent serves sts.amazonaws.com",
                "--pod-identity=false",
            ),
            (
                &none,
                vec![],
                "it is for nobody, and this agent serves pods.eks.amazonaws.com",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            ),
            (&none, vec!["a\nb", ""], r#"it is for "a\nb", "", and"#, "AWS_CONTAINER"),
        ] {
            let foreign = served.meant_by(&in_token(&names)).unwrap_err();
            assert!(foreign.to_string().starts_with(sentence), "{foreign}");
            assert!(foreign.advice().contains(advice), "{names:?}: {}", foreign.advice());
        }
        let many = vec!["x".repeat(5_000); 50];
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let foreign = none.meant_by(&in_token(&many)).unwrap_err().to_string();
        assert!(foreign.len() < 1_100 && foreign.contains(", …"), "{}", foreign.len());
    }

    #[test]
    fn a_token_for_two_services_of_aws_is_noticed_whether_both_are_served_or_not() {
        let (none, two) = (ServedAudiences::default(), both());
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
