//! `--guard-address` and `--block-imds`: our table against thieves, and in front of the node's own
//! credentials.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use tokio::time::Instant;

use super::{a_while, on_both_families, pods_with_credentials};
use crate::harness::{
    Agent, Builder, IMDS_IPV4, IMDS_IPV6, IPV4, IPV6, Load, Node, Request, Shape, Thief, Window, Wired,
    eks_auth_calls, eventually, on_a_node, sandbox,
};

/// Somebody who is not root: `nobody` on most systems.
const NOBODY: u32 = 65_534;

/// The thief is there before us, and comes again after us, on both families; no token reaches it, and no
/// attempt is hurt.
fn assert_guarded(shape: Shape) {
    on_a_node(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let thief = Thief::new(node.pod(&sandbox)).await;
        node.sh(&thief.rules(shape));
        let builder = Builder::on_a_node(&sandbox).with_keys(&sandbox).switch("--guard-address");
        // Pods ask once it is ready: the guard stands by then.
        let _agent = builder.start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let loads = on_both_families(&pods, Load::rotating, 25);
        a_while().await;
        let again = Thief::new(node.pod(&sandbox)).await;
        if shape == Shape::Nftables {
            node.sh(&again.rules(shape));
        }
        // Pods on the host network come by another hook.
        for (pod, at) in pods.iter().zip([IPV4, IPV6].into_iter().cycle()) {
            let on_the_host = Request::credentials(&pod.identity.token).send(SocketAddr::new(at, 80)).await;
            assert_eq!(on_the_host.unwrap().status, 200);
        }
        // Until the tokens have rotated twice.
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        for load in loads {
            let report = load.end().await;
            report.assert_unhurt_but_in(&[]);
            report.assert_one_key_per_pod();
        }
        assert_eq!((thief.tokens(), again.tokens()), (0, 0), "no token reaches a thief");
        assert_eq!(eks_auth_calls(&sandbox).len(), pods.len(), "one call for each pod");
    });
}

#[test]
fn no_token_reaches_a_thief_by_portmaps_nftables_rules() {
    assert_guarded(Shape::Nftables);
}

#[test]
fn no_token_reaches_a_thief_by_portmaps_iptables_nft_rules() {
    assert_guarded(Shape::IptablesNft);
}

#[test]
fn no_token_reaches_a_thief_by_portmaps_iptables_legacy_rules() {
    assert_guarded(Shape::IptablesLegacy);
}

/// Flushes all rules three times under load; the moments of it.
async fn flush_three_times(node: &Node) -> Vec<Window> {
    let mut windows = Vec::new();
    for _ in 0..3 {
        let from = Instant::now();
        node.sh("nft flush ruleset");
        let flushed = Instant::now();
        windows.push(Window { from, to: flushed });
        eventually("the guard is back", async || node.tables().contains("pod_identity_agent")).await;
        assert!(flushed.elapsed() < Duration::from_secs(1), "{:?}", flushed.elapsed());
        a_while().await;
    }
    windows
}

#[test]
fn a_flushed_ruleset_is_written_again_within_a_second_and_no_attempt_is_hurt() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let _agent = Builder::on_a_node(&sandbox).switch("--guard-address").start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let load = Load::start(&pods, IPV4, 25);
        flush_three_times(node).await;
        load.end().await.assert_unhurt_but_in(&[]);
    });
}

/// A connection that is open while the rules go loses its translation to the other port, and may come to
/// nothing: the kernel drops its NAT hooks with the last chain. boto3 asks again; whoever asks a moment later
/// notices nothing.
#[test]
fn where_port_80_is_shared_a_flush_costs_no_request() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let flags = |builder: Builder| builder.switch("--guard-address").switch("--share-port");
        let _agent = flags(Builder::on_a_node(&sandbox)).start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let load = Load::start(&pods, IPV4, 25);
        let moments = flush_three_times(node).await;
        let report = load.end().await;
        report.assert_none_lost();
        // Until the table is back nobody listens on port 80: that is the second after each flush.
        let windows: Vec<_> = moments.iter().map(|at| Window::of(at.from, Duration::from_secs(1))).collect();
        report.assert_unhurt_but_in(&windows);
    });
}

