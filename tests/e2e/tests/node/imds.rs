//! Pods and the node's own credentials: EC2's metadata service behind the host, and who goes there.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde_json::Value;
use tokio::time::Instant;

use super::{a_while, pods_with_credentials};
use crate::harness::{
    Agent, ApiServer, Builder, IMDS_IPV4, IMDS_IPV6, IPV4, Node, Request, Wired, binary, eventually,
    on_a_node, sandbox,
};

/// Somebody who is not root: `nobody` on most systems.
const NOBODY: u32 = 65_534;
const TABLE: &str = "pod_identity_agent_imds";

fn builder(sandbox: &sandbox::Sandbox, mode: &str) -> Builder {
    // It is read six times in the time that it lasts.
    Builder::on_a_node(sandbox).flag("--block-imds", mode).flag("--imds-block-timeout", "6s")
}

/// Waits until what a mode counts is in force.
async fn until_counting(node: &Node, set: &str) {
    eventually("it is counted", async || {
        let table = node.rules_of("inet", TABLE);
        table
            .split(&format!("set {set} "))
            .nth(1)
            .is_some_and(|rest| rest.split('}').next().is_some_and(|set| set.contains("elements = ")))
    })
    .await;
}

async fn connect(pod: &Wired, imds: IpAddr) -> std::io::Result<String> {
    let asked = pod.send(Request::get("/latest/meta-data/"), SocketAddr::new(imds, 80)).await;
    asked.map(|answer| answer.body)
}

async fn reach(pod: &Wired, imds: IpAddr, times: usize) {
    for _ in 0..times {
        assert_eq!(connect(pod, imds).await.unwrap(), "imds", "{imds}");
    }
}

/// The connections that the agent shows, that passed and were blocked, and the pods.
async fn shown(agent: &Agent) -> [Option<u64>; 3] {
    let page = agent.metrics().await;
    [
        r#"pod_identity_agent_imds_connections_total{outcome="passed"} "#,
        r#"pod_identity_agent_imds_connections_total{outcome="blocked"} "#,
        "pod_identity_agent_imds_pods ",
    ]
    .map(|series| page.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()))
}

async fn until_shown(agent: &Agent, expected: [u64; 3]) {
    let expected = expected.map(Some);
    let mut last = [None; 3];
    let until = Instant::now() + std::time::Duration::from_secs(10);
    while last != expected && Instant::now() < until {
        a_while().await;
        last = shown(agent).await;
    }
    assert_eq!(last, expected, "{}", agent.log());
}

/// The lines of the log that tell of a pod: its address, and what is said with it.
fn told(agent: &Agent, begin: &str) -> Vec<(String, Value)> {
    let log = agent.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines = lines.filter(|line| line.to_string().contains(begin));
    let mut told: Vec<_> = lines
        .map(|line| {
            let fields = if line["fields"].is_object() { line["fields"].clone() } else { line };
            (fields["address"].as_str().expect("an address").to_owned(), fields)
        })
        .collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    told
}

async fn condition(agent: &Agent) -> Value {
    let page: Value = serde_json::from_str(&agent.probe("/readyz").await.unwrap().body).unwrap();
    let conditions = page["conditions"].as_array().cloned().unwrap();
    conditions.into_iter().find(|condition| condition["name"] == "imds-count").unwrap_or_default()
}

#[test]
fn without_block_imds_pods_and_the_host_reach_the_metadata_service_as_they_always_did() {
    on_a_node(async |node| {
        node.add_link();
        node.start_imds().await;
        let sandbox = sandbox();
        let agent = Builder::on_a_node(&sandbox).start().await;
        let pod = node.pod(&sandbox);
        assert_eq!(pod.ask(IPV4).await.unwrap().status, 200);
        for imds in [IMDS_IPV4, IMDS_IPV6] {
            let (imds, asked) = (SocketAddr::new(imds, 80), Request::get("/latest/meta-data/"));
            assert_eq!(asked.send(imds).await.unwrap().body, "imds", "the host, {imds}");
            assert_eq!(pod.send(asked, imds).await.unwrap().body, "imds", "a pod, {imds}");
        }
        assert!(!node.tables().contains(TABLE), "nobody counts");
        assert_eq!(shown(&agent).await, [None; 3]);
    });
}

