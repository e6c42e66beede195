//! What happens to nodes and processes.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::cluster::{NODES, cluster, eventually};

/// An SDK that is loaded, and asks once it is given a line: what it first sees of the address, then its key.
const LOADED_SDK: &str = r#"
import socket, sys
import botocore.session
session = botocore.session.Session()
session.full_config
print("loaded", flush=True)
sys.stdin.readline()
try:
    socket.create_connection(("169.254.170.23", 80), 2).close()
    print("accepted", flush=True)
except OSError:
    print("refused", flush=True)
print(session.get_credentials().access_key, flush=True)
"#;

#[test]
fn an_agent_that_is_killed_is_back_before_an_sdk_gives_up() {
    let cluster = cluster("SIGKILL");
    cluster.install(&json!({}));
    cluster.start_load("load", "app", NODES[0], 20);
    cluster.pod("asks", "shop", NODES[0]);
    let mut sdks: Vec<_> = (0..3).map(|_| cluster.start_in("asks", &["python3", "-c", LOADED_SDK])).collect();
    for sdk in &mut sdks {
        assert_eq!(sdk.line(), "loaded");
    }
    let before = cluster.agent(NODES[0]).expect("it runs");
    cluster.on_node(NODES[0], &["kill", "-KILL", &before]);
    for sdk in &mut sdks {
        sdk.go_on();
    }
    let mut refused = 0;
    for sdk in &mut sdks {
        refused += usize::from(sdk.line() == "refused");
        let key = sdk.line();
        assert!(key.starts_with("ASIA"), "boto3 tries again until the agent is there: {key}");
    }
    assert!(refused > 0, "none of them asked while it was dead");
    assert_ne!(cluster.agent(NODES[0]), Some(before), "it was killed");
    let load = cluster.end_load("load");
    assert!(load.failed > 0, "nobody served while it was dead: {load:?}");
    cluster.measured(&format!("{} tries refused in {:.2} s", load.failed, load.window));
    // boto3 asks three times, a second apart (docs/design/client-contract.md#retries).
    assert!(load.window < 2.0, "{load:?}");
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
