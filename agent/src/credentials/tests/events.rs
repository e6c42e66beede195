//! Which of AWS's answers becomes an Event about the pod, and that none of the agent's own troubles does
//! (invariant 7).

use std::time::Duration;

use super::aws::Mood;
use super::names::{claimed, verified};
use super::{HOUR, Node};
use crate::events::{Reason, Report};
use crate::pods::testing::pod as live;

impl Node {
    /// Where the cluster has named this pod.
    pub(super) fn with_pod(pod: usize) -> Self {
        let node = Self::new();
        node.pods.begin_list();
        node.pods.here(live(&format!("pod-{pod}")));
        node.pods.end_list().unwrap();
        node
    }

    fn reported(&self) -> Vec<(Box<str>, Reason)> {
        let mut reports = self.reports.lock();
        let reports = std::iter::from_fn(|| reports.try_recv().ok());
        reports.map(|Report { pod, problem }| (pod.uid, problem.reason())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_association_and_a_role_that_cannot_be_assumed_are_events_and_no_other_answer_is() {
    for (mood, expected) in [
        (Mood::Says(404, "ResourceNotFoundException"), Some(Reason::NoPodIdentityAssociation)),
        (Mood::Says(400, "AccessDeniedException"), Some(Reason::RoleNotAssumable)),
        (Mood::Says(400, "InvalidTokenException"), None),
        (Mood::Says(400, "ExpiredTokenException"), None),
        (Mood::Says(400, "InvalidParameterException"), None),
        (Mood::Says(403, "AccessDeniedException"), None),
        (Mood::Says(400, "UnrecognizedClientException"), None),
        (Mood::Says(429, "ThrottlingException"), None),
        (Mood::Says(500, "InternalServerException"), None),
        (Mood::Refuses, None),
        (Mood::Issues { after: Duration::from_millis(80), life: HOUR }, None),
    ] {
        for asks in [verified, claimed] {
            let node = Node::with_pod(1);
            node.aws.be(mood);
            let _refused = node.ask_as(&asks(&node, 1, "a.b.c")).await;
            let expected: Vec<_> = expected.iter().map(|reason| ("pod-1".into(), *reason)).collect();
            assert_eq!(node.reported(), expected, "{mood:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_aws_does_not_know_is_blamed_on_no_pod() {
    let body = r#"{"code":"ResourceNotFoundException","message":"No cluster found for name: sandbx."}"#;
    for asks in [verified, claimed] {
        let node = Node::with_pod(1);
        node.aws.be(Mood::Page { status: 404, body, has_request_id: true });
        let error = node.ask_as(&asks(&node, 1, "a.b.c")).await.unwrap_err().unwrap();
        assert!(error.to_string().contains("No cluster found"), "{error}");
        assert_eq!(node.reported(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_reported_of_a_pod_that_the_cluster_has_not_named() {
    let node = Node::with_pod(2);
    node.aws.be(Mood::Says(404, "ResourceNotFoundException"));
    assert!(node.ask_as(&verified(&node, 1, "a.b.c")).await.is_err());
    assert_eq!(node.reported(), []);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_is_reported_while_the_pod_is_served_on() {
    let node = Node::with_pod(1);
    let request = verified(&node, 1, "a.b.c");
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: 6 * HOUR });
    node.ask_as(&request).await.unwrap();
    node.aws.be(Mood::Says(400, "AccessDeniedException"));
    tokio::time::sleep(4 * HOUR).await;
    node.ask_as(&request).await.unwrap();
    let reported = node.reported();
    assert!(!reported.is_empty());
    assert!(reported.iter().all(|(_, reason)| *reason == Reason::RoleNotAssumable), "{reported:?}");
}
