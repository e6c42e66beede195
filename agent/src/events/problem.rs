//! What is wrong with a pod, and the sentences that say so and what to do about it. Pure.
//!
//! Owns: these sentences, and that each fits. Must not know: who noticed it, or how an Event is written.

use std::fmt;
use std::sync::Arc;

use super::reason::Reason;
use crate::pods::PodName;
use crate::workload::{ForeignAudience, WebIdentity};

/// The API server takes no longer note (docs/design/facts.md#events), in bytes.
const LONGEST_NOTE: usize = 1_024;
/// Stands for what was cut.
const CUT: &str = "…";

/// Something that somebody can mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No association gives the pod's service account a role.
    NoAssociation {
        /// The service account.
        service_account: Box<str>,
        /// What AWS said.
        said: AwsWords,
    },
    /// There is a role, and it cannot be assumed for the pod.
    RoleNotAssumable {
        /// The service account.
        service_account: Box<str>,
        /// What AWS said.
        said: AwsWords,
    },
    /// STS does not let the pod assume the role that the cluster gives it.
    RefusedBySts {
        /// The service account.
        service_account: Box<str>,
        /// What STS was asked for.
        wanted: Arc<WebIdentity>,
        /// What STS said.
        said: AwsWords,
    },
    /// STS could not read the keys of the token's issuer.
    IssuerUnreadable {
        /// The service account.
        service_account: Box<str>,
        /// The role that it was given.
        wanted: Arc<WebIdentity>,
    },
    /// The pod asks for the role of its service account, and there is none for it.
    NoRole {
        /// The service account.
        service_account: Box<str>,
        /// Why.
        why: Box<str>,
    },
    /// The pod sends a token that is for somebody else.
    WrongAudience(ForeignAudience),
    /// The pod's token was presented on a node where it does not run.
    OtherNode,
    /// The pod came up without variables and token, though its service account has an association.
    NotInjected {
        /// The service account.
        service_account: Box<str>,
    },
}

/// AWS's own words: its code, and its sentence, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsWords {
    /// Of a closed set.
    pub code: &'static str,
    /// One line.
    pub message: Arc<str>,
}

/// The names that the sentences need beside the pod's.
#[derive(Clone, Debug)]
pub struct Names {
    /// The EKS cluster.
    pub cluster: Box<str>,
    /// This node.
    pub node: Box<str>,
}

impl Problem {
    /// The word for it.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoAssociation { .. } => Reason::NoPodIdentityAssociation,
            Self::RoleNotAssumable { .. } | Self::RefusedBySts { .. } | Self::IssuerUnreadable { .. } => {
                Reason::RoleNotAssumable
            }
            Self::NoRole { .. } => Reason::NoRoleForServiceAccount,
            Self::WrongAudience(_) => Reason::WrongTokenAudience,
            Self::OtherNode => Reason::TokenOfAnotherNode,
            Self::NotInjected { .. } => Reason::PodIdentityNotInjected,
        }
    }

    /// What is wrong with this pod and what to do, in at most [`LONGEST_NOTE`] bytes. What AWS said comes
    /// last: where something must be cut, it is that.
    pub fn note(&self, pod: &PodName, names: &Names) -> Box<str> {
        let (namespace, cluster) = (&pod.namespace, &names.cluster);
        let note = match self {
            Self::NoAssociation { service_account, said } => format!(
                "No pod identity association gives the service account of this pod a role, so AWS issues no \
                 credentials for it. Create one, and the pod gets them within a minute: aws eks \
                 create-pod-identity-association --cluster-name {cluster} --namespace {namespace} \
                 --service-account {service_account} --role-arn ROLE_ARN{said}"
            ),
            Self::RoleNotAssumable { service_account, said } => format!(
                "EKS Auth cannot assume the role that the pod identity association of service account \
                 {namespace}/{service_account} in cluster {cluster} names. The role's trust policy must \
                 allow the principal {{\"Service\": \"pods.eks.amazonaws.com\"}} both sts:AssumeRole and \
                 sts:TagSession, and its conditions must hold for this pod{said}"
            ),
            Self::RefusedBySts { service_account, wanted, said } => {
                let account = format!("{namespace}/{service_account}");
                let advice = advice_on(said.code, wanted, namespace, service_account);
                format!(
                    "STS does not let service account {account} assume {}. {advice}{said}",
                    wanted.role.as_str()
                )
            }
            Self::IssuerUnreadable { service_account, wanted } => format!(
                "STS cannot read the keys of the cluster's issuer, so service account \
                 {namespace}/{service_account} cannot assume {}. AWS must be able to get ISSUER\
                 /.well-known/openid-configuration, and the keys that it names, over https from the internet \
                 within seconds, and the key that signed the token must be among them",
                wanted.role.as_str()
            ),
            Self::NoRole { service_account, why } => format!(
                "Service account {namespace}/{service_account} gets no AWS credentials for a token of STS: \
                 {why}. Its role is what the annotation eks.amazonaws.com/role-arn or the agent's role map \
                 names, within the agent's role limits"
            ),
            Self::WrongAudience(foreign) => format!(
                "The token that this pod sends for its AWS credentials is refused for its audience: \
                 {foreign}. To be served, the pod needs a projected serviceAccountToken with a served \
                 audience, named by the variable AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; {}",
                foreign.advice()
            ),
            Self::OtherNode => format!(
                "A token of this pod was presented on node {}, where this pod does not run, and was refused. \
                 A token must not leave its pod: if no workload passes it on by mistake, it was stolen. \
                 Delete this pod: the token of a deleted pod is refused",
                names.node
            ),
            Self::NotInjected { service_account } => format!(
                "Service account {namespace}/{service_account} has a pod identity association in cluster \
                 {cluster}, but this pod was created without AWS_CONTAINER_CREDENTIALS_FULL_URI and the \
                 token of EKS Pod Identity: the association is younger than the pod, or the webhook did not \
                 see it. Unless the association was deleted meanwhile, create the pod again, such as by \
                 kubectl rollout restart of its workload"
            ),
        };
        cut(&note).into()
    }
}

