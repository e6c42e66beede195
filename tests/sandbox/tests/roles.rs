//! Associations and the roles they name: EKS Auth assumes what trusts it, and chains to a target role.

use sandbox::{Association, Options, PodSpec, Role, Sandbox};
use serde_json::{Value, json};

use crate::client::{Answer, Request, assumed, credentials, sandbox};

const FIRST: &str = "arn:aws:iam::111122223333:role/app";
const TARGET: &str = "arn:aws:iam::444455556666:role/target";

fn app() -> Association {
    Association::new("default", "app", FIRST)
}

fn with(association: Association) -> Sandbox {
    Sandbox::start(Options { associations: vec![association], ..Options::default() }).unwrap()
}

fn ask(sandbox: &Sandbox) -> Answer {
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    assumed(sandbox, &pod.token).unwrap()
}

fn denied(sandbox: &Sandbox) -> bool {
    ask(sandbox).error() == (400, "AccessDeniedException")
}

/// A trust policy for EKS, with these actions and this condition.
fn for_eks(actions: &Value, condition: &Value) -> Role {
    let principal = json!({ "Service": "pods.eks.amazonaws.com" });
    let statement =
        json!({ "Effect": "Allow", "Principal": principal, "Action": actions, "Condition": condition });
    Role::new(FIRST, json!({ "Version": "2012-10-17", "Statement": statement }))
}

#[test]
fn a_known_role_must_trust_eks_with_both_actions() {
    let sandbox = sandbox();
    assert_eq!(ask(&sandbox).status, 200, "a role that IAM does not know");
    let both = json!(["sts:AssumeRole", "sts:TagSession"]);
    let of =
        |namespace: &str| json!({ "StringEquals": { "aws:RequestTag/kubernetes-namespace": namespace } });
    for (role, is_denied) in [
        (Role::trusting_pod_identity(FIRST), false),
        (for_eks(&json!("sts:AssumeRole"), &json!({})), true),
        (for_eks(&both, &of("default")), false),
        (for_eks(&both, &of("shop")), true),
        (for_eks(&both, &json!({ "StringEquals": { "aws:SourceAccount": "111122223333" } })), false),
        (Role::trusting(FIRST, "default/app", sandbox.issuer_url(), "sts.amazonaws.com"), true),
    ] {
        sandbox.set_role(role.clone()).unwrap();
        assert_eq!(denied(&sandbox), is_denied, "{role:?}");
    }
}

#[test]
fn a_session_has_six_tags_unless_they_are_disabled() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let key = credentials(&assumed(&sandbox, &pod.token).unwrap()).access_key_id;
    let tags = sandbox.session_of(&key).unwrap().tags;
    let expected = [
        ("eks-cluster-arn", "arn:aws:eks:us-west-2:111122223333:cluster/sandbox"),
        ("eks-cluster-name", "sandbox"),
        ("kubernetes-namespace", "default"),
        ("kubernetes-pod-name", "app-0"),
        ("kubernetes-pod-uid", &pod.uid),
        ("kubernetes-service-account", "app"),
    ];
    let tags: Vec<_> = tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(tags, expected);

    let policy = Some(r#"{"Version":"2012-10-17","Statement":[]}"#.to_owned());
    let sandbox = with(Association { disable_session_tags: true, policy: policy.clone(), ..app() });
    sandbox.set_role(for_eks(&json!("sts:AssumeRole"), &json!({}))).unwrap();
    let session = sandbox.session_of(&credentials(&ask(&sandbox)).access_key_id).unwrap();
    assert!(session.tags.is_empty(), "and without tags TagSession is not needed");
    assert_eq!(session.policy, policy);
}

