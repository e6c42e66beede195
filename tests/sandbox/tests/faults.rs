//! Every fault, seen from the other end of the socket.

use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use sandbox::{Effect, Fault, Match, Options, PodSpec, Sandbox, Service};

use crate::client::{Request, assume, assumed, node, sandbox};

fn with(effect: Effect) -> (Sandbox, String) {
    let sandbox = sandbox();
    let token = sandbox.pod(PodSpec::default()).unwrap().token;
    sandbox.faults().set([Fault::new(Service::EksAuth, effect)]);
    (sandbox, token)
}

#[test]
fn latency_delays_the_right_answer() {
    let (sandbox, token) = with(Effect::Latency { ms: 200, jitter_ms: 20 });
    let start = tokio::time::Instant::now();
    assert_eq!(assumed(&sandbox, &token).unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_status_comes_with_its_code_in_each_services_format_for_the_given_count() {
    let status =
        |status, code: &str| Effect::Status { status, code: code.to_owned(), message: "m".to_owned() };
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    for (number, code) in [
        (400, "InvalidRequestException"),
        (403, "ExpiredTokenException"),
        (500, "InternalServerException"),
        (503, "ServiceUnavailableException"),
    ] {
        sandbox.faults().set([Fault::new(Service::EksAuth, status(number, code)).times(1)]);
        assert_eq!(assumed(&sandbox, &pod.token).unwrap().error(), (number, code));
        assert_eq!(assumed(&sandbox, &pod.token).unwrap().status, 200);
    }
    sandbox.faults().set([
        Fault::new(Service::Sts, status(503, "ServiceUnavailable")),
        Fault::new(Service::Imds, status(404, "NotFound")),
    ]);
    let sts = Request::new("POST", format!("{}/", sandbox.sts_url()), "").send().unwrap();
    assert!(sts.status == 503 && sts.body.contains("<Code>ServiceUnavailable</Code>"), "{sts:?}");
    let imds = Request::new("PUT", format!("{}/latest/api/token", sandbox.imds_url()), "").send().unwrap();
    assert_eq!((imds.status, imds.body.as_str()), (404, "m"));
}

#[test]
fn throttling_meets_only_calls_above_the_number() {
    let (sandbox, token) = with(Effect::Throttle { max_concurrent: 2 });
    sandbox.faults().add(Fault::new(Service::EksAuth, Effect::Latency { ms: 300, jitter_ms: 0 })).unwrap();
    let request = assume(&sandbox, &token).sign(&node(&sandbox), "eks-auth", 0);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| request.send().unwrap())).collect();
        asked.into_iter().map(|asked| asked.join().unwrap().status).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 2, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 429).count(), 4, "{statuses:?}");
    assert_eq!((sandbox.concurrency().now, sandbox.concurrency().max), (0, 6));
    assert!(sandbox.calls().iter().any(|call| call.code.as_deref() == Some("ThrottlingException")));
}

#[test]
fn refused_connections_are_reset_before_an_answer() {
    let (sandbox, token) = with(Effect::Refuse);
    let error = assumed(&sandbox, &token).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
    assert!(sandbox.calls().is_empty());
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Refuse).times(1)]);
    assert!(assumed(&sandbox, &token).is_err());
    assert_eq!(assumed(&sandbox, &token).unwrap().status, 200);
}

#[test]
fn a_reset_cuts_the_body_in_the_middle() {
    use std::io::{Read as _, Write as _};
    let (sandbox, _) = with(Effect::Hang);
    sandbox.faults().set([Fault::new(Service::Imds, Effect::ResetMidBody)]);
    let address = sandbox.imds_url().trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 60";
    write!(stream, "PUT /latest/api/token HTTP/1.1\r\nhost: {address}\r\n{ttl}\r\n\r\n").unwrap();
    let mut got = Vec::new();
    let error = stream.read_to_end(&mut got).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let got = String::from_utf8(got).unwrap();
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("content-length: 56"), "{head}");
    assert_eq!(body.len(), 28);
    assert_eq!(sandbox.calls()[0].status, None);
}

#[test]
fn a_hanging_service_never_answers_and_its_call_ends_when_the_caller_leaves() {
    let (sandbox, token) = with(Effect::Hang);
    let address = sandbox.eks_auth_url().trim_start_matches("http://").to_owned();
    {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let body = format!(r#"{{"token":"{token}"}}"#);
        let path = "/clusters/sandbox/assume-role-for-pod-identity";
        write!(stream, "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(sandbox.concurrency().now, 1);
    }
    let left = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        sandbox.concurrency().now == 0
    });
    assert!(left, "the call is still counted");
    assert_eq!(sandbox.calls()[0].status, None);
}

#[test]
fn bad_json_is_a_200_that_does_not_parse() {
    let (sandbox, token) = with(Effect::BadJson);
    let answer = assumed(&sandbox, &token).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() > 500 && serde_json::from_str::<serde_json::Value>(&answer.body).is_err());
}

#[test]
fn a_skewed_date_is_off_by_the_given_seconds_and_the_rest_is_right() {
    let (sandbox, token) = with(Effect::DateSkew { seconds: -3600 });
    let answer = assumed(&sandbox, &token).unwrap();
    assert_eq!(answer.status, 200);
    let date = httpdate::parse_http_date(answer.header("date").unwrap()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the header is compared with the wall clock")]
    let behind = SystemTime::now().duration_since(date).unwrap().as_secs();
    assert!((3599..=3602).contains(&behind), "{behind}");
}

#[test]
fn a_match_spares_the_other_pods() {
    let sandbox = sandbox();
    let hit = sandbox.pod(PodSpec::new("default", "app", "app-1")).unwrap();
    let spared = sandbox.pod(PodSpec::default()).unwrap();
    let effect =
        Effect::Status { status: 500, code: "InternalServerException".to_owned(), message: String::new() };
    let matching = Match { pod: Some("app-1".to_owned()), ..Match::default() };
    sandbox.faults().set([Fault::new(Service::EksAuth, effect).matching(matching)]);
    assert_eq!(assumed(&sandbox, &hit.token).unwrap().status, 500);
    assert_eq!(assumed(&sandbox, &spared.token).unwrap().status, 200);
}

#[test]
fn https_speaks_under_the_ca_it_wrote_and_tls_1_2_if_nothing_else_is_offered() {
    for (tls_1_2_only, version) in [(false, "TLSv1_3"), (true, "TLSv1_2")] {
        let sandbox = Sandbox::start(Options { tls: true, tls_1_2_only, ..Options::default() }).unwrap();
        let answer = over_https(&sandbox, sandbox.eks_auth_tls_url().unwrap(), "127.0.0.1");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert_eq!(sandbox.tls_versions(), [version]);
    }
}

/// The beginning of what a service answers over https, by the name it is expected to prove.
pub(crate) fn over_https(sandbox: &Sandbox, url: &str, name: &'static str) -> String {
    use std::io::{Read as _, Write as _};
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(sandbox.ca_file()).unwrap()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let address = url.trim_start_matches("https://");
    let mut stream = rustls::StreamOwned::new(connection, std::net::TcpStream::connect(address).unwrap());
    write!(stream, "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = [0; 64];
    let length = stream.read(&mut text).unwrap();
    String::from_utf8_lossy(&text[..length]).into_owned()
}
