//! What is served without a call: to a token that nobody can verify any more and that is shown to no source,
//! and to a pod with a role that new pods get for tokens of another audience.

use std::time::Duration;

use super::aws::Mood;
use super::roles::{READER, WRITER, arn, for_role, issuing};
use super::{HOUR, MINUTE, Node};
use crate::workload::{BearerToken, RouteStatus};

/// What a token is served that nobody can verify and that may be shown to nobody.
fn earned(node: &Node, token: &str) -> Option<String> {
    let token = BearerToken::from_header(token.as_bytes()).unwrap();
    let served = node.credentials.provider.earned_by(&token, node.clock.now())?.serve(node.clock.now())?;
    let body: serde_json::Value = serde_json::from_slice(&served.body).unwrap();
    Some(body["AccessKeyId"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn where_no_source_may_judge_a_token_finds_what_its_source_granted_to_it_and_costs_no_call() {
    let node = Node::new();
    node.sts.be(issuing(HOUR));
    let request = for_role(&node, 1, "a.granted.c", READER);
    let key = node.key_for(&request).await;
    // A key proved it, and STS never saw it: it may be of a key that leaked.
    assert_eq!(node.key_for(&for_role(&node, 1, "a.other.c", READER)).await, key);
    assert_eq!(earned(&node, "a.granted.c"), Some(key.clone()));
    for token in ["a.other.c", "a.forged.c"] {
        assert_eq!(earned(&node, token), None, "{token}");
    }
    // The key is gone at the issuer too. What STS gave to this token is its own until it ends.
    node.sts.be_to_token("a.granted.c", Mood::Says(400, "InvalidIdentityToken"));
    tokio::time::sleep(40 * MINUTE).await;
    assert!(node.sts.calls() > 1, "it was renewed for the requests before");
    let calls = node.sts.calls();
    for _ in 0..19 {
        assert_eq!(earned(&node, "a.granted.c"), Some(key.clone()));
        tokio::time::sleep(MINUTE).await;
    }
    tokio::time::sleep(MINUTE).await;
    assert_eq!(earned(&node, "a.granted.c"), None, "expired");
    assert!(node.sts.calls() - calls <= 1, "{} calls for nobody", node.sts.calls() - calls);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_earned_two_roles_finds_the_newer_one_while_both_live_and_afterwards() {
    let node = Node::new();
    node.sts.be(issuing(HOUR));
    // Many: the links have no order.
    let token = |pod: usize| format!("a.{pod}.c");
    for pod in 1..=16 {
        node.key_for(&for_role(&node, pod, &token(pod), READER)).await;
    }
    tokio::time::sleep(20 * MINUTE).await;
    // After 41 minutes the older sets are over, and nobody has tidied them away.
    for after in [MINUTE, 40 * MINUTE] {
        tokio::time::sleep(after).await;
        for pod in 1..=16 {
            let newer = node.key_for(&for_role(&node, pod, &token(pod), WRITER)).await;
            assert_eq!(earned(&node, &token(pod)), Some(newer), "{pod}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_only_its_source_knows_finds_no_set_that_came_after_what_it_earned() {
    let node = Node::new();
    node.sts.be(issuing(HOUR));
    let key = node.key_for(&for_role(&node, 1, "a.leaked.c", READER)).await;
    let mut newer = for_role(&node, 1, "a.newer.c", READER);
    newer.token.expires += HOUR;
    assert_eq!(node.key_for(&newer).await, key);
    assert_eq!(earned(&node, "a.leaked.c"), Some(key));
    tokio::time::sleep(40 * MINUTE).await;
    let renewed = node.key_for(&newer).await;
    assert_eq!(node.sts.calls_with("a.newer.c"), 1);
    assert_eq!((earned(&node, "a.newer.c"), earned(&node, "a.leaked.c")), (Some(renewed), None));
}

#[tokio::test(start_paused = true)]
async fn what_a_token_has_earned_ends_with_its_exp_its_role_and_its_pod() {
    let node = Node::new();
    node.sts.be(issuing(6 * HOUR));
    let mut short = for_role(&node, 1, "a.short.c", READER);
    short.token.expires = node.time_at_start() + HOUR;
    node.key_for(&short).await;
    node.key_for(&for_role(&node, 2, "a.of-role.c", WRITER)).await;
    node.key_for(&for_role(&node, 3, "a.of-pod.c", READER)).await;
    assert!(["a.short.c", "a.of-role.c", "a.of-pod.c"].iter().all(|token| earned(&node, token).is_some()));
    node.withdraw("sa", WRITER);
    assert_eq!(earned(&node, "a.of-role.c"), None, "the cluster has taken the role away");
    node.credentials.store.remove_pod("pod-3");
    assert_eq!(earned(&node, "a.of-pod.c"), None, "deleted");
    tokio::time::sleep(59 * MINUTE).await;
    assert!(earned(&node, "a.short.c").is_some());
    tokio::time::sleep(MINUTE).await;
    assert_eq!(earned(&node, "a.short.c"), None, "past its exp");
}

#[tokio::test(start_paused = true)]
async fn a_set_of_a_role_for_other_tokens_is_served_to_its_end_and_not_renewed() {
    let node = Node::new();
    node.sts.be(issuing(HOUR));
    let request = for_role(&node, 1, "a.b.c", READER);
    let key = node.key_for(&request).await;
    assert_eq!(node.key_for(&request).await, key, "somebody wants it, so it would be renewed");
    node.statuses.lock().insert(arn(READER), RouteStatus::ToExpiry);
    let held = || {
        let holding = node.credentials.provider.held_by(&request.principal, node.clock.now())?;
        let body: serde_json::Value =
            serde_json::from_slice(&holding.serve(node.clock.now()).unwrap().body).unwrap();
        Some(body["AccessKeyId"].as_str().unwrap().to_owned())
    };
    for _ in 0..59 {
        assert_eq!(held(), Some(key.clone()));
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(node.sts.calls(), 1);
    tokio::time::sleep(MINUTE + Duration::from_secs(1)).await;
    assert_eq!((held(), node.sts.calls()), (None, 1));
    node.credentials.store.tidy();
    assert!(node.credentials.store.is_empty(), "and leaves memory");
}
