//! Sets grow old over real sockets: renewals, ends, and the margins that no client may find broken.
//!
//! The promise is about twenty pods with sets of a minute over three minutes; `make nightly` has these
//! numbers. Each change has sets of 40 s and one renewal less.

use std::time::Duration;

use sandbox::{Effect, Fault, Options, Sandbox, Service};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{Agent, Builder, Request, attempt, eks_auth_calls, is_nightly, left, pod};

const PODS: usize = 20;
/// What a request signed at the last moment may need to arrive.
const MARGIN: Duration = Duration::from_secs(15);
/// Between two requests of a pod.
const PACE: Duration = Duration::from_millis(250);

/// How long sets live, and how long they are asked for.
fn spans() -> (Duration, Duration) {
    let seconds = if is_nightly() { (60, 180) } else { (40, 55) };
    (Duration::from_secs(seconds.0), Duration::from_secs(seconds.1))
}

fn sandbox_of(life: Duration) -> Sandbox {
    Sandbox::start(Options { credential_lifetime: life, ..Options::default() }).expect("the sandbox starts")
}

/// What one pod got.
#[derive(Default)]
struct Got {
    keys: Vec<String>,
    least_left: Option<Duration>,
    slowest: Duration,
}

/// Asks on and on; every single request must be served.
async fn ask_until(end: Instant, token: String, agent: std::net::SocketAddr) -> Got {
    let request = Request::credentials(&token);
    let mut got = Got::default();
    while Instant::now() < end {
        let next = Instant::now() + PACE;
        let began = Instant::now();
        let answer = attempt(&request, agent).await.expect("an answer within 2 s");
        let took = began.elapsed();
        got.slowest = got.slowest.max(took);
        let key = answer.access_key_id();
        if got.keys.last() != Some(&key) {
            got.keys.push(key);
        }
        // When it was asked for: what the way takes is not the agent's.
        let left = left(&answer) + took;
        got.least_left = Some(got.least_left.map_or(left, |least| least.min(left)));
        sleep_until(next).await;
    }
    got
}

#[tokio::test]
async fn twenty_pods_are_served_sets_with_15_s_left_or_more_while_these_are_renewed_again_and_again() {
    let (life, load) = spans();
    let sandbox = sandbox_of(life);
    let agent = Builder::new(&sandbox).flag("--verbosity", "info").start().await;
    let (mut asking, end) = (JoinSet::new(), Instant::now() + load);
    for index in 0..PODS {
        let token = pod(&sandbox, &format!("app-{index}")).token;
        asking.spawn(ask_until(end, token, agent.address()));
    }
    let got = asking.join_all().await;
    // Each is renewed by half its life, and not before a tenth less of it.
    let (fewest, most) = (load.div_duration_f64(life / 2), load.div_duration_f64(life.mul_f64(0.4)));
    for pod in &got {
        let least = pod.least_left.expect("it asked");
        assert!(least >= MARGIN, "{least:?} left");
        let generations = pod.keys.len();
        assert!(generations as f64 >= fewest.floor(), "{generations} sets in {load:?}");
        assert!(generations as f64 <= most.ceil() + 1.0, "{generations} sets in {load:?}");
    }
    let distinct: std::collections::BTreeSet<_> = got.iter().flat_map(|pod| &pod.keys).collect();
    let all: usize = got.iter().map(|pod| pod.keys.len()).sum();
    assert_eq!(distinct.len(), all, "two pods share a set, or one came back");
    // The last of each may have come after its last request.
    let calls = eks_auth_calls(&sandbox).len();
    assert!((all..=all + PODS).contains(&calls), "{calls} calls for {all} sets");
    let slowest = got.iter().map(|pod| pod.slowest).max().expect("pods");
    println!("{all} sets; the slowest answer took {slowest:?}");
}

#[tokio::test]
async fn when_aws_is_gone_answers_end_15_to_16_s_before_the_set_does() {
    let (life, _) = spans();
    let sandbox = sandbox_of(life);
    let agent = Agent::start(&sandbox).await;
    let mut asking = JoinSet::new();
    let tokens: Vec<_> = (0..PODS).map(|index| pod(&sandbox, &format!("app-{index}")).token).collect();
    for token in &tokens {
        assert_eq!(agent.ask(token).await.status, 200);
    }
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Refuse)]);
    for token in tokens {
        let (request, agent) = (Request::credentials(&token), agent.address());
        asking.spawn(async move {
            let mut last = None;
            loop {
                let began = Instant::now();
                let answer = request.send(agent).await.expect("an answer");
                if answer.status != 200 {
                    return (last.expect("it was served"), answer.status);
                }
                last = Some(left(&answer) + began.elapsed());
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
    for (left, status) in asking.join_all().await {
        assert!((MARGIN..MARGIN + Duration::from_secs(1)).contains(&left), "the last had {left:?} left");
        assert_eq!(status, 503, "and no blame for the pod");
    }
}
