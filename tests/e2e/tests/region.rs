//! The region that nobody gives: it comes from the instance, and trouble with that ends nothing.

use std::net::SocketAddr;
use std::time::Duration;

use sandbox::{Effect, Fault, Sandbox, Service};
use tokio::time::{Instant, sleep};

use crate::harness::{
    Agent, Builder, IPV4, Request, eks_auth_calls, eventually, failing, heal, on_a_node, pod, sandbox,
    side_by_side,
};
use crate::own_credentials::first_request;
use crate::status::StateDir;
use crate::web_identity;

const READ: &str = "GET /latest/meta-data/placement/region";
const IS_READ: &str = "the AWS region is read from the instance";
const CONDITION: &str = r#"pod_identity_agent_condition{condition="region"}"#;
/// What an SDK shows.
const SENTENCE: &str = "The agent does not know its AWS region; ask your cluster admin";

fn from_instance(sandbox: &Sandbox) -> Builder {
    Builder::new(sandbox).without_env("AWS_REGION")
}

/// The same with credentials of its own that do not come from the metadata service.
fn signing_from_variables(sandbox: &Sandbox) -> Builder {
    let node = sandbox.node_credentials(Duration::from_secs(3600));
    from_instance(sandbox)
        .env("AWS_ACCESS_KEY_ID", &node.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &node.secret_access_key)
        .env("AWS_SESSION_TOKEN", node.session_token.as_deref().unwrap())
}

fn reads(sandbox: &Sandbox) -> usize {
    sandbox.calls_of(Service::Imds).iter().filter(|call| call.operation == READ).count()
}

/// Why the condition is not met.
async fn reason(agent: &Agent) -> Option<String> {
    let page = agent.probe("/readyz").await.ok()?;
    let page: serde_json::Value = serde_json::from_str(&page.body).ok()?;
    let conditions = page["conditions"].as_array()?;
    let region = conditions.iter().find(|condition| condition["name"] == "region")?;
    assert_eq!(region["required"], true, "{region}");
    (region["met"] == false).then(|| region["reason"].as_str().unwrap_or_default().to_owned())
}

async fn unready_for(agent: &Agent, words: &str) -> String {
    eventually(words, async || reason(agent).await.is_some_and(|reason| reason.contains(words))).await;
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 503);
    assert_eq!(agent.probe("/healthz").await.unwrap().status, 200);
    assert_eq!(agent.metric(CONDITION).await, 0);
    reason(agent).await.expect("a reason")
}

