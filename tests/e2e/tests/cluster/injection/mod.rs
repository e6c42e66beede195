//! deploy/injection on a real API server: which pods it gives what, what their SDKs then get, and what is
//! refused where it is required.
//!
//! Owns: that it is in force with a test's settings, and does nothing after it. Nothing here deletes a policy
//! or a binding: the API server would go on with the settings that it read last (docs/injection.md#removing).

mod containers;
mod credentials;
mod kinds;
mod pods;
mod required;
mod webhook;

use serde_json::{Value, json};

use crate::harness::cluster::{Turn, eventually, repository};

/// The injection, in force with these settings until it is dropped.
pub(super) struct Injection<'a> {
    cluster: &'a Turn,
}

impl<'a> Injection<'a> {
    /// Applies the files as they are, and settings of a test's own. `region` marks them: no two tests that
    /// run one after the other have the same.
    pub(super) fn with(cluster: &'a Turn, region: &str, others: &Value) -> Self {
        // First, so that what is applied is undone even if this test ends here.
        let injection = Self { cluster };
        apply(cluster, "deploy/injection");
        injection.set(region, others);
        injection
    }

    /// Replaces all settings, and waits until they are in force.
    fn set(&self, region: &str, others: &Value) {
        let mut data = json!({"region": region});
        for (key, value) in others.as_object().expect("settings") {
            data[key] = value.clone();
        }
        self.cluster.apply(&settings(&data));
        let probe = changed("probe", "stranger", |pod| {
            pod["metadata"]["labels"] = json!({"pod-identity-agent/inject": "web-identity"});
        });
        eventually("the settings are in force", || {
            let probe = self.cluster.try_out(&probe).expect("it is accepted");
            let env = &probe["spec"]["containers"][0]["env"];
            env.as_array().is_some_and(|env| env.contains(&json!({"name": "AWS_REGION", "value": region})))
        });
    }
}

impl Drop for Injection<'_> {
    fn drop(&mut self) {
        self.cluster.apply(&settings(&json!({})));
    }
}

/// Applies the files of a folder, which `kubectl` must take without a warning.
fn apply(cluster: &Turn, folder: &str) {
    let folder = repository(folder);
    cluster.kubectl(&["apply", "--warnings-as-errors", "--filename", &folder.to_string_lossy()]);
}

fn settings(data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "pod-identity-agent-injection", "namespace": "kube-system"},
        "data": data,
    })
}

/// A pod of a service account that has nothing by which an SDK finds credentials, and which no node will run.
fn pod(name: &str, account: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": false,
            "nodeSelector": {"kubernetes.io/hostname": "no-node"},
            "containers": [{"name": "main", "image": "localhost/client:test"}],
        },
    })
}

/// The same, changed by a test.
fn changed(name: &str, account: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod(name, account);
    change(&mut pod);
    pod
}
