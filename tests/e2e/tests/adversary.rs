//! Tokens of people who mean ill, one by one: what becomes of each, what its sender sees, what AWS hears of
//! it.

mod roles;

use std::net::{IpAddr, Ipv4Addr};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sandbox::{Pod, Sandbox, TokenKey, TokenSpec};

use crate::harness::{Builder, Request, eks_auth_calls, pod, sandbox};

/// One row of the table.
struct Adversary {
    what: &'static str,
    token: String,
    status: u16,
    code: &'static str,
    /// The outcome of `pod_identity_agent_authentications`.
    verdict: &'static str,
    upstream_calls: usize,
}

/// The parts of a token, decoded: header, claims.
pub(crate) fn parts(token: &str) -> (serde_json::Value, serde_json::Value) {
    let mut parts = token.split('.').map(|part| {
        let json = URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&json).unwrap_or_default()
    });
    (parts.next().unwrap(), parts.next().unwrap())
}

pub(crate) fn encode(part: &serde_json::Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// The public key of the sandbox as everybody can fetch it: its modulus.
async fn public_modulus(sandbox: &Sandbox) -> Vec<u8> {
    let url = sandbox.jwks_url();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let answer = Request::get(&format!("/{path}")).send(address.parse().unwrap()).await.unwrap();
    URL_SAFE_NO_PAD.decode(answer.json()["keys"][0]["n"].as_str().unwrap()).unwrap()
}

/// Signed as an HMAC with the public key as the secret.
async fn public_key_as_secret(sandbox: &Sandbox, victim: &Pod) -> String {
    let (mut header, claims) = parts(&victim.token);
    header["alg"] = "HS256".into();
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &public_modulus(sandbox).await);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&secret, signed.as_bytes())))
}

/// The attacker's own good token, with the victim's uid written over its own.
fn tampered(attacker: &Pod, victim: &Pod) -> String {
    let (header, mut claims) = parts(&attacker.token);
    claims["kubernetes.io"]["pod"]["uid"] = victim.uid.clone().into();
    let signature = attacker.token.rsplit_once('.').unwrap().1;
    format!("{}.{}.{signature}", encode(&header), encode(&claims))
}

async fn table(sandbox: &Sandbox, victim: &Pod) -> Vec<Adversary> {
    const INVALID: &str = "InvalidTokenException";
    let good = TokenSpec::new(victim.spec.clone());
    let attacker = pod(sandbox, "attacker");
    let mut elsewhere = pod(sandbox, "elsewhere");
    elsewhere.node_name = "another-node".to_owned();
    let of = |what, token, status, code, verdict, upstream_calls| Adversary {
        what,
        token,
        status,
        code,
        verdict,
        upstream_calls,
    };
    let refused =
        |what, spec: TokenSpec, code| of(what, victim.token_as(&spec).unwrap(), 400, code, "refused", 0);
    let both = ["pods.eks.amazonaws.com", "sts.amazonaws.com"];
    let foreign = TokenSpec { issuer: Some("https://evil.example".to_owned()), ..good.clone() };
    vec![
        refused("forged", good.clone().key(TokenKey::Forged), INVALID),
        refused("unsigned", good.clone().key(TokenKey::Unsigned), INVALID),
        refused("expired", good.clone().expired(), "ExpiredTokenException"),
        refused("wrong audience", good.clone().audiences(&["sts.amazonaws.com"]), INVALID),
        refused("two audiences", good.clone().audiences(&both), INVALID),
        refused("bound to no pod", good.clone().without_pod_claims(), INVALID),
        of("tampered uid", tampered(&attacker, victim), 400, INVALID, "refused", 0),
        of(
            "HS256 with the public key",
            public_key_as_secret(sandbox, victim).await,
            400,
            INVALID,
            "refused",
            0,
        ),
        of("of another node", elsewhere.another_token().unwrap(), 403, "AccessDeniedException", "refused", 0),
        // No key of ours can decide, so the judge is asked who can; once.
        of("wrong issuer", victim.token_as(&foreign).unwrap(), 400, INVALID, "unverified", 1),
        of(
            "of a key nobody published",
            victim.token_as(&good.key(TokenKey::Stray)).unwrap(),
            400,
            INVALID,
            "unverified",
            1,
        ),
    ]
}