fn told(agent: &Agent, sentence: &str) -> Vec<String> {
    agent.log().lines().filter(|line| line.contains(sentence)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_region_that_nobody_gives_comes_from_the_instance_and_is_the_one_that_is_asked() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    let agent = from_instance(&sandbox).flag("--state-dir", dir.path()).start().await;
    // The sandbox takes signatures for its own region only.
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    assert_eq!(agent.metric(CONDITION).await, 1);
    let lines = told(&agent, IS_READ);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for word in ["info", "us-west-2", "the instance metadata service"] {
        assert!(lines[0].contains(word), "{word} is not in {lines:?}");
    }
    assert!(agent.log().contains("region=from-the-instance"), "{}", agent.log());
    let (_, status) = dir.run(&["status"]);
    assert!(status.contains("sandbox in us-west-2 (from the instance)"), "{status}");

    sandbox.imds_says_of_region(Some("eu-central-1"));
    let elsewhere = from_instance(&sandbox).start().await;
    assert_eq!(elsewhere.ask(&pod(&sandbox, "app-1").token).await.status, 503);
    assert!(elsewhere.log().contains("EKS Auth in eu-central-1 (cluster sandbox)"), "{}", elsewhere.log());
}

#[tokio::test]
async fn the_endpoints_of_the_region_of_the_instance_are_asked() {
    for (of_sts, host) in [(false, "eks-auth.eu-central-1.api.aws"), (true, "sts.eu-central-1.amazonaws.com")]
    {
        let sandbox = sandbox();
        sandbox.imds_says_of_region(Some("eu-central-1"));
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", proxy.local_addr().unwrap());
        let (builder, token) = if of_sts {
            let roles = web_identity::mapping(&sandbox, &web_identity::map_of(web_identity::READER));
            let roles = roles.without("--sts-endpoint").switch("--pod-identity=false");
            (roles, web_identity::pod(&sandbox, "app-0").token)
        } else {
            (Builder::new(&sandbox), pod(&sandbox, "app-0").token.clone())
        };
        let builder = builder.without("--endpoint").without_env("AWS_REGION").env("HTTPS_PROXY", &url);
        let agent = builder.start().await;
        if of_sts {
            web_identity::until_keys(&agent).await;
        }
        let (answer, request) = tokio::join!(agent.ask(&token), first_request(proxy));
        assert_eq!(answer.status, 503, "there is no AWS behind this proxy");
        assert!(request.starts_with(&format!("CONNECT {host}:443 ")), "{request}");
    }
}

#[tokio::test]
async fn a_region_that_is_given_wins_and_nobody_asks_the_instance_for_it() {
    let sandbox = sandbox();
    sandbox.imds_says_of_region(Some("eu-central-1"));
    let dir = StateDir::new(&sandbox);
    let given = [
        from_instance(&sandbox).flag("--region", "us-west-2"),
        Builder::new(&sandbox),
        from_instance(&sandbox).env("AWS_DEFAULT_REGION", "us-west-2"),
    ];
    for builder in given {
        let agent = builder.flag("--state-dir", dir.path()).start().await;
        assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
        let (_, status) = dir.run(&["status"]);
        assert!(status.contains("sandbox in us-west-2\n"), "{status}");
        assert_eq!((agent.metric(CONDITION).await, reason(&agent).await), (1, None));
    }
    assert!(sandbox.calls_of(Service::Imds).len() >= 3, "its credentials come from there");
    assert_eq!(reads(&sandbox), 0);
}

#[test]
fn a_pod_that_asks_before_the_region_is_known_is_held_and_served() {
    let effects = [
        Effect::Refuse,
        Effect::Hang,
        failing(500, "InternalError"),
        failing(401, "Unauthorized"),
        Effect::ProxyError { status: 200 },
        Effect::Latency { ms: 2_500, jitter_ms: 0 },
    ];
    side_by_side(effects.len(), effects, async |effect: Effect| {
        let sandbox = sandbox();
        sandbox.faults().set([Fault::new(Service::Imds, effect.clone())]);
        // What hangs costs the credentials of the instance, which are read beside it, the same 3 s.
        let hangs = effect == Effect::Hang;
        let builder = if hangs { signing_from_variables(&sandbox) } else { from_instance(&sandbox) };
        let agent = builder.spawn();
        let token = pod(&sandbox, "app-0").token.clone();
        eventually("it listens", async || agent.probe("/healthz").await.is_ok()).await;
        eventually("it is not ready without a region", async || {
            let ready = agent.probe("/readyz").await.unwrap();
            ready.status == 503 && ready.body.contains(r#""region""#)
        })
        .await;
        let healing = async {
            sleep(Duration::from_millis(700)).await;
            heal(&sandbox);
        };
        let (answer, ()) = tokio::join!(agent.ask(&token), healing);
        assert_eq!(answer.status, 200, "{effect:?}: {answer:?}");
        agent.until_ready().await;
        assert_eq!(told(&agent, IS_READ).len(), 1, "{effect:?}");
    });
}

#[tokio::test]
async fn a_pod_that_waits_is_served_as_soon_as_the_region_is_known() {
    let sandbox = sandbox();
    sandbox.imds_says_of_region(Some("no region"));
    let agent = signing_from_variables(&sandbox).spawn();
    unready_for(&agent, "is not a region").await;
    let token = pod(&sandbox, "app-0").token.clone();
    let healing = async {
        // The pauses of the call are near their longest then.
        sleep(Duration::from_millis(2_500)).await;
        sandbox.imds_says_of_region(None);
        eventually("it is read", async || !told(&agent, IS_READ).is_empty()).await;
        Instant::now()
    };
    let asking = async {
        let answer = agent.ask(&token).await;
        (answer, Instant::now())
    };
    let ((answer, answered_at), known_at) = tokio::join!(asking, healing);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answered_at <= known_at + Duration::from_millis(300), "{:?}", answered_at - known_at);
}

#[tokio::test]
async fn without_region_and_metadata_service_it_starts_and_says_what_to_do() {
    let sandbox = sandbox();
    let disabled = signing_from_variables(&sandbox).env("AWS_EC2_METADATA_DISABLED", "true");
    // Nobody listens there.
    let absent =
        signing_from_variables(&sandbox).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    let hybrid = from_instance(&sandbox)
        .flag("--own-credentials", "file")
        .flag("--own-credentials-file", sandbox.dir().join("none-yet").to_str().unwrap())
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    for (builder, why) in [
        (disabled, "AWS_EC2_METADATA_DISABLED is true"),
        (absent, "the instance metadata service did not return"),
        (hybrid, "the instance metadata service did not return"),
    ] {
        let dir = StateDir::new(&sandbox);
        let agent = builder.flag("--state-dir", dir.path()).spawn();
        let reason = unready_for(&agent, why).await;
        assert!(reason.contains("give --region or AWS_REGION (env.AWS_REGION of the chart)"), "{reason}");
        let answer = agent.ask(&pod(&sandbox, "app-0").token).await;
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains(SENTENCE), "{answer:?}");
        let warned = told(&agent, why);
        assert!(
            warned.iter().any(|line| line.contains("warn") && line.contains("region")),
            "{}",
            agent.log()
        );
        let (_, status) = dir.run(&["status"]);
        assert!(status.contains("sandbox in an UNKNOWN REGION") && status.contains(why), "{status}");
        let (code, doctor) = dir.run(&["doctor"]);
        assert!(code == Some(1) && doctor.contains("Give the region"), "{doctor}");
    }
    assert!(sandbox.calls_of(Service::Imds).is_empty());
    assert!(eks_auth_calls(&sandbox).is_empty());
}

