//! `--manage-link`, `initialize` and `cleanup`: the link with our addresses, whatever happens to it.
//!
//! The kernel of a test may have no dummy links; `auto` then keeps the addresses on lo, and a bridge stands
//! for a `pod-id-link0` that is there already.

use std::collections::BTreeSet;
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
        // The host's own link has an address that the kernel makes and looks for duplicates of.
        let mut before = String::new();
        eventually("the node has settled", async || {
            before = lines_of_ip(&["-o", "addr"]);
            before.contains(" fe80:") && !before.contains("tentative")
        })
        .await;
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

/// What the agent says of itself: the conditions that are not met.
async fn unmet(agent: &Agent) -> Vec<String> {
    let page = agent.probe("/readyz").await.expect("an answer").json();
    let conditions = page["conditions"].as_array().expect("conditions").clone();
    let unmet = conditions.into_iter().filter(|condition| condition["met"] == false);
    unmet.map(|condition| condition["name"].as_str().expect("a name").to_owned()).collect()
}

/// What the kernel needs to answer on the addresses, each by the line of `ip` that takes it away. The link of
/// the addresses is `{}`.
const PIECES: [&str; 7] = [
    "route del local 169.254.170.23 dev {} table local\n",
    "route del local fd00:ec2::23 dev {} table local\n",
    "route del local 169.254.170.23 dev {} table local\nroute del local fd00:ec2::23 dev {} table local\n",
    "addr del 169.254.170.23/32 dev {}\n",
    "addr del fd00:ec2::23/128 dev {}\n",
    "addr del 169.254.170.23/32 dev {}\naddr del fd00:ec2::23/128 dev {}\n",
    "link set {} down\n",
];
/// What only a link of our own has beside, or can lose without harm to the rest of the node.
const PIECES_OF_OUR_LINK: [&str; 5] = [
    "addr flush dev {}\n",
    "link set {} down\nroute flush table local dev {}\n",
    "route del 169.254.170.23 dev {} table main\n",
    "route del fd00:ec2::23 dev {} table main\n",
    "link del {}\n",
];

/// What `ip` says of the addresses and of what the kernel does with packets for them. By whom and at what
/// cost a route was added is left out.
fn as_the_kernel_sees_it() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for (family, address) in [("-4", "169.254.170.23"), ("-6", "fd00:ec2::23")] {
        for table in ["local", "main"] {
            let routes = lines_of_ip(&[family, "route", "show", "table", table, "to", address]);
            let routes = routes.lines().filter_map(|route| route.split(" proto").next());
            seen.extend(routes.map(|route| format!("{table}: {route}")));
        }
        let addresses = lines_of_ip(&[family, "-o", "addr", "show", "to", address]);
        seen.extend(
            addresses.lines().filter_map(|address| address.split(" scope").next()).map(str::to_owned),
        );
    }
    seen
}

/// Each piece in turn is taken away under an agent that manages the link.
fn assert_each_piece_comes_back(link: &'static str, pieces: Vec<&'static str>) {
    on_a_node(async move |node| {
        if link != "lo" {
            node.add_link();
        }
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).switch("--manage-link").start().await;
        let pod = node.pod(&sandbox);
        for at in [IPV4, IPV6] {
            until_served(&pod, at).await;
        }
        let whole = as_the_kernel_sees_it();
        for piece in pieces {
            let lines = piece.replace("{}", link);
            node.ip(&lines);
            let taken = Instant::now();
            eventually(&format!("what this took is back: {lines}"), async || {
                tokio::time::sleep(Duration::from_millis(50)).await;
                // Without dummy links the addresses of a deleted link come to lo.
                as_the_kernel_sees_it() == whole || piece.starts_with("link del")
            })
            .await;
            assert!(taken.elapsed() < GONE * 2, "{lines}: {:?}", taken.elapsed());
            for at in [IPV4, IPV6] {
                until_served(&pod, at).await;
            }
            eventually(&format!("the agent is content after: {lines}"), async || {
                unmet(&agent).await.is_empty()
            })
            .await;
        }
    });
}

#[test]
fn each_piece_that_the_kernel_needs_comes_back_on_our_link() {
    assert_each_piece_comes_back("pod-id-link0", [&PIECES[..], &PIECES_OF_OUR_LINK[..]].concat());
}

#[test]
fn each_piece_that_the_kernel_needs_comes_back_on_lo() {
    assert_each_piece_comes_back("lo", PIECES.to_vec());
}

