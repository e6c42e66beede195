//! The metadata service of the node, which knows the node's own role.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::cluster::{NODES, cluster};

#[test]
fn pods_are_kept_from_the_metadata_service_and_the_agent_is_not() {
    let cluster = cluster("metadata");
    cluster.install(&json!({}));
    cluster.pod("curious", "app", NODES[1]);
    let page = "http://169.254.169.254/latest/meta-data/";
    assert_eq!(cluster.status("curious", page), "401", "reached, and asked for a session first");
    cluster.install(&json!({"blockImds": true}));
    let began = Instant::now();
    let said = cluster.status("curious", page);
    assert!(said.contains("refused"), "at once, so that an SDK goes on: {said}");
    // kubectl and Python take part of it; a page that is dropped would take two.
    assert!(began.elapsed() < Duration::from_millis(1_900), "{:?}", began.elapsed());
    // Its own credentials come from there: this agent has started after the block.
    cluster.who_am_i("curious").unwrap();
}
