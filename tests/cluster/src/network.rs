//! The network between the nodes: a VPC of one router.
//!
//! Owns: addresses, wires and routes. Must not know: who listens.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use crate::failure::{Failure, at};
use crate::layout::{IMDS, NODES, Node, ROUTER, SERVICE};
use crate::programs::{feed, run};

/// Enters a new network namespace with this thread, and with what it starts from now on, and lays the network
/// out. Returns a fault if the kernel refuses.
pub(crate) fn enter_a_new_one() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| Failure::System("no network namespace can be made", error))?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(at("the router does not forward"))?;
    let routes: String = NODES
        .iter()
        .map(|node| format!("route add {} via {} dev vpc\n", node.pods(), node.address()))
        .collect();
    ip(&format!(
        "link set lo up\nlink add vpc type bridge\nlink set vpc up\naddr add {ROUTER}/24 dev vpc\n\
         addr add {SERVICE}/32 dev lo\naddr add {}/32 dev lo\n{routes}",
        IMDS.ip()
    ))
}

/// Lays a wire to the node whose network namespace that process is in, and sets its end up.
pub(crate) fn wire(node: Node, pid: u32) -> Result<(), Failure> {
    let name = node.name();
    let lay =
        format!("link add {name} type veth peer name eth0 netns {pid}\nlink set {name} master vpc up\n");
    // After a node's end the kernel takes its wire away, a little later.
    let mut tries = 100;
    while let Err(failure) = ip(&lay) {
        tries -= 1;
        if tries == 0 {
            return Err(failure);
        }
        sleep(Duration::from_millis(50));
    }
    let end = format!(
        "link set lo up\nlink set eth0 up\naddr add {}/24 dev eth0\nroute add default via {ROUTER}\n",
        node.address()
    );
    let namespace = format!("--net=/proc/{pid}/ns/net");
    feed(Command::new("nsenter").args([&namespace, "ip", "-batch", "-"]), &end)?;
    run(Command::new("nsenter").args([&namespace, "ip", "link", "show", "eth0"])).map(drop)
}

fn ip(lines: &str) -> Result<(), Failure> {
    feed(Command::new("ip").args(["-batch", "-"]), lines)
}
