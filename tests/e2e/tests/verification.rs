//! What verification is for: credentials that outlive tokens, listeners, key rotations and outages.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use sandbox::{Effect, Fault, KeyKind, Options, Sandbox, Service, TokenKey, TokenSpec};
use serde_json::{Value, json};

use crate::harness::{
    Agent, ApiServer, Builder, Request, eks_auth_calls, eventually, failing, heal, pod, sandbox,
};

/// All that AWS and the issuer are.
fn everything_down() -> [Fault; 3] {
    [Service::EksAuth, Service::Imds, Service::Issuer].map(|service| Fault::new(service, Effect::Refuse))
}

#[tokio::test]
async fn a_rotated_token_of_a_verified_pod_costs_no_upstream_call_even_while_aws_is_down() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let mut app = pod(&sandbox, "app-0");
    let held = agent.ask(&app.token).await.access_key_id();
    for down in [false, true] {
        if down {
            sandbox.faults().set(everything_down());
        }
        for _ in 0..5 {
            app.rotate_token().unwrap();
            assert_eq!(agent.ask(&app.token).await.access_key_id(), held, "down: {down}");
        }
    }
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
    assert_eq!(agent.metric(r#"pod_identity_agent_authentications_total{outcome="verified"}"#).await, 11);
    assert_eq!(agent.metric("pod_identity_agent_token_keys").await, 1);
}

#[tokio::test]
async fn both_listeners_share_what_a_verified_pod_holds() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).also("--bind-hosts", "[::1]").start().await;
    let mut app = pod(&sandbox, "app-0");
    let held = agent.ask(&app.token).await.access_key_id();
    app.rotate_token().unwrap();
    let over_ipv6 = SocketAddr::from((Ipv6Addr::LOCALHOST, agent.port));
    let answer = Request::credentials(&app.token).send(over_ipv6).await.unwrap();
    assert_eq!(answer.access_key_id(), held);
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_picked_up_by_the_first_token_it_signs() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let mut app = pod(&sandbox, "app-0");
    let held = agent.ask(&app.token).await.access_key_id();
    sandbox.rotate_keys(false).unwrap();
    let old = app.token.clone();
    app.rotate_token().unwrap();
    assert_eq!(agent.ask(&app.token).await.access_key_id(), held);
    assert_eq!(agent.ask(&old).await.access_key_id(), held, "the old key is still published");
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
    assert_eq!(sandbox.calls_of(Service::Issuer).len(), 2);
    assert_eq!(agent.metric("pod_identity_agent_token_keys").await, 2);
}

#[tokio::test]
async fn an_issuer_with_a_slash_too_much_costs_no_pod_its_credentials_and_is_told() {
    let sandbox = sandbox();
    let mistyped = format!("{}/", sandbox.issuer_url());
    let agent = Builder::verifying(&sandbox).flag("--issuer", &mistyped).start().await;
    for name in ["app-0", "app-1"] {
        assert_eq!(agent.ask(&pod(&sandbox, name).token).await.status, 200, "EKS Auth is the judge");
    }
    let log = agent.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("none of --issuer")).collect();
    assert_eq!(told.len(), 1, "once a minute: {told:?}");
    for named in [sandbox.issuer_url(), &mistyped] {
        assert!(told[0].contains(named), "{told:?}");
    }
    assert_known_tokens(&agent, 0).await;
    let required = Builder::verifying(&sandbox).flag("--issuer", &mistyped);
    let required = required.flag("--token-verification", "required").start().await;
    let app = pod(&sandbox, "app-2");
    for time in ["first", "second"] {
        assert_eq!(required.ask(&app.token).await.status, 503, "nobody else may judge, the {time} time");
    }
    assert_eq!(eks_auth_calls(&sandbox).len(), 2, "nobody vouches for it, so nobody hears of it");
    let log = required.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("none of --issuer")).collect();
    assert_eq!(told.len(), 1, "once a minute: {told:?}");
    for named in [sandbox.issuer_url(), &mistyped, "503"] {
        assert!(told[0].contains(named), "{told:?}");
    }
    assert_known_tokens(&required, 0).await;
    // One token of a stranger among those of the cluster is no mistake of the flags.
    let right = Builder::verifying(&sandbox).start().await;
    assert_known_tokens(&right, 1).await;
    let other = crate::harness::sandbox();
    for token in [pod(&other, "app-0").token, pod(&sandbox, "app-3").token, pod(&other, "app-1").token] {
        right.ask(&token).await;
    }
    assert_known_tokens(&right, 1).await;
}

