//! AssumeRoleWithWebIdentity: a token becomes a role if issuer, audience, time and trust policy agree, and is
//! refused for the one that does not.

use std::time::Duration;

use sandbox::{
    AwsCredentials, Effect, Fault, Match, OidcProvider, Options, Pod, PodSpec, Role, Sandbox, Service,
    Switches, TokenKey, TokenSpec,
};

use crate::client::{Answer, Request, assume_web_identity, element, sandbox};

const ROLE: &str = "arn:aws:iam::111122223333:role/irsa/app";
const AUDIENCE: &str = "sts.amazonaws.com";

/// A sandbox with a role that trusts default/app, and a pod of it.
fn with_role() -> (Sandbox, Pod) {
    let sandbox = sandbox();
    trust(&sandbox, "default/app");
    let pod = sandbox.pod_for(PodSpec::default(), AUDIENCE).unwrap();
    (sandbox, pod)
}

fn trust(sandbox: &Sandbox, service_account: &str) {
    sandbox.set_role(Role::trusting(ROLE, service_account, sandbox.issuer_url(), AUDIENCE)).unwrap();
}

fn ask(sandbox: &Sandbox, token: &str) -> Request {
    assume_web_identity(sandbox, token, &[("RoleArn", ROLE), ("RoleSessionName", "app")])
}

fn error(answer: &Answer) -> (u16, String, String) {
    (answer.status, element(answer, "Code"), element(answer, "Message"))
}

/// What STS says to a token that differs from a good one.
fn refusal(sandbox: &Sandbox, spec: &TokenSpec) -> (u16, String, String) {
    error(&ask(sandbox, &sandbox.token(spec).unwrap()).send().unwrap())
}

fn good() -> TokenSpec {
    TokenSpec::new(PodSpec::default()).audiences(&[AUDIENCE])
}

fn invalid(message: &str) -> (u16, String, String) {
    (400, "InvalidIdentityToken".to_owned(), message.to_owned())
}

fn denied() -> (u16, String, String) {
    (403, "AccessDenied".to_owned(), "Not authorized to perform sts:AssumeRoleWithWebIdentity".to_owned())
}

#[test]
fn a_trusted_token_earns_credentials_that_name_role_and_session() {
    let (sandbox, pod) = with_role();
    let answer = ask(&sandbox, &pod.token).send().unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/xml")), "{answer:?}");
    assert_eq!(answer.header("x-amzn-requestid").unwrap(), element(&answer, "RequestId"));
    let date = httpdate::parse_http_date(answer.header("date").unwrap()).unwrap();
    let format = &time::format_description::well_known::Rfc3339;
    let expiration = time::OffsetDateTime::parse(&element(&answer, "Expiration"), format).unwrap();
    let life = std::time::SystemTime::from(expiration).duration_since(date).unwrap();
    assert!(life.as_secs().abs_diff(3600) <= 1, "{life:?}");
    let arn = "arn:aws:sts::111122223333:assumed-role/app/app";
    assert_eq!(element(&answer, "Arn"), arn);
    let id = element(&answer, "AssumedRoleId");
    assert!(id.starts_with("AROA") && id.ends_with(":app"), "{id}");
    assert_eq!(element(&answer, "SubjectFromWebIdentityToken"), "system:serviceaccount:default:app");
    assert_eq!(element(&answer, "Audience"), AUDIENCE);
    assert_eq!(element(&answer, "Provider"), sandbox.oidc_provider().arn);
    assert_eq!(element(&answer, "PackedPolicySize"), "0");

    let credentials = AwsCredentials {
        access_key_id: element(&answer, "AccessKeyId"),
        secret_access_key: element(&answer, "SecretAccessKey"),
        session_token: Some(element(&answer, "SessionToken")),
        expires_at: None,
    };
    let query = "Action=GetCallerIdentity&Version=2011-06-15";
    let who = Request::new("POST", format!("{}/", sandbox.sts_url()), query);
    let who = who.sign(&credentials, "sts", 0).send().unwrap();
    assert_eq!((element(&who, "Arn").as_str(), element(&who, "UserId")), (arn, id));
    assert_eq!(sandbox.holder_of(&credentials.access_key_id), Some(PodSpec::default()));
    assert_eq!(sandbox.session_of(&credentials.access_key_id).unwrap().role_arn, ROLE);
}

