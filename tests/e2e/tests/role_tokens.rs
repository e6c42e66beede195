//! Tokens for roles: of keys that are gone, and for audiences that nobody serves or that have changed.

use std::time::Duration;

use sandbox::{Effect, Fault, OidcProvider, PodSpec, Service};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{ApiServer, eventually, sandbox};
use crate::web_identity::{
    AUDIENCE, READER, asking_sts, file, map_of, mapping, pod, sts_calls, trust_app, until_keys, write,
};

const KEYS: &str = "pod_identity_agent_token_keys";

#[tokio::test]
async fn a_key_that_is_withdrawn_leaves_a_token_what_sts_granted_to_it_and_fetches_nothing() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let agent = mapping(&sandbox, &map_of(READER)).start().await;
    let mut app = pod(&sandbox, "app-0");
    let granted = app.token.clone();
    let held = agent.ask(&granted).await.access_key_id();
    app.rotate_token().expect("a token");
    assert_eq!(agent.ask(&app.token).await.access_key_id(), held, "verified, and STS never saw it");
    sandbox.rotate_keys(true).expect("a key");
    // A token of the new key has the keys read again; the old one is gone with that.
    let new = pod(&sandbox, "app-1");
    assert_eq!(agent.ask(&new.token).await.status, 200);
    assert_eq!(agent.metric(KEYS).await, 1);
    for _ in 0..3 {
        assert_eq!(agent.ask(&granted).await.access_key_id(), held, "{}", agent.log());
    }
    let never_granted = agent.ask(&app.token).await;
    assert_eq!(never_granted.status, 503, "only a key said that it is the same pod: {never_granted:?}");
    assert_eq!(never_granted.json()["message"], "The token cannot be verified at this time; try again");
    assert_eq!(sts_calls(&sandbox).len(), 2, "one for each pod");
    // The kubelet brings a token of the new key.
    app.rotate_token().expect("a token");
    assert_eq!(agent.ask(&app.token).await.access_key_id(), held);
}

#[tokio::test]
async fn where_verification_is_required_a_token_of_eks_keeps_what_it_earned_as_well() {
    let sandbox = sandbox();
    let agent =
        crate::harness::Builder::verifying(&sandbox).flag("--token-verification", "required").start().await;
    let app = crate::harness::pod(&sandbox, "app-0");
    let held = agent.ask(&app.token).await.access_key_id();
    sandbox.rotate_keys(true).expect("a key");
    assert_eq!(agent.ask(&crate::harness::pod(&sandbox, "app-1").token).await.status, 200);
    assert_eq!(agent.ask(&app.token).await.access_key_id(), held);
    assert_eq!(crate::harness::eks_auth_calls(&sandbox).len(), 2, "it is shown to nobody");
}

#[tokio::test]
async fn a_token_for_nobody_here_is_told_what_is_served_in_the_answer_and_in_an_event() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let app = sandbox.pod_for(PodSpec::new("default", "app", "app-0"), "vault").expect("a pod");
    let mut api = ApiServer::start(sandbox.dir(), &[("default", "app-0", &app.uid)]).await;
    let agent = mapping(&sandbox, &map_of(READER))
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", &api.port.to_string())
        .flag("--kubernetes-credentials", api.folder.to_str().expect("UTF-8"))
        .switch("--kubernetes-events")
        .start()
        .await;
    until_keys(&agent).await;
    eventually("the pods are known", async || {
        agent.metric(r#"pod_identity_agent_condition{condition="pods"}"#).await == 1
    })
    .await;
    let refused = agent.ask(&app.token).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let both = "it is for vault, and this agent serves pods.eks.amazonaws.com, sts.amazonaws.com";
    let message = refused.json()["message"].as_str().expect("a text").to_owned();
    assert!(message.contains(both) && message.contains("--web-identity-audience"), "{message}");
    let event = tokio::time::timeout(Duration::from_secs(10), api.next()).await.expect("an Event");
    assert_eq!(event["reason"], "WrongTokenAudience", "{event}");
    let note = event["note"].as_str().expect("a note");
    assert!(note.contains(both) && note.contains("--web-identity-audience"), "{note}");
}

fn for_audience(audience: &str) -> Value {
    json!({"default/app": {"RoleARN": READER, "Audience": audience}})
}

#[tokio::test]
async fn another_audience_of_the_role_leaves_running_pods_their_credentials_and_says_what_to_do() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let agent = mapping(&sandbox, &for_audience(AUDIENCE)).start().await;
    let app = pod(&sandbox, "app-0");
    let held = agent.ask(&app.token).await.access_key_id();
    let map = sandbox.dir().join("role-map.json");
    write(&map, &for_audience("vault"));
    eventually("it is told", async || {
        agent.log().contains("role map entry default/app: its role is for tokens")
    })
    .await;
    let new = agent.ask(&pod(&sandbox, "app-1").token).await;
    assert_eq!(new.status, 400, "{new:?}");
    let message = new.json()["message"].as_str().expect("a text").to_owned();
    for says in ["role is vault", "for sts.amazonaws.com", "--web-identity-audience"] {
        assert!(message.contains(says), "{message}");
    }
    // Two reads 10 s apart.
    sleep(Duration::from_secs(17)).await;
    for _ in 0..3 {
        assert_eq!(agent.ask(&app.token).await.access_key_id(), held, "{}", agent.log());
    }
    let log = agent.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("a role can be given to nobody")).collect();
    assert_eq!(told.len(), 1, "once: {told:?}");
    assert!(
        told[0].contains("this agent serves sts.amazonaws.com; name the former by --web-identity-audience")
    );
}

#[tokio::test]
async fn a_pod_that_is_as_young_as_its_identity_provider_starts_without_an_error() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let provider = OidcProvider::new("111122223333", sandbox.issuer_url(), &[AUDIENCE]);
    sandbox.remove_oidc_provider(&provider.arn).expect("a provider");
    let map = file(&sandbox, "role-map.json", &map_of(READER));
    let agent = asking_sts(&sandbox).flag("--role-map", &map).start().await;
    until_keys(&agent).await;
    let app = pod(&sandbox, "app-0");
    let (answer, ()) = tokio::join!(agent.ask(&app.token), async {
        sleep(Duration::from_millis(1_500)).await;
        sandbox.set_oidc_provider(provider).expect("a provider");
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(sts_calls(&sandbox).len() >= 3, "it was asked again meanwhile");
    // A token that is no good is not asked about again: a newer one is what helps.
    let (status, code) = (400, "InvalidIdentityToken".to_owned());
    let invalid = Effect::Status { status, code, message: "Token signature is not valid".to_owned() };
    sandbox.faults().set([Fault::new(Service::Sts, invalid)]);
    let before = sts_calls(&sandbox).len();
    assert_eq!(agent.ask(&pod(&sandbox, "app-1").token).await.status, 400);
    assert_eq!(sts_calls(&sandbox).len() - before, 1);
}
