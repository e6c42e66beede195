//! The wire, byte for byte: docs/design/client-contract.md#rules.

use std::net::{Ipv6Addr, SocketAddr};

use sandbox::{Effect, Fault, PodSpec, Service, TokenKey, TokenSpec};
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Agent, Answer, Builder, Request, eks_auth_calls, failing, pod, read_answer, read_next_answer, sandbox,
};

/// Headers that may leave the agent; whatever else appears is a leak.
const HEADERS: [&str; 6] = ["content-type", "content-length", "cache-control", "date", "connection", "allow"];

fn assert_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.reason.as_str()), (status, code), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "exactly, without a charset");
    let json = answer.json();
    assert_eq!(json["code"], code);
    assert_eq!(json["Code"], code);
    assert_eq!(json["message"], json["Message"]);
    assert!(
        answer.body.starts_with(&format!(r#"{{"code":"{code}","message":""#)),
        "lower case first: {answer:?}"
    );
    assert_headers(answer);
}

fn assert_headers(answer: &Answer) {
    for (name, _) in &answer.headers {
        assert!(HEADERS.contains(&name.to_lowercase().as_str()), "header {name} is not on the list");
    }
}

#[tokio::test]
async fn a_success_is_what_all_eleven_sdks_can_read() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let answer = agent.ask(&pod(&sandbox, "app-0").token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_headers(&answer);
    assert!(answer.body.len() < 10_000, "aws-c-auth stops at 10,000 bytes");
    let json = answer.json();
    let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["AccessKeyId", "AccountId", "Expiration", "SecretAccessKey", "Token"]);
    assert!(json.as_object().unwrap().values().all(serde_json::Value::is_string));
    assert_eq!(json["AccountId"], "111122223333");
    let expiration = json["Expiration"].as_str().unwrap();
    assert_eq!(expiration.len(), "2026-11-22T18:00:00Z".len(), "whole seconds and Z: {expiration}");
    assert!(expiration.ends_with('Z'));
}

#[tokio::test]
async fn a_head_request_gets_the_same_head_and_no_body() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let token = pod(&sandbox, "app-0").token.clone();
    let answer = Request::credentials(&token).method("HEAD").send(agent.address()).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
}

#[tokio::test]
async fn requests_that_are_none_are_told_why() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let token = pod(&sandbox, "app-0").token.clone();
    let ask = async |request: Request| request.send(agent.address()).await.unwrap();
    assert_error(&ask(Request::get("/")).await, 404, "NotFound");
    assert_error(&ask(Request::get("/v1/credentials/x")).await, 404, "NotFound");
    let post = ask(Request::credentials(&token).method("POST")).await;
    assert_error(&post, 405, "MethodNotAllowed");
    assert_eq!(post.header("allow"), Some("GET, HEAD"));
    for host in ["example.com", "169.254.170.2", "127.0.0.2", "evil@127.0.0.1"] {
        let answer = ask(Request::credentials(&token).header("Host", host)).await;
        assert_error(&answer, 403, "AccessDeniedException");
    }
    assert_error(&ask(Request::get("/v1/credentials")).await, 400, "InvalidTokenException");
    for bad in ["", "nonsense", "a.b", "a.b.c.d"] {
        assert_error(&ask(Request::credentials(bad)).await, 400, "InvalidTokenException");
    }
    let twice = ask(Request::credentials(&token).header("Authorization", &token)).await;
    assert_error(&twice, 400, "InvalidTokenException");
    assert!(eks_auth_calls(&sandbox).is_empty(), "none of these reached AWS: {:?}", eks_auth_calls(&sandbox));
}

#[tokio::test]
async fn every_form_of_host_and_token_that_sdks_send_is_accepted() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let token = pod(&sandbox, "app-0").token.clone();
    let hosts = [
        "169.254.170.23",
        "169.254.170.23:80",
        "[fd00:ec2::23]",
        "[fd00:ec2::23]:80",
        "fd00:ec2::23",
        "FD00:EC2:0::23",
    ];
    for host in hosts {
        let answer = Request::credentials(&token).header("Host", host).send(agent.address()).await.unwrap();
        assert_eq!(answer.status, 200, "Host: {host}: {answer:?}");
    }
    for value in [format!("Bearer {token}"), format!("  {token}  ")] {
        assert_eq!(agent.ask(&value).await.status, 200);
    }
    let query = Request::get("/v1/credentials?x=y").header("authorization", &token);
    assert_eq!(query.send(agent.address()).await.unwrap().status, 200);
    assert_eq!(eks_auth_calls(&sandbox).len(), 1, "and all of them were one identity");
}

#[tokio::test]
async fn tokens_that_are_worth_nothing_are_refused_without_asking_aws() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let pod = PodSpec::default();
    let expired = sandbox.token(&TokenSpec::new(pod.clone()).expired()).unwrap();
    assert_error(&agent.ask(&expired).await, 400, "ExpiredTokenException");
    let foreign = sandbox.token(&TokenSpec::new(pod.clone()).audiences(&["sts.amazonaws.com"])).unwrap();
    assert_error(&agent.ask(&foreign).await, 400, "InvalidTokenException");
    assert!(eks_auth_calls(&sandbox).is_empty(), "{:?}", eks_auth_calls(&sandbox));
    // One that is not valid yet may be a sign that the node's clock is behind: that is for AWS to judge.
    let early = sandbox.token(&TokenSpec::new(pod.clone()).not_yet_valid()).unwrap();
    assert_error(&agent.ask(&early).await, 400, "InvalidTokenException");
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
}