/// Nobody asks: the agent judges its own token.
#[tokio::test]
async fn a_mistyped_issuer_is_known_before_any_pod_asks() {
    let sandbox = sandbox();
    let own = pod(&sandbox, "agent").token_file;
    let with_token = || Builder::verifying(&sandbox).flag("--trial-token-file", own.to_str().unwrap());
    let right = with_token().start().await;
    let wrong = with_token().flag("--issuer", &format!("{}/", sandbox.issuer_url())).start().await;
    eventually("the wrong one says so", async || {
        let page = wrong.probe("/readyz").await.unwrap();
        page.status == 200 && page.body.contains("no key has proven any token since the start")
    })
    .await;
    assert_known_tokens(&wrong, 0).await;
    assert_known_tokens(&right, 1).await;
}

/// Whether tokens are of the issuer and keys that the agent has, as its condition and its metric say. It
/// stays ready.
async fn assert_known_tokens(agent: &Agent, expected: u64) {
    let series = r#"pod_identity_agent_condition{condition="token-issuer"}"#;
    eventually("the condition", async || agent.metric(series).await == expected).await;
    let page = agent.probe("/readyz").await.expect("an answer");
    assert_eq!(page.status, 200, "{}", page.body);
    let says = page.body.contains("no key has proven any token since the start");
    assert_eq!(says, expected == 0, "{}", page.body);
}

#[tokio::test]
async fn keys_of_another_cluster_are_told() {
    let (ours, other) = (sandbox(), sandbox());
    for (mode, status) in [("auto", 200), ("required", 503)] {
        let agent = Builder::verifying(&ours).flag("--jwks", &other.jwks_url());
        let agent = agent.flag("--token-verification", mode).start().await;
        eventually("they are there", async || agent.metric("pod_identity_agent_token_keys").await == 1).await;
        for _ in 0..2 {
            assert_eq!(agent.ask(&pod(&ours, "app-0").token).await.status, status, "{mode}");
        }
        let log = agent.log();
        let told: Vec<_> =
            log.lines().filter(|line| line.contains("name keys that none of --jwks has")).collect();
        assert_eq!(told.len(), 1, "{mode}, once a minute: {told:?}");
        assert!(told[0].contains(ours.issuer_url()), "{told:?}");
        assert_known_tokens(&agent, 0).await;
    }
}

#[tokio::test]
async fn required_without_keys_is_503_until_the_keys_come() {
    let sandbox = sandbox();
    sandbox.faults().set([Fault::new(Service::Issuer, Effect::Refuse)]);
    let agent = Builder::verifying(&sandbox).flag("--token-verification", "required").start().await;
    let app = pod(&sandbox, "app-0");
    let answer = agent.ask(&app.token).await;
    assert_eq!((answer.status, answer.reason.as_str()), (503, "ServiceUnavailableException"));
    assert_eq!(eks_auth_calls(&sandbox).len(), 0, "nobody vouches for it, so nobody hears of it");
    let ready = agent.probe("/readyz").await.unwrap();
    assert_eq!(ready.status, 200, "keys are no condition of readiness");
    assert!(ready.body.contains("token-keys"), "{}", ready.body);
    // Who asks meanwhile is held, and served as soon as they are there.
    let healing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        heal(&sandbox);
    };
    let asking = async {
        for _ in 0..10 {
            let answer = agent.ask(&app.token).await;
            if answer.status == 200 {
                return true;
            }
        }
        false
    };
    let (served, ()) = tokio::join!(asking, healing);
    assert!(served, "{}", agent.log());
}

