//! Other programs of the node have the ports that the agent wants.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Duration;

use super::{a_while, on_both_families, pods_with_credentials};
use crate::harness::{Builder, IPV4, Load, eventually, on_a_node, sandbox};

#[test]
fn probe_and_metrics_ports_of_others_cost_no_pod_anything() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let probes = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 2703)).unwrap();
        let metrics = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 2705)).unwrap();
        let agent = Builder::on_a_node(&sandbox).spawn();
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let loads = on_both_families(&pods, Load::start, 25);
        a_while().await;
        drop((probes, metrics));
        agent.until_ready().await;
        eventually("metrics come up when their port is free", async || {
            agent.try_metrics().await.is_ok_and(|page| page.contains("pod_identity"))
        })
        .await;
        for load in loads {
            let report = load.end().await;
            report.assert_unhurt_but_in(&[]);
            report.assert_one_key_per_pod();
        }
    });
}

#[test]
fn a_foreign_listener_on_port_80_is_waited_out_and_readiness_says_so() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let foreign = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap();
        let agent = Builder::on_a_node(&sandbox).spawn();
        eventually("readiness tells what is missing", async || {
            agent.probe("/readyz").await.is_ok_and(|a| a.status == 503 && a.body.contains("listener-ipv4"))
        })
        .await;
        drop(foreign);
        agent.until_ready().await;
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
    });
}

#[test]
fn a_foreign_listener_that_comes_later_cannot_take_port_80() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let _agent = Builder::on_a_node(&sandbox).start().await;
        let pods = pods_with_credentials(node, &sandbox, 2, IPV4).await;
        let loads = on_both_families(&pods, Load::start, 50);
        // The second is both families' as long as nobody says otherwise.
        let foreign =
            [TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)), TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80))];
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(foreign.iter().all(Result::is_err), "the agent's listeners keep port 80 from others");
        for load in loads {
            load.end().await.assert_unhurt_but_in(&[]);
        }
    });
}
