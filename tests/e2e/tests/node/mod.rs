//! The agent on a node: port 80 of the real addresses, pods in network namespaces, and what nodes do to an
//! agent.

mod address;
mod every_address;
mod flushed;
mod formats;
mod guard;
mod guard_port;
mod hostile;
mod imds;
mod link;
mod paused;
mod policies;
mod ports;
pub(crate) mod releases;
mod restart;
mod sdks;
mod switch;
mod thief;
mod three;
mod uninstalled;
mod users;
mod without_nft;

use std::net::IpAddr;
use std::time::Duration;

use sandbox::Sandbox;

use crate::harness::{IPV4, IPV6, Load, Node, Wired, eventually};

/// Pods that hold credentials already, by the address given.
pub(crate) async fn pods_with_credentials(
    node: &Node,
    sandbox: &Sandbox,
    count: usize,
    at: IpAddr,
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

/// Half of the pods ask on each family, each on its own and as often as `per_pod` says.
fn on_both_families(
    pods: &[Wired],
    start: impl Fn(&[Wired], IpAddr, u32) -> Load,
    per_pod: u32,
) -> [Load; 2] {
    let (some, others) = pods.split_at(pods.len() / 2);
    [start(some, IPV4, per_pod), start(others, IPV6, per_pod)]
}

/// A little time for a load to be under way, or to go on.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
