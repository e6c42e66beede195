//! The table of docs/design/decisions.md#entitlement: what ends an entitlement and what does not; and
//! patience with young pods.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::aws::Mood;
use super::{HOUR, MINUTE, Node};
use crate::config::Retention;
use crate::credentials::provider::CredentialRequest;
use crate::workload::PresentedToken;

const NOT_FOUND: Mood = Mood::Says(404, "ResourceNotFoundException");
const DENIED: Mood = Mood::Says(400, "AccessDeniedException");
const HEALTHY: Mood = Mood::Issues { after: Duration::from_millis(80), life: Duration::from_secs(6 * 3600) };

/// Asks every ten seconds; how long the pod was served.
async fn served_for(node: &Node, pod: usize, at_most: Duration) -> Duration {
    let began = tokio::time::Instant::now();
    while began.elapsed() < at_most {
        if node.ask(pod).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    began.elapsed()
}

/// A node with pods that have asked, just before their renewals are due.
async fn before_renewal(pods: usize, max_stale: Option<Duration>) -> Node {
    let max_identities = NonZeroUsize::new(2000).unwrap();
    let node = Node::with(&Retention::Keep { renew_after: 3 * HOUR, max_identities }, max_stale);
    for pod in 0..pods {
        node.ask(pod).await.unwrap();
        node.ask(pod).await.unwrap();
    }
    tokio::time::sleep(2 * HOUR).await;
    node
}

#[tokio::test(start_paused = true)]
async fn an_association_that_is_gone_ends_in_five_minutes_and_not_at_once() {
    let node = before_renewal(3, None).await;
    node.aws.be_to(1, NOT_FOUND);
    // Renewal is due at three hours, less jitter of up to 36 minutes.
    let served = served_for(&node, 1, 3 * HOUR).await;
    assert!(served < 70 * MINUTE, "{served:?}");
    let calls = node.aws.calls_of(1);
    assert!((4..=12).contains(&calls), "{calls} calls");
    assert_eq!(node.ask(1).await.unwrap_err().unwrap().label(), "ResourceNotFoundException");
    assert!(node.ask(0).await.is_ok() && node.ask(2).await.is_ok());
    node.aws.be_to(1, HEALTHY);
    tokio::time::sleep(31 * Duration::from_secs(1)).await;
    assert!(node.ask(1).await.is_ok(), "a new association is picked up");
}

#[tokio::test(start_paused = true)]
async fn it_takes_five_minutes_from_the_first_answer_to_the_end_whether_or_not_others_are_due() {
    for others in [0, 3] {
        let node = before_renewal(1, None).await;
        for other in 1..=others {
            // Two hours younger, so not due for long.
            node.ask(other).await.unwrap();
        }
        node.aws.be_to(0, NOT_FOUND);
        while node.aws.calls_of(0) == 1 {
            assert!(node.ask(0).await.is_ok());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let served = served_for(&node, 0, HOUR).await;
        assert!(served >= 5 * MINUTE && served < 9 * MINUTE, "{others} others: {served:?}");
    }
}

/// A pod that asks less often than AWS's answers about others are remembered. Each time another association
/// was asked about, and when its answer was there, nobody looked (story 1080).
#[tokio::test(start_paused = true)]
async fn an_association_that_is_gone_ends_as_soon_for_a_pod_that_asks_every_ten_minutes() {
    for max_stale in [None, Some(Duration::from_secs(83))] {
        let node = before_renewal(1, max_stale).await;
        // Two hours younger, so not due for long.
        node.ask(1).await.unwrap();
        node.ask(1).await.unwrap();
        node.aws.be_to(0, NOT_FOUND);
        while node.aws.calls_of(0) == 1 {
            assert!(node.ask(0).await.is_ok());
            tokio::time::sleep(10 * MINUTE).await;
        }
        let first = tokio::time::Instant::now();
        while node.ask(0).await.is_ok() {
            assert!(first.elapsed() <= 30 * MINUTE, "{max_stale:?}: {} calls", node.aws.calls_of(0));
            tokio::time::sleep(10 * MINUTE).await;
        }
        assert!(node.aws.calls_of(0) <= 5, "{max_stale:?}: {} calls", node.aws.calls_of(0));
        assert_eq!(node.aws.calls_of(1), 2, "{max_stale:?}: its set was renewed to learn of AWS's health");
    }
}

#[tokio::test(start_paused = true)]
async fn not_found_of_everybody_at_once_is_not_believed() {
    let node = before_renewal(5, None).await;
    node.aws.be(NOT_FOUND);
    for _ in 0..(90 * 6) {
        for pod in 0..5 {
            assert!(node.ask(pod).await.is_ok(), "pod {pod} was served to the end");
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(node.aws.calls_of(1) > 5, "it was asked");
    node.aws.be(HEALTHY);
    tokio::time::sleep(3 * MINUTE).await;
    assert!(node.ask(1).await.unwrap().left > 5 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn max_stale_after_refusal_tightens_it() {
    let node = before_renewal(1, Some(Duration::from_secs(30))).await;
    node.aws.be(NOT_FOUND);
    while node.aws.calls() == 1 {
        assert!(node.ask(0).await.is_ok());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let served = served_for(&node, 0, HOUR).await;
    assert!(served >= Duration::from_secs(25) && served <= Duration::from_secs(45), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn what_aws_knew_before_it_forgot_everybody_ends_nothing() {
    let node = before_renewal(1, Some(Duration::from_secs(30))).await;
    node.aws.be_to(0, NOT_FOUND);
    let mut newcomer = 0;
    while node.aws.calls_of(0) == 1 {
        // AWS knows the associations of others to the last moment.
        newcomer += 1;
        assert!(node.ask(newcomer).await.is_ok() && node.ask(0).await.is_ok());
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    node.aws.be(NOT_FOUND);
    for second in 0..3600 {
        assert!(node.ask(0).await.is_ok(), "after {second} s");
        // The others ask all the time, too.
        assert!(node.ask(1 + second % newcomer).await.is_ok());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn access_denied_is_served_through_to_the_expiry_and_asked_again() {
    let node = before_renewal(1, Some(Duration::ZERO)).await;
    node.aws.be(DENIED);
    let served = served_for(&node, 0, 5 * HOUR).await;
    assert!(served > 4 * HOUR - MINUTE, "{served:?}");
    assert!(node.aws.calls() > 60, "{} calls", node.aws.calls());
}

#[tokio::test(start_paused = true)]
async fn a_word_of_an_association_in_between_starts_the_five_minutes_anew() {
    let node = before_renewal(1, None).await;
    node.aws.be(NOT_FOUND);
    for minute in 0..60 {
        // It is asked at least every two minutes.
        node.aws.be(if minute % 6 < 3 { DENIED } else { NOT_FOUND });
        for _ in 0..6 {
            assert!(node.ask(0).await.is_ok(), "minute {minute}");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_aws_does_not_take_waits_for_a_newer_one_and_keeps_the_set() {
    let node = before_renewal(1, None).await;
    node.aws.be(Mood::Says(400, "InvalidTokenException"));
    tokio::time::sleep(HOUR).await;
    for _ in 0..60 {
        assert!(node.ask(0).await.is_ok());
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let calls = node.aws.calls();
    assert!((2..=60).contains(&calls), "{calls} calls in ten minutes and an hour");
    // A newer token for the same key, as a verified pod has after its rotation.
    node.aws.be(HEALTHY);
    let request = node.request(0);
    let token = PresentedToken { expires: request.token.expires + HOUR, ..request.token };
    node.ask_as(&CredentialRequest { token, ..request }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.aws.calls(), calls + 1, "at once, not at the next turn");
    assert!(node.ask(0).await.unwrap().left > 5 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn another_role_is_served_from_its_renewal_on_even_if_it_expires_earlier() {
    let node = before_renewal(1, None).await;
    let old = node.ask(0).await.unwrap();
    node.aws.name_role("another");
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: 50 * MINUTE });
    tokio::time::sleep(HOUR + MINUTE).await;
    assert_eq!(node.aws.calls(), 2);
    let new = node.ask(0).await.unwrap();
    assert_ne!(old.access_key_id, new.access_key_id);
}

/// Asks as a pod with a token that was issued so long ago.
async fn ask_with_token_of_age(node: &Node, age: Duration) -> (Result<(), &'static str>, Duration) {
    let request = node.request(0);
    let token = PresentedToken { issued: Some(node.clock.now().wall - age), ..request.token };
    let began = tokio::time::Instant::now();
    let answer = node.ask_as(&CredentialRequest { token, ..request }).await;
    (answer.map(|_| ()).map_err(|error| error.unwrap().label()), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_young_pod_whose_association_comes_a_moment_later_sees_no_error() {
    for mood in [NOT_FOUND, DENIED] {
        let node = Node::new();
        node.aws.be(mood);
        let later = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            node.aws.be(HEALTHY);
        };
        let ((answer, took), ()) = tokio::join!(ask_with_token_of_age(&node, Duration::ZERO), later);
        assert_eq!(answer, Ok(()), "{mood:?}");
        assert!(took < Duration::from_millis(4_500), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_young_pod_is_refused_after_several_attempts_within_the_hold_and_an_older_one_at_once() {
    let node = Node::new();
    node.aws.be(NOT_FOUND);
    let (answer, took) = ask_with_token_of_age(&node, Duration::from_secs(30)).await;
    assert_eq!(answer, Err("ResourceNotFoundException"));
    assert!(took > Duration::from_secs(2) && took < Duration::from_millis(4_500), "{took:?}");
    let calls = node.aws.calls();
    assert!((3..=7).contains(&calls), "{calls} attempts");
    // The second time there is no grace: the first was patient enough.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (answer, took) = ask_with_token_of_age(&node, Duration::from_secs(40)).await;
    assert_eq!(answer, Err("ResourceNotFoundException"));
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(node.aws.calls(), calls + 1);

    let node = Node::new();
    node.aws.be(NOT_FOUND);
    let (answer, took) = ask_with_token_of_age(&node, Duration::from_secs(60)).await;
    assert_eq!(answer, Err("ResourceNotFoundException"));
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(node.aws.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_newer_token_has_a_young_pods_grace_whatever_was_said_of_the_older_one() {
    let node = Node::new();
    node.aws.be(NOT_FOUND);
    let old = node.request(0);
    assert!(node.ask_as(&old).await.is_err());
    tokio::time::sleep(MINUTE).await;
    let (expires, issued) = (old.token.expires + HOUR, Some(node.clock.now().wall));
    let token = PresentedToken { expires, issued, ..old.token.clone() };
    let newer = CredentialRequest { token, ..old };
    let later = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        node.aws.be(HEALTHY);
    };
    let (answer, ()) = tokio::join!(node.ask_as(&newer), later);
    assert!(answer.is_ok(), "{answer:?}");
}
