//! Invariant 9: whole runs at trace level, in each configuration and both formats of the log, with every
//! kind of secret in play, and not sixteen bytes of one anywhere.

mod malformed;
mod planted;
mod run;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sandbox::{Effect, Fault, Options, Sandbox, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::planted::Planted;
use self::run::{Run, in_both_formats, logged};
use crate::harness::{Builder, Delays, Middlebox, pod, sandbox};
use crate::web_identity;

const HOUR: Duration = Duration::from_secs(3600);
const PASSWORD: &str = "planted/proxy+password-0123456789";
/// As it is written in a URL.
const PASSWORD_IN_URL: &str = "planted%2Fproxy%2Bpassword-0123456789";

/// What every configuration goes through.
async fn trouble(run: &mut Run) {
    for name in ["app-0", "app-1"] {
        let token = run.pod(name);
        assert!(run.ask(&token).await, "{name} is served");
    }
    run.misplaced_tokens().await;
    run.upstream_that_quotes().await;
    run.stranger().await;
}

#[tokio::test]
async fn no_secret_shows_by_default() {
    in_both_formats(async |format| {
        let sandbox = sandbox();
        let proxy = format!("http://user:{PASSWORD_IN_URL}@127.0.0.1:9");
        let builder = Builder::new(&sandbox).env("HTTPS_PROXY", &proxy);
        let mut run = Run::start(sandbox, builder, format).await;
        run.plant("proxy password", PASSWORD);
        trouble(&mut run).await;
        run.imds_that_quotes().await;
        let kinds = [
            "imds session token",
            "node's secret key",
            "node's session token",
            "pod's secret key",
            "pod token",
        ];
        run.shows_no_secret(&kinds).await;
    })
    .await;
}

#[tokio::test]
async fn no_secret_shows_while_tokens_are_verified() {
    in_both_formats(async |format| {
        let sandbox = sandbox();
        let builder = Builder::verifying(&sandbox)
            .flag("--token-verification", "required")
            .switch("--send-node-details")
            .switch("--audit-log");
        let mut run = Run::start(sandbox, builder, format).await;
        trouble(&mut run).await;
        run.imds_that_quotes().await;
        run.shows_no_secret(&["node's session token", "pod's session token", "pod token"]).await;
    })
    .await;
}

#[tokio::test]
async fn no_secret_shows_where_the_cluster_gives_roles() {
    in_both_formats(async |format| {
        let sandbox = sandbox();
        web_identity::trust_app(&sandbox);
        let builder = web_identity::mapping(&sandbox, &web_identity::map_of(web_identity::READER));
        let mut run = Run::start(sandbox, builder.switch("--audit-log"), format).await;
        for name in ["role-0", "role-1"] {
            let token = run.pod_with_role(name);
            assert!(run.ask(&token).await, "{name} is served");
        }
        let issued = run.sandbox.calls_of(Service::Sts).len();
        assert_eq!(issued, 2, "by STS");
        run.sts_that_quotes().await;
        logged(&run, "[redacted]").await;
        run.shows_no_secret(&["pod's secret key", "pod's session token", "pod token"]).await;
    })
    .await;
}

#[tokio::test]
async fn no_secret_shows_in_a_cluster() {
    in_both_formats(async |format| {
        let sandbox = Sandbox::start(Options { tls: true, ..Options::default() }).unwrap();
        let folder = sandbox.dir().join("own");
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(sandbox.ca_file(), folder.join("ca.crt")).unwrap();
        let own = pod(&sandbox, "agent").token;
        std::fs::write(folder.join("token"), &own).unwrap();
        let url = sandbox.jwks_tls_url().unwrap();
        let api_server: SocketAddr = url.split('/').nth(2).unwrap().parse().unwrap();
        let builder = Builder::new(&sandbox)
            .flag("--node-name", sandbox.node_name())
            .flag("--token-verification", "required")
            .flag("--kubernetes-credentials", folder.to_str().unwrap())
            .env("KUBERNETES_SERVICE_HOST", &api_server.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", &api_server.port().to_string());
        sandbox.faults().set([("Forbidden", 403), ("InternalError", 500)].map(|(code, status)| {
            let (code, message) = (code.to_owned(), format!("no {own}, no {}", &own[7..90]));
            Fault::new(Service::Issuer, Effect::Status { status, code, message }).times(2)
        }));
        let mut run = Run::start(sandbox, builder, format).await;
        run.plant("agent's token", &own);
        logged(&run, "no [redacted], no [redacted]").await;
        trouble(&mut run).await;
        run.shows_no_secret(&["agent's token", "node's session token", "pod's secret key", "pod token"])
            .await;
    })
    .await;
}

#[tokio::test]
async fn no_secret_shows_with_a_credentials_file() {
    in_both_formats(async |format| {
        let sandbox = sandbox();
        let path = sandbox.dir().join("credentials-file");
        let whole = sandbox.node_credentials(HOUR).as_file();
        std::fs::write(&path, &whole).unwrap();
        let builder = Builder::new(&sandbox)
            .flag("--own-credentials-file", path.to_str().unwrap())
            .switch("--rotate-credentials");
        let mut run = Run::start(sandbox, builder, format).await;
        trouble(&mut run).await;
        run.plant("pasted secret key", malformed::PASTED[1]);
        run.plant("pasted session token", malformed::PASTED[2]);
        let [(_, malformed), ..] = malformed::files();
        std::fs::write(&path, format!("{whole}{malformed}")).unwrap();
        logged(&run, "is not `name = value`").await;
        std::fs::write(&path, whole.split_at(whole.len() / 2).0.replace("aws_secret_access_key", "secret"))
            .unwrap();
        logged(&run, "has no complete credentials").await;
        run.shows_no_secret(&["node's secret key", "node's session token", "pod's secret key", "pod token"])
            .await;
    })
    .await;
}

#[tokio::test]
async fn no_secret_shows_with_credentials_of_the_environment() {
    in_both_formats(async |format| {
        let sandbox = sandbox();
        let node = sandbox.node_credentials(HOUR);
        let session = node.session_token.clone().unwrap();
        let builder = Builder::new(&sandbox)
            .flag("--own-credentials", "environment")
            .flag("--log-format", format)
            .env("AWS_SECRET_ACCESS_KEY", &node.secret_access_key)
            .env("AWS_SESSION_TOKEN", &session);
        let incomplete = ends_with(&builder).await;
        let builder = Builder::new(&sandbox)
            .env("AWS_ACCESS_KEY_ID", &node.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &node.secret_access_key)
            .env("AWS_SESSION_TOKEN", &session);
        let mut run = Run::start(sandbox, builder, format).await;
        run.saw(&incomplete);
        trouble(&mut run).await;
        run.shows_no_secret(&["node's secret key", "node's session token", "pod's secret key", "pod token"])
            .await;
    })
    .await;
}

#[tokio::test]
async fn no_secret_shows_behind_a_proxy_with_a_password() {
    in_both_formats(async |format| {
        let sandbox = Sandbox::start(Options { tls: true, ..Options::default() }).unwrap();
        let tls = sandbox.eks_auth_tls_url().unwrap();
        let to: SocketAddr = tls.rsplit('/').next().unwrap().parse().unwrap();
        let through = |proxy: SocketAddr, sandbox: &Sandbox| {
            Builder::new(sandbox)
                .without("--endpoint")
                .env("HTTPS_PROXY", &format!("http://user:{PASSWORD_IN_URL}@{proxy}"))
                .env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().unwrap())
        };
        let refusing = refusing_proxy().await;
        let refused = {
            let agent = through(refusing.0, &sandbox).flag("--log-format", format).start().await;
            let token = pod(&sandbox, "refused").token;
            let answer = agent.ask(&token).await;
            assert_eq!(answer.status, 503, "{answer:?}");
            let seen = format!("{}{}{}", agent.log(), answer.body, agent.metrics().await);
            let mut planted = Planted::default();
            planted.add("pod token", &token);
            assert_eq!(planted.found_in(&seen), None);
            seen
        };
        let bad =
            through(refusing.0, &sandbox).env("HTTPS_PROXY", &format!("ftp://user:{PASSWORD_IN_URL}@proxy"));
        let bad = ends_with(&bad.flag("--log-format", format)).await;

        let proxy = Middlebox::proxy(to, Delays::default()).await;
        let builder = through(proxy.address, &sandbox);
        let mut run = Run::start(sandbox, builder, format).await;
        run.plant("proxy password", PASSWORD);
        run.plant("proxy password in a URL", PASSWORD_IN_URL);
        run.saw(&refused);
        run.saw(&bad);
        trouble(&mut run).await;
        run.shows_no_secret(&["node's session token", "pod's secret key", "pod token", "proxy password"])
            .await;
    })
    .await;
}

/// All that an agent with an invalid configuration says.
async fn ends_with(builder: &Builder) -> String {
    let mut agent = builder.spawn();
    let status = agent.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(64), "an invalid configuration: {}", agent.log());
    agent.log()
}

/// A proxy that wants another password, and quotes the one that it got.
async fn refusing_proxy() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut asked = vec![0; 4096];
            let length = client.read(&mut asked).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&asked[..length]).replace("\r\n", " ");
            let answer = format!("HTTP/1.1 407 {asked}\r\nX-Asked: {asked}\r\nContent-Length: 0\r\n\r\n");
            // An error is a client that has left.
            let _left = client.write_all(answer.as_bytes()).await;
        }
    });
    (address, tasks)
}
