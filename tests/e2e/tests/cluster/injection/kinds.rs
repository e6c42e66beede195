//! What is injected, in two kinds, written down a second time: from the documents of EKS for associations,
//! from docs/injection.md for pods that opted in.

use serde_json::{Value, json};

/// As what a pod is to ask the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By a pod identity association.
    Association,
    /// By a role of its service account's annotation or of a map.
    WebIdentity,
}

impl Kind {
    /// Of the volume.
    pub(super) fn volume_name(self) -> &'static str {
        match self {
            Self::Association => "eks-pod-identity-token",
            Self::WebIdentity => "pod-identity-agent-token",
        }
    }

    /// Where it is mounted.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Association => "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
            Self::WebIdentity => "/var/run/secrets/pod-identity-agent/serviceaccount",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Association => "eks-pod-identity-token",
            Self::WebIdentity => "token",
        }
    }

    fn audience(self) -> &'static str {
        match self {
            Self::Association => "pods.eks.amazonaws.com",
            Self::WebIdentity => "sts.amazonaws.com",
        }
    }

    /// The volume with a token of this lifetime in seconds.
    pub(super) fn volume(self, lifetime: u32) -> Value {
        let token = json!({
            "audience": self.audience(), "expirationSeconds": lifetime, "path": self.file(),
        });
        json!({
            "name": self.volume_name(),
            "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": token}]},
        })
    }

    /// Its mount.
    pub(super) fn mount(self) -> Value {
        json!({"name": self.volume_name(), "mountPath": self.folder(), "readOnly": true})
    }

    /// The two variables.
    pub(super) fn variables(self) -> Vec<Value> {
        let file = format!("{}/{}", self.folder(), self.file());
        vec![
            variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
            variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file),
        ]
    }

    /// The two of the region before them.
    pub(super) fn all_variables(self, region: &str) -> Vec<Value> {
        let regions = ["AWS_DEFAULT_REGION", "AWS_REGION"].map(|name| variable(name, region));
        regions.into_iter().chain(self.variables()).collect()
    }
}

pub(super) fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}
