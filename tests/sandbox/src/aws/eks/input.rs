//! What callers of EKS send in bodies, and which of it EKS takes.
//!
//! Owns: members and limits of botocore's model, and the sentences for what breaks them. Must not know: what
//! is done with it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::refusal::{Code, Refused};
use crate::aws::iam::arn::RoleArn;

/// Tags of a resource.
pub(super) type Tags = BTreeMap<String, String>;

/// Tags that a resource may have.
const MOST_TAGS: usize = 50;
/// Characters of a tag's key and value.
const TAG_KEY: usize = 128;
const TAG_VALUE: usize = 256;

/// CreatePodIdentityAssociation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateAssociation {
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) role_arn: String,
    pub(super) client_request_token: Option<String>,
    #[serde(default)]
    pub(super) tags: Tags,
    pub(super) disable_session_tags: Option<bool>,
    pub(super) target_role_arn: Option<String>,
    pub(super) policy: Option<String>,
}

/// UpdatePodIdentityAssociation; `None` leaves a member as it is, an empty text takes it away.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UpdateAssociation {
    pub(super) role_arn: Option<String>,
    pub(super) client_request_token: Option<String>,
    pub(super) disable_session_tags: Option<bool>,
    pub(super) target_role_arn: Option<String>,
    pub(super) policy: Option<String>,
}

/// CreateAddon and UpdateAddon: the second takes neither tags nor a namespace.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AddonInput {
    /// Only when one is created; the path has it else.
    pub(super) addon_name: Option<String>,
    pub(super) addon_version: Option<String>,
    pub(super) service_account_role_arn: Option<String>,
    pub(super) resolve_conflicts: Option<ResolveConflicts>,
    pub(super) client_request_token: Option<String>,
    pub(super) configuration_values: Option<String>,
    pub(super) pod_identity_associations: Option<Vec<AddonAssociation>>,
    pub(super) tags: Option<Tags>,
    pub(super) namespace_config: Option<NamespaceConfig>,
}

/// What becomes of fields of an add-on that somebody changed in the cluster. There is no software here that
/// could have been changed, so each does the same.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum ResolveConflicts {
    Overwrite,
    None,
    Preserve,
}

/// One association of an add-on, in a namespace that the add-on knows.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AddonAssociation {
    pub(super) service_account: String,
    pub(super) role_arn: String,
}

/// Where an add-on is installed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamespaceConfig {
    pub(super) namespace: String,
}

/// Reads a body; none is as good as an empty object.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::InvalidParameter } else { Code::Serialization };
        Refused::new(code, error.to_string())
    })
}

/// A name of Kubernetes that is a DNS label (a namespace) or a DNS subdomain (a service account).
pub(super) fn check_name(what: &str, name: &str, longest: usize) -> Result<(), Refused> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let is_good = name.len() <= longest
        && name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if is_good { Ok(()) } else { Err(Refused::invalid(format!("The {what} '{name}' is not valid."))) }
}

/// A role of any account; gives its account.
pub(super) fn check_role(arn: &str) -> Result<String, Refused> {
    let account = RoleArn::parse(arn).map(|role| role.account.to_owned());
    account.ok_or_else(|| Refused::invalid(format!("The role ARN '{arn}' is not valid.")))
}

/// A role that EKS can be handed: one of the cluster's own account.
pub(super) fn check_own_role(arn: &str, own: &str) -> Result<(), Refused> {
    if check_role(arn)? == own {
        return Ok(());
    }
    Err(Refused::invalid("Cross-account pass role is not allowed."))
}

/// Tags that AWS takes.
pub(super) fn check_tags(tags: &Tags) -> Result<(), Refused> {
    let good = |(key, value): (&String, &String)| {
        (1..=TAG_KEY).contains(&key.chars().count())
            && value.chars().count() <= TAG_VALUE
            && !key.to_lowercase().starts_with("aws:")
    };
    if tags.len() <= MOST_TAGS && tags.iter().all(good) {
        return Ok(());
    }
    Err(Refused::invalid("The tags are not valid: at most 50, none of them beginning with 'aws:'."))
}

/// A session policy, and what it needs: session tags and it do not fit into one session.
pub(super) fn check_policy(policy: &str, session_tags: bool) -> Result<(), Refused> {
    let value: Option<serde_json::Value> = serde_json::from_str(policy).ok();
    if value.is_none_or(|value| value.get("Statement").is_none()) {
        return Err(Refused::invalid("The policy is not a valid JSON policy document."));
    }
    if session_tags {
        return Err(Refused::invalid("The policy needs disableSessionTags to be true."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_the_model_does_not_have_is_refused() {
        let body =
            br#"{"namespace":"a","serviceAccount":"b","roleArn":"c","targetRoleArn":"d","policy":"e"}"#;
        let input: CreateAssociation = parse(body).unwrap();
        assert_eq!(input.target_role_arn.as_deref(), Some("d"));
        for bad in
            [r#"{"namespace":"a"}"#, r#"{"roleArn":1}"#, r#"{"roleArn":"a","externalId":"x"}"#, "{", "[]"]
        {
            assert!(parse::<UpdateAssociation>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_roles_and_tags_have_their_limits() {
        assert!(check_name("namespace", "kube-system", 63).is_ok());
        for bad in ["", "Kube", "-a", "a-", "a b", &"a".repeat(64)] {
            assert!(check_name("namespace", bad, 63).is_err(), "{bad}");
        }
        assert!(check_own_role("arn:aws:iam::111122223333:role/a", "111122223333").is_ok());
        assert!(check_own_role("arn:aws:iam::444455556666:role/a", "111122223333").is_err());
        let tags = |key: &str| Tags::from([(key.to_owned(), String::new())]);
        assert!(check_tags(&tags("team")).is_ok());
        assert!(check_tags(&tags("aws:team")).is_err() && check_tags(&tags("")).is_err());
    }

    #[test]
    fn a_session_policy_needs_the_session_tags_to_be_off() {
        let policy = r#"{"Version":"2012-10-17","Statement":[]}"#;
        assert!(check_policy(policy, false).is_ok());
        assert!(check_policy(policy, true).is_err() && check_policy("{}", false).is_err());
    }
}
