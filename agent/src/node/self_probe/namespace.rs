//! The other process: `probe-from-namespace`, which asks as a pod would.
//!
//! Owns: the two messages, and the namespace's life. Must not know: the key; it carries the question there and what was
//! said back, and is told nothing that a thief could use.
//!
//! It is a process of its own because it needs `CAP_SYS_ADMIN`, which the one that holds credentials shall not have. It
//! listens to nobody but its parent, and ends when that does.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use caps::Capability;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::probe_key::Nonce;
use super::request;
use crate::lifecycle::privileges::Privileges;
use crate::node::link::veth_pair;

/// Longest line either side reads: four answers of 4 KiB, escaped.
pub(super) const MAX_LINE: u64 = 128 * 1024;
/// How long the thread in the namespace waits for its link.
const LINK_TIMEOUT: Duration = Duration::from_secs(20);
/// What a block of the instance's metadata must not let through in.
const METADATA_TIMEOUT: Duration = Duration::from_millis(500);

/// What the parent asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProbeRequest {
    /// Digits of the nonce.
    pub(super) nonce: String,
    /// Whom to ask.
    pub(super) targets: Vec<SocketAddr>,
    /// Where a connection shall fail.
    pub(super) blocked: Vec<SocketAddr>,
}

/// What the child answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ProbeReply {
    /// One for each target.
    pub(super) results: Vec<TargetResult>,
    /// Whom of `blocked` a pod can reach.
    pub(super) reachable: Vec<SocketAddr>,
    /// Why there are no answers.
    pub(super) error: Option<String>,
}

/// What one target said.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TargetResult {
    pub(super) target: SocketAddr,
    pub(super) response: Result<(SocketAddr, String), String>,
}

/// Answers questions from standard input until it closes.
///
/// # Errors
/// When the parent is gone, or there is no runtime.
pub fn serve() -> std::io::Result<()> {
    // Before there is a second thread.
    let wanted = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN].into();
    let _told_by_failing = Privileges::keep(&wanted, &caps::CapsHashSet::new());
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    loop {
        let mut line = String::new();
        if input.by_ref().take(MAX_LINE).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_str(&line) {
            Ok(request) => probe(&request).unwrap_or_else(failure),
            Err(error) => failure(error.to_string()),
        };
        writeln!(output, "{}", serde_json::to_string(&reply)?)?;
        output.flush()?;
    }
}

fn failure(error: String) -> ProbeReply {
    ProbeReply { error: Some(error), ..ProbeReply::default() }
}

/// Two threads, because a namespace belongs to one: this one stays on the host and wires, the other enters and asks. When
/// it ends, the namespace has no one left and the kernel removes it with all that is in it.
fn probe(request: &ProbeRequest) -> Result<ProbeReply, String> {
    let runtime = runtime()?;
    let (opened, namespace_ready) = sync_channel(1);
    let (wired, link) = sync_channel(1);
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || inside(request, &opened, &link));
        // The sender is dropped with the thread, so this ends when that fails.
        let made = match namespace_ready.recv_timeout(LINK_TIMEOUT) {
            Ok(namespace) => {
                let namespace: File = namespace?;
                runtime.block_on(veth_pair::create(namespace.as_raw_fd())).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let failed = made.as_ref().err().cloned();
        if made.is_ok() {
            // It waits for this; if it does not, it has ended and says why.
            let _gone = wired.send(());
        }
        drop(wired);
        let reply = inside.join().unwrap_or_else(|_panic| Err("the probe's thread panicked".to_owned()));
        let removed = runtime.block_on(veth_pair::remove()).map_err(|error| error.to_string());
        match failed {
            Some(why) => Err(why),
            None => removed.and(reply),
        }
    })
}

fn inside(
    request: &ProbeRequest,
    opened: &SyncSender<Result<File, String>>,
    link: &Receiver<()>,
) -> Result<ProbeReply, String> {
    let entered = unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("no network namespace can be made: {error}"))
        .and_then(|()| {
            File::open("/proc/thread-self/ns/net")
                .map_err(|error| format!("the namespace is not shown: {error}"))
        });
    // The other side waits for it.
    let _gone = opened.send(entered);
    link.recv_timeout(LINK_TIMEOUT).map_err(|_no_link| "there is no link".to_owned())?;
    runtime()?.block_on(probe_all(request))
}

async fn probe_all(request: &ProbeRequest) -> Result<ProbeReply, String> {
    let all = request.targets.iter().chain(&request.blocked);
    let ipv6: Vec<_> =
        all.filter_map(|target| if let IpAddr::V6(ip) = target.ip() { Some(ip) } else { None }).collect();
    veth_pair::set_up_pod_end(&ipv6).await.map_err(|error| error.to_string())?;
    let nonce = Nonce::from_digits(&request.nonce).ok_or("no nonce")?;
    let mut reply = ProbeReply::default();
    for target in &request.targets {
        let response = request::send(source_for(*target), *target, &nonce).await;
        let response = response
            .map(|response| (response.local, String::from_utf8_lossy(&response.bytes).into_owned()))
            .map_err(|error| error.to_string());
        reply.results.push(TargetResult { target: *target, response });
    }
    for target in &request.blocked {
        let connecting = tokio::net::TcpStream::connect(*target);
        if matches!(tokio::time::timeout(METADATA_TIMEOUT, connecting).await, Ok(Ok(_))) {
            reply.reachable.push(*target);
        }
    }
    Ok(reply)
}

const fn source_for(target: SocketAddr) -> IpAddr {
    match target {
        SocketAddr::V4(_) => IpAddr::V4(veth_pair::POD_IPV4),
        SocketAddr::V6(_) => IpAddr::V6(veth_pair::POD_IPV6),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}
