//! The agent's own AWS identity: where it comes from, and that trouble with it is nobody else's.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use sandbox::{Effect, Fault, Options, Sandbox, Service};
use tokio::io::AsyncReadExt;

use crate::harness::{Agent, Builder, Request, eks_auth_calls, eventually, failing, heal, pod, sandbox};
use crate::web_identity;

const HOUR: Duration = Duration::from_secs(3600);

/// Rewrites a file in place, as a careless writer does: whoever reads meanwhile may see half of it.
fn write(path: &Path, text: &str) {
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn an_imds_that_comes_late_makes_the_agent_ready_late_and_holds_the_pods() {
    let sandbox = sandbox();
    sandbox.faults().set([Fault::new(Service::Imds, Effect::Refuse)]);
    let agent = Builder::new(&sandbox).spawn();
    let token = pod(&sandbox, "app-0").token.clone();
    eventually("it listens", async || agent.probe("/healthz").await.is_ok()).await;
    let ready = agent.probe("/readyz").await.unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("own-credentials"), "{ready:?}");
    let healing = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        heal(&sandbox);
    };
    let (answer, ()) = tokio::join!(agent.ask(&token), healing);
    assert_eq!(answer.status, 200, "{answer:?}");
    agent.until_ready().await;
}

#[tokio::test]
async fn credentials_of_the_environment_are_used_and_imds_is_left_alone() {
    let sandbox = sandbox();
    let node = sandbox.node_credentials(HOUR);
    let agent = Builder::new(&sandbox)
        .env("AWS_ACCESS_KEY_ID", &node.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &node.secret_access_key)
        .env("AWS_SESSION_TOKEN", node.session_token.as_deref().unwrap())
        .start()
        .await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    assert!(sandbox.calls().iter().all(|call| call.service != Service::Imds));
}

