//! A role: its name, who may assume it, and for how long.
//!
//! Owns: what IAM would take for a role, and the trust policies that its users write most. Must not know:
//! where roles are kept.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::arn::RoleArn;
use super::context::Context;
use super::oidc_provider::OidcProvider;
use super::registry::IamError;
use super::trust::{Asking, Principal, TrustPolicy};

/// The service that assumes roles for EKS Pod Identity.
pub(crate) const POD_IDENTITY: &str = "pods.eks.amazonaws.com";
/// Shortest and default `MaxSessionDuration` of a role, in seconds (botocore's model of IAM).
const SHORTEST_MAX: u64 = 3_600;
/// The longest, in seconds (same).
const LONGEST_MAX: u64 = 43_200;

/// A role of IAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    /// `arn:aws:iam::<account>:role/<path and name>`.
    pub arn: String,
    /// Who may assume it: a policy document, as IAM's `AssumeRolePolicyDocument`.
    pub trust_policy: Value,
    /// The longest session in seconds, 3,600 to 43,200.
    #[serde(default = "shortest_max")]
    pub max_session_duration: u64,
}

fn shortest_max() -> u64 {
    SHORTEST_MAX
}

impl Role {
    /// A role with sessions of at most an hour, IAM's default.
    #[must_use]
    pub fn new(arn: &str, trust_policy: Value) -> Self {
        Self { arn: arn.to_owned(), trust_policy, max_session_duration: SHORTEST_MAX }
    }

