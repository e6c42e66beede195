//! A listener on loopback with a scripted responder, and clients that send bytes. For this folder's tests
//! only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::accept::Acceptor;
use super::bind::bind;
use super::connection::{Peer, Respond};
use super::limits::{ConnectionLimits, PeerLimits};
use super::peers::Peers;
use super::places::Room;
use super::stats::ConnectionStatsSnapshot;
use crate::lifecycle::shutdown::Shutdown;
use crate::lifecycle::tasks::Tasks;

/// How long a test waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A request for which the connection is kept.
pub(super) const FAST: &str = "GET /fast HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// A request that waits for the gate.
pub(super) const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// Answers by path: `/slow` waits for the gate, `/panic` panics, `/since` says for how long the request has
/// waited, in milliseconds, `/large` is more than a socket takes.
pub(super) struct Script {
    pub(super) gate: Semaphore,
    pub(super) waiting: AtomicUsize,
}

impl Respond for Script {
    type Memory = ();

    async fn respond(&self, peer: Peer, (): &(), request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = match request.uri().path() {
            "/slow" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.gate.acquire().await.unwrap().forget();
                Bytes::from_static(b"slow")
            }
            "/panic" => panic!("scripted"),
            "/since" => Bytes::from(peer.since.elapsed().as_millis().to_string()),
            "/host" => Bytes::copy_from_slice(request.headers().get(HOST).unwrap().as_bytes()),
            "/large" => Bytes::from(vec![b'x'; 64 << 20]),
            path => Bytes::copy_from_slice(&path.as_bytes()[1..]),
        };
        Response::new(Full::new(body))
    }

    fn refuse(&self, _peer: Peer, _request: Request<Incoming>) -> Response<Full<Bytes>> {
        Response::new(Full::new(Bytes::from_static(b"refused")))
    }
}

/// Peer limits that a test can reach; every peer is treated like a pod.
pub(super) fn few(connections: usize) -> PeerLimits {
    let many = Room::by_quarters(1_000, 1_000);
    PeerLimits {
        connections: Room::by_quarters(4 * connections, 1),
        waiting: many,
        held: many,
        host_factor: 1,
        fresh: Duration::ZERO,
        pace: None,
    }
}

/// An acceptor that serves.
pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    pub(super) script: Arc<Script>,
    pub(super) peers: Peers,
    pub(super) shutdown: Shutdown,
    pub(super) acceptor: Acceptor<Script>,
    pub(super) served: JoinHandle<()>,
}

impl TestServer {
    pub(super) fn start(limits: ConnectionLimits, peer_limits: PeerLimits) -> Self {
        let script = Arc::new(Script { gate: Semaphore::new(0), waiting: AtomicUsize::new(0) });
        let peers = Peers::new(peer_limits, |_| false);
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let acceptor =
            Acceptor::new(Arc::clone(&script), peers.clone(), limits, shutdown.clone(), tasks.clone());
        let listener = bind(IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
        let address = listener.local_addr();
        let served = tasks.spawn("listener", {
            let acceptor = acceptor.clone();
            async move { acceptor.serve(listener).await }
        });
        Self { address, script, peers, shutdown, acceptor, served }
    }

    pub(super) fn stats(&self) -> ConnectionStatsSnapshot {
        self.peers.stats().snapshot()
    }

    pub(super) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    pub(super) async fn connect_from(&self, from: [u8; 4]) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        Client(socket.connect(self.address).await.unwrap())
    }

    /// Waits until `count` requests wait for the gate.
    pub(super) async fn wait_for_slow(&self, count: usize) {
        eventually(|| self.script.waiting.load(Ordering::SeqCst) == count).await;
    }
}

/// A client that sends bytes.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// One response: head, and as much body as `content-length` says.
    pub(super) async fn response(&mut self) -> String {
        let mut text = Vec::new();
        let complete = async {
            while !is_complete(&text) {
                assert_ne!(self.0.read_buf(&mut text).await.unwrap(), 0, "closed after {text:?}");
            }
        };
        timeout(PATIENCE, complete).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Everything until the server closes; a reset is an error.
    pub(super) async fn rest(&mut self) -> std::io::Result<String> {
        let mut text = String::new();
        timeout(PATIENCE, self.0.read_to_string(&mut text)).await.unwrap()?;
        Ok(text)
    }

    pub(super) async fn get(&mut self, request: &str) -> String {
        self.send(request).await;
        self.response().await
    }
}

fn is_complete(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() >= length.parse::<usize>().unwrap()
}

/// Waits until something holds.
pub(super) async fn eventually(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}
