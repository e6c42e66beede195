//! Tokens that no key proves, with an API server that each test plays, in simulated time.

mod warnings;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::name;
use crate::clock::{Clock, Now, Simulated};
use crate::config::VerificationMode::{self, Auto, Required};
use crate::identity::keys::TokenKeys;
use crate::identity::review::{Answer, NoAnswer, ReviewedUser, Reviews};
use crate::identity::testing::{
    EcSigner, ISSUER, NOW, Signer, authenticator, authenticator_of, authenticator_of_api_server, claims_with,
    good_claims, pod,
};
use crate::identity::{Authentication, Authenticator, Identity, Lookup};
use crate::lifecycle::tasks::spawn_detached;
use crate::rng::Rng;
use crate::telemetry::metrics::Metrics;
use crate::workload::{BearerToken, CredentialKey, PeerKey, Route};

/// What the API server does with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Accept,
    AcceptForNobody,
    AcceptOfNoPod,
    AcceptOfOtherNode,
    Deny,
    Fail,
    Forbid,
    Hang,
}

use Does::{Accept, AcceptForNobody, AcceptOfNoPod, AcceptOfOtherNode, Deny, Fail, Forbid, Hang};

/// An authenticator of node-1 with the key `known`, and an API server that answers within 20 ms.
struct Node {
    authenticator: Authenticator,
    keys: TokenKeys,
    clock: Clock,
    does: Arc<Mutex<Does>>,
    /// When it was asked.
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Node {
    fn new(mode: VerificationMode, does: Does) -> Self {
        let (authenticator, keys) = authenticator(mode, &[EcSigner::new("known").jwk()]);
        spawn_detached("test-source", keys.clone().read_for_nothing(0));
        Self::of(authenticator, keys, does)
    }

    fn of(authenticator: Authenticator, keys: TokenKeys, does: Does) -> Self {
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(NOW)));
        let does = Arc::new(Mutex::new(does));
        let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let reviews = Reviews::new(Metrics::new().token_reviews, Rng::seeded(7));
        let (doing, noted) = (Arc::clone(&does), Arc::clone(&asked));
        let ask = move |_token, audience: Arc<str>| {
            assert_eq!(&*audience, "pods.eks.amazonaws.com");
            noted.lock().push(Instant::now());
            let does = *doing.lock();
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                does.answer().await
            }
        };
        spawn_detached("test-api-server", reviews.clone().keep(clock.clone(), ask));
        let authenticator = authenticator.with_reviews(Some(reviews));
        Self { authenticator, keys, clock, does, asked }
    }

    fn now(&self) -> Now {
        let now = self.clock.now();
        Now::confirmed(now.wall, now.boot)
    }

    fn api_server(&self, does: Does) {
        *self.does.lock() = does;
    }

    /// The verdict, as the endpoint asks for it.
    async fn judge(&self, token: &BearerToken, peer: PeerKey) -> Authentication {
        let now = self.now();
        match self.authenticator.lookup(token, peer, now) {
            Lookup::Judged(authentication) => authentication,
            Lookup::Open(open) => self.authenticator.ask_others(&open, token, peer, now).await,
        }
    }

    async fn verdict(&self, token: &BearerToken) -> String {
        name(&self.judge(token, pod()).await)
    }

    /// The verdict, if it is known: nobody waits for it.
    fn at_once(&self, token: &BearerToken) -> String {
        match self.authenticator.lookup(token, pod(), self.now()) {
            Lookup::Judged(authentication) => name(&authentication),
            Lookup::Open(_) => "open".to_owned(),
        }
    }

    fn reviews(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Does {
    async fn answer(self) -> Result<Answer, NoAnswer> {
        let user = |node: &str| ReviewedUser {
            name: "system:serviceaccount:ns:sa".into(),
            uid: "sa-uid".into(),
            audiences: vec!["pods.eks.amazonaws.com".into()],
            pod: Some("p".into()),
            pod_uid: Some("p-uid".into()),
            node: Some(node.into()),
        };
        match self {
            Accept => Ok(Answer::Authenticated(user("node-1"))),
            AcceptForNobody => {
                Ok(Answer::Authenticated(ReviewedUser { audiences: Vec::new(), ..user("node-1") }))
            }
            AcceptOfNoPod => Ok(Answer::Authenticated(ReviewedUser { pod_uid: None, ..user("node-1") })),
            AcceptOfOtherNode => Ok(Answer::Authenticated(user("node-2"))),
            Deny => Ok(Answer::Denied("invalid bearer token".to_owned())),
            Fail => Err(NoAnswer::Failed("connection refused".into())),
            Forbid => Err(NoAnswer::Forbidden("cannot create resource tokenreviews".to_owned())),
            Hang => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Err(NoAnswer::Failed("time-out".into()))
            }
        }
    }
}