/// Takes the two entries of the local table away, as an operator's script or another agent may do.
const NOT_LOCAL: &str = "route del local 169.254.170.23 dev pod-id-link0 table local\n\
                         route del local fd00:ec2::23 dev pod-id-link0 table local\n";

#[test]
fn a_start_and_initialize_mend_what_was_lost_before() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let pod = node.pod(&sandbox);
        node.ip(NOT_LOCAL);
        let output = subcommand("initialize");
        assert!(output.status.success(), "{output:?}");
        let agent = Builder::on_a_node(&sandbox).start().await;
        for at in [IPV4, IPV6] {
            until_served(&pod, at).await;
        }
        drop(agent);
        node.ip(NOT_LOCAL);
        let _agent = Builder::on_a_node(&sandbox).switch("--manage-link").start().await;
        for at in [IPV4, IPV6] {
            until_served(&pod, at).await;
        }
    });
}

#[test]
fn what_cannot_be_mended_makes_the_agent_unready_and_keeps_the_series_of_the_probe() {
    for (family, address, condition) in
        [("ipv4", "169.254.170.23", "address-ipv4"), ("ipv6", "fd00:ec2::23", "address-ipv6")]
    {
        on_a_node(async move |node| {
            node.add_link();
            let sandbox = sandbox();
            // It may not change anything.
            let agent = Builder::on_a_node(&sandbox).start().await;
            node.ip(&format!("route del local {address} dev pod-id-link0 table local\n"));
            eventually("readiness says what is lost", async || {
                let ready = agent.probe("/readyz").await.expect("an answer");
                ready.status == 503
                    && unmet(&agent).await.contains(&condition.to_owned())
                    && ready.body.contains("local routing table")
            })
            .await;
            let series = format!(r#"pod_identity_agent_self_probe{{from="host",family="{family}"}} 0"#);
            eventually("the probe says it", async || agent.metrics().await.contains(&series)).await;
            // Nor does the series vanish with the agent that knew better times.
            drop(agent);
            let agent = Builder::on_a_node(&sandbox).spawn();
            eventually("the next agent's probe says it too", async || {
                agent.try_metrics().await.is_ok_and(|page| page.contains(&series))
            })
            .await;
            assert_eq!(agent.probe("/readyz").await.unwrap().status, 503);
        });
    }
}

#[test]
fn a_node_with_ipv6_switched_off_is_healthy() {
    for is_managing in [true, false] {
        on_a_node(async move |node| {
            node.set_ipv6(false);
            node.add_link_ipv4();
            let sandbox = sandbox();
            let builder = Builder::on_a_node(&sandbox);
            let builder = if is_managing { builder.switch("--manage-link") } else { builder };
            let agent = builder.start().await;
            let _pods = pods_with_credentials(node, &sandbox, 1, IPV4).await;
            eventually("nothing is unmet", async || unmet(&agent).await.is_empty()).await;
            let page = agent.probe("/readyz").await.unwrap().body;
            assert!(page.contains("not applicable: IPv6 is switched off on this node"), "{page}");
            // Time for a probe or two, and for the keeper to try again.
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(unmet(&agent).await, Vec::<String>::new(), "managing: {is_managing}");
            let metrics = agent.metrics().await;
            assert!(!metrics.contains(r#"self_probe{from="host",family="ipv6"}"#), "{metrics}");
            assert!(metrics.contains(r#"self_probe{from="host",family="ipv4"} 1"#), "{metrics}");
        });
    }
}

#[test]
fn where_ipv6_is_possible_readiness_waits_for_it() {
    on_a_node(async |node| {
        node.add_link_ipv4();
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).spawn();
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
        a_while().await;
        assert_eq!(agent.probe("/readyz").await.unwrap().status, 503);
        assert!(unmet(&agent).await.contains(&"address-ipv6".to_owned()));
        node.add_ipv6_address();
        agent.until_ready().await;
    });
}

#[test]
fn an_ipv6_address_that_is_taken_by_another_leaves_the_agent_unready() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let foreign = std::net::TcpListener::bind(("fd00:ec2::23", 80)).unwrap();
        let agent = Builder::on_a_node(&sandbox).spawn();
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
        assert_eq!(agent.probe("/readyz").await.unwrap().status, 503);
        assert!(unmet(&agent).await.contains(&"listener-ipv6".to_owned()));
        drop(foreign);
        agent.until_ready().await;
    });
}
