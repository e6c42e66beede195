//! Invariants 2, 6 and 8: never expired, never short-lived while AWS is healthy, nothing for pods that are
//! gone.

use std::time::Duration;

use super::aws::Mood;
use super::{HOUR, MINUTE, Node};
use crate::credentials::flight::shared_call::Purpose;
use crate::credentials::flight::table::{JoinRequest, Joined};
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::policy::hold::Hold;
use crate::credentials::provider::{CredentialRequest, Lookup};
use crate::telemetry::logging::tests::Logged;
use crate::workload::{BearerToken, PresentedToken};

const fn issuing(life: Duration) -> Mood {
    Mood::Issues { after: Duration::from_millis(80), life }
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_never_served_whatever_aws_does() {
    let node = Node::new();
    node.aws.be(issuing(20 * MINUTE));
    node.ask(1).await.unwrap();
    node.aws.be(Mood::Refuses);
    let mut served = 0;
    for _ in 0..1400 {
        if let Ok(Ok(got)) = tokio::time::timeout(Duration::from_millis(400), node.ask(1)).await {
            assert!(got.left >= Duration::from_secs(15), "{:?} left", got.left);
            served += 1;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(served > 1000, "{served}: they were served while they lived");
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_a_request_waits_for_its_renewal_is_not_what_it_gets() {
    let node = Node::new();
    node.aws.be(issuing(15 * MINUTE));
    node.ask(1).await.unwrap();
    node.aws.be(Mood::Hangs);
    let until_the_end = node.aws.life_left("ASIA000000") - Duration::from_millis(15_100);
    tokio::time::sleep(until_the_end).await;
    assert!(node.ask(1).await.is_err(), "after 300 ms it has less than 15 s left");
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_by_the_time_that_aws_has_just_told_is_not_served() {
    let node = Node::new();
    node.aws.be(issuing(HOUR));
    for pod in [1, 2] {
        node.ask(pod).await.unwrap();
    }
    // They were renewed once, and a quarter of that is left.
    tokio::time::sleep(73 * MINUTE).await;
    node.time.stand_still(2 * HOUR);
    tokio::time::advance(2 * HOUR).await;
    // Any answer tells the time, and two of them tell a paused node.
    node.aws.be(Mood::SaysAfter(Duration::from_millis(50), 403, "AccessDeniedException"));
    let (one, other) = tokio::join!(node.ask(1), node.ask(2));
    assert!(node.clock.now().is_confirmed());
    assert!(one.is_err() || other.is_err(), "of the second nobody can say that it was too early: {other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_does_not_revive_the_expired() {
    let node = Node::new();
    node.aws.be(issuing(20 * MINUTE));
    node.ask(1).await.unwrap();
    node.aws.be(Mood::Refuses);
    tokio::time::sleep(20 * MINUTE).await;
    node.time.set_wall_error_ms(-3_600_000);
    assert!(node.ask(1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_clock_is_an_hour_off_is_corrected_by_aws_and_serves() {
    for error_ms in [-3_600_000, 3_600_000] {
        let node = Node::new();
        node.time.set_wall_error_ms(error_ms);
        node.aws.be(issuing(HOUR));
        for _ in 0..180 {
            let got = node.ask(1).await.unwrap();
            assert!(got.left > 15 * MINUTE, "{:?}", got.left);
            tokio::time::sleep(MINUTE).await;
        }
        assert!((node.clock.offset_ms() + error_ms).abs() < 1_500);
    }
}

#[tokio::test(start_paused = true)]
async fn one_answer_with_a_wrong_date_expires_nothing() {
    let node = Node::new();
    let held = node.ask(1).await.unwrap().access_key_id;
    node.aws.misdate_by(24 * HOUR);
    assert!(node.ask(2).await.is_ok());
    node.aws.misdate_by(Duration::ZERO);
    assert_eq!(node.ask(1).await.unwrap().access_key_id, held);
    assert!(node.ask(2).await.unwrap().left > HOUR);
    assert_eq!(node.clock.offset_ms(), 0);
}

#[tokio::test(start_paused = true)]
async fn sets_of_59_minutes_are_never_handed_out_with_less_than_15_while_aws_is_healthy() {
    let node = Node::new();
    node.aws.be(issuing(59 * MINUTE));
    for _ in 0..(6 * 60 * 2) {
        let got = node.ask(1).await.unwrap();
        assert!(got.left > 15 * MINUTE, "{:?} left", got.left);
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert!(node.aws.calls() <= 16, "{} calls in six hours", node.aws.calls());
}

#[tokio::test(start_paused = true)]
async fn an_sdk_that_comes_back_late_waits_for_a_fresh_set_instead_of_getting_a_short_one() {
    let node = Node::new();
    node.aws.be(issuing(HOUR));
    node.ask(1).await.unwrap();
    // boto3 comes back 15 minutes before the end; meanwhile nobody asked, so the renewed set got no renewal.
    for _ in 0..10 {
        tokio::time::sleep(45 * MINUTE).await;
        assert!(node.ask(1).await.unwrap().left > 15 * MINUTE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_costs_one_renewal_at_most_and_then_no_memory() {
    let node = Node::new();
    node.aws.be(issuing(HOUR));
    for pod in 0..50 {
        node.ask(pod).await.unwrap();
    }
    assert_eq!(node.aws.calls(), 50);
    tokio::time::sleep(5 * HOUR).await;
    assert!(node.aws.calls() <= 100, "{} calls", node.aws.calls());
    assert!(node.credentials.store.get(&node.request(1).principal.key).is_none());
    assert!(node.credentials.store.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_renewal_is_tried_with_a_token_past_its_expiry() {
    let node = Node::new();
    for _ in 0..(30 * 12) {
        if node.ask(1).await.is_err() {
            break;
        }
        tokio::time::sleep(5 * MINUTE).await;
    }
    let calls = node.aws.calls();
    // The endpoint refuses the expired token before it gets here; the worker must not use it either.
    tokio::time::sleep(12 * HOUR).await;
    assert_eq!(node.aws.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_while_its_call_waits_for_a_turn_is_not_sent() {
    let node = Node::new();
    // AWS says what time it is.
    node.ask(2).await.unwrap();
    let request = node.request(1);
    let token = PresentedToken { expires: node.clock.now().wall, ..request.token };
    let request = JoinRequest {
        principal: &request.principal,
        token: &token,
        priority: Priority::UrgentRenewal,
        purpose: Purpose::Awaited(Hold::Unknown),
        seen: None,
        is_judgement: false,
        asked_from: None,
    };
    let joined = node.credentials.flights.start_or_join(&request, None);
    let Joined::InFlight(flight) = joined else { panic!("there are no credentials yet") };
    assert_eq!(flight.done().await.unwrap_err().label(), "ExpiredTokenException");
    assert_eq!(node.aws.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_set_is_renewed_with_the_newest_token_of_its_pod_when_the_first_has_expired() {
    for (presents_newer, calls) in [(true, 2), (false, 1)] {
        let node = Node::new();
        node.aws.be(issuing(6 * HOUR));
        // As for a verified pod, the key outlives the token.
        let newer = node.request(1);
        let token = PresentedToken {
            token: BearerToken::from_header(b"a.first.c").unwrap(),
            expires: node.clock.now().wall + HOUR,
            issued: None,
        };
        let first = CredentialRequest { token, ..newer.clone() };
        let lookup = |request| node.credentials.provider.lookup(request, node.clock.now());
        let Lookup::Wait(mut waiting) = lookup(&first) else { panic!("nothing is held yet") };
        waiting.outcome().await.unwrap();
        tokio::time::sleep(30 * MINUTE).await;
        assert!(matches!(lookup(if presents_newer { &newer } else { &first }), Lookup::Serve(_)));
        tokio::time::sleep(3 * HOUR).await;
        assert_eq!(node.aws.calls(), calls, "a newer token presented: {presents_newer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_brings_a_set_which_ends_earlier_is_not_repeated_with_every_request() {
    // When the renewal is due, and in the short last part of the set: left of it, and the life of the newer.
    for (left, life) in [(3 * HOUR - MINUTE, 2 * HOUR), (15 * MINUTE, 10 * MINUTE), (15 * MINUTE, MINUTE)] {
        let node = Node::new();
        node.aws.be(issuing(6 * HOUR));
        let held = node.ask(1).await.unwrap().access_key_id;
        node.aws.be(Mood::Refuses);
        tokio::time::sleep(6 * HOUR - left).await;
        node.aws.be(issuing(life));
        let calls = node.aws.calls();
        for _ in 0..250 {
            assert_eq!(node.ask(1).await.unwrap().access_key_id, held);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let calls = node.aws.calls() - calls;
        assert!((1..=3).contains(&calls), "{calls} calls in 50 s with {left:?} left");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_a_date_that_cannot_be_is_an_error_of_that_answer() {
    const YEAR_10000: i64 = 253_402_300_800;
    let over = 1_700_000_000;
    for seconds in [YEAR_10000, i64::MAX, YEAR_10000 * 1_000, -1, i64::MIN, 0, over] {
        let node = Node::new();
        node.aws.be(Mood::IssuesUntil(seconds));
        let error = node.ask(1).await.unwrap_err().unwrap();
        assert_eq!(error.label(), "unreadable", "{seconds}");
        assert!(node.aws.calls() > 3, "{seconds}: it is held and tried again, as any answer that is none");
        node.aws.be(issuing(HOUR));
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert!(node.ask(1).await.is_ok(), "{seconds}: the next answer is a good one");
        // And a set that is held outlives it.
        node.aws.be(Mood::IssuesUntil(seconds));
        tokio::time::sleep(40 * MINUTE).await;
        assert!(node.ask(1).await.is_ok(), "{seconds}");
    }
    // A date that can be written is not ours to judge.
    let node = Node::new();
    node.aws.be(Mood::IssuesUntil(YEAR_10000 - 1));
    let request = node.request(1);
    let lookup = || node.credentials.provider.lookup(&request, node.clock.now());
    let Lookup::Wait(mut waiting) = lookup() else { panic!("nothing is held yet") };
    let body = waiting.outcome().await.unwrap().body;
    assert!(str::from_utf8(&body).unwrap().contains("9999-12-31T23:59:59Z"));
    tokio::time::sleep(MINUTE).await;
    assert!(matches!(lookup(), Lookup::Serve(_)));
}

#[tokio::test(start_paused = true)]
async fn a_set_that_no_sdk_can_use_is_logged_once_a_minute_however_often_it_is_asked_for() {
    let (logged, node) = (Logged::from_now_on(), Node::new());
    node.aws.be(Mood::IssuesUntil(0));
    let end = tokio::time::Instant::now() + 3 * MINUTE;
    while tokio::time::Instant::now() < end {
        // Each pod has flights of its own, and each flight its attempts.
        for pod in 0..3 {
            assert!(node.ask(pod).await.is_err());
        }
    }
    assert!(node.aws.calls() > 30, "{}", node.aws.calls());
    let lines = logged.lines_of("AWS issued credentials that no SDK can use");
    assert!((3..=4).contains(&lines), "{lines} lines in three minutes");
}
