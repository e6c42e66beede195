//! From the Amazon agent's chart to this one.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::cluster::{NODES, RELEASE, Turn, cluster, eventually, repository};
use crate::harness::is_nightly;

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

/// The three names that a release of Amazon's chart and its DaemonSet may have: as Amazon's documents have
/// it, and in `make nightly` with `fullnameOverride=`, which Amazon's chart takes for none, and with a
/// release of another name.
#[test]
fn releases_of_amazons_chart_are_upgraded_in_place_beside_an_ingress_and_uninstalled() {
    let cluster = cluster("upgrades of Amazon's chart");
    let on_one_node = json!({"kubernetes.io/hostname": NODES[0]});
    cluster.pod("elsewhere", "app", NODES[1]);
    let names =
        [(AMAZON, AMAZON, AMAZON), ("shop", "", "shop-eks-pod-identity-agent"), ("shop", AMAZON, AMAZON)];
    let all = if is_nightly() { names.len() } else { 1 };
    for (release, full_name, daemonset) in names.into_iter().take(all) {
        let mut values = json!({"fullnameOverride": full_name, "nodeSelector": on_one_node});
        // After the uninstallation of the last one: what that left behind is in nobody's way.
        cluster.install_amazons(release, &values);
        let uid = ["-n", "kube-system", "get", "daemonset", daemonset, "-o", "jsonpath={.metadata.uid}"];
        let before = cluster.kubectl(&uid);
        cluster.start_load("works", "app", NODES[0], 20);
        // It waits for port 80, which Amazon's chart declares.
        start_ingress(&cluster);
        values["nameOverride"] = AMAZON.into();
        cluster.install_beside(release, &[], &values);
        assert_eq!(cluster.kubectl(&uid), before, "{release}: it is the same DaemonSet");
        cluster.until_running("ingress");
        assert_eq!(cluster.status("elsewhere", "http://10.210.0.11/"), "418", "its host port works");
        cluster.pod("asks", "shop", NODES[0]);
        cluster.who_am_i("asks").expect("it is served beside the ingress");
        cluster.end_load("works").assert_unhurt();
        let seen = cluster.kubectl(&["logs", "ingress"]);
        assert!(!seen.contains("token"), "{seen}");
        cluster.uninstall(release);
        cluster.kubectl(&["delete", "pods", "works", "ingress", "asks", "--now"]);
    }
}

/// A pod with port 80 of its node.
fn start_ingress(cluster: &Turn) {
    cluster.start_pod_with("ingress", "stranger", NODES[0], &["python3", "/thief.py"], |spec| {
        spec["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 80}]);
    });
}

#[test]
#[ignore = "in make nightly: 35 s of two rollouts"]
fn what_kubectl_applied_is_taken_over_by_helm_in_place() {
    let cluster = cluster("taken over by Helm");
    cluster.uninstall(RELEASE);
    cluster.apply_manifest("default");
    let uid = ["-n", "kube-system", "get", "daemonset", RELEASE, "-o", "jsonpath={.metadata.uid}"];
    let before = cluster.kubectl(&uid);
    cluster.take_over(&json!({}));
    assert_eq!(cluster.kubectl(&uid), before, "it is the same DaemonSet");
    cluster.pod("asks", "app", NODES[0]);
    cluster.who_am_i("asks").unwrap();
    cluster.uninstall(RELEASE);
    let left = cluster.try_kubectl(&uid);
    assert!(!left.status.success(), "Helm owns it, so it goes with the release");
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
