//! `status` and `doctor` by `kubectl exec`, in an image without a shell.

use serde_json::json;

use crate::harness::cluster::{NODES, RELEASE, cluster};

#[test]
fn an_admin_asks_an_agent_by_kubectl_exec_without_its_path_or_a_flag() {
    let cluster = cluster("status by kubectl exec");
    cluster.install(&json!({}));
    cluster.pod("asks", "app", NODES[0]);
    cluster.who_am_i("asks").expect("it is served");
    let target = format!("daemonset/{RELEASE}");
    let exec = |command: &[&str]| {
        let before = ["--namespace", "kube-system", "exec", &target, "--", "pod-identity-agent"];
        cluster.kubectl(&[&before, command].concat())
    };
    let page = exec(&["status"]);
    assert!(page.contains("Cluster:") && page.contains("ready; running for"), "{page}");
    let page = exec(&["doctor"]);
    assert!(page.contains("ok       own-credentials (required)"), "{page}");
    exec(&["wait", "--timeout", "10s"]);
}
