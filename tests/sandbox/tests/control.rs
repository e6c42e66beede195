//! The control port does what the library does, and answers mistakes with a sentence.

use sandbox::{Effect, Fault, PodSpec, Sandbox, Service};
use serde_json::{Value, json};

use crate::client::{Answer, Request, assumed, sandbox};

fn control(sandbox: &Sandbox, method: &'static str, path: &str, body: &str) -> Answer {
    Request::new(method, format!("{}{path}", sandbox.control_url()), body).send().unwrap()
}

#[test]
fn faults_are_set_listed_and_removed() {
    let sandbox = sandbox();
    let one = r#"{"service":"sts","effect":"hang"}"#;
    assert_eq!(control(&sandbox, "PUT", "/faults", one).status, 200);
    assert_eq!(sandbox.faults().list(), [Fault::new(Service::Sts, Effect::Hang)]);
    control(&sandbox, "POST", "/faults", r#"{"service":"imds","effect":"refuse","count":2}"#);
    let list = control(&sandbox, "GET", "/faults", "").json();
    assert_eq!(list[1], json!({"service": "imds", "effect": "refuse", "count": 2}));
    control(&sandbox, "PUT", "/faults", &format!("[{one},{one}]"));
    assert_eq!(sandbox.faults().list().len(), 2);
    control(&sandbox, "DELETE", "/faults", "");
    assert!(sandbox.faults().list().is_empty());
}

#[test]
fn mistakes_are_answered_with_a_sentence_and_change_nothing() {
    let sandbox = sandbox();
    for (method, path, body, says) in [
        ("PUT", "/faults", r#"{"service":"s3","effect":"hang"}"#, "unknown variant `s3`"),
        ("PUT", "/faults", r#"{"service":"sts","effect":"hang","count":0}"#, "at least 1"),
        ("PUT", "/faults", "{", "not what is expected"),
        ("POST", "/pods", r#"{"name":"x"}"#, "unknown field `name`"),
        ("PUT", "/switches", r#"{"missingAssociation":"x"}"#, "unknown variant `x`"),
        ("GET", "/nothing", "", "there is no GET /nothing"),
    ] {
        let answer = control(&sandbox, method, path, body);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains(says), "{answer:?}");
    }
    assert!(sandbox.faults().list().is_empty());
}

#[test]
fn pods_are_made_once_and_their_calls_listed() {
    let sandbox = sandbox();
    let first = control(&sandbox, "POST", "/pods", "").json();
    let again = control(&sandbox, "POST", "/pods", r#"{"namespace":"default"}"#).json();
    assert_eq!(first, again);
    assert_eq!((&first["serviceAccount"], &first["pod"]), (&json!("app"), &json!("app-0")));
    let token = std::fs::read_to_string(first["tokenFile"].as_str().unwrap()).unwrap();
    assert_eq!(assumed(&sandbox, &token).unwrap().status, 200);
    let calls = control(&sandbox, "GET", "/calls", "").json();
    assert_eq!(calls["calls"][0]["pod"], json!(PodSpec::default()));
    assert_eq!((&calls["calls"][0]["code"], &calls["eksAuthConcurrency"]["max"]), (&Value::Null, &json!(1)));
    control(&sandbox, "DELETE", "/calls", "");
    assert!(sandbox.calls().is_empty());
}

#[test]
fn keys_and_switches_are_turned_and_web_pages_are_not_heard() {
    let sandbox = sandbox();
    let kid = control(&sandbox, "POST", "/keys/rotate", r#"{"withdrawOld":true}"#).json()["kid"].clone();
    let keys = Request::new("GET", sandbox.jwks_url(), "").send().unwrap().json();
    assert_eq!((keys["keys"].as_array().unwrap().len(), &keys["keys"][0]["kid"]), (1, &kid));
    control(&sandbox, "PUT", "/switches", r#"{"missingAssociation":"access-denied"}"#);
    let stranger = sandbox.pod(PodSpec::new("default", "stranger", "s-0")).unwrap();
    assert_eq!(assumed(&sandbox, &stranger.token).unwrap().error(), (400, "AccessDeniedException"));
    assert_eq!(control(&sandbox, "GET", "/", "").json()["urls"]["eksAuth"], sandbox.eks_auth_url());
    let from_page = Request::new("POST", format!("{}/keys/rotate", sandbox.control_url()), "");
    assert_eq!(from_page.header("origin", "http://example.com").send().unwrap().status, 403);
}