#[test]
fn a_target_role_must_trust_the_first_with_the_external_id_and_lives_59_minutes() {
    let association = Association { target_role_arn: Some(TARGET.to_owned()), ..app() };
    let sandbox = with(association.clone());
    let external_id = association.external_id(sandbox.options());
    for (role, is_denied) in [
        (Role::trusting_role(TARGET, FIRST, &external_id), false),
        (Role::trusting_role(TARGET, FIRST, "another"), true),
        (Role::trusting_role(TARGET, "arn:aws:iam::111122223333:role/other", &external_id), true),
        (Role::trusting_role(TARGET, "arn:aws:iam::111122223333:root", &external_id), false),
        (Role::trusting_pod_identity(TARGET), true),
    ] {
        sandbox.set_role(role.clone()).unwrap();
        assert_eq!(denied(&sandbox), is_denied, "{role:?}");
    }
    sandbox.set_role(Role::trusting_role(TARGET, FIRST, &external_id)).unwrap();
    let answer = ask(&sandbox);
    let body = answer.json();
    let arn = body["assumedRoleUser"]["arn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:sts::444455556666:assumed-role/target/eks-sandbox-app-0-"), "{arn}");
    let now = sandbox.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let life = body["credentials"]["expiration"].as_u64().unwrap() - now;
    assert!((3538..=3540).contains(&life), "{life}");
    let session = sandbox.session_of(&credentials(&answer).access_key_id).unwrap();
    assert_eq!((session.role_arn.as_str(), session.tags.len()), (TARGET, 6), "the tags are transitive");
    sandbox.set_role(Role::trusting(FIRST, "a/b", sandbox.issuer_url(), "x")).unwrap();
    assert!(denied(&sandbox), "the first role must trust EKS as well");
}

#[test]
fn the_control_port_changes_roles_and_providers() {
    let sandbox = sandbox();
    let control = |method, path: &str, body: &str| {
        Request::new(method, format!("{}{path}", sandbox.control_url()), body).send().unwrap()
    };
    let role = json!({ "arn": FIRST, "trustPolicy": { "Version": "2012-10-17", "Statement": [] } });
    let answer = control("PUT", "/roles", &role.to_string());
    assert_eq!(answer.json()[0]["maxSessionDuration"], 3600, "{answer:?}");
    assert!(denied(&sandbox), "a policy without statements trusts nobody");
    assert_eq!(sandbox.roles()[0].arn, FIRST);
    assert_eq!(control("GET", "/roles", "").json()[0]["arn"], FIRST);
    let escaped = FIRST.replace('/', "%2F");
    assert_eq!(control("DELETE", &format!("/roles/{escaped}"), "").json(), json!({ "removed": true }));
    assert_eq!(control("DELETE", &format!("/roles/{FIRST}"), "").json(), json!({ "removed": false }));
    assert_eq!(ask(&sandbox).status, 200);

    let provider = sandbox.oidc_provider();
    assert_eq!(control("GET", "/oidc-providers", "").json(), json!([provider]));
    let removed = control("DELETE", &format!("/oidc-providers/{}", provider.arn), "");
    assert_eq!(removed.json(), json!({ "removed": true }));
    let body = json!({ "arn": provider.arn, "clientIds": ["another"] }).to_string();
    assert_eq!(control("PUT", "/oidc-providers", &body).json()[0]["clientIds"], json!(["another"]));

    for (method, path, body, says) in [
        ("PUT", "/roles", r#"{"arn":"a","trustPolicy":{},"x":1}"#, "unknown field `x`"),
        ("PUT", "/roles", r#"{"arn":"a","trustPolicy":{}}"#, "is not arn:aws:iam"),
        ("PUT", "/oidc-providers", r#"{"arn":"https://a","clientIds":[]}"#, "oidc-provider"),
        ("POST", "/roles", "", "there is no POST /roles"),
        ("DELETE", "/roles", "", "there is no DELETE /roles"),
    ] {
        let answer = control(method, path, body);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains(says), "{answer:?}");
    }
}

#[test]
fn the_control_port_makes_pods_for_any_audience() {
    let sandbox = sandbox();
    let pod = |body: &str| {
        let request = Request::new("POST", format!("{}/pods", sandbox.control_url()), body);
        request.send().unwrap().json()
    };
    let (usual, other) = (pod(""), pod(r#"{"audience":"sts.amazonaws.com"}"#));
    assert_ne!(usual["uid"], other["uid"]);
    assert_eq!(pod(r#"{"audience":"sts.amazonaws.com"}"#), other);
    let token = std::fs::read_to_string(other["tokenFile"].as_str().unwrap()).unwrap();
    assert_eq!(assumed(&sandbox, &token).unwrap().error(), (400, "InvalidTokenException"));
}
