//! The guard port of a dead agent, which is anybody's on the node, and what comes there.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use tokio::time::sleep;

use super::pods_with_credentials;
use super::releases::{led_to, release, table};
use crate::harness::{IPV4, Node, eventually, on_a_node, sandbox};

/// Somebody who is not root: `nobody` on most systems.
const NOBODY: u32 = 65_534;

/// Whether something has come to a listener by now.
fn has_received(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).expect("a socket");
    listener.accept().is_ok()
}

/// Whether a process without any right may listen there.
fn may_anybody_listen(node: &Node, port: u16) -> bool {
    // The node's namespace is this thread's, and the child's with it.
    let _ = node;
    let script = format!("import socket; socket.create_server(('169.254.170.23', {port}))");
    let tried = Command::new("python3").args(["-c", &script]).uid(NOBODY).gid(NOBODY).output();
    let tried = tried.expect("python3 runs");
    let said = String::from_utf8_lossy(&tried.stderr);
    assert!(tried.status.success() || said.contains("Permission denied"), "{said}");
    tried.status.success()
}

/// A foreign process has port 80 of every address, and another one comes to the guard port when the agent is
/// dead.
#[test]
fn a_dead_agents_port_is_led_to_until_it_lapses_and_then_nobody_is_asked() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let ingress = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).expect("the port is free");
        let agent = release(&sandbox, 1).flag("--guard-port-timeout", "6s").start().await;
        let pods = pods_with_credentials(node, &sandbox, 1, IPV4).await;
        assert_eq!(led_to(node), Some(2707));
        // SIGKILL.
        drop(agent);
        // The agent's own probes, of before the table was there.
        while has_received(&ingress) {}
        let squatter = TcpListener::bind((IPV4, 2707)).expect("nobody has it now");
        // Six seconds from the last renewal on.
        eventually("it leads to the port no longer", async || led_to(node).is_none()).await;
        assert!(table(node).contains("169.254.170.23 . 80 timeout 1d"), "{}", table(node));
        for _ in 0..5 {
            let refused = pods[0].ask(IPV4).await.expect_err("nobody is there");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(!has_received(&squatter), "no token for who takes the port of a dead agent");
        assert!(!has_received(&ingress), "and none for who has port 80");
        // An agent that comes is led to again.
        let _again = release(&sandbox, 2).start().await;
        assert_eq!(led_to(node), Some(2708));
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
    });
}

#[test]
fn a_guard_port_below_1024_is_an_agents_alone() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let _ingress = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).expect("the port is free");
        let agent = release(&sandbox, 1).flag("--guard-port", "707").start().await;
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
        assert_eq!(led_to(node), Some(707));
        drop(agent);
        assert_eq!([707, 708, 2707].map(|port| may_anybody_listen(node, port)), [false, false, true]);
    });
}
