//! A pod that is gone has nothing any more, and one that lives is not forgotten.

use std::time::Duration;

use super::aws::Mood;
use super::names::{claimed, verified};
use super::{HOUR, Node};
use crate::pods::testing::pod as live;

const HEALTHY: Mood = Mood::Issues { after: Duration::from_millis(80), life: Duration::from_secs(6 * 3600) };

impl Node {
    fn delete(&self, uid: &str) {
        self.pods.gone(uid, self.clock.now().boot);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_deleted_pod_has_is_gone_by_each_of_its_names_and_no_other_pods() {
    let node = Node::new();
    node.aws.are_of_one_pod(&["a.first.c", "a.second.c"]);
    node.ask_as(&verified(&node, 1, "a.first.c")).await.unwrap();
    node.ask_as(&verified(&node, 2, "a.neighbour.c")).await.unwrap();
    node.ask_as(&claimed(&node, 1, "a.second.c")).await.unwrap();
    node.ask_as(&claimed(&node, 3, "a.third.c")).await.unwrap();
    node.credentials.store.tidy();
    assert_eq!((node.credentials.store.len(), node.credentials.store.links()), (4, 2));
    node.delete("pod-1");
    tokio::task::yield_now().await;
    node.credentials.store.tidy();
    let store = &node.credentials.store;
    assert_eq!((store.verified_len(), store.unverified_len(), store.links()), (1, 1, 1));
    node.aws.be(Mood::Refuses);
    assert!(node.ask_as(&verified(&node, 2, "a.neighbour.c")).await.is_ok());
    assert!(node.ask_as(&claimed(&node, 3, "a.third.c")).await.is_ok());
    for gone in
        [verified(&node, 1, "a.first.c"), claimed(&node, 1, "a.first.c"), claimed(&node, 1, "a.second.c")]
    {
        assert!(node.ask_as(&gone).await.is_err(), "nothing is left to serve it");
    }
    let calls = node.aws.calls_of(1);
    tokio::time::sleep(24 * HOUR).await;
    assert_eq!(node.aws.calls_of(1), calls, "nothing is renewed for it");
}

#[tokio::test(start_paused = true)]
async fn a_set_that_comes_after_its_pod_was_deleted_is_not_kept() {
    for asks in [verified, claimed] {
        let node = Node::new();
        node.aws.be(Mood::Issues { after: Duration::from_secs(1), life: HOUR });
        let request = asks(&node, 1, "a.b.c");
        let deleted = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            node.delete("pod-1");
        };
        let (_who_waited, ()) = tokio::join!(node.ask_as(&request), deleted);
        node.credentials.store.tidy();
        assert_eq!((node.credentials.store.len(), node.credentials.store.links()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_lives_is_renewed_though_it_has_asked_only_once() {
    let node = Node::new();
    node.aws.be(HEALTHY);
    node.pods.begin_list();
    node.pods.here(live("pod-1"));
    node.pods.end_list().unwrap();
    for pod in [1, 2] {
        node.ask_as(&verified(&node, pod, &format!("a.{pod}.c"))).await.unwrap();
    }
    tokio::time::sleep(20 * HOUR).await;
    let (lives, unknown) = (node.aws.calls_with("a.1.c"), node.aws.calls_with("a.2.c"));
    assert!((7..=8).contains(&lives), "each three hours: {lives}");
    assert_eq!(unknown, 2, "of the other one nobody says that it lives");
    node.pods.lost();
    tokio::time::sleep(12 * HOUR).await;
    assert!(node.aws.calls_with("a.1.c") <= lives + 2, "nobody says so any more");
}
