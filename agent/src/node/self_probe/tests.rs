//! The probe against an agent, another process, a proxy and no process, on real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::outcome::{ProbeOutcome, evaluate};
use super::request;
use super::{HostProbe, HostProbeSpec, Nonce, ProbeKey};
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::Readiness;
use crate::lifecycle::tasks::Tasks;
use crate::telemetry::metrics::Metrics;

/// A listener on loopback that passes all connections to `answer`, until the test's runtime ends.
async fn listen<F>(answer: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.clone().spawn("listener", async move {
        while let Ok((stream, peer)) = listener.accept().await {
            tasks.spawn("connection", answer(stream, peer));
        }
    });
    address
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 1024];
    let read = stream.read(&mut bytes).await.unwrap();
    String::from_utf8(bytes[..read].to_vec()).unwrap()
}

/// What `server::pages::self_probe` does, without its HTTP.
async fn agent(probe_key: ProbeKey) -> SocketAddr {
    listen(move |mut stream, peer| {
        let probe_key = probe_key.clone();
        async move {
            let request = read_request(&mut stream).await;
            let nonce = Nonce::from_path(request.split(' ').nth(1).unwrap()).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{}", probe_key.answer(&nonce, peer));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

async fn saying(answer: &'static str) -> SocketAddr {
    listen(move |mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await
}

async fn outcome(probe_key: &ProbeKey, on: SocketAddr) -> ProbeOutcome {
    let nonce = Nonce::random().unwrap();
    evaluate(probe_key, &nonce, &request::send(on.ip(), on, &nonce).await)
}

#[tokio::test]
async fn the_agent_itself_is_recognised() {
    let probe_key = ProbeKey::new().unwrap();
    let agent = agent(probe_key.clone()).await;
    assert_eq!(outcome(&probe_key, agent).await, ProbeOutcome::ThisAgent);
}

#[tokio::test]
async fn a_proxy_that_forwards_to_the_agent_is_detected() {
    let probe_key = ProbeKey::new().unwrap();
    let agent = agent(probe_key.clone()).await;
    let proxy = listen(move |mut stream, _| async move {
        let mut onward = TcpStream::connect(agent).await.unwrap();
        let _closed = copy_bidirectional(&mut stream, &mut onward).await;
    })
    .await;
    let outcome = outcome(&probe_key, proxy).await;
    assert!(matches!(outcome, ProbeOutcome::Forwarded { .. }), "{outcome:?}");
}

#[tokio::test]
async fn another_process_is_detected_whatever_it_answers_and_shown_in_one_plain_line() {
    let probe_key = ProbeKey::new().unwrap();
    for (answer, description) in [
        ("HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n{\"AccessKeyId\":\"x\"}", "HTTP/1.1 200 OK, Server: nginx"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("SSH-2.0-\u{1b}[2J\r\n", "SSH-2.0-?[2J"),
        ("", "it closed the connection without an answer"),
    ] {
        let thief = saying(answer).await;
        assert_eq!(
            outcome(&probe_key, thief).await,
            ProbeOutcome::OtherProcess { description: description.to_owned() }
        );
    }
    let another_agent = agent(ProbeKey::new().unwrap()).await;
    assert!(matches!(outcome(&probe_key, another_agent).await, ProbeOutcome::OtherProcess { .. }));
}

#[tokio::test]
async fn an_endless_response_is_cut_short() {
    let thief = listen(|mut stream, _| async move {
        read_request(&mut stream).await;
        while stream.write_all(&[b'a'; 1024]).await.is_ok() {}
    })
    .await;
    let ProbeOutcome::OtherProcess { description } = outcome(&ProbeKey::new().unwrap(), thief).await else {
        panic!()
    };
    assert_eq!(description.len(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_accepts_and_sends_nothing_counts_as_no_answer() {
    let silent = listen(|stream, _| async move {
        let _kept_open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let reason = "no answer within 2 s".to_owned();
    assert_eq!(outcome(&ProbeKey::new().unwrap(), silent).await, ProbeOutcome::NoAnswer { reason });
}

#[tokio::test]
async fn no_probe_leaves_a_node_that_does_not_have_the_address() {
    // TEST-NET-1: no machine has it, and no packet leaves for it.
    let nowhere = "192.0.2.23:80".parse().unwrap();
    assert_eq!(outcome(&ProbeKey::new().unwrap(), nowhere).await, ProbeOutcome::AddressMissing);
}

/// The reason of the condition, and the metrics, after one probe of `targets`.
async fn report_of(probe_key: ProbeKey, targets: Vec<SocketAddr>) -> (String, String) {
    let (readiness, metrics) = (Readiness::new(), Metrics::new());
    let condition = readiness.advisory(ConditionName::SelfProbe);
    let spec = HostProbeSpec { targets, condition, metrics: Arc::clone(&metrics.self_probe) };
    let (_changed, changes) = watch::channel(0);
    HostProbe::new(spec, probe_key, changes).probe().await;
    (readiness.report()[0].reason.clone(), metrics.counts())
}

#[tokio::test]
async fn readiness_and_metrics_show_which_process_answers_and_which_address_the_node_lacks() {
    let probe_key = ProbeKey::new().unwrap();
    let agent = agent(probe_key.clone()).await;
    let (reason, page) = report_of(probe_key.clone(), vec![agent]).await;
    assert_eq!(reason, "");
    assert!(page.contains(r#"pod_identity_agent_self_probe{from="host",family="ipv4"} 1"#), "{page}");
    assert!(!page.contains(r#"family="ipv6""#), "{page}");

    // A series is there also where there never was an address: without it, no alert.
    let absent = "192.0.2.23:80".parse().unwrap();
    let (reason, page) = report_of(probe_key.clone(), vec![absent]).await;
    assert_eq!(reason, "192.0.2.23 is not an address of this node");
    assert!(page.contains(r#"pod_identity_agent_self_probe{from="host",family="ipv4"} 0"#), "{page}");

    let thief = saying("HTTP/1.1 200 OK\r\n\r\n").await;
    let (reason, page) = report_of(probe_key, vec![agent, thief]).await;
    let expected = format!(
        "another process answers on {thief} and may receive pod tokens: HTTP/1.1 200 OK; \
         look for a pod with hostPort {}, and see docs/guard.md",
        thief.port()
    );
    assert_eq!(reason, expected);
    assert!(page.contains(r#"pod_identity_agent_self_probe{from="host",family="ipv4"} 0"#), "{page}");
}
