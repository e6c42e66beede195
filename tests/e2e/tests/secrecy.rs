//! Invariant 9: a whole run at trace level, with every kind of secret in play, and none of them anywhere.

use nix::sys::signal::Signal;
use sandbox::{Effect, Fault, PodSpec, Service};
use std::time::Duration;

use crate::harness::{Builder, Request, failing, heal, pod, sandbox};

/// A part of a secret that cannot occur by chance, and does not depend on how it is cut or encoded at its ends.
fn middle(secret: &str) -> &str {
    let from = secret.len() / 2;
    &secret[from..(from + 20).min(secret.len())]
}

#[tokio::test]
async fn no_planted_secret_is_in_any_log_metric_probe_or_error() {
    let sandbox = sandbox();
    let mut agent = Builder::new(&sandbox)
        .flag("--verbosity", "trace")
        .env("HTTPS_PROXY", "http://user:planted-proxy-password@127.0.0.1:9")
        .env("RUST_LOG", "trace")
        .env("LOG_SENSITIVE_BODIES", "true")
        .env("SSLKEYLOGFILE", sandbox.dir().join("keys").to_str().unwrap())
        .start()
        .await;
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", agent.pid())).unwrap();
    assert!(
        !environment.contains("LOG_SENSITIVE_BODIES") && !environment.contains("SSLKEYLOGFILE"),
        "{environment}"
    );
    let app = pod(&sandbox, "app-0");
    let mut seen = String::new();
    let mut secrets = vec![("pod token".to_owned(), app.token.clone())];
    secrets.push(("proxy password".to_owned(), "planted-proxy-password".to_owned()));

    let served = agent.ask(&app.token).await.json();
    for field in ["SecretAccessKey", "Token"] {
        secrets.push((field.to_owned(), served[field].as_str().unwrap().to_owned()));
    }
    for (name, secret) in sandbox.secrets() {
        secrets.push((name, secret));
    }
    assert!(secrets.iter().any(|(name, _)| name.contains("imds")), "an IMDS token was in play");
    assert!(secrets.iter().any(|(name, _)| name.contains("node")), "the node's own credentials were in play");

    // Every way in which something can go wrong with a secret at hand.
    for effect in [
        failing(400, "AccessDeniedException"),
        failing(403, "InvalidSignatureException"),
        Effect::BadJson,
        Effect::ResetMidBody,
    ] {
        sandbox.faults().set([Fault::new(Service::EksAuth, effect).times(2)]);
        let other = pod(&sandbox, "app-1");
        secrets.push(("pod token".to_owned(), other.token.clone()));
        seen += &agent.ask(&other.token).await.body;
    }
    // IMDS sends rubbish at the moment in which the agent must renew its own credentials.
    sandbox.faults().set([Fault::new(Service::Imds, Effect::BadJson)]);
    sandbox.expire_node_credentials(Duration::from_secs(3600));
    seen += &agent.ask(&pod(&sandbox, "app-2").token).await.body;
    heal(&sandbox);
    let stranger =
        sandbox.pod(PodSpec { service_account: "nobody".to_owned(), ..PodSpec::default() }).unwrap();
    secrets.push(("pod token".to_owned(), stranger.token.clone()));
    seen += &agent.ask(&stranger.token).await.body;
    let broken = format!("{}!", app.token);
    seen += &agent.ask(&broken).await.body;
    seen +=
        &Request::credentials(&app.token).header("Host", "evil").send(agent.address()).await.unwrap().body;
    seen += &agent.metrics().await;
    seen += &agent.probe("/readyz").await.unwrap().body;
    agent.signal(Signal::SIGTERM);
    agent.ended(Duration::from_secs(3)).await;
    seen += &agent.log();
    assert!(!sandbox.dir().join("keys").exists(), "TLS keys were written to a file");

    assert!(
        seen.contains("effective configuration") && seen.contains("\"level\":\"debug\""),
        "the run was logged at trace"
    );
    for (name, secret) in &secrets {
        assert!(!seen.contains(middle(secret)), "{name} was found in the output");
    }
}
