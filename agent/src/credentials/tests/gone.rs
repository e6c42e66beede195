//! Invariant 8: a pod that is gone costs two calls for renewals at most, whatever AWS says.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::aws::Mood;
use super::names::{claimed, verified};
use super::{HOUR, MINUTE, Node};
use crate::config::Retention;

const SECOND: Duration = Duration::from_secs(1);

/// All that may come instead of a new set.
const TROUBLE: [Mood; 12] = [
    Mood::Says(503, "ServiceUnavailableException"),
    Mood::Says(500, "InternalServerException"),
    Mood::Says(429, "ThrottlingException"),
    Mood::Hangs,
    Mood::Refuses,
    Mood::Says(404, "ResourceNotFoundException"),
    Mood::Says(400, "AccessDeniedException"),
    Mood::Says(400, "InvalidTokenException"),
    Mood::Says(400, "ExpiredTokenException"),
    Mood::Says(400, "InvalidParameterException"),
    Mood::Says(400, "SomebodyElse"),
    Mood::Says(403, "AccessDeniedException"),
];

const fn issuing(life: Duration) -> Mood {
    Mood::Issues { after: Duration::from_millis(80), life }
}

/// A story with a node that ends with it: one that goes on living costs all later ones their time.
fn on_its_own(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(story);
}

#[test]
fn a_pod_that_is_gone_costs_two_calls_in_three_hours_at_most_whatever_aws_says() {
    for trouble in TROUBLE {
        on_its_own(async {
            let node = Node::new();
            node.aws.be(issuing(3 * HOUR));
            for pod in 0..50 {
                node.ask(pod).await.unwrap();
                // From memory, too.
                node.ask(pod).await.unwrap();
            }
            node.aws.be(trouble);
            tokio::time::sleep(3 * HOUR).await;
            for pod in 0..50 {
                let calls = node.aws.calls_of(pod) - 1;
                assert!((1..=2).contains(&calls), "{trouble:?}: {calls} calls for pod {pod}");
            }
            assert!(node.credentials.store.is_empty(), "{trouble:?}");
            assert!(node.credentials.flights.is_empty(), "{trouble:?}");
        });
    }
}

#[test]
fn and_no_more_if_it_has_two_names() {
    for trouble in TROUBLE {
        on_its_own(async {
            let node = Node::new();
            node.aws.be(issuing(3 * HOUR));
            for pod in 0..50 {
                let token = format!("a.token-of-{pod}.c");
                let (by_key, by_token) = (verified(&node, pod, &token), claimed(&node, pod, &token));
                node.ask_as(&by_key).await.unwrap();
                node.ask_as(&by_key).await.unwrap();
                // The key is withdrawn, and AWS grants the token a set of its own.
                node.ask_as(&by_token).await.unwrap();
                node.ask_as(&by_token).await.unwrap();
                assert_eq!(node.aws.calls_with(&token), 2);
                if pod % 2 == 0 {
                    // The key is back, and the pod is served by its own name again before it goes.
                    tokio::time::sleep(SECOND).await;
                    node.ask_as(&by_key).await.unwrap();
                }
                if pod % 4 == 0 {
                    // And withdrawn again.
                    tokio::time::sleep(SECOND).await;
                    node.ask_as(&by_token).await.unwrap();
                }
            }
            node.aws.be(trouble);
            tokio::time::sleep(3 * HOUR).await;
            for pod in 0..50 {
                let calls = node.aws.calls_with(&format!("a.token-of-{pod}.c")) - 2;
                assert!((1..=2).contains(&calls), "{trouble:?}: {calls} calls for pod {pod}");
            }
            assert!(node.credentials.store.is_empty(), "{trouble:?}");
        });
    }
}

#[test]
fn nor_if_a_key_proves_a_token_that_has_earned_a_set_of_its_own() {
    for trouble in TROUBLE {
        on_its_own(async {
            let node = Node::new();
            node.aws.be(issuing(3 * HOUR));
            node.ask_as(&verified(&node, 1, "a.first.c")).await.unwrap();
            // No key proves the pod's other token, so nothing tells that it is the same pod's.
            node.ask_as(&claimed(&node, 1, "a.second.c")).await.unwrap();
            node.ask_as(&claimed(&node, 1, "a.second.c")).await.unwrap();
            // Then one does.
            node.ask_as(&verified(&node, 1, "a.second.c")).await.unwrap();
            assert_eq!(node.aws.calls(), 2);
            node.aws.be(trouble);
            tokio::time::sleep(3 * HOUR).await;
            let calls = node.aws.calls() - 2;
            assert!((1..=2).contains(&calls), "{trouble:?}: {calls} calls");
        });
    }
}

/// How the two names of a pod may lose one another: its first token earns a set by itself, the pod has a set
/// by its second token, which a key proves, and the index leads from the one to the other no more.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// The token earned so much by itself that what the pod had by it has long expired.
    SetExpired,
    /// The token earned it when that had expired already.
    TokenLate,
    /// AWS refused the token for a while.
    TokenRefused,
}

