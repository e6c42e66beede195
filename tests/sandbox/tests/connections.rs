//! What can happen to a connection, seen from its other end; and the headers that go missing on the way.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use sandbox::{Effect, Fault, Options, PodSpec, Sandbox, Service, Switches};

use crate::client::{assumed, sandbox};

fn with(effect: Effect) -> Sandbox {
    let sandbox = sandbox();
    sandbox.faults().set([Fault::new(Service::Issuer, effect)]);
    sandbox
}

fn connect(url: &str) -> TcpStream {
    let address = url.split("://").nth(1).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

/// A connection to the issuer.
fn issuer(sandbox: &Sandbox) -> TcpStream {
    connect(sandbox.discovery_url().split("/id/").next().unwrap())
}

/// One answer on a connection that stays; empty if it is closed instead.
fn ask(stream: &mut TcpStream) -> String {
    if write!(stream, "GET /openid/v1/jwks HTTP/1.1\r\nhost: h\r\n\r\n").is_err() {
        return String::new();
    }
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !text.ends_with(b"]}") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8(text).unwrap().to_lowercase()
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0))
}

#[test]
fn a_connection_ends_after_so_many_answers_with_a_word_or_without() {
    for announced in [true, false] {
        let sandbox = with(Effect::CloseAfter { answers: 2, announced });
        let mut stream = issuer(&sandbox);
        let (first, second) = (ask(&mut stream), ask(&mut stream));
        assert!(first.contains("\"keys\"") && second.contains("\"keys\""), "{first} {second}");
        assert!(!first.contains("connection: close"), "{first}");
        assert_eq!(second.contains("connection: close"), announced, "{second}");
        assert!(is_closed(&mut stream), "announced: {announced}");
        assert!(ask(&mut issuer(&sandbox)).contains("\"keys\""), "the next connection has two again");
    }
}

#[test]
fn an_answer_comes_in_pieces_head_included_and_only_while_the_fault_is_in_force() {
    let sandbox = with(Effect::Pieces { bytes: 100, pause_ms: 10 });
    let mut stream = issuer(&sandbox);
    let began = tokio::time::Instant::now();
    let answer = ask(&mut stream);
    let pieces = u32::try_from(answer.len() / 100).unwrap();
    assert!(answer.contains("\"keys\"") && pieces >= 5, "{answer}");
    assert!(began.elapsed() >= Duration::from_millis(10) * pieces, "{:?}", began.elapsed());
    sandbox.faults().clear();
    let began = tokio::time::Instant::now();
    assert!(ask(&mut stream).contains("\"keys\""));
    assert!(began.elapsed() < Duration::from_millis(10) * pieces, "{:?}", began.elapsed());
}

#[test]
fn a_connection_that_nobody_accepts_is_made_and_silent() {
    let sandbox = with(Effect::HangInAccept);
    let mut stream = issuer(&sandbox);
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    write!(stream, "GET /openid/v1/jwks HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(sandbox.calls().is_empty());
    sandbox.faults().clear();
    assert!(ask(&mut issuer(&sandbox)).contains("\"keys\""));
}

#[test]
fn a_handshake_that_hangs_has_begun() {
    let sandbox = Sandbox::start(Options { tls: true, ..Options::default() }).unwrap();
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::HangInTls)]);
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut hello = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut stream = connect(sandbox.eks_auth_tls_url().unwrap());
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    hello.write_tls(&mut stream).unwrap();
    let mut got = [0; 4096];
    let length = stream.read(&mut got).unwrap();
    // A record of type handshake, longer than what comes of it.
    assert!(got[0] == 22 && length < 5 + usize::from(u16::from_be_bytes([got[3], got[4]])), "{length}");
    assert_eq!(stream.read(&mut got).unwrap_err().kind(), ErrorKind::WouldBlock);
    // Without TLS there is no handshake.
    let token = sandbox.pod(PodSpec::default()).unwrap().token;
    assert_eq!(assumed(&sandbox, &token).unwrap().status, 200);
}

#[test]
fn an_answer_without_date_is_right_otherwise() {
    let sandbox = sandbox();
    let token = sandbox.pod(PodSpec::default()).unwrap().token;
    assert!(assumed(&sandbox, &token).unwrap().header("date").is_some());
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::NoDate)]);
    let answer = assumed(&sandbox, &token).unwrap();
    assert_eq!((answer.status, answer.header("date")), (200, None), "{answer:?}");
}

#[test]
fn every_answer_of_eks_auth_has_a_request_id_that_is_noted_and_a_proxys_has_neither_id_nor_code() {
    let sandbox = sandbox();
    let token = sandbox.pod(PodSpec::default()).unwrap().token;
    let status =
        |status, code: &str| Effect::Status { status, code: code.to_owned(), message: "m".to_owned() };
    for effect in [
        None,
        Some(status(503, "ServiceUnavailableException")),
        Some(status(400, "AccessDeniedException")),
        Some(Effect::Throttle { max_concurrent: 0 }),
        Some(Effect::BadJson),
    ] {
        sandbox.faults().set(effect.clone().map(|effect| Fault::new(Service::EksAuth, effect)));
        let answer = assumed(&sandbox, &token).unwrap();
        let id = answer.header("x-amzn-requestid");
        assert!(id.is_some_and(|id| id.len() == 36), "{effect:?}: {answer:?}");
        assert_eq!(sandbox.calls().last().unwrap().request_id.as_deref(), id, "{effect:?}");
    }
    for status in [200, 403, 407, 502] {
        sandbox.faults().set([Fault::new(Service::EksAuth, Effect::ProxyError { status })]);
        let answer = assumed(&sandbox, &token).unwrap();
        assert_eq!(answer.status, status);
        assert!(answer.body.starts_with("<html>"), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/html"));
        let of_aws = answer.headers.iter().find(|(name, _)| name.starts_with("x-amzn"));
        assert_eq!(of_aws, None, "{answer:?}");
        let call = sandbox.calls().pop().unwrap();
        assert_eq!((call.status, call.code, call.request_id), (Some(status), None, None));
    }
    sandbox.faults().clear();
    sandbox.set_switches(Switches { node_role_denied: true, ..Switches::default() });
    assert!(assumed(&sandbox, &token).unwrap().header("x-amzn-requestid").is_some());
}
