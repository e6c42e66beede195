//! STS fails, throttles or refuses: what pods with roles notice of it, and that EKS Auth has no part in it
//! (invariants 3, 5 and 7).

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::aws::Mood;
use super::names::verified;
use super::roles::{READER, for_role, issuing};
use super::{HOUR, MINUTE, Node};
use crate::credentials::provider::CredentialRequest;
use crate::events::{Names, Reason, Report};
use crate::workload::Source;

const SECOND: Duration = Duration::from_secs(1);

/// All that STS may answer instead of a set, with the label of the error that a pod without one gets.
const TROUBLE: [(Mood, &str); 13] = [
    (Mood::Says(403, "AccessDenied"), "AccessDenied"),
    (Mood::Says(403, "RegionDisabledException"), "RegionDisabledException"),
    (Mood::Says(400, "PackedPolicyTooLarge"), "PackedPolicyTooLarge"),
    (Mood::Says(403, "IDPRejectedClaim"), "IDPRejectedClaim"),
    (Mood::Says(400, "InvalidIdentityToken"), "InvalidIdentityToken"),
    (Mood::Says(400, "ExpiredTokenException"), "ExpiredTokenException"),
    (Mood::Says(400, "ValidationError"), "ValidationError"),
    (Mood::Says(400, "IDPCommunicationError"), "issuer_unreadable"),
    (Mood::Says(400, "Throttling"), "throttled"),
    (Mood::Says(503, "ServiceUnavailable"), "server_error"),
    (Mood::Page { status: 403, body: "<html>blocked</html>", has_request_id: false }, "unreadable"),
    (Mood::Refuses, "connection"),
    (Mood::Hangs, "timeout"),
];

fn app(node: &Node, pod: usize) -> CredentialRequest {
    for_role(node, pod, &format!("a.sts-{pod}.c"), READER)
}

