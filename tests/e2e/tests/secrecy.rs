//! Invariant 9: a whole run at trace level, with every kind of secret in play, and none of them anywhere.

use nix::sys::signal::Signal;
use sandbox::{Effect, Fault, Pod, PodSpec, Sandbox, Service};
use std::time::Duration;

use crate::harness::{Agent, Answer, Builder, Request, eventually, failing, heal, pod, sandbox};

/// A part of a secret that cannot occur by chance, and does not depend on how it is cut or encoded at its
/// ends.
fn middle(secret: &str) -> &str {
    let from = secret.len() / 2;
    &secret[from..(from + 20).min(secret.len())]
}

/// All that the agent says while things go wrong in every way that has a secret at hand, and the tokens that
/// were sent.
async fn trouble(sandbox: &Sandbox, agent: &Agent, app: &Pod) -> (String, Vec<String>) {
    let mut seen = String::new();
    let mut tokens = vec![app.token.clone()];
    let effects = [
        failing(400, "AccessDeniedException"),
        failing(403, "InvalidSignatureException"),
        Effect::BadJson,
        Effect::ResetMidBody,
    ];
    for effect in effects {
        sandbox.faults().set([Fault::new(Service::EksAuth, effect).times(2)]);
        let other = pod(sandbox, "app-1");
        seen += &unless_served(agent.ask(&other.token).await);
        tokens.push(other.token.clone());
    }
    // IMDS sends rubbish at the moment in which the agent must renew its own credentials.
    sandbox.faults().set([Fault::new(Service::Imds, Effect::BadJson)]);
    sandbox.expire_node_credentials(Duration::from_secs(3600));
    seen += &unless_served(agent.ask(&pod(sandbox, "app-2").token).await);
    heal(sandbox);
    let stranger = PodSpec { service_account: "nobody".to_owned(), ..PodSpec::default() };
    let stranger = sandbox.pod(stranger).unwrap();
    seen += &unless_served(agent.ask(&stranger.token).await);
    tokens.push(stranger.token.clone());
    seen += &unless_served(agent.ask(&format!("{}!", app.token)).await);
    let elsewhere = Request::credentials(&app.token).header("Host", "evil");
    seen += &unless_served(elsewhere.send(agent.address()).await.unwrap());
    (seen, tokens)
}

/// A success is for the pod, and may hold secrets; everything else may not.
fn unless_served(answer: Answer) -> String {
    if answer.status == 200 { String::new() } else { answer.reason + &answer.body }
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
    for printing in ["LOG_SENSITIVE_BODIES", "SSLKEYLOGFILE"] {
        assert!(!environment.contains(printing), "{printing} was not removed");
    }
    let app = pod(&sandbox, "app-0");
    agent.ask(&app.token).await.access_key_id();
    let (mut seen, tokens) = trouble(&sandbox, &agent, &app).await;
    seen += &agent.metrics().await;
    seen += &agent.probe("/readyz").await.unwrap().body;
    agent.signal(Signal::SIGTERM);
    agent.ended(Duration::from_secs(3)).await;
    seen += &agent.log();

    let mut secrets = sandbox.secrets();
    for kind in ["imds session token", "node's secret key", "node's session token", "pod's secret key"] {
        assert!(secrets.iter().any(|(name, _)| name == kind), "{kind} was in play");
    }
    secrets.extend(tokens.into_iter().map(|token| ("pod token".to_owned(), token)));
    secrets.push(("proxy password".to_owned(), "planted-proxy-password".to_owned()));
    assert!(
        seen.contains("effective configuration") && seen.contains("\"level\":\"debug\""),
        "logged at trace"
    );
    for (name, secret) in &secrets {
        assert!(!seen.contains(middle(secret)), "{name} was found in the output");
    }
    assert!(!sandbox.dir().join("keys").exists(), "TLS keys were written to a file");
}

/// Mistakes of an admin who pastes what `aws sts` prints, or edits by hand: the variable that names the file,
/// and the file.
fn malformed_files() -> [(&'static str, String); 6] {
    let [key, secret, token] = PASTED;
    let good = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    let json =
        format!("{{\"AccessKeyId\":\"{key}\",\"SecretAccessKey\":\"{secret}\",\"Token\":\"{token}\"}}");
    let credentials = "AWS_SHARED_CREDENTIALS_FILE";
    [
        (credentials, format!("[default]\n{json}\n")),
        (credentials, format!("{good}aws_session_token: {token}\n")),
        (credentials, format!("{good}aws_session_token =\n  {token}\n  {token}\n")),
        (credentials, format!("{good}aws_session_token {token}\n")),
        (credentials, format!("{good}[{secret}\" {token}]\naws_session_token = x\n")),
        (
            "AWS_CONFIG_FILE",
            format!("{good}[services s]\naws_session_token =\n  {}\n", token.replace('=', "")),
        ),
    ]
}

/// An access key id, a secret key and a session token.
const PASTED: [&str; 3] =
    ["ASIAPASTED", "pasted/secret+key0123456789=", "pasted/session+token0123456789abcdefghijklmnop=="];

#[tokio::test]
async fn a_malformed_credentials_file_is_told_of_without_its_lines() {
    for (variable, text) in malformed_files() {
        let sandbox = sandbox();
        let path = sandbox.dir().join("malformed");
        std::fs::write(&path, &text).unwrap();
        let agent = Builder::new(&sandbox)
            .flag("--verbosity", "trace")
            .env("RUST_LOG", "trace")
            .env(variable, path.to_str().unwrap())
            .spawn();
        eventually("it is told", async || agent.log().contains("is not `name = value`")).await;
        let _refused = agent.ask(&pod(&sandbox, "app-0").token).await;
        let ready = agent.probe("/readyz").await.unwrap().body;
        let seen = (agent.log() + &ready + &agent.metrics().await).to_lowercase();
        for secret in &PASTED[1..] {
            // The SDK writes names in small letters, and what it takes for a name may be a secret.
            assert!(!seen.contains(&middle(secret).to_lowercase()), "{secret} of\n{text}\nis in\n{seen}");
        }
    }
}
