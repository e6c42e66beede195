//! AWS fails: invariants 3 and 7, over real sockets. The long outages are simulated in the agent's own tests.

use sandbox::{Effect, Fault, Service};
use std::time::Duration;

use crate::harness::{Agent, eks_auth_calls, eventually, failing, heal, pod, sandbox};

#[tokio::test]
async fn whoever_holds_credentials_does_not_notice_that_aws_is_gone() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let token = pod(&sandbox, "app-0").token.clone();
    let held = agent.ask(&token).await.access_key_id();
    for effect in [
        Effect::Refuse,
        Effect::Hang,
        Effect::ResetMidBody,
        Effect::BadJson,
        failing(503, "ServiceUnavailableException"),
        failing(429, "ThrottlingException"),
        failing(400, "AccessDeniedException"),
        failing(400, "BadRequest"),
        failing(403, "UnrecognizedClientException"),
    ] {
        sandbox
            .faults()
            .set([Fault::new(Service::EksAuth, effect.clone()), Fault::new(Service::Imds, Effect::Refuse)]);
        for _ in 0..20 {
            assert_eq!(agent.ask(&token).await.access_key_id(), held, "{effect:?}");
        }
    }
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200, "the health of EKS Auth is not readiness");
}

#[tokio::test]
async fn a_hiccup_is_held_through_whatever_it_is() {
    for effect in [
        Effect::Refuse,
        Effect::ResetMidBody,
        Effect::BadJson,
        failing(500, "InternalServerException"),
        failing(429, "ThrottlingException"),
        failing(400, "BadRequest"),
        failing(403, "ExpiredTokenException"),
    ] {
        let sandbox = sandbox();
        let agent = Agent::start(&sandbox).await;
        sandbox.faults().set([Fault::new(Service::EksAuth, effect.clone())]);
        let token = pod(&sandbox, "app-0").token.clone();
        let healing = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            heal(&sandbox);
        };
        let (answer, ()) = tokio::join!(agent.ask(&token), healing);
        assert_eq!(answer.status, 200, "{effect:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_agent_is_never_blamed_on_the_pod() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    for (index, code) in ["AccessDeniedException", "ExpiredTokenException", "InvalidSignatureException"]
        .into_iter()
        .enumerate()
    {
        sandbox.faults().set([Fault::new(Service::EksAuth, failing(403, code))]);
        let answer = agent.ask(&pod(&sandbox, &format!("app-{index}")).token).await;
        assert_eq!((answer.status, answer.reason.as_str()), (503, "ServiceUnavailableException"), "{code}");
        assert!(answer.body.contains("agent has no usable AWS credentials"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_off_by_minutes_is_corrected_by_what_aws_says() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    // Two minutes: within what SigV4 takes, far beyond what a 15 s margin would forgive.
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::DateSkew { seconds: 120 })]);
    // One answer might be wrong; two that agree are believed.
    for name in ["app-0", "app-1"] {
        assert_eq!(agent.ask(&pod(&sandbox, name).token).await.status, 200);
    }
    let metrics = agent.metrics().await;
    let off = metrics.lines().find_map(|line| line.strip_prefix("pod_identity_agent_clock_offset_seconds "));
    let off: f64 = off.expect("the series").parse().unwrap();
    assert!((118.0..122.0).contains(&off), "{off}");
    heal(&sandbox);
    for name in ["app-2", "app-3"] {
        assert_eq!(agent.ask(&pod(&sandbox, name).token).await.status, 200);
    }
    eventually("the correction is taken back", async || {
        agent.metrics().await.contains("pod_identity_agent_clock_offset_seconds 0.0\n")
    })
    .await;
    // One for each pod, and perhaps one more each time that an answer contradicted: the agent asks at once.
    assert!((4..=6).contains(&eks_auth_calls(&sandbox).len()));
}

#[tokio::test]
async fn the_metadata_service_tells_the_time_until_eks_auth_does() {
    let sandbox = sandbox();
    sandbox.faults().set([Fault::new(Service::Imds, Effect::DateSkew { seconds: 120 })]);
    let agent = Agent::start(&sandbox).await;
    let offset = async || {
        let page = agent.metrics().await;
        let line =
            page.lines().find_map(|line| line.strip_prefix("pod_identity_agent_clock_offset_seconds "));
        line.unwrap().parse::<f64>().unwrap()
    };
    eventually("the offset is known before any call", async || (118.0..122.0).contains(&offset().await))
        .await;
    assert!(eks_auth_calls(&sandbox).is_empty());
    for name in ["app-0", "app-1"] {
        assert_eq!(agent.ask(&pod(&sandbox, name).token).await.status, 200);
    }
    eventually("EKS Auth is believed", async || offset().await.abs() < 2.0).await;
}
