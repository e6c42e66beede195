//! The address under the listener comes and goes; the agent neither ends nor needs to be told.

use std::time::Duration;

use super::{a_while, on_both_families, pods_with_credentials};
use crate::harness::{Builder, IPV4, IPV6, Load, eventually, on_a_node, sandbox};

#[test]
fn an_address_that_is_removed_and_added_again_is_served_again_at_once() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let loads = on_both_families(&pods, Load::start, 25);
        a_while().await;
        for _ in 0..2 {
            node.ip(
                "addr del 169.254.170.23/32 dev pod-id-link0\naddr del fd00:ec2::23/128 dev pod-id-link0\n",
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
            node.ip("addr add 169.254.170.23/32 dev pod-id-link0\n");
            node.add_ipv6_address();
            // Longer than a second: a SYN that met no address is sent again after one, and shall meet it
            // then.
            tokio::time::sleep(Duration::from_millis(1_700)).await;
        }
        for load in loads {
            let report = load.end().await;
            // Not even an attempt: boto3 waits two seconds.
            report.assert_unhurt_but_in(&[]);
            report.assert_one_key_per_pod();
        }
        assert_eq!(agent.probe("/healthz").await.unwrap().status, 200);
    });
}

#[test]
fn an_address_that_moves_to_another_link_loses_nothing() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let _agent = Builder::on_a_node(&sandbox).start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let loads = on_both_families(&pods, Load::start, 25);
        a_while().await;
        // The new one first: so does whoever migrates a node by hand.
        node.ip("addr add 169.254.170.23/32 dev lo\naddr add fd00:ec2::23/128 dev lo nodad\n\
             link del pod-id-link0\n");
        a_while().await;
        for load in loads {
            let report = load.end().await;
            report.assert_unhurt_but_in(&[]);
            report.assert_one_key_per_pod();
        }
    });
}

#[test]
fn a_node_whose_ipv6_is_off_serves_ipv4_and_ipv6_too_once_it_is_on() {
    on_a_node(async |node| {
        node.set_ipv6(false);
        node.add_link_ipv4();
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let load = Load::start(&pods, IPV4, 25);
        assert!(pods[0].ask(IPV6).await.is_err(), "IPv6 is off");
        node.set_ipv6(true);
        node.wire_ipv6(&pods[0]);
        node.add_ipv6_address();
        eventually("IPv6 is served without a restart", async || {
            pods[0].ask(IPV6).await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        a_while().await;
        let report = load.end().await;
        report.assert_unhurt_but_in(&[]);
        report.assert_one_key_per_pod();
        assert_eq!(agent.probe("/readyz").await.unwrap().status, 200);
    });
}

#[test]
fn a_peer_is_known_by_the_address_of_its_pod() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).start().await;
        let pods = pods_with_credentials(node, &sandbox, 1, IPV4).await;
        let log = agent.log();
        assert!(log.contains(&pods[0].ipv4()), "{log}");
    });
}