#[tokio::test]
async fn the_container_provider_is_never_asked() {
    let sandbox = sandbox();
    let builder = Builder::new(&sandbox);
    let port = builder.command().get_args().nth(2).unwrap().to_str().unwrap().to_owned();
    let agent = builder
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://127.0.0.1:{port}/v1/credentials"))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", &pod(&sandbox, "app-0").token)
        .start()
        .await;
    assert!(eks_auth_calls(&sandbox).is_empty(), "it did not ask itself");
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes_and_half_of_it_does_no_harm() {
    let sandbox = sandbox();
    let path = sandbox.dir().join("rotated-credentials");
    write(&path, "[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = old\n");
    let whole = sandbox.node_credentials(HOUR).as_file();
    let agent = Builder::new(&sandbox)
        .flag("--rotate-credentials", "true")
        .env("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())
        .start()
        .await;
    let token = pod(&sandbox, "app-0").token.clone();
    // What is in the file is not one of the sandbox's: AWS says 403, and the pod is held, not blamed.
    let refused = agent.ask(&token).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    write(&path, &whole);
    eventually("the new ones are used", async || agent.ask(&token).await.status == 200).await;
    // A writer that has come half way: what was read before goes on serving.
    write(&path, whole.split_at(whole.len() / 2).0);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-1").token).await.status, 200);
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200);
}

#[tokio::test]
async fn imds_and_local_endpoints_never_go_through_a_proxy() {
    let sandbox = sandbox();
    // Nobody listens there: whatever goes through the proxy fails.
    let builder = Builder::new(&sandbox)
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("HTTPS_PROXY", "http://127.0.0.1:9");
    let agent = builder.start().await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
}

/// What the first client of a proxy asks for.
pub(crate) async fn first_request(proxy: tokio::net::TcpListener) -> String {
    let (mut client, _) = proxy.accept().await.unwrap();
    let mut bytes = [0; 4096];
    let read = client.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test]
async fn eks_auth_of_the_region_is_reached_through_the_proxy_under_its_dual_stack_name() {
    for (fips, host) in [("false", "eks-auth.us-west-2.api.aws"), ("true", "eks-auth-fips.us-west-2.api.aws")]
    {
        let sandbox = sandbox();
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://user:word@{}", proxy.local_addr().unwrap());
        let builder = Builder::new(&sandbox).without("--endpoint").env("HTTPS_PROXY", &url);
        let agent = builder.env("AWS_USE_FIPS_ENDPOINT", fips).start().await;
        let token = pod(&sandbox, "app-0").token.clone();
        let (answer, request) = tokio::join!(agent.ask(&token), first_request(proxy));
        assert_eq!(answer.status, 503, "there is no AWS behind this proxy");
        assert!(request.starts_with(&format!("CONNECT {host}:443 ")), "{request}");
        // user:word in base64.
        assert!(request.to_lowercase().contains("proxy-authorization: basic dxnlcjp3b3jk"), "{request}");
    }
}

#[tokio::test]
async fn sts_of_the_region_is_reached_through_the_proxy_under_the_name_of_its_variant() {
    for (variables, host) in [
        (&[][..], "sts.us-west-2.amazonaws.com"),
        (&["AWS_USE_FIPS_ENDPOINT"], "sts-fips.us-west-2.amazonaws.com"),
        (&["AWS_USE_DUALSTACK_ENDPOINT"], "sts.us-west-2.api.aws"),
    ] {
        let sandbox = sandbox();
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://user:word@{}", proxy.local_addr().unwrap());
        let roles = web_identity::mapping(&sandbox, &web_identity::map_of(web_identity::READER));
        // FIPS and an endpoint exclude each other, and nobody asks EKS Auth here.
        let builder = roles.without("--sts-endpoint").without("--endpoint").switch("--pod-identity=false");
        let builder = builder.env("HTTPS_PROXY", &url);
        let builder = variables.iter().fold(builder, |builder, name| builder.env(name, "true"));
        let agent = builder.start().await;
        web_identity::until_keys(&agent).await;
        let token = web_identity::pod(&sandbox, "app-0").token;
        let (answer, request) = tokio::join!(agent.ask(&token), first_request(proxy));
        assert_eq!(answer.status, 503, "there is no AWS behind this proxy");
        assert!(request.starts_with(&format!("CONNECT {host}:443 ")), "{request}");
        assert!(request.to_lowercase().contains("proxy-authorization: basic dxnlcjp3b3jk"), "{request}");
    }
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_it_is_given_and_only_then() {
    let sandbox = Sandbox::start(Options { tls: true, ..Options::default() }).unwrap();
    let url = sandbox.eks_auth_tls_url().expect("https");
    let ca = sandbox.ca_file();
    let trusting = Builder::new(&sandbox).flag("--endpoint", url).env("AWS_CA_BUNDLE", ca.to_str().unwrap());
    let trusting = trusting.start().await;
    assert_eq!(trusting.ask(&pod(&sandbox, "app-0").token).await.status, 200, "{}", trusting.log());
    let distrusting = Builder::new(&sandbox).flag("--endpoint", url).start().await;
    let answer = distrusting.ask(&pod(&sandbox, "app-1").token).await;
    assert_eq!(answer.status, 503, "{answer:?}");
}

#[tokio::test]
async fn an_authority_that_is_replaced_is_trusted_without_a_restart() {
    let tls = || Sandbox::start(Options { tls: true, ..Options::default() }).unwrap();
    let (sandbox, other) = (tls(), tls());
    let [bundle, next] = ["bundle.pem", "next.pem"].map(|name| sandbox.dir().join(name));
    std::fs::copy(other.ca_file(), &bundle).unwrap();
    let url = sandbox.eks_auth_tls_url().expect("https");
    let agent = Builder::new(&sandbox).flag("--endpoint", url).env("AWS_CA_BUNDLE", bundle.to_str().unwrap());
    let agent = agent.start().await;
    let answer = agent.ask(&pod(&sandbox, "app-0").token).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    // As the kubelet changes the file of a ConfigMap.
    std::fs::copy(sandbox.ca_file(), &next).unwrap();
    std::fs::rename(&next, &bundle).unwrap();
    eventually("the next connection trusts it", async || {
        agent.ask(&pod(&sandbox, "app-1").token).await.status == 200
    })
    .await;
    assert!(agent.log().contains("AWS_CA_BUNDLE read again"), "{}", agent.log());
}

#[tokio::test]
async fn an_identity_that_aws_rejects_is_renewed_at_once_and_nobody_notices() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    // The role's session is revoked long before its expiry; IMDS has a new one.
    sandbox.expire_node_credentials(HOUR);
    let before = tokio::time::Instant::now();
    let answer = agent.ask(&pod(&sandbox, "app-1").token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
}

/// A value of the metadata service, as anybody on the node may ask for it.
async fn metadata(sandbox: &Sandbox, path: &str) -> String {
    let address = sandbox.imds_url().trim_start_matches("http://").parse().unwrap();
    let session = Request::get("/latest/api/token").method("PUT");
    let session = session.header("x-aws-ec2-metadata-token-ttl-seconds", "60").send(address).await.unwrap();
    let request = Request::get(&format!("/latest/meta-data/{path}"));
    request.header("x-aws-ec2-metadata-token", &session.body).send(address).await.unwrap().body
}

/// What AWS received of the node with its last call.
fn received(sandbox: &Sandbox) -> Vec<(String, String)> {
    eks_auth_calls(sandbox).pop().expect("a call").node_details.into_iter().collect()
}

#[tokio::test]
async fn the_node_is_named_to_aws_only_when_asked_to() {
    let sandbox = sandbox();
    let telling = Builder::new(&sandbox).flag("--send-node-details", "true").flag("--node-name", "node-1");
    let telling = telling.start().await;
    // Nobody waits for the metadata service: until it has answered, the name alone is sent.
    let mut pods = 0;
    eventually("AWS is given all", async || {
        pods += 1;
        let app = pod(&sandbox, &format!("app-{pods}"));
        assert_eq!(telling.ask(&app.token).await.status, 200);
        received(&sandbox).len() == 3
    })
    .await;
    let expected = [
        ("eksNodeName".to_owned(), "node-1".to_owned()),
        ("instanceId".to_owned(), metadata(&sandbox, "instance-id").await),
        ("zone".to_owned(), metadata(&sandbox, "placement/availability-zone-id").await),
    ];
    assert_eq!(received(&sandbox), expected);
    let silent = Builder::new(&sandbox).flag("--node-name", "node-1").start().await;
    for name in ["silent-0", "silent-1"] {
        assert_eq!(silent.ask(&pod(&sandbox, name).token).await.status, 200);
        assert_eq!(received(&sandbox), []);
    }
}

#[tokio::test]
async fn a_session_token_that_imds_does_not_know_is_replaced_within_five_seconds() {
    let sandbox = sandbox();
    sandbox.faults().set([Fault::new(Service::Imds, Effect::BadJson).times(1)]);
    let started = tokio::time::Instant::now();
    let agent = Builder::new(&sandbox).spawn();
    agent.until_ready().await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_failing_imds_is_told_while_the_old_set_lasts_and_after_it() {
    let sandbox = sandbox();
    sandbox.expire_node_credentials(Duration::from_secs(8));
    let agent = Agent::start(&sandbox).await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    sandbox.faults().set([Fault::new(Service::Imds, failing(503, "ServiceUnavailable"))]);
    let told = "returned no credentials (it answered 503)";
    eventually("the failure is logged", async || agent.log().contains(told)).await;
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200, "the old set lasts");
    eventually("it is not ready", async || agent.probe("/readyz").await.unwrap().status == 503).await;
    let ready = agent.probe("/readyz").await.unwrap();
    assert!(ready.body.contains(told), "{ready:?}");
    heal(&sandbox);
    agent.until_ready().await;
}

#[tokio::test]
async fn the_reason_says_why_a_file_cannot_be_read() {
    let sandbox = sandbox();
    let path = sandbox.dir().join("unreadable");
    let agent = Builder::new(&sandbox).env("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap()).spawn();
    let tells = async |why: &str| {
        eventually(why, async || agent.probe("/readyz").await.is_ok_and(|ready| ready.body.contains(why)))
            .await;
    };
    tells("No such file or directory").await;
    std::fs::create_dir(&path).unwrap();
    tells("is not a regular file").await;
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"\xff\xfe[\0").unwrap();
    tells("byte order mark").await;
}
