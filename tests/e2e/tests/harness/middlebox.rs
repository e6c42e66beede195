//! What may stand between a node and AWS, and takes its time: a proxy, an inspection of TLS, a long way.
//!
//! Owns: forwarding bytes, late. Must not know: what they say, but for a proxy's CONNECT.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What takes how long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delays {
    /// TCP's own round trip. The kernel accepts at once on loopback, so that whatever is sent first is late.
    pub(crate) tcp: Duration,
    /// A proxy's answer to CONNECT.
    pub(crate) connect: Duration,
    /// The first bytes from the server of each connection, and so its TLS.
    pub(crate) first_bytes: Duration,
    /// Everything, in each direction.
    pub(crate) each_way: Duration,
}

/// It forwards to one place, until it is dropped.
pub(crate) struct Middlebox {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    delays: Arc<Mutex<Delays>>,
    /// Ends with it.
    _tasks: JoinSet<()>,
}

impl Middlebox {
    /// Forwards every connection.
    pub(crate) async fn forwarding(to: SocketAddr, delays: Delays) -> Self {
        Self::start(to, delays, false).await
    }

    /// An http proxy: whatever it is asked to connect to, it connects to one place.
    pub(crate) async fn proxy(to: SocketAddr, delays: Delays) -> Self {
        Self::start(to, delays, true).await
    }

    async fn start(to: SocketAddr, delays: Delays, is_proxy: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let delays = Arc::new(Mutex::new(delays));
        let current = Arc::clone(&delays);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let delays = *current.lock();
                // An error is one side that has left.
                connections.spawn(async move { pass(client, to, delays, is_proxy).await.ok() });
            }
        });
        Self { address, accepted, delays, _tasks: tasks }
    }

    /// What takes how long for connections from now on.
    pub(crate) fn set(&self, delays: Delays) {
        *self.delays.lock() = delays;
    }

    /// The connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn pass(mut client: TcpStream, to: SocketAddr, delays: Delays, is_proxy: bool) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    sleep(delays.tcp).await;
    if is_proxy {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await?);
        }
        assert!(head.starts_with(b"CONNECT "), "{}", String::from_utf8_lossy(&head));
        sleep(delays.connect + delays.each_way * 2).await;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    }
    let server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        forward(from_client, to_server, Duration::ZERO, delays.each_way),
        forward(from_server, to_client, delays.first_bytes, delays.each_way),
    )?;
    Ok(())
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    first: Duration,
    each: Duration,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut pause = first;
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        sleep(pause + each).await;
        pause = Duration::ZERO;
        to.write_all(&buffer[..length]).await?;
    }
}
