//! What the agent does with a part of the rights that its chart gives it.

use serde_json::json;

use crate::harness::cluster::{NODES, RELEASE, Turn, cluster, eventually};

/// Name of the role and of its binding.
const ROLE: &str = "part-of-the-rights";

/// Gives the agents these rights about pods and no others, and starts the one of the first node anew.
fn grant(cluster: &Turn, verbs: &str) {
    let verbs = format!("--verb={verbs}");
    let account = format!("--serviceaccount=kube-system:{RELEASE}");
    let role = format!("--clusterrole={ROLE}");
    withdraw(cluster);
    cluster.kubectl(&["create", "clusterrole", ROLE, &verbs, "--resource=pods"]);
    cluster.kubectl(&["create", "clusterrolebinding", ROLE, &role, &account]);
    let before = cluster.agent(NODES[0]).expect("it runs");
    cluster.on_node(NODES[0], &["kill", "-KILL", &before]);
    eventually("it runs again", || cluster.agent(NODES[0]).is_some_and(|now| now != before));
}

fn withdraw(cluster: &Turn) {
    for kind in ["clusterrolebinding", "clusterrole"] {
        cluster.kubectl(&["delete", kind, ROLE, "--ignore-not-found"]);
    }
}

fn says(cluster: &Turn, what: &str) -> bool {
    let condition = cluster.condition(NODES[0], "pods");
    !condition.is_met && condition.reason.contains(what)
}

#[test]
fn an_agent_with_a_part_of_the_rights_serves_and_says_what_it_lacks() {
    let cluster = cluster("a part of the rights");
    cluster.install(&json!({"rbac": {"create": false}}));
    cluster.pod("asks", "app", NODES[0]);
    // No node has it, so no list will name it: it must be asked about.
    cluster.start_pod_with("nowhere", "app", NODES[0], &["/bin/sleep", "1000"], |spec| {
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": "no-node"});
    });
    let unseen = cluster.new_token("nowhere", "app");

    grant(&cluster, "get");
    eventually("it says that it cannot watch", || says(&cluster, "cannot watch resource"));
    cluster.who_am_i("asks").expect("keys and issuer need no right");

    grant(&cluster, "list,watch");
    eventually("it knows its pods", || cluster.knows_pods(NODES[0]));
    cluster.shown("asks", &unseen);
    eventually("it says that it cannot get one", || says(&cluster, "right to get pods"));
    cluster.who_am_i("asks").expect("it is watched");

    withdraw(&cluster);
    cluster.install(&json!({}));
    eventually("all is well again", || {
        cluster.shown("asks", &unseen);
        cluster.knows_pods(NODES[0])
    });
}
