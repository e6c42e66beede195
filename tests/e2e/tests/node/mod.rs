//! The agent on a node: port 80 of the real addresses, pods in network namespaces, and what nodes do to an
//! agent.

mod address;
mod guard;
mod hostile;
mod imds;
mod link;
mod ports;
mod quota;
mod restart;
mod sdks;
mod thief;

use std::time::Duration;

use sandbox::Sandbox;

use crate::harness::{Node, Wired, eventually};

/// Pods that hold credentials already, by the address given.
async fn pods_with_credentials(
    node: &Node,
    sandbox: &Sandbox,
    count: usize,
    at: std::net::IpAddr,
) -> Vec<Wired> {
    let pods: Vec<_> = (0..count).map(|_| node.pod(sandbox)).collect();
    for pod in &pods {
        eventually("the pod gets credentials", async || {
            pod.ask(at).await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }
    pods
}

/// A little time for a load to be under way, or to go on.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