#[test]
fn a_token_that_is_wrong_in_one_point_is_refused_for_that_point() {
    let (sandbox, pod) = with_role();
    let elsewhere = "https://oidc.eks.us-west-2.amazonaws.com/id/0".to_owned();
    let no_key = "Couldn't retrieve verification key from your identity provider,  please reference \
                  AssumeRoleWithWebIdentity documentation for requirements";
    for (spec, expected) in [
        (good().audiences(&["pods.eks.amazonaws.com"]), invalid("Incorrect token audience")),
        (good().audiences(&[]), invalid("Incorrect token audience")),
        (good().key(TokenKey::Stray), invalid(no_key)),
        (good().key(TokenKey::Forged), invalid("Token signature is not valid")),
        (good().key(TokenKey::Unsigned), invalid("Token signature is not valid")),
        (good().not_yet_valid(), invalid("Token is not valid yet")),
        (
            TokenSpec { issuer: Some(elsewhere.clone()), ..good() },
            invalid(&format!("No OpenIDConnect provider found in your account for {elsewhere}")),
        ),
        (TokenSpec { pod: PodSpec::new("default", "other", "app-0"), ..good() }, denied()),
        (TokenSpec { pod: PodSpec::new("other", "app", "app-0"), ..good() }, denied()),
    ] {
        assert_eq!(refusal(&sandbox, &spec), expected, "{spec:?}");
    }
    let (status, code, message) = refusal(&sandbox, &good().expired());
    assert_eq!((status, code.as_str()), (400, "ExpiredTokenException"));
    assert!(message.starts_with("Token expired: current date/time 1"), "{message}");
    assert!(message.contains(" must be before the expiration date/time 1"), "{message}");
    let not_a_token = error(&ask(&sandbox, "nonsense").send().unwrap());
    assert_eq!((not_a_token.0, not_a_token.1.as_str()), (400, "InvalidIdentityToken"));
    assert_eq!(ask(&sandbox, &pod.token).send().unwrap().status, 200);
}

#[test]
fn any_audience_that_the_provider_takes_will_do_and_the_trust_policy_sees_that_one() {
    let (sandbox, _) = with_role();
    let token = sandbox.token(&good().audiences(&["vault", AUDIENCE])).unwrap();
    let answer = ask(&sandbox, &token).send().unwrap();
    assert_eq!((answer.status, element(&answer, "Audience")), (200, AUDIENCE.to_owned()));
    let (issuer, account) = (sandbox.issuer_url().to_owned(), "111122223333");
    sandbox.set_oidc_provider(OidcProvider::new(account, &issuer, &["vault"])).unwrap();
    assert_eq!(refusal(&sandbox, &good()), invalid("Incorrect token audience"));
    assert_eq!(refusal(&sandbox, &good().audiences(&["vault"])), denied(), "the trust policy says another");
}

#[test]
fn the_provider_is_the_one_of_the_roles_account_and_can_be_removed() {
    let (sandbox, pod) = with_role();
    let no_provider =
        invalid(&format!("No OpenIDConnect provider found in your account for {}", sandbox.issuer_url()));
    let elsewhere = ROLE.replace("111122223333", "444455556666");
    sandbox.set_role(Role::trusting(&elsewhere, "default/app", sandbox.issuer_url(), AUDIENCE)).unwrap();
    let parameters = [("RoleArn", elsewhere.as_str()), ("RoleSessionName", "app")];
    let ask_elsewhere = || assume_web_identity(&sandbox, &pod.token, &parameters).send().unwrap();
    assert_eq!(error(&ask_elsewhere()), no_provider);
    let provider = OidcProvider::new("444455556666", sandbox.issuer_url(), &[AUDIENCE]);
    sandbox.set_oidc_provider(provider).unwrap();
    assert_eq!(ask_elsewhere().status, 200);

    assert!(sandbox.remove_oidc_provider(&sandbox.oidc_provider().arn).unwrap());
    assert_eq!(error(&ask(&sandbox, &pod.token).send().unwrap()), no_provider);
    sandbox.set_oidc_provider(sandbox.oidc_provider()).unwrap();
    assert_eq!(ask(&sandbox, &pod.token).send().unwrap().status, 200);
    assert!(sandbox.remove_role(ROLE).unwrap());
    assert_eq!(error(&ask(&sandbox, &pod.token).send().unwrap()), denied());
}

