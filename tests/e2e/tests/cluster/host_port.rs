//! A pod with hostPort 80, and the real portmap plugin, which leads port 80 of every local address to it.

use serde_json::{Value, json};

use super::guarded;
use crate::harness::cluster::{NODES, RELEASE, Turn, cluster, eventually};

const NODE: &str = NODES[0];

/// Any pod that wants port 80 of its node.
fn with_host_port(spec: &mut Value) {
    spec["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 80}]);
}

fn start_thief(cluster: &Turn) {
    cluster.start_pod_with("thief", "stranger", NODE, &["python3", "/thief.py"], with_host_port);
}

fn tokens(cluster: &Turn) -> usize {
    cluster.kubectl(&["logs", "thief"]).lines().filter(|line| line.starts_with("token")).count()
}

#[test]
fn a_declared_port_keeps_such_a_pod_off_the_node() {
    let cluster = cluster("hostPort 80, port declared");
    cluster.install(&json!({"guardAddress": false}));
    start_thief(&cluster);
    eventually("the scheduler says why", || {
        cluster
            .kubectl(&["get", "events", "--field-selector", "involvedObject.name=thief"])
            .contains("free ports")
    });
}

#[test]
fn it_is_given_tokens_without_port_and_guard_and_the_agent_says_so() {
    let cluster = cluster("hostPort 80, neither");
    cluster.install(&json!({"guardAddress": false, "agent": {"advertiseProxyPort": false}}));
    cluster.pod("asks", "app", NODE);
    cluster.who_am_i("asks").unwrap();
    start_thief(&cluster);
    cluster.until_running("thief");
    let _refused = cluster.who_am_i("asks");
    assert!(tokens(&cluster) > 0, "this is what the guard is for; without it the next test says nothing");
    // A new address is a change, which is a reason to ask before the half minute is over.
    cluster.on_node(NODE, &["ip", "addr", "add", "127.0.0.9/32", "dev", "lo"]);
    eventually("the self-probe finds somebody else at the address", || {
        let metrics = cluster.on_node(NODE, &["curl", "--silent", "http://127.0.0.1:2705/metrics"]);
        metrics
            .lines()
            .any(|line| line.contains("condition") && line.contains("self-probe") && line.ends_with(" 0"))
    });
}

#[test]
fn with_the_guard_it_has_its_port_and_no_token() {
    let cluster = cluster("hostPort 80, guarded");
    cluster.install(&guarded());
    cluster.start_load("before", "app", NODE, 20);
    start_thief(&cluster);
    cluster.until_running("thief");
    cluster.start_load("after", "shop", NODE, 20);
    cluster.pod("asks", "app", NODES[1]);
    assert_eq!(cluster.status("asks", "http://10.210.0.11/"), "418", "its host port works");
    cluster.who_am_i("asks").unwrap();
    for load in cluster.end_loads(["before", "after"]) {
        load.assert_unhurt();
    }
    assert_eq!(tokens(&cluster), 0);
}

#[test]
fn the_default_installation_leaves_a_pod_with_host_port_80_that_was_there_before_it() {
    let cluster = cluster("hostPort 80, there first");
    cluster.uninstall(RELEASE);
    start_thief(&cluster);
    cluster.until_running("thief");
    let id = |cluster: &Turn| cluster.kubectl(&["get", "pod", "thief", "-o", "jsonpath={.metadata.uid}"]);
    let before = id(&cluster);
    cluster.install(&json!({}));
    cluster.start_load("works", "app", NODE, 20);
    cluster.pod("asks", "app", NODES[1]);
    cluster.who_am_i("asks").unwrap();
    cluster.end_load("works").assert_unhurt();
    assert_eq!(cluster.status("asks", "http://10.210.0.11/"), "418", "its host port works");
    let preempted = ["get", "events", "--field-selector", "involvedObject.name=thief,reason=Preempted"];
    assert_eq!(cluster.kubectl(&preempted), "", "nothing evicts it");
    assert_eq!(id(&cluster), before);
    cluster.until_running("thief");
    let agents = ["-n", "kube-system", "get", "pods", "-l", "app.kubernetes.io/component=agent"];
    let ports = cluster.kubectl(&[&agents[..], &["-o", "jsonpath={..containerPort}"]].concat());
    assert_eq!(ports, "", "no port is declared");
    assert_eq!(tokens(&cluster), 0);
}