#[tokio::test]
async fn what_is_no_region_is_refused_and_asked_for_again() {
    let page = format!("<html><title>planted-portal</title>{}</html>", " ".repeat(200));
    let long = "planted-portal".repeat(100_000 / 14);
    for text in [&*page, &*long, "us-east-1/../planted-portal", "us-west-2\n", "us-west-2a", ""] {
        let sandbox = sandbox();
        sandbox.imds_says_of_region(Some(text));
        let agent = from_instance(&sandbox).spawn();
        let why = if text.len() > 64 * 1024 { "did not return" } else { "is not a region" };
        unready_for(&agent, why).await;
        eventually("it is read again", async || reads(&sandbox) >= 3).await;
        assert!(!agent.log().contains("planted-portal"), "{}", agent.log());
        assert_eq!(agent.metric(r#"pod_identity_agent_condition{condition="own-credentials"}"#).await, 1);
        sandbox.imds_says_of_region(None);
        agent.until_ready().await;
        assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200, "{text:?}");
        assert!(told(&agent, "us-east-1").is_empty(), "{}", agent.log());
    }
}

#[tokio::test]
async fn once_known_it_is_not_read_again_and_a_dead_metadata_service_changes_nothing() {
    let sandbox = sandbox();
    let agent = from_instance(&sandbox).start().await;
    sandbox.faults().set([Fault::new(Service::Imds, Effect::Hang)]);
    for name in ["app-0", "app-1", "app-2"] {
        assert_eq!(agent.ask(&pod(&sandbox, name).token).await.status, 200);
    }
    assert_eq!(reads(&sandbox), 1);
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200);
}

#[tokio::test]
async fn the_trial_call_waits_for_the_region() {
    let sandbox = sandbox();
    sandbox.imds_says_of_region(Some("no region"));
    let file = pod(&sandbox, "agent").token_file;
    let agent = from_instance(&sandbox).flag("--trial-token-file", file.to_str().unwrap()).spawn();
    unready_for(&agent, "is not a region").await;
    // It gives up on an AWS that gives no answer after ten seconds, but not before there is one to ask.
    sleep(Duration::from_secs(11)).await;
    let ready = agent.probe("/readyz").await.unwrap();
    assert!(ready.body.contains(r#"{"name":"trial-call","met":false"#), "{ready:?}");
    assert!(eks_auth_calls(&sandbox).is_empty());
    sandbox.imds_says_of_region(None);
    eventually("it is ready", async || agent.probe("/readyz").await.is_ok_and(|ready| ready.status == 200))
        .await;
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
    assert!(told(&agent, "trial call without a result").is_empty(), "{}", agent.log());
}

#[test]
fn an_agent_without_a_region_that_is_alone_answers_pods_by_the_table() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let node_credentials = sandbox.node_credentials(Duration::from_secs(3600));
        // Whoever is sent there gets no answer.
        let _ingress = std::net::TcpListener::bind(("0.0.0.0", 80)).unwrap();
        let agent = Builder::on_a_node(&sandbox)
            .with_keys(&sandbox)
            .switch("--guard-address")
            .without_env("AWS_REGION")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_ACCESS_KEY_ID", &node_credentials.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &node_credentials.secret_access_key)
            .env("AWS_SESSION_TOKEN", node_credentials.session_token.as_deref().unwrap())
            .spawn();
        eventually("the table leads to it", async || {
            let page = agent.probe("/readyz").await;
            page.is_ok_and(|page| page.body.contains(r#"{"name":"address-guard","met":true"#))
        })
        .await;
        let pod = node.pod(&sandbox);
        let request = Request::credentials(&pod.identity.token);
        let asked = request.send(SocketAddr::new(IPV4, 80));
        let answer = tokio::time::timeout(Duration::from_secs(8), asked).await.expect("in time").unwrap();
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains(SENTENCE), "{answer:?}");
        assert_eq!(agent.probe("/readyz").await.unwrap().status, 503);
    });
}
