//! The audit log: a line for each set that AWS issues, and what an auditor reads in it.

use std::collections::BTreeSet;

use sandbox::Sandbox;
use serde_json::Value;

use crate::harness::{Agent, Builder, eks_auth_calls, eventually, pod, sandbox};

const RETENTION: &str = "--max-credential-retention-before-renewal";

/// An agent that logs nothing else, in the format that is for people.
fn silent(builder: Builder) -> Builder {
    builder.switch("--audit-log").flag("--verbosity", "error").flag("--log-format", "text")
}

/// The whole lines of the audit log.
fn audit_lines(agent: &Agent) -> Vec<Value> {
    let log = agent.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| line.contains(r#""target":"audit""#));
    lines.map(|line| serde_json::from_str(line).expect("JSON, whatever the format of the log")).collect()
}

/// The same, as soon as there are so many.
async fn lines(agent: &Agent, at_least: usize) -> Vec<Value> {
    eventually("the lines of the audit log", async || audit_lines(agent).len() >= at_least).await;
    audit_lines(agent)
}

fn granted(sandbox: &Sandbox) -> Vec<Option<String>> {
    let calls = eks_auth_calls(sandbox).into_iter().filter(|call| call.status == Some(200));
    calls.map(|call| call.request_id).collect()
}

#[tokio::test]
async fn a_line_says_who_got_which_credentials_from_where_at_every_level_in_json_and_hits_have_none() {
    let sandbox = sandbox();
    let agent = silent(Builder::verifying(&sandbox)).start().await;
    let pod = pod(&sandbox, "app-0");
    let answer = agent.ask(&pod.token).await;
    for _ in 0..20 {
        assert_eq!(agent.ask(&pod.token).await.access_key_id(), answer.access_key_id());
    }
    // A later line would be a hit's.
    let other = crate::harness::pod(&sandbox, "app-1");
    assert_eq!(agent.ask(&other.token).await.status, 200);
    let lines = lines(&agent, 2).await;
    let [line, of_other] = lines.as_slice() else { panic!("a line for each of the two sets: {lines:?}") };
    assert_eq!(of_other["pod.name"], "app-1", "{of_other}");

    let json = answer.json();
    let id = granted(&sandbox)[0].clone().expect("AWS gives ids");
    let account = json["AccountId"].as_str().expect("an account");
    for (field, value) in [
        ("event", "issue"),
        ("kept", "cached"),
        ("source", "eks-auth"),
        ("cluster", "sandbox"),
        ("node", sandbox.node_name()),
        ("peer.addr", "127.0.0.1"),
        ("pod.namespace", "default"),
        ("pod.service_account", "app"),
        ("pod.name", "app-0"),
        ("pod.uid", &pod.uid),
        ("pod.node", &pod.node_name),
        ("granted.namespace", "default"),
        ("granted.service_account", "app"),
        ("account", account),
        ("access_key_id", &answer.access_key_id()),
        ("expiration", json["Expiration"].as_str().expect("a time")),
        ("aws.request_id", &id),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(line["verified"], true, "{line}");
    let text = |field: &str| line[field].as_str().expect("a text").to_owned();
    let (association, arn) = (text("association"), text("association_arn"));
    assert!(arn.ends_with(&format!("podidentityassociation/sandbox/{association}")), "{line}");
    let (role, session) = (text("role"), text("session_arn"));
    assert!(role.starts_with(&format!("arn:aws:sts::{account}:assumed-role/")), "{line}");
    assert!(session.starts_with(&format!("{role}/eks-sandbox-app-0")), "{line}");
    let others = agent.log().lines().any(|line| !line.contains(r#""target":"audit""#));
    assert!(!others, "--verbosity error: {}", agent.log());
}

#[tokio::test]
async fn each_renewal_is_one_line_and_every_access_key_that_was_served_has_one() {
    let sandbox = sandbox();
    let agent = silent(Builder::verifying(&sandbox)).flag(RETENTION, "1s").start().await;
    let token = pod(&sandbox, "app-0").token;
    let mut served = BTreeSet::new();
    eventually("two renewals", async || {
        served.insert(agent.ask(&token).await.access_key_id());
        served.len() >= 3
    })
    .await;
    // One more may be under way.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let mut lines = Vec::new();
    eventually("a line for each set", async || {
        lines = audit_lines(&agent);
        let ids: Vec<_> =
            lines.iter().map(|line| line["aws.request_id"].as_str().map(str::to_owned)).collect();
        ids == granted(&sandbox)
    })
    .await;
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().expect("a text")).collect();
    assert_eq!(events[0], "issue", "{events:?}");
    assert!(events[1..].iter().all(|event| *event == "renewal"), "{events:?}");
    let keys: BTreeSet<_> =
        lines.iter().filter_map(|line| Some(line["access_key_id"].as_str()?.to_owned())).collect();
    assert_eq!(keys.len(), lines.len(), "{lines:?}");
    assert!(keys.is_superset(&served), "{served:?} of {keys:?}");
    let pods: BTreeSet<_> = lines.iter().map(|line| line["pod.uid"].as_str()).collect();
    assert_eq!(pods.len(), 1, "{lines:?}");
}

#[tokio::test]
async fn what_an_unverified_token_says_is_written_as_a_claim_beside_what_aws_granted() {
    let sandbox = sandbox();
    let agent = silent(Builder::new(&sandbox)).start().await;
    let pod = pod(&sandbox, "app-0");
    let answer = agent.ask(&pod.token).await;
    let lines = lines(&agent, 1).await;
    let line = &lines[0];
    assert_eq!(line["verified"], false, "{line}");
    let claims = [("namespace", "default"), ("service_account", "app"), ("name", "app-0"), ("uid", &pod.uid)];
    for (field, value) in claims {
        assert_eq!(line[format!("claimed.{field}")], value, "{line}");
        assert_eq!(line[format!("pod.{field}")], Value::Null, "{line}");
    }
    assert_eq!(line["granted.service_account"], "app", "{line}");
    assert_eq!(line["access_key_id"], answer.access_key_id(), "{line}");
    assert_eq!(line["node"], Value::Null, "nobody said on which node it is: {line}");
}

#[tokio::test]
async fn there_is_no_audit_log_unless_it_is_switched_on() {
    let sandbox = sandbox();
    for (value, lines) in [(None, 0), (Some("--audit-log=false"), 0), (Some("--audit-log=true"), 1)] {
        let builder = Builder::new(&sandbox).flag("--verbosity", "info");
        let agent = value.into_iter().fold(builder, Builder::switch).start().await;
        assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
        // It is written after the audit log's.
        eventually("the access log", async || agent.log().contains("credentials requested")).await;
        assert_eq!(audit_lines(&agent).len(), lines, "{value:?}: {}", agent.log());
    }
}
