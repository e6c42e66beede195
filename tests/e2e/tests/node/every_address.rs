//! A process that has port 80 on every address, as an ingress on the host network does, receives no token,
//! however often the agent dies.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use sandbox::{Effect, Fault, Service};
use tokio::time::sleep;

use super::{on_both_families, pods_with_credentials};
use crate::harness::{Builder, IPV4, Load, Wired, eventually, on_a_node, sandbox};

/// What came to the process.
#[derive(Default)]
struct Received {
    requests: AtomicUsize,
    tokens: AtomicUsize,
}

impl Received {
    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn tokens(&self) -> usize {
        self.tokens.load(Ordering::Relaxed)
    }
}

/// Listens on port 80 of every address of both families, in the network namespace of this thread.
fn ingress() -> Arc<Received> {
    let listener = TcpListener::bind("[::]:80").expect("port 80 is free");
    let received = Arc::new(Received::default());
    let counted = Arc::clone(&received);
    // It ends with the process of the test: nothing is left of the namespace then.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let counted = Arc::clone(&counted);
            thread::spawn(move || {
                let _limited = stream.set_read_timeout(Some(Duration::from_secs(2)));
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    request.extend_from_slice(&piece[..length]);
                    if request.windows(4).any(|end| end == b"\r\n\r\n") {
                        break;
                    }
                }
                if request.is_empty() {
                    return;
                }
                counted.requests.fetch_add(1, Ordering::Relaxed);
                if String::from_utf8_lossy(&request).to_ascii_lowercase().contains("\r\nauthorization:") {
                    counted.tokens.fetch_add(1, Ordering::Relaxed);
                }
                let _answered = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            });
        }
    });
    received
}

#[test]
fn it_receives_no_token_over_twenty_restarts() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let received = ingress();
        let guarded = Builder::on_a_node(&sandbox)
            .with_keys(&sandbox)
            .switch("--guard-address")
            .flag("--shutdown-delay", "0s");
        let mut agent = guarded.start().await;
        let pods = pods_with_credentials(node, &sandbox, 10, IPV4).await;
        let loads = on_both_families(&pods, Load::start, 20);
        for restart in 0..20 {
            sleep(Duration::from_millis(300)).await;
            if restart % 2 == 0 {
                agent.signal(Signal::SIGTERM);
                assert!(agent.ended(Duration::from_secs(10)).await.success());
            } else {
                agent.signal(Signal::SIGKILL);
                agent.ended(Duration::from_secs(10)).await;
            }
            // Without an agent for a while, as between two tries of a kubelet.
            sleep(Duration::from_millis(300)).await;
            agent = guarded.start().await;
        }
        for load in loads {
            let report = load.end().await;
            assert!(report.hurt().0 > 0, "pods asked while no agent was there");
        }
        assert_eq!(received.tokens(), 0, "of {} requests", received.requests());
        assert!(pods[0].ask(IPV4).await.is_ok_and(|answer| answer.status == 200));
    });
}

/// With the reason, or held until this client gives up.
async fn is_answered(pod: &Wired) -> bool {
    match pod.ask(IPV4).await {
        Ok(answer) => answer.status == 503,
        Err(error) => error.kind() == ErrorKind::TimedOut,
    }
}

/// The agent has nothing to give, and says why: by a refused connection a new SDK gives up in 0.1 s, and its
/// user reads nothing. What is asked of it before that is refused, and never the other process's.
#[test]
fn an_agent_that_is_started_again_without_credentials_of_its_own_answers_beside_it() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let received = ingress();
        let guarded = Builder::on_a_node(&sandbox)
            .with_keys(&sandbox)
            .switch("--guard-address")
            .flag("--guard-port-timeout", "6s");
        let mut agent = guarded.start().await;
        let pods = pods_with_credentials(node, &sandbox, 1, IPV4).await;
        agent.signal(Signal::SIGKILL);
        agent.ended(Duration::from_secs(10)).await;
        sandbox.faults().set([Fault::new(Service::Imds, Effect::Refuse)]);
        let again = guarded.spawn();
        eventually("the pod is answered", async || is_answered(&pods[0]).await).await;
        // Longer than what leads to it lasts, unless somebody renews it.
        for _ in 0..4 {
            sleep(Duration::from_secs(1)).await;
            assert!(is_answered(&pods[0]).await, "{}", again.log());
        }
        assert_eq!(received.tokens(), 0, "of {} requests", received.requests());
    });
}

/// What the other test would see: unguarded, the process that remains on port 80 is sent tokens.
#[test]
fn without_the_guard_it_receives_them_when_no_agent_is_there() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let pod = node.pod(&sandbox);
        let received = ingress();
        assert!(pod.ask(IPV4).await.is_ok_and(|answer| answer.status == 404));
        assert_eq!((received.tokens(), received.requests()), (1, 1));
    });
}
