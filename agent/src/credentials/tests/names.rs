//! The two names of an identity: keys that come late or are withdrawn take nothing away (invariant 3), and
//! give nothing to a token that its source never granted (invariant 1).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::aws::Mood;
use super::{HOUR, MINUTE, Node, peer};
use crate::config::Retention;
use crate::credentials::policy::hold::Hold;
use crate::credentials::provider::CredentialRequest;
use crate::workload::{
    BearerToken, Caller, ClaimedPod, CredentialKey, Pod, PresentedToken, Principal, Route, ServiceAccount,
    VerifiedKey,
};

const HEALTHY: Mood = Mood::Issues { after: Duration::from_millis(80), life: Duration::from_secs(6 * 3600) };

pub(super) fn presented(text: &str, expires: SystemTime) -> PresentedToken {
    let token = BearerToken::from_header(text.as_bytes()).unwrap();
    PresentedToken { token, expires, issued: None }
}

/// The request of a pod that a key has proven, with this token.
pub(super) fn verified(node: &Node, pod: usize, token: &str) -> CredentialRequest {
    let service_account = ServiceAccount { namespace: "ns".into(), name: "sa".into(), uid: "sa".into() };
    let uid = format!("pod-{pod}").into();
    let pod_of_key = Arc::new(Pod { service_account, name: "p".into(), uid, node: None });
    let key = VerifiedKey::new("cluster".into(), Arc::clone(&pod_of_key), Route::EksAuth);
    let key = CredentialKey::Verified(key);
    let principal = Principal { key, caller: Caller::Verified(pod_of_key), route: Route::EksAuth };
    let token = presented(token, node.time_at_start() + 24 * HOUR);
    CredentialRequest { principal, token, must_be_judged: false, hold: Hold::Unknown, peer: peer(pod) }
}

/// The same pod's, as long as no key can tell: the token says which pod it is, and nothing proves that.
pub(super) fn claimed(node: &Node, pod: usize, token: &str) -> CredentialRequest {
    let token = presented(token, node.time_at_start() + 24 * HOUR);
    let key = CredentialKey::Unverified(token.token.digest());
    let claim = Arc::new(ClaimedPod::new("ns", "sa", Some("p"), Some(&format!("pod-{pod}"))));
    let principal = Principal { key, caller: Caller::Claimed(claim), route: Route::EksAuth };
    CredentialRequest { principal, token, must_be_judged: false, hold: Hold::Unknown, peer: peer(pod) }
}