#[tokio::test(start_paused = true)]
async fn a_set_is_served_to_its_expiry_whatever_sts_says_and_a_pod_without_one_is_told_what() {
    for (trouble, label) in TROUBLE {
        let node = Node::new();
        node.sts.be(issuing(HOUR));
        let key = node.key_for(&app(&node, 1)).await;
        node.sts.be(trouble);
        let (mut slowest, began) = (Duration::ZERO, Instant::now());
        while began.elapsed() < HOUR - 20 * SECOND {
            let before = Instant::now();
            assert_eq!(node.key_for(&app(&node, 1)).await, key, "{trouble:?}");
            slowest = slowest.max(before.elapsed());
            sleep(5 * SECOND).await;
        }
        assert!(slowest <= Duration::from_millis(310), "{trouble:?}: held for {slowest:?}");
        assert!(node.sts.calls() > 2, "{trouble:?}: it was tried");
        sleep(MINUTE).await;
        for pod in [1, 2] {
            let error = node.ask_as(&app(&node, pod)).await.unwrap_err();
            // What hangs is merely slow at first.
            let told = error.map_or("timeout", |error| error.label());
            assert_eq!(told, label, "{trouble:?}");
        }
        assert_eq!(node.aws.calls(), 0, "nothing falls back to EKS Auth");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_sts_does_not_accept_renews_nothing_until_a_newer_one_comes() {
    let node = Node::new();
    node.sts.be(issuing(HOUR));
    let old = app(&node, 1);
    let key = node.key_for(&old).await;
    node.sts.be_to_token("a.sts-1.c", Mood::Says(400, "InvalidIdentityToken"));
    let began = Instant::now();
    while began.elapsed() < 50 * MINUTE {
        assert_eq!(node.key_for(&old).await, key);
        sleep(SECOND).await;
    }
    let calls = node.sts.calls_with("a.sts-1.c") - 1;
    assert!((2..=15).contains(&calls), "two minutes apart: {calls}");
    let mut newer = for_role(&node, 1, "a.newer.c", READER);
    newer.token.expires += HOUR;
    // At once, though the pause of the old one is not over.
    node.ask_as(&newer).await.unwrap();
    sleep(SECOND).await;
    assert_ne!(node.key_for(&newer).await, key);
    assert_eq!(node.sts.calls_with("a.newer.c"), 1);
}

/// IAM needs some seconds until a new role can be assumed.
#[tokio::test(start_paused = true)]
async fn a_role_that_cannot_be_assumed_yet_is_asked_for_again_for_a_young_pod_and_a_bad_token_is_not() {
    for (code, status, age, mends, tries) in [
        ("AccessDenied", 403, SECOND, true, 2..=5),
        ("AccessDenied", 403, 2 * MINUTE, false, 1..=1),
        ("InvalidIdentityToken", 400, SECOND, false, 1..=1),
        ("ValidationError", 400, SECOND, false, 1..=1),
    ] {
        let node = Node::new();
        node.sts.be(Mood::Says(status, code));
        let mut young = app(&node, 1);
        young.token.issued = Some(node.time_at_start() - age);
        let mended = async {
            sleep(2 * SECOND).await;
            node.sts.be(issuing(HOUR));
        };
        let (answer, ()) = tokio::join!(node.ask_as(&young), mended);
        assert_eq!(answer.is_ok(), mends, "{code}, {age:?}: {answer:?}");
        assert!(tries.contains(&node.sts.calls()), "{code}, {age:?}: {} calls", node.sts.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn sts_that_throttles_halves_its_own_budget_and_slows_nobody_at_eks_auth() {
    let node = Node::new();
    node.sts.be(Mood::Throttles { above: 2, after: Duration::from_millis(100) });
    let mut asking = JoinSet::new();
    for pod in 0..60 {
        let node = node.clone();
        asking.spawn(async move {
            let is_of_sts = pod % 2 == 0;
            let request =
                if is_of_sts { app(&node, pod) } else { verified(&node, pod, &format!("a.{pod}.c")) };
            let (began, is_served) = (Instant::now(), node.ask_as_boto3_for(&request).await);
            (is_of_sts, is_served, began.elapsed())
        });
    }
    sleep(SECOND).await;
    let numbers = node.credentials.budgets.numbers();
    let [(Source::EksAuth, of_eks_auth), (Source::WebIdentity, of_sts)] = numbers[..] else {
        panic!("{numbers:?}")
    };
    assert!(of_sts.limit < 8 && of_eks_auth.limit >= 8, "{of_sts:?} and {of_eks_auth:?}");
    let in_flight = Source::ALL.map(|source| node.credentials.flights.to(source));
    assert!(in_flight[0] == 0 && in_flight[1] > 0, "{in_flight:?}");
    for (is_of_sts, is_served, took) in asking.join_all().await {
        assert!(is_served, "within boto3's three tries");
        assert!(is_of_sts || took < SECOND, "a pod of EKS Auth waited for {took:?}");
    }
    assert_eq!(node.aws.calls(), 30);
    assert!(node.sts.calls() < 3 * 30, "{} calls for 30 pods", node.sts.calls());
}

#[tokio::test(start_paused = true)]
async fn that_eks_auth_answers_ends_no_pause_of_sts_and_that_sts_answers_does() {
    let node = Node::new();
    node.sts.be(issuing(HOUR));
    node.key_for(&app(&node, 1)).await;
    sleep(20 * MINUTE).await;
    node.sts.be(Mood::Refuses);
    // In the middle of its life, when nothing is done to find out.
    for second in 0..(12 * 60) {
        node.key_for(&app(&node, 1)).await;
        node.ask(1_000 + second).await.unwrap();
        sleep(SECOND).await;
    }
    let calls = node.sts.calls() - 1;
    assert!((3..20).contains(&calls), "{calls} calls in the outage");
    node.sts.be(issuing(HOUR));
    node.key_for(&app(&node, 2)).await;
    let back = Instant::now();
    while node.ask_as(&app(&node, 1)).await.unwrap().left < 50 * MINUTE {
        sleep(SECOND / 10).await;
    }
    assert!(back.elapsed() <= Duration::from_millis(5_500), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_sts_says_of_role_and_provider_is_an_event_that_names_both_and_nothing_else_is() {
    let names = Names { cluster: "cluster".into(), node: "node-1".into() };
    // What the note advises, by what STS says.
    let advice = |label| match label {
        "AccessDenied" | "InvalidIdentityToken" => {
            Some("audience sts.amazonaws.com, and the role's trust policy")
        }
        "RegionDisabledException" => Some("STS is not active in this region"),
        "PackedPolicyTooLarge" => Some("too large"),
        "IDPRejectedClaim" => Some("rejects the token"),
        "ValidationError" => Some("the ARN"),
        "issuer_unreadable" => Some("/.well-known/openid-configuration"),
        _ => None,
    };
    for (trouble, label) in TROUBLE {
        let node = Node::with_pod(1);
        node.sts.be(trouble);
        let _refused = node.ask_as(&app(&node, 1)).await;
        // What may pass by itself is tried for longer than anyone waits.
        sleep(MINUTE).await;
        let mut reports = node.reports.lock();
        let reported: Vec<Report> = std::iter::from_fn(|| reports.try_recv().ok()).collect();
        let Some(advice) = advice(label) else {
            assert!(reported.is_empty(), "{label}: {reported:?}");
            continue;
        };
        let [Report { pod, problem }] = &reported[..] else { panic!("{label}: {reported:?}") };
        assert_eq!((&*pod.uid, problem.reason()), ("pod-1", Reason::RoleNotAssumable));
        let note = problem.note(pod, &names);
        let is_refusal = label != "issuer_unreadable";
        for part in [READER, "ns/sa", advice, if is_refusal { label } else { "" }] {
            assert!(note.contains(part), "{part}: {note}");
        }
    }
}
