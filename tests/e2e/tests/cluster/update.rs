//! New versions of the agent while pods are at work.

use serde_json::json;

use super::guarded;
use crate::harness::cluster::{Loaded, NODES, RELEASE, Turn, cluster, eventually};

/// A rollout of `kubectl rollout`.
fn roll(cluster: &Turn, how: &str) {
    let daemonset = format!("daemonset/{RELEASE}");
    cluster.kubectl(&["-n", "kube-system", "rollout", how, &daemonset]);
    cluster.kubectl(&["-n", "kube-system", "rollout", "status", &daemonset, "--timeout=90s"]);
}

/// Replaces every agent under load from both nodes, once by each of these, and returns what the pods felt of
/// it.
fn replaced_under_load(cluster: &Turn, rollouts: &[&str]) -> [Loaded; 4] {
    let pods = ["app-node-1", "shop-node-1", "app-node-2", "shop-node-2"];
    for pod in pods {
        let (account, node) = pod.split_once('-').expect("an account and a node");
        cluster.start_load(pod, account, node, 20);
    }
    for rollout in rollouts {
        roll(cluster, rollout);
    }
    let loads = cluster.end_loads(pods);
    let longest = loads.iter().map(|load| load.window).fold(0.0, f64::max);
    let failed: u64 = loads.iter().map(|load| load.failed).sum();
    cluster.measured(&format!("{failed} tries refused, {longest:.2} s at most"));
    loads
}

#[test]
fn an_update_and_a_rollback_lose_no_connection() {
    let cluster = cluster("update and rollback with a surge");
    cluster.install(&guarded());
    for load in replaced_under_load(&cluster, &["restart", "undo"]) {
        assert_eq!(load.failed, 0, "{load:?}");
        assert!(load.good > 20, "{load:?}");
        assert!(load.keys.len() <= 3, "those of each agent: {load:?}");
    }
}

/// So many pods are all that a kubelet takes, for as long as this lives.
struct Full<'a>(&'a Turn);

impl<'a> Full<'a> {
    fn with(cluster: &'a Turn, pods: usize) -> Self {
        set_limit(cluster, Some(pods));
        Self(cluster)
    }
}

impl Drop for Full<'_> {
    fn drop(&mut self) {
        set_limit(self.0, None);
    }
}

/// In the configuration of the first node's kubelet, which is started again; `None`: Kubernetes' own, 110.
fn set_limit(cluster: &Turn, pods: Option<usize>) {
    let ours = pods.map_or_else(String::new, |pods| format!("\"maxPods\":{pods},"));
    let script = format!(
        "file=$(tr '\\0' '\\n' </proc/$(pgrep -x kubelet)/cmdline | grep -A 1 -x -e --config | tail -n 1)
         sed -i -E 's/\"maxPods\":[0-9]+,//; s/^\\{{/{{{ours}/' \"$file\"
         pkill -x kubelet"
    );
    cluster.on_node(NODES[0], &["sh", "-euc", &script]);
    let expected = pods.unwrap_or(110).to_string();
    eventually("the scheduler knows it", || {
        cluster.kubectl(&["get", "node", NODES[0], "-o", "jsonpath={.status.allocatable.pods}"]) == expected
    });
}

/// The new agent needs a place beside the old one: Kubernetes takes it from the least important pod, of those
/// with the lowest priority the one that was started last. NOTES.txt and docs/install.md say so.
#[test]
fn an_update_of_a_full_node_costs_it_its_least_important_pod_and_no_other() {
    let cluster = cluster("update of a full node");
    cluster.install(&guarded());
    cluster.start_load("stays", "app", NODES[0], 20);
    cluster.pod("goes", "shop", NODES[0]);
    let on_node = format!("spec.nodeName={}", NODES[0]);
    let pods = cluster.kubectl(&["get", "pods", "-A", "--field-selector", &on_node, "-o", "name"]);
    let full = Full::with(&cluster, pods.lines().count());
    roll(&cluster, "restart");
    drop(full);
    // Its kubelet was started again, and has to find its pods.
    eventually("things can be run there", || {
        cluster.try_kubectl(&["exec", "stays", "--", "sh", "-c", ":"]).status.success()
    });
    let left = cluster.kubectl(&["get", "pods", "-o", "name"]);
    assert_eq!(left, "pod/stays\n");
    let why =
        ["get", "events", "--field-selector", "involvedObject.name=goes,reason=Preempted", "-o", "name"];
    assert_eq!(cluster.kubectl(&why).lines().count(), 1, "the scheduler has taken it away for the agent");
    cluster.end_load("stays").assert_unhurt();
}

#[test]
fn an_update_without_one_is_over_before_an_sdk_gives_up() {
    let cluster = cluster("update without a surge");
    cluster.install(&json!({"updatePreset": "inPlace"}));
    for load in replaced_under_load(&cluster, &["restart"]) {
        // boto3 asks three times, a second apart (docs/design/client-contract.md#retries): a gap of two
        // seconds costs it nothing.
        assert!(load.window < 2.0, "{}: {} s: {}", load.pod, load.window, load.log);
        assert!(load.good > 20, "{load:?}");
        assert!(load.keys.len() <= 2, "{load:?}");
    }
}
