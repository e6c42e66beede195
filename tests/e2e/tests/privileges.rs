//! What the running agent may do, read from the kernel, and what others may do to it.
//!
//! Started as root it gives almost everything away; started with nothing it works all the same.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::harness::{Agent, Builder, pod, sandbox};

/// Numbers of capabilities, from linux/capability.h.
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
/// Somebody who is not root: `nobody` on most systems.
const NOBODY: u32 = 65_534;

/// `/proc/PID/status` of the agent's main thread, or of all its threads by `tasks`.
fn status(path: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).expect("a process that runs");
    text.lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn tasks(agent: &Agent) -> Vec<BTreeMap<String, String>> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("tasks");
    tasks.map(|task| status(task.expect("a task").path().join("status").to_str().expect("UTF-8"))).collect()
}

fn set(status: &BTreeMap<String, String>, name: &str) -> u64 {
    u64::from_str_radix(&status[name], 16).expect("hexadecimal")
}

/// What this test has itself: no agent gets more.
fn ours(name: &str) -> u64 {
    set(&status("/proc/self/status"), name)
}

/// Whether this test may give capabilities away from the bounding set, as root outside of a container may.
fn may_bound() -> bool {
    ours("CapEff") & (1 << 8) != 0
}

/// Every thread has exactly these capabilities, and none can get another.
fn assert_capabilities(agent: &Agent, expected: u64) {
    let tasks = tasks(agent);
    assert!(tasks.len() > 1, "the runtime has threads of its own");
    for task in tasks {
        for name in ["CapEff", "CapPrm"] {
            assert_eq!(set(&task, name), expected & ours("CapPrm"), "{name} of {task:?}");
        }
        if may_bound() {
            assert_eq!(set(&task, "CapBnd"), expected & ours("CapBnd"), "{task:?}");
        }
        assert_eq!(task["NoNewPrivs"], "1");
    }
}

#[tokio::test]
async fn on_high_ports_no_thread_of_the_agent_has_any_capability() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    agent.ask(&pod(&sandbox, "app-0").token).await.access_key_id();
    assert_capabilities(&agent, 0);
    let main = status(&format!("/proc/{}/status", agent.pid()));
    assert_eq!((set(&main, "CapInh"), set(&main, "CapAmb")), (0, 0));
    assert!(agent.log().contains("privileges dropped"), "{}", agent.log());
    assert!(!agent.log().contains("could not be dropped"), "{}", agent.log());
}

#[tokio::test]
async fn a_low_port_keeps_the_right_to_bind_it_and_nothing_else() {
    let sandbox = sandbox();
    let builder = Builder::new(&sandbox).metrics_port(1_023);
    let agent = builder.start().await;
    assert_capabilities(&agent, NET_BIND_SERVICE);
}

#[tokio::test]
async fn managing_the_link_keeps_the_network_and_nothing_else() {
    let sandbox = sandbox();
    // On loopback addresses there is nothing to manage: no test of this file changes the network.
    let agent = Builder::new(&sandbox).flag("--manage-link", "true").start().await;
    assert_capabilities(&agent, NET_ADMIN);
    // Without a program that needs it, none would inherit it.
    let main = status(&format!("/proc/{}/status", agent.pid()));
    assert_eq!((set(&main, "CapInh"), set(&main, "CapAmb")), (0, 0));
}

/// Lets a command run without privileges: as nobody if root starts it; else it has none anyway.
fn become_nobody(command: &mut Command) {
    if status("/proc/self/status")["Uid"].starts_with("0\t") {
        command.uid(NOBODY).gid(NOBODY);
    }
}

#[tokio::test]
async fn an_agent_that_is_nobody_and_may_do_nothing_serves_and_its_uid_cannot_read_it() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).spawn_as(become_nobody);
    agent.until_ready().await;
    agent.ask(&pod(&sandbox, "app-0").token).await.access_key_id();
    // What is left in the bounding set cannot be had either: nothing gains a privilege any more.
    for task in tasks(&agent) {
        assert_eq!((set(&task, "CapEff"), set(&task, "CapPrm"), task["NoNewPrivs"].as_str()), (0, 0, "1"));
    }
    // Its own uid, without capabilities, is told no for whatever could hold secrets. `status` cannot, and is
    // there for everyone: so it is the files that are closed, and not the way to them.
    for (file, is_open) in
        [("status", true), ("environ", false), ("mem", false), ("maps", false), ("auxv", false)]
    {
        let mut reader = Command::new("head");
        reader.args(["-c", "1", &format!("/proc/{}/{file}", agent.pid())]);
        become_nobody(&mut reader);
        let read = reader.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("head runs");
        assert_eq!(read.success(), is_open, "{file}");
    }
}
