//! What AWS refuses is told to admins in AWS's own words: in the log, and as a condition.

use std::time::Duration;

use crate::harness::{Agent, Builder, eventually, pod, sandbox};

const GRANTS: &str = r#"pod_identity_agent_condition{condition="upstream-grants"}"#;

/// The warnings about refusals.
fn told(agent: &Agent) -> Vec<String> {
    let log = agent.log();
    log.lines().filter(|line| line.contains("AWS refuses credentials for a pod")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_misspelt_cluster_name_is_told_with_all_that_finds_it() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).flag("--cluster-name", "sandbx").flag("--verbosity", "info");
    let agent = agent.start().await;
    assert_eq!(agent.metric(GRANTS).await, 1, "nothing was asked yet");
    let names = ["app-0", "app-1", "app-2"];
    let pods = names.map(|name| pod(&sandbox, name).token);
    let (first, second, third) = tokio::join!(agent.ask(&pods[0]), agent.ask(&pods[1]), agent.ask(&pods[2]));
    for answer in [first, second, third] {
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    eventually("the condition is unmet", async || agent.metric(GRANTS).await == 0).await;
    let told = told(&agent);
    assert_eq!(told.len(), 1, "once a minute and cause: {told:?}");
    let ready = agent.probe("/readyz").await.unwrap();
    assert_eq!(ready.status, 200, "one wrong setting must not make every node unready");
    let reason = ready.body.split("upstream-grants").nth(1).expect("the condition");
    let words = [
        "ResourceNotFoundException",
        "No cluster found for name: sandbx",
        "us-west-2",
        "cluster sandbx",
        "instance role ",
        "ASIA",
    ];
    for word in words {
        assert!(told[0].contains(word), "{word} is not in the log: {told:?}");
        assert!(reason.contains(word), "{word} is not in the condition: {reason}");
    }
    assert!(told[0].contains("aws.request_id") && reason.contains("request id "), "{told:?} {reason}");
}

#[tokio::test]
async fn one_pod_without_an_association_among_others_is_told_and_is_no_condition() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).flag("--verbosity", "info").start().await;
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    let spec = sandbox::PodSpec { service_account: "stranger".to_owned(), ..sandbox::PodSpec::default() };
    let stranger = sandbox.pod(spec).unwrap();
    assert_ne!(agent.ask(&stranger.token).await.status, 200);
    eventually("it is told", async || told(&agent).len() == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(agent.metric(GRANTS).await, 1);
}
