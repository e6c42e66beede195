//! What connections to AWS, to the metadata service and to the issuer do: they end, hang, come in pieces.
//!
//! One table over every effect that the sandbox has. Whatever is in the way, a request is answered within
//! the hold, whoever holds credentials does not notice, and what comes after it is as if it had never been.

use std::time::Duration;

use sandbox::{Effect, Fault, Options, Sandbox, Service};
use tokio::time::Instant;

use crate::harness::{
    Agent, Builder, Delays, Middlebox, as_boto3, eks_auth_calls, eventually, failing, heal, pod, side_by_side,
};

/// The Rust SDK gives up after 5 s: by then there is an answer, good or not.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Where AWS was silent, the repetition of a call has this long; nothing is called beside it.
const REPETITION: Duration = Duration::from_secs(10);

/// What an effect means for a pod that has nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is served, perhaps a little later.
    Served,
    /// It is held, and then told that AWS is not there.
    Unavailable,
    /// AWS has refused it.
    Refused,
}

/// Every effect, in some of its shapes. One that is new does not compile before it has its place here.
fn table() -> Vec<(Effect, Outcome)> {
    use Outcome::{Refused, Served, Unavailable};
    let proxy = |status| Effect::ProxyError { status };
    let close = |answers, announced| Effect::CloseAfter { answers, announced };
    let effects = vec![
        Effect::Latency { ms: 300, jitter_ms: 100 },
        failing(503, "ServiceUnavailableException"),
        failing(400, "AccessDeniedException"),
        Effect::Throttle { max_concurrent: 0 },
        proxy(200),
        proxy(302),
        proxy(403),
        proxy(407),
        proxy(502),
        Effect::Refuse,
        Effect::HangInAccept,
        Effect::HangInTls,
        close(1, true),
        close(1, false),
        close(2, false),
        Effect::Pieces { bytes: 7, pause_ms: 0 },
        Effect::Pieces { bytes: 100, pause_ms: 20 },
        Effect::Pieces { bytes: 10, pause_ms: 200 },
        Effect::ResetMidBody,
        Effect::Hang,
        Effect::BadJson,
        Effect::Padded { mib: 1 },
        Effect::Endless { pause_ms: 100 },
        Effect::NoDate,
        Effect::DateSkew { seconds: -240 },
    ];
    let outcome = |effect: &Effect| match effect {
        Effect::Latency { .. } | Effect::CloseAfter { .. } | Effect::NoDate | Effect::DateSkew { .. } => {
            Served
        }
        Effect::Pieces { bytes, pause_ms } => {
            // An answer has some 2.5 KB.
            let takes = 2_500 / u64::try_from(*bytes).expect("few") * pause_ms;
            if takes < 2_000 { Served } else { Unavailable }
        }
        Effect::Status { status: 400, .. } => Refused,
        Effect::Status { .. }
        | Effect::Throttle { .. }
        | Effect::ProxyError { .. }
        | Effect::Refuse
        | Effect::HangInAccept
        | Effect::HangInTls
        | Effect::ResetMidBody
        | Effect::Hang
        | Effect::BadJson
        | Effect::Padded { .. }
        | Effect::Endless { .. } => Unavailable,
    };
    effects.into_iter().map(|effect| (effect.clone(), outcome(&effect))).collect()
}

/// Runs a test for every effect, a few at a time: each has a sandbox and an agent.
fn for_each_effect<F: Future<Output = ()>>(test: impl Fn(Effect, Outcome) -> F + Sync) {
    side_by_side(10, table(), |(effect, outcome)| test(effect, outcome));
}

fn with_tls() -> Sandbox {
    Sandbox::start(Options { tls: true, ..Options::default() }).expect("the sandbox starts")
}

fn over_https(sandbox: &Sandbox) -> Builder {
    Builder::new(sandbox)
        .flag("--verbosity", "info")
        .flag("--endpoint", sandbox.eks_auth_tls_url().expect("https"))
        .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().expect("UTF-8"))
}

/// Asks once; the answer's status and how long it took.
async fn asked(agent: &Agent, token: &str) -> (u16, Duration) {
    let began = Instant::now();
    (agent.ask(token).await.status, began.elapsed())
}

async fn of_eks_auth(effect: Effect, outcome: Outcome) {
    let sandbox = with_tls();
    // One agent whose connections are all new, and one that has made some while all was well.
    for used in [false, true] {
        let what = format!("{effect:?}, used connections: {used}");
        let agent = over_https(&sandbox).start().await;
        let held = pod(&sandbox, "held").token;
        if used {
            assert_eq!(agent.ask(&held).await.status, 200);
        }
        sandbox.faults().set([Fault::new(Service::EksAuth, effect.clone())]);
        let new = pod(&sandbox, "new").token;
        let (status, took) = asked(&agent, &new).await;
        assert!(took < ANSWERED_WITHIN, "{what}: {took:?}");
        // A connection that is there needs no handshake, and nobody has to accept it.
        let spares_used = matches!(effect, Effect::HangInAccept | Effect::HangInTls) && used;
        let right = match outcome {
            Outcome::Served => status == 200,
            Outcome::Unavailable => status == 503 || (spares_used && status == 200),
            Outcome::Refused => (400..500).contains(&status),
        };
        assert!(right, "{what}: {outcome:?} and {status}: {}", agent.log());
        if used {
            let (status, took) = asked(&agent, &held).await;
            assert!(status == 200 && took < Duration::from_millis(310), "{what}: {status} after {took:?}");
        }
        assert_eq!(agent.probe("/healthz").await.unwrap().status, 200, "{what}");
        heal(&sandbox);
        let healed = Instant::now();
        while let Err(failures) = as_boto3(&new, agent.address()).await {
            assert!(healed.elapsed() < REPETITION, "{what}: when it is over: {failures:?}");
        }
        let after = healed.elapsed();
        let is_silent = matches!(
            effect,
            Effect::Hang | Effect::Endless { .. } | Effect::Pieces { .. } | Effect::HangInAccept
        );
        let within = if is_silent { REPETITION + ANSWERED_WITHIN } else { ANSWERED_WITHIN };
        assert!(after < within, "{what}: {after:?}");
        // And nothing is left of it.
        let (status, took) = asked(&agent, &pod(&sandbox, "after").token).await;
        assert!(status == 200 && took < Duration::from_secs(1), "{what}: {status} after {took:?}");
    }
}