fn assert_beside_an_ingress(flags: fn(Builder) -> Builder) {
    on_a_node(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let _ingress = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap();
        let _agent = flags(Builder::on_a_node(&sandbox).switch("--guard-address")).start().await;
        for at in [IPV4, IPV6] {
            pods_with_credentials(node, &sandbox, 2, at).await;
        }
    });
}

#[test]
fn an_ingress_on_port_80_of_the_host_and_the_agent_live_side_by_side() {
    assert_beside_an_ingress(|builder| builder.switch("--share-port"));
}

#[test]
fn a_foreign_listener_that_has_port_80_already_gets_no_token_of_a_guarded_agent() {
    assert_beside_an_ingress(|builder| builder);
}

/// The unmet conditions that readiness waits for.
async fn waited_for(agent: &Agent) -> Vec<String> {
    let Ok(page) = agent.probe("/readyz").await else { return vec!["an answer".to_owned()] };
    let page: serde_json::Value = serde_json::from_str(&page.body).expect("JSON");
    let unmet = page["conditions"].as_array().expect("a list").iter();
    let unmet = unmet.filter(|condition| condition["required"] == true && condition["met"] == false);
    unmet.map(|condition| condition["name"].as_str().expect("a name").to_owned()).collect()
}

/// The status of `/readyz`; none while nobody listens there.
async fn readyz(agent: &Agent) -> Option<u16> {
    Some(agent.probe("/readyz").await.ok()?.status)
}

/// Whether the rules for both addresses stand.
fn guard_stands(node: &Node) -> bool {
    let table = node.rules_of("inet", "pod_identity_agent");
    [IPV4, IPV6].iter().all(|ip| table.contains(&format!("{ip} . 80 timeout")))
}

#[test]
fn readiness_waits_for_a_guard_that_takes_seconds_and_no_token_reaches_a_thief_meanwhile() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let thief = Thief::new(node.pod(&sandbox)).await;
        node.sh(&thief.rules(Shape::Nftables));
        let pod = node.pod(&sandbox);
        let began = Instant::now();
        // Each call of nft is late, as where kube-proxy has ten thousand rules.
        let agent = Builder::on_a_node(&sandbox)
            .switch("--guard-address")
            .in_place_of("nft", "sleep 1; exec nft \"$@\"")
            .spawn();
        let mut was_last_to_come = false;
        while readyz(&agent).await != Some(200) {
            was_last_to_come |= waited_for(&agent).await == ["address-guard"];
            assert!(began.elapsed() < Duration::from_secs(9), "{:?}", waited_for(&agent).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(guard_stands(node), "ready before the guard stands, after {:?}", began.elapsed());
        assert!(was_last_to_come, "something else took longer, so that this shows nothing");
        for at in [IPV4, IPV6] {
            assert_eq!(pod.ask(at).await.unwrap().status, 200);
        }
        assert_eq!(thief.tokens(), 0);
    });
}

#[test]
fn a_guard_that_never_comes_is_waited_for_ten_seconds_and_then_told() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let began = Instant::now();
        let agent = Builder::on_a_node(&sandbox)
            .switch("--guard-address")
            .in_place_of("nft", "exec sleep 60")
            .spawn();
        while readyz(&agent).await != Some(200) {
            assert!(began.elapsed() < Duration::from_secs(12), "{:?}", waited_for(&agent).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
        let page = agent.probe("/readyz").await.unwrap().body;
        assert!(page.contains("nft did not finish within 2 s"), "{page}");
        assert_eq!(node.pod(&sandbox).ask(IPV4).await.unwrap().status, 200);
    });
}

