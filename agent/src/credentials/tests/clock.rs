//! Nodes with a wrong clock, from the token to the set: the authenticator before the provider, as in the
//! endpoint.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::aws::Mood;
use super::names::verified;
use super::{Got, HOUR, MINUTE, Node, peer};
use crate::clock::Trust;
use crate::credentials::policy::hold::Hold;
use crate::credentials::provider::CredentialRequest;
use crate::identity::{Authentication, Authenticator};
use crate::workload::{BearerToken, PresentedToken, Route};

const HOUR_MS: i64 = 3_600_000;

/// A pod's token: issued so long after the start by AWS's time, for `life`.
fn token(pod: usize, issued: Duration, life: Duration) -> BearerToken {
    let issued = 1_800_000_000 + issued.as_secs();
    let claims = serde_json::json!({
        "aud": ["pods.eks.amazonaws.com"], "nbf": issued, "iat": issued, "exp": issued + life.as_secs(),
        "jti": format!("pod{pod}"),
    });
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    BearerToken::from_header(format!("e30.{payload}.c2ln").as_bytes()).unwrap()
}

struct Endpoint {
    node: Node,
    authenticator: Authenticator,
}

impl Endpoint {
    fn with_clock_off_by(error_ms: i64) -> Self {
        let node = Node::new();
        node.time.set_wall_error_ms(error_ms);
        Self { node, authenticator: Authenticator::default() }
    }

    /// `Err`: why the pod gets nothing.
    async fn ask(&self, pod: usize, token: &BearerToken) -> Result<Got, String> {
        let identity = match self.authenticator.authenticate(token, self.node.clock.now()) {
            Authentication::Identified(identity) => identity,
            Authentication::Refused(refused) => return Err(format!("{:?}", refused.fault)),
            Authentication::Undecided(_) => return Err("undecided".to_owned()),
        };
        let request = CredentialRequest {
            principal: identity.principal(Route::EksAuth),
            must_be_judged: identity.must_be_judged(),
            token: identity.presented(token.clone()),
            peer: peer(pod),
            hold: Hold::Unknown,
        };
        self.node.ask_as(&request).await.map_err(|error| format!("{error:?}"))
    }
}

