//! The helper process, `probe-from-namespace`: it probes the agent from a network namespace, as a pod would.
//!
//! Owns: the two messages between agent and helper, and the lifetime of the namespace. Must not know: the
//! probe key. It sends the nonce it is given and returns the response as it came, so it holds no secret.
//!
//! It is a separate process because it needs `CAP_SYS_ADMIN`, which the process that holds credentials must
//! not have. It takes requests from its parent only, and ends with it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use caps::Capability;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::probe_key::Nonce;
use super::request;
use crate::lifecycle::privileges::Privileges;
use crate::node::link::veth_pair;

/// The longest line that either side reads: four responses of 4 KiB, escaped as JSON.
pub(super) const MAX_LINE: u64 = 128 * 1024;
/// How long one thread waits for the other while the namespace and its link are set up.
const LINK_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection to the metadata service that is not open by then counts as blocked.
const METADATA_TIMEOUT: Duration = Duration::from_millis(500);

/// What the agent asks the helper for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProbeRequest {
    /// The digits of the nonce.
    pub(super) nonce: String,
    /// The addresses to probe.
    pub(super) targets: Vec<SocketAddr>,
    /// The addresses that a connection must fail to.
    pub(super) blocked: Vec<SocketAddr>,
}

/// What the helper replies.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ProbeReply {
    /// One result for each target.
    pub(super) results: Vec<TargetResult>,
    /// The addresses of `blocked` that a pod can reach.
    pub(super) reachable: Vec<SocketAddr>,
    /// Why there are no results.
    pub(super) error: Option<String>,
    /// The nonce of the request that this is the reply to; `None` if that could not be read.
    pub(super) nonce: Option<String>,
}

/// The response of one target: the local address and the text, or why there is none.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TargetResult {
    pub(super) target: SocketAddr,
    pub(super) response: Result<(SocketAddr, String), String>,
}

/// Serves requests from standard input until it is closed.
///
/// # Errors
/// If the agent has ended.
pub fn serve() -> std::io::Result<()> {
    // Before a second thread is started: capabilities belong to a thread.
    let wanted = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN].into();
    let _probes_report_what_is_missing = Privileges::drop_all_but(&wanted, &caps::CapsHashSet::new());
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    loop {
        let mut line = String::new();
        if input.by_ref().take(MAX_LINE).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_str(&line) {
            Ok(request) => reply(&request),
            Err(error) => failure(error.to_string()),
        };
        writeln!(output, "{}", serde_json::to_string(&reply)?)?;
        output.flush()?;
    }
}

fn reply(request: &ProbeRequest) -> ProbeReply {
    let nonce = Some(request.nonce.clone());
    ProbeReply { nonce, ..probe(request).unwrap_or_else(failure) }
}

fn failure(error: String) -> ProbeReply {
    ProbeReply { error: Some(error), ..ProbeReply::default() }
}

/// Uses two threads, because a thread is in one namespace at a time: this one stays on the host and creates
/// the link, the other enters a new namespace and sends the probes. When that thread ends, the kernel removes
/// the namespace and everything in it.
fn probe(request: &ProbeRequest) -> Result<ProbeReply, String> {
    let runtime = runtime()?;
    let (opened, namespace_ready) = sync_channel(1);
    let (wired, link) = sync_channel(1);
    thread::scope(|scope| {
        let inside = thread::Builder::new()
            .spawn_scoped(scope, move || inside(request, &opened, &link))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        // The sender is dropped with its thread, so this returns if that thread fails.
        let made = match namespace_ready.recv_timeout(LINK_TIMEOUT) {
            Ok(namespace) => {
                let namespace: File = namespace?;
                runtime.block_on(veth_pair::create(namespace.as_raw_fd())).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let failed = made.as_ref().err().cloned();
        if made.is_ok() {
            // The thread waits for this. If it has ended already, its own error is returned below.
            let _gone = wired.send(());
        }
        drop(wired);
        let reply = inside.join().unwrap_or_else(|_panic| Err("the probe's thread panicked".to_owned()));
        let removed = runtime.block_on(veth_pair::remove()).map_err(|error| error.to_string());
        match failed {
            Some(error) => Err(error),
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
        .map_err(|error| format!("cannot create a network namespace: {error}"))
        .and_then(|()| {
            File::open("/proc/thread-self/ns/net")
                .map_err(|error| format!("cannot open the network namespace: {error}"))
        });
    // The other thread waits for it.
    let _gone = opened.send(entered);
    link.recv_timeout(LINK_TIMEOUT).map_err(|_no_link| "the link was not created".to_owned())?;
    runtime()?.block_on(probe_all(request))
}

async fn probe_all(request: &ProbeRequest) -> Result<ProbeReply, String> {
    let all = request.targets.iter().chain(&request.blocked);
    let ipv6: Vec<_> =
        all.filter_map(|target| if let IpAddr::V6(ip) = target.ip() { Some(ip) } else { None }).collect();
    veth_pair::set_up_pod_end(&ipv6).await.map_err(|error| error.to_string())?;
    let nonce = Nonce::from_digits(&request.nonce).ok_or("invalid nonce")?;
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