    /// A role with the usual trust policy of IRSA: it trusts one service account, `<namespace>/<name>`, with
    /// tokens of this issuer for this audience. The identity provider is the one of the role's own account.
    #[must_use]
    pub fn trusting(arn: &str, service_account: &str, issuer: &str, audience: &str) -> Self {
        let subject = format!("system:serviceaccount:{}", service_account.replacen('/', ":", 1));
        let issuer = OidcProvider::without_scheme(issuer);
        let (sub, aud) = (format!("{issuer}:sub"), format!("{issuer}:aud"));
        let provider = RoleArn::parse(arn).map(|role| OidcProvider::arn_beside(&role, issuer));
        let trust_policy = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Federated": provider },
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": { "StringEquals": { sub: subject, aud: audience } },
            }],
        });
        Self::new(arn, trust_policy)
    }

    /// A role with the usual trust policy of EKS Pod Identity.
    #[must_use]
    pub fn trusting_pod_identity(arn: &str) -> Self {
        let trust_policy = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Service": POD_IDENTITY },
                "Action": ["sts:AssumeRole", "sts:TagSession"],
            }],
        });
        Self::new(arn, trust_policy)
    }

    /// A role that another one may assume with this external id: the target of an association.
    #[must_use]
    pub fn trusting_role(arn: &str, role_arn: &str, external_id: &str) -> Self {
        let trust_policy = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "AWS": role_arn },
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": { "StringEquals": { "sts:ExternalId": external_id } },
            }],
        });
        Self::new(arn, trust_policy)
    }

    /// The same with longer sessions.
    #[must_use]
    pub fn max_session_duration(self, seconds: u64) -> Self {
        Self { max_session_duration: seconds, ..self }
    }

    /// Whether IAM would take it.
    pub(super) fn check(&self) -> Result<(), IamError> {
        if RoleArn::parse(&self.arn).is_none() {
            return Err(IamError::RoleArn(self.arn.clone()));
        }
        if !(SHORTEST_MAX..=LONGEST_MAX).contains(&self.max_session_duration) {
            return Err(IamError::MaxSessionDuration(self.arn.clone(), self.max_session_duration));
        }
        TrustPolicy::parse(&self.trust_policy).map_err(|error| IamError::Trust(self.arn.clone(), error))?;
        Ok(())
    }

    /// Whether `principal` may do all these actions to the role. A document that cannot be read trusts
    /// nobody.
    pub(crate) fn trusts(&self, principal: Principal<'_>, actions: &[&str], context: &Context) -> bool {
        TrustPolicy::parse(&self.trust_policy).is_ok_and(|policy| {
            actions.iter().all(|action| policy.allows(&Asking { principal, action, context }))
        })
    }

    /// Whether its trust policy allows a service all these actions under some condition.
    pub(crate) fn names(&self, service: &str, actions: &[&str]) -> bool {
        TrustPolicy::parse(&self.trust_policy).is_ok_and(|policy| {
            actions.iter().all(|action| policy.names(Principal::Service(service), action))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:iam::111122223333:role/irsa/cart";
    const ISSUER: &str = "https://oidc.eks.us-west-2.amazonaws.com/id/ABC";

    #[test]
    fn the_usual_roles_trust_whom_they_name_and_nobody_else() {
        let role = Role::trusting(ARN, "shop/cart", ISSUER, "sts.amazonaws.com");
        role.check().unwrap();
        let provider = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.us-west-2.amazonaws.com/id/ABC";
        let trusts = |subject: &str, audience: &str| {
            let context = Context::default()
                .with("oidc.eks.us-west-2.amazonaws.com/id/ABC:sub", subject)
                .with("oidc.eks.us-west-2.amazonaws.com/id/ABC:aud", audience);
            role.trusts(Principal::Federated(provider), &["sts:AssumeRoleWithWebIdentity"], &context)
        };
        assert!(trusts("system:serviceaccount:shop:cart", "sts.amazonaws.com"));
        assert!(!trusts("system:serviceaccount:shop:till", "sts.amazonaws.com"));
        assert!(!trusts("system:serviceaccount:shop:cart", "another"));

        let role = Role::trusting_pod_identity(ARN);
        role.check().unwrap();
        let actions = ["sts:AssumeRole", "sts:TagSession"];
        assert!(role.trusts(Principal::Service(POD_IDENTITY), &actions, &Context::default()));
        assert!(!role.trusts(Principal::Service("ec2.amazonaws.com"), &actions, &Context::default()));
        assert!(!role.trusts(Principal::Federated(provider), &actions, &Context::default()));
    }

    #[test]
    fn a_role_names_a_service_whatever_its_conditions_are() {
        let role = |principal: &str, actions: &[&str], effect: &str| {
            let condition = json!({ "StringEquals": { "aws:RequestTag/kubernetes-namespace": "shop" } });
            let statement = json!({
                "Effect": effect, "Principal": { "Service": principal }, "Action": actions,
                "Condition": condition,
            });
            Role::new(ARN, json!({ "Version": "2012-10-17", "Statement": [statement] }))
        };
        let both = ["sts:AssumeRole", "sts:TagSession"];
        for (role, expected) in [
            (role(POD_IDENTITY, &both, "Allow"), true),
            (role(POD_IDENTITY, &["sts:*"], "Allow"), true),
            (role(POD_IDENTITY, &both[..1], "Allow"), false),
            (role("pod.eks.amazonaws.com", &both, "Allow"), false),
            (role(POD_IDENTITY, &both, "Deny"), false),
        ] {
            assert_eq!(role.names(POD_IDENTITY, &both), expected, "{}", role.trust_policy);
        }
    }

    #[test]
    fn what_iam_would_not_take_is_refused() {
        let good = Role::trusting_pod_identity(ARN);
        for (role, says) in [
            (Role { arn: "app".to_owned(), ..good.clone() }, "app"),
            (good.clone().max_session_duration(3_599), "3599"),
            (good.clone().max_session_duration(43_201), "43201"),
            (Role::new(ARN, json!({ "Statement": [{ "Effect": "Allow" }] })), "missing field"),
        ] {
            let error = role.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(good.max_session_duration(43_200).check().is_ok());
        let unreadable = Role::new(ARN, json!({ "Statement": "x" }));
        assert!(!unreadable.trusts(
            Principal::Service(POD_IDENTITY),
            &["sts:AssumeRole"],
            &Context::default()
        ));
    }
}
