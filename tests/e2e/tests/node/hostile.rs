//! Everything that nodes do to an agent, at once, while pods ask 200 times a second.
//!
//! What must hold: no request of a pod with held credentials is lost, and beyond the second in which the
//! address itself was gone, not even one attempt of one request is hurt. What counts as lost and as hurt:
//! `harness/load.rs`.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use sandbox::{Effect, Fault, Service};
use tokio::time::Instant;

use super::{a_while, pods_with_credentials};
use crate::harness::{Builder, IPV4, Load, Shape, Thief, Window, on_a_node, sandbox};

/// The second in which the address itself was gone.
const GONE: Duration = Duration::from_secs(1);

/// How many tokens may reach the thief between a flush of all rules and our table: what is sent in 100 ms.
const STOLEN: usize = 20;

/// How the address is lost in each round. The first takes the link with it; from then on the addresses are on
/// lo, as the kernel of a test has no dummy links.
const LOSSES: [&str; 3] = [
    "link del pod-id-link0\n",
    "addr del 169.254.170.23/32 dev DEVICE\n",
    "addr del 169.254.170.23/32 dev DEVICE\n",
];

/// The link that has our address now.
fn device() -> String {
    let mut ip = Command::new("ip");
    let said =
        ip.args(["-o", "-4", "addr", "show", "to", "169.254.170.23/32"]).output().expect("ip runs").stdout;
    let said = String::from_utf8(said).expect("UTF-8");
    said.split_whitespace().nth(1).expect("a link has the address").to_owned()
}

#[test]
fn everything_hostile_at_once_costs_no_pod_its_credentials() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let thief = Thief::new(node.pod(&sandbox)).await;
        let _probes = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 2703)).unwrap();
        let _metrics = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 2705)).unwrap();
        let builder = Builder::on_a_node(&sandbox).with_keys(&sandbox);
        let _agent = builder.switch("--manage-link").switch("--guard-address").spawn();
        let pods = pods_with_credentials(node, &sandbox, 8, IPV4).await;
        sandbox
            .faults()
            .set([Fault::new(Service::EksAuth, Effect::Refuse), Fault::new(Service::Imds, Effect::Refuse)]);
        // AWS is gone, and tokens rotate all the same.
        let load = Load::rotating(&pods, IPV4, 25);
        a_while().await;
        let mut windows = Vec::new();
        for loss in LOSSES {
            node.set_ipv6(false);
            let loss =
                if loss.contains("DEVICE") { loss.replace("DEVICE", &device()) } else { loss.to_owned() };
            windows.push(Window::of(Instant::now(), GONE));
            node.ip(&loss);
            node.sh("nft flush ruleset");
            node.sh(&thief.rules(Shape::Nftables));
            let foreign = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80));
            node.set_ipv6(true);
            assert!(foreign.is_err(), "port 80 stays ours, with and without the address");
            a_while().await;
            a_while().await;
        }
        let report = load.end().await;
        // In the moment between the flush and our table the thief's rules stand alone; that falls into the
        // second above.
        let stolen = thief.tokens();
        assert!(stolen <= LOSSES.len() * STOLEN, "{stolen} tokens");
        assert!(!pods.is_empty() && pods[0].ask(IPV4).await.unwrap().status == 200, "and it goes on");
        assert_eq!(thief.tokens(), stolen, "guarded again, no token reaches it");
        report.assert_none_lost();
        report.assert_unhurt_but_in(&windows);
        report.assert_one_key_per_pod();
    });
}