#[test]
fn what_the_model_does_not_allow_is_a_validation_error_and_long_sessions_need_the_role() {
    let (sandbox, pod) = with_role();
    let with = |name: &str, value: &str| {
        let mut parameters = vec![("RoleArn", ROLE), ("RoleSessionName", "app")];
        parameters.retain(|(other, _)| *other != name);
        parameters.push((name, value));
        assume_web_identity(&sandbox, &pod.token, &parameters).send().unwrap()
    };
    for (name, value) in [
        ("RoleArn", "arn:aws:iam::111122223333:user/app"),
        ("RoleSessionName", "a/b"),
        ("DurationSeconds", "899"),
        ("DurationSeconds", "43201"),
        ("DurationSeconds", "3601"),
        ("Tags.member.1.Key", "a"),
    ] {
        let answer = with(name, value);
        assert_eq!(
            (answer.status, element(&answer, "Code")),
            (400, "ValidationError".to_owned()),
            "{name} {value}"
        );
    }
    assert_eq!(element(&with("Policy", "{"), "Code"), "MalformedPolicyDocument");
    assert_eq!(element(&with("DurationSeconds", "900"), "PackedPolicySize"), "0");
    let role =
        Role::trusting(ROLE, "default/app", sandbox.issuer_url(), AUDIENCE).max_session_duration(43_200);
    sandbox.set_role(role).unwrap();
    let answer = with("DurationSeconds", "43200");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_change_of_iam_is_seen_late_if_so_wanted_and_a_region_can_be_switched_off() {
    let (sandbox, pod) = with_role();
    sandbox.set_switches(Switches { iam_delay_seconds: 10, ..Switches::default() });
    trust(&sandbox, "default/other");
    assert_eq!(ask(&sandbox, &pod.token).send().unwrap().status, 200, "the old trust policy is seen");
    sandbox.set_clock_ahead(10);
    assert_eq!(error(&ask(&sandbox, &pod.token).send().unwrap()), denied());

    sandbox.set_switches(Switches { sts_region_disabled: true, ..Switches::default() });
    let (status, code, message) = error(&ask(&sandbox, &pod.token).send().unwrap());
    assert_eq!((status, code.as_str()), (403, "RegionDisabledException"));
    assert!(
        message.starts_with("STS is not activated in this region for account:111122223333."),
        "{message}"
    );
}

#[test]
fn calls_and_faults_know_the_pod_and_the_session() {
    let (sandbox, pod) = with_role();
    let other = sandbox.pod_for(PodSpec::new("default", "other", "other-0"), AUDIENCE).unwrap();
    let outage =
        Effect::Status { status: 503, code: "ServiceUnavailable".to_owned(), message: "m".to_owned() };
    let matching = Match { pod: Some("other-0".to_owned()), ..Match::default() };
    sandbox.faults().set([Fault::new(Service::Sts, outage).matching(matching).times(1)]);
    assert_eq!(ask(&sandbox, &pod.token).send().unwrap().status, 200);
    assert_eq!(ask(&sandbox, &other.token).send().unwrap().status, 503);
    assert_eq!(ask(&sandbox, &other.token).send().unwrap().status, 403, "the fault is spent");
    let call = &sandbox.calls_for(&pod)[0];
    assert_eq!((call.operation.as_str(), call.status), ("AssumeRoleWithWebIdentity", Some(200)));
    assert_eq!((call.role_arn.as_deref(), call.session_name.as_deref()), (Some(ROLE), Some("app")));
    assert!(call.request_id.is_some());
    let codes: Vec<_> = sandbox.calls_for(&other).into_iter().map(|call| call.code).collect();
    assert_eq!(codes, [Some("ServiceUnavailable".to_owned()), Some("AccessDenied".to_owned())]);

    sandbox.faults().set([Fault::new(Service::Sts, Effect::DateSkew { seconds: 900 })]);
    let date = ask(&sandbox, &pod.token).send().unwrap().header("date").unwrap().to_owned();
    let ahead = httpdate::parse_http_date(&date).unwrap().duration_since(sandbox.now()).unwrap();
    assert!(ahead > Duration::from_secs(890), "{ahead:?}");
}

#[test]
fn above_a_limit_sts_throttles_with_400_and_its_own_code() {
    let (sandbox, pod) = with_role();
    sandbox.faults().set([
        Fault::new(Service::Sts, Effect::Throttle { max_concurrent: 1 }),
        Fault::new(Service::Sts, Effect::Latency { ms: 300, jitter_ms: 0 }),
    ]);
    let request = ask(&sandbox, &pod.token);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| request.send().unwrap())).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let throttled: Vec<_> = answers.iter().filter(|answer| answer.status != 200).map(error).collect();
    assert_eq!(throttled, vec![(400, "Throttling".to_owned(), "Rate exceeded".to_owned()); 2]);
    assert_eq!(sandbox.concurrency_of(Service::Sts).max, 3);
}

#[test]
fn a_token_of_no_pod_is_not_taken_for_the_node() {
    let (sandbox, _) = with_role();
    let token = sandbox.token(&good().without_pod_claims()).unwrap();
    let answer = ask(&sandbox, &token).send().unwrap();
    assert_eq!(answer.status, 200, "STS knows nothing of pods: {answer:?}");
    let credentials = AwsCredentials {
        access_key_id: element(&answer, "AccessKeyId"),
        secret_access_key: element(&answer, "SecretAccessKey"),
        session_token: Some(element(&answer, "SessionToken")),
        expires_at: None,
    };
    let for_pod = sandbox.pod(PodSpec::default()).unwrap();
    let as_node =
        crate::client::assume(&sandbox, &for_pod.token).sign(&credentials, "eks-auth", 0).send().unwrap();
    assert_eq!(as_node.error(), (403, "AccessDeniedException"));
}

#[test]
fn sts_is_served_over_https_too() {
    let sandbox = Sandbox::start(Options { tls: true, ..Options::default() }).unwrap();
    for name in ["127.0.0.1", "sts.us-west-2.amazonaws.com", "eks-auth.us-west-2.api.aws"] {
        let answer = crate::faults::over_https(&sandbox, sandbox.sts_tls_url().unwrap(), name);
        assert!(answer.starts_with("HTTP/1.1 403"), "{name}: {answer}");
    }
}
