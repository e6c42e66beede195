//! Reviews by an API server that each test plays over a real connection.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{ReviewError, Reviewed, ReviewedUser, TokenReviewer, request};
use crate::config::ApiServer;
use crate::kubernetes::api::Api;
use crate::kubernetes::error::ApiError;
use crate::lifecycle::tasks::spawn_detached;

const TOKEN: &str = "header.planted-claims.signature";
const AUDIENCE: &str = "pods.eks.amazonaws.com";

/// An API server that listens.
async fn server() -> (TcpListener, ApiServer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_file = std::env::temp_dir().join(format!("pod-identity-agent-review-{}", std::process::id()));
    std::fs::write(&token_file, "own-token").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ca_file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/testdata/ca.pem").into();
    (listener, ApiServer { url, token_file, ca_file })
}

/// An API server with one answer, and the requests that it had.
async fn answering(status: &str, body: &str) -> (TokenReviewer, Arc<Mutex<Vec<String>>>) {
    let (listener, server) = server().await;
    let requests = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&requests);
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    spawn_detached("test-server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            while !text.ends_with('}') {
                let mut piece = vec![0; 4096];
                let Ok(length @ 1..) = stream.read(&mut piece).await else { break };
                text.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
            noted.lock().push(text);
            let _sent = stream.write_all(answer.as_bytes()).await;
        }
    });
    (TokenReviewer::new(Api::new(server)), requests)
}

fn accepted(extra: &Value) -> String {
    json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "spec": { "token": TOKEN, "audiences": [AUDIENCE] },
        "status": {
            "authenticated": true,
            "user": {
                "username": "system:serviceaccount:ns:sa",
                "uid": "sa-uid",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
                "extra": extra,
            },
            "audiences": [AUDIENCE],
        },
    })
    .to_string()
}

#[tokio::test]
async fn a_token_is_shown_for_one_audience_and_its_user_is_read() {
    let extra = json!({
        "authentication.kubernetes.io/credential-id": ["JTI=5c7"],
        "authentication.kubernetes.io/node-name": ["node-1"],
        "authentication.kubernetes.io/pod-name": ["p"],
        "authentication.kubernetes.io/pod-uid": ["p-uid"],
    });
    let (reviewer, requests) = answering("201 Created", &accepted(&extra)).await;
    let user = ReviewedUser {
        name: "system:serviceaccount:ns:sa".into(),
        uid: "sa-uid".into(),
        pod: Some("p".into()),
        pod_uid: Some("p-uid".into()),
        node: Some("node-1".into()),
    };
    let reviewed = reviewer.review(TOKEN, AUDIENCE).await.unwrap();
    assert_eq!(reviewed, Reviewed::Authenticated { audiences: vec![AUDIENCE.into()], user });
    let request = requests.lock().pop().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("authorization: bearer own-token\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    let asked = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": { "token": TOKEN, "audiences": [AUDIENCE] },
    });
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), asked);
}

#[tokio::test]
async fn what_the_answer_does_not_have_is_not_made_up() {
    let (reviewer, _) = answering("201 Created", &accepted(&json!({}))).await;
    let Ok(Reviewed::Authenticated { user, .. }) = reviewer.review(TOKEN, AUDIENCE).await else {
        panic!("it is accepted")
    };
    assert_eq!((user.pod, user.pod_uid, user.node), (None, None, None));
    for status in ["{}", r#"{"authenticated":false,"user":{}}"#, r#"{"user":{"username":"system:admin"}}"#] {
        let (reviewer, _) = answering("201 Created", &format!(r#"{{"status":{status}}}"#)).await;
        let reviewed = reviewer.review(TOKEN, AUDIENCE).await.unwrap();
        assert_eq!(reviewed, Reviewed::Denied(String::new()), "{status}");
    }
}

#[tokio::test]
async fn a_denial_has_the_servers_words_and_nothing_of_the_token() {
    for (error, said) in [
        ("[invalid bearer token, token has expired]", "[invalid bearer token, token has expired]"),
        ("cannot read planted-claims as JSON", "cannot read [redacted] as JSON"),
        (&"x".repeat(1_000), &*"x".repeat(400)),
    ] {
        let body = json!({ "status": { "authenticated": false, "error": error } }).to_string();
        let (reviewer, _) = answering("201 Created", &body).await;
        assert_eq!(reviewer.review(TOKEN, AUDIENCE).await.unwrap(), Reviewed::Denied(said.to_owned()));
    }
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_and_a_missing_right_is_one_of_its_own() {
    let forbidden = json!({
        "kind": "Status",
        "code": 403,
        "message": "tokenreviews is forbidden: User cannot create",
    });
    let (reviewer, _) = answering("403 Forbidden", &forbidden.to_string()).await;
    let error = reviewer.review(TOKEN, AUDIENCE).await.unwrap_err();
    assert!(
        matches!(&error, ReviewError::Forbidden(said) if said.contains("User cannot create")),
        "{error:?}"
    );
    let long = format!(r#"{{"status":{{}}}}{}"#, " ".repeat(64 * 1024));
    for (status, body, says) in [
        ("503 Service Unavailable", r#"{"code":503,"message":"etcd is away"}"#, "etcd is away (503"),
        ("500 Internal Server Error", "<html>", "status 500"),
        ("302 Found", "{}", "status 302"),
        // Of a proxy on the way.
        ("403 Forbidden", "<html>", "status 403"),
        ("403 Forbidden", "{}", "status 403"),
        ("201 Created", "planted-claims", "no TokenReview"),
        ("201 Created", r#"{"status":{"authenticated":"planted-claims"}}"#, "no TokenReview"),
        ("201 Created", &long, "longer than 65536 bytes"),
    ] {
        let (reviewer, _) = answering(status, body).await;
        let error = reviewer.review(TOKEN, AUDIENCE).await.unwrap_err();
        assert!(matches!(error, ReviewError::Api(_) | ReviewError::Unreadable), "{error:?}");
        assert!(error.to_string().contains(says), "{error}: {says}");
        assert!(!format!("{error:?} {error}").contains("planted"), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_five_seconds() {
    let (_listener, silent) = server().await;
    let began = tokio::time::Instant::now();
    let error = TokenReviewer::new(Api::new(silent)).review(TOKEN, AUDIENCE).await.unwrap_err();
    assert!(matches!(error, ReviewError::Api(ApiError::Timeout)), "{error:?}");
    assert!((5..7).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[test]
fn the_body_is_written_in_one_piece() {
    let longest = "t".repeat(16 * 1024);
    for token in [TOKEN, &longest] {
        let body = request(token, AUDIENCE).unwrap();
        assert!(body.len() <= token.len() + AUDIENCE.len() + super::MOST_AROUND, "{}", body.len());
    }
}
