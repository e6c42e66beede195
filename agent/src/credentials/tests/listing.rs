//! Who is listed for `status`, with what, and how much of it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::aws::Mood;
use super::names::{claimed, presented, verified};
use super::roles::{READER, for_role};
use super::{HOUR, MINUTE, Node, peer};
use crate::config::Retention;
use crate::credentials::policy::hold::Hold;
use crate::credentials::provider::CredentialRequest;
use crate::status::snapshot::{Holding, Identity};
use crate::workload::{Caller, ClaimedPod, CredentialKey, Principal, Route};

const LIFE: Duration = HOUR;

fn issues() -> Mood {
    Mood::Issues { after: Duration::from_millis(80), life: LIFE }
}

fn listed(node: &Node) -> Vec<Identity> {
    node.credentials.identities(1_000).identities
}

/// One that nobody has verified, and that claims to be this pod of this namespace.
fn claiming(node: &Node, number: usize, namespace: &str, pod: &str) -> CredentialRequest {
    let token = presented(&format!("a.{number}.c"), node.time_at_start() + 24 * HOUR);
    let key = CredentialKey::Unverified(token.token.digest());
    let caller = Caller::Claimed(Arc::new(ClaimedPod::new(namespace, "sa", Some(pod), None)));
    let principal = Principal { key, caller, route: Route::EksAuth };
    CredentialRequest { principal, token, must_be_judged: false, hold: Hold::Unknown, peer: peer(number) }
}

#[tokio::test(start_paused = true)]
async fn a_served_pod_is_listed_with_who_it_is_what_gave_the_role_and_its_times() {
    let node = Node::new();
    node.aws.be(issues());
    node.sts.be(issues());
    node.ask_as(&verified(&node, 1, "a.b.c")).await.unwrap();
    node.ask_as(&for_role(&node, 2, "a.role.c", READER)).await.unwrap();
    node.ask_as(&claiming(&node, 3, "aaa", "first")).await.unwrap();
    let [claimed, of_association, of_role] = listed(&node).try_into().unwrap();
    let names = |identity: &Identity| (identity.namespace.clone(), identity.pod.clone(), identity.verified);
    assert_eq!(names(&claimed), ("aaa".to_owned(), Some("first".to_owned()), false));
    assert_eq!(names(&of_association), ("ns".to_owned(), Some("p".to_owned()), true));
    assert!(of_association.association.is_some() && of_association.configured_role.is_none());
    assert_eq!(of_association.source, "eks-auth");
    assert_eq!((of_role.source.as_str(), of_role.configured_role.as_deref()), ("web-identity", Some(READER)));
    assert_eq!(of_role.association, None);
    for identity in [claimed, of_association, of_role] {
        assert_eq!(identity.holding, Holding::Credentials);
        assert!(identity.role.unwrap().contains(":assumed-role/"));
        // It was served, so it will be renewed, at half of its life or up to a tenth earlier.
        let (renewal, end) = (identity.next_renewal.unwrap(), identity.valid_until.unwrap());
        assert!(("2027-01-15T08:23:00Z".."2027-01-15T08:31:00Z").contains(&&*renewal), "{renewal}");
        assert!(end.starts_with("2027-01-15T09:00:0"), "{end}");
        assert_eq!(identity.last_error, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_listed_with_awss_words_until_one_succeeds() {
    let node = Node::new();
    node.aws.be(issues());
    let request = verified(&node, 1, "a.b.c");
    node.ask_as(&request).await.unwrap();
    node.aws.be(Mood::Says(400, "AccessDeniedException"));
    tokio::time::sleep(32 * MINUTE).await;
    node.ask_as(&request).await.unwrap();
    let [identity] = listed(&node).try_into().unwrap();
    let error = identity.last_error.unwrap();
    assert_eq!((identity.holding, error.code.as_str()), (Holding::Credentials, "AccessDeniedException"));
    assert!(identity.failed_renewals > 0 && &*error.at.unwrap() > "2027-01-15T08:20:00Z");
    assert!(!error.message.is_empty() && !error.message.contains("AccessDenied"), "{}", error.message);
    node.aws.be(issues());
    tokio::time::sleep(4 * MINUTE).await;
    node.ask_as(&request).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let [identity] = listed(&node).try_into().unwrap();
    assert_eq!((identity.last_error, identity.failed_renewals), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_refused_and_one_that_waits_are_listed_with_the_reason() {
    let node = Node::new();
    node.aws.be(Mood::Says(404, "ResourceNotFoundException"));
    let refused = claimed(&node, 1, "a.b.c");
    assert!(node.ask_as(&refused).await.is_err());
    let [identity] = listed(&node).try_into().unwrap();
    assert_eq!((identity.holding, identity.verified), (Holding::Refused, false));
    assert_eq!((identity.namespace.as_str(), identity.pod.as_deref()), ("ns", Some("p")));
    assert_eq!(identity.last_error.unwrap().code, "ResourceNotFoundException");

    node.aws.be(Mood::Says(500, "InternalServerException"));
    assert!(node.ask_as(&claiming(&node, 2, "zzz", "late")).await.is_err());
    let waiting = listed(&node).pop().unwrap();
    assert_eq!((waiting.holding, waiting.namespace.as_str()), (Holding::Waiting, "zzz"));
    let error = waiting.last_error.unwrap();
    assert_eq!((error.code.as_str(), error.at), ("server_error", None));

    // What it was refused does not stand beside what it has.
    node.aws.be(issues());
    tokio::time::sleep(Duration::from_secs(40)).await;
    node.ask_as(&refused).await.unwrap();
    let of_ns = listed(&node).into_iter().filter(|identity| identity.namespace == "ns");
    assert_eq!(of_ns.map(|identity| identity.holding).collect::<Vec<_>>(), [Holding::Credentials]);
}

#[tokio::test(start_paused = true)]
async fn the_first_by_name_are_listed_and_the_others_counted() {
    let node = Node::new();
    node.aws.be(issues());
    for number in 0..40 {
        node.ask_as(&claiming(&node, number, "ns", &format!("pod-{:02}", 39 - number))).await.unwrap();
    }
    let listing = node.credentials.identities(3);
    let pods: Vec<_> = listing.identities.into_iter().map(|identity| identity.pod.unwrap()).collect();
    assert_eq!(pods, ["pod-00", "pod-01", "pod-02"]);
    assert_eq!(listing.left_out, 37);
    let none = node.credentials.identities(0);
    assert_eq!((none.identities.len(), none.left_out), (0, 40));
}

#[tokio::test(start_paused = true)]
async fn however_long_the_names_are_a_listing_has_at_most_four_mebibytes() {
    let node = Node::keeping(&Retention::Keep {
        renew_after: 3 * HOUR,
        max_identities: NonZeroUsize::new(20_000).unwrap(),
    });
    node.aws.be(issues());
    // Control characters take six bytes each in JSON.
    let long = "\u{1}".repeat(253);
    for number in 0..2_000 {
        node.ask_as(&claiming(&node, number, &long, &long)).await.unwrap();
    }
    let listing = node.credentials.identities(usize::MAX);
    let bytes = serde_json::to_vec(&listing.identities).unwrap().len();
    assert!(bytes <= (4 << 20) + 2 && bytes > 4_000_000, "{bytes}");
    assert_eq!(listing.identities.len() + listing.left_out, 2_000);
    assert!(listing.left_out > 0);
}