#[tokio::test]
async fn each_adversary_gets_what_the_table_says_and_never_the_victims_credentials() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let victim = pod(&sandbox, "victim");
    let held = agent.ask(&victim.token).await.access_key_id();
    for adversary in table(&sandbox, &victim).await {
        let what = adversary.what;
        if adversary.token.ends_with('.') {
            // Without a signature it is not even three parts: turned away before anybody looks inside.
            let answer = agent.ask(&adversary.token).await;
            assert_eq!((answer.status, answer.reason.as_str()), (400, adversary.code), "{what}");
            assert!(eks_auth_calls(&sandbox).len() <= 1, "{what}");
            // With something in its place it is `none`, and no key proves that.
            let answer = agent.ask(&format!("{}AA", adversary.token)).await;
            assert_eq!((answer.status, answer.reason.as_str()), (400, adversary.code), "{what}");
            assert_eq!(eks_auth_calls(&sandbox).len(), 1, "{what}");
            continue;
        }
        let series = format!("pod_identity_agent_authentications_total{{outcome=\"{}\"}}", adversary.verdict);
        let (calls, verdicts) = (eks_auth_calls(&sandbox).len(), agent.metric(&series).await);
        let answer = agent.ask(&adversary.token).await;
        assert_eq!((answer.status, answer.reason.as_str()), (adversary.status, adversary.code), "{what}");
        assert_eq!(eks_auth_calls(&sandbox).len() - calls, adversary.upstream_calls, "{what}");
        assert_eq!(agent.metric(&series).await - verdicts, 1, "{what}: {}", adversary.verdict);
    }
    assert_eq!(agent.ask(&victim.token).await.access_key_id(), held, "the victim noticed nothing");
}

#[tokio::test]
async fn a_token_that_is_not_valid_yet_is_for_aws_to_judge_because_the_clock_may_be_behind() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let victim = pod(&sandbox, "victim");
    agent.ask(&victim.token).await.access_key_id();
    let early = victim.token_as(&TokenSpec::new(victim.spec.clone()).not_yet_valid()).unwrap();
    let answer = agent.ask(&early).await;
    assert_eq!((answer.status, answer.reason.as_str()), (400, "InvalidTokenException"));
    // And the time is asked for, with a set that somebody wants.
    let calls = eks_auth_calls(&sandbox).len();
    assert!((2..=3).contains(&calls), "{calls} calls");
    assert_eq!(agent.ask(&victim.token).await.status, 200);
}

#[tokio::test]
async fn a_token_in_use_twice_is_one_pod_and_one_call_and_gets_nothing_of_others() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let victim = pod(&sandbox, "victim");
    let held = agent.ask(&victim.token).await.access_key_id();
    // Replayed from another peer, a genuine token is as good as the pod: which peer may use it is for the
    // audit to tell.
    let replayed = Request::credentials(&victim.token).from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
    assert_eq!(replayed.send(agent.address()).await.unwrap().access_key_id(), held);
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
    assert_ne!(agent.ask(&pod(&sandbox, "other").token).await.access_key_id(), held);
    // A pod made again under the same name is another pod.
    assert_ne!(agent.ask(&pod(&sandbox, "victim").token).await.access_key_id(), held);
    assert_eq!(eks_auth_calls(&sandbox).len(), 3);
}

/// Under `auto` EKS Auth judges the token, and refuses it. Where a token that no key proves is shown to nobody,
/// it finds what its pod had when EKS Auth granted it to this very token, and one that never earned anything
/// finds nothing.
#[tokio::test]
async fn a_withdrawn_key_stops_verifying() {
    for (mode, of_used, of_unused, calls) in
        [("auto", (400, false), 400, 2), ("required", (200, true), 503, 0)]
    {
        let sandbox = sandbox();
        let agent = Builder::verifying(&sandbox).flag("--token-verification", mode).start().await;
        let mut victim = pod(&sandbox, "victim");
        let (used, unused) = (victim.token.clone(), victim.another_token().unwrap());
        let held = agent.ask(&used).await.access_key_id();
        sandbox.rotate_keys(true).unwrap();
        victim.rotate_token().unwrap();
        assert_eq!(agent.ask(&victim.token).await.access_key_id(), held, "the new key is learnt, {mode}");
        assert_eq!(eks_auth_calls(&sandbox).len(), 1);
        let answer = agent.ask(&used).await;
        assert_eq!((answer.status, answer.body.contains(&held)), of_used, "{mode}");
        assert_eq!(agent.ask(&unused).await.status, of_unused, "{mode}");
        assert_eq!(eks_auth_calls(&sandbox).len(), 1 + calls, "{mode}");
    }
}

#[tokio::test]
async fn a_forgery_that_comes_again_and_again_never_leaves_the_node() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).start().await;
    let (attacker, victim) = (pod(&sandbox, "attacker"), pod(&sandbox, "victim"));
    let held = agent.ask(&victim.token).await.access_key_id();
    let forged = tampered(&attacker, &victim);
    for _ in 0..200 {
        let answer = agent.ask(&forged).await;
        assert_eq!((answer.status, answer.reason.as_str()), (400, "InvalidTokenException"));
    }
    assert_eq!(agent.ask(&victim.token).await.access_key_id(), held);
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
}
