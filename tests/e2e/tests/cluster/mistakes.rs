//! What administrators get wrong, on the product as it is installed: the log, a condition, a metric and an
//! alert tell of each mistake, and an update with one that nobody could be served with stops at the first
//! node (docs/design/operating.md, F4).

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::cluster::{NODES, RELEASE, Turn, cluster, eventually};

const NODE: &str = NODES[0];
/// Where nobody listens, and nothing answers that it is so: .invalid is no name (RFC 6761).
const NOWHERE: &str = "https://eks-auth.us-west-2.invalid";

/// A mistake, and what tells of it.
struct Mistake {
    values: Value,
    condition: &'static str,
    /// In the reason of the condition, and in one line of the log, at warn.
    words: &'static [&'static str],
    alerts: &'static [&'static str],
    /// Whether pods may be served, so that the installation goes on.
    is_rolled_out: bool,
}

/// An installation on one node, where a new agent follows the old one: its pages are those of the node.
fn on_one_node(values: &Value) -> Value {
    let mut all = json!({"nodeSelector": {"kubernetes.io/hostname": NODE}, "updatePreset": "inPlace"});
    let (Value::Object(all_values), Value::Object(values)) = (&mut all, values.clone()) else { panic!() };
    all_values.extend(values);
    all
}

fn agents(cluster: &Turn) -> BTreeSet<String> {
    let pods = ["-n", "kube-system", "get", "pods", "-l", "app.kubernetes.io/component=agent", "-o", "name"];
    cluster.kubectl(&pods).lines().map(str::to_owned).collect()
}

/// Within three seconds: it is asked for where the condition is known already.
fn is_rolled_out(cluster: &Turn) -> bool {
    let daemonset = format!("daemonset/{RELEASE}");
    let status = ["-n", "kube-system", "rollout", "status", &daemonset, "--timeout=3s"];
    cluster.try_kubectl(&status).status.success()
}

/// What an agent's doctor says.
fn doctor(cluster: &Turn, pod: &str) -> String {
    let exec = ["-n", "kube-system", "exec", pod, "--", "pod-identity-agent", "doctor"];
    String::from_utf8_lossy(&cluster.try_kubectl(&exec).stdout).into_owned()
}

fn assert_is_told(cluster: &Turn, mistake: &Mistake) {
    let Mistake { values, condition, words, alerts, is_rolled_out: expected } = mistake;
    cluster.install_without_waiting(&on_one_node(values));
    eventually(&format!("{condition} says {words:?}"), || {
        let says = cluster.try_condition(NODE, condition);
        says.is_some_and(|says| !says.is_met && words.iter().all(|word| says.reason.contains(word)))
    });
    if *expected {
        eventually("it is rolled out", || is_rolled_out(cluster));
    } else {
        assert!(!is_rolled_out(cluster), "{condition}");
    }
    let series = format!("pod_identity_agent_condition{{condition=\"{condition}\"}}");
    eventually(&format!("the metric says so: {condition}"), || {
        cluster.try_metric(NODE, &series).is_some_and(|value| value.abs() < 0.5)
    });
    let logs = ["-n", "kube-system", "logs", "-l", "app.kubernetes.io/component=agent", "--tail=-1"];
    let logs = cluster.kubectl(&logs);
    let is_of_it =
        |line: &&str| line.contains("\"level\":\"warn\"") && words.iter().all(|word| line.contains(word));
    assert!(logs.lines().any(|line| is_of_it(&line)), "{condition}: {logs}");
    let expected: BTreeSet<String> = alerts.iter().map(|&alert| alert.to_owned()).collect();
    // A second answer like the first makes some of them.
    let mut firing = BTreeSet::new();
    for _ in 0..20 {
        firing = cluster.alerts_of_agent(NODE);
        if firing == expected {
            break;
        }
        sleep(Duration::from_secs(2));
    }
    assert_eq!(firing, expected, "{condition}");
}

/// An installation that reads nothing from the API server: the keys are a file, and the issuer has a slash
/// too many.
fn with_a_mistyped_issuer(cluster: &Turn) -> Value {
    let keys = format!("--from-literal=jwks.json={}", cluster.kubectl(&["get", "--raw", "/openid/v1/jwks"]));
    cluster.kubectl(&["-n", "kube-system", "create", "configmap", "jwks", &keys]);
    let mut files = json!({"jwks": ["/etc/jwks/jwks.json"], "kubernetes": {"enabled": false}});
    files["tokenVerification"] = "auto".into();
    files["issuers"] = json!([format!("{}/", cluster.issuer())]);
    // Lists of values replace each other, so the authority of AWS is among them again.
    files["volumes"] = json!([
        {"name": "aws-ca", "configMap": {"name": "aws-ca"}}, {"name": "jwks", "configMap": {"name": "jwks"}},
    ]);
    files["volumeMounts"] = json!([
        {"name": "aws-ca", "mountPath": "/etc/aws-ca", "readOnly": true},
        {"name": "jwks", "mountPath": "/etc/jwks", "readOnly": true},
    ]);
    files
}

