//! What happens to nodes and processes.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::cluster::{NODES, cluster, eventually};

#[test]
fn an_agent_that_is_killed_is_back_before_an_sdk_gives_up() {
    let cluster = cluster("SIGKILL");
    cluster.install(&json!({}));
    cluster.start_load("load", "app", NODES[0], 20);
    cluster.pod("asks", "shop", NODES[0]);
    let before = cluster.agent(NODES[0]).expect("it runs");
    cluster.on_node(NODES[0], &["kill", "-KILL", &before]);
    cluster.who_am_i("asks").expect("boto3 tries again until the agent is there");
    assert_ne!(cluster.agent(NODES[0]), Some(before), "it was killed");
    let load = cluster.end_load("load");
    assert!(load.failed > 0, "nobody served while it was dead: {load:?}");
    cluster.measured(&format!("{} tries refused in {:.2} s", load.failed, load.window));
    assert!(load.window < 5.0, "{load:?}");
}

#[test]
fn a_node_that_loses_its_power_serves_again_and_others_do_not_notice() {
    let cluster = cluster("reboot");
    cluster.install(&json!({}));
    cluster.start_load("elsewhere", "app", NODES[0], 20);
    cluster.start_pod_with("here", "app", NODES[1], &["/bin/sleep", "1000"], |spec| {
        spec["restartPolicy"] = "Always".into();
    });
    cluster.until_running("here");
    let (_, key) = cluster.who_am_i("here").unwrap();
    let boot = |node| cluster.on_node(node, &["stat", "-c", "%Y %i", "/proc/1/ns/net"]);
    let before = boot(NODES[1]);
    let started = Instant::now();
    cluster.reboot(NODES[1]);
    let mut again = None;
    eventually("the node serves its pods again", || {
        again = cluster.who_am_i("here").ok();
        again.is_some()
    });
    cluster.measured(&format!("pods of the node served after {:.1} s", started.elapsed().as_secs_f64()));
    assert_ne!(boot(NODES[1]), before, "it is another boot");
    assert_ne!(again.expect("asked").1, key, "and an agent that knew nothing");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    cluster.end_load("elsewhere").assert_unhurt();
}
