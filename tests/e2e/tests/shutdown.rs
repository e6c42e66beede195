//! SIGTERM: what is in flight is answered, holds get short, the listener closes last.

use std::time::Duration;

use nix::sys::signal::Signal;
use sandbox::{Effect, Fault, Service};

use crate::harness::{Agent, Builder, Request, pod, read_answer, sandbox, slow};

#[tokio::test]
async fn sigterm_answers_what_is_in_flight_and_exits_0() {
    let sandbox = sandbox();
    let mut agent = Builder::verifying(&sandbox).start().await;
    sandbox.faults().set([slow(900)]);
    let mut waiting =
        Request::credentials(&pod(&sandbox, "app-0").token).open(agent.address()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    agent.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The door is still open while somebody waits, and readiness says that it will close.
    let late = Request::credentials(&pod(&sandbox, "app-1").token);
    let late = late.send(agent.address());
    let ready = agent.probe("/readyz").await.unwrap();
    assert_eq!(ready.status, 503, "{ready:?}");
    assert_eq!(late.await.unwrap().status, 200);
    assert_eq!(read_answer(&mut waiting).await.unwrap().status, 200);
    assert_eq!(agent.ended(Duration::from_secs(3)).await.code(), Some(0), "{}", agent.log());
}

#[tokio::test]
async fn holds_are_shortened_to_the_grace_period_and_end_with_an_answer() {
    let sandbox = sandbox();
    let mut agent = Builder::new(&sandbox).flag("--shutdown-grace", "1s").start().await;
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Hang)]);
    let mut waiting =
        Request::credentials(&pod(&sandbox, "app-0").token).open(agent.address()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = tokio::time::Instant::now();
    agent.signal(Signal::SIGTERM);
    let answer = read_answer(&mut waiting).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(before.elapsed() < Duration::from_millis(1_000), "{:?}", before.elapsed());
    assert_eq!(agent.ended(Duration::from_secs(3)).await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_agent_ends_at_once() {
    let sandbox = sandbox();
    let mut agent = Agent::start(&sandbox).await;
    agent.ask(&pod(&sandbox, "app-0").token).await.access_key_id();
    let before = tokio::time::Instant::now();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended(Duration::from_secs(3)).await.code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}\n{}", before.elapsed(), agent.log());
}

#[tokio::test]
async fn a_second_signal_ends_the_waiting() {
    let sandbox = sandbox();
    let mut agent = Agent::start(&sandbox).await;
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Hang)]);
    let _waiting = Request::credentials(&pod(&sandbox, "app-0").token).open(agent.address()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    agent.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended(Duration::from_secs(2)).await.code(), Some(0));
}
