//! How a listener ends: everything that was sent to it before is answered.
//!
//! Owns: the order of the end, and how the kernel's queue is emptied. Must not know: HTTP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use super::accept::Acceptor;
use super::activity::CloseRequest;
use super::bind::Listener;
use super::connection::Respond;
use crate::lifecycle::shutdown::Phase;

/// How long a handshake that has begun may take: a pod is microseconds away, so this is for a busy CPU.
const HANDSHAKE: Duration = Duration::from_millis(20);
/// How often idle connections are asked to close while draining.
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// Connections that were accepted by a listener that has closed.
#[must_use = "the process must not end before they are answered"]
pub struct Accepted(Vec<TaskTracker>);

impl<R: Respond> Acceptor<R> {
    /// Accepts until the process drains, and on until what was in flight by then is answered (or the grace
    /// period ends). Then it takes what waits in the kernel's queue, answers that too, and closes the
    /// listener last: closing it earlier would reset the connections in the queue. It does not wait for a
    /// moment without any request: under load there is none.
    pub async fn serve(&self, listener: Listener) {
        let _none = self.serve_until(listener, std::future::pending()).await;
    }

    /// The same until `end`, if the process does not drain before: then the listener closes, and what it
    /// accepted is served on. The caller waits for that ([`Acceptor::finish`]).
    pub async fn serve_until(&self, listener: Listener, end: impl Future<Output = ()>) -> Accepted {
        let ends_first = async {
            tokio::select! {
                () = self.service.shutdown.wait_for_draining() => {}
                () = end => {}
            }
        };
        let in_flight = self.accept_until(&listener, ends_first).await;
        if self.service.shutdown.is_running() {
            let last = self.close_to_new_ones(&listener).await;
            tracing::info!(
                address = %listener.local_addr(),
                connections = in_flight.len() + last.len(),
                "no longer listening"
            );
            return Accepted(vec![in_flight, last]);
        }
        self.drain(listener, in_flight).await;
        Accepted(Vec::new())
    }

    /// Waits for connections of a listener that has closed: until none is open, or until the process has
    /// drained.
    pub async fn finish(&self, Accepted(open): Accepted) {
        for open in open {
            tokio::select! {
                () = open.wait() => {}
                () = self.service.shutdown.wait_for_draining() => self.drained(&open).await,
            }
        }
    }

    async fn drain(&self, listener: Listener, in_flight: TaskTracker) {
        let late = self.accept_until(&listener, self.drained(&in_flight)).await;
        let last = self.close_to_new_ones(&listener).await;
        self.drained(&late).await;
        self.drained(&last).await;
        drop(listener);
        let left = in_flight.len() + late.len() + last.len();
        if left > 0 {
            tracing::warn!(connections = left, "grace period over, closing what is in flight");
            self.service.peers.request_close_all(CloseRequest::Now);
        }
    }

    /// Accepts what has come so far, and nothing after it.
    async fn close_to_new_ones(&self, listener: &Listener) -> TaskTracker {
        drop_new_syns(&listener.socket);
        let last = self.accept_until(listener, sleep(HANDSHAKE)).await;
        // Directly from the kernel: tokio knows only what the last turn of its event loop has seen.
        while let Ok((stream, peer)) = accept_queued(&listener.socket) {
            self.admit(stream, peer, &last).await;
        }
        last
    }

    /// While the process drains: returns when these connections are closed, or no time is left.
    async fn drained(&self, open: &TaskTracker) {
        let shutdown = &self.service.shutdown;
        loop {
            self.service.peers.request_close_all(CloseRequest::WhenIdle);
            let until = match shutdown.phase() {
                Phase::Draining { until } if until > Instant::now() => until,
                Phase::Draining { .. } | Phase::Running | Phase::Stopped => return,
            };
            tokio::select! {
                () = open.wait() => return,
                () = shutdown.wait_for_stopped() => return,
                () = sleep_until(until.min(Instant::now() + DRAIN_TICK)) => {}
            }
        }
    }
}

/// Makes the kernel drop new SYNs to this listener: a packet filter that lets everything else through. The
/// client sends its SYN again a second later, to the next listener; without this, a connection that came
/// between the last accept and the close would be reset (measured: one in some dozen ends under load).
/// Connections that were accepted, queued or half open before are not affected.
fn drop_new_syns(listener: &TcpListener) {
    /// The filter sees the TCP header; the flags are its 14th byte.
    const LOAD_BYTE: u16 = 0x30;
    const FLAGS: u32 = 13;
    const JUMP_IF_SET: u16 = 0x45;
    const SYN: u32 = 0x02;
    /// Returns how many bytes to keep.
    const RETURN: u16 = 0x06;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(listener).attach_filter(&filter) {
        // Then a gap of microseconds remains.
        tracing::debug!(err = %error, "cannot attach a filter to the listener");
    }
}

