//! The probe against an agent, a thief, a proxy and nobody, on real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::ask::ask;
use super::judge::{Verdict, judge};
use super::{Nonce, ProbeKey, Probed, SelfProbe};
use crate::lifecycle::readiness::Readiness;
use crate::lifecycle::tasks::Tasks;
use crate::telemetry::metrics::Metrics;

/// A listener on loopback whose connections all go through `answer`, until the test's runtime ends.
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

async fn question(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 1024];
    let read = stream.read(&mut bytes).await.unwrap();
    String::from_utf8(bytes[..read].to_vec()).unwrap()
}

/// What the server does in `server::probe`, without its HTTP.
async fn agent(seal: ProbeKey) -> SocketAddr {
    listen(move |mut stream, peer| {
        let seal = seal.clone();
        async move {
            let question = question(&mut stream).await;
            let nonce = Nonce::from_path(question.split(' ').nth(1).unwrap()).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{}", seal.answer(&nonce, peer));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

async fn saying(answer: &'static str) -> SocketAddr {
    listen(move |mut stream, _| async move {
        question(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await
}

async fn verdict(seal: &ProbeKey, on: SocketAddr) -> Verdict {
    let nonce = Nonce::random().unwrap();
    judge(seal, &nonce, &ask(on.ip(), on, &nonce).await)
}

#[tokio::test]
async fn the_agent_itself_is_known() {
    let seal = ProbeKey::new().unwrap();
    let agent = agent(seal.clone()).await;
    assert_eq!(verdict(&seal, agent).await, Verdict::Ours);
}

#[tokio::test]
async fn a_proxy_that_forwards_to_the_agent_is_noticed() {
    let seal = ProbeKey::new().unwrap();
    let agent = agent(seal.clone()).await;
    let proxy = listen(move |mut stream, _| async move {
        let mut onward = TcpStream::connect(agent).await.unwrap();
        let _closed = copy_bidirectional(&mut stream, &mut onward).await;
    })
    .await;
    let verdict = verdict(&seal, proxy).await;
    assert!(matches!(verdict, Verdict::Forwarded { .. }), "{verdict:?}");
}

#[tokio::test]
async fn a_thief_is_noticed_whatever_it_answers_and_shown_in_one_clean_line() {
    let seal = ProbeKey::new().unwrap();
    for (answer, said) in [
        ("HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n{\"AccessKeyId\":\"x\"}", "HTTP/1.1 200 OK, Server: nginx"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("SSH-2.0-\u{1b}[2J\r\n", "SSH-2.0-?[2J"),
        ("", "it closed without a word"),
    ] {
        let thief = saying(answer).await;
        assert_eq!(verdict(&seal, thief).await, Verdict::SomeoneElse { said: said.to_owned() });
    }
    let another_agent = agent(ProbeKey::new().unwrap()).await;
    assert!(matches!(verdict(&seal, another_agent).await, Verdict::SomeoneElse { .. }));
}

#[tokio::test]
async fn a_thief_that_talks_without_end_is_cut_short() {
    let thief = listen(|mut stream, _| async move {
        question(&mut stream).await;
        while stream.write_all(&[b'a'; 1024]).await.is_ok() {}
    })
    .await;
    let Verdict::SomeoneElse { said } = verdict(&ProbeKey::new().unwrap(), thief).await else { panic!() };
    assert_eq!(said.len(), 120);
}

#[tokio::test(start_paused = true)]
async fn who_accepts_and_is_silent_counts_as_nobody() {
    let silent = listen(|stream, _| async move {
        let _kept_open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let why = "no answer within 2 s".to_owned();
    assert_eq!(verdict(&ProbeKey::new().unwrap(), silent).await, Verdict::Nobody { why });
}

#[tokio::test]
async fn an_address_that_the_node_does_not_have_is_not_asked_for_elsewhere() {
    // TEST-NET-1: no machine has it, and no packet leaves for it.
    let nowhere = "192.0.2.23:80".parse().unwrap();
    assert_eq!(verdict(&ProbeKey::new().unwrap(), nowhere).await, Verdict::Absent);
}

/// The reason of the condition, and the page of metrics, after one probe of `targets`.
async fn told(seal: ProbeKey, targets: Vec<SocketAddr>) -> (String, String) {
    let (readiness, metrics) = (Readiness::new(), Metrics::new());
    let alone = readiness.advisory("self-probe");
    let probed = Probed { targets, alone, metrics: Arc::clone(&metrics.self_probe) };
    let (_changed, changes) = watch::channel(0);
    SelfProbe::new(probed, seal, changes).probe().await;
    (readiness.report()[0].reason.clone(), metrics.counts())
}

#[tokio::test]
async fn readiness_and_metrics_hear_who_answers_and_nothing_of_a_family_that_is_not_there() {
    let seal = ProbeKey::new().unwrap();
    let agent = agent(seal.clone()).await;
    let absent = "[2001:db8::23]:80".parse().unwrap();
    let (reason, page) = told(seal.clone(), vec![agent, absent]).await;
    assert_eq!(reason, "");
    assert!(page.contains(r#"pod_identity_agent_self_probe{from="host",family="ipv4"} 1"#), "{page}");
    assert!(!page.contains(r#"family="ipv6""#), "{page}");

    let thief = saying("HTTP/1.1 200 OK\r\n\r\n").await;
    let (reason, page) = told(seal, vec![agent, thief]).await;
    assert_eq!(reason, format!("someone else answers on {thief}: HTTP/1.1 200 OK"));
    assert!(page.contains(r#"pod_identity_agent_self_probe{from="host",family="ipv4"} 0"#), "{page}");
}
