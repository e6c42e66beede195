//! The trial call: an agent that could give no pod credentials is not ready, says why, and serves all the
//! while.

use std::time::Duration;

use sandbox::{Effect, Fault, MissingAssociation, PodSpec, Sandbox, Service, Switches};
use tokio::time::{Instant, sleep};

use crate::harness::{Agent, Answer, Builder, eks_auth_calls, eventually, failing, heal, pod, sandbox};

const TRIAL: &str = r#"pod_identity_agent_condition{condition="trial-call"}"#;
const DENIED: &str =
    r#"pod_identity_agent_upstream_calls_total{source="eks-auth",outcome="own_credentials_rejected"}"#;
/// The longest pause before it asks again at first is 20 s; 60 s later.
const ASKED_AGAIN: Duration = Duration::from_secs(25);

/// A pod of the agent's own, for which there is no association.
fn own(sandbox: &Sandbox) -> sandbox::Pod {
    let spec = PodSpec {
        namespace: "kube-system".to_owned(),
        service_account: "pod-identity-agent".to_owned(),
        pod: "pod-identity-agent-x7k2p".to_owned(),
    };
    sandbox.pod(spec).unwrap()
}

/// An agent that makes a trial call with the token of this file.
pub(crate) fn trying(sandbox: &Sandbox) -> Builder {
    let file = own(sandbox).token_file;
    Builder::new(sandbox).flag("--trial-token-file", file.to_str().unwrap())
}

async fn ready(agent: &Agent) -> Answer {
    agent.probe("/readyz").await.unwrap()
}

/// What the condition says of itself.
fn of_trial(page: &str) -> Option<String> {
    let page: serde_json::Value = serde_json::from_str(page).ok()?;
    let conditions = page["conditions"].as_array()?;
    let trial = conditions.iter().find(|condition| condition["name"] == "trial-call")?;
    trial["reason"].as_str().map(str::to_owned)
}

async fn until_unready_for(agent: &Agent, words: &str) -> String {
    eventually(words, async || {
        let says = |page: &Answer| of_trial(&page.body).is_some_and(|reason| reason.contains(words));
        agent.probe("/readyz").await.is_ok_and(|page| page.status == 503 && says(&page))
    })
    .await;
    of_trial(&ready(agent).await.body).expect("the condition")
}

