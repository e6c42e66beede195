//! The audit log: a line for each set that AWS issues, also for one that nobody is served, and none for what
//! is served from memory.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde_json::Value;

use super::aws::Mood;
use super::names::{claimed, verified};
use super::{HOUR, MINUTE, Node};
use crate::config::Retention;
use crate::credentials::provider::CredentialRequest;
use crate::telemetry::logging::tests::Logged;
use crate::workload::{PresentedToken, Principal};

/// The lines of the audit log.
fn lines(logged: &Logged) -> Vec<Value> {
    let all = logged.text();
    let all = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["target"] == "audit").collect()
}

/// `event`, `kept` and the key of each line.
fn told(logged: &Logged) -> Vec<[String; 3]> {
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    lines(logged)
        .iter()
        .map(|line| ["event", "kept", "access_key_id"].map(|field| text(line, field)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_issue_is_a_line_with_all_that_is_known_and_no_secret() {
    let (node, logged) = (Node::new(), Logged::from_now_on());
    // The association is named after it.
    node.aws.are_of_one_pod(&["one", "a.first.c"]);
    node.ask_as(&verified(&node, 1, "a.first.c")).await.unwrap();
    let [line] = lines(&logged).try_into().unwrap();
    for (field, value) in [
        ("level", "info"),
        ("msg", "credentials issued"),
        ("event", "issue"),
        ("kept", "cached"),
        ("source", "eks-auth"),
        ("cluster", "cluster"),
        ("node", "node-1"),
        ("peer.addr", "10.0.0.1"),
        ("pod.namespace", "ns"),
        ("pod.service_account", "sa"),
        ("pod.name", "p"),
        ("pod.uid", "pod-1"),
        ("granted.namespace", "namespace"),
        ("granted.service_account", "app"),
        ("association", "a-one"),
        ("association_arn", "arn"),
        ("role", "arn:aws:sts::111122223333:assumed-role/r"),
        ("session_arn", "arn:aws:sts::111122223333:assumed-role/r/s"),
        ("account", "111122223333"),
        ("access_key_id", "ASIA000000"),
        ("expiration", "2027-01-15T14:00:00Z"),
        ("aws.request_id", "00000000-0000-4000-8000-000000000000"),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(line["verified"], true);
    for field in ["pod.node", "claimed.name"] {
        assert_eq!(line[field], Value::Null, "what is not known is not there");
    }
    let line = line.to_string();
    assert!(!["planted", "a.first.c", "node-secret"].iter().any(|secret| line.contains(secret)), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_written_as_a_claim_and_a_proven_pod_as_one_also_where_its_times_are_in_doubt() {
    let (node, logged) = (Node::new(), Logged::from_now_on());
    node.ask_as(&claimed(&node, 1, "a.first.c")).await.unwrap();
    // Its source judges it under the name of its token.
    let (by_token, by_key) = (claimed(&node, 2, "a.second.c"), verified(&node, 2, "a.second.c"));
    let principal = Principal { caller: by_key.principal.caller.clone(), ..by_token.principal.clone() };
    node.ask_as(&CredentialRequest { principal, must_be_judged: true, ..by_token }).await.unwrap();
    let [claim, untimely] = lines(&logged).try_into().unwrap();
    assert_eq!(
        (&claim["verified"], &claim["claimed.uid"], &claim["pod.uid"]),
        (&false.into(), &"pod-1".into(), &Value::Null)
    );
    assert_eq!(
        (&claim["claimed.namespace"], &claim["claimed.service_account"], &claim["claimed.name"]),
        (&"ns".into(), &"sa".into(), &"p".into())
    );
    assert_eq!(
        (&untimely["verified"], &untimely["pod.uid"], &untimely["claimed.uid"]),
        (&true.into(), &"pod-2".into(), &Value::Null)
    );
}

#[tokio::test(start_paused = true)]
async fn renewals_are_lines_hits_and_those_who_wait_for_the_same_call_are_not() {
    let (node, logged) = (Node::new(), Logged::from_now_on());
    let request = verified(&node, 1, "a.first.c");
    let (one, other) = tokio::join!(node.ask_as(&request), node.ask_as(&request));
    assert_eq!(one.unwrap().access_key_id, other.unwrap().access_key_id);
    for _ in 0..5 {
        node.ask_as(&request).await.unwrap();
    }
    assert_eq!(told(&logged).len(), 1);
    // By the schedule: it is due at half of six hours.
    tokio::time::sleep(3 * HOUR + MINUTE).await;
    let [issue, renewal] = told(&logged).try_into().unwrap();
    assert_eq!(issue, ["issue", "cached", "ASIA000000"]);
    assert_eq!(renewal, ["renewal", "cached", "ASIA000001"]);
    let peers =
        |logged: &Logged| lines(logged).iter().map(|line| line["peer.addr"].clone()).collect::<Vec<_>>();
    assert_eq!(peers(&logged), [Value::from("10.0.0.1"), Value::Null], "nobody asked for the second");
    assert_ne!(lines(&logged)[0]["call.id"], lines(&logged)[1]["call.id"]);
    assert_eq!(node.ask_as(&request).await.unwrap().access_key_id, "ASIA000001");
    assert_eq!(told(&logged).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_a_request_led_to_has_its_peer_and_one_after_the_end_of_the_set_is_an_issue() {
    let (node, logged) = (Node::new(), Logged::from_now_on());
    let request = verified(&node, 1, "a.first.c");
    node.ask_as(&request).await.unwrap();
    // Its renewals fail; then a request comes, and AWS is back.
    node.aws.be(Mood::Says(503, "ServiceUnavailableException"));
    tokio::time::sleep(4 * HOUR + 30 * MINUTE).await;
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: 6 * HOUR });
    node.ask_as(&request).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    let last = lines(&logged).pop().unwrap();
    assert_eq!((&last["event"], &last["peer.addr"]), (&"renewal".into(), &"10.0.0.1".into()));
    // Nobody asks for it any more, and its pod comes back when it is over.
    tokio::time::sleep(24 * HOUR).await;
    let before = told(&logged).len();
    let later = PresentedToken { expires: node.clock.now().wall + HOUR, ..request.token.clone() };
    node.ask_as(&CredentialRequest { token: later, ..request }).await.unwrap();
    assert_eq!(told(&logged)[before][0], "issue");
}

#[tokio::test(start_paused = true)]
async fn a_line_says_whether_the_set_is_cached_given_once_or_given_to_nobody() {
    let logged = Logged::from_now_on();
    let node = Node::keeping(&Retention::Off);
    for _ in 0..2 {
        node.ask(1).await.unwrap();
    }
    let told_of_none: Vec<_> = told(&logged).into_iter().map(|[event, kept, _]| [event, kept]).collect();
    assert_eq!(told_of_none, [["issue", "not_cached"], ["issue", "not_cached"]]);

    let logged = Logged::from_now_on();
    let node = Node::new();
    let request = verified(&node, 1, "a.first.c");
    let first = node.ask_as(&request).await.unwrap().access_key_id;
    // What comes at the renewal lives less long than what is there.
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: HOUR });
    tokio::time::sleep(3 * HOUR + MINUTE).await;
    let [_, [event, kept, key]] = told(&logged).try_into().unwrap();
    assert_eq!([event.as_str(), kept.as_str()], ["renewal", "discarded"]);
    let served = node.ask_as(&request).await.unwrap().access_key_id;
    assert_eq!(served, first);
    assert_ne!(served, key);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_of_what_made_room_meanwhile_is_given_to_nobody_and_has_its_line() {
    let max_identities = NonZeroUsize::MIN;
    let node = Node::keeping(&Retention::Keep { renew_after: 3 * HOUR, max_identities });
    let logged = Logged::from_now_on();
    node.ask(1).await.unwrap();
    node.ask(1).await.unwrap();
    // The renewal of the first takes a second, and the second pod comes meanwhile.
    node.aws.be_to(1, Mood::Issues { after: Duration::from_secs(1), life: 6 * HOUR });
    while node.aws.calls_of(1) < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.ask(2).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    let kept: Vec<_> = told(&logged).into_iter().map(|[event, kept, _]| [event, kept]).collect();
    assert_eq!(kept, [["issue", "cached"], ["issue", "cached"], ["renewal", "discarded"]]);
}
