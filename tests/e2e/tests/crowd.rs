//! Many at once, and a few who mean harm: overload is survived, and one peer never slows another (invariants
//! 5 and 10).
//!
//! Here every pod calls from a loopback address of its own. Loopback is the node itself to the agent, so each
//! has eight times a pod's share; the numbers below reckon with that. In `pods` they call from addresses of
//! pods.
//! One test at a time: they measure.

mod busy_node;
mod floods;
mod pods;
mod restarts;
mod roles;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sandbox::{PodSpec, Sandbox, TokenSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::boto3::{attempts, served};
use crate::harness::{Agent, Builder, Request, eks_auth_calls, eventually, read_answer, sandbox};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The address of pod `n` in a range of its own for each kind of caller.
fn address(kind: u8, n: usize) -> IpAddr {
    let (high, low) = (u8::try_from(n / 250).unwrap(), u8::try_from(n % 250 + 1).unwrap());
    Ipv4Addr::new(127, kind, high, low).into()
}

fn token(sandbox: &Sandbox, name: &str) -> String {
    let pod = PodSpec { pod: name.to_owned(), ..PodSpec::default() };
    sandbox.token(&TokenSpec::new(pod)).unwrap()
}

/// An agent at its usual log level: these tests are about load, and trace is for the others.
fn builder(sandbox: &Sandbox) -> Builder {
    Builder::new(sandbox).flag("--verbosity", "info")
}

/// A connection from an address, with nothing sent.
async fn connect(to: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// Asks on a connection that stays open, and reads the answer.
async fn ask_and_stay(stream: &mut TcpStream, token: &str) -> std::io::Result<u16> {
    let request =
        format!("GET /v1/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::new();
    loop {
        let mut chunk = [0; 8192];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        read.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
            return Ok(head[9..12].parse().unwrap());
        }
    }
}

/// Asks so many times, one after the other, each on a new connection; all must be served. How long each took.
async fn time_of_hits(agent: &Agent, token: &str, count: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for n in 0..count {
        let before = Instant::now();
        let answer =
            Request::credentials(token).from(address(9, n % 50)).send(agent.address()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        took.push(before.elapsed());
    }
    took
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    percentile(&took, 99)
}

/// Of times in ascending order.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[sorted.len() * percent / 100]
}

fn resident_kib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How often a limit was reached.
async fn reached(agent: &Agent, limit: &str) -> u64 {
    let metrics = agent.metrics().await;
    let series = format!("pod_identity_agent_limit_reached_total{{limit=\"{limit}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {series} in\n{metrics}")).parse().unwrap()
}

/// Sends requests over and over from one address until told to stop; counts them.
fn flood(
    to: SocketAddr,
    clients: usize,
    from: IpAddr,
    token: impl Fn(usize) -> String + Clone + Send + 'static,
) -> (Arc<AtomicBool>, Arc<AtomicUsize>, JoinSet<()>) {
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (stop, sent, token) = (Arc::clone(&stop), Arc::clone(&sent), token.clone());
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let token = token(sent.fetch_add(1, Ordering::Relaxed));
                if let Ok(mut stream) = connect(to, from).await {
                    let _any = timeout(Duration::from_secs(6), ask_and_stay(&mut stream, &token)).await;
                }
            }
        });
    }
    (stop, sent, tasks)
}

