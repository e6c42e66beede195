//! deploy/injection/required: what is refused, and that nobody is locked out.

use serde_json::{Value, json};

use super::kinds::Kind::Association;
use super::{Injection, apply, changed, pod};
use crate::harness::cluster::{Turn, cluster, eventually};

/// The binding, and what makes it refuse or only note.
const BINDING: &str = "validatingadmissionpolicybinding/pod-identity-agent-injection-required";

/// It is required, until this is dropped. The binding stays: see the module.
struct Required<'a>(&'a Turn);

impl<'a> Required<'a> {
    fn apply(cluster: &'a Turn) -> Self {
        let required = Self(cluster);
        apply(cluster, "deploy/injection/required");
        required
    }
}

impl Drop for Required<'_> {
    fn drop(&mut self) {
        let note = "{\"spec\": {\"validationActions\": [\"Audit\"]}}";
        self.0.kubectl(&["patch", BINDING, "--type=merge", "--patch", note]);
    }
}

/// A pod that no policy can give a token.
fn cannot_be_given(name: &str, account: &str) -> Value {
    changed(name, account, |pod| {
        pod["spec"]["volumes"] = json!([{"name": Association.volume_name(), "emptyDir": {}}]);
    })
}

fn is_refused(cluster: &Turn, pod: &Value, says: &str) -> bool {
    cluster.try_out(pod).is_err_and(|said| said.contains(says))
}

#[test]
fn where_it_is_required_no_pod_starts_without_its_variables_and_nobody_is_locked_out() {
    let cluster = cluster("required injection");
    let injection =
        Injection::with(&cluster, "eu-north-1", &json!({"default.app": "", "kube-system.default": ""}));
    cluster.try_out(&cannot_be_given("allowed", "app")).expect("nothing is required");
    let _required = Required::apply(&cluster);
    let missed = cannot_be_given("missed", "app");
    eventually("it is required", || is_refused(&cluster, &missed, "nothing gave the containers main"));
    let opted_in = changed("opted-in", "stranger", |pod| {
        pod["metadata"]["labels"] = json!({"pod-identity-agent/inject": "web-identity"});
        pod["spec"]["volumes"] = json!([{"name": "pod-identity-agent-token", "emptyDir": {}}]);
    });
    assert!(is_refused(&cluster, &opted_in, "service account stranger"));
    let skipped = changed("skipped", "app", |pod| {
        *pod = cannot_be_given("skipped", "app");
        pod["metadata"]["annotations"] = json!({"eks.amazonaws.com/skip-containers": "main"});
    });
    for pod in [pod("given", "app"), cannot_be_given("not-listed", "stranger"), skipped] {
        cluster.create(&pod).unwrap_or_else(|said| panic!("{}: {said}", pod["metadata"]["name"]));
    }

    cluster.kubectl(&["-n", "kube-system", "delete", "configmap", "pod-identity-agent-injection"]);
    let anybody = pod("anybody", "stranger");
    eventually("nobody knows whom to give what", || is_refused(&cluster, &anybody, "no params found"));
    let mut of_system = missed.clone();
    of_system["metadata"]["namespace"] = "kube-system".into();
    of_system["spec"]["serviceAccountName"] = "default".into();
    cluster.try_out(&of_system).expect("a cluster can mend itself");
    let agent = changed("agent", "stranger", |pod| {
        pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "pod-identity-agent"});
    });
    cluster.try_out(&agent).expect("an agent starts in any namespace");

    cluster.apply(&super::settings(&json!({})));
    eventually("there are settings again", || cluster.try_out(&anybody).is_ok());
    injection.set("eu-north-1", &json!({"default.app": ""}));
    assert!(is_refused(&cluster, &missed, "nothing gave the containers main"));
}
