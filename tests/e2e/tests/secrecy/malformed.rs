//! Credentials files with mistakes of an admin who pastes what `aws sts` prints, or edits by hand.

use crate::harness::{Builder, eventually, pod, sandbox};

use super::planted::Planted;
use super::run::FORMATS;

/// An access key id, a secret key and a session token.
pub(super) const PASTED: [&str; 3] =
    ["ASIAPASTED", "pasted/secret+key0123456789=", "pasted/session+token0123456789abcdefghijklmnop=="];

/// The variable that names the file, and the file.
pub(super) fn files() -> [(&'static str, String); 6] {
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

#[tokio::test]
async fn a_malformed_credentials_file_is_told_of_without_its_lines() {
    let mut planted = Planted::default();
    planted.add("pasted secret key", PASTED[1]);
    planted.add("pasted session token", PASTED[2]);
    for (number, (variable, text)) in files().into_iter().enumerate() {
        let sandbox = sandbox();
        let path = sandbox.dir().join("malformed");
        std::fs::write(&path, &text).unwrap();
        let agent = Builder::new(&sandbox)
            .flag("--verbosity", "trace")
            .flag("--log-format", FORMATS[number % FORMATS.len()])
            .env("RUST_LOG", "trace")
            .env(variable, path.to_str().unwrap())
            .spawn();
        eventually("it is told", async || agent.log().contains("is not `name = value`")).await;
        let refused = agent.ask(&pod(&sandbox, "app-0").token).await;
        assert_ne!(refused.status, 200, "nothing signs with these keys");
        let ready = agent.probe("/readyz").await.unwrap().body;
        let seen = agent.log() + &ready + &agent.metrics().await + &refused.body;
        assert_eq!(planted.found_in(&seen), None, "of\n{text}");
    }
}
