//! One who asks as much as it can, with tokens that are none, and what the others get meanwhile.
//!
//! Here and not beside the other adversaries, because the others' time is judged.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sandbox::{Effect, Fault, Pod, PodSpec, Service};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::ONE_AT_A_TIME;
use super::pods::{AT, alone, verifying};
use super::resident_kib;
use crate::adversary::{encode, parts};
use crate::harness::{Agent, Builder, IPV4, Load, Request, Wired, eks_auth_calls, heal, pod, sandbox};
use crate::node::pods_with_credentials;

/// Unverified calls of one pod a second (docs/design/decisions.md#fairness).
const SHARE: usize = 8;

/// A token of a key that nobody has heard of.
fn of_unknown_key(victim: &Pod, n: usize) -> String {
    let (mut header, claims) = parts(&victim.token);
    header["kid"] = format!("{n:040x}").into();
    let signature = victim.token.rsplit_once('.').unwrap().1;
    format!("{}.{}.{signature}", encode(&header), encode(&claims))
}

/// The token of a pod with another signature, a different one for each `n`, as far as the key says.
fn forged(victim: &Pod, n: usize) -> String {
    let (head_and_claims, signature) = victim.token.rsplit_once('.').unwrap();
    format!("{head_and_claims}.{n:08x}{}", &signature[8..])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_key_ids_asks_the_issuer_at_its_rate_and_aws_never() {
    let sandbox = sandbox();
    let _alone = ONE_AT_A_TIME.lock().await;
    let agent = Builder::verifying(&sandbox).flag("--token-verification", "required").start().await;
    let victim = pod(&sandbox, "victim");
    let held = agent.ask(&victim.token).await.access_key_id();
    sandbox.reset_calls();
    let started = Instant::now();
    let mut flood = JoinSet::new();
    for n in 0..2_000 {
        let request =
            Request::credentials(&of_unknown_key(&victim, n)).from(Ipv4Addr::new(127, 0, 0, 9).into());
        let to = agent.address();
        flood.spawn(async move { request.send(to).await.map(|answer| answer.status) });
        if n % 100 == 0 {
            let before = Instant::now();
            assert_eq!(agent.ask(&victim.token).await.access_key_id(), held);
            assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
        }
    }
    let statuses = flood.join_all().await;
    let answered: Vec<_> = statuses.iter().flatten().collect();
    assert!(answered.len() >= 1_800, "{} of 2,000 had an answer", answered.len());
    assert!(
        answered.iter().all(|status| **status == 503),
        "could not verify is not refused, and not allowed"
    );
    let asked = sandbox.calls_of(Service::Issuer).len();
    // Loopback is the host, whose rate is eight in ten seconds, and never two in one.
    let allowed = 1 + started.elapsed().as_secs().min(8);
    assert!(asked >= 1 && asked <= usize::try_from(allowed).unwrap(), "{asked} in {:?}", started.elapsed());
    assert_eq!(eks_auth_calls(&sandbox).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_floods_does_not_keep_others_waiting() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let quiet = pod(&sandbox, "quiet").token.clone();
    assert_eq!(agent.ask(&quiet).await.status, 200);
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Hang)]);
    // Another peer holds all that it may, and tries for more.
    let noisy = sandbox.pod(PodSpec { pod: "noisy".to_owned(), ..PodSpec::default() }).unwrap().token.clone();
    let mut flood = JoinSet::new();
    for _ in 0..600 {
        let request = Request::credentials(&noisy).from(Ipv4Addr::new(127, 0, 0, 9).into());
        let to = agent.address();
        flood.spawn(async move { request.send(to).await.map(|answer| answer.status) });
    }
    sleep(Duration::from_millis(300)).await;
    for _ in 0..20 {
        let before = Instant::now();
        assert_eq!(agent.ask(&quiet).await.status, 200);
        assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
    }
    flood.abort_all();
    heal(&sandbox);
}

