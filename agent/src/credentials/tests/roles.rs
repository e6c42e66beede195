//! Roles that the cluster gives: which pod a set of STS belongs to, and when it ends with the role.

use std::sync::Arc;
use std::time::Duration;

use super::aws::Mood;
use super::names::verified;
use super::{HOUR, MINUTE, Node};
use crate::credentials::provider::CredentialRequest;
use crate::pods::testing::missing;
use crate::workload::{
    Caller, CredentialKey, Pod, Principal, RoleArn, Route, RouteStatus, ServiceAccount, StsEndpoint,
    VerifiedKey, WebIdentity,
};

pub(super) const READER: &str = "arn:aws:iam::111122223333:role/team/reader";
pub(super) const WRITER: &str = "arn:aws:iam::111122223333:role/writer";
const AUDIENCE: &str = "sts.amazonaws.com";

pub(super) const fn issuing(life: Duration) -> Mood {
    Mood::Issues { after: Duration::from_millis(80), life }
}

pub(super) fn arn(role: &str) -> RoleArn {
    RoleArn::read(role).unwrap()
}

fn service_account(name: &str) -> ServiceAccount {
    ServiceAccount { namespace: "ns".into(), name: name.into(), uid: name.into() }
}

/// The request of a pod of service account "sa", by the way to this role.
pub(super) fn for_role(node: &Node, pod: usize, token: &str, role: &str) -> CredentialRequest {
    of_account("sa", &verified(node, pod, token), role)
}

/// The same of a pod of another service account.
fn of_account(name: &str, request: &CredentialRequest, role: &str) -> CredentialRequest {
    let of_sa = request.principal.caller.verified().unwrap().clone();
    let pod = Arc::new(Pod { service_account: service_account(name), ..of_sa });
    let route = Route::WebIdentity(Arc::new(WebIdentity {
        role: arn(role),
        audience: AUDIENCE.into(),
        // One for all pods, as `--session-name service-account` has it.
        session_name: "ns.sa".into(),
        endpoint: StsEndpoint::Regional,
    }));
    let key = CredentialKey::Verified(VerifiedKey::new("cluster".into(), Arc::clone(&pod), route.clone()));
    let principal = Principal { key, caller: Caller::Verified(pod), route };
    CredentialRequest { principal, ..request.clone() }
}

impl Node {
    /// The set that a request is served.
    pub(super) async fn key_for(&self, request: &CredentialRequest) -> String {
        self.ask_as(request).await.unwrap().access_key_id
    }

