//! The node's clock is off: AWS, the control plane and the metadata service agree on another time.
//!
//! To the agent it is one and the same whether its own clock is wrong or theirs; so theirs is moved.

use std::time::Duration;

use sandbox::{Options, Pod, Sandbox, Service};
use tokio::time::Instant;

use crate::harness::{
    Agent, Answer, Builder, as_boto3, eks_auth_calls, eventually, expiration, pod, side_by_side,
};

const HOUR: i64 = 3600;
/// Behind, ahead, and so far off that SigV4 refuses and that what was issued looks lapsed or is long over.
const OFFSETS: [i64; 6] = [0, -90, 90, 600, 25 * HOUR, -25 * HOUR];
/// What sets live.
const LIFE: Duration = Duration::from_secs(6 * 3600);

fn sandbox_ahead_by(clock_ahead: i64) -> Sandbox {
    Sandbox::start(Options { clock_ahead, tls: true, ..Options::default() }).expect("the sandbox starts")
}

async fn ask(agent: &Agent, pod: &Pod, what: &str) -> Answer {
    as_boto3(&pod.token, agent.address()).await.unwrap_or_else(|failures| panic!("{what}: {failures:?}"))
}

/// What is served is what AWS issued: of its full life, and to come by AWS's clock.
fn assert_lives(sandbox: &Sandbox, answer: &Answer, what: &str) {
    let left = expiration(answer).duration_since(sandbox.now());
    let left = left.unwrap_or_else(|_| panic!("{what}: it is over: {answer:?}"));
    assert!(left <= LIFE && left > LIFE - Duration::from_secs(30), "{what}: {left:?} left");
}

/// All offsets at once: most of it is waiting.
fn at_every_offset<F: Future<Output = ()>>(test: impl Fn(i64) -> F + Sync) {
    side_by_side(OFFSETS.len(), OFFSETS, test);
}

async fn serves_at(offset: i64, verification: &str) {
    let what = format!("{offset} s, {verification}");
    let sandbox = sandbox_ahead_by(offset);
    // Over https, so that certificates are judged too.
    let agent = Builder::verifying(&sandbox)
        .flag("--token-verification", verification)
        .flag("--verbosity", "info")
        .flag("--endpoint", sandbox.eks_auth_tls_url().expect("https"))
        .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().expect("UTF-8"))
        .start()
        .await;
    for name in ["app-0", "app-1", "app-2"] {
        let app = pod(&sandbox, name);
        let first = ask(&agent, &app, &what).await;
        assert_lives(&sandbox, &first, &what);
        let again = ask(&agent, &app, &what).await;
        assert_eq!(again.access_key_id(), first.access_key_id(), "{what}: it is kept");
    }
    let calls = eks_auth_calls(&sandbox);
    let served = calls.iter().filter(|call| call.status == Some(200)).count();
    // One for each; while the time is not agreed on, a few more are asked for its sake.
    assert!((3..=6).contains(&served) && calls.len() <= 8, "{what}: {calls:?}");
    // Signed by AWS's time from the first answer on.
    assert!(calls.len() - served <= 2, "{what}: {calls:?}");
    eventually("the offset is shown", async || {
        let page = agent.metrics().await;
        let line =
            page.lines().find_map(|line| line.strip_prefix("pod_identity_agent_clock_offset_seconds "));
        let shown: f64 = line.expect("the series").parse().expect("a number");
        (shown - offset as f64).abs() < 3.0
    })
    .await;
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200, "{what}");
}

#[test]
fn a_node_whose_clock_is_off_by_seconds_or_by_days_serves_new_pods_and_says_so() {
    at_every_offset(|offset| serves_at(offset, "auto"));
}

#[test]
fn so_does_one_that_must_verify_tokens_which_look_expired_or_of_tomorrow() {
    at_every_offset(|offset| serves_at(offset, "required"));
}

/// A hypervisor pauses the machine, and neither of its clocks has seen it. Sets, tokens, the node's own
/// credentials and its session with the metadata service have aged by that.
async fn paused_for(seconds: i64) {
    let what = format!("paused for {seconds} s");
    let sandbox = sandbox_ahead_by(0);
    let agent = Builder::verifying(&sandbox).flag("--verbosity", "info").start().await;
    let mut pods: Vec<_> = (0..3).map(|index| pod(&sandbox, &format!("app-{index}"))).collect();
    for app in &pods {
        ask(&agent, app, &what).await;
    }
    sandbox.set_clock_ahead(seconds);
    let resumed = Instant::now();
    for app in &mut pods {
        // The kubelet sees that the old one is over, as soon as it runs again.
        app.rotate_token().expect("a token");
        let answer = ask(&agent, app, &what).await;
        let left = expiration(&answer).duration_since(sandbox.now());
        assert!(left.is_ok_and(|left| left >= Duration::from_secs(15)), "{what}: served what is over");
    }
    let new = ask(&agent, &pod(&sandbox, "new"), &what).await;
    assert_lives(&sandbox, &new, &what);
    println!("{what}: all had good sets {:?} after it", resumed.elapsed());
    // Of the node's own credentials too there are new ones.
    assert!(!sandbox.calls_of(Service::Imds).is_empty());
}

#[test]
fn after_a_pause_that_no_clock_of_the_node_has_seen_nothing_is_served_that_is_over() {
    side_by_side(3, [600, 7 * HOUR, 25 * HOUR], paused_for);
}
