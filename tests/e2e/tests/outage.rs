//! AWS fails: invariants 3 and 7, over real sockets. The long outages are simulated in the agent's own tests.

use std::time::Duration;

use sandbox::{Effect, Fault, Options, Sandbox, Service};
use tokio::time::Instant;

use crate::harness::{Agent, Builder, eks_auth_calls, eventually, failing, heal, pod, sandbox, side_by_side};
use crate::web_identity;

/// How often a fault may be met; what is left of it tells how often it was.
const OFTEN: u64 = 1_000_000;
/// The promise: a renewal that AWS would grant comes so soon after its return.
const RENEWED_WITHIN: Duration = Duration::from_secs(5);
/// After the third failure in a row the pause of one identity is 20 s at most.
const BY_ITSELF: Duration = Duration::from_secs(20 + 1);
/// A renewal that nobody waits for is given up after this time, and nothing is called beside it.
const ONE_CALL: Duration = Duration::from_secs(10);
/// What an answer from memory may take, a wait for the renewal included.
const FROM_MEMORY: Duration = Duration::from_millis(310);

#[test]
fn whoever_holds_credentials_does_not_notice_that_aws_is_gone_and_has_new_ones_5_s_after_its_return() {
    let effects = [
        Effect::Refuse,
        Effect::Hang,
        Effect::ResetMidBody,
        Effect::BadJson,
        Effect::ProxyError { status: 403 },
        failing(503, "ServiceUnavailableException"),
        failing(429, "ThrottlingException"),
        failing(400, "AccessDeniedException"),
        failing(400, "BadRequest"),
        failing(403, "UnrecognizedClientException"),
    ];
    side_by_side(effects.len(), effects, async |effect| held_through(Service::EksAuth, effect).await);
}

#[test]
fn a_pod_with_a_role_does_not_notice_that_sts_is_gone_and_has_a_new_set_5_s_after_its_return() {
    let effects = [
        Effect::Refuse,
        Effect::Hang,
        Effect::ResetMidBody,
        Effect::BadJson,
        Effect::ProxyError { status: 403 },
        failing(503, "ServiceUnavailable"),
        failing(400, "Throttling"),
        failing(400, "IDPCommunicationError"),
        failing(403, "AccessDenied"),
    ];
    side_by_side(effects.len(), effects, async |effect| held_through(Service::Sts, effect).await);
}

/// An agent of which pods have their credentials from this service.
fn agent_of(service: Service, sandbox: &Sandbox) -> Builder {
    if service == Service::Sts {
        web_identity::trust_app(sandbox);
        web_identity::mapping(sandbox, &web_identity::map_of(web_identity::READER))
    } else {
        Builder::new(sandbox)
    }
}

fn token_for(service: Service, sandbox: &Sandbox, name: &str) -> String {
    let of_service = if service == Service::Sts { web_identity::pod } else { pod };
    of_service(sandbox, name).token
}

/// Sets are renewed as soon as they come, so that AWS is called while it fails.
async fn held_through(service: Service, effect: Effect) {
    let credential_lifetime = Duration::from_secs(15 * 60);
    let sandbox = Sandbox::start(Options { credential_lifetime, ..Options::default() }).unwrap();
    let retention = "--max-credential-retention-before-renewal";
    let builder = agent_of(service, &sandbox).flag(retention, "2s");
    let agent = builder.flag("--verbosity", "info").start().await;
    let token = token_for(service, &sandbox, "app-0");
    sandbox.faults().set([Fault::new(service, Effect::Latency { ms: 100, jitter_ms: 0 })]);
    assert_eq!(agent.ask(&token).await.status, 200);
    sandbox
        .faults()
        .set([Fault::new(service, effect.clone()).times(OFTEN), Fault::new(Service::Imds, Effect::Refuse)]);
    let seen = || {
        let left = sandbox.faults().list().iter().find(|fault| fault.effect == effect).and_then(|f| f.count);
        OFTEN - left.expect("it is in force")
    };
    let ask = async || {
        let began = Instant::now();
        let key = agent.ask(&token).await.access_key_id();
        assert!(began.elapsed() < FROM_MEMORY, "{effect:?}: {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
        key
    };
    // What was under way when it began to fail.
    let held = loop {
        let key = ask().await;
        if seen() > 0 {
            break key;
        }
    };
    let began = Instant::now();
    while seen() < 3 {
        assert_eq!(ask().await, held, "{effect:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{effect:?}: {} calls", seen());
    }
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200, "the health of EKS Auth is not readiness");
    heal(&sandbox);
    let healed = Instant::now();
    // AWS is back when it answers anybody.
    let newcomer = token_for(service, &sandbox, "new");
    assert_eq!(agent.ask(&newcomer).await.status, 200, "{effect:?}");
    while ask().await == held {
        assert!(healed.elapsed() < BY_ITSELF + ONE_CALL, "{effect:?}: not renewed");
    }
    let after = healed.elapsed();
    println!("{effect:?}: renewed {after:?} after AWS was back");
    // AWS has answered all the time, and meant this pod, or less of everything.
    let meant = ["ThrottlingException", "Throttling", "AccessDeniedException", "AccessDenied"];
    let is_meant = matches!(&effect, Effect::Status { code, .. } if meant.contains(&&**code));
    let within = if effect == Effect::Hang {
        ONE_CALL + RENEWED_WITHIN
    } else if is_meant {
        BY_ITSELF
    } else {
        RENEWED_WITHIN
    };
    assert!(after < within, "{effect:?}: {after:?}");
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
