//! `--manage-link`, `initialize` and `cleanup`: the link with our addresses, whatever happens to it.
//!
//! The kernel of a test may have no dummy links; `auto` then keeps the addresses on lo, and a bridge stands
//! for a `pod-id-link0` that is there already.

use std::process::{Command, Output};
use std::time::Duration;

use tokio::time::Instant;

use super::{a_while, pods_with_credentials};
use crate::harness::{
    Agent, Builder, IPV4, IPV6, Load, Window, Wired, binary, eventually, on_a_node, sandbox,
};

/// What the issue allows: the second in which the address itself was gone.
const GONE: Duration = Duration::from_secs(1);

fn subcommand(name: &str) -> Output {
    Command::new(binary()).arg(name).env_clear().output().expect("the agent runs")
}

async fn until_served(pod: &Wired, at: std::net::IpAddr) {
    eventually("the pod is served", async || pod.ask(at).await.is_ok_and(|answer| answer.status == 200))
        .await;
}

fn lines_of_ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_bare_node_needs_no_init_container() {
    on_a_node(async |node| {
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).switch("--manage-link").start().await;
        let pod = node.pod(&sandbox);
        for at in [IPV4, IPV6] {
            until_served(&pod, at).await;
        }
        assert_eq!(agent.probe("/readyz").await.unwrap().status, 200);
    });
}

/// Something takes the address away, three times; each time it is back within a second, whoever asks
/// meanwhile.
fn assert_repaired(takes_it_away: &'static [&'static str]) {
    on_a_node(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let agent: Agent = Builder::on_a_node(&sandbox).switch("--manage-link").start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let load = Load::start(&pods, IPV4, 25);
        a_while().await;
        let mut windows = Vec::new();
        for blow in takes_it_away {
            windows.push(Window::of(Instant::now(), GONE));
            node.ip(blow);
            a_while().await;
            a_while().await;
        }
        let report = load.end().await;
        report.assert_none_lost();
        report.assert_unhurt_but_in(&windows);
        report.assert_one_key_per_pod();
        until_served(&pods[0], IPV6).await;
        assert_eq!(agent.probe("/readyz").await.unwrap().status, 200);
    });
}

#[test]
fn a_deleted_link_is_made_good_within_a_second() {
    assert_repaired(&["link del pod-id-link0\n"]);
}

#[test]
fn deleted_addresses_are_back_within_a_second() {
    assert_repaired(&[
        "addr del 169.254.170.23/32 dev pod-id-link0\n",
        "addr del 169.254.170.23/32 dev pod-id-link0\naddr del fd00:ec2::23/128 dev pod-id-link0\n",
        "addr flush dev pod-id-link0\n",
    ]);
}

#[test]
fn a_link_that_is_set_down_is_up_within_a_second() {
    assert_repaired(&["link set pod-id-link0 down\n"]);
}

#[test]
fn ipv6_that_is_switched_off_and_on_again_is_served_again_and_costs_ipv4_nothing() {
    on_a_node(async |node| {
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).switch("--manage-link").start().await;
        let pods = pods_with_credentials(node, &sandbox, 2, IPV4).await;
        until_served(&pods[0], IPV6).await;
        let load = Load::start(&pods, IPV4, 50);
        node.set_ipv6(false);
        a_while().await;
        assert!(pods[0].ask(IPV6).await.is_err(), "IPv6 is off");
        assert_eq!(agent.probe("/readyz").await.unwrap().status, 200, "IPv4 is enough");
        node.set_ipv6(true);
        for pod in &pods {
            node.wire_ipv6(pod);
        }
        until_served(&pods[0], IPV6).await;
        let report = load.end().await;
        report.assert_unhurt_but_in(&[]);
        report.assert_one_key_per_pod();
    });
}

#[test]
fn initialize_and_cleanup_can_be_repeated_and_leave_what_they_found() {
    on_a_node(async |node| {
        let before = lines_of_ip(&["-o", "addr"]);
        for _ in 0..2 {
            let output = subcommand("initialize");
            assert!(output.status.success(), "{output:?}");
        }
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).start().await;
        let pod = node.pod(&sandbox);
        for at in [IPV4, IPV6] {
            until_served(&pod, at).await;
        }
        drop((agent, pod));
        for _ in 0..2 {
            let output = subcommand("cleanup");
            assert!(output.status.success(), "{output:?}");
        }
        eventually("all is as before", async || lines_of_ip(&["-o", "addr"]) == before).await;
    });
}

#[test]
fn initialize_refuses_an_address_of_another_link_and_names_it() {
    on_a_node(async |node| {
        node.ip("addr add 169.254.170.23/32 dev eth0\n");
        let output = subcommand("initialize");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("eth0"), "{said}");
        assert!(lines_of_ip(&["addr", "show", "dev", "eth0"]).contains("169.254.170.23"), "it is left alone");
    });
}