/// Such a pod asks by the one name and then by the other, and is gone.
async fn come_and_go(node: &Node, lost: Lost) {
    node.aws.be(issuing(HOUR));
    let [first, second] = ["a.first.c", "a.second.c"];
    let by_token = claimed(node, 1, first);
    node.ask_as(&verified(node, 1, first)).await.unwrap();
    match lost {
        Lost::SetExpired => {
            for _ in 0..10 {
                node.ask_as(&by_token).await.unwrap();
                tokio::time::sleep(10 * MINUTE).await;
            }
        }
        Lost::TokenLate => tokio::time::sleep(2 * HOUR).await,
        Lost::TokenRefused => {
            node.ask_as(&by_token).await.unwrap();
            node.aws.be(Mood::Says(400, "InvalidTokenException"));
            tokio::time::sleep(40 * MINUTE).await;
            node.aws.be(issuing(HOUR));
        }
    }
    node.ask_as(&by_token).await.unwrap();
    node.ask_as(&by_token).await.unwrap();
    tokio::time::sleep(SECOND).await;
    node.ask_as(&verified(node, 1, second)).await.unwrap();
    node.ask_as(&verified(node, 1, second)).await.unwrap();
}

#[test]
fn nor_if_its_two_names_have_lost_one_another() {
    let ways = [Lost::SetExpired, Lost::TokenLate, Lost::TokenRefused];
    for (lost, trouble) in ways.into_iter().flat_map(|lost| TROUBLE.map(|trouble| (lost, trouble))) {
        on_its_own(two_names_are_lost(lost, Some(trouble), 2));
    }
    for lost in ways {
        on_its_own(two_names_are_lost(lost, None, 1));
    }
}

/// `most`: the calls that it may cost when it is gone.
async fn two_names_are_lost(lost: Lost, trouble: Option<Mood>, most: usize) {
    let node = Node::new();
    come_and_go(&node, lost).await;
    let before = node.aws.calls();
    node.aws.be(trouble.unwrap_or(issuing(HOUR)));
    tokio::time::sleep(3 * HOUR).await;
    let calls = node.aws.calls() - before;
    assert!((1..=most).contains(&calls), "{lost:?}, {trouble:?}: {calls} calls");
    assert!(node.credentials.store.is_empty(), "{lost:?}, {trouble:?}");
}

#[tokio::test(start_paused = true)]
async fn the_second_call_for_a_pod_that_is_gone_is_made_when_a_sixth_of_the_life_is_left() {
    let node = Node::new();
    node.aws.be(issuing(HOUR));
    node.ask(1).await.unwrap();
    node.aws.be(Mood::Says(503, "ServiceUnavailableException"));
    tokio::time::sleep(31 * MINUTE).await;
    assert_eq!(node.aws.calls(), 2, "half of the life");
    tokio::time::sleep(18 * MINUTE).await;
    assert_eq!(node.aws.calls(), 2, "not before ten minutes are left");
    node.aws.be(issuing(HOUR));
    tokio::time::sleep(2 * MINUTE).await;
    assert_eq!(node.aws.calls(), 3);
    assert!(node.ask(1).await.unwrap().left > 55 * MINUTE, "it was a renewal like any other");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_still_asks_has_its_renewal_tried_again_as_often_as_before() {
    let node = Node::new();
    node.aws.be(issuing(HOUR));
    node.ask(1).await.unwrap();
    node.aws.be(Mood::Says(503, "ServiceUnavailableException"));
    tokio::time::sleep(31 * MINUTE).await;
    // Nobody has asked for half an hour, and then somebody does, every 20 s.
    for _ in 0..30 {
        node.ask(1).await.unwrap();
        tokio::time::sleep(20 * SECOND).await;
    }
    let calls = node.aws.calls();
    assert!((6..=20).contains(&calls), "{calls} calls in ten minutes");
    node.ask(1).await.unwrap();
    node.aws.be(issuing(HOUR));
    tokio::time::sleep(121 * SECOND).await;
    assert!(node.aws.calls() > calls, "in the background, within the longest pause");
}

/// Room for four.
fn small() -> Node {
    Node::keeping(&Retention::Keep { renew_after: 3 * HOUR, max_identities: NonZeroUsize::new(4).unwrap() })
}

/// A set that is being sent, or that moka has not let go of, is in memory longer than in the store. A
/// simulated day renewed one for a pod that was gone, twice, when the machine was busy with other things.
#[test]
fn what_made_room_is_renewed_no_more_even_while_somebody_holds_it() {
    on_its_own(async {
        let node = small();
        node.aws.be(issuing(HOUR));
        node.ask(0).await.unwrap();
        node.ask(0).await.unwrap();
        let held = node.credentials.store.get(&node.request(0).principal.key).unwrap();
        for pod in 1..=4 {
            node.ask(pod).await.unwrap();
        }
        tokio::time::sleep(2 * HOUR).await;
        assert_eq!(node.aws.calls_of(0), 1);
        drop(held);
    });
}

#[test]
fn a_renewal_of_what_made_room_meanwhile_takes_the_room_of_nobody() {
    on_its_own(async {
        let node = small();
        node.aws.be(issuing(HOUR));
        node.ask(0).await.unwrap();
        node.ask(0).await.unwrap();
        // Its renewal takes a second.
        node.aws.be_to(0, Mood::Issues { after: SECOND, life: HOUR });
        while node.aws.calls_of(0) < 2 {
            tokio::time::sleep(SECOND / 20).await;
        }
        for pod in 1..=4 {
            node.ask(pod).await.unwrap();
        }
        assert!(!node.credentials.flights.is_empty(), "it is under way");
        tokio::time::sleep(5 * SECOND).await;
        for pod in 1..=4 {
            node.ask(pod).await.unwrap();
            assert_eq!(node.aws.calls_of(pod), 1, "pod {pod} is served from memory");
        }
    });
}
