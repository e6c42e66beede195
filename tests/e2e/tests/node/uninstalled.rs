//! `cleanup` while the agent still answers: it waits for the connections that need the table or the address.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::pods_with_credentials;
use super::releases::{led_to, release};
use crate::harness::{IPV4, Node, Request, Wired, binary, on_a_node, sandbox, slow};

/// How long `cleanup` waits for a connection that does not end.
const PATIENCE: Duration = Duration::from_secs(30);

/// It runs while the test goes on.
fn cleanup() -> Child {
    let mut command = Command::new(binary());
    command.arg("cleanup").env_clear().env("PATH", "/usr/sbin:/usr/bin");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the agent runs")
}

async fn ended(mut cleanup: Child, within: Duration) -> Output {
    let deadline = Instant::now() + within;
    while cleanup.try_wait().expect("a child").is_none() {
        if Instant::now() > deadline {
            let _gone = cleanup.kill();
            panic!("still there after {within:?}: {:?}", cleanup.wait_with_output());
        }
        sleep(Duration::from_millis(10)).await;
    }
    cleanup.wait_with_output().expect("it has ended")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn is_clean(node: &Node) -> bool {
    !node.tables().contains("pod_identity_agent") && TcpListener::bind((IPV4, 2_709)).is_err()
}

/// Waits as long as it takes, for both parts of an answer.
fn ask_patiently(pod: &Wired) -> impl Future<Output = std::io::Result<u16>> + use<> {
    let request = Request::credentials(&pod.identity.token);
    pod.namespace
        .within(async move || request.send(SocketAddr::new(IPV4, 80)).await.map(|answer| answer.status))
}

#[test]
fn it_waits_for_the_last_connection_on_a_guard_port() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let builder = release(&sandbox, 1).switch("--share-port").flag("--shutdown-delay", "0s");
        let mut agent = builder.start().await;
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
        assert_eq!(led_to(node), Some(2707));
        // AWS takes its time, so that the pod's connection is open while all goes.
        sandbox.faults().set([slow(3_000)]);
        let pod = node.pod(&sandbox);
        let asking = ask_patiently(&pod);
        sleep(Duration::from_millis(300)).await;
        agent.signal(Signal::SIGTERM);
        let began = Instant::now();
        let cleanup = cleanup();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(led_to(node), Some(2707), "the table is there as long as the connection");
        assert_eq!(asking.await.expect("an answer"), 200);
        let (answered, output) = (began.elapsed(), ended(cleanup, Duration::from_secs(5)).await);
        assert!(said(&output).starts_with("removed link pod-id-link0, the nftables table"), "{output:?}");
        assert!(answered > Duration::from_secs(2), "the answer was there before: {answered:?}");
        assert!(is_clean(node));
        agent.ended(Duration::from_secs(5)).await;
        // Nothing is waited for where nothing is open.
        let began = Instant::now();
        assert_eq!(said(&ended(self::cleanup(), Duration::from_secs(5)).await), "nothing to remove\n");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    });
}

#[test]
fn it_waits_half_a_minute_for_a_connection_that_does_not_end_and_says_so() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let _agent = TcpListener::bind((IPV4, 2707)).expect("the port is free");
        let pod = node.pod(&sandbox);
        let (tell, told) = tokio::sync::oneshot::channel();
        let (end, until_the_end) = tokio::sync::oneshot::channel::<()>();
        let holding = pod.namespace.within(async move || {
            let _open = tokio::net::TcpStream::connect((IPV4, 2707)).await.expect("somebody listens");
            let _nobody_waits = tell.send(());
            let _test_is_over = until_the_end.await;
        });
        told.await.expect("a connection");
        let began = Instant::now();
        let output = ended(cleanup(), PATIENCE + Duration::from_secs(3)).await;
        assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
        assert!(said(&output).contains("still open after 30 s: 1;"), "{output:?}");
        assert!(is_clean(node));
        drop(end);
        holding.await;
    });
}