#[tokio::test]
async fn auto_without_keys_lets_aws_judge_and_verifies_once_they_are_there() {
    let sandbox = sandbox();
    sandbox.faults().set([Fault::new(Service::Issuer, Effect::Hang)]);
    let agent = Builder::verifying(&sandbox).start().await;
    let mut app = pod(&sandbox, "app-0");
    let before = tokio::time::Instant::now();
    assert_eq!(agent.ask(&app.token).await.status, 200);
    assert!(before.elapsed() < Duration::from_secs(1), "clients of one second wait: {:?}", before.elapsed());
    heal(&sandbox);
    eventually("the keys are there", async || agent.metric("pod_identity_agent_token_keys").await == 1).await;
    let held = agent.ask(&app.token).await.access_key_id();
    app.rotate_token().unwrap();
    assert_eq!(agent.ask(&app.token).await.access_key_id(), held);
    assert_eq!(eks_auth_calls(&sandbox).len(), 1, "what the token earned is the pod's from now on");
}

#[tokio::test]
async fn keys_that_come_while_aws_is_down_leave_a_pod_what_its_token_earned() {
    let sandbox = sandbox();
    sandbox.faults().set([Fault::new(Service::Issuer, Effect::Refuse)]);
    let agent = Builder::verifying(&sandbox).start().await;
    let mut app = pod(&sandbox, "app-0");
    let earned = agent.ask(&app.token).await.access_key_id();
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Refuse)]);
    eventually("the keys are there", async || agent.metric("pod_identity_agent_token_keys").await == 1).await;
    assert_eq!(agent.ask(&app.token).await.access_key_id(), earned, "{}", agent.log());
    app.rotate_token().unwrap();
    assert_eq!(agent.ask(&app.token).await.access_key_id(), earned);
    assert_eq!(agent.metric(r#"pod_identity_agent_authentications_total{outcome="verified"}"#).await, 2);
    assert_eq!(agent.ask(&pod(&sandbox, "app-1").token).await.status, 503, "and no other pod");
}

#[tokio::test]
async fn a_key_that_is_withdrawn_while_aws_is_down_leaves_a_token_what_it_earned_and_others_nothing() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let mut app = pod(&sandbox, "app-0");
    let granted = app.token.clone();
    let held = agent.ask(&granted).await.access_key_id();
    app.rotate_token().unwrap();
    assert_eq!(agent.ask(&app.token).await.access_key_id(), held, "verified, and AWS never saw it");
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Refuse)]);
    sandbox.rotate_keys(true).unwrap();
    // A token of the new key has the keys read again; the old one is gone with that.
    assert_eq!(agent.ask(&pod(&sandbox, "app-1").token).await.status, 503);
    assert_eq!(agent.ask(&granted).await.access_key_id(), held, "{}", agent.log());
    assert_eq!(agent.metric(r#"pod_identity_agent_authentications_total{outcome="unverified"}"#).await, 1);
    assert_eq!(agent.ask(&app.token).await.status, 503, "only a key said that it is the same pod");
}

#[tokio::test]
async fn keys_from_a_file_are_followed_when_it_changes() {
    let sandbox = sandbox();
    let file = sandbox.dir().join("keys.json");
    let url = sandbox.jwks_url();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let (address, path) = (address.parse().unwrap(), format!("/{path}"));
    let publish = async || {
        let document = Request::get(&path).send(address).await.unwrap().body;
        std::fs::write(&file, document).unwrap();
    };
    publish().await;
    let agent = Builder::verifying(&sandbox).flag("--jwks", file.to_str().unwrap()).start().await;
    let mut app = pod(&sandbox, "app-0");
    let held = agent.ask(&app.token).await.access_key_id();
    sandbox.rotate_keys(true).unwrap();
    publish().await;
    app.rotate_token().unwrap();
    assert_eq!(
        agent.ask(&app.token).await.access_key_id(),
        held,
        "the unknown key id had the file read again"
    );
    std::fs::write(&file, r#"{"keys":[{"kty""#).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    app.rotate_token().unwrap();
    assert_eq!(agent.ask(&app.token).await.access_key_id(), held, "half a file changes nothing");
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
}

#[tokio::test]
async fn off_is_as_if_there_were_no_keys() {
    let sandbox = sandbox();
    let agent: Agent = Builder::verifying(&sandbox).flag("--token-verification", "off").start().await;
    let mut app = pod(&sandbox, "app-0");
    assert_eq!(agent.ask(&app.token).await.status, 200);
    app.rotate_token().unwrap();
    assert_eq!(agent.ask(&app.token).await.status, 200);
    assert_eq!(eks_auth_calls(&sandbox).len(), 2);
    assert_eq!(sandbox.calls_of(Service::Issuer).len(), 0);
}

#[tokio::test]
async fn keys_over_https_are_taken_from_whom_the_ca_bundle_vouches_for_and_from_nobody_else() {
    let sandbox = Sandbox::start(Options { tls: true, ..Options::default() }).unwrap();
    let jwks = sandbox.jwks_tls_url().expect("https");
    let verifying = Builder::verifying(&sandbox).flag("--jwks", &jwks);
    let trusting = verifying.env("AWS_CA_BUNDLE", sandbox.ca_file().to_str().unwrap()).start().await;
    let mut app = pod(&sandbox, "app-0");
    assert_eq!(trusting.ask(&app.token).await.status, 200);
    assert_eq!(trusting.metric(r#"pod_identity_agent_authentications_total{outcome="verified"}"#).await, 1);
    let wary = Builder::verifying(&sandbox).flag("--jwks", &jwks).start().await;
    eventually("its roots do not vouch for the issuer", async || {
        wary.log().contains("token keys cannot be read")
    })
    .await;
    app.rotate_token().unwrap();
    assert_eq!(wary.ask(&app.token).await.status, 200, "EKS Auth judges");
    assert_eq!(wary.metric(r#"pod_identity_agent_authentications_total{outcome="unverified"}"#).await, 1);
    assert_eq!(wary.metric("pod_identity_agent_token_keys").await, 0);
}

/// What newer issuers may publish beside the keys that this agent can use, and what none should.
fn others() -> Vec<Value> {
    let mut others = vec![
        json!({ "kty": "AKP", "kid": "ml-dsa", "alg": "ML-DSA-65", "use": "sig", "pub": "A".repeat(2_600) }),
        json!({ "kty": "EC", "kid": "p521", "crv": "P-521", "alg": "ES512", "x": "AA", "y": "AA" }),
        json!({ "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "A".repeat(43) }),
        json!({ "kty": "RSA", "kid": "weak", "e": "AQAB", "n": "A".repeat(171) }),
        json!({ "kid": "no type" }),
        json!("not even an object"),
    ];
    others.extend((0..20).map(|index| json!({ "kty": "AKP", "kid": format!("other-{index}") })));
    others
}

#[tokio::test]
async fn keys_of_every_kind_verify_among_many_that_no_agent_knows() {
    for kind in [KeyKind::Rsa, KeyKind::P256, KeyKind::P384] {
        let sandbox = sandbox();
        sandbox.publish_beside(others());
        sandbox.publish_next_key(kind).unwrap();
        sandbox.rotate_keys(true).unwrap();
        let agent = Builder::verifying(&sandbox).flag("--token-verification", "required").start().await;
        let mut app = pod(&sandbox, "app-0");
        // The keys may come a moment after the agent is ready; the request waits for them.
        let held = agent.ask(&app.token).await.access_key_id();
        app.rotate_token().unwrap();
        assert_eq!(agent.ask(&app.token).await.access_key_id(), held, "{kind:?}");
        assert_eq!(eks_auth_calls(&sandbox).len(), 1, "{kind:?}");
        assert_eq!(agent.metric("pod_identity_agent_token_keys").await, 1, "{kind:?}");
        let forged = TokenSpec { key: TokenKey::Forged, ..TokenSpec::new(app.spec.clone()) };
        let forged = agent.ask(&app.token_as(&forged).unwrap()).await;
        assert_eq!(forged.reason, "InvalidTokenException", "{kind:?}: {forged:?}");
    }
}

#[tokio::test]
async fn of_several_keys_each_verifies_what_it_signed_and_one_that_was_published_ahead_costs_no_fetch() {
    let sandbox = sandbox();
    let mut app = pod(&sandbox, "app-0");
    let mut tokens = vec![app.token.clone()];
    for kind in [KeyKind::P256, KeyKind::Rsa, KeyKind::P384, KeyKind::P256] {
        sandbox.publish_next_key(kind).unwrap();
        sandbox.rotate_keys(false).unwrap();
        app.rotate_token().unwrap();
        tokens.push(app.token.clone());
    }
    sandbox.publish_next_key(KeyKind::P384).unwrap();
    let agent = Builder::verifying(&sandbox).flag("--token-verification", "required").start().await;
    let held = agent.ask(&tokens[0]).await.access_key_id();
    assert_eq!(agent.metric("pod_identity_agent_token_keys").await, 6);
    sandbox.rotate_keys(false).unwrap();
    app.rotate_token().unwrap();
    tokens.push(app.token.clone());
    for (index, token) in tokens.iter().enumerate() {
        assert_eq!(agent.ask(token).await.access_key_id(), held, "token {index}");
    }
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
    assert_eq!(sandbox.calls_of(Service::Issuer).len(), 1, "no token had to wait for a key");
}

#[tokio::test]
async fn a_slow_issuer_delays_no_pod_and_its_keys_count_when_they_come() {
    let late = Effect::Latency { ms: 3000, jitter_ms: 0 };
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let mut app = pod(&sandbox, "app-0");
    let held = agent.ask(&app.token).await.access_key_id();
    sandbox.faults().set([Fault::new(Service::Issuer, late)]);
    sandbox.publish_next_key(KeyKind::P256).unwrap();
    sandbox.rotate_keys(false).unwrap();
    app.rotate_token().unwrap();
    let before = tokio::time::Instant::now();
    assert_eq!(agent.ask(&app.token).await.status, 200, "EKS Auth judges");
    assert!(before.elapsed() < Duration::from_secs(1), "clients of one second wait: {:?}", before.elapsed());
    eventually("the key is there", async || agent.metric("pod_identity_agent_token_keys").await == 2).await;
    app.rotate_token().unwrap();
    assert_eq!(agent.ask(&app.token).await.access_key_id(), held, "verified, so it is the pod of before");
    assert_eq!(eks_auth_calls(&sandbox).len(), 2);
}

/// AWS refused the pod a moment ago, which is remembered for a second. What is decided after that second,
/// because the API server took longer to say whose token it is, is decided by AWS.
#[tokio::test]
async fn a_refusal_that_is_over_while_a_token_is_judged_is_not_repeated() {
    let sandbox = sandbox();
    let app = pod(&sandbox, "app-0");
    let api = ApiServer::start(sandbox.dir(), &[("default", "app-0", &app.uid)]).await;
    // The sandbox's keys are not known, so each token is shown to the API server.
    let agent = Builder::new(&sandbox)
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", &api.port.to_string())
        .flag("--kubernetes-credentials", api.folder.to_str().unwrap())
        .flag("--node-name", sandbox.node_name())
        .flag("--token-verification", "required")
        .start()
        .await;
    sandbox.faults().set([Fault::new(Service::EksAuth, failing(400, "AccessDeniedException"))]);
    let refused = agent.ask(&app.token).await;
    assert!(refused.body.contains("AccessDeniedException"), "{refused:?}");
    heal(&sandbox);
    api.review_takes(Duration::from_millis(1_500));
    // What AWS said counts for tokens that are no newer.
    let older = TokenSpec { lifetime: Duration::from_secs(7_200), ..TokenSpec::new(app.spec.clone()) };
    let answer = agent.ask(&app.token_as(&older).unwrap()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(agent.metric(r#"pod_identity_agent_authentications_total{outcome="verified"}"#).await, 2);
}