#[test]
fn whatever_happens_to_connections_to_eks_auth_pods_are_answered_in_time_and_served_when_it_is_over() {
    for_each_effect(of_eks_auth);
}

/// So long the metadata service is in trouble: two attempts, each for token, role and credentials, fit in.
const TROUBLE: Duration = Duration::from_secs(3);

async fn of_imds(effect: Effect, _: Outcome) {
    if matches!(effect, Effect::Throttle { .. }) {
        return;
    }
    let what = format!("{effect:?}");
    let sandbox = with_tls();
    sandbox.faults().set([Fault::new(Service::Imds, effect)]);
    let agent = Builder::new(&sandbox).flag("--verbosity", "info").spawn();
    let token = pod(&sandbox, "app").token;
    tokio::time::sleep(TROUBLE).await;
    heal(&sandbox);
    let healed = Instant::now();
    // What hangs is given up after 3 s, and what was asked for next may hang as well.
    agent.until_ready().await;
    println!("{what}: ready {:?} after the metadata service was well", healed.elapsed());
    if let Err(failures) = as_boto3(&token, agent.address()).await {
        panic!("{what}: {failures:?}");
    }
}

#[test]
fn whatever_happens_to_connections_to_the_metadata_service_the_agent_is_ready_soon_after_it() {
    for_each_effect(of_imds);
}

async fn of_issuer(effect: Effect, _: Outcome) {
    if matches!(effect, Effect::Throttle { .. }) {
        return;
    }
    let what = format!("{effect:?}");
    let sandbox = with_tls();
    sandbox.faults().set([Fault::new(Service::Issuer, effect)]);
    let agent = Builder::verifying(&sandbox)
        .flag("--verbosity", "info")
        .flag("--jwks", &sandbox.jwks_tls_url().expect("https"))
        .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().expect("UTF-8"))
        .start()
        .await;
    let mut app = pod(&sandbox, "app");
    let (status, took) = asked(&agent, &app.token).await;
    assert!(status == 200 && took < Duration::from_secs(2), "{what}: {status} after {took:?}: AWS judges");
    heal(&sandbox);
    eventually(&what, async || agent.metric("pod_identity_agent_token_keys").await == 1).await;
    let key = agent.ask(&app.token).await.access_key_id();
    app.rotate_token().unwrap();
    assert_eq!(agent.ask(&app.token).await.access_key_id(), key, "{what}: it is verified");
    assert_eq!(eks_auth_calls(&sandbox).len(), 1, "{what}");
}

#[test]
fn whatever_happens_to_connections_to_the_issuer_pods_are_served_and_verified_when_it_is_over() {
    for_each_effect(of_issuer);
}

#[tokio::test]
async fn a_proxy_that_hangs_in_connect_holds_pods_for_the_hold_and_is_forgotten_when_it_is_over() {
    let sandbox = with_tls();
    let to = sandbox.eks_auth_tls_url().and_then(|url| url.rsplit('/').next()?.parse().ok()).expect("https");
    let never = Delays { connect: Duration::from_secs(3600), ..Delays::default() };
    let proxy = Middlebox::proxy(to, never).await;
    let agent = Builder::new(&sandbox)
        .flag("--verbosity", "info")
        .without("--endpoint")
        .env("HTTPS_PROXY", &format!("http://{}", proxy.address))
        .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().expect("UTF-8"))
        .start()
        .await;
    let token = pod(&sandbox, "app-0").token;
    for _ in 0..2 {
        let (status, took) = asked(&agent, &token).await;
        assert!(status == 503 && took < ANSWERED_WITHIN, "{status} after {took:?}");
    }
    proxy.set(Delays::default());
    let healed = Instant::now();
    assert!(as_boto3(&token, agent.address()).await.is_ok());
    assert!(healed.elapsed() < ANSWERED_WITHIN, "{:?}", healed.elapsed());
    assert_eq!(eks_auth_calls(&sandbox).len(), 1, "what hung comes to nothing");
}

/// One call after another on connections that end under them: no call is lost by it, and none made twice.
#[tokio::test]
async fn connections_that_end_after_every_answer_or_two_cost_no_call() {
    for (answers, announced) in [(1, true), (1, false), (2, true), (2, false), (3, false)] {
        let sandbox = with_tls();
        let agent = over_https(&sandbox).start().await;
        sandbox.faults().set([Fault::new(Service::EksAuth, Effect::CloseAfter { answers, announced })]);
        for index in 0..12 {
            let began = Instant::now();
            let answer = agent.ask(&pod(&sandbox, &format!("app-{index}")).token).await;
            assert_eq!(answer.status, 200, "{answers}, {announced}: {answer:?}");
            assert!(
                began.elapsed() < Duration::from_secs(2),
                "{answers}, {announced}: {:?}",
                began.elapsed()
            );
            // At every place before, within and behind the moment of the end.
            tokio::time::sleep(Duration::from_millis(index * 4)).await;
        }
        assert_eq!(eks_auth_calls(&sandbox).len(), 12, "{answers}, {announced}");
    }
}
