//! Kubernetes Events about pods: for whom they are written, and for whom not.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sandbox::{PodSpec, Sandbox, TokenKey, TokenSpec};
use serde_json::Value;
use tokio::time::timeout;

use crate::harness::{Agent, ApiServer, Builder, eventually, pod, sandbox};

/// An agent with keys, at an API server that knows these pods.
async fn start(sandbox: &Sandbox, api: &ApiServer, switch: &str) -> Agent {
    let agent = Builder::verifying(sandbox)
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", &api.port.to_string())
        .flag("--kubernetes-credentials", api.folder.to_str().unwrap())
        .flag("--node-name", sandbox.node_name())
        .switch(switch)
        .start()
        .await;
    eventually("pods and keys are known", async || {
        let pods = agent.metric(r#"pod_identity_agent_condition{condition="pods"}"#).await;
        (pods, agent.metric("pod_identity_agent_token_keys").await) == (1, 1)
    })
    .await;
    agent
}

#[tokio::test]
async fn a_pod_without_an_association_gets_an_event_that_says_what_to_run_if_events_are_on() {
    for (switch, is_written) in [("--kubernetes-events", true), ("--kubernetes-events=false", false)] {
        let sandbox = sandbox();
        sandbox.set_associations(Vec::new()).unwrap();
        let app = pod(&sandbox, "app-0");
        let mut api = ApiServer::start(sandbox.dir(), &[("default", "app-0", &app.uid)]).await;
        let agent = start(&sandbox, &api, switch).await;
        assert_eq!(agent.ask(&app.token).await.status, 403);
        let event = timeout(Duration::from_secs(if is_written { 10 } else { 2 }), api.next()).await;
        assert_eq!(event.is_ok(), is_written, "{switch}");
        let Ok(event) = event else { continue };
        assert_eq!(event["reason"], "NoPodIdentityAssociation");
        assert_eq!(event["regarding"]["uid"], *app.uid);
        assert_eq!(event["metadata"]["namespace"], "default");
        assert_eq!(event["reportingInstance"], sandbox.node_name());
        let note = event["note"].as_str().unwrap();
        assert!(note.contains("--namespace default --service-account app --role-arn"), "{note}");
        eventually("it is counted", async || {
            agent.metric(r#"pod_identity_agent_events_total{outcome="posted"}"#).await == 1
        })
        .await;
    }
}

/// The pod that a token is of, or says that it is of.
fn uid_of(token: &str) -> String {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["kubernetes.io"]["pod"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_forger_writes_no_events_and_a_wrong_audience_is_one_where_a_key_proves_the_pod() {
    let sandbox = sandbox();
    let foreign = |key| {
        let spec = TokenSpec::new(PodSpec::default()).audiences(&["sts.amazonaws.com"]).key(key);
        sandbox.token(&spec).unwrap()
    };
    let forged = [TokenKey::Stray, TokenKey::Forged, TokenKey::Unsigned].map(foreign);
    let genuine = foreign(TokenKey::Current);
    // All of them are there, so that it is the key alone that makes the difference.
    let uids: Vec<_> = forged.iter().chain([&genuine]).map(|token| uid_of(token)).collect();
    let pods: Vec<_> = uids.iter().map(|uid| ("default", "app-0", &**uid)).collect();
    let mut api = ApiServer::start(sandbox.dir(), &pods).await;
    let agent = start(&sandbox, &api, "--kubernetes-events").await;
    for token in forged.iter().chain([&genuine]) {
        assert_eq!(agent.ask(token).await.status, 400);
    }
    let event = timeout(Duration::from_secs(10), api.next()).await.expect("an Event");
    assert_eq!(event["reason"], "WrongTokenAudience");
    assert_eq!(event["regarding"]["uid"], *uid_of(&genuine), "and no forger's before");
    assert!(timeout(Duration::from_secs(1), api.next()).await.is_err());
}
