//! Roles that the cluster gives: by annotations of service accounts and by the role map, from the SDK to STS.
//!
//! Each test looks at the agent's access log or its calls: none can pass without the agent.

use std::path::Path;
use std::time::Duration;

use sandbox::{Call, Effect, Fault, OidcProvider, Pod, PodSpec, Role, Sandbox, Service, Session};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::clients::{built, go, lines, python, run, script};
use crate::harness::{Agent, ApiServer, Builder, eks_auth_calls, eventually, sandbox};

pub(crate) const READER: &str = "arn:aws:iam::111122223333:role/team/reader";
pub(crate) const WRITER: &str = "arn:aws:iam::111122223333:role/writer";
pub(crate) const AUDIENCE: &str = "sts.amazonaws.com";
const ROLE_ARN: &str = "eks.amazonaws.com/role-arn";
const TOKEN_EXPIRATION: &str = "eks.amazonaws.com/token-expiration";

/// A pod of service account `app` with a token for STS.
pub(crate) fn pod(sandbox: &Sandbox, name: &str) -> Pod {
    sandbox.pod_for(PodSpec::new("default", "app", name), AUDIENCE).expect("a pod")
}

/// The roles, each trusting service account `app`.
pub(crate) fn trust_app(sandbox: &Sandbox) {
    for role in [READER, WRITER] {
        let role = Role::trusting(role, "default/app", sandbox.issuer_url(), AUDIENCE);
        sandbox.set_role(role).expect("a role");
    }
}

pub(crate) fn sts_calls(sandbox: &Sandbox) -> Vec<Call> {
    let calls = sandbox.calls_of(Service::Sts).into_iter();
    calls.filter(|call| call.operation == "AssumeRoleWithWebIdentity").collect()
}

/// A file with this content.
pub(crate) fn file(sandbox: &Sandbox, name: &str, content: &Value) -> String {
    let path = sandbox.dir().join(name);
    write(&path, content);
    path.to_str().expect("UTF-8").to_owned()
}

/// As a ConfigMap is changed: in one step.
pub(crate) fn write(path: &Path, content: &Value) {
    let next = path.with_extension("next");
    std::fs::write(&next, content.to_string()).expect("a file");
    std::fs::rename(next, path).expect("a file");
}

pub(crate) fn map_of(role: &str) -> Value {
    json!({"default/app": {"RoleARN": role}})
}

pub(crate) fn asking_sts(sandbox: &Sandbox) -> Builder {
    Builder::verifying(sandbox).flag("--sts-endpoint", sandbox.sts_url())
}

/// An agent with a role map.
pub(crate) fn mapping(sandbox: &Sandbox, map: &Value) -> Builder {
    asking_sts(sandbox).flag("--role-map", &file(sandbox, "role-map.json", map))
}

/// An agent that reads annotations at this API server.
fn reading(sandbox: &Sandbox, api: &ApiServer) -> Builder {
    asking_sts(sandbox)
        .switch("--service-account-roles")
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", &api.port.to_string())
        .flag("--kubernetes-credentials", api.folder.to_str().expect("UTF-8"))
        .switch("--kubernetes-events")
}

/// The session that these credentials are of.
pub(crate) fn session_of(sandbox: &Sandbox, access_key_id: &str) -> Session {
    sandbox.session_of(access_key_id).expect("credentials of the sandbox")
}

pub(crate) async fn until_keys(agent: &Agent) {
    eventually("the keys are known", async || agent.metric("pod_identity_agent_token_keys").await == 1).await;
}

