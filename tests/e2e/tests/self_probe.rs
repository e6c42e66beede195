//! The agent asks itself on its own address, and tells who answers instead.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::{Agent, Builder, Request, eventually, free_port, pod, sandbox};

/// The condition as operators see it.
async fn self_probe(agent: &Agent) -> Value {
    let page = agent.probe("/readyz").await.expect("an answer").json();
    let conditions = page["conditions"].as_array().expect("conditions").clone();
    conditions.into_iter().find(|condition| condition["name"] == "self-probe").expect("the condition")
}

async fn until_it_is_alone(agent: &Agent) {
    eventually("the agent finds itself", async || self_probe(agent).await["met"] == true).await;
}

/// Answers every connection to a port with 200, as an ingress does, and counts them. Ends with the process.
fn thief_on(listener: TcpListener) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            counted.fetch_add(1, Ordering::SeqCst);
            let _read = stream.read(&mut [0; 1024]);
            let _written =
                stream.write_all(b"HTTP/1.1 200 OK\r\nServer: ingress\r\nContent-Length: 0\r\n\r\n");
        }
    });
    count
}

#[tokio::test]
async fn an_agent_that_answers_on_its_address_says_so_without_a_proxy_and_counts_no_request() {
    let sandbox = sandbox();
    let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let asked = thief_on(proxy);
    let agent = Builder::new(&sandbox)
        .env("HTTP_PROXY", &url)
        .env("http_proxy", &url)
        .env("NO_PROXY", "")
        .start()
        .await;
    until_it_is_alone(&agent).await;
    assert_eq!(agent.metric(r#"pod_identity_agent_self_probe{from="host",family="ipv4"}"#).await, 1);
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the proxy was asked");
    // Our own questions are not requests for credentials.
    assert!(!agent.metrics().await.contains(r#"pod_identity_http_response{code="404"}"#));
    assert_eq!(agent.metric(r#"pod_identity_http_response{code="200"}"#).await, 0);
}

#[tokio::test]
async fn a_thief_on_one_address_is_named_and_the_agent_serves_on_the_other() {
    let sandbox = sandbox();
    let (port, other) = (free_port(), "127.0.0.2");
    let thief = TcpListener::bind((other, port)).unwrap();
    let _asked = thief_on(thief);
    let agent = Builder::new(&sandbox).port(port).also("--bind-hosts", other).start().await;
    eventually("the thief is noticed", async || {
        let reason = self_probe(&agent).await["reason"].as_str().unwrap().to_owned();
        reason
            == format!(
                "another process answers on {other}:{port} and may receive pod tokens: \
                 HTTP/1.1 200 OK, Server: ingress; look for a pod with hostPort {port}, and see docs/guard.md"
            )
    })
    .await;
    assert_eq!(agent.metric(r#"pod_identity_agent_self_probe{from="host",family="ipv4"}"#).await, 0);
    // It is told and nothing more: pods get their credentials where we answer, and we are ready.
    agent.ask(&pod(&sandbox, "app-0").token).await.access_key_id();
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200);
}

#[tokio::test]
async fn only_a_question_of_ours_is_answered_and_each_answer_is_good_once() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let ask = async |path: &str| Request::get(path).send(agent.address()).await.unwrap();
    let nonce = "/v1/probe/00112233445566778899aabbccddeeff";
    let (first, second) = (ask(nonce).await, ask(nonce).await);
    assert_eq!((first.status, second.status), (200, 200));
    assert_ne!(first.body, second.body, "the port of the asker is sealed in");
    for path in ["/v1/probe/", "/v1/probe/0011", "/v1/probe/zz112233445566778899aabbccddeeff"] {
        assert_eq!(ask(path).await.status, 404, "{path}");
    }
}
