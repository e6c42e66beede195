//! AWS by its names, over a name server that is slow, wrong, dead, or leads to addresses that are.
//!
//! Each test has a network of its own: the agent asks the test's name server by the system's own resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use sandbox::{Effect, Fault, Options, Sandbox, Service};
use tokio::time::Instant;

use crate::harness::{Agent, Builder, Dns, Says, Zone, as_boto3, eks_auth_calls, eventually, on_a_node, pod};

/// An address of the node that a resolver does not prefer to others, as it does the loopback.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// Packets go there, and nothing comes back.
const DEAD_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const DEAD_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xdead, 0, 0, 0, 0, 0, 1));
/// The most impatient SDK waits so long.
const IMPATIENT: Duration = Duration::from_secs(1);

fn sandbox() -> Sandbox {
    let imds = Some((Ipv4Addr::LOCALHOST, 0).into());
    let options = Options { tls: true, address: HERE, imds, ..Options::default() };
    Sandbox::start(options).expect("the sandbox starts")
}

fn port_of(url: &str) -> &str {
    url.split("://").nth(1).and_then(|rest| rest.split('/').next()?.rsplit(':').next()).expect("a port")
}

/// EKS Auth by its name, over https, and no other way to it.
fn by_name(sandbox: &Sandbox, dns: &Dns) -> Builder {
    let port = port_of(sandbox.eks_auth_tls_url().expect("https"));
    Builder::new(sandbox)
        .flag("--endpoint", &format!("https://eks-auth.us-west-2.api.aws:{port}"))
        .flag("--verbosity", "debug")
        .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().expect("UTF-8"))
        .resolv_conf(dns.resolv_conf())
}

/// A new pod asks once.
async fn served_within(agent: &Agent, sandbox: &Sandbox, name: &str, time: Duration) {
    let began = Instant::now();
    let answer = agent.ask(&pod(sandbox, name).token).await;
    assert_eq!(answer.status, 200, "{name}: {answer:?}");
    assert!(began.elapsed() < time, "{name}: {:?}", began.elapsed());
}

/// The next call needs a connection of its own, and so a lookup.
fn closing(sandbox: &Sandbox) {
    let close = Effect::CloseAfter { answers: 1, announced: true };
    sandbox.faults().set([Fault::new(Service::EksAuth, close)]);
}

#[test]
fn addresses_that_are_dead_cost_a_new_pod_a_moment_whichever_family_they_are_of() {
    on_a_node(async |_node| {
        let sandbox = sandbox();
        closing(&sandbox);
        let dns = Dns::start(Zone::of(&[HERE])).await;
        for (index, addresses) in [
            vec![HERE],
            vec![DEAD_IPV6, HERE],
            vec![DEAD_IPV6, DEAD_IPV4, HERE],
            vec![DEAD_IPV4, DEAD_IPV4, HERE],
        ]
        .into_iter()
        .enumerate()
        {
            dns.set(Zone::of(&addresses));
            let before = dns.asked();
            let agent = by_name(&sandbox, &dns).start().await;
            served_within(&agent, &sandbox, &format!("{index} {addresses:?}"), IMPATIENT).await;
            assert!(dns.asked() > before, "the name server of the test was asked");
        }
        let calls = eks_auth_calls(&sandbox);
        assert_eq!(calls.len(), 4, "{calls:?}");
    });
}

