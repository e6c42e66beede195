//! Invariants 4 and 5: one call per identity, and a budget for all.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::aws::Mood;
use super::names::{claimed, verified};
use super::{HOUR, Node, peer};
use crate::config::Retention;
use crate::credentials::flight::shared_call::Purpose;
use crate::credentials::flight::table::{JoinRequest, Joined};
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::policy::hold::Hold;
use crate::credentials::provider::{CredentialRequest, Lookup};
use crate::workload::{BearerToken, PresentedToken, Source};

const fn slow(ms: u64) -> Mood {
    Mood::Issues { after: Duration::from_millis(ms), life: Duration::from_secs(6 * 3600) }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_first_requests_of_one_pod_make_one_call() {
    let node = Node::new();
    let asks: Vec<_> = (0..1000).map(|_| node.ask(1)).collect();
    let mut keys: Vec<String> = Vec::new();
    for got in futures(asks).await {
        keys.push(got.unwrap().access_key_id);
    }
    keys.dedup();
    assert_eq!(keys.len(), 1, "all got the same set");
    assert_eq!(node.aws.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_at_100_ms_makes_the_next_request_a_hit() {
    let node = Node::new();
    node.aws.be(slow(700));
    assert!(tokio::time::timeout(Duration::from_millis(100), node.ask(1)).await.is_err());
    tokio::time::sleep(Duration::from_millis(700)).await;
    let lookup = node.credentials.provider.lookup(&node.request(1), node.clock.now());
    assert!(matches!(lookup, Lookup::Serve(_)));
    assert_eq!(node.aws.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_ends_between_the_lookup_and_the_join_is_not_repeated() {
    let node = Node::new();
    let join = |pod| {
        let request = node.request(pod);
        node.credentials.flights.start_or_join(
            &JoinRequest {
                principal: &request.principal,
                token: &request.token,
                priority: Priority::UnverifiedWaiting,
                purpose: Purpose::Awaited(Hold::Unknown),
                seen: None,
                is_judgement: false,
                asked_from: None,
            },
            None,
        )
    };
    node.ask(1).await.unwrap();
    assert!(
        matches!(join(1), Joined::Done(Ok(_))),
        "a request that saw no credentials finds that they have come"
    );
    node.aws.be(Mood::Says(404, "ResourceNotFoundException"));
    assert!(node.ask(2).await.is_err());
    assert!(matches!(join(2), Joined::Done(Err(_))), "and so does one that saw no refusal");
    assert_eq!(node.aws.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn moka_trap_2_three_hundred_leaders_that_leave_start_no_second_call() {
    let node = Node::new();
    node.aws.be(slow(1000));
    for _ in 0..300 {
        assert!(tokio::time::timeout(Duration::from_millis(1), node.ask(1)).await.is_err());
    }
    assert!(node.ask(1).await.is_ok());
    assert_eq!(node.aws.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_call_fails_one_retry_is_under_way_and_not_one_per_waiter() {
    let node = Node::new();
    node.aws.be(Mood::Says(500, "InternalServerException"));
    let asks = (0..200).map(|_| node.ask(1)).collect();
    let healing = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        node.aws.be(slow(50));
        Ok(())
    };
    let (answers, _): (_, Result<(), ()>) = tokio::join!(futures(asks), healing);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(node.aws.most_of_one(), 1);
    assert!(node.aws.calls() < 12, "{} calls", node.aws.calls());
}

#[tokio::test(start_paused = true)]
async fn without_retention_there_is_still_one_flight_per_identity() {
    let node = Node::keeping(&Retention::Off);
    let asks = (0..100).map(|_| node.ask(1)).collect();
    assert!(futures(asks).await.iter().all(Result::is_ok));
    assert_eq!(node.aws.most_of_one(), 1);
    assert!(node.ask(1).await.is_ok());
    assert_eq!(node.aws.calls(), 2, "nothing was kept");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_asked_for_once_a_second_however_often_clients_ask() {
    let node = Node::new();
    node.aws.be(Mood::Says(400, "AccessDeniedException"));
    for _ in 0..100 {
        let error = node.ask(1).await.unwrap_err().unwrap();
        assert_eq!(error.label(), "AccessDeniedException");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.aws.calls(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.aws.be(slow(50));
    assert!(node.ask(1).await.is_ok(), "a fresh association is picked up");
}

#[tokio::test(start_paused = true)]
async fn calls_stay_within_a_budget_that_shrinks_when_aws_throttles() {
    let node = Node::new();
    node.aws.be(Mood::Throttles { above: 4, after: Duration::from_millis(100) });
    let asks = (0..200).map(|pod| node.ask_as_boto3(pod)).collect();
    assert!(futures(asks).await.iter().all(|served| *served), "within boto3's three tries");
    assert!(node.aws.most_in_all() <= 50, "{}", node.aws.most_in_all());
    assert!(
        // It halves once in two seconds at most, in which eighty calls succeed: sixteen more at once.
        node.credentials.budgets.of(Source::EksAuth).numbers().limit <= 20,
        "the limit found its level: {:?}",
        node.credentials.budgets.of(Source::EksAuth).numbers()
    );
    assert!(node.aws.calls() < 2 * 200, "{} calls for 200 pods", node.aws.calls());
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_credentials_comes_before_renewals() {
    let max_identities = NonZeroUsize::new(2000).unwrap();
    let node = Node::keeping(&Retention::Keep { renew_after: 3 * HOUR, max_identities });
    for pod in 0..300 {
        node.ask(pod).await.unwrap();
    }
    // All renewals are due, AWS is slow, and a newcomer asks in the middle of it.
    node.aws.be(slow(1000));
    tokio::time::sleep(3 * HOUR - Duration::from_secs(60)).await;
    for pod in 0..300 {
        node.ask(pod).await.unwrap();
    }
    let before = tokio::time::Instant::now();
    node.ask(1000).await.unwrap();
    assert!(before.elapsed() < Duration::from_millis(2100), "{:?}", before.elapsed());
}

/// A request of the pod of `request(1)` with another token, as a verified pod has after a rotation.
fn rotated(node: &Node, text: &str, life: Duration) -> CredentialRequest {
    let token = BearerToken::from_header(text.as_bytes()).unwrap();
    let token = PresentedToken { token, expires: node.time_at_start() + life, issued: None };
    CredentialRequest { token, ..node.request(1) }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_an_old_token_is_neither_given_to_nor_remembered_against_a_newer_one() {
    for code in ["InvalidTokenException", "ExpiredTokenException"] {
        let node = Node::new();
        let slow_no = Mood::SaysAfter(Duration::from_millis(500), 400, code);
        node.aws.be_to_token("a.old.c", slow_no);
        let (old, new) = (rotated(&node, "a.old.c", HOUR), rotated(&node, "a.new.c", 24 * HOUR));
        let rotation = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let began = tokio::time::Instant::now();
            (node.ask_as(&new).await, began.elapsed())
        };
        let (with_old, (with_new, took)) = tokio::join!(node.ask_as(&old), rotation);
        assert!(with_new.is_ok(), "{code}: {with_new:?}");
        assert!(took < Duration::from_secs(1), "{code}: {took:?}");
        assert!(with_old.is_ok(), "{code}: it is the same pod");
        assert_eq!((node.aws.calls_with("a.old.c"), node.aws.calls_with("a.new.c")), (1, 1));
        assert_eq!(node.aws.most_of_one(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_best_token_is_given_to_all_and_an_older_one_changes_nothing() {
    let node = Node::new();
    node.aws.be(Mood::SaysAfter(Duration::from_millis(500), 400, "InvalidTokenException"));
    let (old, new) = (rotated(&node, "a.old.c", HOUR), rotated(&node, "a.new.c", 24 * HOUR));
    let (one, other) = tokio::join!(node.ask_as(&new), node.ask_as(&old));
    assert!(one.is_err() && other.is_err());
    assert_eq!(node.aws.calls(), 1);
    assert!(node.ask_as(&old).await.is_err());
    assert_eq!(node.aws.calls(), 1, "and it is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_credentials_comes_before_an_urgent_renewal_whether_or_not_it_is_verified() {
    let node = Node::new();
    for pod in 0..40 {
        node.ask(pod).await.unwrap();
    }
    node.aws.be(slow(1000));
    let join = |pod: usize, priority, purpose| {
        let request = CredentialRequest { peer: peer(pod), ..node.request(pod) };
        let seen = node.credentials.store.get(&request.principal.key).map(|record| record.credentials());
        let (principal, token) = (&request.principal, &request.token);
        let wish = JoinRequest {
            principal,
            token,
            priority,
            purpose,
            seen: seen.as_ref(),
            is_judgement: false,
            asked_from: None,
        };
        assert!(matches!(node.credentials.flights.start_or_join(&wish, None), Joined::InFlight(_)));
    };
    let limit = usize::try_from(node.credentials.budgets.of(Source::EksAuth).numbers().limit).unwrap();
    assert!(limit <= 20, "{limit}");
    // The first take the whole budget; the others wait, and so does the newcomer.
    for pod in 0..40 {
        join(pod, Priority::UrgentRenewal, Purpose::Background);
    }
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    node.ask(1000).await.unwrap();
    // One of those under way ends, then its own call.
    assert!(before.elapsed() <= Duration::from_millis(2_010), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_judged_by_itself_is_not_called_with_for_its_pod_at_the_same_time() {
    // A pod of three processes after the node was paused: the first has the token of before, the others the
    // new one. That looks as if it were not valid yet, until an answer has told the time.
    let node = Node::new();
    let newer = PresentedToken {
        token: BearerToken::from_header(b"a.newer.c").unwrap(),
        expires: node.time_at_start() + 30 * HOUR,
        issued: None,
    };
    let of_pod = |token| CredentialRequest { token, ..verified(&node, 1, "a.older.c") };
    let untimely =
        CredentialRequest { token: newer.clone(), must_be_judged: true, ..claimed(&node, 1, "a.newer.c") };
    node.aws.be(Mood::Says(503, "ServiceUnavailableException"));
    let [first, second, third] = [verified(&node, 1, "a.older.c"), untimely, of_pod(newer)];
    let asked = async {
        let asks = futures(vec![node.ask_as(&first), node.ask_as(&second), node.ask_as(&third)]);
        asks.await.into_iter().for_each(|got| drop(got.unwrap()));
    };
    let aws = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(node.credentials.flights.len(), 2, "the pod's own, and the token's");
        node.aws.be(slow(1_000));
    };
    tokio::join!(asked, aws);
    assert_eq!(node.aws.most_of_one(), 1);
    assert!(node.aws.calls_with("a.newer.c") > 1 && node.aws.calls_with("a.older.c") > 1);
}

/// Polls all of them at once, in this task.
async fn futures<F: Future>(all: Vec<F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(move |context| {
        for (future, output) in &mut all {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if all.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(all.drain(..).filter_map(|(_, output)| output).collect())
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}
