//! The agent's own credentials change while pods ask: every answer of AWS is about the set that signed.
//!
//! The numbers are those of the promise: 20 pods, EKS Auth answering in 250 ms, all served within 5 s of a
//! good set.

use std::path::Path;
use std::time::Duration;

use sandbox::{Effect, Fault, Options, Sandbox, Service};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Agent, Builder, Request, eventually, failing, is_nightly, pod, sandbox, slow};

const HOUR: Duration = Duration::from_secs(3600);
const PODS: usize = 20;
/// How long EKS Auth takes to answer.
const ANSWER_MS: u64 = 250;
/// The promise.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

const ACCEPTED: &str = r#"pod_identity_agent_condition{condition="upstream-accepts-us"}"#;

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
                let give_up = Instant::now() + Duration::from_secs(45) + stuck();
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

/// So long the metadata service gives what has lapsed. The promise says a minute.
fn stuck() -> Duration {
    Duration::from_secs(if is_nightly() { 60 } else { 10 })
}

fn with_lives_of_30_s() -> Sandbox {
    let node_credential_lifetime = Duration::from_secs(30);
    Sandbox::start(Options { node_credential_lifetime, ..Options::default() }).expect("the sandbox starts")
}

#[tokio::test]
async fn when_imds_has_given_a_lapsed_set_for_a_while_every_pod_is_served_within_five_seconds_of_a_good_one()
{
    let sandbox = with_lives_of_30_s();
    let agent = Agent::start(&sandbox).await;
    assert_eq!(agent.ask(&pod(&sandbox, "before").token).await.status, 200);
    sandbox.imds_falls_behind();
    // An SDK goes on with what has lapsed, in case that AWS does. It does not.
    tokio::time::sleep(Duration::from_secs(31)).await;
    sandbox.faults().set([slow(ANSWER_MS)]);
    let crowd = Crowd::start(&sandbox, &agent, "app");
    tokio::time::sleep(stuck()).await;
    let calls = sandbox.calls_of(Service::EksAuth);
    let lapsed = calls.iter().filter(|call| call.code.as_deref() == Some("ExpiredTokenException")).count();
    let served = calls.iter().filter(|call| call.status == Some(200)).count();
    assert_eq!((lapsed > 0, served), (true, 1), "nobody but the first, and for no other reason");
    assert_eq!(agent.metric(ACCEPTED).await, 0);
    println!("{lapsed} calls with lapsed credentials in {:?}", stuck());
    sandbox.imds_catches_up();
    crowd.assert_served_after(Instant::now()).await;
    eventually("the condition is met", async || agent.metric(ACCEPTED).await == 1).await;
}

#[tokio::test]
async fn a_lapsed_set_that_nobody_has_signed_with_costs_the_first_pod_after_it_less_than_five_seconds() {
    let sandbox = with_lives_of_30_s();
    let agent = Agent::start(&sandbox).await;
    assert_eq!(agent.ask(&pod(&sandbox, "before").token).await.status, 200);
    sandbox.imds_falls_behind();
    // The agent has read what has lapsed by now, and has no reason to read again soon.
    tokio::time::sleep(Duration::from_secs(35)).await;
    sandbox.imds_catches_up();
    Crowd::start(&sandbox, &agent, "app").assert_served_after(Instant::now()).await;
}

#[tokio::test]
async fn own_credentials_of_30_s_are_renewed_at_half_life_and_no_call_is_rejected_however_many_pods_start() {
    let sandbox = with_lives_of_30_s();
    let agent = Builder::new(&sandbox).flag("--verbosity", "info").start().await;
    let load = Duration::from_secs(if is_nightly() { 180 } else { 32 });
    let (end, mut pods) = (Instant::now() + load, 0);
    while Instant::now() < end {
        let began = Instant::now();
        let answer = agent.ask(&pod(&sandbox, &format!("app-{pods}")).token).await;
        assert_eq!(answer.status, 200, "pod {pods}: {answer:?}");
        assert!(began.elapsed() < Duration::from_secs(1), "pod {pods}: {:?}", began.elapsed());
        pods += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let calls = sandbox.calls_of(Service::EksAuth);
    assert_eq!(calls.len(), pods, "one for each");
    assert!(calls.iter().all(|call| call.status == Some(200)), "none was rejected");
    // Half of a life is 15 s. Asked a moment before there is a new set, it is asked at half of what is left.
    let read = sandbox.calls_of(Service::Imds);
    let read =
        read.iter().filter(|call| call.operation.ends_with("/security-credentials/sandbox-node")).count();
    let halves = usize::try_from(load.as_secs() / 15).unwrap();
    assert!((halves..=2 * halves + 2).contains(&read), "{read} reads in {load:?}");
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
    assert_eq!(agent.metric(ACCEPTED).await, 0);
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
    eventually("the condition is met", async || agent.metric(ACCEPTED).await == 1).await;
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
