//! One call per identity, over real sockets: invariants 1, 4 and 8.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use sandbox::{Effect, Fault, Service};
use tokio::task::JoinSet;

use crate::harness::{Agent, Builder, Request, eks_auth_calls, eventually, pod, sandbox, slow};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_first_requests_of_one_pod_make_one_upstream_call() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    // One answer has come: the keys are there.
    agent.ask(&pod(&sandbox, "any").token).await.access_key_id();
    let app = pod(&sandbox, "app-0");
    // Its token has rotated while it started.
    let tokens = [app.token.clone(), app.another_token().unwrap(), app.another_token().unwrap()];
    sandbox.faults().set([slow(700)]);
    sandbox.reset_calls();
    let mut requests = JoinSet::new();
    for n in 0..1000_u16 {
        // Ten peers, as a pod's own address and its node's would be: the limits per peer are another test's.
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, u8::try_from(1 + n % 10).unwrap()));
        let request = Request::credentials(&tokens[usize::from(n) % 3]).from(from);
        let to = agent.address();
        requests.spawn(async move { request.send(to).await.unwrap().access_key_id() });
    }
    let keys: BTreeSet<_> = requests.join_all().await.into_iter().collect();
    assert_eq!(keys.len(), 1, "all got the same set");
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_at_100_ms_makes_the_next_request_a_hit() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let token = pod(&sandbox, "app-0").token.clone();
    sandbox.faults().set([slow(700)]);
    let leaving = Request::credentials(&token).open(agent.address()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(leaving);
    eventually("the call came back", async || eks_auth_calls(&sandbox).iter().any(|c| c.status == Some(200)))
        .await;
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Refuse)]);
    let before = tokio::time::Instant::now();
    assert_eq!(agent.ask(&token).await.status, 200);
    assert!(before.elapsed() < Duration::from_millis(300), "it was a hit: {:?}", before.elapsed());
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
    let metrics = agent.metrics().await;
    assert!(metrics.contains(r#"pod_identity_agent_requests_total{outcome="cancelled"} 1"#), "{metrics}");
}

#[tokio::test]
async fn two_pods_and_two_tokens_never_share_a_set() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let mut one = pod(&sandbox, "app-1");
    let other = pod(&sandbox, "app-2");
    let first = agent.ask(&one.token).await.access_key_id();
    assert_ne!(first, agent.ask(&other.token).await.access_key_id());
    assert_eq!(first, agent.ask(&one.token).await.access_key_id());
    // The claims of this one say it is pod app-1; its signature does not. What is held for app-1 is not for
    // it.
    let (head_and_claims, signature) = one.token.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().rev().collect();
    let forged = agent.ask(&format!("{head_and_claims}.{flipped}")).await;
    assert_eq!((forged.status, forged.reason.as_str()), (400, "InvalidTokenException"));
    one.rotate_token().unwrap();
    assert_eq!(agent.ask(&one.token).await.status, 200);
}

#[tokio::test]
async fn without_retention_nothing_is_kept() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).flag("--max-cache-size", "0").start().await;
    let token = pod(&sandbox, "app-0").token.clone();
    assert_ne!(agent.ask(&token).await.access_key_id(), agent.ask(&token).await.access_key_id());
    assert_eq!(eks_auth_calls(&sandbox).len(), 2);
}
