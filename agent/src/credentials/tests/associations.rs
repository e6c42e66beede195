//! What AWS answers to one pod tells which other pods of its service account lack their variables.

use std::time::Duration;

use super::aws::Mood;
use super::names::{claimed, verified};
use super::{HOUR, MINUTE, Node};
use crate::pods::testing::missing;

const NOT_FOUND: Mood = Mood::Says(404, "ResourceNotFoundException");

impl Node {
    /// The next pod that is missed, if there is one.
    pub(super) async fn missed(&self) -> Option<Box<str>> {
        let next = tokio::time::timeout(Duration::from_millis(1), self.pods.next_missed(&self.clock));
        next.await.ok().map(|pod| pod.name.uid.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_aws_grants_shows_who_was_missed_whether_a_key_or_aws_alone_verified_the_token() {
    for asks in [verified, claimed] {
        let node = Node::new();
        node.pods.here(missing("missed"));
        node.aws.be(Mood::Says(400, "AccessDeniedException"));
        assert!(node.ask_as(&asks(&node, 1, "a.1.c")).await.is_err());
        assert_eq!(node.missed().await, None, "a token that AWS does not accept proves nothing");
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: 6 * HOUR });
        node.ask_as(&asks(&node, 2, "a.2.c")).await.unwrap();
        assert_eq!(node.missed().await.as_deref(), Some("missed"));
        tokio::time::sleep(MINUTE).await;
        node.ask_as(&asks(&node, 3, "a.3.c")).await.unwrap();
        assert_eq!(node.missed().await, None, "it was reported");
    }
}

#[tokio::test(start_paused = true)]
async fn after_three_refusals_of_an_account_its_pods_without_variables_are_as_they_should_be() {
    for (refusals, is_missed) in [(2, true), (3, false)] {
        let node = Node::new();
        node.ask_as(&verified(&node, 0, "a.0.c")).await.unwrap();
        node.aws.be(NOT_FOUND);
        for pod in 1..=refusals {
            assert!(node.ask_as(&verified(&node, pod, &format!("a.{pod}.c"))).await.is_err());
        }
        node.pods.here(missing("later"));
        assert_eq!(node.missed().await.is_some(), is_missed, "{refusals} refusals");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_missed_when_the_last_set_of_the_account_has_expired() {
    let node = Node::new();
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: 6 * HOUR });
    node.ask_as(&verified(&node, 1, "a.1.c")).await.unwrap();
    node.aws.be(Mood::Refuses);
    tokio::time::sleep(6 * HOUR + MINUTE).await;
    node.pods.here(missing("later"));
    assert_eq!(node.missed().await, None);
}
