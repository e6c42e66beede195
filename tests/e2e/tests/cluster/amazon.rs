//! From the Amazon agent's chart to this one.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::cluster::{NODES, RELEASE, Turn, cluster, eventually, repository};

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
    cluster.install_as(
        AMAZON,
        &their_values(),
        &without_operator(json!({"manageLink": false, "guardAddress": false})),
    );
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

/// Off the nodes with the label, as docs/install.md has it of the add-on.
fn but_on_ours() -> Value {
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "pod-identity", "operator": "NotIn", "values": ["ours"]}]},
    ]}}}})
}

/// The release whose agent is ready on a node.
fn serving(cluster: &Turn, node: &str) -> String {
    let ready = "jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.name}{end}";
    let on = format!("spec.nodeName={node}");
    cluster.kubectl(&["-n", "kube-system", "get", "pods", "--field-selector", &on, "-o", ready])
}

/// Two releases of ours stand for the two agents: what is tried are label, affinity and port, as the
/// documents have them.
#[test]
fn nodes_are_moved_by_a_label_and_moved_back() {
    let cluster = cluster("node by node");
    cluster.install_as(AMAZON, &their_values(), &without_operator(but_on_ours()));
    cluster.install_beside(RELEASE, &[], &json!({"nodeSelector": {"pod-identity": "ours"}}));
    cluster.start_load("stays", "app", NODES[0], 20);
    cluster.start_load("moves", "app", NODES[1], 20);
    for (label, release) in [("pod-identity=ours", RELEASE), ("pod-identity-", AMAZON)] {
        cluster.kubectl(&["label", "node", NODES[1], label]);
        eventually("the other agent serves", || {
            let serving = serving(&cluster, NODES[1]);
            serving.starts_with(release) && serving.matches("agent").count() == 1
        });
        assert!(serving(&cluster, NODES[0]).starts_with(AMAZON), "the other node is left alone");
    }
    let [moved, stays] = cluster.end_loads(["moves", "stays"]);
    let gaps = moved.gaps();
    cluster.measured(&format!("{} tries refused in two moves, {gaps:.2?} s", moved.failed));
    assert!(gaps.len() <= 2 && gaps.iter().all(|seconds| *seconds < 3.0), "{gaps:?}: {moved:?}");
    stays.assert_unhurt();
    cluster.uninstall(RELEASE);
    cluster.uninstall(AMAZON);
}