#[test]
fn observe_lets_every_connection_through_and_counts_it_once_whatever_becomes_of_the_agent() {
    on_a_node(async |node| {
        node.add_link();
        node.start_imds().await;
        let sandbox = sandbox();
        let (one, other) = (node.pod(&sandbox), node.pod(&sandbox));
        let agent = builder(&sandbox, "observe").start().await;
        until_counting(node, "passing_ipv6").await;
        assert_eq!(node.tables().matches("pod_identity_agent").count(), 1, "and no other table");
        reach(&one, IMDS_IPV4, 3).await;
        reach(&one, IMDS_IPV6, 2).await;
        reach(&other, IMDS_IPV4, 1).await;
        for imds in [IMDS_IPV4, IMDS_IPV6] {
            let host = Request::get("/latest/meta-data/").send(SocketAddr::new(imds, 80)).await;
            assert_eq!(host.unwrap().body, "imds");
        }
        // Nobody follows the pods here, so that addresses count: one has two.
        until_shown(&agent, [6, 0, 3]).await;
        let counts = |agent: &Agent| -> Vec<(String, u64)> {
            let lines = told(agent, "instance metadata reached by a pod").into_iter();
            lines.map(|(address, line)| (address, line["connections"].as_u64().expect("a number"))).collect()
        };
        let expected = [(one.ipv4(), 3), (other.ipv4(), 1), ("fd00:10:1::1".to_owned(), 2)];
        assert_eq!(counts(&agent), expected);
        assert_eq!(condition(&agent).await["met"], true);
        drop(agent);
        reach(&other, IMDS_IPV4, 1).await;
        let agent = builder(&sandbox, "observe").start().await;
        until_shown(&agent, [7, 0, 3]).await;
        // With the block what was counted stays, and a pod that is kept out is known.
        drop(agent);
        let agent = builder(&sandbox, "on").start().await;
        until_counting(node, "blocking_ipv6").await;
        eventually("the block is there", async || connect(&other, IMDS_IPV6).await.is_err()).await;
        let before = node.rules_of("inet", TABLE);
        let [passed, ..] = {
            a_while().await;
            a_while().await;
            shown(&agent).await
        };
        for imds in [IMDS_IPV4, IMDS_IPV6] {
            let asked = Instant::now();
            connect(&one, imds).await.unwrap_err();
            assert!(asked.elapsed() < std::time::Duration::from_secs(1), "a reset, not silence");
        }
        let blocked = shown(&agent).await[1].expect("it is counted");
        until_shown(&agent, [passed.unwrap(), blocked + 2, 4]).await;
        assert!(before.contains("counter blocked"), "{before}");
        let pods = told(&agent, "instance metadata blocked for a pod");
        assert!(pods.iter().any(|(address, _)| *address == one.ipv4()), "{}", agent.log());
        drop(agent);
        let agent = Builder::on_a_node(&sandbox).start().await;
        assert!(!node.tables().contains(TABLE), "without the flag nothing is left");
        assert_eq!(shown(&agent).await, [None; 3]);
        reach(&one, IMDS_IPV4, 1).await;
    });
}

#[test]
fn a_full_set_and_rules_that_are_gone_keep_no_pod_from_anything() {
    on_a_node(async |node| {
        node.add_link();
        node.start_imds().await;
        let sandbox = sandbox();
        let pod = node.pod(&sandbox);
        let agent = builder(&sandbox, "observe").start().await;
        until_counting(node, "passing_ipv6").await;
        let made_up: Vec<_> = (0..1_024).map(|n| format!("10.9.{}.{}", n / 256, n % 256)).collect();
        node.sh(&format!("nft 'add element inet {TABLE} clients_ipv4 {{ {} }}'", made_up.join(", ")));
        reach(&pod, IMDS_IPV4, 2).await;
        until_shown(&agent, [2, 0, 0]).await;
        assert!(!node.rules_of("inet", TABLE).contains(&pod.ipv4()), "there is no room");
        // Half of it, then all of it.
        for damage in [&format!("flush chain inet {TABLE} passing"), "flush ruleset"] {
            node.sh(&format!("nft {damage}"));
            eventually("it is made anew", async || {
                let table = node.rules_of("inet", TABLE);
                table.matches("update @clients").count() == 4 && table.contains("169.254.169.254")
            })
            .await;
            reach(&pod, IMDS_IPV4, 1).await;
            until_shown(&agent, [1, 0, 1]).await;
        }
        let output = Command::new(binary()).arg("cleanup").output().expect("it runs");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(said.contains("the nftables table that counts"), "{said}");
        assert!(!node.tables().contains(TABLE));
    });
}

#[test]
fn where_the_agent_may_not_count_it_serves_and_nothing_is_alarming() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        node.sh("echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let agent = builder(&sandbox, "observe").spawn_as(|command| {
            std::os::unix::process::CommandExt::uid(command, NOBODY);
            std::os::unix::process::CommandExt::gid(command, NOBODY);
        });
        agent.until_ready().await;
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
        eventually("it is told", async || {
            condition(&agent).await["reason"].as_str().is_some_and(|reason| {
                reason.starts_with("not applicable: ") && reason.contains("Operation not permitted")
            })
        })
        .await;
        a_while().await;
        let condition = condition(&agent).await;
        assert_eq!((&condition["met"], &condition["required"]), (&true.into(), &false.into()));
        let log = agent.log();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("are not counted on this node")).collect();
        assert!(lines.len() == 1 && lines[0].to_lowercase().contains("\"info\""), "{log}");
        assert!(!log.contains("imds-count\",\"reason"), "no warning: {log}");
        assert_eq!(shown(&agent).await, [None; 3]);
    });
}