/// The measure is what the others get of this agent while the same flood hits another agent on the same
/// machine: all that differs is whom the flood hits. (An idle machine would measure how two cores are shared
/// by three processes.)
#[tokio::test(flavor = "multi_thread")]
async fn one_peer_with_random_tokens_at_full_speed_slows_nobody_and_costs_little() {
    const ROUNDS: usize = 5;
    let _alone = ONE_AT_A_TIME.lock().await;
    let (sandbox, elsewhere) = (sandbox(), sandbox());
    let (agent, other) = (builder(&sandbox).start().await, builder(&elsewhere).start().await);
    let quiet = token(&sandbox, "quiet");
    assert_eq!(agent.ask(&quiet).await.status, 200);
    // Well-formed, with good claims, and signed by nobody.
    let (head_and_claims, signature) = quiet.rsplit_once('.').unwrap();
    let (head_and_claims, signature) = (head_and_claims.to_owned(), signature.to_owned());
    let random = move |n: usize| format!("{head_and_claims}.{n:08x}{}", &signature[8..]);
    let memory = resident_kib(&agent);
    sandbox.reset_calls();
    let (mut at_other, mut at_ours) = (Vec::new(), Vec::new());
    let (mut lasted, mut sent, mut newcomers) = (Duration::ZERO, 0, Vec::new());
    for round in 0..ROUNDS {
        let (stop, _, mut tasks) = flood(other.address(), 100, address(5, 0), random.clone());
        sleep(Duration::from_millis(300)).await;
        at_other.extend(time_of_hits(&agent, &quiet, 200).await);
        stop.store(true, Ordering::Relaxed);
        tasks.shutdown().await;

        let began = Instant::now();
        let (stop, count, mut tasks) = flood(agent.address(), 100, address(5, 0), random.clone());
        sleep(Duration::from_millis(300)).await;
        at_ours.extend(time_of_hits(&agent, &quiet, 200).await);
        let newcomer = token(&sandbox, &format!("newcomer-{round}"));
        let before = Instant::now();
        assert_eq!(agent.ask(&newcomer).await.status, 200);
        newcomers.push(before.elapsed());
        sleep(Duration::from_millis(1_500).saturating_sub(began.elapsed())).await;
        stop.store(true, Ordering::Relaxed);
        tasks.shutdown().await;
        lasted += began.elapsed();
        sent += count.load(Ordering::Relaxed);
    }
    let calls = eks_auth_calls(&sandbox).len();
    let grown = resident_kib(&agent).saturating_sub(memory) / 1024;
    at_ours.sort();
    at_other.sort();
    let [median, p95, p99] = [50, 95, 99].map(|percent| percentile(&at_ours, percent));
    let [other_median, other_p95, other_p99] = [50, 95, 99].map(|percent| percentile(&at_other, percent));
    eprintln!(
        "median {median:?}, {other_median:?} with the flood elsewhere; p95 {p95:?}, {other_p95:?}; p99 {p99:?}, {other_p99:?}"
    );
    eprintln!("newcomers {newcomers:?}; {sent} sent, {calls} calls in {lasted:?}; {grown} MiB more");
    assert!(median * 2 <= other_median * 3, "median {median:?} against {other_median:?}");
    assert!(p95 <= other_p95 * 2 + Duration::from_millis(1), "p95 {p95:?} against {other_p95:?}");
    // Ten of a thousand hits take longer than this. What else the machine does moves them between 1 and 6 ms
    // wherever the flood is; a worker that a flood blocks for 3 ms at a time moves them to 40.
    assert!(p99 <= other_p99 * 2 + Duration::from_millis(5), "p99 {p99:?} against {other_p99:?}");
    assert!(newcomers.iter().all(|took| *took < Duration::from_secs(1)), "{newcomers:?}");
    // A host address has 64 places, and a refused call keeps its own for a second; a round may begin with 64
    // free ones.
    let most = 64 * (usize::try_from(lasted.as_secs()).unwrap() + ROUNDS + 1) + ROUNDS;
    assert!(sent > 200 && calls <= most, "{calls} calls for {sent} requests, {most} allowed");
    assert!(grown < 48, "{grown} MiB more");
    assert!(reached(&agent, "upstream_calls_per_peer").await > 0);
    // The bound is shown while it bites: one more, and readiness shows it.
    let (stop, _, mut tasks) = flood(agent.address(), 100, address(5, 0), random);
    eventually("readiness shows it", async || {
        agent.probe("/readyz").await.unwrap().body.contains("its requests wait")
    })
    .await;
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200, "and we are ready all the same");
    stop.store(true, Ordering::Relaxed);
    tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_half_open_and_slow_connections_keep_nobody_waiting() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let sandbox = sandbox();
    let agent = builder(&sandbox).start().await;
    let good = token(&sandbox, "good");
    let mut half_open = Vec::new();
    let mut slow_heads = JoinSet::new();
    for n in 0..250 {
        half_open.push(connect(agent.address(), address(6, n % 5)).await.unwrap());
        let mut stream = connect(agent.address(), address(6, 5 + n % 5)).await.unwrap();
        slow_heads.spawn(async move {
            for byte in b"GET /v1/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\n".iter().cycle() {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
    }
    let before = Instant::now();
    assert_eq!(agent.ask(&good).await.status, 200);
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    let p99 = p99(time_of_hits(&agent, &good, 100).await);
    assert!(p99 < Duration::from_millis(200), "{p99:?}");
    // A head has ten seconds; then the agent is rid of them without anybody's help.
    let ended = timeout(Duration::from_secs(14), slow_heads.join_all()).await;
    assert!(ended.is_ok(), "slow heads are still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_256_descriptors_and_more_connections_than_that_others_are_served() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let sandbox = sandbox();
    let agent = builder(&sandbox).descriptors(256).start().await;
    let good = token(&sandbox, "good");
    assert_eq!(agent.ask(&good).await.status, 200);
    let mut open = Vec::new();
    for n in 0..600 {
        // Silent ones and ones that have asked and stay.
        if let Ok(Ok(mut stream)) =
            timeout(Duration::from_secs(1), connect(agent.address(), address(7, n % 60))).await
        {
            if n % 2 == 0 {
                let _any = timeout(Duration::from_secs(1), ask_and_stay(&mut stream, &good)).await;
            }
            open.push(stream);
        }
        if n % 50 == 49 {
            let asked = attempts(&Request::credentials(&good).from(address(8, 0)), agent.address()).await;
            served(asked).unwrap_or_else(|failures| panic!("after {n}: {failures:?}"));
        }
    }
    assert!(open.len() > 400, "{}", open.len());
    let newcomer = token(&sandbox, "newcomer");
    let asked = attempts(&Request::credentials(&newcomer).from(address(8, 1)), agent.address()).await;
    served(asked).expect("AWS can be reached too");
    drop(open);
    assert_eq!(agent.ask(&good).await.status, 200, "recovered at once");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    assert!(descriptors < 256, "{descriptors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_in_quantity_is_never_our_fault_and_harms_nobody() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let sandbox = sandbox();
    let agent = builder(&sandbox).start().await;
    let good = token(&sandbox, "good");
    assert_eq!(agent.ask(&good).await.status, 200);
    let get = "GET /v1/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\n";
    let bad: [(&str, String); 8] = [
        ("oversized head", format!("{get}X: {}\r\n\r\n", "x".repeat(64 * 1024))),
        (
            "oversized token",
            format!("{get}Authorization: {}\r\nConnection: close\r\n\r\n", "a".repeat(20_000)),
        ),
        ("many headers", format!("{get}{}\r\n", "A: b\r\n".repeat(500))),
        ("no HTTP", "\u{16}\u{3}\u{1} not at all\r\n\r\n".to_owned()),
        ("no version", "GET /v1/credentials\r\n\r\n".to_owned()),
        ("two lengths", format!("{get}Content-Length: 1\r\nContent-Length: 2\r\n\r\n")),
        ("bad token", format!("{get}Authorization: a.b.c\r\nConnection: close\r\n\r\n")),
        (
            "a body",
            "POST /v1/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000\r\nConnection: close\r\n\r\nabc".to_owned(),
        ),
    ];
    let mut clients = JoinSet::new();
    for n in 0..400 {
        let (what, bytes) = bad[n % bad.len()].clone();
        let to = agent.address();
        clients.spawn(async move {
            let mut stream = connect(to, address(10, n % 20)).await.unwrap();
            // It may answer and close before it has taken all.
            let _sent = stream.write_all(bytes.as_bytes()).await;
            (what, read_answer(&mut stream).await.map(|answer| answer.status))
        });
    }
    let p99 = p99(time_of_hits(&agent, &good, 100).await);
    assert!(p99 < Duration::from_millis(300), "{p99:?}");
    let got = clients.join_all().await;
    for (what, bytes) in &bad {
        let of_kind: Vec<_> = got.iter().filter(|(kind, _)| kind == what).map(|(_, status)| status).collect();
        for status in of_kind.iter().copied().flatten() {
            assert!((400..500).contains(status), "{what}: {status}");
        }
        let answered = of_kind.iter().filter(|status| status.is_ok()).count();
        // One who closes by itself, or sends no more, has its answer. Else a reset may take it along.
        let all = if bytes.contains("Connection: close") { of_kind.len() } else { of_kind.len() * 9 / 10 };
        assert!(answered >= all && all >= 45, "{what}: {answered} of {} were answered", of_kind.len());
    }
    let metrics = agent.metrics().await;
    assert!(!metrics.contains("pod_identity_http_response{code=\"5"), "{metrics}");
    // A hundred in a row on one connection: all are answered, in order.
    let mut stream = connect(agent.address(), address(10, 50)).await.unwrap();
    let one = format!("{get}Authorization: {good}\r\n");
    let last = format!("{one}Connection: close\r\n\r\n");
    stream.write_all((format!("{one}\r\n").repeat(99) + &last).as_bytes()).await.unwrap();
    let mut all = String::new();
    timeout(Duration::from_secs(10), stream.read_to_string(&mut all)).await.unwrap().unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 ").count(), 100);
    assert_eq!(agent.ask(&good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_250_pods_do_not_starve_new_ones() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let sandbox = sandbox();
    // 448 connections; 250 pods would like a thousand.
    let agent = builder(&sandbox).descriptors(512).start().await;
    let good = token(&sandbox, "good");
    let mut idle = Vec::new();
    for n in 0..1000 {
        let mut stream = connect(agent.address(), address(11, n % 250)).await.unwrap();
        let before = Instant::now();
        let status = timeout(Duration::from_secs(2), ask_and_stay(&mut stream, &good)).await;
        assert!(matches!(status, Ok(Ok(200))), "connection {n}: {status:?} after {:?}", before.elapsed());
        idle.push(stream);
    }
    let newcomer = token(&sandbox, "newcomer");
    assert_eq!(
        Request::credentials(&newcomer).from(address(12, 0)).send(agent.address()).await.unwrap().status,
        200
    );
    // Who was idle longest made room; who came last is still there.
    assert_eq!(ask_and_stay(idle.last_mut().unwrap(), &good).await.unwrap(), 200);
    assert!(ask_and_stay(&mut idle[0], &good).await.is_err());
}
