//! Taking the agent off its nodes.

use serde_json::{Value, json};

use super::guarded;
use crate::harness::cluster::{NODES, RELEASE, Turn, cluster};

/// Everything on a node that an agent could have made.
fn network(cluster: &Turn, node: &str) -> String {
    let look = "ip -o link | cut -d ' ' -f 2; ip -o addr | awk '{ print $2, $4 }'; ip rule; ip route show table all type local;
        nft list tables | grep pod_identity_agent || true";
    let all = cluster.on_node(node, &["sh", "-c", look]);
    // Pods of this moment are not ours.
    all.lines()
        .filter(|line| !line.contains("veth") && !line.contains("10.211."))
        .fold(String::new(), |all, line| all + line + "\n")
}

fn removed(mut values: Value) -> Value {
    values["removeFromNodes"] = true.into();
    values
}

#[test]
fn what_it_made_on_the_nodes_goes_with_it() {
    let cluster = cluster("uninstall");
    cluster.install(&removed(json!({})));
    cluster.uninstall(RELEASE);
    let before = NODES.map(|node| network(&cluster, node));
    assert!(
        !before.concat().contains("169.254.170.23") && !before.concat().contains("pod_identity_agent"),
        "{before:?}"
    );
    let mut all = guarded();
    all["blockImds"] = true.into();
    cluster.install(&all);
    let installed = NODES.map(|node| network(&cluster, node));
    for node in &installed {
        assert!(node.contains("169.254.170.23") && node.contains("fd00:ec2::23"), "{node}");
        assert!(node.contains("pod_identity_agent"), "{node}");
    }
    cluster.install(&removed(all));
    cluster.uninstall(RELEASE);
    assert_eq!(NODES.map(|node| network(&cluster, node)), before);
}