#[test]
fn an_update_neither_loses_nor_doubles_what_was_counted() {
    on_a_node(async |node| {
        node.add_link();
        node.start_imds().await;
        let sandbox = sandbox();
        let pod = node.pod(&sandbox);
        let release = |number: u16, mode| {
            builder(&sandbox, mode)
                .with_keys(&sandbox)
                .switch("--guard-address")
                .probe_port(3_000 + number)
                .metrics_port(4_000 + number)
        };
        let old = release(1, "observe").start().await;
        until_counting(node, "passing_ipv6").await;
        reach(&pod, IMDS_IPV4, 2).await;
        let new = release(2, "on").start().await;
        // The two want different things, and only the owner of the guard's table has its way.
        until_counting(node, "blocking_ipv6").await;
        for _ in 0..30 {
            let table = node.rules_of("inet", TABLE);
            let passing = table.split("set passing_ipv4 ").nth(1).unwrap_or_default();
            assert!(!passing.split('}').next().unwrap_or_default().contains("elements"), "{table}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        eventually("the block is there", async || connect(&pod, IMDS_IPV4).await.is_err()).await;
        let blocked = node.rules_of("inet", TABLE);
        let blocked = blocked.split("counter blocked {").nth(1).unwrap().split_whitespace().nth(1).unwrap();
        let blocked = blocked.parse().unwrap();
        for agent in [&old, &new] {
            until_shown(agent, [2, blocked, 1]).await;
        }
        drop(old);
        connect(&pod, IMDS_IPV4).await.unwrap_err();
        until_shown(&new, [2, blocked + 1, 1]).await;
    });
}

#[test]
fn a_guarding_agent_that_does_not_count_removes_the_counts_of_another_one_when_that_is_gone() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let release = |number: u16, mode| {
            let builder = builder(&sandbox, mode).with_keys(&sandbox).switch("--guard-address");
            builder.probe_port(3_000 + number).metrics_port(4_000 + number)
        };
        let old = release(1, "observe").start().await;
        until_counting(node, "passing_ipv6").await;
        let _new = release(2, "off").start().await;
        tokio::time::sleep(std::time::Duration::from_secs(7)).await;
        assert!(node.tables().contains(TABLE), "the old one still reads it");
        drop(old);
        eventually("it is removed", async || !node.tables().contains(TABLE)).await;
    });
}

#[test]
fn the_log_names_the_pod_and_only_pods_that_are_there_count() {
    on_a_node(async |node| {
        node.add_link();
        node.start_imds().await;
        let sandbox = sandbox();
        let (pod, stranger) = (node.pod(&sandbox), node.pod(&sandbox));
        let known = ("default", "app-1", &*pod.identity.uid);
        let api = ApiServer::start(sandbox.dir(), &[known]).await;
        let agent = builder(&sandbox, "observe")
            .flag("--node-name", "node")
            .flag("--kubernetes", "auto")
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", &api.port.to_string())
            .flag("--kubernetes-credentials", api.folder.to_str().unwrap())
            .start()
            .await;
        until_counting(node, "passing_ipv6").await;
        reach(&pod, IMDS_IPV4, 3).await;
        reach(&stranger, IMDS_IPV4, 1).await;
        until_shown(&agent, [4, 0, 0]).await;
        api.give_address(known, &pod.ipv4());
        until_shown(&agent, [4, 0, 1]).await;
        let told = told(&agent, "instance metadata reached by a pod");
        let [(address, line)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(*address, pod.ipv4());
        for (field, expected) in [("namespace", "default"), ("pod", "app-1"), ("service_account", "app")] {
            assert_eq!(line[field], expected, "{line}");
        }
        assert_eq!(line["connections"], 3);
        api.delete_pod(known.0, known.1, known.2);
        until_shown(&agent, [4, 0, 0]).await;
    });
}

#[test]
fn the_agents_own_probe_from_a_pods_network_counts_for_nobody() {
    on_a_node(async |node| {
        node.add_link();
        node.start_imds().await;
        let sandbox = sandbox();
        let agent = builder(&sandbox, "on").switch("--probe-namespace").start().await;
        until_counting(node, "blocking_ipv6").await;
        let out_of_reach = async || {
            let page = agent.probe("/readyz").await.unwrap().body;
            page.split("imds-out-of-reach").nth(1).is_some_and(|rest| rest.starts_with("\",\"met\":true"))
        };
        eventually("the probe finds the block", out_of_reach).await;
        // A change is a reason to probe again, with the rules that count in force.
        node.ip("addr add 127.0.0.9/32 dev lo\n");
        tokio::time::sleep(std::time::Duration::from_secs(7)).await;
        let table = node.rules_of("inet", TABLE);
        assert_eq!(shown(&agent).await, [Some(0), Some(0), Some(0)], "{table}");
    });
}
