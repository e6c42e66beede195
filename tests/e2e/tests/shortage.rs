//! A node that has no more threads or processes to give: what an agent does meanwhile, and that nothing of it
//! stays behind.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use sandbox::Sandbox;
use tokio::time::sleep;

use crate::harness::{Agent, Builder, Cgroup, IPV4, eventually, on_a_node, pod, sandbox};
use crate::status::StateDir;
use crate::trial::trying;

/// The main thread, the log, one that runs tasks, and one for work beside them.
const FEWEST: u32 = 4;
/// Tokio keeps a thread that has nothing to do for 10 s.
const IDLE: Duration = Duration::from_secs(12);

fn assert_no_task_ended(agent: &Agent) {
    let log = agent.log();
    assert!(!log.contains("panic"), "{log}");
}

async fn serves(agent: &Agent, sandbox: &Sandbox, name: &str) {
    let answer = agent.ask(&pod(sandbox, name).token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn an_agent_in_a_cgroup_with_four_threads_starts_and_tells_its_status() {
    let sandbox = sandbox();
    let cgroup = Cgroup::with_threads(FEWEST);
    let dir = StateDir::new(&sandbox);
    let agent = trying(&sandbox).flag("--state-dir", dir.path()).cgroup(&cgroup).start().await;
    assert!(agent.log().contains("few threads can be started"), "{}", agent.log());
    serves(&agent, &sandbox, "first").await;
    sleep(IDLE).await;
    let (code, said) = dir.run(&["status"]);
    assert_eq!(code, Some(0), "{said}");
    serves(&agent, &sandbox, "second").await;
    assert_no_task_ended(&agent);
}

#[tokio::test]
async fn an_agent_in_a_cgroup_that_is_full_loses_no_task_by_what_is_asked_of_it() {
    let sandbox = sandbox();
    let cgroup = Cgroup::with_threads(100);
    let dir = StateDir::new(&sandbox);
    let agent = trying(&sandbox).flag("--state-dir", dir.path()).cgroup(&cgroup).start().await;
    sleep(IDLE).await;
    cgroup.limit_threads(&cgroup.threads().to_string());
    let (code, said) = dir.run(&["status"]);
    assert_eq!(code, Some(0), "{said}");
    serves(&agent, &sandbox, "meanwhile").await;
    cgroup.limit_threads("max");
    assert_no_task_ended(&agent);
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_agent_in_a_cgroup_without_threads_waits_for_some() {
    let sandbox = sandbox();
    let cgroup = Cgroup::with_threads(FEWEST - 1);
    let agent = trying(&sandbox).cgroup(&cgroup).spawn();
    eventually("it says what is missing", async || agent.log().contains("no threads can be started")).await;
    cgroup.limit_threads("max");
    agent.until_ready().await;
    serves(&agent, &sandbox, "late").await;
    assert_no_task_ended(&agent);
}

#[test]
fn an_agent_in_a_cgroup_without_processes_has_its_guard_when_there_are_some() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let cgroup = Cgroup::with_threads(FEWEST);
        let guarding = Builder::on_a_node(&sandbox).with_keys(&sandbox).switch("--guard-address");
        let agent = guarding.cgroup(&cgroup).spawn();
        eventually("it says what is missing", async || {
            agent.log().contains("cannot run nft for the moment: ")
        })
        .await;
        assert!(node.rules_of("inet", "pod_identity_agent").is_empty(), "nft cannot be started");
        // What passes is not given up at once: then it would be ready, for pods that have no guard.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(agent.probe("/readyz").await.unwrap().status, 503);
        cgroup.limit_threads("max");
        eventually("the table is written", async || {
            node.rules_of("inet", "pod_identity_agent").contains(&IPV4.to_string())
        })
        .await;
        agent.until_ready().await;
        assert_no_task_ended(&agent);
    });
}

#[tokio::test]
async fn a_socket_that_somebody_has_removed_is_made_again() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    let agent = trying(&sandbox).flag("--state-dir", dir.path()).start().await;
    let socket = Path::new(dir.path()).join("agent.sock");
    let number = || std::fs::symlink_metadata(&socket).ok().map(|found| (found.ino(), found.ctime_nsec()));
    let first = number();
    std::fs::remove_file(&socket).unwrap();
    eventually("there is another socket", async || number().is_some_and(|now| Some(now) != first)).await;
    assert_eq!(dir.run(&["status"]).0, Some(0));
    assert_no_task_ended(&agent);
}