#[tokio::test]
async fn boto3_the_aws_cli_and_the_sdks_for_rust_and_go_get_the_role_that_the_map_gives_their_pod() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let agent = mapping(&sandbox, &map_of(READER)).start().await;
    let app = pod(&sandbox, "app-0");
    let mut boto3 = Command::new(python("python"));
    boto3.arg(script());
    let mut cli = Command::new(python("aws"));
    cli.args(["sts", "get-caller-identity", "--query", "Arn", "--output", "text"]);
    for client in [boto3, cli, Command::new(built("who-am-i")), Command::new(go())] {
        let output = run(client, &sandbox, &agent, &app).await;
        let arn = lines(&output)[0];
        assert_eq!(arn, "arn:aws:sts::111122223333:assumed-role/reader/default.app-0");
    }
    assert_eq!(sts_calls(&sandbox).len(), 1, "one set for all four, from the agent");
    let log = agent.log();
    let access = log.lines().find(|line| line.contains(r#""target":"access""#)).expect("an access line");
    assert!(access.contains("app-0"), "{access}");
}

#[tokio::test]
async fn an_annotated_pod_gets_its_role_and_a_pod_that_comes_after_a_change_gets_the_new_one() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let api = ApiServer::start(sandbox.dir(), &[]).await;
    let first = pod(&sandbox, "app-0");
    api.set_service_account("app", &first.service_account_uid, &[(ROLE_ARN, READER)]);
    let agent = reading(&sandbox, &api).start().await;
    let answer = agent.ask(&first.token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(session_of(&sandbox, &answer.access_key_id()).role_arn, READER);
    let annotations = [(ROLE_ARN, WRITER), (TOKEN_EXPIRATION, "600")];
    api.set_service_account("app", &first.service_account_uid, &annotations);
    for name in ["app-1", "app-2"] {
        let answer = agent.ask(&pod(&sandbox, name).token).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(session_of(&sandbox, &answer.access_key_id()).role_arn, WRITER);
    }
    let said = r#""annotated_seconds":600"#;
    assert_eq!(agent.log().matches(said).count(), 1, "that the agent does not shorten tokens, once");
}

#[tokio::test]
async fn without_a_role_the_answer_and_an_event_say_so_and_an_annotation_helps_within_ten_seconds() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let app = pod(&sandbox, "app-0");
    let mut api = ApiServer::start(sandbox.dir(), &[("default", "app-0", &app.uid)]).await;
    api.set_service_account("app", &app.service_account_uid, &[]);
    let agent = reading(&sandbox, &api).start().await;
    until_keys(&agent).await;
    eventually("the pods are known", async || {
        agent.metric(r#"pod_identity_agent_condition{condition="pods"}"#).await == 1
    })
    .await;
    let answer = agent.ask(&app.token).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.json()["message"], "No annotation or map entry gives this service account a role");
    let event = timeout(Duration::from_secs(10), api.next()).await.expect("an Event");
    assert_eq!(event["reason"], "NoRoleForServiceAccount", "{event}");
    api.set_service_account("app", &app.service_account_uid, &[(ROLE_ARN, READER)]);
    eventually("it has its role", async || agent.ask(&app.token).await.status == 200).await;
}

#[tokio::test]
async fn an_annotation_that_is_taken_away_ends_the_role_and_an_api_server_that_is_away_does_not() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let api = ApiServer::start(sandbox.dir(), &[]).await;
    let app = pod(&sandbox, "app-0");
    api.set_service_account("app", &app.service_account_uid, &[(ROLE_ARN, READER)]);
    let agent = reading(&sandbox, &api).start().await;
    let key = agent.ask(&app.token).await.access_key_id();
    api.set_away(true);
    // A new pod of an account that is known is served by what is known.
    let late = agent.ask(&pod(&sandbox, "app-1").token).await;
    assert_eq!(late.status, 200, "{late:?}");
    assert_eq!(agent.ask(&app.token).await.access_key_id(), key);
    // One of an account that nobody has read is told to come again.
    let stranger = sandbox.pod_for(PodSpec::new("default", "other", "other-0"), AUDIENCE).expect("a pod");
    let answer = agent.ask(&stranger.token).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    api.set_service_account("app", &app.service_account_uid, &[]);
    api.set_away(false);
    // Another pod has the account read again at once; that alone ends nothing for those that have the role.
    let read_at = Instant::now();
    agent.ask(&pod(&sandbox, "app-2").token).await;
    assert_eq!(agent.ask(&app.token).await.access_key_id(), key);
    // By a second read ten seconds after the first one.
    let ended = async {
        while agent.ask(&app.token).await.status != 403 {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(20), ended).await.expect("the role has ended");
    assert!(read_at.elapsed() >= Duration::from_secs(10), "{:?}", read_at.elapsed());
}

