//! IMDS speaks version 2 only, and its credentials are those EKS Auth honours.

use std::time::Duration;

use sandbox::{AwsCredentials, PodSpec, Sandbox};

use crate::client::{Answer, Request, assume, sandbox};

const ROLE: &str = "/latest/meta-data/iam/security-credentials/";

fn session(sandbox: &Sandbox, ttl: &str) -> Answer {
    let url = format!("{}/latest/api/token", sandbox.imds_url());
    Request::new("PUT", url, "").header("x-aws-ec2-metadata-token-ttl-seconds", ttl).send().unwrap()
}

fn get(sandbox: &Sandbox, path: &str, token: &str) -> Answer {
    let url = format!("{}{path}", sandbox.imds_url());
    Request::new("GET", url, "").header("x-aws-ec2-metadata-token", token).send().unwrap()
}

fn credentials(sandbox: &Sandbox) -> AwsCredentials {
    let token = session(sandbox, "60").body;
    let role = get(sandbox, ROLE, &token).body;
    let body = get(sandbox, &format!("{ROLE}{role}"), &token).json();
    assert_eq!((&body["Code"], &body["Type"]), (&"Success".into(), &"AWS-HMAC".into()));
    assert!(body["Expiration"].as_str().unwrap().ends_with('Z'));
    let member = |name: &str| body[name].as_str().unwrap().to_owned();
    assert!(member("Token").len() >= 1000);
    AwsCredentials {
        access_key_id: member("AccessKeyId"),
        secret_access_key: member("SecretAccessKey"),
        session_token: Some(member("Token")),
        expires_at: None,
    }
}

#[test]
fn the_nodes_credentials_are_honoured_by_eks_auth_and_replaced_when_they_lapse() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let first = credentials(&sandbox);
    let asked =
        |credentials| assume(&sandbox, &pod.token).sign(credentials, "eks-auth", 0).send().unwrap().status;
    assert_eq!(asked(&first), 200);
    assert_eq!(credentials(&sandbox), first, "the same until shortly before they lapse");
    sandbox.expire_node_credentials(Duration::from_mins(10));
    let second = credentials(&sandbox);
    assert_ne!(second, first);
    assert_eq!((asked(&first), asked(&second)), (403, 200));
}

#[test]
fn after_a_revocation_it_gives_the_revoked_set_until_it_catches_up() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let first = credentials(&sandbox);
    sandbox.revoke_node_credentials();
    assert_eq!(credentials(&sandbox), first);
    assert_eq!(assume(&sandbox, &pod.token).sign(&first, "eks-auth", 0).send().unwrap().status, 403);
    sandbox.imds_catches_up();
    let second = credentials(&sandbox);
    assert_eq!(assume(&sandbox, &pod.token).sign(&second, "eks-auth", 0).send().unwrap().status, 200);
}

#[test]
fn nothing_is_told_without_a_session() {
    let sandbox = sandbox();
    for bad in ["0", "21601", "", "x"] {
        assert_eq!(session(&sandbox, bad).status, 400, "{bad}");
    }
    let url = format!("{}{ROLE}", sandbox.imds_url());
    assert_eq!(Request::new("GET", url, "").send().unwrap().status, 401);
    assert_eq!(get(&sandbox, ROLE, "guessed").status, 401);
    let url = format!("{}/latest/meta-data/placement/region", sandbox.imds_url());
    assert_eq!(Request::new("GET", url, "").send().unwrap().status, 401);
}

#[test]
fn the_nodes_place_is_told() {
    let sandbox = sandbox();
    let token = session(&sandbox, "21600").body;
    let told = |path: &str| get(&sandbox, &format!("/latest/meta-data/{path}"), &token);
    assert_eq!(told("placement/region").body, "us-west-2");
    assert_eq!(told("placement/availability-zone-id").body, "usw2-az1");
    assert!(told("instance-id").body.starts_with("i-0"));
    assert_eq!(told("nothing").status, 404);
    assert_eq!(told("iam/security-credentials/another").status, 404);
}
