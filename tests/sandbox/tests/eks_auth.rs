//! EKS Auth judges as the real one does: who calls, what is asked, whose token, which role.

use std::time::Duration;

use sandbox::{
    Association, ErrorCodePlace, MissingAssociation, Options, PodSpec, Sandbox, Switches, TokenKey, TokenSpec,
};

use crate::client::{assume, assumed, credentials, node, sandbox};

#[test]
fn a_good_token_earns_credentials_with_every_member() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let answer = assumed(&sandbox, &pod.token).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("date").unwrap().ends_with(" GMT"));
    let body = answer.json();
    let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["assumedRoleUser", "audience", "credentials", "podIdentityAssociation", "subject"]);
    assert_eq!(body["subject"], serde_json::json!({"namespace": "default", "serviceAccount": "app"}));
    assert_eq!(body["audience"], "pods.eks.amazonaws.com");
    let arn = body["assumedRoleUser"]["arn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:sts::111122223333:assumed-role/app/eks-sandbox-app-0-"), "{arn}");
    let id = body["assumedRoleUser"]["assumeRoleId"].as_str().unwrap();
    assert!(id.starts_with("AROA") && id.contains(":eks-sandbox-app-0-"), "{id}");
    assert!(body["credentials"]["expiration"].is_i64());
    assert!(body["credentials"]["sessionToken"].as_str().unwrap().len() >= 1400);
}

#[test]
fn every_call_mints_new_credentials_with_the_lifetime_of_its_association() {
    let short = Association {
        lifetime_seconds: Some(900),
        ..Association::new("default", "app", "arn:aws:iam::111122223333:role/app")
    };
    let sandbox = Sandbox::start(Options { associations: vec![short], ..Options::default() }).unwrap();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let (first, second) = (assumed(&sandbox, &pod.token).unwrap(), assumed(&sandbox, &pod.token).unwrap());
    assert_ne!(credentials(&first).access_key_id, credentials(&second).access_key_id);
    let expiration = first.json()["credentials"]["expiration"].as_i64().unwrap();
    let date = httpdate::parse_http_date(first.header("date").unwrap()).unwrap();
    let now = i64::try_from(date.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert!((899..=901).contains(&(expiration - now)), "{}", expiration - now);
}

#[test]
fn the_caller_is_judged_first_and_always_with_403() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let request = assume(&sandbox, &pod.token);
    let good = node(&sandbox);
    let error = |request: crate::client::Request| {
        let answer = request.send().unwrap();
        let (status, code) = answer.error();
        (status, code.to_owned())
    };
    let forbidden = |code: &str| (403, code.to_owned());
    assert_eq!(error(request.clone()), forbidden("MissingAuthenticationTokenException"));
    let mut unknown = good.clone();
    unknown.access_key_id = "ASIAUNKNOWN".to_owned();
    assert_eq!(
        error(request.clone().sign(&unknown, "eks-auth", 0)),
        forbidden("UnrecognizedClientException")
    );
    let mut wrong = good.clone();
    wrong.secret_access_key = "wrong".to_owned();
    assert_eq!(error(request.clone().sign(&wrong, "eks-auth", 0)), forbidden("InvalidSignatureException"));
    let mut tampered = request.clone().sign(&good, "eks-auth", 0);
    tampered.body.push(' ');
    assert_eq!(error(tampered), forbidden("InvalidSignatureException"));
    for (service, skew) in [("sts", 0), ("eks-auth", 400), ("eks-auth", -400)] {
        assert_eq!(error(request.clone().sign(&good, service, skew)), forbidden("InvalidSignatureException"));
    }
    let pods = credentials(&assumed(&sandbox, &pod.token).unwrap());
    assert_eq!(error(request.clone().sign(&pods, "eks-auth", 0)), forbidden("AccessDeniedException"));
    sandbox.set_switches(Switches { node_role_denied: true, ..Switches::default() });
    assert_eq!(error(request.clone().sign(&good, "eks-auth", 0)), forbidden("AccessDeniedException"));
    sandbox.expire_node_credentials(Duration::from_hours(1));
    assert_eq!(error(request.sign(&good, "eks-auth", 0)), forbidden("ExpiredTokenException"));
}