#[test]
fn each_that_nobody_could_be_served_with_is_in_the_log_a_condition_a_metric_and_an_alert() {
    let cluster = cluster("two mistakes");
    cluster.uninstall(RELEASE);
    assert_is_told(
        &cluster,
        &Mistake {
            values: json!({"clusterName": "sandbx"}),
            condition: "trial-call",
            words: &["ResourceNotFoundException", "No cluster found for name: sandbx", "cluster sandbx"],
            alerts: &["PodIdentityTrialCallFails"],
            is_rolled_out: false,
        },
    );
    let denied = cluster.deny_nodes();
    assert_is_told(
        &cluster,
        &Mistake {
            values: json!({}),
            condition: "trial-call",
            words: &[
                "AccessDeniedException",
                "is not authorized to perform: eks-auth:AssumeRoleForPodIdentity",
            ],
            alerts: &["PodIdentityRejectedByAws", "PodIdentityTrialCallFails"],
            is_rolled_out: false,
        },
    );
    drop(denied);
    eventually("the right that is given makes it ready", || is_rolled_out(&cluster));
    cluster.install(&json!({}));
}

/// With these pods could be served, so the installation goes on: what they need is not known before they ask.
#[test]
#[ignore = "in make nightly: a minute and a half of calls and rollouts"]
fn each_that_is_not_known_before_pods_ask_is_in_all_four_too() {
    let cluster = cluster("two more mistakes");
    cluster.install_without_waiting(&on_one_node(&json!({})));
    cluster.start_load("asks", "app", NODE, 1);
    // That nothing answers is said after a minute and more of calls.
    assert_is_told(
        &cluster,
        &Mistake {
            values: json!({"agent": {"additionalArgs": {"--endpoint": NOWHERE}}}),
            condition: "upstream-reachable",
            words: &["eks-auth.us-west-2.invalid", "name"],
            alerts: &["PodIdentityAwsUnreachable"],
            is_rolled_out: true,
        },
    );
    assert_is_told(
        &cluster,
        &Mistake {
            values: with_a_mistyped_issuer(&cluster),
            condition: "token-issuer",
            words: &["issuer", "EKS Auth judges it"],
            alerts: &["PodIdentityTokensForeign"],
            is_rolled_out: true,
        },
    );
    cluster.pod("served", "shop", NODE);
    cluster.who_am_i("served").expect("EKS Auth judges its token");
    cluster.end_load("asks");
    cluster.kubectl(&["-n", "kube-system", "delete", "configmap", "jwks"]);
    cluster.install(&json!({}));
}

#[test]
fn an_update_to_an_unknown_cluster_stops_at_the_first_node_and_is_taken_back() {
    let cluster = cluster("update to a wrong cluster");
    cluster.install(&json!({}));
    let pods = ["app-node-1", "shop-node-2"];
    for pod in pods {
        let (account, node) = pod.split_once('-').expect("an account and a node");
        cluster.start_load(pod, account, node, 20);
    }
    let before = agents(&cluster);
    cluster.install_without_waiting(&json!({"clusterName": "sandbx"}));
    eventually("the new agent says why it is not ready", || {
        agents(&cluster).difference(&before).any(|new| {
            let page = doctor(&cluster, new);
            page.contains("No cluster found for name: sandbx") && page.contains("Correct the cluster's name")
        })
    });
    assert!(!is_rolled_out(&cluster));
    let now = agents(&cluster);
    assert_eq!(now.difference(&before).count(), 1, "it is the first node: {now:?}");
    assert!(now.is_superset(&before), "nobody is taken away for it");
    let alerts = cluster.alerts_of_daemonset(RELEASE);
    assert_eq!(alerts, BTreeSet::from(["PodIdentityUpdateStuck".to_owned()]));
    cluster.roll_back(RELEASE);
    assert!(is_rolled_out(&cluster));
    for load in cluster.end_loads(pods) {
        load.assert_unhurt();
    }
}
