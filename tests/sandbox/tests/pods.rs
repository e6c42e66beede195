//! Pods: their uids, their token files, and that nothing is left of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sandbox::{PodSpec, Sandbox};
use serde_json::Value;

use crate::client::{assumed, sandbox};

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_token_looks_like_one_of_eks() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    assert!(pod.token.len() >= 1200, "{} characters", pod.token.len());
    assert_eq!(std::fs::read_to_string(&pod.token_file).unwrap(), pod.token);
    let header = part(&pod.token, 0);
    assert_eq!((header["alg"].as_str(), header["kid"].as_str().map(str::len)), (Some("RS256"), Some(40)));
    let claims = part(&pod.token, 1);
    assert_eq!(claims["iss"], sandbox.issuer_url());
    assert_eq!(claims["sub"], "system:serviceaccount:default:app");
    assert_eq!(claims["aud"], serde_json::json!(["pods.eks.amazonaws.com"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 86_400);
    assert_eq!((&claims["nbf"], claims["jti"].as_str().map(str::len)), (&claims["iat"], Some(36)));
    let private = &claims["kubernetes.io"];
    assert_eq!(private["pod"], serde_json::json!({"name": "app-0", "uid": pod.uid}));
    assert_eq!(private["serviceaccount"], serde_json::json!({"name": "app", "uid": pod.service_account_uid}));
    assert_eq!(private["node"], serde_json::json!({"name": pod.node_name, "uid": pod.node_uid}));
}

#[test]
fn a_rotated_token_takes_the_files_place_and_names_the_same_pod() {
    let sandbox = sandbox();
    let mut pod = sandbox.pod(PodSpec::default()).unwrap();
    let (path, old) = (pod.token_file.clone(), pod.token.clone());
    pod.rotate_token().unwrap();
    assert_eq!((&pod.token_file, std::fs::read_to_string(&path).unwrap()), (&path, pod.token.clone()));
    assert_ne!(pod.token, old);
    assert_eq!(part(&pod.token, 1)["kubernetes.io"], part(&old, 1)["kubernetes.io"]);
    assert_eq!(assumed(&sandbox, &old).unwrap().status, 200, "the old one stays valid");
}

#[test]
fn a_pod_made_again_is_another_pod_of_the_same_service_account() {
    let sandbox = sandbox();
    let first = sandbox.pod(PodSpec::default()).unwrap();
    let second = sandbox.pod(PodSpec::default()).unwrap();
    assert_ne!(first.uid, second.uid);
    assert_eq!(first.service_account_uid, second.service_account_uid);
    let path = first.token_file.clone();
    first.delete().unwrap();
    assert!(!path.exists() && second.token_file.exists());
}

#[test]
fn a_dropped_sandbox_leaves_no_directory_and_no_listener() {
    let sandbox = sandbox();
    let dir = sandbox.dir().to_owned();
    let address = sandbox.eks_auth_url().trim_start_matches("http://").to_owned();
    drop(sandbox.pod(PodSpec::default()).unwrap());
    drop(sandbox);
    assert!(!dir.exists());
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn it_starts_and_stops_inside_an_event_loop_of_the_test() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { drop(Sandbox::start(sandbox::Options::default()).unwrap()) });
}
