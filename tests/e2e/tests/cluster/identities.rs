//! Who a pod is to AWS, and what the agent is to its node.

use serde_json::json;

use crate::harness::cluster::{NODES, Turn, cluster};

#[test]
fn pods_of_several_service_accounts_are_their_roles_on_both_nodes() {
    let cluster = cluster("identities");
    cluster.install(&json!({}));
    let pods: Vec<_> = NODES
        .iter()
        .flat_map(|node| ["app", "shop"].map(|account| (format!("{account}-{node}"), account, node)))
        .collect();
    for (pod, account, node) in &pods {
        cluster.start_pod(pod, account, node, &["/bin/sleep", "1000"]);
    }
    let mut keys = Vec::new();
    for (pod, account, _) in &pods {
        cluster.until_running(pod);
        let (arn, key) = cluster.who_am_i(pod).unwrap();
        let role = format!("arn:aws:sts::111122223333:assumed-role/{account}/eks-sandbox-{pod}-");
        assert!(arn.starts_with(&role), "{arn}");
        assert_eq!(cluster.who_am_i(pod).unwrap(), (arn, key.clone()), "it stays who it is");
        keys.push(key);
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), pods.len(), "every pod has credentials of its own");
    assert_nothing_secret_is_logged(&cluster, &pods[0].0);
}

fn assert_nothing_secret_is_logged(cluster: &Turn, pod: &str) {
    let token = "cat \"$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE\"";
    let token = cluster.kubectl(&["exec", pod, "--", "sh", "-c", token]);
    let signature = token.rsplit('.').next().expect("a token has three parts");
    let agents =
        ["logs", "-n", "kube-system", "-l", "app.kubernetes.io/name=pod-identity-agent", "--tail=-1"];
    let logs = cluster.kubectl(&agents);
    assert!(logs.contains("\"outcome\":\"fetched\""), "these are the logs of agents that were asked: {logs}");
    // The first part of every token of this cluster is the same: "eyJ", an encoded brace and quote.
    assert!(!logs.contains(signature) && !logs.contains("eyJ"), "{logs}");
}

#[test]
fn a_service_account_without_association_is_told_so_by_its_sdk() {
    let cluster = cluster("no association");
    cluster.install(&json!({}));
    cluster.pod("stranger", "stranger", NODES[0]);
    let said = cluster.who_am_i("stranger").unwrap_err();
    assert!(said.contains("association"), "boto3 shows what the agent says: {said}");
    assert!(said.contains("default") && said.contains("stranger"), "and of whom: {said}");
}

#[test]
fn the_agent_has_no_more_than_it_needs() {
    let cluster = cluster("privileges");
    cluster.install(&json!({}));
    let pid = cluster.agent(NODES[0]).expect("it runs");
    let status = cluster.on_node(NODES[0], &["cat", &format!("/proc/{pid}/status")]);
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel says it");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    assert_eq!(field("Seccomp:"), "2", "RuntimeDefault filters its system calls");
    assert_eq!(field("NoNewPrivs:"), "1");
    // NET_BIND_SERVICE (10) and NET_ADMIN (12): it keeps listeners and link (docs/privileges.md).
    assert_eq!(u64::from_str_radix(&field("CapEff:"), 16).unwrap(), 1 << 10 | 1 << 12, "{status}");
    assert_eq!(field("CapBnd:"), field("CapEff:"), "nothing can come back");
}