#[test]
fn a_name_that_does_not_exist_yet_is_told_and_found_when_it_does() {
    on_a_node(async |_node| {
        let dns = Dns::start(Zone::saying(Says::NoSuchName)).await;
        for says in [Says::NoSuchName, Says::Failure, Says::Addresses(Vec::new())] {
            dns.set(Zone::saying(says.clone()));
            let sandbox = sandbox();
            let agent = by_name(&sandbox, &dns).start().await;
            let token = pod(&sandbox, "app-0").token;
            let began = Instant::now();
            let answer = agent.ask(&token).await;
            assert_eq!(answer.status, 503, "{says:?}: {answer:?}");
            assert!(began.elapsed() < Duration::from_secs(5), "{says:?}: {:?}", began.elapsed());
            assert_eq!(agent.probe("/readyz").await.unwrap().status, 200, "{says:?}");
            eventually("it is told", async || {
                let log = agent.log();
                let mut warnings = log.lines().filter(|line| line.contains(r#""level":"warn""#));
                warnings.any(|line| {
                    line.contains("the name lookup") && line.contains("eks-auth.us-west-2.api.aws")
                })
            })
            .await;
            dns.set(Zone::of(&[HERE]));
            let there = Instant::now();
            assert!(as_boto3(&token, agent.address()).await.is_ok(), "{says:?}");
            assert!(there.elapsed() < Duration::from_secs(5), "{says:?}: {:?}", there.elapsed());
        }
    });
}

#[test]
fn a_slow_name_server_serves_new_pods_within_boto3s_tries() {
    on_a_node(async |_node| {
        let sandbox = sandbox();
        let dns = Dns::start(Zone::of(&[HERE])).await;
        for seconds in [1, 3] {
            dns.set(Zone::of(&[HERE]).late(Duration::from_secs(seconds)));
            let agent = by_name(&sandbox, &dns).start().await;
            let served = as_boto3(&pod(&sandbox, &format!("app-{seconds}")).token, agent.address()).await;
            assert!(served.is_ok(), "{seconds} s: {served:?}");
        }
        assert_eq!(eks_auth_calls(&sandbox).len(), 2);
    });
}

#[test]
fn a_name_server_that_dies_leaves_the_addresses_that_worked() {
    on_a_node(async |_node| {
        let sandbox = sandbox();
        closing(&sandbox);
        let dns = Dns::start(Zone::of(&[HERE])).await;
        let agent = by_name(&sandbox, &dns).start().await;
        served_within(&agent, &sandbox, "before", IMPATIENT).await;
        // A lookup that hangs goes on for long, and is shared by all who come meanwhile.
        for says in [Says::NoSuchName, Says::Failure, Says::Addresses(Vec::new()), Says::Nothing] {
            dns.set(Zone::saying(says.clone()));
            let before = dns.asked();
            for index in 0..3 {
                served_within(&agent, &sandbox, &format!("{says:?} {index}"), IMPATIENT).await;
            }
            assert!(dns.asked() > before, "{says:?}");
        }
    });
}

/// Some middleboxes drop what they do not know. The system's resolver waits for both families, five seconds
/// and more, before it gives out the one that it has.
#[test]
fn a_name_server_that_is_silent_about_one_family_costs_the_first_pods_its_time_out_and_later_ones_nothing() {
    on_a_node(async |_node| {
        let sandbox = sandbox();
        closing(&sandbox);
        let dns = Dns::start(Zone { ipv6: Says::Nothing, ..Zone::of(&[HERE]) }).await;
        let agent = by_name(&sandbox, &dns).start().await;
        let token = pod(&sandbox, "first").token;
        let began = Instant::now();
        while as_boto3(&token, agent.address()).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(40), "never");
        }
        println!("served after {:?}", began.elapsed());
        for index in 0..3 {
            served_within(&agent, &sandbox, &format!("later-{index}"), IMPATIENT).await;
        }
    });
}

#[test]
fn keys_of_an_issuer_by_its_name_come_as_soon_as_it_can_be_found() {
    on_a_node(async |_node| {
        let dns = Dns::start(Zone::of(&[HERE])).await;
        for (zone, what) in [
            (Zone::of(&[HERE]), "at once"),
            (Zone::of(&[DEAD_IPV6, HERE]).late(Duration::from_secs(1)), "slow, and IPv6 is dead"),
            (Zone::saying(Says::NoSuchName), "not there yet"),
        ] {
            dns.set(zone);
            let sandbox = sandbox();
            let port = port_of(sandbox.eks_auth_tls_url().expect("https"));
            let jwks = sandbox.jwks_tls_url().expect("https");
            let jwks = jwks.replace("10.0.0.1", "oidc.eks.us-west-2.amazonaws.com");
            let agent = Builder::verifying(&sandbox)
                .flag("--endpoint", &format!("https://10.0.0.1:{port}"))
                .flag("--jwks", &jwks)
                .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().expect("UTF-8"))
                .resolv_conf(dns.resolv_conf())
                .start()
                .await;
            let mut app = pod(&sandbox, "app");
            let began = Instant::now();
            assert_eq!(agent.ask(&app.token).await.status, 200, "{what}: AWS judges");
            assert!(began.elapsed() < 2 * IMPATIENT, "{what}: {:?}", began.elapsed());
            dns.set(Zone::of(&[HERE]));
            let known = async || agent.metric("pod_identity_agent_token_keys").await == 1;
            eventually(what, known).await;
            let key = agent.ask(&app.token).await.access_key_id();
            app.rotate_token().unwrap();
            assert_eq!(agent.ask(&app.token).await.access_key_id(), key, "{what}: it is verified");
        }
    });
}
