//! The agent's own credentials change while pods ask: every answer of AWS is about the set that signed.
//!
//! The numbers are those of the promise: 20 pods, EKS Auth answering in 250 ms, all served within 5 s of a
//! good set.

use std::path::Path;
use std::time::Duration;

use sandbox::{Effect, Fault, Sandbox, Service};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Agent, Builder, Request, eventually, failing, pod, sandbox, slow};

const HOUR: Duration = Duration::from_secs(3600);
const PODS: usize = 20;
/// How long EKS Auth takes to answer.
const ANSWER_MS: u64 = 250;
/// The promise.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// Twenty pods that ask as boto3 does, and start again, until each is served.
struct Crowd {
    pods: JoinSet<Result<Instant, String>>,
}

impl Crowd {
    fn start(sandbox: &Sandbox, agent: &Agent, name: &str) -> Self {
        let mut pods = JoinSet::new();
        for index in 0..PODS {
            let request = Request::credentials(&pod(sandbox, &format!("{name}-{index}")).token);
            let address = agent.address();
            pods.spawn(async move {
                let give_up = Instant::now() + Duration::from_secs(45);
                let mut last = String::new();
                while Instant::now() < give_up {
                    match tokio::time::timeout(Duration::from_secs(2), request.send(address)).await {
                        Ok(Ok(answer)) if answer.status == 200 => return Ok(Instant::now()),
                        Ok(Ok(answer)) => last = answer.body,
                        Ok(Err(error)) => last = error.to_string(),
                        Err(_) => last = "no answer within 2 s".to_owned(),
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(last)
            });
        }
        Self { pods }
    }

    /// All are served within [`SERVED_WITHIN`] of `good`.
    async fn assert_served_after(self, good: Instant) {
        let served = self.pods.join_all().await;
        let late: Vec<_> = served
            .iter()
            .filter_map(|pod| match pod {
                Ok(at) => at.checked_duration_since(good + SERVED_WITHIN).map(|by| format!("{by:?} late")),
                Err(last) => Some(format!("never: {last}")),
            })
            .collect();
        let last = served.iter().flatten().max().map(|at| at.saturating_duration_since(good));
        println!("the last of {PODS} pods was served {last:?} after the good set");
        assert!(late.is_empty(), "{} of {PODS} pods: {}", late.len(), late.join("\n"));
    }
}

fn rotating(sandbox: &Sandbox, path: &Path) -> Builder {
    Builder::new(sandbox)
        .flag("--rotate-credentials", "true")
        .env("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())
}

#[tokio::test]
async fn after_a_rotation_that_came_too_late_every_pod_is_served_within_five_seconds() {
    let sandbox = sandbox();
    let path = sandbox.credentials_file(&sandbox.node_credentials(HOUR)).unwrap();
    let agent = rotating(&sandbox, &path).start().await;
    assert_eq!(agent.ask(&pod(&sandbox, "before").token).await.status, 200);
    sandbox.expire_node_credentials(HOUR);
    sandbox.faults().set([slow(ANSWER_MS)]);
    let crowd = Crowd::start(&sandbox, &agent, "app");
    tokio::time::sleep(Duration::from_secs(4)).await;
    sandbox.credentials_file(&sandbox.node_credentials(HOUR)).unwrap();
    crowd.assert_served_after(Instant::now()).await;
}

#[tokio::test]
async fn one_rejection_after_a_rotation_does_not_cost_the_new_credentials() {
    for pods_before in [false, true] {
        let sandbox = sandbox();
        let path = sandbox.credentials_file(&sandbox.node_credentials(HOUR)).unwrap();
        let agent = rotating(&sandbox, &path).start().await;
        assert_eq!(agent.ask(&pod(&sandbox, "before").token).await.status, 200);
        sandbox.expire_node_credentials(HOUR);
        sandbox.credentials_file(&sandbox.node_credentials(HOUR)).unwrap();
        // The new file is read, and nobody has asked yet: the rejection is the first answer about it.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let once = Fault::new(Service::EksAuth, failing(403, "AccessDeniedException")).times(1);
        sandbox.faults().set([slow(ANSWER_MS), once]);
        if pods_before {
            let alone = agent.ask(&pod(&sandbox, "alone").token).await;
            assert_eq!(alone.status, 200, "{alone:?}");
        }
        Crowd::start(&sandbox, &agent, "app").assert_served_after(Instant::now()).await;
    }
}

#[tokio::test]
async fn when_imds_has_given_a_revoked_set_for_a_while_every_pod_is_served_within_five_seconds_of_a_good_one()
{
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    assert_eq!(agent.ask(&pod(&sandbox, "before").token).await.status, 200);
    sandbox.revoke_node_credentials();
    sandbox.faults().set([slow(ANSWER_MS)]);
    let crowd = Crowd::start(&sandbox, &agent, "app");
    tokio::time::sleep(Duration::from_secs(12)).await;
    sandbox.imds_catches_up();
    crowd.assert_served_after(Instant::now()).await;
}

#[tokio::test]
async fn a_rejection_is_told_with_the_words_of_aws_and_takes_no_readiness_away() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).flag("--verbosity", "info").start().await;
    assert_eq!(agent.ask(&pod(&sandbox, "before").token).await.status, 200);
    assert!(!agent.probe("/readyz").await.unwrap().body.contains("AccessDenied"));
    let denied = Effect::Status {
        status: 403,
        code: "AccessDeniedException".to_owned(),
        // Without AWS's sentence too it must be clear whose permissions are missing.
        message: "The caller is not authorized".to_owned(),
    };
    sandbox.faults().set([Fault::new(Service::EksAuth, denied)]);
    let answer = agent.ask(&pod(&sandbox, "app-0").token).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("is not authorized"), "{answer:?}");
    let ready = agent.probe("/readyz").await.unwrap();
    assert_eq!(ready.status, 200, "{ready:?}");
    let words = [
        "upstream-accepts-us",
        "AccessDeniedException",
        "is not authorized",
        "request id",
        "us-west-2",
        "ASIA",
        "instance role sandbox-node",
    ];
    for word in words {
        assert!(ready.body.contains(word), "{word} is missing: {ready:?}");
    }
    assert_eq!(agent.metric(r#"pod_identity_agent_condition{condition="upstream-accepts-us"}"#).await, 0);
    let log = agent.log();
    let told: Vec<_> =
        log.lines().filter(|line| line.contains("AWS rejects the agent's own credentials")).collect();
    assert_eq!(told.len(), 1, "once a minute: {told:?}");
    for word in
        ["is not authorized", "AccessDeniedException", "instance role sandbox-node", "cluster sandbox"]
    {
        assert!(told[0].contains(word), "{word} is missing: {told:?}");
    }
    sandbox.faults().clear();
    eventually("it is served", async || agent.ask(&pod(&sandbox, "app-1").token).await.status == 200).await;
    eventually("the condition is met", async || {
        agent.metric(r#"pod_identity_agent_condition{condition="upstream-accepts-us"}"#).await == 1
    })
    .await;
}

#[tokio::test]
async fn a_file_named_by_its_variable_is_used_and_looked_for_every_second() {
    let sandbox = sandbox();
    let path = sandbox.dir().join("late-credentials");
    let agent = Builder::new(&sandbox).env("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap()).spawn();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let unready = agent.probe("/readyz").await.unwrap();
    assert_eq!(unready.status, 503, "{unready:?}");
    assert!(unready.body.contains("late-credentials"), "{unready:?}");
    std::fs::write(&path, sandbox.node_credentials(HOUR).as_file()).unwrap();
    let written = Instant::now();
    agent.until_ready().await;
    assert!(written.elapsed() < Duration::from_secs(2), "{:?}", written.elapsed());
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
}
