//! Standard error that nobody reads: a runtime that hangs, a full disk, a pipe whose reader is stopped. The
//! log is what is lost then, and nothing else.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::time::Duration;

use nix::sys::signal::Signal;
use sandbox::Sandbox;
use tokio::time::Instant;

use crate::harness::{Agent, Builder, eventually, pod, sandbox};

/// What a pipe holds.
const PIPE: usize = 64 * 1024;
/// A cached answer takes well under a millisecond; a stopped agent answers never.
const AT_ONCE: Duration = Duration::from_secs(1);
/// One line in full, however the agent's version is written.
const DROPPED: &str = "log lines were dropped";

/// An agent with a standard error that nobody reads; the pipe is full before the agent says a word.
async fn start_unread(builder: &Builder) -> (Agent, PipeReader) {
    let (reader, mut writer): (PipeReader, PipeWriter) = pipe().expect("a pipe");
    writer.write_all(&[b'\n'; PIPE]).expect("as much as it holds");
    let agent = builder.spawn_with_stderr(writer);
    agent.until_ready().await;
    (agent, reader)
}

async fn send_rubbish(agent: &Agent, from: usize, count: usize) {
    for number in from..from + count {
        assert_eq!(agent.ask(&format!("rubbish{number}.rubbish.rubbish")).await.status, 400);
    }
}

async fn assert_served(agent: &Agent, sandbox: &Sandbox, name: &str) {
    let token = pod(sandbox, name).token;
    for _ in 0..2 {
        let asked = Instant::now();
        assert_eq!(agent.ask(&token).await.status, 200, "{name}");
        assert_eq!(agent.probe("/healthz").await.expect("an answer").status, 200, "{name}");
        assert!(asked.elapsed() < AT_ONCE, "{name}: {:?}", asked.elapsed());
    }
}

async fn dropped(agent: &Agent) -> u64 {
    agent.metric("pod_identity_agent_log_lines_dropped_total").await
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nobody_and_what_is_missing_is_counted_and_said() {
    let sandbox = sandbox();
    let (mut agent, mut reader) = start_unread(&Builder::new(&sandbox).switch("--audit-log")).await;
    send_rubbish(&agent, 0, 16).await;
    assert_served(&agent, &sandbox, "after-16").await;
    send_rubbish(&agent, 16, 184).await;
    assert_served(&agent, &sandbox, "after-200").await;
    // At trace a request is some lines; the queue holds a mebibyte.
    let mut sent = 200;
    while dropped(&agent).await == 0 {
        send_rubbish(&agent, sent, 200).await;
        sent += 200;
        assert!(sent < 20_000, "nothing is dropped: where does it all go?");
    }
    assert_served(&agent, &sandbox, "while-lines-are-dropped").await;

    // The reader is back.
    let lines = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("UTF-8");
        text
    });
    eventually("everything that waited is written", async || {
        let before = dropped(&agent).await;
        send_rubbish(&agent, 0, 20).await;
        dropped(&agent).await == before
    })
    .await;
    assert_served(&agent, &sandbox, "read-again").await;
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended(Duration::from_secs(5)).await.code(), Some(0));
    drop(agent);
    let text = lines.join().expect("the reader reads to the end");
    let said: Vec<serde_json::Value> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(said[0]["msg"], "effective configuration", "what came first was kept");
    let gaps: Vec<_> =
        said.iter().filter(|line| line["msg"].as_str().unwrap().starts_with(DROPPED)).collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap["lines"].as_u64() > Some(0)), "{gaps:?}");
    assert!(text.contains("read-again"));
    let audit = |line: &&serde_json::Value| line["target"] == "audit";
    let named: Vec<_> = said.iter().filter(audit).map(|line| &line["claimed.name"]).collect();
    let all = ["after-16", "after-200", "while-lines-are-dropped", "read-again"];
    assert_eq!(named, all, "the audit log has room that requests leave free");
    assert_eq!(said.last().unwrap()["msg"], "stopped", "the last line is flushed");
}

#[tokio::test]
async fn an_agent_with_a_log_that_nobody_reads_ends_when_it_shall() {
    let sandbox = sandbox();
    let (mut agent, _reader) = start_unread(&Builder::new(&sandbox)).await;
    let from = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended(Duration::from_secs(5)).await.code(), Some(0));
    assert!(from.elapsed() < Duration::from_secs(3), "{:?}", from.elapsed());
}

#[tokio::test]
async fn a_log_whose_reader_has_gone_costs_nothing_but_the_lines() {
    let sandbox = sandbox();
    let (reader, writer) = pipe().expect("a pipe");
    let agent = Builder::new(&sandbox).spawn_with_stderr(writer);
    drop(reader);
    agent.until_ready().await;
    send_rubbish(&agent, 0, 16).await;
    assert_served(&agent, &sandbox, "nobody-reads").await;
    assert!(dropped(&agent).await > 0);
}