#[test]
fn a_token_that_is_wrong_in_one_point_is_refused_for_that_point() {
    let sandbox = sandbox();
    let good = TokenSpec::new(PodSpec::default());
    let issuer = Some("https://oidc.eks.us-west-2.amazonaws.com/id/0".to_owned());
    for (spec, code) in [
        (good.clone().expired(), "ExpiredTokenException"),
        (good.clone().not_yet_valid(), "InvalidTokenException"),
        (good.clone().audiences(&["sts.amazonaws.com"]), "InvalidTokenException"),
        (good.clone().audiences(&[]), "InvalidTokenException"),
        (good.clone().audiences(&["pods.eks.amazonaws.com", "sts.amazonaws.com"]), "InvalidTokenException"),
        (good.clone().key(TokenKey::Stray), "InvalidTokenException"),
        (good.clone().key(TokenKey::Forged), "InvalidTokenException"),
        (good.clone().key(TokenKey::Unsigned), "InvalidParameterException"),
        (good.clone().without_pod_claims(), "InvalidTokenException"),
        (TokenSpec { issuer, ..good.clone() }, "InvalidTokenException"),
    ] {
        let answer = assumed(&sandbox, &sandbox.token(&spec).unwrap()).unwrap();
        assert_eq!(answer.error(), (400, code), "{spec:?}: {answer:?}");
    }
    assert_eq!(assumed(&sandbox, &sandbox.token(&good).unwrap()).unwrap().status, 200);
}

#[test]
fn associations_decide_and_can_change() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let stranger = sandbox.pod(PodSpec::new("default", "stranger", "s-0")).unwrap();
    assert_eq!(assumed(&sandbox, &stranger.token).unwrap().error(), (404, "ResourceNotFoundException"));
    let missing_association = MissingAssociation::AccessDenied;
    sandbox.set_switches(Switches { missing_association, ..Switches::default() });
    assert_eq!(assumed(&sandbox, &stranger.token).unwrap().error(), (400, "AccessDeniedException"));

    let refusing = Association {
        refuse: Some(sandbox::Refusal::AccessDenied),
        ..Association::new("default", "app", "arn:aws:iam::111122223333:role/app")
    };
    sandbox.set_associations(vec![refusing]).unwrap();
    assert_eq!(assumed(&sandbox, &pod.token).unwrap().error(), (400, "AccessDeniedException"));

    let mut elsewhere = assume(&sandbox, &pod.token);
    elsewhere.url = elsewhere.url.replace("/sandbox/", "/other/");
    let answer = elsewhere.sign(&node(&sandbox), "eks-auth", 0).send().unwrap();
    assert_eq!(answer.error(), (404, "ResourceNotFoundException"));
    assert!(answer.json()["message"].as_str().unwrap().contains("No cluster"), "{answer:?}");
}

#[test]
fn what_nobody_knows_for_certain_goes_either_way() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let fractional = Switches {
        fractional_expiration: true,
        workload_identity_provider: true,
        error_code_place: ErrorCodePlace::BodyType,
        ..Switches::default()
    };
    sandbox.set_switches(fractional);
    let body = assumed(&sandbox, &pod.token).unwrap().json();
    assert!(body["credentials"]["expiration"].as_f64().unwrap().fract() > 0.0);
    assert!(body["workloadIdentityProviderArn"].is_string());
    let answer = assume(&sandbox, &pod.token).send().unwrap();
    assert_eq!(answer.header("x-amzn-errortype"), None);
    assert_eq!(answer.json()["__type"], "MissingAuthenticationTokenException");
    sandbox.set_switches(Switches { error_code_place: ErrorCodePlace::BodyCode, ..Switches::default() });
    assert_eq!(
        assume(&sandbox, &pod.token).send().unwrap().json()["code"],
        "MissingAuthenticationTokenException"
    );
}

#[test]
fn calls_are_noted_with_their_pod_and_outcome() {
    let sandbox = sandbox();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let stranger = sandbox.pod(PodSpec::new("shop", "stranger", "s-0")).unwrap();
    assumed(&sandbox, &pod.token).unwrap();
    assumed(&sandbox, &stranger.token).unwrap();
    assert_eq!(sandbox.calls().len(), 2);
    let call = &sandbox.calls_for(&stranger)[0];
    assert_eq!((call.operation.as_str(), call.status), ("AssumeRoleForPodIdentity", Some(404)));
    assert_eq!(call.code.as_deref(), Some("ResourceNotFoundException"));
    assert_eq!(sandbox.calls_for(&pod)[0].code, None);
    sandbox.reset_calls();
    assert!(sandbox.calls().is_empty());
}

#[test]
fn node_credentials_from_options_are_honoured() {
    let credentials = sandbox::AwsCredentials {
        access_key_id: "ASIAFROMOPTIONS00000".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: Some("token".to_owned()),
        expires_at: None,
    };
    let static_node_credentials = Some(credentials.clone());
    let sandbox = Sandbox::start(Options { static_node_credentials, ..Options::default() }).unwrap();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let answer = assume(&sandbox, &pod.token).sign(&credentials, "eks-auth", 0).send().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let path = sandbox.credentials_file(&credentials).unwrap();
    let file = std::fs::read_to_string(path).unwrap();
    assert!(file.contains("[default]\naws_access_key_id = ASIAFROMOPTIONS00000\n"), "{file}");
}
