//! What the agent knows of its callers from the Kubernetes API: keys, issuer, and which pods live where.
//!
//! No test gives it keys or an issuer, and verification is required: all who are served were verified by the
//! API server's keys.

use serde_json::json;

use crate::harness::cluster::{NODES, RELEASE, cluster, eventually};

/// Shows a token over one connection: once, and after a line of input again until it is refused or 5 s are
/// over.
const SHOWS_A_TOKEN: &str = r#"
import http.client, sys, time
connection = http.client.HTTPConnection("169.254.170.23", 80, timeout=5)
def ask():
    connection.request("GET", "/v1/credentials", headers={"Authorization": sys.argv[1]})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()
print(ask()[0], flush=True)
for _ in sys.stdin:
    began = time.monotonic()
    status, body = ask()
    while status == 200 and "until" in sys.argv and time.monotonic() - began < 5:
        time.sleep(0.05)
        status, body = ask()
    print(status, body if status != 200 else "", flush=True)
"#;

#[test]
fn a_deleted_pods_token_is_served_through_its_grace_and_refused_within_seconds_after_it() {
    let cluster = cluster("deleted pods");
    cluster.install(&json!({}));
    eventually("the pods are known", || cluster.knows_pods(NODES[0]));
    let pods = [("deleted", NODES[0]), ("shows", NODES[0]), ("elsewhere", NODES[1])];
    for (pod, node) in pods {
        cluster.start_pod(pod, "app", node, &["/bin/sleep", "1000"]);
    }
    for (pod, _) in pods {
        cluster.until_running(pod);
    }
    let (_, key) = cluster.who_am_i("deleted").expect("its token is verified by the API server's keys");
    let (old, away) = (cluster.token_of("deleted"), cluster.token_of("elsewhere"));
    let mut waits = cluster.start_in("shows", &["python3", "-c", SHOWS_A_TOKEN, &old, "until"]);
    let mut asks = cluster.start_in("shows", &["python3", "-c", SHOWS_A_TOKEN, &old]);
    assert_eq!((waits.line(), asks.line()), ("200".to_owned(), "200".to_owned()));
    let mut of_other_node = cluster.start_in("shows", &["python3", "-c", SHOWS_A_TOKEN, &away]);
    assert_eq!(of_other_node.line(), "403", "a token of another node");

    // Its process ignores SIGTERM, so it has the whole grace.
    cluster.kubectl(&["delete", "pod", "deleted", "--grace-period=5", "--wait=false"]);
    asks.go_on();
    assert_eq!(asks.line(), "200", "it is being deleted, and may have work to finish");
    cluster.kubectl(&["wait", "--for=delete", "pod/deleted", "--timeout=60s"]);
    waits.go_on();
    let said = waits.line();
    assert!(said.starts_with("403") && said.contains("deleted"), "over the same connection: {said}");

    cluster.pod("deleted", "app", NODES[0]);
    let (_, again) = cluster.who_am_i("deleted").expect("a pod of the same name is another pod");
    assert_ne!(again, key);
    asks.go_on();
    assert!(asks.line().starts_with("403"), "and the old one's token is not its own");
    assert!(cluster.pod_checks(NODES[0], "gone") >= 2);
    assert!(cluster.pod_checks(NODES[0], "confirmed") >= 2);
    assert!(cluster.pod_checks(NODES[0], "other_address") >= 2);
    assert_eq!(cluster.pod_checks(NODES[0], "not_seen"), 0);
}

#[test]
fn an_agent_without_rights_verifies_says_what_it_lacks_and_goes_on_once_it_has_them() {
    let cluster = cluster("without RBAC");
    // Nothing of the DaemonSet changes, so that the agent is started anew by hand.
    cluster.install(&json!({"rbac": {"create": false}}));
    let before = cluster.agent(NODES[0]).expect("it runs");
    cluster.on_node(NODES[0], &["kill", "-KILL", &before]);
    cluster.pod("asks", "app", NODES[0]);
    cluster.who_am_i("asks").expect("keys and issuer need no right");
    eventually("it says what it lacks", || {
        let says = cluster.condition(NODES[0], "pods").reason;
        says.contains("cannot watch resource") || says.contains("cannot list resource")
    });
    cluster.install(&json!({}));
    eventually("it goes on by itself", || cluster.knows_pods(NODES[0]));
}

#[test]
fn enforced_checks_serve_pods_where_they_are_and_nobody_with_a_neighbours_token() {
    let cluster = cluster("enforced checks");
    cluster.install(&json!({"kubernetes": {"checkPodUID": "enforce", "checkPodAddress": "enforce"}}));
    let daemonset = ["-n", "kube-system", "get", "daemonset", RELEASE, "-o", "yaml"];
    let daemonset = cluster.kubectl(&daemonset);
    for flag in ["--check-pod-uid", "--check-pod-address"] {
        assert!(daemonset.contains(&format!("{flag}=enforce")), "{daemonset}");
    }
    cluster.pod("own-network", "app", NODES[0]);
    cluster.start_pod_with("host-network", "shop", NODES[0], &["/bin/sleep", "1000"], |spec| {
        spec["hostNetwork"] = true.into();
    });
    cluster.until_running("host-network");
    for pod in ["own-network", "host-network"] {
        cluster.who_am_i(pod).unwrap();
    }
    let of_neighbour = cluster.token_of("own-network");
    let mut asks = cluster.start_in("host-network", &["python3", "-c", SHOWS_A_TOKEN, &of_neighbour]);
    assert_eq!(asks.line(), "403", "from the node's address");
    assert!(cluster.pod_checks(NODES[0], "other_address") > 0);
}
