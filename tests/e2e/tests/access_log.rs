//! What the log says of a request: who asked, whether that was verified, and which call it waited for.

use serde_json::Value;

use crate::harness::{Agent, Builder, eventually, failing, pod, sandbox, slow};
use sandbox::{Fault, Service};

/// The lines of the log with this message, as soon as there are so many: a line is written after the answer.
async fn lines(agent: &Agent, message: &str, at_least: usize) -> Vec<Value> {
    let mut found = Vec::new();
    eventually(message, async || {
        let log = agent.log();
        // The last one may be half a line yet.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("one JSON a line"));
        found = lines.filter(|line| line["msg"] == message).collect();
        found.len() >= at_least
    })
    .await;
    found
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["call.id"].as_str()).collect()
}

#[tokio::test]
async fn a_verified_pod_is_named_as_a_pod_and_an_unverified_one_as_a_claim() {
    for is_verifying in [true, false] {
        let sandbox = sandbox();
        let builder = if is_verifying { Builder::verifying(&sandbox) } else { Builder::new(&sandbox) };
        let agent = builder.flag("--verbosity", "info").start().await;
        assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
        let (named, other) = if is_verifying { ("pod", "claimed") } else { ("claimed", "pod") };
        let lines = lines(&agent, "credentials requested", 1).await;
        for (field, value) in [("namespace", "default"), ("service_account", "app"), ("name", "app-0")] {
            assert_eq!(lines[0][format!("{named}.{field}")], value, "{}", lines[0]);
            assert_eq!(lines[0][format!("{other}.{field}")], Value::Null, "{}", lines[0]);
        }
    }
}

#[tokio::test]
async fn a_refused_token_is_logged_with_what_it_claims() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).flag("--verbosity", "info").start().await;
    let token = pod(&sandbox, "app-0").token;
    let (signed, _signature) = token.rsplit_once('.').expect("a token has three parts");
    assert_eq!(agent.ask(&format!("{signed}.AAAA")).await.status, 400);
    let lines = lines(&agent, "credentials requested", 1).await;
    assert_eq!(lines[0]["claimed.name"], "app-0", "{}", lines[0]);
    assert_eq!(lines[0]["cause"], "token_forged", "{}", lines[0]);
    assert_eq!(lines[0]["pod.name"], Value::Null, "{}", lines[0]);
}

#[tokio::test]
async fn the_lines_of_a_call_and_of_all_who_waited_for_it_carry_its_id() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let (one, other) = (pod(&sandbox, "app-0").token, pod(&sandbox, "app-1").token);
    sandbox.faults().set([slow(300)]);
    tokio::join!(agent.ask(&one), agent.ask(&one), agent.ask(&one), agent.ask(&other));
    let issued = lines(&agent, "credentials issued", 2).await;
    let requested = lines(&agent, "credentials requested", 4).await;
    let (calls, waiters) = (ids(&issued), ids(&requested));
    assert_eq!((calls.len(), waiters.len()), (2, 4), "{issued:?}\n{requested:?}");
    assert_ne!(calls[0], calls[1]);
    let count = |id: &&str| waiters.iter().filter(|waiter| *waiter == id).count();
    let mut counts: Vec<usize> = calls.iter().map(count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 3]);
}

#[tokio::test]
async fn a_client_that_waited_in_vain_is_logged_with_the_call_that_failed() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    sandbox.faults().set([Fault::new(Service::EksAuth, failing(503, "ServiceUnavailableException"))]);
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 503);
    let requested = lines(&agent, "credentials requested", 1).await;
    let attempts = lines(&agent, "an attempt failed", 1).await;
    assert!(attempts.len() > 1, "it was tried again: {attempts:?}");
    let (attempts, requested) = (ids(&attempts), ids(&requested));
    assert_eq!(requested.len(), 1);
    assert!(attempts.iter().all(|id| *id == requested[0]), "{attempts:?} {requested:?}");
}
