//! Starting on a node where something is wrong: invariant 10, and configuration errors.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use crate::harness::{Agent, Builder, Request, binary, eventually, free_port, pod, sandbox};

#[test]
fn every_problem_of_the_configuration_is_told_at_once_and_the_exit_code_is_64() {
    let flags = [
        "--cluster-name",
        "no spaces",
        "--port",
        "99999",
        "--max-service-qps",
        "none",
        "--bind-hosts",
        "0.0.0.0",
        "--region",
        "moon",
    ];
    let out = Command::new(binary()).arg("server").args(flags).env_clear().output().unwrap();
    assert_eq!(out.status.code(), Some(64));
    let errors = String::from_utf8(out.stderr).unwrap();
    for named in ["--cluster-name", "--port", "--max-service-qps", "--bind-hosts", "--region"] {
        assert!(errors.contains(named), "{named} is not named in:\n{errors}");
    }
}

#[tokio::test]
async fn taken_probe_and_metrics_ports_do_not_take_the_endpoint_down() {
    let sandbox = sandbox();
    let (probe, metrics) = (free_port(), free_port());
    let thief = TcpListener::bind((Ipv4Addr::LOCALHOST, probe)).unwrap();
    let _other_thief = TcpListener::bind((Ipv4Addr::LOCALHOST, metrics)).unwrap();
    let agent = Builder::new(&sandbox).probe_port(probe).metrics_port(metrics).spawn();
    let token = pod(&sandbox, "app-0").token.clone();
    eventually("credentials are served", async || {
        matches!(Request::credentials(&token).send(agent.address()).await, Ok(answer) if answer.status == 200)
    })
    .await;
    drop(thief);
    eventually("the probes come up when their port is free", async || {
        agent.probe("/healthz").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn a_family_that_cannot_be_bound_leaves_the_other_serving_and_readiness_waits_for_it() {
    let sandbox = sandbox();
    let builder = Builder::new(&sandbox).also("--bind-hosts", "[::1]");
    let port = builder.command().get_args().nth(2).unwrap().to_str().unwrap().parse().unwrap();
    let thief = TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, port)).unwrap();
    let agent = builder.spawn();
    let token = pod(&sandbox, "app-0").token.clone();
    eventually("the other family is served", async || {
        matches!(Request::credentials(&token).send(agent.address()).await, Ok(answer) if answer.status == 200)
    })
    .await;
    // On a cluster with IPv6 that address is the only one that pods use.
    let ready = agent.probe("/readyz").await.unwrap();
    assert_eq!(ready.status, 503);
    let conditions = ready.json()["conditions"].as_array().unwrap().clone();
    let unmet: Vec<_> = conditions.iter().filter(|one| one["met"] == false).map(|one| &one["name"]).collect();
    assert!(unmet.contains(&&serde_json::Value::from("listener-ipv6")), "{}", ready.body);
    drop(thief);
    agent.until_ready().await;
}

#[tokio::test]
async fn the_listener_comes_up_before_its_address_exists() {
    let sandbox = sandbox();
    // TEST-NET-1: no machine has it. Freebind listens all the same; the address may come later.
    let agent = Builder::new(&sandbox)
        .flag("--bind-hosts", "192.0.2.23")
        .also("--bind-hosts", "127.0.0.1")
        .start()
        .await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
}

#[tokio::test]
async fn amazons_way_of_passing_flags_works() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox)
        .without("--cluster-name")
        .flag("-c", "sandbox")
        .flag("--max-credential-retention-before-renewal", "2h45m")
        .flag("-v", "info")
        .without("--verbosity")
        .start()
        .await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    let log = agent.log();
    assert_eq!(log.matches("effective configuration").count(), 1, "{log}");
    assert!(
        log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "one JSON a line:\n{log}"
    );
}

#[tokio::test]
async fn hits_are_not_logged_at_info_but_misses_and_the_first_hit_are() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).flag("--verbosity", "info").start().await;
    let token = pod(&sandbox, "app-0").token.clone();
    for _ in 0..10 {
        agent.ask(&token).await.access_key_id();
    }
    let log = agent.log();
    let requests: Vec<_> = log.lines().filter(|line| line.contains("credentials requested")).collect();
    assert_eq!(requests.len(), 2, "one fetch, one first hit:\n{log}");
    assert!(requests[0].contains("app-0"), "{}", requests[0]);
}

#[tokio::test]
async fn amazons_metrics_are_there_under_their_names() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let token = pod(&sandbox, "app-0").token.clone();
    agent.ask(&token).await;
    agent.ask(&token).await;
    let metrics = agent.metrics().await;
    for line in [
        r#"pod_identity_http_response{code="200"} 2"#,
        r#"pod_identity_cache_state{state="hit"} 1"#,
        r#"pod_identity_cache_state{state="miss"} 1"#,
        r#"pod_identity_local_validation{result="skipped"} 2"#,
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn flags_of_a_newer_amazon_agent_start_and_misspelt_ones_do_not() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox)
        .flag("--enable-imds-credentials", "true")
        .flag("--some-flag-of-next-year", "5m")
        .flag("--max-service-qps", "0")
        .flag("--metrics-address", "localhost")
        .start()
        .await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    let log = agent.log();
    for told in ["EKS Auth only", "--some-flag-of-next-year is ignored", "--max-service-qps=0 means 3"] {
        assert!(log.contains(told), "{told} is not in\n{log}");
    }
    let out = Command::new(binary()).args(["server", "--guard-adress"]).env_clear().output().unwrap();
    assert_eq!(out.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&out.stderr).contains("--guard-address"), "{out:?}");
}

#[tokio::test]
async fn the_metrics_port_answers_probes_too() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    for path in ["/healthz", "/readyz"] {
        let at = (Ipv4Addr::LOCALHOST, agent.metrics_port).into();
        let answer = Request::get(path).send(at).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}
