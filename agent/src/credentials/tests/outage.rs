//! Invariant 3: while unexpired credentials are kept, no failure of AWS reaches anybody.

use std::time::Duration;

use tokio::task::JoinSet;

use super::aws::Mood;
use super::{HOUR, MINUTE, Node};
use crate::workload::Source;

/// Every failure that may not become an error for a pod with cached credentials.
const FAILURES: [Mood; 13] = [
    Mood::Hangs,
    Mood::Refuses,
    Mood::Says(500, "InternalServerException"),
    Mood::Says(503, "ServiceUnavailableException"),
    Mood::Says(429, "ThrottlingException"),
    Mood::Says(403, "UnrecognizedClientException"),
    Mood::Says(403, "AccessDeniedException"),
    Mood::Says(403, "ExpiredTokenException"),
    Mood::Says(400, "AccessDeniedException"),
    Mood::Says(400, "InvalidTokenException"),
    Mood::Says(400, "ExpiredTokenException"),
    Mood::Says(407, "Proxy"),
    Mood::Page { status: 403, body: BLOCKED, has_request_id: false },
];

/// What an inspection of TLS may answer in AWS's place.
const BLOCKED: &str = "<html><body>This site is blocked by policy.</body></html>";

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_outage_are_not_noticed_by_pods_with_cached_credentials() {
    for failure in FAILURES {
        let node = Node::new();
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
        node.ask(1).await.unwrap();
        // Renewal is due in the middle of the outage, and the set is in its last third.
        tokio::time::sleep(24 * MINUTE).await;
        node.aws.be(failure);
        let mut slowest = Duration::ZERO;
        for _ in 0..200 {
            let before = tokio::time::Instant::now();
            let got = node.ask(1).await.unwrap_or_else(|error| panic!("{failure:?} was noticed: {error:?}"));
            assert!(got.left > Duration::from_secs(15));
            slowest = slowest.max(before.elapsed());
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        assert!(slowest <= Duration::from_millis(310), "{failure:?}: held for {slowest:?}");
        assert!(node.aws.calls() > 1, "{failure:?}: it was tried");
        assert!(node.aws.calls() < 60, "{failure:?}: {} calls", node.aws.calls());
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
        tokio::time::sleep(3 * MINUTE).await;
        assert!(node.ask(1).await.unwrap().left > 50 * MINUTE, "{failure:?}: renewed when it was over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_something_on_the_way_is_not_held_against_the_agents_own_credentials() {
    for status in [401, 403] {
        for body in [BLOCKED, "", r#"{"message":"Forbidden"}"#, r#"{"code":403}"#] {
            for (has_request_id, expected) in [(false, "unreadable"), (true, "own_credentials_rejected")] {
                let node = Node::new();
                node.aws.be(Mood::Page { status, body, has_request_id });
                let error = node.ask(1).await.unwrap_err().unwrap();
                assert_eq!(error.label(), expected, "{status} {body:?}, request id: {has_request_id}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_last_minutes_of_a_set_an_outage_costs_300_ms_once_per_pause_and_no_error() {
    let node = Node::new();
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    node.ask(1).await.unwrap();
    node.aws.be(Mood::Hangs);
    tokio::time::sleep(50 * MINUTE).await;
    let mut waited = 0;
    for _ in 0..300 {
        let before = tokio::time::Instant::now();
        node.ask(1).await.unwrap();
        waited += u32::from(before.elapsed() >= Duration::from_millis(250));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((1..=60).contains(&waited), "{waited} of 300 requests were held");
}

/// What AWS says for reasons of its own or of the way to it, and not of one pod.
fn is_of_aws(failure: Mood) -> bool {
    !matches!(failure, Mood::Says(400 | 429, _))
}

#[tokio::test(start_paused = true)]
async fn in_the_last_third_of_a_set_it_is_renewed_within_five_seconds_of_aws_being_back() {
    for failure in FAILURES.into_iter().filter(|failure| !matches!(failure, Mood::Says(400, _))) {
        let node = Node::new();
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
        node.ask(1).await.unwrap();
        tokio::time::sleep(20 * MINUTE).await;
        node.aws.be(failure);
        let before = node.aws.calls();
        // By its end the pause between two renewals has grown to two minutes.
        for _ in 0..(30 * 60) {
            node.ask(1).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let calls = node.aws.calls() - before;
        assert!(calls < 30 * 60 / 4, "{failure:?}: {calls} calls in half an hour");
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
        let back = tokio::time::Instant::now();
        while node.ask(1).await.unwrap().left < 50 * MINUTE {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // What hangs is given up after ten seconds.
        let limit = if matches!(failure, Mood::Hangs) { 15 } else { 5 };
        let limit = Duration::from_millis(limit * 1000 + 500);
        assert!(back.elapsed() < limit, "{failure:?}: {:?}", back.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn once_aws_has_answered_one_pod_it_is_asked_for_the_others_whatever_their_pause() {
    for failure in FAILURES.into_iter().filter(|failure| is_of_aws(*failure)) {
        let node = Node::new();
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
        node.ask(1).await.unwrap();
        tokio::time::sleep(20 * MINUTE).await;
        node.aws.be(failure);
        // Much life is left all the time, so nothing is done to find out.
        for _ in 0..(12 * 60) {
            node.ask(1).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
        // Right after a renewal that failed the pause is at its longest.
        let before = node.aws.calls();
        node.ask(2).await.unwrap();
        let back = tokio::time::Instant::now();
        while node.ask(1).await.unwrap().left < 50 * MINUTE {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let limit = if matches!(failure, Mood::Hangs) { 15 } else { 5 };
        assert!(
            back.elapsed() < Duration::from_millis(limit * 1000 + 500),
            "{failure:?}: {:?}",
            back.elapsed()
        );
        assert_eq!(node.aws.calls(), before + 2, "{failure:?}");
    }
}

/// What is known without AWS says nothing of it: otherwise one token that is over would have all agents of an
/// outage ask for all that they hold.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_aws_was_not_asked_for_ends_nobodys_pause() {
    let node = Node::new();
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    node.ask(1).await.unwrap();
    tokio::time::sleep(20 * MINUTE).await;
    node.aws.be(Mood::Refuses);
    for _ in 0..(12 * 60) {
        node.ask(1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Some seconds after a renewal that failed: the next one is minutes away.
    let failed = node.aws.calls();
    while node.aws.calls() == failed {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = node.aws.calls();
    let mut over = node.request(2);
    over.token.expires = node.clock.now().wall - Duration::from_secs(1);
    let refused = node.ask_as(&over).await.unwrap_err().unwrap();
    assert_eq!(refused.label(), "ExpiredTokenException");
    for _ in 0..10 {
        node.ask(1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(node.aws.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn without_cached_credentials_a_hiccup_of_2500_ms_is_held_through() {
    let node = Node::new();
    node.aws.be(Mood::Says(503, "ServiceUnavailableException"));
    let healing = async {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    };
    let (got, ()) = tokio::join!(node.ask(1), healing);
    assert!(got.is_ok(), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lasting_outage_is_held_for_4500_ms_then_told_at_once_for_two_seconds() {
    let node = Node::new();
    node.aws.be(Mood::Refuses);
    let start = tokio::time::Instant::now();
    let error = node.ask(1).await.unwrap_err();
    assert_eq!(error.unwrap().label(), "connection");
    assert_eq!(start.elapsed().as_millis(), 4_500);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let again = tokio::time::Instant::now();
    assert!(node.ask(1).await.is_err());
    assert!(again.elapsed() < Duration::from_millis(10), "told at once");
    tokio::time::sleep(Duration::from_millis(2000)).await;
    let later = tokio::time::Instant::now();
    assert!(node.ask(1).await.is_err());
    assert!(later.elapsed() > Duration::from_secs(3), "held again");
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_nobody_asks_for_ends_and_costs_nothing_more() {
    let node = Node::new();
    node.aws.be(Mood::Refuses);
    assert!(node.ask(1).await.is_err());
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(node.credentials.flights.is_empty());
    let calls = node.aws.calls();
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(node.aws.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_set_whose_last_renewal_fails_is_gone_from_memory_soon_after_its_end() {
    for life in [15 * MINUTE, 20 * MINUTE, HOUR] {
        let node = Node::new();
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life });
        node.ask(1).await.unwrap();
        // The pause between renewals is two minutes by the end: the last look would come long after it.
        node.aws.be(Mood::Refuses);
        tokio::time::sleep(life - Duration::from_secs(20)).await;
        assert_eq!(node.credentials.store.len(), 1, "{life:?}: it is kept to its end");
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(node.credentials.store.len(), 0, "{life:?}: it is held after its end");
    }
}

const fn late(ms: u64) -> Mood {
    Mood::Issues { after: Duration::from_millis(ms), life: HOUR }
}

/// Pods that ask as boto3 does, all at once: whether each is served.
async fn served(node: &Node, pods: std::ops::Range<usize>) -> Vec<bool> {
    let mut asking = JoinSet::new();
    for pod in pods {
        let node = node.clone();
        asking.spawn(async move { node.ask_as_boto3(pod).await });
    }
    asking.join_all().await
}

#[tokio::test(start_paused = true)]
async fn twenty_new_pods_are_served_within_boto3s_tries_by_an_aws_that_answers_well_but_late() {
    for ms in [1200, 1300, 2000, 3000, 4000] {
        // An agent that has just started, and one that knows a quick AWS and has its connections.
        for is_warm in [false, true] {
            let node = Node::new();
            if is_warm {
                assert_eq!(served(&node, 100..120).await, [true; 20]);
            }
            let before = node.aws.calls();
            node.aws.be(late(ms));
            assert_eq!(served(&node, 0..20).await, [true; 20], "{ms} ms, warm: {is_warm}");
            // On a used connection the first call may be lost, so it is given up once.
            let most = if is_warm { 40 } else { 20 };
            assert!(node.aws.calls() - before <= most, "{ms} ms: {} calls", node.aws.calls() - before);
            // AWS has shown by now how long it takes.
            let before = node.aws.calls();
            assert_eq!(served(&node, 20..40).await, [true; 20], "{ms} ms, again");
            assert_eq!(node.aws.calls() - before, 20, "{ms} ms, again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn eight_calls_that_hang_are_in_nobodys_way_when_aws_is_back() {
    let node = Node::new();
    node.aws.be(Mood::Hangs);
    let mut hung = JoinSet::new();
    for pod in 0..8 {
        let node = node.clone();
        hung.spawn(async move { node.ask_as_boto3(pod).await });
    }
    tokio::time::sleep(Duration::from_millis(6_500)).await;
    node.aws.be(late(80));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.aws.under_way(), 8, "they hold the whole budget");
    let began = tokio::time::Instant::now();
    assert!(node.ask_as_boto3(100).await);
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_ten_seconds_after_the_last_client_asked_and_gives_its_place_back() {
    let node = Node::new();
    node.aws.be(Mood::Hangs);
    assert!(tokio::time::timeout(Duration::from_secs(2), node.ask(1)).await.is_err());
    tokio::time::sleep(Duration::from_millis(7_900)).await;
    assert_eq!(node.aws.under_way(), 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(node.aws.under_way(), 0);
    assert_eq!(node.credentials.budgets.of(Source::EksAuth).numbers().in_flight, 0);
    assert!(node.credentials.flights.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_last_try_of_boto3_waits_for_the_longer_attempt_that_will_be_answered() {
    let node = Node::new();
    node.aws.be(Mood::Hangs);
    let healing = async {
        // The first attempt ends at 4.2 s; the next is answered at 7.3 s or so.
        tokio::time::sleep(Duration::from_millis(4_000)).await;
        node.aws.be(late(3_000));
    };
    let (is_served, ()) = tokio::join!(node.ask_as_boto3(1), healing);
    assert!(is_served);
    // Nor is a call that hangs to the end held for ever without a word.
    let node = Node::new();
    node.aws.be(Mood::Hangs);
    let began = tokio::time::Instant::now();
    let mut told_at_once = false;
    while began.elapsed() < Duration::from_secs(29) {
        let asked = tokio::time::Instant::now();
        assert!(node.ask(1).await.is_err());
        let is_slow = began.elapsed() < Duration::from_millis(14_200);
        told_at_once |= asked.elapsed().is_zero();
        assert!(!(is_slow && told_at_once), "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(told_at_once);
}

#[tokio::test(start_paused = true)]
async fn an_aws_that_takes_long_for_good_renews_what_is_held() {
    for ms in [4_000, 5_000, 7_000, 9_000] {
        let node = Node::new();
        node.ask(1).await.unwrap();
        node.aws.be(late(ms));
        // The first set has six hours; those that follow have one.
        for minute in 0..600 {
            let got = node.ask(1).await.unwrap_or_else(|error| panic!("{ms} ms, minute {minute}: {error:?}"));
            assert!(got.left > 20 * MINUTE, "{ms} ms, minute {minute}: {:?} left", got.left);
            tokio::time::sleep(MINUTE).await;
        }
        let calls = node.aws.calls();
        assert!((10..=30).contains(&calls), "{ms} ms: {calls} calls");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_on_a_new_connection_is_repeated_within_the_hold() {
    let node = Node::new();
    node.aws.be(Mood::Hangs);
    let healing = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        node.aws.be(late(80));
    };
    let (got, ()) = tokio::join!(node.ask(1), healing);
    assert!(got.is_ok(), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_lost_on_a_used_connection_is_repeated_after_1200_ms() {
    let node = Node::new();
    node.ask(2).await.unwrap();
    node.aws.be(Mood::Hangs);
    let healing = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    };
    let start = tokio::time::Instant::now();
    let (got, ()) = tokio::join!(node.ask(1), healing);
    assert!(got.is_ok(), "{got:?}");
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
}