fn accept_queued(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::HANDSHAKE;
    use crate::server::door::limits::{ConnectionLimits, PeerLimits};
    use crate::server::door::testing::{Client, FAST, PATIENCE, SLOW, TestServer, few};

    #[tokio::test]
    async fn draining_answers_what_is_in_flight_and_what_comes_and_closes_the_listener_last() {
        let server = TestServer::start(ConnectionLimits::default(), few(64));
        let mut idle = server.connect().await;
        idle.get(FAST).await;
        let mut held = server.connect().await;
        held.send(SLOW).await;
        server.wait_for_slow(1).await;
        server.shutdown.begin(PATIENCE * 6);
        assert_eq!(idle.rest().await.unwrap(), "");
        let late = server.connect().await.get(FAST).await;
        assert!(late.contains("connection: close") && late.ends_with("fast"), "{late}");
        assert!(!server.served.is_finished());
        server.script.gate.add_permits(1);
        let answer = held.rest().await.unwrap();
        assert!(answer.contains("connection: close") && answer.ends_with("slow"), "{answer}");
        timeout(PATIENCE, server.served).await.unwrap().unwrap();
        let refused = TcpStream::connect(server.address).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn what_waits_in_the_queue_when_the_end_begins_is_answered() {
        let server = TestServer::start(ConnectionLimits::default(), few(64));
        server.shutdown.begin(PATIENCE);
        // The listener's task has not run yet, and std connects without letting it.
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let mut client = std::net::TcpStream::connect(server.address).unwrap();
                io::Write::write_all(&mut client, FAST.as_bytes()).unwrap();
                client.set_nonblocking(true).unwrap();
                client
            })
            .collect();
        // The listener runs as far as it can without seeing them; after this the time for handshakes is over.
        let mut busy = JoinSet::new();
        busy.spawn(async { std::thread::sleep(HANDSHAKE * 2) });
        for client in clients {
            let answer = Client(TcpStream::from_std(client).unwrap()).rest().await.unwrap();
            assert!(answer.ends_with("fast"), "{answer}");
        }
        timeout(PATIENCE, server.served).await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn under_load_no_connection_is_reset_while_the_listener_closes() {
        // Several ends at once, because each takes the second after which a dropped SYN is sent again.
        let mut ends = JoinSet::new();
        for end in 0..12 {
            ends.spawn(async move {
                // As in earnest, a fresh connection is left alone: its request is on the way.
                let limits = PeerLimits { fresh: PATIENCE, ..few(1_000) };
                let server = TestServer::start(ConnectionLimits::default(), limits);
                let mut clients = JoinSet::new();
                for _ in 0..4 {
                    clients.spawn(ask_until_refused(server.address));
                }
                sleep(Duration::from_millis(20 * end)).await;
                server.shutdown.begin(PATIENCE);
                timeout(PATIENCE, server.served).await.unwrap().unwrap();
                clients.join_all().await
            });
        }
        let answers: usize = ends.join_all().await.into_iter().flatten().sum();
        assert!(answers > 100, "{answers}");
    }

    /// How many answers there were; panics unless each connection that was made got one.
    async fn ask_until_refused(address: SocketAddr) -> usize {
        let mut answers = 0;
        loop {
            // A SYN that the kernel drops is sent again after a second, and then refused.
            let mut client = match TcpStream::connect(address).await {
                Ok(client) => client,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return answers,
                Err(error) => panic!("{error}"),
            };
            client.write_all(b"GET /fast HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("fast"), "{answer}");
            answers += 1;
        }
    }

    #[tokio::test]
    async fn the_grace_period_ends_what_does_not_end() {
        let server = TestServer::start(ConnectionLimits::default(), few(64));
        let mut held = server.connect().await;
        held.send(SLOW).await;
        server.wait_for_slow(1).await;
        server.shutdown.begin(Duration::from_millis(100));
        timeout(PATIENCE, server.served).await.unwrap().unwrap();
        assert_eq!(held.rest().await.unwrap_or_default(), "");
    }
}