async fn ready_within(agent: &Agent, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        if agent.probe("/readyz").await.is_ok_and(|ready| ready.status == 200) {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

fn told(agent: &Agent, sentence: &str) -> Vec<String> {
    let log = agent.log();
    log.lines().filter(|line| line.contains(sentence) && line.contains("warn")).map(str::to_owned).collect()
}

fn saying(status: u16, code: &str, message: &str) -> Fault {
    let (code, message) = (code.to_owned(), message.to_owned());
    Fault::new(Service::EksAuth, Effect::Status { status, code, message })
}

#[tokio::test]
async fn without_an_association_of_its_own_the_agent_is_ready_at_once_whatever_that_is_called() {
    for code in [MissingAssociation::ResourceNotFound, MissingAssociation::AccessDenied] {
        let sandbox = sandbox();
        sandbox.set_switches(Switches { missing_association: code, ..Switches::default() });
        let began = Instant::now();
        let agent = trying(&sandbox).start().await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(agent.metric(TRIAL).await, 1);
        assert_eq!(eks_auth_calls(&sandbox).len(), 1);
        assert!(told(&agent, "trial call").is_empty(), "{}", agent.log());
    }
}

#[tokio::test]
async fn with_an_association_of_its_own_nothing_of_it_is_kept_or_served() {
    let sandbox = sandbox();
    let file = pod(&sandbox, "agent").token_file;
    let agent = Builder::new(&sandbox).flag("--trial-token-file", file.to_str().unwrap()).start().await;
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
    // Its own token earns another set, as for any pod.
    assert_eq!(agent.ask(&std::fs::read_to_string(&file).unwrap()).await.status, 200);
    assert_eq!(eks_auth_calls(&sandbox).len(), 2);
}

#[tokio::test]
async fn a_wrong_cluster_name_keeps_it_unready_until_there_is_such_a_cluster() {
    let sandbox = sandbox();
    sandbox.faults().set([saying(404, "ResourceNotFoundException", "No cluster found for name: sandbox.")]);
    let agent = trying(&sandbox).spawn();
    let reason = until_unready_for(&agent, "No cluster found").await;
    for word in [
        "ResourceNotFoundException",
        "request id",
        "cluster sandbox",
        "instance role",
        "clusterName of the chart",
    ] {
        assert!(reason.contains(word), "{word} is not in {reason}");
    }
    assert_eq!(agent.metric(TRIAL).await, 0);
    let told = told(&agent, "AWS refuses the agent's trial call");
    assert_eq!(told.len(), 1, "{told:?}");
    for word in
        ["ResourceNotFoundException", "No cluster found", "aws.request_id", "cluster sandbox", "own.source"]
    {
        assert!(told[0].contains(word), "{word} is not in {told:?}");
    }
    heal(&sandbox);
    assert!(ready_within(&agent, ASKED_AGAIN).await, "{}", ready(&agent).await.body);
    assert_eq!(agent.metric(TRIAL).await, 1);
}

#[tokio::test]
async fn a_cluster_that_aws_does_not_know_is_found_by_its_words_and_only_by_them() {
    let sandbox = sandbox();
    let wrong = trying(&sandbox).flag("--cluster-name", "sandbx").spawn();
    let reason = until_unready_for(&wrong, "No cluster found for name: sandbx").await;
    assert!(reason.contains("correct the cluster's name"), "{reason}");
    // The same code and status, in words that blame nobody: they may as well be of the association.
    sandbox.faults().set([saying(404, "ResourceNotFoundException", "Not found")]);
    trying(&sandbox).flag("--cluster-name", "sandbx").start().await;
}

#[tokio::test]
async fn a_token_of_another_cluster_than_the_one_that_is_named_keeps_it_unready() {
    let (sandbox, other) = (sandbox(), sandbox());
    let file = own(&other).token_file;
    let agent = Builder::new(&sandbox).flag("--trial-token-file", file.to_str().unwrap()).spawn();
    let reason = until_unready_for(&agent, "InvalidTokenException").await;
    assert!(reason.contains("perhaps another cluster's"), "{reason}");
}

#[tokio::test]
async fn a_node_role_without_its_permission_keeps_it_unready_and_pods_are_served_as_soon_as_it_has_it() {
    let sandbox = sandbox();
    sandbox.set_switches(Switches { node_role_denied: true, ..Switches::default() });
    let agent = trying(&sandbox).spawn();
    let words = "is not authorized to perform: eks-auth:AssumeRoleForPodIdentity";
    let reason = until_unready_for(&agent, words).await;
    for word in ["403 AccessDeniedException", "request id", "cluster sandbox", "allow eks-auth:Assume"] {
        assert!(reason.contains(word), "{word} is not in {reason}");
    }
    assert_eq!(agent.metric(TRIAL).await, 0);
    assert!(agent.metric(DENIED).await >= 1, "{}", agent.metrics().await);
    let logged = told(&agent, words).iter().filter(|line| line.contains("aws.code")).count();
    assert_eq!(logged, 1, "{}", agent.log());
    // Pods are answered all the while, and what one of them is granted settles it before the next trial.
    sandbox.set_switches(Switches::default());
    let token = pod(&sandbox, "app-0").token;
    assert_eq!(agent.ask(&token).await.status, 200);
    assert!(ready_within(&agent, Duration::from_secs(2)).await, "{}", ready(&agent).await.body);
}

#[tokio::test]
async fn the_right_that_is_given_later_makes_it_ready_without_a_restart() {
    let sandbox = sandbox();
    sandbox.set_switches(Switches { node_role_denied: true, ..Switches::default() });
    let agent = trying(&sandbox).spawn();
    until_unready_for(&agent, "is not authorized to perform").await;
    sandbox.set_switches(Switches::default());
    assert!(ready_within(&agent, ASKED_AGAIN).await, "{}", ready(&agent).await.body);
}

#[tokio::test]
async fn an_aws_that_gives_no_answer_holds_it_up_for_ten_seconds() {
    let effects = [
        failing(500, "InternalServerException"),
        failing(429, "ThrottlingException"),
        Effect::Refuse,
        Effect::Hang,
    ];
    let waits = effects.map(async |effect| {
        let sandbox = sandbox();
        sandbox.faults().set([Fault::new(Service::EksAuth, effect.clone())]);
        let agent = trying(&sandbox).spawn();
        eventually("it has its own credentials", async || {
            agent.log().contains("the agent's own AWS credentials are loaded")
        })
        .await;
        let began = Instant::now();
        let is_early = ready_within(&agent, Duration::from_secs(9)).await;
        assert!(!is_early, "{effect:?}: {:?}", began.elapsed());
        let is_in_time = ready_within(&agent, Duration::from_secs(4)).await;
        assert!(is_in_time, "{effect:?}: {}", ready(&agent).await.body);
        let reason = ready(&agent).await.body;
        assert!(reason.contains("had no answer to go by in 10 s"), "{reason}");
        assert!(eks_auth_calls(&sandbox).len() <= 8, "{}", eks_auth_calls(&sandbox).len());
    });
    let [fails, throttles, refuses, hangs] = waits;
    tokio::join!(fails, throttles, refuses, hangs);
}

#[tokio::test]
async fn an_agent_that_was_ready_stays_so_and_asks_nothing_more() {
    let sandbox = sandbox();
    let agent = trying(&sandbox).start().await;
    sandbox.set_switches(Switches { node_role_denied: true, ..Switches::default() });
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 503);
    sleep(ASKED_AGAIN).await;
    assert_eq!(ready(&agent).await.status, 200);
    assert!(
        eks_auth_calls(&sandbox)
            .iter()
            .skip(1)
            .all(|call| { call.pod.as_ref().is_none_or(|pod| pod.service_account == "app") })
    );
}

#[tokio::test]
async fn without_the_flag_or_its_file_or_eks_auth_it_is_left_out() {
    let sandbox = sandbox();
    sandbox.set_switches(Switches { node_role_denied: true, ..Switches::default() });
    let off = Builder::new(&sandbox).flag("--trial-token-file", "").start().await;
    assert!(!off.metrics().await.contains("trial-call"));
    let missing = Builder::new(&sandbox).flag("--trial-token-file", "/no/such/file").start().await;
    assert!(ready(&missing).await.body.contains("/no/such/file"), "{}", ready(&missing).await.body);
    assert_eq!(told(&missing, "/no/such/file").len(), 1, "{}", missing.log());
    assert!(eks_auth_calls(&sandbox).is_empty());
}

#[tokio::test]
async fn the_file_is_read_anew_for_each_try() {
    let (sandbox, other) = (sandbox(), sandbox());
    let file = sandbox.dir().join("own-token");
    std::fs::copy(own(&other).token_file, &file).unwrap();
    let agent = Builder::new(&sandbox).flag("--trial-token-file", file.to_str().unwrap()).spawn();
    until_unready_for(&agent, "InvalidTokenException").await;
    std::fs::copy(own(&sandbox).token_file, &file).unwrap();
    assert!(ready_within(&agent, ASKED_AGAIN).await, "{}", ready(&agent).await.body);
}

#[tokio::test]
async fn its_token_is_in_no_output_though_aws_quotes_it() {
    let sandbox = sandbox();
    let own = own(&sandbox);
    let quoting = format!("No cluster found for {}, {}", own.token, &own.token[40..120]);
    sandbox.faults().set([saying(404, "ResourceNotFoundException", &quoting)]);
    let agent = Builder::new(&sandbox).flag("--trial-token-file", own.token_file.to_str().unwrap()).spawn();
    until_unready_for(&agent, "No cluster found").await;
    let shown = agent.log() + &ready(&agent).await.body + &agent.metrics().await;
    assert!(shown.contains("[redacted]"), "{shown}");
    let mut pieces = own.token.as_bytes().windows(16).filter_map(|piece| str::from_utf8(piece).ok());
    assert_eq!(pieces.find(|piece| shown.contains(piece)), None);
}