/// What to do about a refusal of STS, by its code.
fn advice_on(code: &str, wanted: &WebIdentity, namespace: &str, service_account: &str) -> String {
    let audience = &wanted.audience;
    match code {
        "RegionDisabledException" => {
            "STS is not active in this region for the account of the role: activate \
             it in the account settings of IAM, or have the annotation \
             eks.amazonaws.com/sts-regional-endpoints say false"
                .to_owned()
        }
        "PackedPolicyTooLarge" => "The session is too large for STS: the role has too many tags or policies \
             for what the token carries"
            .to_owned(),
        "IDPRejectedClaim" => {
            "The identity provider rejects the token: it may have been withdrawn there".to_owned()
        }
        "ValidationError" => "STS finds the request invalid: check the ARN of the role".to_owned(),
        _ => format!(
            "The account must have an IAM OIDC provider for the issuer of the cluster with audience \
             {audience}, and the role's trust policy must allow that provider \
             sts:AssumeRoleWithWebIdentity for sub \
             system:serviceaccount:{namespace}:{service_account} and aud {audience}"
        ),
    }
}

impl fmt::Display for AwsWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ". AWS says: {}", self.code)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// A text that fits, cut between two characters.
fn cut(text: &str) -> String {
    if text.len() <= LONGEST_NOTE {
        return text.to_owned();
    }
    let end = (0..=LONGEST_NOTE - CUT.len()).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned() + CUT
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{AwsWords, LONGEST_NOTE, Names, Problem};
    use crate::pods::PodName;
    use crate::workload::{ForeignAudience, RoleArn, ServedAudiences, StsEndpoint, WebIdentity};

    fn names() -> Names {
        Names { cluster: "prod".into(), node: "node-1".into() }
    }

    fn pod() -> PodName {
        PodName { namespace: "shop".into(), name: "cart-0".into(), uid: "u".into() }
    }

    fn wanted() -> Arc<WebIdentity> {
        let role = RoleArn::read("arn:aws:iam::111122223333:role/reader").unwrap();
        let (audience, session_name) = ("sts.amazonaws.com".into(), "shop.cart-0".into());
        Arc::new(WebIdentity { role, audience, session_name, endpoint: StsEndpoint::Regional })
    }

    fn foreign() -> ForeignAudience {
        ServedAudiences::new(true, ["sts.amazonaws.com"]).meant_by(&["vault".into()]).unwrap_err()
    }

    fn said(message: &str) -> AwsWords {
        AwsWords { code: "AccessDeniedException", message: message.into() }
    }

    fn all(service_account: &str, said: &AwsWords) -> [Problem; 7] {
        let (service_account, said) = (Box::<str>::from(service_account), said.clone());
        [
            Problem::NoAssociation { service_account: service_account.clone(), said: said.clone() },
            Problem::RoleNotAssumable { service_account: service_account.clone(), said: said.clone() },
            Problem::WrongAudience(foreign()),
            Problem::OtherNode,
            Problem::NotInjected { service_account: service_account.clone() },
            Problem::RefusedBySts { service_account: service_account.clone(), wanted: wanted(), said },
            Problem::NoRole { service_account, why: "the annotation names none".into() },
        ]
    }

    #[test]
    fn a_note_has_the_names_and_says_what_to_do() {
        let said = said("Service failed to assume role due to trust policy");
        let [no_association, not_assumable, audience, other_node, not_injected, by_sts, no_role] =
            all("cart", &said).map(|problem| problem.note(&pod(), &names()));
        for (note, says) in [
            (
                &no_association,
                "aws eks create-pod-identity-association --cluster-name prod --namespace shop \
                 --service-account cart --role-arn ROLE_ARN. AWS says: AccessDeniedException",
            ),
            (
                &not_assumable,
                "{\"Service\": \"pods.eks.amazonaws.com\"} both sts:AssumeRole and sts:TagSession",
            ),
            (&not_assumable, ". AWS says: AccessDeniedException: Service failed to assume role due to trust"),
            (
                &audience,
                "it is for vault, and this agent serves pods.eks.amazonaws.com, sts.amazonaws.com. To",
            ),
            (&audience, "and one of --web-identity-audience must be the same"),
            (&other_node, "presented on node node-1"),
            (&not_injected, "Service account shop/cart"),
            (&by_sts, "service account shop/cart assume arn:aws:iam::111122223333:role/reader"),
            (&by_sts, "sub system:serviceaccount:shop:cart and aud sts.amazonaws.com. AWS says: Access"),
            (
                &no_role,
                "Service account shop/cart gets no AWS credentials for a token of STS: the annotation",
            ),
            (&not_injected, "Unless the association was deleted meanwhile, create the pod again"),
        ] {
            assert!(note.contains(says), "{note}: {says}");
        }
    }

    #[test]
    fn aws_without_a_sentence_is_quoted_by_its_code_alone() {
        let [problem, ..] = all("cart", &said(""));
        assert!(problem.note(&pod(), &names()).ends_with(". AWS says: AccessDeniedException"));
    }

    #[test]
    fn a_note_fits_with_the_longest_names_and_is_cut_between_characters() {
        let longest = "n".repeat(253);
        let pod = PodName { namespace: "n".repeat(63).into(), ..pod() };
        let names = Names { cluster: "c".repeat(100).into(), node: longest.clone().into() };
        for shift in ["", "x", "xx"] {
            for problem in all(&longest, &said(&(shift.to_owned() + &"…".repeat(400)))) {
                let note = problem.note(&pod, &names);
                assert!(note.len() <= LONGEST_NOTE, "{} {note}", note.len());
            }
        }
        let [_, not_assumable, ..] = all("sa", &said(&"…".repeat(400)));
        let note = not_assumable.note(&pod, &names);
        assert!(note.len() > LONGEST_NOTE - 3 && note.ends_with('…'), "as much as fits: {}", note.len());
    }

    #[test]
    fn what_to_run_is_whole_even_with_the_longest_names() {
        let (longest, namespace) = ("n".repeat(253), "m".repeat(63));
        let pod = PodName { namespace: namespace.clone().into(), ..pod() };
        let names = Names { cluster: "c".repeat(100).into(), ..names() };
        let [no_association, _, _, _, not_injected, ..] = all(&longest, &said("no"));
        let note = no_association.note(&pod, &names);
        assert!(note.contains(&format!("--namespace {namespace} --service-account {longest} --role-arn")));
        let note = not_injected.note(&pod, &names);
        assert!(note.ends_with("such as by kubectl rollout restart of its workload"), "{note}");
    }
}
