//! STS tells the holder of credentials who they are, and nobody else.

use sandbox::{Association, Options, PodSpec, Sandbox};

use crate::client::{Answer, Request, assumed, credentials, element, node, sandbox};

const QUERY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

fn ask(sandbox: &Sandbox) -> Request {
    Request::new("POST", format!("{}/", sandbox.sts_url()), QUERY)
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, element(answer, "Code"))
}

#[test]
fn a_pod_hears_the_role_it_was_given_by_either_method() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let granted = assumed(&sandbox, &pod.token).unwrap();
    let arn = granted.json()["assumedRoleUser"]["arn"].as_str().unwrap().to_owned();
    let get = Request::new("GET", format!("{}/?{QUERY}", sandbox.sts_url()), "");
    for request in [ask(&sandbox), get] {
        let answer = request.sign(&credentials(&granted), "sts", 0).send().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains(&format!("<Arn>{arn}</Arn>")), "{answer:?}");
        assert!(answer.body.contains("<Account>111122223333</Account>"), "{answer:?}");
    }
    let calls = sandbox.calls_for(&pod);
    assert_eq!(calls.last().unwrap().operation, "GetCallerIdentity");
    let answer = ask(&sandbox).sign(&node(&sandbox), "sts", 0).send().unwrap();
    assert!(answer.body.contains("assumed-role/sandbox-node/i-0"), "{answer:?}");
}

#[test]
fn wrong_credentials_are_told_apart() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let good = credentials(&assumed(&sandbox, &pod.token).unwrap());
    let answer =
        |credentials: &_, service| code(&ask(&sandbox).sign(credentials, service, 0).send().unwrap());
    let mut unknown = good.clone();
    unknown.access_key_id = "ASIAUNKNOWN".to_owned();
    assert_eq!(answer(&unknown, "sts"), (403, "InvalidClientTokenId".to_owned()));
    let mut other_token = good.clone();
    other_token.session_token = Some("another".to_owned());
    assert_eq!(answer(&other_token, "sts"), (403, "InvalidClientTokenId".to_owned()));
    let mut wrong = good.clone();
    wrong.secret_access_key = "wrong".to_owned();
    assert_eq!(answer(&wrong, "sts"), (403, "SignatureDoesNotMatch".to_owned()));
    assert_eq!(answer(&good, "eks-auth"), (403, "SignatureDoesNotMatch".to_owned()));
    let unsigned = code(&ask(&sandbox).send().unwrap());
    assert_eq!(unsigned, (403, "MissingAuthenticationToken".to_owned()));
    let mut other = ask(&sandbox);
    other.body = other.body.replace("GetCallerIdentity", "GetSessionToken");
    let other = code(&other.sign(&good, "sts", 0).send().unwrap());
    assert_eq!(other, (400, "InvalidAction".to_owned()));
}

#[test]
fn lapsed_credentials_are_expired() {
    let lapsed = Association {
        lifetime_seconds: Some(0),
        ..Association::new("default", "app", "arn:aws:iam::111122223333:role/app")
    };
    let sandbox = Sandbox::start(Options { associations: vec![lapsed], ..Options::default() }).unwrap();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let credentials = credentials(&assumed(&sandbox, &pod.token).unwrap());
    let answer = ask(&sandbox).sign(&credentials, "sts", 0).send().unwrap();
    assert_eq!(code(&answer), (403, "ExpiredToken".to_owned()));
}
