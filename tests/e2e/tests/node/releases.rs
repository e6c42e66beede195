//! Agents of several releases on one node, and the table that they share.
//!
//! Owns: how one is started, and what the table says. Must not know: what is tested with them.

use std::time::Duration;

use parking_lot::Mutex;
use sandbox::Sandbox;

use crate::harness::{Agent, Builder, Load, Node};

/// What a rollout waits for before it deletes the old pod (the second success of its readiness probe).
pub(super) const MIN_READY: Duration = Duration::from_secs(5);
/// 500 new connections a second in all.
pub(super) const PODS: usize = 10;
pub(super) const PER_POD: u32 = 50;

/// Held by tests with a full load, which take turns: together they would be slower than what they measure.
pub(super) static IN_TURN: Mutex<()> = Mutex::new(());

/// The agent of a release, with ports of its own for probes and metrics: in a cluster its probes are over a
/// socket.
pub(crate) fn release(sandbox: &Sandbox, number: u16) -> Builder {
    Builder::on_a_node(sandbox)
        .with_keys(sandbox)
        .switch("--guard-address")
        .probe_port(3_000 + number)
        .metrics_port(4_000 + number)
        .flag("--shutdown-delay", "8s")
}

/// The table, in nft's words.
pub(super) fn table(node: &Node) -> String {
    node.rules_of("inet", "pod_identity_agent")
}

/// Where the table leads port 80 of the IPv4 address.
pub(super) fn led_to(node: &Node) -> Option<u16> {
    let table = table(node);
    let map = table.split("map to_guard_ipv4").nth(1)?.split('}').next()?;
    map.rsplit_once("169.254.170.23 . ")?.1.trim().parse().ok()
}

/// It grows by one each time the table changes hands.
pub(super) fn epoch(node: &Node) -> u32 {
    let table = table(node);
    let element = table.split("elements = { ").nth(1).and_then(|rest| rest.split(" }").next()).unwrap_or("");
    let mut halves = element.split(" . ").map(|half| half.parse::<u32>().expect("a number"));
    let (high, low) = (halves.next().expect("an epoch"), halves.next().expect("an epoch"));
    high << 16 | low
}

pub(super) async fn readiness_says(agent: &Agent, words: &str) -> bool {
    agent.probe("/readyz").await.is_ok_and(|page| page.body.contains(words))
}

pub(super) async fn is_ready(agent: &Agent) -> bool {
    agent.probe("/readyz").await.is_ok_and(|page| page.status == 200)
}

/// How many attempts were refused, which is all that hurt: what is accepted is answered, and what boto3 asks
/// for again is served.
pub(super) async fn only_refused(loads: [Load; 2]) -> usize {
    let mut refused = 0;
    for load in loads {
        let report = load.end().await;
        report.assert_none_lost();
        assert_eq!(report.hurt().0, report.refused(), "what is accepted is answered");
        refused += report.refused();
    }
    refused
}
