//! The writer against an API server that each test plays over a real connection.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{EventWriter, meaning, send};
use crate::clock::Clock;
use crate::config::ApiServer;
use crate::events::{AwsWords, Events, Names, Problem, Reason, Write, Written};
use crate::kubernetes::api::Api;
use crate::kubernetes::error::ApiError;
use crate::lifecycle::tasks::spawn_detached;
use crate::pods::{PodName, Pods};
use crate::telemetry::metrics::{EventOutcome, Metrics};

/// An API server that gives the answers of a test, one after the other, and the writer of "node-1".
struct Server {
    requests: mpsc::UnboundedReceiver<(String, Value)>,
    api: Api,
    events: Events,
    metrics: Metrics,
}

impl Server {
    async fn start(answers: &'static [(&'static str, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, requests) = mpsc::unbounded_channel();
        spawn_detached("test-server", async move {
            let mut answers = answers.iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                while let Some(request) = read(&mut stream).await {
                    let _test_is_over = tell.send(request);
                    let (status, body) = answers.next().copied().unwrap_or(("201 Created", "{}"));
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    let _client_is_gone = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        let token_file =
            std::env::temp_dir().join(format!("pod-identity-agent-events-{}", std::process::id()));
        std::fs::write(&token_file, "own-token").unwrap();
        let ca_file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/testdata/ca.pem").into();
        let api = Api::new(ApiServer { url, token_file, ca_file });
        let (pods, metrics) = (Pods::unreported(), Metrics::new());
        let (events, reports) = Events::new(pods.clone(), Arc::clone(&metrics.events));
        let names = Names { cluster: "prod".into(), node: "node-1".into() };
        let (clock, counted) = (Clock::system(), Arc::clone(&metrics.events));
        let writer = EventWriter::new(api.clone(), names, pods, clock, counted, reports).unwrap();
        spawn_detached("test-writer", writer.keep());
        Self { requests, api, events, metrics }
    }

    fn tell(&self, uid: &str) {
        let pod = PodName { namespace: "shop".into(), name: "cart-0".into(), uid: uid.into() };
        let said = AwsWords { code: "ResourceNotFoundException", message: "none".into() };
        self.events.tell(pod, Problem::NoAssociation { service_account: "cart".into(), said });
    }

    async fn next(&mut self) -> (String, Value) {
        tokio::time::timeout(Duration::from_secs(10), self.requests.recv()).await.expect("in time").unwrap()
    }

    async fn until_counted(&self, outcome: &str, times: u32) {
        let line = format!("pod_identity_agent_events_total{{outcome=\"{outcome}\"}} {times}\n");
        let counting = async {
            while !self.metrics.counts().contains(&line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let counted = tokio::time::timeout(Duration::from_secs(10), counting).await;
        assert!(counted.is_ok(), "never {line}: {}", self.metrics.counts());
    }
}

/// A request: its head, and its body.
async fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut text = String::new();
    let mut buffer = vec![0; 8192];
    loop {
        let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        text += &String::from_utf8_lossy(&buffer[..length]);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return Some((head.to_owned(), body));
        }
    }
}

#[tokio::test]
async fn a_problem_is_posted_as_an_event_of_its_pod_with_the_agents_own_token() {
    let mut server = Server::start(&[]).await;
    server.tell("u-1");
    let (head, event) = server.next().await;
    assert!(head.starts_with("POST /apis/events.k8s.io/v1/namespaces/shop/events HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("authorization: bearer own-token"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert_eq!(event["regarding"]["uid"], "u-1");
    assert_eq!(
        (&event["reason"], &event["reportingInstance"]),
        (&json!("NoPodIdentityAssociation"), &json!("node-1"))
    );
    assert!(event["note"].as_str().unwrap().contains("--namespace shop --service-account cart "), "{event}");
    server.until_counted("posted", 1).await;
}

#[tokio::test]
async fn a_refusal_is_no_storm_and_the_next_pod_is_written_about_anyway() {
    let refusal = r#"{"kind":"Status","message":"events.events.k8s.io is forbidden","code":403}"#;
    let mut server = Server::start(leak(refusal)).await;
    for _ in 0..50 {
        server.tell("u-1");
    }
    server.next().await;
    server.until_counted("failed", 1).await;
    server.tell("u-2");
    let (_, event) = server.next().await;
    assert_eq!(event["regarding"]["uid"], "u-2", "and not the first one again");
    server.until_counted("posted", 1).await;
}

#[tokio::test]
async fn an_event_that_is_there_already_is_our_own() {
    let mut server = Server::start(&[("409 Conflict", "{}")]).await;
    server.tell("u-1");
    server.next().await;
    server.until_counted("posted", 1).await;
}

fn write(existing: Option<&str>) -> Write {
    let pod = PodName { namespace: "shop".into(), name: "cart-0".into(), uid: "u-1".into() };
    let (first, last) = (UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(360));
    let (reason, note, existing) = (Reason::RoleNotAssumable, "Mend it".into(), existing.map(Into::into));
    Write { pod, reason, note, first, last, count: 7, existing }
}

#[tokio::test]
async fn a_repeated_one_is_a_patch_of_its_series_and_of_nothing_else() {
    let mut server = Server::start(&[]).await;
    send(&server.api, &write(Some("cart-0.1")), "cart-0.1", "node-1").await.unwrap();
    let (head, patch) = server.next().await;
    assert!(head.starts_with("PATCH /apis/events.k8s.io/v1/namespaces/shop/events/cart-0.1 "), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/merge-patch+json\r\n"), "{head}");
    assert_eq!(patch, json!({"series": {"count": 7, "lastObservedTime": "1970-01-01T00:06:00.000000Z"}}));
}

#[test]
fn the_table_of_answers() {
    let refused = |status: u16| {
        let (path, status) = ("/".into(), StatusCode::from_u16(status).unwrap());
        Err(ApiError::Status { path, status })
    };
    let (new, repeated) = (write(None), write(Some("n")));
    let failed = Some(EventOutcome::Failed);
    for (write, sent, expected) in [
        (&new, Ok(()), (Written::Stored("n"), Some(EventOutcome::Posted))),
        (&repeated, Ok(()), (Written::Stored("n"), Some(EventOutcome::Repeated))),
        (&new, refused(409), (Written::Stored("n"), Some(EventOutcome::Posted))),
        (&repeated, refused(409), (Written::Refused, failed)),
        (&repeated, refused(404), (Written::Gone, None)),
        (&new, refused(404), (Written::Refused, failed)),
        (&new, refused(403), (Written::Refused, failed)),
        (&new, refused(422), (Written::Refused, failed)),
        (&new, refused(401), (Written::NoAnswer, failed)),
        (&new, refused(429), (Written::NoAnswer, failed)),
        (&new, refused(503), (Written::NoAnswer, failed)),
        (&new, Err(ApiError::Timeout), (Written::NoAnswer, failed)),
    ] {
        assert_eq!(meaning(&sent, write, "n"), expected, "{sent:?} {:?}", write.existing);
    }
}

fn leak(refusal: &'static str) -> &'static [(&'static str, &'static str)] {
    Box::leak(Box::new([("403 Forbidden", refusal)]))
}