/// A token of a key that nobody publishes.
fn unpublished() -> BearerToken {
    EcSigner::new("unpublished").token(&good_claims())
}

fn of_former_issuer() -> BearerToken {
    EcSigner::new("known").token(&claims_with("/iss", json!("https://issuer-of-last-year.example")))
}

#[tokio::test(start_paused = true)]
async fn the_api_server_verifies_what_no_key_can() {
    let elsewhere = EcSigner::new("x").token(&claims_with("/kubernetes.io/node/name", json!("node-2")));
    for (does, auto, required) in [
        (Accept, "verified p-uid", "verified p-uid"),
        (AcceptForNobody, "unverified", "NotAuthenticated"),
        (AcceptOfNoPod, "NotPodBound", "NotPodBound"),
        (Deny, "unverified", "NotAuthenticated"),
        (Fail, "unverified", "undecided"),
        (Forbid, "unverified", "undecided"),
    ] {
        for (mode, expected) in [(Auto, auto), (Required, required)] {
            for token in [unpublished(), of_former_issuer()] {
                let node = Node::new(mode, does);
                for time in ["first", "second"] {
                    assert_eq!(node.verdict(&token).await, expected, "{does:?}, {mode:?}, the {time} time");
                }
                let most = if (does, mode) == (Fail, Required) { 8 } else { 1 };
                assert!((1..=most).contains(&node.reviews()), "{does:?}, {mode:?}: {}", node.reviews());
            }
        }
    }
    for mode in [Auto, Required] {
        let node = Node::new(mode, AcceptOfOtherNode);
        assert_eq!(node.verdict(&elsewhere).await, "OtherNode", "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_without_discovery_verifies_without_a_single_key() {
    for mode in [Auto, Required] {
        let keys = TokenKeys::of_sources(1);
        let node = Node::of(authenticator_of_api_server(mode, &[], &keys), keys.clone(), Accept);
        spawn_detached("test-source", keys.clone().read_for_nothing(0));
        let began = Instant::now();
        assert_eq!(node.verdict(&unpublished()).await, "verified p-uid", "{mode:?}");
        assert!(began.elapsed() <= Duration::from_millis(100), "{mode:?}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn keys_come_first() {
    let key = EcSigner::new("k");
    for mode in [Auto, Required] {
        let keys = TokenKeys::of_sources(1);
        let node = Node::of(authenticator_of(mode, &keys), keys.clone(), Accept);
        let source = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            keys.replace(0, &json!({ "keys": [key.jwk()] }));
        };
        let token = key.token(&good_claims());
        let (verdict, ()) = tokio::join!(node.verdict(&token), source);
        assert_eq!((&*verdict, node.reviews()), ("verified p-uid", 0), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn both_judges_give_a_pod_one_key() {
    let key = EcSigner::new("k");
    let held_under = async |node: &Node, claims: &Value| {
        let verdict = node.judge(&key.token(claims), pod()).await;
        let Authentication::Identified(identity @ Identity::Verified(_)) = verdict else {
            panic!("{verdict:?}")
        };
        identity.principal(Route::EksAuth).key
    };
    let (with_key, keys) = authenticator(Auto, &[key.jwk()]);
    let by_key = held_under(&Node::of(with_key, keys, Deny), &good_claims()).await;
    assert!(matches!(by_key, CredentialKey::Verified(_)));
    let by_review = Node::new(Auto, Accept);
    assert_eq!(held_under(&by_review, &good_claims()).await, by_key);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(held_under(&by_review, &claims_with("/exp", json!(NOW + 7200))).await, by_key, "rotated");
    assert_eq!(by_review.reviews(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_that_come_later_win() {
    let (key, other) = (EcSigner::new("k"), EcSigner::new("k"));
    let node = Node::new(Auto, Accept);
    let token = key.token(&good_claims());
    assert_eq!(node.verdict(&token).await, "verified p-uid");
    node.keys.replace(0, &json!({ "keys": [EcSigner::new("another").jwk()] }));
    assert_eq!((&*node.at_once(&token), node.reviews()), ("verified p-uid", 1), "no key speaks against it");
    node.keys.replace(0, &json!({ "keys": [other.jwk()] }));
    assert_eq!(node.at_once(&token), "Forged", "its issuer's key of that id has not signed it");
    node.keys.replace(0, &json!({ "keys": [key.jwk()] }));
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(node.at_once(&token), "verified p-uid");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.reviews(), 1, "a key proves it");
}

#[tokio::test(start_paused = true)]
async fn after_ten_minutes_the_api_server_is_asked_again_and_nobody_waits_for_it() {
    for (does, auto, required) in [
        (Accept, "verified p-uid", "verified p-uid"),
        (Fail, "verified p-uid", "verified p-uid"),
        (Hang, "verified p-uid", "verified p-uid"),
        (Forbid, "verified p-uid", "verified p-uid"),
        (Deny, "unverified", "NotAuthenticated"),
    ] {
        for (mode, expected) in [(Auto, auto), (Required, required)] {
            let (node, token) = (Node::new(mode, Accept), unpublished());
            assert_eq!(node.verdict(&token).await, "verified p-uid");
            node.api_server(does);
            tokio::time::sleep(Duration::from_secs(599)).await;
            assert_eq!((&*node.at_once(&token), node.reviews()), ("verified p-uid", 1));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(node.at_once(&token), "verified p-uid", "until there is an answer");
            // One denial may be an API server that could not check.
            for _ in 0..24 {
                tokio::time::sleep(Duration::from_millis(400)).await;
                assert_eq!(node.at_once(&token), "verified p-uid", "{does:?}, {mode:?}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            node.at_once(&token);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(node.at_once(&token), expected, "{does:?}, {mode:?}");
            assert!(node.reviews() >= 2, "{does:?}, {mode:?}");
            // An hour without an answer: it is asked now and then, until the token ends.
            for _ in 0..49 * 60 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let verdict = node.at_once(&token);
                // A denied token is asked about again now and then where there is no other judge.
                assert!(verdict == expected || (does, &*verdict) == (Deny, "open"), "{does:?}: {verdict}");
            }
            // Pauses of 15 s at least.
            let most = if does == Accept { 8 } else { 200 };
            assert!(node.reviews() <= most, "{does:?}, {mode:?}: {}", node.reviews());
            tokio::time::sleep(Duration::from_secs(5 * 60)).await;
            assert_eq!(node.at_once(&token), "Expired");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_token_is_shown_again_after_ten_seconds() {
    for (mode, meanwhile) in [(Auto, "unverified"), (Required, "NotAuthenticated")] {
        let (node, token) = (Node::new(mode, Deny), unpublished());
        assert_eq!(node.verdict(&token).await, meanwhile);
        // The pod was so new that this API server did not know it.
        node.api_server(Accept);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!((&*node.verdict(&token).await, node.reviews()), (meanwhile, 1));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let verdict = node.verdict(&token).await;
        assert_eq!(
            verdict,
            if mode == Auto { "unverified" } else { "verified p-uid" },
            "EKS Auth judges meanwhile"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((&*node.at_once(&token), node.reviews()), ("verified p-uid", 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_counts_no_longer_because_the_api_server_is_away() {
    for does in [Fail, Forbid] {
        let (node, token) = (Node::new(Required, Deny), unpublished());
        assert_eq!(node.verdict(&token).await, "NotAuthenticated");
        node.api_server(does);
        tokio::time::sleep(Duration::from_secs(9)).await;
        // Another token finds out that it is away.
        assert_eq!(node.verdict(&of_former_issuer()).await, "undecided");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(node.verdict(&token).await, "undecided", "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_costs_half_a_second_once_where_eks_auth_can_judge() {
    for token in [unpublished(), of_former_issuer()] {
        let node = Node::new(Auto, Hang);
        let began = Instant::now();
        assert_eq!(node.verdict(&token).await, "unverified");
        assert_eq!(began.elapsed(), Duration::from_millis(500));
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(node.at_once(&token), "unverified");
        }
        node.api_server(Accept);
        tokio::time::sleep(Duration::from_secs(35)).await;
        assert_eq!(node.at_once(&token), "unverified");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(node.at_once(&token), "verified p-uid", "it has answered since");
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_other_judge_is_an_answer_is_waited_for_until_the_hold_is_nearly_over() {
    let (node, token) = (Node::new(Required, Fail), of_former_issuer());
    let began = Instant::now();
    assert_eq!(node.verdict(&token).await, "undecided");
    assert_eq!(began.elapsed(), Duration::from_millis(4_400));
    let back = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        node.api_server(Accept);
    };
    let (verdict, ()) = tokio::join!(node.verdict(&token), back);
    assert_eq!(verdict, "verified p-uid");
}

#[tokio::test(start_paused = true)]
async fn fifty_requests_with_one_token_are_one_review() {
    for mode in [Auto, Required] {
        let (node, token) = (Node::new(mode, Accept), unpublished());
        let verdicts = join_all((0..50).map(|_| node.verdict(&token))).await;
        assert!(verdicts.iter().all(|verdict| verdict == "verified p-uid"), "{mode:?}: {verdicts:?}");
        assert_eq!(node.reviews(), 1, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_junk_makes_five_reviews_a_second_and_delays_nobody_with_a_known_verdict() {
    for (mode, issuer) in [(Auto, ISSUER), (Auto, "https://evil.example"), (Required, "https://evil.example")]
    {
        let (key, node) = (EcSigner::new("k"), Node::new(mode, Accept));
        let reviewed = unpublished();
        assert_eq!(node.verdict(&reviewed).await, "verified p-uid");
        node.api_server(Deny);
        let before = node.reviews();
        let junk = |number: u64| {
            let mut claims = claims_with("/iss", json!(issuer));
            claims["exp"] = json!(NOW + 3_600 + number);
            key.token(&claims)
        };
        // 1,000 a second, of 200 pods.
        let flood = join_all((0..3_000_u64).map(|number| {
            let (node, token) = (&node, junk(number));
            async move {
                tokio::time::sleep(Duration::from_millis(number)).await;
                let peer = PeerKey::new([10, 0, 1, (number % 200) as u8].into(), 1);
                node.judge(&token, peer).await
            }
        }));
        let known = async {
            for _ in 0..3_000 {
                assert_eq!(node.at_once(&reviewed), "verified p-uid");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (verdicts, ()) = tokio::join!(flood, known);
        assert!(!verdicts.iter().any(|verdict| name(verdict).starts_with("verified")));
        let asked = node.asked.lock()[before..].to_vec();
        for six in asked.windows(6) {
            assert!(six[5] - six[0] >= Duration::from_secs(1), "{mode:?}: {six:?}");
        }
        assert!(asked.len() >= 10, "{mode:?}: {}", asked.len());
    }
}
