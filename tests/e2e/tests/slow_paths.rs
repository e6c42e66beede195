//! The way to AWS is slow, or what comes over it is too much: proxies, inspections, long round trips, answers
//! that are right but late, answers without end.

use std::net::SocketAddr;
use std::time::Duration;

use sandbox::{Effect, Fault, Options, Sandbox, Service};

use crate::harness::{
    Agent, Builder, Delays, Middlebox, as_boto3, eks_auth_calls, eventually, heal, pod, sandbox, slow,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address_of(url: &str) -> SocketAddr {
    url.rsplit('/').next().and_then(|address| address.parse().ok()).expect("an address")
}

fn with_tls() -> Sandbox {
    Sandbox::start(Options { tls: true, ..Options::default() }).expect("the sandbox starts")
}

/// An agent that reaches the real endpoint's name over https, through this proxy.
async fn behind(proxy: &Middlebox, sandbox: &Sandbox) -> Agent {
    Builder::new(sandbox)
        .without("--endpoint")
        .env("HTTPS_PROXY", &format!("http://user:secret@{}", proxy.address))
        .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().expect("UTF-8"))
        .start()
        .await
}

/// New pods, all at once: each must be served within boto3's tries.
async fn assert_served(what: &str, sandbox: &Sandbox, agent: &Agent, names: &[impl AsRef<str>]) {
    let tokens = names.iter().map(|name| pod(sandbox, name.as_ref()).token);
    let mut asking = tokio::task::JoinSet::new();
    for token in tokens {
        let to = agent.address();
        asking.spawn(async move { as_boto3(&token, to).await });
    }
    for served in asking.join_all().await {
        served.unwrap_or_else(|failures| panic!("{what}: {failures:?}"));
    }
}

/// More new pods than calls may be under way at first.
fn twenty(generation: &str) -> Vec<String> {
    (0..20).map(|pod| format!("{generation}-{pod}")).collect()
}

async fn answers_after(late: u64) {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    sandbox.faults().set([slow(late)]);
    assert_served(&format!("{late} ms"), &sandbox, &agent, &twenty("first")).await;
    assert_eq!(eks_auth_calls(&sandbox).len(), 20, "{late} ms: no call was given up");
    // On connections that are known by now, and with what AWS has shown that it takes.
    assert_served(&format!("{late} ms again"), &sandbox, &agent, &twenty("second")).await;
    assert_eq!(eks_auth_calls(&sandbox).len(), 40, "{late} ms again");
}

#[tokio::test]
async fn eks_auth_that_becomes_slow_serves_twenty_new_pods_over_connections_that_were_quick() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    assert_served("quick", &sandbox, &agent, &twenty("first")).await;
    sandbox.faults().set([slow(3000)]);
    assert_served("slow", &sandbox, &agent, &twenty("second")).await;
}

#[tokio::test]
async fn eks_auth_that_answers_well_but_late_serves_new_pods_within_boto3s_tries() {
    tokio::join!(answers_after(1300), answers_after(2000), answers_after(3000), answers_after(4000));
}

#[tokio::test]
async fn a_proxy_and_an_inspection_of_tls_that_take_600_ms_each_serve_new_pods() {
    let sandbox = with_tls();
    let to = address_of(sandbox.eks_auth_tls_url().expect("https"));
    for delays in [
        Delays { connect: ms(600), ..Delays::default() },
        Delays { first_bytes: ms(600), ..Delays::default() },
        Delays { connect: ms(600), first_bytes: ms(600), ..Delays::default() },
    ] {
        let proxy = Middlebox::proxy(to, delays).await;
        let agent = behind(&proxy, &sandbox).await;
        assert_served(&format!("{delays:?}"), &sandbox, &agent, &["app-0", "app-1"]).await;
        assert!(proxy.accepted() <= 4, "{delays:?}: {} connections", proxy.accepted());
        assert!(!agent.log().contains("secret"), "the proxy's password is in the log");
        // The connection is kept.
        let before = tokio::time::Instant::now();
        assert_eq!(agent.ask(&pod(&sandbox, "app-2").token).await.status, 200);
        assert!(before.elapsed() < ms(600), "{delays:?}: {:?}", before.elapsed());
    }
}