#[tokio::test]
async fn what_aws_refuses_is_passed_on_with_its_code_and_a_sentence_that_helps() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let stranger =
        sandbox.pod(PodSpec { service_account: "nobody".to_owned(), ..PodSpec::default() }).unwrap();
    let answer = agent.ask(&stranger.token).await;
    assert_error(&answer, 403, "ResourceNotFoundException");
    assert!(
        answer.json()["message"]
            .as_str()
            .unwrap()
            .starts_with("No pod identity association for this service account")
    );
    let forged = sandbox.token(&TokenSpec::new(PodSpec::default()).key(TokenKey::Forged)).unwrap();
    assert_error(&agent.ask(&forged).await, 400, "InvalidTokenException");
    let codes = [
        ("AccessDeniedException", 400),
        ("InvalidParameterException", 400),
        ("InvalidRequestException", 400),
        ("ExpiredTokenException", 400),
    ];
    for (index, (code, status)) in codes.into_iter().enumerate() {
        let fault = Fault::new(Service::EksAuth, failing(status, code));
        sandbox.faults().set([fault]);
        let answer = agent.ask(&pod(&sandbox, &format!("refused-{index}")).token).await;
        assert_error(&answer, 400, code);
    }
}

#[tokio::test]
async fn trouble_of_aws_is_held_and_ends_as_503_with_a_code_that_sdks_retry() {
    let troubles = [
        (failing(429, "ThrottlingException"), "ThrottlingException"),
        (failing(500, "InternalServerException"), "ServiceUnavailableException"),
        (failing(403, "AccessDeniedException"), "ServiceUnavailableException"),
        // Of a proxy or an inspection on the way: none of EKS Auth's codes.
        (failing(400, "BadRequest"), "ServiceUnavailableException"),
        (Effect::Hang, "ServiceUnavailableException"),
    ];
    // Side by side: each takes as long as a request is held.
    let mut held = tokio::task::JoinSet::new();
    for (trouble, code) in troubles {
        held.spawn(async move {
            let sandbox = sandbox();
            let agent = Agent::start(&sandbox).await;
            sandbox.faults().set([Fault::new(Service::EksAuth, trouble)]);
            let before = tokio::time::Instant::now();
            let answer = agent.ask(&pod(&sandbox, "app-0").token).await;
            assert_error(&answer, 503, code);
            let held = before.elapsed().as_millis();
            assert!((4_300..5_000).contains(&held), "{code}: held for {held} ms");
        });
    }
    held.join_all().await;
}

#[tokio::test]
async fn both_families_share_one_set() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).also("--bind-hosts", "[::1]").start().await;
    let token = pod(&sandbox, "app-0").token.clone();
    let ipv6 = SocketAddr::from((Ipv6Addr::LOCALHOST, agent.port));
    let by_ipv4 = agent.ask(&token).await.access_key_id();
    let by_ipv6 = Request::credentials(&token).send(ipv6).await.unwrap().access_key_id();
    assert_eq!(by_ipv4, by_ipv6);
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
}

/// One connection, ten pods in turn, all their requests in one packet; AWS answers late and in any order.
#[tokio::test]
async fn pipelined_requests_with_ten_tokens_get_their_own_pods_credentials_in_order() {
    for build in [Builder::new, Builder::verifying] {
        let sandbox = sandbox();
        let agent = build(&sandbox).start().await;
        sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Latency { ms: 10, jitter_ms: 90 })]);
        let pods: Vec<_> = (0..10).map(|n| pod(&sandbox, &format!("app-{n}"))).collect();
        let mut stream = tokio::net::TcpStream::connect(agent.address()).await.unwrap();
        // First nothing is in memory, then everything is; another order each time.
        for step in [1, 3, 7] {
            let turns: Vec<_> = (0..10).map(|n| &pods[n * step % 10]).collect();
            let head = "GET /v1/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization:";
            let requests: String = turns.iter().map(|pod| format!("{head} {}\r\n\r\n", pod.token)).collect();
            stream.write_all(requests.as_bytes()).await.unwrap();
            for pod in turns {
                let answer = read_next_answer(&mut stream).await.unwrap();
                let holder = sandbox.holder_of(&answer.access_key_id()).expect("a key of a pod");
                assert_eq!(holder, pod.spec);
            }
        }
        assert_eq!(eks_auth_calls(&sandbox).len(), pods.len());
    }
}

/// As busybox's nc does, and others that send all they have to say at once.
#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_what_is_in_memory_each_time() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let token = pod(&sandbox, "app-0").token.clone();
    let held = agent.ask(&token).await.access_key_id();
    for _ in 0..200 {
        let mut stream = Request::credentials(&token).open(agent.address()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().access_key_id(), held);
    }
}

#[tokio::test]
async fn bad_http_is_answered_with_4xx_and_harms_nobody() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let long = format!("GET /v1/credentials HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    for (bytes, status) in
        [("NONSENSE\r\n\r\n", 400), (long.as_str(), 431), ("GET / HTTP/1.1\r\nA\r\n\r\n", 400)]
    {
        let mut stream = tokio::net::TcpStream::connect(agent.address()).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, status);
    }
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
}