#[test]
fn a_guard_that_cannot_come_is_not_waited_for() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        // `nobody` may bind port 80 here, and change no rules.
        node.sh("echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let began = Instant::now();
        let agent = Builder::on_a_node(&sandbox).switch("--guard-address").spawn_as(|command| {
            command.uid(NOBODY).gid(NOBODY);
        });
        agent.until_ready().await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let page = agent.probe("/readyz").await.unwrap().body;
        assert!(page.contains("Operation not permitted"), "{page}");
        assert_eq!(node.pod(&sandbox).ask(IPV4).await.unwrap().status, 200);
    });
}

#[test]
fn an_agent_that_nobody_is_redirected_to_is_not_ready() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let ingress = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap();
        // `nobody` may bind port 80 here, and redirect nothing; and the ingress has port 80 of IPv4.
        node.sh("echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let agent = Builder::on_a_node(&sandbox).switch("--guard-address").spawn_as(|command| {
            command.uid(NOBODY).gid(NOBODY);
        });
        eventually("IPv6 is reached on port 80 itself", async || {
            waited_for(&agent).await == ["listener-ipv4"]
        })
        .await;
        a_while().await;
        assert_eq!(waited_for(&agent).await, ["listener-ipv4"]);
        drop(ingress);
        eventually("the port itself suffices", async || waited_for(&agent).await.is_empty()).await;
        assert_eq!(node.pod(&sandbox).ask(IPV4).await.unwrap().status, 200);
    });
}

#[test]
fn a_foreign_process_on_the_guards_port_takes_nothing_from_an_agent_that_has_port_80() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let _foreign = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 2707)).unwrap();
        let agent = Builder::on_a_node(&sandbox).switch("--guard-address").start().await;
        assert!(waited_for(&agent).await.is_empty());
        eventually("the guard stands", async || node.tables().contains("pod_identity_agent")).await;
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
    });
}

async fn reaches_imds(pod: &Wired, imds: std::net::IpAddr) -> std::io::Result<String> {
    let asked = pod.send(Request::get("/latest/meta-data/"), SocketAddr::new(imds, 80)).await;
    asked.map(|answer| answer.body)
}

#[test]
fn block_imds_keeps_pods_from_the_metadata_service_and_the_host_not() {
    on_a_node(async |node| {
        node.add_link();
        node.start_imds().await;
        let sandbox = sandbox();
        let blocking = Builder::on_a_node(&sandbox).switch("--block-imds").start().await;
        let pod = node.pod(&sandbox);
        for imds in [IMDS_IPV4, IMDS_IPV6] {
            eventually("pods are kept out", async || reaches_imds(&pod, imds).await.is_err()).await;
            let asked = Instant::now();
            reaches_imds(&pod, imds).await.unwrap_err();
            // A reset, not silence: an SDK without other credentials goes on at once.
            assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
            let asked = Request::get("/latest/meta-data/");
            let host = asked.send(SocketAddr::new(imds, 80)).await;
            assert_eq!(host.unwrap().body, "imds", "the host is not kept out");
        }
        assert_eq!(pod.ask(IPV4).await.unwrap().status, 200);
        drop(blocking);
        let _not_blocking = Builder::on_a_node(&sandbox).start().await;
        eventually("without the flag the block is taken away", async || {
            reaches_imds(&pod, IMDS_IPV4).await.is_ok_and(|body| body == "imds")
        })
        .await;
    });
}

#[test]
fn a_guard_that_is_switched_off_is_out_of_force_and_pods_are_served_without_it() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let guarding = Builder::on_a_node(&sandbox).switch("--guard-address").start().await;
        eventually("the guard stands", async || node.tables().contains("pod_identity_agent")).await;
        drop(guarding);
        let _unguarded = Builder::on_a_node(&sandbox).start().await;
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
        let table = node.rules_of("inet", "pod_identity_agent");
        assert!(!table.contains(" . 80 "), "{table}");
    });
}
