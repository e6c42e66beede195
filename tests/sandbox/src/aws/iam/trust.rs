//! Trust policies: who may assume a role.
//!
//! Owns: the document's form, statements, effects, principals and actions. Must not know: how a condition is
//! judged, nor what follows from the answer.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::Value;
use thiserror::Error;

use super::arn::RoleArn;
use super::condition::{Conditions, Verdict};
use super::context::Context;
use super::pattern::matches;

/// A document that IAM would not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct MalformedPolicy(String);

/// Who wants to assume a role.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Principal<'a> {
    /// A service of AWS, such as `pods.eks.amazonaws.com`.
    Service(&'a str),
    /// The holder of a token by this identity provider, by its ARN.
    Federated(&'a str),
    /// A session of this role.
    Session { role: RoleArn<'a>, role_arn: &'a str, session_arn: &'a str },
}

/// One request to assume a role.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) principal: Principal<'a>,
    /// Such as `sts:AssumeRole`.
    pub(crate) action: &'a str,
    pub(crate) context: &'a Context,
}

/// A trust policy that IAM would take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrustPolicy {
    #[serde(rename = "Version", default)]
    _version: Version,
    #[serde(rename = "Id", default)]
    _id: Option<String>,
    #[serde(rename = "Statement", deserialize_with = "one_or_many")]
    statements: Vec<Statement>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Version {
    #[serde(rename = "2012-10-17")]
    Current,
    #[default]
    #[serde(rename = "2008-10-17")]
    Old,
}

// No NotPrincipal and no NotAction: hardly a trust policy has them. No Resource: IAM prohibits it here.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Sid", default)]
    _sid: Option<String>,
    effect: Effect,
    principal: Principals,
    #[serde(deserialize_with = "one_or_many")]
    action: Vec<String>,
    #[serde(default)]
    condition: Conditions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug)]
enum Principals {
    /// `"*"`
    Everyone,
    Named(Named),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Named {
    #[serde(rename = "AWS", default, deserialize_with = "one_or_many")]
    aws: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    service: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    federated: Vec<String>,
}

impl TrustPolicy {
    /// Reads a document.
    pub(crate) fn parse(document: &Value) -> Result<Self, MalformedPolicy> {
        let policy = Self::deserialize(document).map_err(|error| MalformedPolicy(error.to_string()))?;
        let action = policy.statements.iter().flat_map(|statement| &statement.action);
        let foreign = action.into_iter().find(|action| {
            let action = action.to_ascii_lowercase();
            action != "*" && !action.starts_with("sts:")
        });
        match foreign {
            // IAM: "AssumeRole policy may only specify STS AssumeRole actions."
            Some(action) => Err(MalformedPolicy(format!("{action} is not an action of STS"))),
            None => Ok(policy),
        }
    }

    /// Whether the role may be assumed: some statement allows it and none denies it.
    pub(crate) fn allows(&self, asking: &Asking<'_>) -> bool {
        let applies = |effect| {
            let mut statements = self.statements.iter().filter(|statement| statement.effect == effect);
            statements.any(|statement| statement.applies(asking))
        };
        !applies(Effect::Deny) && applies(Effect::Allow)
    }

    /// Whether some statement allows it, whatever its conditions are.
    pub(crate) fn names(&self, principal: Principal<'_>, action: &str) -> bool {
        let mut allowing = self.statements.iter().filter(|statement| statement.effect == Effect::Allow);
        allowing.any(|statement| statement.is_about(principal, action))
    }
}

impl Statement {
    fn applies(&self, asking: &Asking<'_>) -> bool {
        self.is_about(asking.principal, asking.action)
            && match self.condition.verdict(asking.context) {
                Verdict::Met => true,
                Verdict::NotMet => false,
                // What we cannot judge helps nobody: it allows nothing, and it denies.
                Verdict::Unknown => self.effect == Effect::Deny,
            }
    }
}

impl Statement {
    fn is_about(&self, principal: Principal<'_>, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        self.principal.include(principal)
            && self.action.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), &action))
    }
}