#[test]
fn a_pod_with_rubbish_for_tokens_gets_eight_calls_a_second_out_of_us_and_others_are_served() {
    alone(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let _agent = Builder::on_a_node(&sandbox).start().await;
        let others = pods_with_credentials(node, &sandbox, 2, IPV4).await;
        let rubbish = node.pod(&sandbox);
        let (head_and_claims, signature) = rubbish.identity.token.rsplit_once('.').unwrap();
        let (head_and_claims, signature) = (head_and_claims.to_owned(), signature.to_owned());
        sandbox.reset_calls();
        let began = Instant::now();
        let flood = rubbish.namespace.within(async move || {
            let mut clients = JoinSet::new();
            for client in 0..40 {
                let (head_and_claims, signature) = (head_and_claims.clone(), signature.clone());
                clients.spawn(async move {
                    for n in 0.. {
                        let token = format!("{head_and_claims}.{client:04x}{n:04x}{}", &signature[8..]);
                        if began.elapsed() > Duration::from_secs(3) {
                            return n;
                        }
                        let request = Request::credentials(&token);
                        let patience = Duration::from_secs(2);
                        let _any = timeout(patience, request.send(SocketAddr::new(IPV4, 80))).await;
                    }
                    0
                });
            }
            clients.join_all().await.into_iter().sum::<usize>()
        });
        let asking = async {
            while began.elapsed() < Duration::from_secs(3) {
                for pod in &others {
                    assert_eq!(pod.ask(IPV4).await.unwrap().status, 200);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let (sent, ()) = tokio::join!(flood, asking);
        let (calls, lasted) = (eks_auth_calls(&sandbox).len(), began.elapsed());
        let most = SHARE * (2 + usize::try_from(lasted.as_secs()).unwrap());
        assert!(sent > most, "{sent} sent: that is no flood");
        assert!(calls >= SHARE && calls <= most, "{calls} calls in {lasted:?}, {most} allowed");
    });
}

/// So many tokens, each another one, so many at once.
const FORGED: usize = 5_000;
const AT_ONCE: usize = 64;

/// Sends every token from one pod. What came of each: a status, or nothing in time.
async fn send_all(from: &Wired, tokens: Vec<String>, patience: Duration) -> Vec<Option<u16>> {
    let clients = from.namespace.within(async move || {
        let tokens = std::sync::Arc::new(parking_lot::Mutex::new(tokens));
        let mut clients = JoinSet::new();
        for _ in 0..AT_ONCE {
            let tokens = std::sync::Arc::clone(&tokens);
            clients.spawn(async move {
                let mut got = Vec::new();
                loop {
                    let Some(token) = tokens.lock().pop() else { return got };
                    let answer = timeout(patience, Request::credentials(&token).send(AT)).await;
                    got.push(answer.ok().and_then(Result::ok).map(|answer| answer.status));
                }
            });
        }
        clients.join_all().await.into_iter().flatten().collect()
    });
    clients.await
}

/// 5,000 forged tokens from one pod. Whatever they are, pods with credentials and pods without are served as
/// ever, and the agent's memory is bounded. How many calls AWS had for them, and how long it took.
fn five_thousand(
    token: fn(&Pod, usize) -> String,
    patience: Duration,
    judge: impl Fn(&[Option<u16>], usize, Duration) + Send + 'static,
) {
    alone(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let agent = verifying(&sandbox).start().await;
        let honest = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let (attacker, newcomer) = (node.pod(&sandbox), node.pod(&sandbox));
        let tokens = (0..FORGED).map(|n| token(&attacker.identity, n)).collect();
        let memory = resident_kib(&agent);
        sandbox.reset_calls();
        let load = Load::rotating(&honest, IPV4, 10);
        let began = Instant::now();
        let asked_anew = async {
            sleep(Duration::from_millis(500)).await;
            let before = Instant::now();
            (newcomer.ask(IPV4).await.unwrap().status, before.elapsed())
        };
        let (got, (status, took)) = tokio::join!(send_all(&attacker, tokens, patience), asked_anew);
        let lasted = began.elapsed();
        let grown = resident_kib(&agent).saturating_sub(memory) / 1024;
        let report = load.end().await;
        // All but the newcomer's.
        let calls = eks_auth_calls(&sandbox).len() - 1;
        let keys = sandbox.calls_of(Service::Issuer).len();
        let slowest = report.slowest();
        eprintln!(
            "{lasted:?}: {} answered, {calls} calls, keys read {keys} times, {grown} MiB more, \
             slowest {slowest:?}, newcomer {took:?}",
            got.iter().flatten().count()
        );
        assert_eq!(got.len(), FORGED);
        report.assert_unhurt_but_in(&[]);
        report.assert_one_key_per_pod();
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
        assert!(status == 200 && took < Duration::from_secs(1), "{status} after {took:?}");
        assert!(grown < 16, "{grown} MiB more");
        // A peer has the keys read again once in ten seconds.
        assert!(keys <= 2 + usize::try_from(lasted.as_secs()).unwrap() / 10, "{keys} in {lasted:?}");
        judge(&got, calls, lasted);
    });
}

#[test]
fn five_thousand_forgeries_of_one_pod_are_refused_one_by_one_and_never_leave_the_node() {
    five_thousand(forged, Duration::from_secs(2), |got, calls, _| {
        let refused = got.iter().filter(|status| **status == Some(400)).count();
        assert_eq!((refused, calls), (FORGED, 0));
    });
}

#[test]
fn five_thousand_tokens_of_unknown_keys_with_clients_that_leave_get_eight_calls_a_second_out_of_us() {
    five_thousand(of_unknown_key, Duration::from_millis(50), |_, calls, lasted| {
        let most = SHARE * (2 + usize::try_from(lasted.as_secs()).unwrap());
        assert!(calls >= SHARE && calls <= most, "{calls} calls in {lasted:?}, {most} allowed");
    });
}