#[tokio::test]
async fn a_round_trip_of_200_ms_through_a_proxy_with_tls_serves_new_pods() {
    // TLS 1.2 takes a round trip more than 1.3.
    for (tls_1_2_only, version) in [(false, "TLSv1_3"), (true, "TLSv1_2")] {
        let options = Options { tls: true, tls_1_2_only, ..Options::default() };
        let sandbox = Sandbox::start(options).expect("the sandbox starts");
        let to = address_of(sandbox.eks_auth_tls_url().expect("https"));
        // The proxy's own way to AWS is as long.
        let delays = Delays { tcp: ms(200), connect: ms(200), each_way: ms(100), ..Delays::default() };
        let proxy = Middlebox::proxy(to, delays).await;
        let agent = behind(&proxy, &sandbox).await;
        assert_served(&format!("200 ms, {version}"), &sandbox, &agent, &["app-0", "app-1"]).await;
        assert_eq!(sandbox.tls_versions(), [version]);
    }
}

#[tokio::test]
async fn a_connection_in_the_making_outlives_the_attempt_that_wanted_it() {
    // TLS takes longer than the first attempt has in all; each further attempt would begin it anew. A second
    // and a third connection are begun beside it, one a second.
    for set_up in [900, 2500] {
        let sandbox = with_tls();
        let to = address_of(sandbox.eks_auth_tls_url().expect("https"));
        let way = Middlebox::forwarding(to, Delays { first_bytes: ms(set_up), ..Delays::default() }).await;
        let agent = Builder::new(&sandbox)
            .flag("--endpoint", &format!("https://{}", way.address))
            .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().expect("UTF-8"))
            .start()
            .await;
        assert_served(&format!("{set_up} ms"), &sandbox, &agent, &["app-0"]).await;
        assert!(way.accepted() <= 3, "{set_up} ms: {} connections", way.accepted());
    }
}

/// The most memory that the agent had so far, in KiB.
fn peak(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// In KiB, above what an agent in health has.
const ALLOWED: u64 = 24 * 1024;

const TOO_MUCH: [Effect; 3] =
    [Effect::Padded { mib: 64 }, Effect::Endless { pause_ms: 0 }, Effect::Endless { pause_ms: 50 }];

#[tokio::test]
async fn an_answer_of_eks_auth_without_end_costs_no_memory() {
    let sandbox = sandbox();
    for effect in TOO_MUCH {
        let agent = Agent::start(&sandbox).await;
        assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
        let usual = peak(&agent);
        sandbox.faults().set([Fault::new(Service::EksAuth, effect.clone())]);
        let token = pod(&sandbox, "app-1").token.clone();
        let answer = agent.ask(&token).await;
        let now = peak(&agent);
        assert!(now < usual + ALLOWED, "{effect:?}: {usual} KiB in health, then {now} KiB");
        assert_eq!(answer.status, 503, "{effect:?}: {answer:?}");
        heal(&sandbox);
        assert!(as_boto3(&token, agent.address()).await.is_ok(), "{effect:?}: it is over");
    }
}

#[tokio::test]
async fn answers_of_the_metadata_service_and_the_issuer_without_end_cost_no_memory() {
    let sandbox = sandbox();
    let healthy = Builder::verifying(&sandbox).start().await;
    assert_eq!(healthy.ask(&pod(&sandbox, "app").token).await.status, 200);
    let usual = peak(&healthy);
    for effect in TOO_MUCH {
        let services = [Service::Imds, Service::Issuer];
        let asked = |service| sandbox.calls_of(service).len();
        let before = services.map(asked);
        sandbox.faults().set(services.map(|service| Fault::new(service, effect.clone())));
        let agent = Builder::verifying(&sandbox).spawn();
        // The first answer has been dealt with when the second is asked for.
        eventually("both are asked twice", async || {
            services.iter().zip(before).all(|(service, before)| asked(*service) > before + 1)
        })
        .await;
        let now = peak(&agent);
        assert!(now < usual + ALLOWED, "{effect:?}: {usual} KiB in health, then {now} KiB");
        heal(&sandbox);
        agent.until_ready().await;
        assert!(
            as_boto3(&pod(&sandbox, "app").token, agent.address()).await.is_ok(),
            "{effect:?}: it is over"
        );
    }
}
