//! Pods behind an egress policy, over an update: policies see the port that the guard leads to.
//!
//! The policy is a filter on the hook where those of iptables and nftables work, behind the translation. Like
//! theirs, it drops.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::releases::{MIN_READY, led_to, release};
use super::{a_while, on_both_families, pods_with_credentials};
use crate::harness::{IPV4, Load, Node, Window, Wired, eventually, on_a_node, sandbox};

/// Of four pods, 80 a second.
const PER_POD: u32 = 20;

/// Pods may open connections to these ports of the node and to no others.
fn allow_only(node: &Node, pods: &[Wired], ports: &str) {
    node.sh("nft add table inet netpol\n\
             nft 'add chain inet netpol input { type filter hook input priority 0; }'\n\
             nft add rule inet netpol input ct state established,related accept");
    for pod in pods {
        for source in [format!("ip saddr {}", pod.ipv4()), format!("ip6 saddr {}", pod.ipv6())] {
            node.sh(&format!(
                "nft 'add rule inet netpol input {source} tcp dport {{ {ports} }} accept'\n\
                 nft 'add rule inet netpol input {source} meta l4proto tcp drop'"
            ));
        }
    }
}

#[test]
fn over_an_update_one_that_allows_the_guards_ports_costs_nothing_and_one_of_port_80_cuts_pods_off() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let mut old = release(&sandbox, 1).start().await;
        let of_three_ports = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let of_port_80 = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        allow_only(node, &of_three_ports, "80, 2707, 2708");
        allow_only(node, &of_port_80, "80");
        let allowed = on_both_families(&of_three_ports, Load::start, PER_POD);
        let cut_off = on_both_families(&of_port_80, Load::start, PER_POD);
        a_while().await;
        let from = Instant::now();
        let new = release(&sandbox, 2).spawn();
        eventually("the table is turned", async || led_to(node).is_some()).await;
        let turned = Instant::now();
        new.until_ready().await;
        sleep(MIN_READY).await;
        old.signal(Signal::SIGTERM);
        assert!(old.ended(Duration::from_secs(10)).await.success());
        eventually("the new one has port 80 itself", async || led_to(node).is_none()).await;
        let window = Window { from, to: Instant::now() };
        let lasted = window.to - turned;
        // A dropped SYN is sent again a second later.
        sleep(Duration::from_secs(3)).await;
        for load in allowed {
            load.end().await.assert_unhurt_but_in(&[]);
        }
        for load in cut_off {
            let report = load.end().await;
            report.assert_unhurt_but_in(&[window]);
            let ((hurt, _), (begun, lost)) = (report.hurt(), report.lost_of(window));
            eprintln!(
                "port 80 alone: for {lasted:?} none; {hurt} attempts hurt, {lost} of {begun} requests lost"
            );
            // 40 a second, all of them from the turn on to the old one's end.
            assert!(hurt >= 150, "{hurt}: the policy is none");
            // A third attempt begins six seconds after the first.
            assert!(lost == 0 || lasted >= Duration::from_secs(6), "{lost} of {begun} in {lasted:?}");
        }
        // What the rollout waits for, and what turning, ending and binding take.
        assert!(lasted < MIN_READY + Duration::from_secs(3), "{lasted:?}");
    });
}