#[tokio::test(start_paused = true)]
async fn one_pod_is_enough_on_a_node_whose_clock_is_wrong_at_boot_and_two_answers_correct_it() {
    for error_ms in [-90_000, HOUR_MS, -HOUR_MS, 25 * HOUR_MS, -25 * HOUR_MS] {
        let endpoint = Endpoint::with_clock_off_by(error_ms);
        let app = token(1, Duration::ZERO, 24 * HOUR);
        assert!(endpoint.ask(1, &app).await.unwrap().left > 5 * HOUR, "{error_ms} ms off");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(endpoint.node.clock.now().trust, Trust::Confirmed, "{error_ms} ms off: asked at once");
        assert!((endpoint.node.clock.offset_ms() + error_ms).abs() < 1_500, "{error_ms}");
        let calls = endpoint.node.aws.calls();
        assert_eq!(calls, 2, "{error_ms} ms off");
        endpoint.ask(1, &app).await.unwrap();
        assert_eq!(endpoint.node.aws.calls(), calls, "{error_ms} ms off: then it is served from memory");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_wrong_at_boot_and_is_set_right_takes_new_and_rotated_tokens() {
    for error_ms in [HOUR_MS, -HOUR_MS] {
        let endpoint = Endpoint::with_clock_off_by(error_ms);
        for pod in 0..2 {
            endpoint.ask(pod, &token(pod, Duration::ZERO, 24 * HOUR)).await.unwrap();
        }
        tokio::time::sleep(10 * MINUTE).await;
        endpoint.node.time.set_wall_error_ms(0);
        for minutes in 10..130 {
            let fresh = token(1_000 + minutes, Duration::from_secs(60 * minutes as u64), HOUR);
            let got = endpoint.ask(1_000 + minutes, &fresh).await;
            assert!(got.is_ok(), "{error_ms} ms off, {minutes} minutes: {got:?}");
            let old = endpoint.ask(1, &token(1, Duration::ZERO, 24 * HOUR)).await;
            assert!(old.is_ok(), "{error_ms} ms off, {minutes} minutes: {old:?}");
            tokio::time::sleep(MINUTE).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn once_the_time_is_known_an_expired_token_is_refused_without_a_call() {
    let endpoint = Endpoint::with_clock_off_by(-HOUR_MS);
    let short = token(9, Duration::ZERO, 10 * MINUTE);
    for pod in 0..2 {
        endpoint.ask(pod, &token(pod, Duration::ZERO, 24 * HOUR)).await.unwrap();
    }
    tokio::time::sleep(11 * MINUTE).await;
    let calls = endpoint.node.aws.calls();
    assert_eq!(endpoint.ask(9, &short).await.unwrap_err(), "Expired", "by the node's clock it is not");
    assert_eq!(endpoint.node.aws.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_step_back_changes_nothing_and_a_step_forward_takes_nothing_away() {
    let endpoint = Endpoint::with_clock_off_by(0);
    let app = token(1, Duration::ZERO, 24 * HOUR);
    let held = endpoint.ask(1, &app).await.unwrap().access_key_id;
    endpoint.node.aws.be(Mood::Refuses);
    endpoint.node.time.set_wall_error_ms(-25 * HOUR_MS);
    assert_eq!(endpoint.ask(1, &app).await.unwrap().access_key_id, held);
    // It may be a pause and the right step: nobody is served what may have expired, nor is it forgotten.
    endpoint.node.time.set_wall_error_ms(25 * HOUR_MS);
    assert!(endpoint.ask(1, &app).await.is_err());
    tokio::time::sleep(MINUTE).await;
    assert_eq!(endpoint.node.credentials.store.len(), 1);
    endpoint.node.aws.be(Mood::Says(500, "InternalServerException"));
    let _learns = endpoint.ask(2, &token(2, Duration::ZERO, 24 * HOUR)).await;
    assert_eq!(endpoint.ask(1, &app).await.unwrap().access_key_id, held, "any answer tells the time");
}

#[tokio::test(start_paused = true)]
async fn an_untimely_token_is_judged_by_its_source_each_time_and_never_served_from_memory() {
    let endpoint = Endpoint::with_clock_off_by(0);
    let short = token(1, Duration::ZERO, HOUR);
    endpoint.ask(1, &short).await.unwrap();
    endpoint.node.time.set_wall_error_ms(2 * HOUR_MS);
    endpoint.node.aws.be(Mood::Says(400, "ExpiredTokenException"));
    assert!(endpoint.ask(1, &short).await.unwrap_err().contains("ExpiredTokenException"));
    assert_eq!(endpoint.node.aws.calls(), 2, "a set is held, and yet AWS is asked");
}

#[tokio::test(start_paused = true)]
async fn a_step_is_asked_about_at_once_and_no_more_than_once_in_five_seconds() {
    let endpoint = Endpoint::with_clock_off_by(0);
    for pod in 0..3 {
        endpoint.ask(pod, &token(pod, Duration::ZERO, 24 * HOUR)).await.unwrap();
    }
    endpoint.node.aws.be(Mood::Refuses);
    endpoint.node.time.set_wall_error_ms(-HOUR_MS);
    let app = token(1, Duration::ZERO, 24 * HOUR);
    let before = endpoint.node.aws.calls();
    endpoint.ask(1, &app).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(endpoint.node.aws.calls(), before + 1, "at once");
    let asks_on = async |seconds| {
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            endpoint.ask(1, &app).await.unwrap();
        }
    };
    asks_on(60).await;
    let calls = endpoint.node.aws.calls() - before;
    // And what the back-off of a failed renewal repeats of itself: after 5, 10, 20 and 40 s.
    assert!((2..=13 + 4).contains(&calls), "{calls} calls in a minute");
    assert_eq!(endpoint.node.clock.now().trust, Trust::Unconfirmed);
    endpoint.node.aws.be(Mood::Says(503, "ServiceUnavailableException"));
    asks_on(60).await;
    assert_eq!(endpoint.node.clock.now().trust, Trust::Confirmed, "an error is an answer");
}

/// The hypervisor pauses the node: both clocks stand still.
async fn pause(node: &Node, pause: Duration) {
    node.time.stand_still(pause);
    tokio::time::advance(pause).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_paused_takes_fresh_tokens_and_is_told_the_time_by_them() {
    let endpoint = Endpoint::with_clock_off_by(0);
    let app = token(1, Duration::ZERO, 24 * HOUR);
    endpoint.ask(1, &app).await.unwrap();
    pause(&endpoint.node, HOUR).await;
    assert_eq!(endpoint.node.clock.now().trust, Trust::Confirmed, "nothing tells it so");
    let got = endpoint.ask(2, &token(2, HOUR, HOUR)).await;
    assert!(got.unwrap().left > 5 * HOUR);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(endpoint.node.clock.now().trust, Trust::Confirmed);
    assert!((endpoint.node.clock.offset_ms() - HOUR_MS).abs() < 1_500);
    // While AWS is away its own answer is trouble, and no fault of the pod.
    pause(&endpoint.node, HOUR).await;
    endpoint.node.aws.be(Mood::Refuses);
    let got = endpoint.ask(3, &token(3, 2 * HOUR, HOUR)).await.unwrap_err();
    assert!(got.contains("Unavailable"), "{got}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asked_a_moment_ago_is_enough_for_both_answers_and_costs_two_calls_if_it_is_gone() {
    let healthy = Mood::Issues { after: Duration::from_millis(80), life: 6 * HOUR };
    for mood in [healthy, Mood::Says(503, "ServiceUnavailableException")] {
        let node = Node::new();
        let pod = verified(&node, 1, "a.b.c");
        node.ask_as(&pod).await.unwrap();
        pause(&node, HOUR).await;
        node.time.set_wall_error_ms(HOUR_MS);
        node.aws.be(mood);
        let before = node.aws.calls();
        node.ask_as(&pod).await.unwrap();
        tokio::time::sleep(7 * Duration::from_secs(1)).await;
        assert!(node.clock.now().is_confirmed(), "{mood:?}");
        assert!(node.clock.offset_ms().abs() < 1_500, "{mood:?}: the wall clock is right");
        tokio::time::sleep(6 * HOUR).await;
        assert_eq!(node.aws.calls() - before, 2, "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asked_two_minutes_ago_is_not_asked_for_again_only_to_know_the_time() {
    let node = Node::new();
    node.ask_as(&verified(&node, 1, "a.b.c")).await.unwrap();
    pause(&node, HOUR).await;
    tokio::time::sleep(2 * MINUTE).await;
    node.time.set_wall_error_ms(HOUR_MS);
    node.clock.now();
    tokio::time::sleep(HOUR).await;
    assert_eq!(node.aws.calls(), 2, "one renewal, and its answer contradicts");
    assert!(!node.clock.now().is_confirmed());
}

#[tokio::test(start_paused = true)]
async fn a_proven_token_of_the_future_makes_the_stricter_reading_judge_and_has_aws_asked() {
    let node = Node::new();
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR / 2 });
    let old = verified(&node, 1, "a.old.c");
    node.ask_as(&old).await.unwrap();
    node.aws.be(Mood::Refuses);
    pause(&node, HOUR).await;
    assert!(node.ask_as(&old).await.is_ok(), "nothing tells the node that its set has expired");
    let calls = node.aws.calls();
    let fresh = verified(&node, 1, "a.fresh.c");
    let issued = Some(node.time_at_start() + HOUR);
    let token = PresentedToken { issued, ..fresh.token.clone() };
    let fresh = CredentialRequest { token, must_be_judged: true, ..fresh };
    let unproven = {
        let mut request = node.request(9);
        request.token.issued = issued;
        CredentialRequest { must_be_judged: true, ..request }
    };
    assert!(node.ask_as(&unproven).await.is_err());
    assert!(node.clock.now().is_confirmed(), "a token that nobody has proven says nothing");
    assert!(node.ask_as(&fresh).await.is_err());
    assert!(!node.clock.now().is_confirmed());
    assert!(node.ask_as(&old).await.is_err(), "now something does");
    assert!(node.aws.calls() > calls);
    tokio::time::sleep(MINUTE / 2).await;
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    assert!(node.ask_as(&fresh).await.unwrap().left > HOUR / 2);
    tokio::time::sleep(6 * Duration::from_secs(1)).await;
    assert!(node.clock.now().is_confirmed() && node.clock.offset_ms() > HOUR_MS - 1_500);
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_that_is_given_again_is_served_to_nobody_and_moves_nothing() {
    let node = Node::new();
    let held = node.ask(1).await.unwrap().access_key_id;
    node.aws.be(Mood::Replays { given: 7 * HOUR, ended: HOUR });
    for pod in [2, 2, 2, 3] {
        assert!(node.ask(pod).await.is_err(), "it has expired");
    }
    assert_eq!(node.clock.offset_ms(), 0, "it counts once, however often it comes");
    assert_eq!(node.ask(1).await.unwrap().access_key_id, held);
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    tokio::time::sleep(MINUTE).await;
    assert!(node.ask(2).await.unwrap().left > HOUR / 2);
    assert!(node.clock.now().is_confirmed());
}

#[tokio::test(start_paused = true)]
async fn a_young_pod_has_its_grace_on_a_node_whose_clock_is_90_seconds_fast() {
    let endpoint = Endpoint::with_clock_off_by(90_000);
    endpoint.node.aws.be(Mood::Says(404, "ResourceNotFoundException"));
    let app = token(1, Duration::ZERO, 24 * HOUR);
    let associated = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        endpoint.node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    };
    let (got, ()) = tokio::join!(endpoint.ask(1, &app), associated);
    assert!(got.is_ok(), "{got:?}");
    let old = endpoint.node.time_at_start() - HOUR;
    endpoint.node.aws.be(Mood::Says(404, "ResourceNotFoundException"));
    let calls = endpoint.node.aws.calls();
    let mut request = endpoint.node.request(2);
    request.token.issued = Some(old);
    assert!(endpoint.node.ask_as(&request).await.is_err());
    assert_eq!(endpoint.node.aws.calls(), calls + 1, "an old one has none");
}

#[tokio::test(start_paused = true)]
async fn what_is_due_by_the_time_that_aws_tells_after_a_pause_is_renewed_at_once() {
    let endpoint = Endpoint::with_clock_off_by(0);
    let app = token(1, Duration::ZERO, 24 * HOUR);
    endpoint.ask(1, &app).await.unwrap();
    tokio::time::sleep(HOUR).await;
    // Due after three hours of six, by a clock that stands still for four.
    pause(&endpoint.node, 4 * HOUR).await;
    tell_the_time(&endpoint).await;
    tokio::time::sleep(MINUTE).await;
    endpoint.node.aws.be(Mood::Refuses);
    assert!(endpoint.ask(1, &app).await.unwrap().left > 5 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_by_the_time_that_aws_tells_after_a_pause_leaves_memory_when_it_is() {
    let endpoint = Endpoint::with_clock_off_by(0);
    endpoint.ask(1, &token(1, Duration::ZERO, 24 * HOUR)).await.unwrap();
    // Renewed once after three hours, for nobody: it ends after nine, of which the node has four.
    tokio::time::sleep(4 * HOUR).await;
    pause(&endpoint.node, 4 * HOUR).await;
    tell_the_time(&endpoint).await;
    let held = || {
        endpoint.node.credentials.store.tidy();
        endpoint.node.credentials.store.len()
    };
    assert_eq!(held(), 3);
    tokio::time::sleep(62 * MINUTE).await;
    assert_eq!(held(), 2);
}

/// Two other pods have AWS tell a node that was paused what time it is.
async fn tell_the_time(endpoint: &Endpoint) {
    for pod in [2, 3] {
        endpoint.ask(pod, &token(pod, Duration::ZERO, 24 * HOUR)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    assert_eq!(endpoint.node.clock.now().trust, Trust::Confirmed);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_outlived_its_renewal_is_not_served_into_its_last_minutes_after_a_pause() {
    let endpoint = Endpoint::with_clock_off_by(0);
    let node = &endpoint.node;
    let app = token(1, Duration::ZERO, 24 * HOUR);
    let ask = || endpoint.ask(1, &app);
    ask().await.unwrap();
    ask().await.unwrap();
    // The renewal brings a shorter life, so the first set is served on, and nothing renews it for a while.
    tokio::time::sleep(170 * MINUTE).await;
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: 2 * HOUR });
    tokio::time::sleep(11 * MINUTE).await;
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: 6 * HOUR });
    assert!(ask().await.unwrap().left > 2 * HOUR);
    // After that nine minutes are left.
    pause(node, 170 * MINUTE).await;
    tell_the_time(&endpoint).await;
    assert!(ask().await.unwrap().left > HOUR);
}
