//! Where the containers of a pod find credentials, by the names of their variables.
//!
//! Owns: which names count, and what they amount to for the pod as a whole. Must not know: values. They are
//! skipped while they are parsed and never kept; the names are not kept either.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::pods::Injection;

/// A container, or an init container. Ephemeral ones are not injected (the webhook's `pkg/handler`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    name: Box<str>,
    #[serde(default)]
    env: Vec<Entry>,
    #[serde(default)]
    env_from: Vec<Variables>,
}

/// A variable.
#[derive(Clone, Debug, Deserialize)]
struct Entry {
    name: Variable,
}

/// The variables that say where an SDK finds credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Variable {
    /// What the webhook of EKS Pod Identity sets.
    #[serde(rename = "AWS_CONTAINER_CREDENTIALS_FULL_URI")]
    PodIdentity,
    /// Of web identities (IRSA), access keys, files with either, and other servers of credentials. A token
    /// without the URI is somebody's own set-up too: the webhook leaves containers alone that have either.
    #[serde(
        rename = "AWS_WEB_IDENTITY_TOKEN_FILE",
        alias = "AWS_ACCESS_KEY_ID",
        alias = "AWS_SHARED_CREDENTIALS_FILE",
        alias = "AWS_CONFIG_FILE",
        alias = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        alias = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
    )]
    Another,
    /// Any other.
    #[serde(other)]
    Unrelated,
}

/// The variables that a Secret or a ConfigMap has.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variables {
    secret_ref: Option<IgnoredAny>,
}

impl Container {
    fn has(&self, variable: Variable) -> bool {
        self.env.iter().any(|entry| entry.name == variable)
    }

    /// A Secret may have access keys. Keys in a ConfigMap are nobody's habit, and nearly every application
    /// has a ConfigMap.
    fn finds_others(&self) -> bool {
        self.has(Variable::Another) || self.env_from.iter().any(|from| from.secret_ref.is_some())
    }
}

/// What the containers of one pod amount to. `skipped`: names of containers that are not to be injected, with
/// commas in between (`eks.amazonaws.com/skip-containers`).
///
/// Other credentials of one container stand for the pod: it was set up with care, and a warning about its
/// sidecar would only be in the way.
pub(super) fn injection<'a>(containers: impl Iterator<Item = &'a Container>, skipped: &str) -> Injection {
    let is_skipped = |container: &Container| skipped.split(',').any(|name| name.trim() == &*container.name);
    let (mut finds_others, mut is_wanted) = (false, false);
    for container in containers {
        if container.has(Variable::PodIdentity) {
            return Injection::Injected;
        }
        finds_others |= container.finds_others();
        is_wanted |= !is_skipped(container);
    }
    if is_wanted && !finds_others { Injection::Missing } else { Injection::NotWanted }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Container, injection};
    use crate::pods::Injection::{self, Injected, Missing, NotWanted};

    fn judged(containers: Value, skipped: &str) -> Injection {
        let containers: Vec<Container> = serde_json::from_value(containers).unwrap();
        injection(containers.iter(), skipped)
    }

    fn with(name: &str, variable: &str) -> Value {
        json!({"name": name, "env": [{"name": "A", "value": "b"}, {"name": variable, "value": "c"}]})
    }

    const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";

    #[test]
    fn each_variable_by_which_an_sdk_finds_credentials_counts() {
        for (variable, expected) in [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Injected),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", NotWanted),
            ("AWS_ACCESS_KEY_ID", NotWanted),
            ("AWS_SHARED_CREDENTIALS_FILE", NotWanted),
            ("AWS_CONFIG_FILE", NotWanted),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", NotWanted),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", NotWanted),
            ("AWS_REGION", Missing),
            ("AWS_ROLE_ARN", Missing),
            ("aws_access_key_id", Missing),
            ("", Missing),
        ] {
            assert_eq!(judged(json!([with("main", variable)]), ""), expected, "{variable}");
        }
    }

    #[test]
    fn the_containers_of_a_pod_are_judged_together() {
        let (plain, injected, keys) =
            (json!({"name": "plain"}), with("in", URI), with("k", "AWS_ACCESS_KEY_ID"));
        let secret = json!({"name": "s", "envFrom": [{"prefix": "A"}, {"secretRef": {"name": "keys"}}]});
        let config = json!({"name": "c", "envFrom": [{"configMapRef": {"name": "settings"}}]});
        let cases = [
            ("nothing at all", json!([plain]), "", Missing),
            ("one of two has them", json!([plain, injected]), "", Injected),
            ("they beat other credentials", json!([keys, injected]), "", Injected),
            ("a sidecar beside keys", json!([plain, keys]), "", NotWanted),
            ("keys beside a sidecar", json!([keys, plain]), "", NotWanted),
            ("variables of a Secret", json!([secret]), "", NotWanted),
            ("variables of a ConfigMap", json!([config]), "", Missing),
            ("its only container is skipped", json!([plain]), "plain", NotWanted),
            ("as the second of a list", json!([plain]), "other, plain", NotWanted),
            ("another one is skipped", json!([plain]), "other,pla", Missing),
            ("one that is not skipped lacks them", json!([plain, {"name": "b"}]), "plain", Missing),
            ("the one that is not skipped has them", json!([plain, injected]), "plain", Injected),
            (
                "a value from elsewhere",
                json!([{"name": "v", "env": [{"name": URI, "valueFrom": {}}]}]),
                "",
                Injected,
            ),
            ("no containers", json!([]), "", NotWanted),
        ];
        for (what, containers, skipped, expected) in cases {
            assert_eq!(judged(containers, skipped), expected, "{what}");
        }
    }
}