#[tokio::test]
async fn each_usual_mistake_gets_its_sentence() {
    let sandbox = sandbox();
    let agent = mapping(&sandbox, &map_of(READER)).start().await;
    until_keys(&agent).await;
    let says = async |what: &str, status: u16, code: &str, sentence: &str| {
        // A refusal is remembered for a moment, by identity.
        let app = pod(&sandbox, &format!("app-{what}"));
        let answer = timeout(Duration::from_secs(10), agent.ask(&app.token)).await.expect("an answer");
        let body = answer.json();
        assert!(answer.status != 503, "{}", agent.log());
        assert_eq!((answer.status, body["code"].as_str()), (status, Some(code)), "{what}: {body}");
        assert!(body["message"].as_str().expect("a text").starts_with(sentence), "{what}: {body}");
    };
    let trust = "STS refuses: the role's trust policy must allow this sub and aud: ";
    says("no-role", 400, "AccessDenied", trust).await;
    let role = Role::trusting(READER, "default/other", sandbox.issuer_url(), AUDIENCE);
    sandbox.set_role(role).expect("a role");
    says("sub", 400, "AccessDenied", trust).await;
    let role = Role::trusting(READER, "default/app", sandbox.issuer_url(), "mine");
    sandbox.set_role(role).expect("a role");
    says("aud", 400, "AccessDenied", trust).await;
    trust_app(&sandbox);
    let provider = OidcProvider::new("111122223333", sandbox.issuer_url(), &["mine"]);
    sandbox.set_oidc_provider(provider.clone()).expect("a provider");
    let rejects = "STS rejects the token: check the OIDC provider in the account: ";
    says("client-id", 400, "InvalidIdentityToken", rejects).await;
    sandbox.remove_oidc_provider(&provider.arn).expect("a provider");
    says("provider", 400, "InvalidIdentityToken", rejects).await;
    let provider = OidcProvider::new("111122223333", sandbox.issuer_url(), &[AUDIENCE]);
    sandbox.set_oidc_provider(provider).expect("a provider");
    for (code, status, sentence) in [
        ("RegionDisabledException", 403, "STS is not active in this region for the account of the role: "),
        ("IDPRejectedClaim", 403, "STS rejects the token: its identity provider does: "),
        ("ValidationError", 400, "STS finds the request invalid: check the ARN of the role: "),
        ("ExpiredTokenException", 400, "The token has expired: read the token file again: "),
    ] {
        let effect = Effect::Status { status, code: code.to_owned(), message: "no".to_owned() };
        sandbox.faults().set([Fault::new(Service::Sts, effect)]);
        says(code, 400, code, sentence).await;
        sandbox.faults().clear();
    }
}

#[tokio::test]
async fn an_outage_of_sts_is_noticed_by_nobody_who_holds_credentials_and_costs_eks_auth_nothing() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    // Renewals are due all the time, so that STS is asked while it is away.
    let retention = ("--max-credential-retention-before-renewal", "2s");
    let agent = mapping(&sandbox, &map_of(READER)).flag(retention.0, retention.1).start().await;
    let (held, new) = (pod(&sandbox, "app-0"), pod(&sandbox, "app-1"));
    assert_eq!(agent.ask(&held.token).await.status, 200);
    let (status, code) = (503, "ServiceUnavailable".to_owned());
    let failing = Fault::new(Service::Sts, Effect::Status { status, code, message: "no".to_owned() });
    sandbox.faults().set([failing]);
    let asked_before = sts_calls(&sandbox).len();
    // A set may have been on its way when the outage began.
    sleep(Duration::from_millis(200)).await;
    let key = agent.ask(&held.token).await.access_key_id();
    let notices_nothing = async || {
        let answer = agent.ask(&held.token).await;
        assert_eq!((answer.status, answer.access_key_id()), (200, key.clone()));
    };
    eventually("a renewal has failed", async || {
        notices_nothing().await;
        sts_calls(&sandbox).len() > asked_before
    })
    .await;
    notices_nothing().await;
    let waiting = agent.ask(&new.token).await;
    assert_eq!(waiting.status, 503, "{waiting:?}");
    assert_eq!(waiting.json()["message"], "AWS is unreachable or failing; try again");
    let app_2 = crate::harness::pod(&sandbox, "app-2");
    assert_eq!(agent.ask(&app_2.token).await.status, 200);
    let calls = async |source: &str, outcome: &str| {
        let labels = format!(r#"source="{source}",outcome="{outcome}""#);
        agent.metric(&format!("pod_identity_agent_upstream_calls_total{{{labels}}}")).await
    };
    assert!(calls("web-identity", "server_error").await > 0, "the source of these failures can be seen");
    assert_eq!((calls("eks-auth", "server_error").await, calls("web-identity", "ok").await), (0, 1));
    // On a slow machine app-2's own renewal is among them. EKS Auth is asked for no other pod.
    let asked = eks_auth_calls(&sandbox);
    let is_of_app_2 = |call: &Call| call.pod.as_ref() == Some(&app_2.spec) && call.code.is_none();
    assert!(!asked.is_empty() && asked.iter().all(is_of_app_2), "{asked:?}");
    sandbox.faults().clear();
    eventually("it heals", async || agent.ask(&new.token).await.status == 200).await;
}