#[tokio::test(start_paused = true)]
async fn keys_that_come_while_aws_is_down_leave_a_pod_what_its_token_earned() {
    let node = Node::new();
    let earned = node.ask_as(&claimed(&node, 1, "a.first.c")).await.unwrap().access_key_id;
    node.aws.be(Mood::Refuses);
    assert!(
        node.ask_as(&verified(&node, 1, "a.rotated.c")).await.is_err(),
        "nothing tells yet that this is the pod of the other token"
    );
    let served = node.ask_as(&verified(&node, 1, "a.first.c")).await.unwrap();
    assert_eq!(served.access_key_id, earned, "the very token that earned it");
    let served = node.ask_as(&verified(&node, 1, "a.rotated.c")).await.unwrap();
    assert_eq!(served.access_key_id, earned, "and now every token of the pod");
    assert!(node.ask_as(&verified(&node, 2, "a.other.c")).await.is_err(), "no other pod");
    node.credentials.store.tidy();
    assert_eq!((node.credentials.store.verified_len(), node.credentials.store.unverified_len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_withdrawn_while_aws_is_down_leave_a_token_what_it_earned_and_others_nothing() {
    let node = Node::new();
    let earned = node.ask_as(&verified(&node, 1, "a.granted.c")).await.unwrap().access_key_id;
    // It only ever found in memory what another token had earned: AWS never saw it.
    assert_eq!(node.ask_as(&verified(&node, 1, "a.other.c")).await.unwrap().access_key_id, earned);
    node.aws.be(Mood::Refuses);
    let served = node.ask_as(&claimed(&node, 1, "a.granted.c")).await.unwrap();
    assert_eq!(served.access_key_id, earned);
    assert!(node.ask_as(&claimed(&node, 1, "a.other.c")).await.is_err(), "never granted");
    assert!(node.ask_as(&claimed(&node, 1, "a.forged.c")).await.is_err(), "a claim finds nothing");
    assert_eq!(node.ask_as(&verified(&node, 1, "a.other.c")).await.unwrap().access_key_id, earned);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_no_key_verifies_any_more_is_judged_by_aws_as_soon_as_aws_can_be_asked() {
    let node = Node::new();
    let (by_key, by_token) = (verified(&node, 1, "a.granted.c"), claimed(&node, 1, "a.granted.c"));
    let earned = node.ask_as(&by_key).await.unwrap().access_key_id;
    node.aws.be(Mood::Says(503, "ServiceUnavailableException"));
    for _ in 0..120 {
        assert_eq!(node.ask_as(&by_token).await.unwrap().access_key_id, earned);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((3..=6).contains(&node.aws.calls()), "{} calls in two minutes", node.aws.calls());
    // The key was withdrawn because it leaked, and AWS says so. It says nothing of the pod's other tokens.
    node.aws.be_to_token("a.granted.c", Mood::Says(400, "InvalidTokenException"));
    tokio::time::sleep(Duration::from_secs(31)).await;
    let refused = node.ask_as(&by_token).await.unwrap_err().unwrap();
    assert_eq!(refused.label(), "InvalidTokenException");
    node.aws.be(Mood::Refuses);
    node.aws.be_to_token("a.granted.c", Mood::Refuses);
    tokio::time::sleep(MINUTE).await;
    assert!(node.ask_as(&by_token).await.is_err(), "the link has ended with that");
    assert_eq!(node.ask_as(&verified(&node, 1, "a.newer.c")).await.unwrap().access_key_id, earned);
    // And what AWS grants the token is its own.
    let node = Node::new();
    let earned = node.ask_as(&by_key).await.unwrap().access_key_id;
    assert_ne!(node.ask_as(&by_token).await.unwrap().access_key_id, earned);
    assert_eq!(node.aws.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_ends_with_its_token_and_with_the_set_that_the_token_earned() {
    let node = Node::new();
    let short = CredentialRequest {
        token: presented("a.short.c", node.time_at_start() + HOUR),
        ..verified(&node, 1, "a.short.c")
    };
    node.ask_as(&short).await.unwrap();
    let earned = node.ask_as(&verified(&node, 2, "a.long.c")).await.unwrap().access_key_id;
    node.aws.be(Mood::Refuses);
    let as_claimed = CredentialRequest { token: short.token.clone(), ..claimed(&node, 1, "a.short.c") };
    assert!(node.ask_as(&as_claimed).await.is_ok());
    tokio::time::sleep(HOUR + MINUTE).await;
    assert!(node.ask_as(&as_claimed).await.is_err(), "past its exp");
    // The pod's own set lives on with a newer token; what the first one earned has ended.
    node.aws.be(HEALTHY);
    node.aws.be_to_token("a.long.c", Mood::Refuses);
    let newer = CredentialRequest {
        token: presented("a.newer.c", node.time_at_start() + 30 * HOUR),
        ..verified(&node, 2, "a.newer.c")
    };
    for _ in 0..36 {
        node.ask_as(&newer).await.unwrap();
        tokio::time::sleep(10 * MINUTE).await;
    }
    assert_ne!(node.ask_as(&newer).await.unwrap().access_key_id, earned);
    node.aws.be(Mood::Refuses);
    assert!(node.ask_as(&claimed(&node, 2, "a.long.c")).await.is_err());
    assert!(node.ask_as(&newer).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_call_is_under_way_over_both_names() {
    let node = Node::new();
    // Keys come while the first call is under way, and while a renewal is.
    let (by_token, by_key) = (claimed(&node, 1, "a.b.c"), verified(&node, 1, "a.b.c"));
    let later = async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        node.ask_as(&by_key).await
    };
    let (first, second) = tokio::join!(node.ask_as(&by_token), later);
    assert_eq!(first.unwrap().access_key_id, second.unwrap().access_key_id);
    assert_eq!((node.aws.calls(), node.aws.most_of_one()), (1, 1));
    node.aws.be(Mood::Hangs);
    tokio::time::sleep(4 * HOUR).await;
    let calls = node.aws.calls();
    for request in [&by_token, &by_key, &by_token, &by_key] {
        node.ask_as(request).await.unwrap();
    }
    assert_eq!(node.aws.most_of_one(), 1);
    assert!(node.aws.calls() <= calls + 1);
    // And keys that go while the renewal of what a verified pod has is under way.
    let node = Node::new();
    node.ask_as(&by_key).await.unwrap();
    node.aws.be(Mood::Hangs);
    tokio::time::sleep(3 * HOUR + MINUTE).await;
    for request in [&by_key, &by_token, &by_key, &by_token] {
        node.ask_as(request).await.unwrap();
    }
    assert_eq!(node.aws.most_of_one(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_call_is_under_way_if_the_key_goes_during_a_tokens_first_call() {
    let node = Node::new();
    node.aws.be(Mood::Issues { after: Duration::from_secs(1), life: HOUR });
    let later = async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        // Nothing was granted to it yet, so no entry tells of which pod it is.
        node.ask_as(&claimed(&node, 1, "a.b.c")).await
    };
    let by_key = verified(&node, 1, "a.b.c");
    let (first, second) = tokio::join!(node.ask_as(&by_key), later);
    assert_eq!((node.aws.calls(), node.aws.most_of_one()), (1, 1));
    assert_eq!(first.unwrap().access_key_id, second.unwrap().access_key_id, "by what was granted to it then");
}

#[tokio::test(start_paused = true)]
async fn an_entitlement_that_ends_under_one_name_has_ended_under_the_other() {
    let node = Node::new();
    node.ask_as(&claimed(&node, 1, "a.first.c")).await.unwrap();
    node.ask_as(&verified(&node, 1, "a.rotated.c")).await.unwrap();
    for token in ["a.first.c", "a.rotated.c"] {
        node.aws.be_to_token(token, Mood::Says(404, "ResourceNotFoundException"));
    }
    tokio::time::sleep(2 * HOUR).await;
    let began = tokio::time::Instant::now();
    while node.ask_as(&verified(&node, 1, "a.rotated.c")).await.is_ok() {
        assert!(began.elapsed() < 2 * HOUR);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(node.ask_as(&verified(&node, 1, "a.first.c")).await.is_err());
    assert!(node.ask_as(&claimed(&node, 1, "a.first.c")).await.is_err());
    node.credentials.store.tidy();
    assert!(node.credentials.store.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_step_that_makes_all_look_expired_takes_no_token_what_it_earned() {
    let node = Node::new();
    let earned = node.ask_as(&verified(&node, 1, "a.granted.c")).await.unwrap().access_key_id;
    node.aws.be(Mood::Refuses);
    node.time.set_wall_error_ms(25 * 3_600_000);
    assert!(node.ask_as(&claimed(&node, 1, "a.granted.c")).await.is_err(), "by the stricter reading");
    node.credentials.store.tidy();
    tokio::time::sleep(MINUTE).await;
    // Any answer tells that the step was wrong; then keys and AWS are away.
    node.aws.be(Mood::Says(503, "ServiceUnavailableException"));
    let _learns = node.ask(2).await;
    assert!(node.clock.now().is_confirmed());
    node.aws.be(Mood::Refuses);
    let served = node.ask_as(&claimed(&node, 1, "a.granted.c")).await.unwrap();
    assert_eq!(served.access_key_id, earned);
}

const NOT_FOUND: Mood = Mood::Says(404, "ResourceNotFoundException");

fn with_max_stale(max_stale: Option<Duration>) -> Node {
    let max_identities = NonZeroUsize::new(2000).unwrap();
    Node::with(&Retention::Keep { renew_after: 3 * HOUR, max_identities }, max_stale)
}

/// Asks every ten seconds; how long it was served.
async fn served_for(node: &Node, request: &CredentialRequest, at_most: Duration) -> Duration {
    let began = tokio::time::Instant::now();
    while began.elapsed() < at_most && node.ask_as(request).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn an_entitlement_that_ends_under_a_tokens_digest_has_ended_under_its_pods_name() {
    for max_stale in [None, Some(Duration::ZERO)] {
        let node = with_max_stale(max_stale);
        let (by_key, by_token) = (verified(&node, 1, "a.b.c"), claimed(&node, 1, "a.b.c"));
        node.ask_as(&by_key).await.unwrap();
        // The key is withdrawn: AWS judges the token, and it gets a set of its own.
        node.ask_as(&by_token).await.unwrap();
        node.credentials.store.tidy();
        let store = &node.credentials.store;
        assert_eq!((store.verified_len(), store.unverified_len(), node.aws.calls()), (1, 1, 2));
        node.aws.be(NOT_FOUND);
        tokio::time::sleep(2 * HOUR).await;
        // Its renewal is due within the hour; then AWS is believed.
        let served = served_for(&node, &by_token, 3 * HOUR).await;
        assert!(served < 70 * MINUTE, "{max_stale:?}: {served:?}");
        for _ in 0..10 {
            assert!(node.ask_as(&by_token).await.is_err(), "{max_stale:?}: it is served by its other name");
            assert!(node.ask_as(&by_key).await.is_err(), "{max_stale:?}");
            tokio::time::sleep(MINUTE).await;
        }
        node.credentials.store.tidy();
        assert!(node.credentials.store.is_empty(), "{max_stale:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_judgement_that_there_is_no_association_is_about_what_the_pod_has() {
    for (max_stale, least, most) in
        [(None, 5 * MINUTE, 9 * MINUTE), (Some(Duration::ZERO), Duration::ZERO, Duration::from_secs(10))]
    {
        let node = with_max_stale(max_stale);
        let by_token = claimed(&node, 1, "a.b.c");
        node.ask_as(&verified(&node, 1, "a.b.c")).await.unwrap();
        node.aws.be(NOT_FOUND);
        let served = served_for(&node, &by_token, HOUR).await;
        assert!(served >= least && served <= most, "{max_stale:?}: {served:?}");
        assert_eq!(node.ask_as(&by_token).await.unwrap_err().unwrap().label(), "ResourceNotFoundException");
        assert!(node.credentials.store.is_empty());
    }
}

/// Of a key that is away for half an hour, in which the kubelet brings a new token and AWS says to it that
/// there is no association: AWS has never granted that token anything, so no entry knows it. Story 1080 with
/// its numbers: asked after 0 and 1,160 s, and served for an hour more when the key was back, after 1,807 s.
#[tokio::test(start_paused = true)]
async fn no_association_for_a_token_that_no_entry_knows_is_about_what_the_pod_it_claims_has() {
    const NO_CLUSTER: Mood = Mood::Page {
        status: 404,
        body: r#"{"code":"ResourceNotFoundException","message":"No cluster found for name: c."}"#,
        has_request_id: true,
    };
    for (max_stale, blamed, is_served) in [
        (Some(Duration::from_secs(83)), NOT_FOUND, false),
        (None, NOT_FOUND, false),
        // Before it knows the cluster AWS may not have looked at the token.
        (None, NO_CLUSTER, true),
    ] {
        let node = with_max_stale(max_stale);
        let granted = verified(&node, 1, "a.granted.c");
        node.ask_as(&granted).await.unwrap();
        node.ask_as(&verified(&node, 2, "a.neighbour.c")).await.unwrap();
        node.aws.be_to_token("a.rotated.c", blamed);
        node.aws.be_to_token("a.granted.c", blamed);
        let began = tokio::time::Instant::now();
        // AWS must say it three times, so once more than in the story.
        for at in [0, 1_160, 1_500] {
            tokio::time::sleep_until(began + Duration::from_secs(at)).await;
            assert!(node.ask_as(&claimed(&node, 1, "a.rotated.c")).await.is_err());
        }
        tokio::time::sleep_until(began + Duration::from_secs(1_807)).await;
        let answer = node.ask_as(&verified(&node, 1, "a.rotated.c")).await;
        assert_eq!(answer.is_ok(), is_served, "{max_stale:?}");
        assert!(node.ask_as(&verified(&node, 2, "a.neighbour.c")).await.is_ok());
    }
}

/// The pod's own renewals get no answer, so only what AWS says to tokens that no key proves tells anything.
#[tokio::test(start_paused = true)]
async fn a_set_for_a_token_that_no_entry_knows_shows_that_the_pod_has_its_association() {
    let node = with_max_stale(None);
    node.aws.are_of_one_pod(&["a.granted.c", "a.rotated.c"]);
    let granted = verified(&node, 1, "a.granted.c");
    node.ask_as(&granted).await.unwrap();
    node.aws.be_to_token("a.granted.c", Mood::Refuses);
    let began = tokio::time::Instant::now();
    // Not found, there again four minutes later, and gone for good: the five minutes begin anew.
    for (at, token, says, is_found, is_served) in [
        (0, "a.rotated.c", NOT_FOUND, false, true),
        (240, "a.rotated.c", HEALTHY, true, true),
        (270, "a.newest.c", NOT_FOUND, false, true),
        (310, "a.newest.c", NOT_FOUND, false, true),
        (575, "a.newest.c", NOT_FOUND, false, false),
    ] {
        tokio::time::sleep_until(began + Duration::from_secs(at)).await;
        node.aws.be_to_token(token, says);
        assert_eq!(node.ask_as(&claimed(&node, 1, token)).await.is_ok(), is_found, "after {at} s");
        assert_eq!(node.ask_as(&granted).await.is_ok(), is_served, "after {at} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_must_be_judged_is_not_served_what_its_pod_has() {
    let node = Node::new();
    node.ask_as(&verified(&node, 1, "a.b.c")).await.unwrap();
    node.aws.be(Mood::Says(400, "ExpiredTokenException"));
    let untimely = CredentialRequest { must_be_judged: true, ..claimed(&node, 1, "a.b.c") };
    let refused = node.ask_as(&untimely).await.unwrap_err().unwrap();
    assert_eq!(refused.label(), "ExpiredTokenException");
    assert_eq!(node.aws.calls(), 2);
}

/// A pod with two tokens, both of which AWS granted a set: the newer one renewed it.
async fn with_two_tokens(node: &Node) -> [CredentialRequest; 2] {
    let expires = node.time_at_start() + 30 * HOUR;
    let newer =
        |request: CredentialRequest| CredentialRequest { token: presented("a.newer.c", expires), ..request };
    node.aws.are_of_one_pod(&["a.older.c", "a.newer.c"]);
    node.ask_as(&verified(node, 1, "a.older.c")).await.unwrap();
    node.ask_as(&newer(verified(node, 1, "a.newer.c"))).await.unwrap();
    tokio::time::sleep(3 * HOUR + MINUTE).await;
    assert_eq!((node.aws.calls_with("a.older.c"), node.aws.calls_with("a.newer.c")), (1, 1));
    [claimed(node, 1, "a.older.c"), newer(claimed(node, 1, "a.newer.c"))]
}

#[tokio::test(start_paused = true)]
async fn one_call_is_under_way_over_both_names_whichever_tokens_they_come_with() {
    let node = Node::new();
    node.aws.are_of_one_pod(&["a.older.c", "a.newer.c"]);
    node.ask_as(&verified(&node, 1, "a.older.c")).await.unwrap();
    let newer = presented("a.newer.c", node.time_at_start() + 30 * HOUR);
    let by_key = CredentialRequest { token: newer, ..verified(&node, 1, "a.newer.c") };
    let by_token = claimed(&node, 1, "a.older.c");
    node.ask_as(&by_key).await.unwrap();
    tokio::time::sleep(2 * HOUR).await;
    // Within the hour the pod's set is renewed with its newer token, again and again, while the older one is
    // judged.
    node.aws.be(Mood::Hangs);
    for _ in 0..(65 * 6) {
        for request in [&by_token, &by_key] {
            node.ask_as(request).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(node.aws.most_of_one(), 1);
    let calls = (node.aws.calls_with("a.older.c"), node.aws.calls_with("a.newer.c"));
    assert!(calls.0 > 10 && calls.1 > 3, "{calls:?}");
    node.aws.be(HEALTHY);
    tokio::time::sleep(3 * MINUTE).await;
    assert!(node.ask_as(&by_key).await.unwrap().left > 5 * HOUR, "renewed when it was over");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_goes_on_earning_by_itself_stays_known_to_be_its_pods() {
    let node = Node::new();
    let hour = Mood::Issues { after: Duration::from_millis(80), life: HOUR };
    node.aws.be(hour);
    node.aws.are_of_one_pod(&["a.older.c", "a.newer.c"]);
    node.ask_as(&verified(&node, 1, "a.older.c")).await.unwrap();
    let newer = presented("a.newer.c", node.time_at_start() + 30 * HOUR);
    let by_key = CredentialRequest { token: newer, ..verified(&node, 1, "a.newer.c") };
    let by_token = claimed(&node, 1, "a.older.c");
    // The key is withdrawn, and what the pod had by it expires.
    for _ in 0..(3 * 6) {
        node.ask_as(&by_token).await.unwrap();
        tokio::time::sleep(10 * MINUTE).await;
    }
    assert_eq!(node.credentials.store.verified_len(), 0);
    node.ask_as(&by_token).await.unwrap();
    node.ask_as(&by_key).await.unwrap();
    node.aws.be(Mood::Hangs);
    for _ in 0..(45 * 6) {
        for request in [&by_token, &by_key] {
            node.ask_as(request).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(node.aws.most_of_one(), 1, "one call for both names");
    // That there is no association is about the pod, by whichever name AWS was asked.
    node.aws.be(hour);
    tokio::time::sleep(3 * MINUTE).await;
    for request in [&by_token, &by_key] {
        node.ask_as(request).await.unwrap();
    }
    node.aws.be(NOT_FOUND);
    tokio::time::sleep(35 * MINUTE).await;
    served_for(&node, &by_token, HOUR / 2).await;
    assert!(node.ask_as(&by_token).await.is_err());
    assert!(node.ask_as(&by_key).await.is_err());
    node.credentials.store.tidy();
    assert!(node.credentials.store.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_call_is_under_way_while_all_tokens_of_a_pod_are_judged() {
    let node = Node::new();
    let tokens = with_two_tokens(&node).await;
    node.aws.be(Mood::Hangs);
    for _ in 0..60 {
        for request in &tokens {
            node.ask_as(request).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(node.aws.calls() > 10, "{} calls", node.aws.calls());
    assert_eq!(node.aws.most_of_one(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_one_token_is_judged_to_be_is_not_the_answer_to_another_one_of_the_pod() {
    let node = Node::new();
    let [older, newer] = with_two_tokens(&node).await;
    let slow = Duration::from_secs(1);
    node.aws.be_to_token("a.newer.c", Mood::Issues { after: slow, life: HOUR });
    node.aws.be_to_token("a.older.c", Mood::SaysAfter(slow, 400, "InvalidTokenException"));
    let untimely =
        |request: &CredentialRequest| CredentialRequest { must_be_judged: true, ..request.clone() };
    let (newer, older) = (untimely(&newer), untimely(&older));
    let began = tokio::time::Instant::now();
    let (granted, refused) = tokio::join!(node.ask_as(&newer), node.ask_as(&older));
    assert!(granted.is_ok(), "{granted:?}");
    assert_eq!(refused.unwrap_err().unwrap().label(), "InvalidTokenException");
    assert!(began.elapsed() >= 2 * slow && began.elapsed() < 3 * slow, "one after the other");
    assert_eq!(node.aws.most_of_one(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_one_token_takes_nothing_from_another_that_waits_for_the_same_call() {
    let node = Node::new();
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    node.aws.are_of_one_pod(&["a.older.c", "a.newer.c"]);
    node.ask_as(&verified(&node, 1, "a.older.c")).await.unwrap();
    let newer = presented("a.newer.c", node.time_at_start() + 30 * HOUR);
    let by_key = CredentialRequest { token: newer, ..verified(&node, 1, "a.newer.c") };
    let by_token = claimed(&node, 1, "a.older.c");
    let own = node.ask_as(&by_token).await.unwrap().access_key_id;
    node.aws.be(Mood::Refuses);
    let slow_no = Mood::SaysAfter(Duration::from_millis(200), 400, "InvalidTokenException");
    node.aws.be_to_token("a.newer.c", slow_no);
    // Both have so little left that they wait a moment for a renewal, which is one call.
    tokio::time::sleep(45 * MINUTE).await;
    let began = tokio::time::Instant::now();
    let (by_key, by_token) = tokio::join!(node.ask_as(&by_key), node.ask_as(&by_token));
    assert!(by_key.is_ok(), "{by_key:?}");
    assert_eq!(by_token.unwrap().access_key_id, own);
    assert!(began.elapsed() >= Duration::from_millis(200), "they waited");
    assert_eq!(node.aws.most_of_one(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_has_by_its_other_name_goes_when_one_is_granted_another_role() {
    // A key is withdrawn, or comes back, and the association moves; AWS is away when the key changes again.
    let (by_key, by_token) = (|node: &_| verified(node, 1, "a.t.c"), |node: &_| claimed(node, 1, "a.t.c"));
    for is_verified_first in [true, false] {
        let node = Node::new();
        node.aws.are_of_one_pod(&["a.t.c", "a.rotated.c"]);
        let (first, second) = match is_verified_first {
            true => (by_key(&node), by_token(&node)),
            // Another token of the pod, so that the first is not taken over.
            false => (by_token(&node), verified(&node, 1, "a.rotated.c")),
        };
        let old = node.ask_as(&first).await.unwrap().access_key_id;
        let bystander = node.ask_as(&claimed(&node, 2, "a.other.c")).await.unwrap().access_key_id;
        node.aws.name_role("new");
        tokio::time::sleep(MINUTE).await;
        let new = node.ask_as(&second).await.unwrap().access_key_id;
        assert_ne!(new, old, "{is_verified_first}");
        node.aws.be(Mood::Refuses);
        let served = node.ask_as(&first).await.map(|got| got.access_key_id).ok();
        assert_ne!(served, Some(old), "verified first: {is_verified_first}");
        let served = node.ask_as(&claimed(&node, 2, "a.other.c")).await.unwrap().access_key_id;
        assert_eq!(served, bystander, "another pod's own role is its own");
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_lasts_as_long_as_what_the_pod_is_served_though_a_renewal_brought_a_shorter_life() {
    let node = Node::new();
    let by_key = verified(&node, 1, "a.granted.c");
    let earned = node.ask_as(&by_key).await.unwrap().access_key_id;
    assert_eq!(node.ask_as(&by_key).await.unwrap().access_key_id, earned);
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR / 2 });
    tokio::time::sleep(4 * HOUR).await;
    assert_eq!(node.aws.calls(), 2, "it was renewed");
    assert_eq!(node.ask_as(&by_key).await.unwrap().access_key_id, earned, "this one lives longer");
    // The key is withdrawn while AWS is away.
    node.aws.be(Mood::Refuses);
    let served = node.ask_as(&claimed(&node, 1, "a.granted.c")).await.unwrap().access_key_id;
    assert_eq!(served, earned);
}
