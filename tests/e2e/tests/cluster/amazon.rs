//! From the Amazon agent's chart to this one.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::cluster::{NODES, RELEASE, Turn, cluster, repository};

/// Name of the release and of everything in it, as Amazon's documents have it.
const AMAZON: &str = "eks-pod-identity-agent";

fn their_values() -> Vec<PathBuf> {
    vec![repository("tests/chart/variants/amazon.yaml")]
}

/// They ask for a ServiceMonitor, which is not of Kubernetes itself.
fn without_operator(mut values: Value) -> Value {
    values["metrics"] = json!({"serviceMonitor": {"enabled": false}});
    values
}

fn daemonsets(cluster: &Turn) -> String {
    cluster.kubectl(&["-n", "kube-system", "get", "daemonsets", "-o", "name"])
}

#[test]
fn their_values_install_it_and_ours_beside_them_upgrade_it() {
    let cluster = cluster("values of Amazon's chart");
    cluster.uninstall(RELEASE);
    cluster.install_as(AMAZON, &their_values(), &without_operator(json!({"manageLink": false})));
    assert_eq!(daemonsets(&cluster), format!("daemonset.apps/{AMAZON}\n"));
    cluster.pod("asks", "app", NODES[0]);
    cluster.who_am_i("asks").expect("what their init container does is enough");
    cluster.install_as(
        AMAZON,
        &their_values(),
        &without_operator(json!({"manageLink": true, "guardAddress": true})),
    );
    cluster.who_am_i("asks").unwrap();
    let tables = cluster.on_node(NODES[0], &["nft", "list", "tables"]);
    assert!(tables.contains("pod_identity_agent"), "{tables}");
    cluster.uninstall(AMAZON);
}
