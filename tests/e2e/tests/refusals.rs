//! What AWS refuses is told to admins in AWS's own words, and what is wrong on the way to it with its cause:
//! in the log, and as a condition.

use std::time::Duration;

use crate::harness::{Agent, Builder, eventually, pod, sandbox};

const GRANTS: &str = r#"pod_identity_agent_condition{condition="upstream-grants"}"#;
const REACHABLE: &str = r#"pod_identity_agent_condition{condition="upstream-reachable"}"#;

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

/// What is told of the way to AWS once one pod has asked.
async fn told_of_the_way(agent: &Agent, token: &str) -> Vec<String> {
    let unreached = || {
        let log = agent.log();
        let warnings = log.lines().filter(|line| line.contains(r#""level":"warn""#));
        warnings.filter(|line| line.contains("AWS gives no answer")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(agent.metric(REACHABLE).await, 1, "nothing was asked yet");
    assert_eq!(agent.ask(token).await.status, 503);
    assert_eq!(
        agent.probe("/readyz").await.unwrap().status,
        200,
        "an outage must not make every node unready"
    );
    eventually("it is told", async || !unreached().is_empty()).await;
    unreached()
}

#[tokio::test]
async fn a_dead_proxy_is_told_with_its_address_and_the_error_of_the_kernel() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox)
        .flag("--endpoint", "https://eks-auth.us-west-2.api.aws")
        .env("HTTPS_PROXY", "http://user:planted@127.0.0.1:1");
    let agent = agent.start().await;
    let told = told_of_the_way(&agent, &pod(&sandbox, "app-0").token).await;
    assert_eq!(told.len(), 1, "once a minute and cause: {told:?}");
    let words = [
        "us-west-2",
        "cluster sandbox",
        "eks-auth.us-west-2.api.aws:443 through the proxy 127.0.0.1:1",
        "the TCP connection failed",
        "Connection refused (os error 111)",
    ];
    for word in words {
        assert!(told[0].contains(word), "{word} is not in the log: {told:?}");
    }
    assert!(!agent.log().contains("planted"), "{}", agent.log());
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_and_an_answer_of_another_service_are_told_with_their_cause() {
    let sandbox = sandbox();
    let no_tls = sandbox.eks_auth_url().replace("http:", "https:");
    let path = format!("{}/prod", sandbox.eks_auth_url());
    for (endpoint, words) in
        [(&no_tls, ["TLS failed", "InvalidContentType"]), (&path, ["status 404", "EKS Auth"])]
    {
        let agent = Builder::new(&sandbox).flag("--endpoint", endpoint).start().await;
        let told = told_of_the_way(&agent, &pod(&sandbox, "app-0").token).await;
        assert_eq!(told.len(), 1, "once a minute and cause: {told:?}");
        for word in words {
            assert!(told[0].contains(word), "{word} is not in the log: {told:?}");
        }
    }
}