    /// As the agent does when an annotation or an entry of the map is gone.
    pub(super) fn withdraw(&self, account: &str, role: &str) {
        self.credentials.store.remove_role(&service_account(account), &arn(role));
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_one_set_for_each_pod_and_role_and_one_of_the_association_beside_them() {
    let node = Node::new();
    let all = [
        (for_role(&node, 1, "a.1.c", READER), Some(READER)),
        (for_role(&node, 1, "a.1.c", WRITER), Some(WRITER)),
        (for_role(&node, 2, "a.2.c", READER), Some(READER)),
        (verified(&node, 1, "a.pods.c"), None),
    ];
    let mut keys = Vec::new();
    for (request, role) in &all {
        let key = node.key_for(request).await;
        if let Some(role) = role {
            assert_eq!(node.sts.role_of(&key), *role);
        }
        assert!(!keys.contains(&key), "{key} is another's: {keys:?}");
        keys.push(key);
    }
    for ((request, _), key) in all.iter().zip(&keys) {
        assert_eq!(&node.key_for(request).await, key, "from memory");
    }
    assert_eq!((node.sts.calls(), node.aws.calls()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn many_processes_of_a_pod_cost_one_call_for_each_of_its_roles() {
    let node = Node::new();
    node.sts.be(Mood::Issues { after: Duration::from_millis(700), life: HOUR });
    let mut asking = tokio::task::JoinSet::new();
    for process in 0..100 {
        let (node, role) = (node.clone(), [READER, WRITER][process % 2]);
        asking.spawn(async move { node.ask_as(&for_role(&node, 1, "a.b.c", role)).await.is_ok() });
    }
    assert!(asking.join_all().await.into_iter().all(|is_served| is_served));
    assert_eq!((node.sts.calls(), node.sts.most_of_one(), node.sts.most_in_all()), (2, 1, 2));
}

/// The same request, at a moment when the token's times can only be judged by its source.
fn untimely(request: &CredentialRequest) -> CredentialRequest {
    let Principal { caller, route, .. } = request.principal.clone();
    let key = CredentialKey::Unverified(route.name_of(request.token.token.digest()));
    CredentialRequest { principal: Principal { key, caller, route }, must_be_judged: true, ..request.clone() }
}

/// A node wakes from a pause of half an hour: by its clocks a pod's new token is of the future, until one of
/// them shows that it is not (story 1051).
#[tokio::test(start_paused = true)]
async fn a_token_whose_times_are_believed_during_its_call_costs_no_second_call() {
    for is_untimely_first in [true, false] {
        let node = Node::new();
        let timely = for_role(&node, 1, "a.b.c", READER);
        let (mut first, mut second) = (untimely(&timely), timely);
        if !is_untimely_first {
            std::mem::swap(&mut first, &mut second);
        }
        let later = async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            node.ask_as(&second).await
        };
        let (first, second) = tokio::join!(node.ask_as(&first), later);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(node.sts.most_of_one(), 1, "untimely first: {is_untimely_first}");
        if is_untimely_first {
            assert_eq!(node.sts.calls(), 1, "its outcome is for the pod");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_untimely_token_earned_is_its_pods_when_the_times_are_believed() {
    let node = Node::new();
    let timely = for_role(&node, 1, "a.b.c", READER);
    let earned = node.key_for(&untimely(&timely)).await;
    node.sts.be(Mood::Refuses);
    assert_eq!(node.key_for(&timely).await, earned);
    assert!(node.ask_as(&for_role(&node, 1, "a.b.c", WRITER)).await.is_err(), "of that role alone");
    node.withdraw("sa", READER);
    assert!(node.ask_as(&timely).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_finds_the_set_of_its_pod_and_renews_it() {
    let node = Node::new();
    node.sts.be(issuing(HOUR));
    let first = node.key_for(&for_role(&node, 1, "a.first.c", READER)).await;
    let mut newer = for_role(&node, 1, "a.second.c", READER);
    newer.token.expires += HOUR;
    assert_eq!(node.key_for(&newer).await, first);
    assert_eq!(node.sts.calls(), 1, "a new token costs no call");
    tokio::time::sleep(40 * MINUTE).await;
    assert_ne!(node.key_for(&newer).await, first);
    assert_eq!((node.sts.calls_with("a.first.c"), node.sts.calls_with("a.second.c")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_role_that_is_taken_away_ends_its_sets_of_that_account_and_no_others() {
    let node = Node::new();
    let lost = for_role(&node, 1, "a.1.c", READER);
    let kept = [
        for_role(&node, 1, "a.1.c", WRITER),
        of_account("other", &verified(&node, 2, "a.2.c"), READER),
        verified(&node, 1, "a.pods.c"),
    ];
    node.key_for(&lost).await;
    let mut keys = Vec::new();
    for request in &kept {
        keys.push(node.key_for(request).await);
    }
    node.withdraw("sa", READER);
    node.sts.be(Mood::Refuses);
    node.aws.be(Mood::Refuses);
    assert!(node.ask_as(&lost).await.is_err(), "nothing is left of it");
    for (request, key) in kept.iter().zip(keys) {
        assert_eq!(node.key_for(request).await, key);
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_under_way_does_not_bring_back_a_role_that_was_taken_away() {
    let node = Node::new();
    node.sts.be(issuing(HOUR));
    node.key_for(&for_role(&node, 1, "a.b.c", READER)).await;
    node.key_for(&for_role(&node, 1, "a.b.c", READER)).await;
    node.sts.be(Mood::Issues { after: Duration::from_secs(1), life: HOUR });
    while node.sts.under_way() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.withdraw("sa", READER);
    tokio::time::sleep(MINUTE).await;
    node.credentials.store.tidy();
    assert_eq!((node.sts.calls(), node.credentials.store.len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_cluster_gives_nobody_any_more_is_dropped_instead_of_renewed() {
    let node = Node::new();
    for request in [for_role(&node, 1, "a.1.c", READER), for_role(&node, 1, "a.1.c", WRITER)] {
        node.sts.be(issuing(HOUR));
        node.key_for(&request).await;
        node.key_for(&request).await;
    }
    node.statuses.lock().insert(arn(READER), RouteStatus::Ended);
    tokio::time::sleep(40 * MINUTE).await;
    node.credentials.store.tidy();
    assert_eq!(node.credentials.store.len(), 1);
    assert_eq!(node.sts.calls(), 3, "the other role is renewed");
}

#[tokio::test(start_paused = true)]
async fn a_role_of_sts_shows_no_association_of_its_account() {
    let node = Node::new();
    node.pods.here(missing("missed"));
    node.key_for(&for_role(&node, 1, "a.1.c", READER)).await;
    assert_eq!(node.missed().await, None, "the pod without variables is as it should be");
    node.key_for(&verified(&node, 2, "a.2.c")).await;
    assert_eq!(node.missed().await.as_deref(), Some("missed"));
}

/// EKS Auth forgets all associations at once. What STS grants meanwhile is no sign that it knows any.
#[tokio::test(start_paused = true)]
async fn what_sts_grants_is_no_evidence_that_an_association_is_gone() {
    let node = Node::new();
    node.aws.be(issuing(HOUR));
    for pod in [1, 2] {
        node.key_for(&verified(&node, pod, &format!("a.pods-{pod}.c"))).await;
    }
    node.aws.be(Mood::Says(404, "ResourceNotFoundException"));
    tokio::time::sleep(30 * MINUTE).await;
    for minute in 0..25 {
        for pod in [1, 2] {
            let held = node.ask_as(&verified(&node, pod, &format!("a.pods-{pod}.c"))).await;
            assert!(held.is_ok(), "after {minute} minutes: {held:?}");
        }
        // New pods of three roles get their credentials all the time.
        for role in ["a", "b", "c"] {
            let (pod, role) = (100 + minute, format!("arn:aws:iam::111122223333:role/{role}"));
            node.key_for(&for_role(&node, pod, &format!("a.sts-{pod}.c"), &role)).await;
        }
        tokio::time::sleep(MINUTE).await;
    }
    assert!(node.aws.calls() > 2 + 2 * 3, "{} calls", node.aws.calls());
}