#[tokio::test]
async fn a_role_is_given_to_nobody_for_a_claim() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let app = pod(&sandbox, "app-0");
    // No key of this cluster: what Auto would leave to EKS Auth is nobody's to judge here.
    let empty = file(&sandbox, "keys.json", &json!({"keys": []}));
    let agent = mapping(&sandbox, &map_of(READER)).flag("--jwks", &empty).start().await;
    let answer = agent.ask(&app.token).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(sts_calls(&sandbox).len(), 0);
}

#[tokio::test]
async fn a_map_is_read_again_a_bad_edit_changes_nothing_and_limits_deny_what_they_do_not_name() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let builder = mapping(&sandbox, &map_of(READER));
    let limits = file(&sandbox, "limits.json", &json!({"default": ["arn:aws:iam::*:role/team/*"]}));
    let agent = builder.flag("--role-limits", &limits).start().await;
    let app = pod(&sandbox, "app-0");
    let key = agent.ask(&app.token).await.access_key_id();
    let map = sandbox.dir().join("role-map.json");
    std::fs::write(&map, "{").expect("a file");
    eventually("the bad edit is told", async || {
        agent.metric(r#"pod_identity_agent_condition{condition="role-files"}"#).await == 0
    })
    .await;
    assert_eq!(agent.ask(&app.token).await.access_key_id(), key);
    assert_eq!(agent.ask(&pod(&sandbox, "app-1").token).await.status, 200, "the last good map is in force");
    write(&map, &map_of(WRITER));
    eventually("the new role is denied", async || {
        let answer = agent.ask(&pod(&sandbox, "app-2").token).await;
        answer.status == 403
            && answer.json()["message"] == "The role limits of this cluster do not allow this role here"
    })
    .await;
}

#[tokio::test]
async fn without_eks_the_agent_is_ready_and_serves_without_credentials_of_its_own() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let agent = mapping(&sandbox, &map_of(READER))
        .switch("--pod-identity=false")
        .without("--endpoint")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
        .start()
        .await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    let other = agent.ask(&crate::harness::pod(&sandbox, "app-1").token).await;
    assert_eq!(other.status, 400);
    let message = other.json()["message"].as_str().expect("a text").to_owned();
    for says in
        ["is for pods.eks.amazonaws.com, and this agent serves sts.amazonaws.com", "--pod-identity=false"]
    {
        assert!(message.contains(says), "{message}");
    }
    let metrics = agent.metrics().await;
    let of_sources: Vec<&str> = metrics.lines().filter(|line| line.contains("source=")).collect();
    let are_of_sts = of_sources.iter().all(|line| line.contains(r#"source="web-identity""#));
    assert!(of_sources.len() > 30 && are_of_sts, "a source that is off has no series: {of_sources:?}");
}

#[tokio::test]
async fn pods_of_one_session_name_have_credentials_of_their_own() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    for (names, expected) in [("service-account", "default.app"), ("fixed:kafka@prod", "kafka@prod")] {
        let agent = mapping(&sandbox, &map_of(READER)).flag("--session-name", names).start().await;
        let keys = [
            agent.ask(&pod(&sandbox, "app-0").token).await.access_key_id(),
            agent.ask(&pod(&sandbox, "app-1").token).await.access_key_id(),
        ];
        assert_ne!(keys[0], keys[1]);
        for key in keys {
            assert_eq!(session_of(&sandbox, &key).name, expected);
        }
    }
}
