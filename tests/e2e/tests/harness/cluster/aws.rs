//! What can be changed at the cluster's AWS.
//!
//! Owns: how the sandbox is asked for it. Must not know: why.

use std::process::Command;

use serde_json::{Value, json};

use super::{Cluster, succeeded};

/// A node's role without its permission, for as long as this lives.
pub(crate) struct DeniedNodes<'a>(&'a Cluster);

impl Cluster {
    /// Takes `eks-auth:AssumeRoleForPodIdentity` from the role of the nodes.
    pub(crate) fn deny_nodes(&self) -> DeniedNodes<'_> {
        self.switch(&json!({"nodeRoleDenied": true}));
        DeniedNodes(self)
    }

    fn switch(&self, switches: &Value) {
        let (url, body) = (format!("{}/switches", self.text("controlUrl")), switches.to_string());
        let arguments = ["--silent", "--fail", "--max-time", "5", "--request", "PUT", "--data", &body, &url];
        succeeded("curl", &arguments, &Command::new("curl").args(arguments).output().expect("curl runs"));
    }
}

impl Drop for DeniedNodes<'_> {
    fn drop(&mut self) {
        self.0.switch(&json!({}));
    }
}