impl Principals {
    fn include(&self, asking: Principal<'_>) -> bool {
        let named = match self {
            Self::Everyone => return true,
            Self::Named(named) => named,
        };
        match asking {
            Principal::Service(name) => named.service.iter().any(|service| service == name),
            Principal::Federated(provider) => named.federated.iter().any(|arn| arn == provider),
            Principal::Session { role, role_arn, session_arn } => named.aws.iter().any(|principal| {
                principal == "*"
                    || principal == role_arn
                    || principal == session_arn
                    || principal == role.account
                    || *principal == role.account_root()
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Principals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.as_str() {
            Some("*") => Ok(Self::Everyone),
            Some(text) => Err(D::Error::custom(format!("the principal {text} is of no kind"))),
            None => serde_json::from_value(value).map(Self::Named).map_err(D::Error::custom),
        }
    }
}

/// A list, or its only member. Not an untagged enum: its errors would not say what is wrong.
fn one_or_many<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let list = if value.is_array() { value } else { Value::Array(vec![value]) };
    serde_json::from_value(list).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROVIDER: &str = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.us-west-2.amazonaws.com/id/ABC";
    const SUB: &str = "oidc.eks.us-west-2.amazonaws.com/id/ABC:sub";
    const AUD: &str = "oidc.eks.us-west-2.amazonaws.com/id/ABC:aud";
    const ROLE: &str = "arn:aws:iam::111122223333:role/first";
    const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/first/s";

    fn allows(statement: &Value, asking: &Asking<'_>) -> bool {
        TrustPolicy::parse(&json!({ "Version": "2012-10-17", "Statement": statement }))
            .unwrap()
            .allows(asking)
    }

    fn cart() -> Context {
        Context::default().with(SUB, "system:serviceaccount:shop:cart").with(AUD, "sts.amazonaws.com")
    }

    /// The statement that eksctl writes, changed in one member.
    fn usual(member: &str, value: Value) -> Value {
        let mut statement = json!({
            "Sid": "",
            "Effect": "Allow",
            "Principal": { "Federated": PROVIDER },
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {
                "StringEquals": { SUB: "system:serviceaccount:shop:cart", AUD: "sts.amazonaws.com" },
            },
        });
        statement[member] = value;
        statement
    }

    #[test]
    fn a_web_identity_is_trusted_by_provider_action_and_conditions() {
        let context = cart();
        let action = "sts:AssumeRoleWithWebIdentity";
        let asking = Asking { principal: Principal::Federated(PROVIDER), action, context: &context };
        let another = PROVIDER.replace("ABC", "ABD");
        for (statement, expected) in [
            (usual("Sid", json!("x")), true),
            (usual("Principal", json!("*")), true),
            (usual("Principal", json!({ "Federated": [another, PROVIDER] })), true),
            (usual("Principal", json!({ "Federated": another })), false),
            (usual("Principal", json!({ "Federated": "arn:aws:iam::111122223333:oidc-provider/*" })), false),
            (usual("Principal", json!({ "Service": "pods.eks.amazonaws.com" })), false),
            (usual("Principal", json!({ "AWS": "*" })), false),
            (usual("Action", json!("sts:AssumeRole")), false),
            (usual("Action", json!("sts:AssumeRole*")), true),
            (usual("Action", json!(["sts:TagSession", "STS:assumerolewithwebidentity"])), true),
            (usual("Action", json!("*")), true),
            (usual("Condition", json!({})), true),
            (
                usual("Condition", json!({ "StringEquals": { SUB: "system:serviceaccount:shop:other" } })),
                false,
            ),
            (usual("Condition", json!({ "StringLike": { SUB: "system:serviceaccount:shop:*" } })), true),
            (usual("Condition", json!({ "StringEquals": { AUD: "pods.eks.amazonaws.com" } })), false),
            (usual("Condition", json!({ "DateLessThan": { "aws:CurrentTime": "2099-01-01" } })), false),
            (usual("Effect", json!("Deny")), false),
            (json!([]), false),
        ] {
            assert_eq!(allows(&statement, &asking), expected, "{statement}");
        }
    }

    #[test]
    fn a_denial_wins_and_one_that_cannot_be_judged_denies() {
        let context = cart();
        let action = "sts:AssumeRoleWithWebIdentity";
        let asking = Asking { principal: Principal::Federated(PROVIDER), action, context: &context };
        let denial = |condition: Value| {
            json!([usual("Sid", json!("x")),
                { "Effect": "Deny", "Principal": "*", "Action": "sts:*", "Condition": condition }])
        };
        for (condition, expected) in [
            (json!({}), false),
            (json!({ "StringNotLike": { SUB: "system:serviceaccount:shop:*" } }), true),
            (json!({ "StringNotLike": { SUB: "system:serviceaccount:other:*" } }), false),
            (json!({ "NotIpAddress": { "aws:SourceIp": "10.0.0.0/8" } }), false),
        ] {
            assert_eq!(allows(&denial(condition.clone()), &asking), expected, "{condition}");
        }
    }

    #[test]
    fn a_service_needs_its_name() {
        let tags = [("kubernetes-namespace".to_owned(), "shop".to_owned())];
        let context = Context::default().with_request_tags(&tags.into());
        let principal = Principal::Service("pods.eks.amazonaws.com");
        let asking = |action| Asking { principal, action, context: &context };
        let statement = |actions: Value, condition: Value| {
            let principal = json!({ "Service": ["ec2.amazonaws.com", "pods.eks.amazonaws.com"] });
            json!({ "Effect": "Allow", "Principal": principal, "Action": actions, "Condition": condition })
        };
        let both = json!(["sts:AssumeRole", "sts:TagSession"]);
        assert!(allows(&statement(both.clone(), json!({})), &asking("sts:TagSession")));
        assert!(!allows(&statement(json!("sts:AssumeRole"), json!({})), &asking("sts:TagSession")));
        let of =
            |namespace: &str| json!({ "StringEquals": { "aws:RequestTag/kubernetes-namespace": namespace } });
        assert!(allows(&statement(both.clone(), of("shop")), &asking("sts:AssumeRole")));
        assert!(!allows(&statement(both.clone(), of("other")), &asking("sts:AssumeRole")));
        let federated = Asking { principal: Principal::Federated(PROVIDER), ..asking("sts:AssumeRole") };
        assert!(!allows(&statement(both, json!({})), &federated));
    }

    #[test]
    fn a_role_is_named_by_itself_its_session_or_its_account() {
        let context = Context::default().with("sts:ExternalId", "the-id");
        let role = RoleArn::parse(ROLE).unwrap();
        let principal = Principal::Session { role, role_arn: ROLE, session_arn: SESSION };
        let asking = Asking { principal, action: "sts:AssumeRole", context: &context };
        for (principal, external_id, expected) in [
            (ROLE, "the-id", true),
            (SESSION, "the-id", true),
            ("arn:aws:iam::111122223333:root", "the-id", true),
            ("111122223333", "the-id", true),
            ("*", "the-id", true),
            (ROLE, "another", false),
            ("arn:aws:iam::111122223333:role/second", "the-id", false),
            ("arn:aws:iam::444455556666:root", "the-id", false),
            ("arn:aws:iam::111122223333:role/*", "the-id", false),
        ] {
            let statement = json!({
                "Effect": "Allow",
                "Principal": { "AWS": principal },
                "Action": "sts:AssumeRole",
                "Condition": { "StringEquals": { "sts:ExternalId": external_id } },
            });
            assert_eq!(allows(&statement, &asking), expected, "{principal} {external_id}");
        }
    }

    #[test]
    fn what_iam_would_not_take_is_refused_with_the_reason() {
        for (document, reason) in [
            (json!("text"), "invalid type"),
            (json!({}), "Statement"),
            (json!({ "Version": "2020-01-01", "Statement": [] }), "2020-01-01"),
            (json!({ "Statement": usual("Effect", json!("allow")) }), "allow"),
            (json!({ "Statement": usual("Resource", json!("*")) }), "Resource"),
            (
                json!({ "Statement": usual("Principal", json!("arn:aws:iam::111122223333:root")) }),
                "of no kind",
            ),
            (json!({ "Statement": usual("Principal", json!({ "Aws": "*" })) }), "Aws"),
            (json!({ "Statement": usual("Action", json!("s3:GetObject")) }), "s3:GetObject"),
            (json!({ "Statement": usual("Condition", json!({ "StringEquals": { "k": {} } })) }), "not texts"),
        ] {
            let error = TrustPolicy::parse(&document).unwrap_err().to_string();
            assert!(error.contains(reason), "{document}: {error}");
        }
    }
}
