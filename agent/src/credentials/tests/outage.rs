//! Invariant 3: while unexpired credentials are kept, no failure of AWS reaches anybody.

use std::time::Duration;

use super::aws::Mood;
use super::{HOUR, MINUTE, Node};

/// Every failure that may not become an error for a pod with cached credentials.
const FAILURES: [Mood; 12] = [
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
];

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

#[tokio::test(start_paused = true)]
async fn an_aws_that_answers_well_but_late_serves_new_pods_within_boto3s_tries() {
    for late in [1200, 1300, 2000, 3000, 4000] {
        let node = Node::new();
        node.aws.be(Mood::Issues { after: Duration::from_millis(late), life: HOUR });
        for pod in 1..=5 {
            let mut served = false;
            for _ in 0..3 {
                let asked = tokio::time::timeout(Duration::from_secs(2), node.ask(pod)).await;
                served = matches!(asked, Ok(Ok(_)));
                if served {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert!(served, "{late} ms: pod {pod} has nothing after boto3's three tries");
            assert!(node.aws.calls_of(pod) <= if pod == 1 { 2 } else { 1 }, "{late} ms: pod {pod}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_aws_that_takes_4_s_for_good_renews_what_is_held() {
    let node = Node::new();
    node.aws.be(Mood::Issues { after: Duration::from_secs(4), life: HOUR });
    // The first answer comes after two boto3 attempts; from then on every request is served.
    let _first = node.ask(1).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    for minute in 0..180 {
        let got = node.ask(1).await.unwrap_or_else(|error| panic!("minute {minute}: {error:?}"));
        assert!(got.left > 20 * MINUTE, "minute {minute}: {:?} left", got.left);
        tokio::time::sleep(MINUTE).await;
    }
    assert!(node.aws.calls() < 12, "{} calls", node.aws.calls());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_lost_is_repeated_after_1200_ms() {
    let node = Node::new();
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
