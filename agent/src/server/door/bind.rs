//! Sockets that listen.
//!
//! Owns: how a socket is bound, and how often that is tried while the port is taken. Must not know: what is
//! accepted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::lifecycle::readiness::Condition;
use crate::node::ipv6;

/// Complete handshakes that wait for accept; the kernel caps it at net.core.somaxconn, 4,096 by default.
/// Every process of a full node connects at once, and a SYN that finds the queue full costs its client a
/// second.
const BACKLOG: i32 = 4_096;
/// What the kernel keeps each way of a connection that is not read, and no more: without a limit it is
/// whatever the client sends, 64 KiB and more, and so the memory of this process's cgroup. A head of 2 KiB
/// and an answer of 2 KiB fit; what is longer comes in pieces.
pub const SOCKET_BUFFER: usize = 8 * 1024;
/// A new agent that starts beside an older one waits for its port: the old one has drained by then.
const REPLACING: Duration = Duration::from_secs(60);
/// Until then it tries this often: nothing is served between the old one's end and the next try.
const BIND_AGAIN: Duration = Duration::from_millis(20);
/// After that another process has the port, and may keep it for long.
const BIND_LATER: Duration = Duration::from_secs(1);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// A bound socket that listens.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: TcpListener,
    local: SocketAddr,
}

impl Listener {
    /// The address and, if port 0 was requested, the port that the kernel has chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// Listens on an address, even one that the node does not have yet: the socket serves when the address
/// appears, and again when it is removed and comes back (docs/design/facts.md#binding). Must be called inside
/// the runtime.
pub fn bind(address: IpAddr, port: u16) -> Result<Listener, BindError> {
    let address = SocketAddr::new(address, port);
    let listen = || {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => {
                socket.set_freebind_v6(true)?;
                // IPv4 has its own listener; an IPv6 one must not take its port.
                socket.set_only_v6(true)?;
            }
        }
        // So that a restart need not wait for connections in TIME_WAIT. On Linux this does not let two
        // sockets listen on one address: that takes SO_REUSEPORT, which is never set here, because with it
        // any root process on the host network could take half of all tokens (docs/design/decisions.md#node).
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit these; the kernel reckons with twice as much, for its own share.
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Listener { socket, local })
    };
    listen().map_err(|source| BindError { address, source })
}

/// How soon a port that is taken is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Another agent has it, and will end: nothing is served between its end and the next try.
    Soon,
    /// Soon at first, because an older agent may have it; later another process has, and may keep it for
    /// long.
    Later,
}

/// Binds the first of these ports that is free; while none is, it tries again, without end. Cancel by
/// dropping. `show` is given what came of each try, and says when to try again.
pub async fn bind_first_free(
    address: IpAddr,
    ports: &[u16],
    show: impl Fn(Result<(), BindError>) -> Again,
) -> Listener {
    let since = Instant::now();
    loop {
        let mut again = Again::Later;
        for port in ports {
            match bind(address, *port) {
                Ok(listener) => {
                    tracing::info!(address = %listener.local_addr(), "listening");
                    let _bound = show(Ok(()));
                    return listener;
                }
                Err(error) => again = show(Err(error)),
            }
        }
        let is_soon = again == Again::Soon || since.elapsed() < REPLACING;
        sleep(if is_soon { BIND_AGAIN } else { BIND_LATER }).await;
    }
}

/// Has a condition show whether a port could be bound.
pub fn show(bound: &Condition, tried: Result<(), BindError>) -> Again {
    match tried {
        Ok(()) => bound.met(),
        // Nothing can ask there, so it does not matter who has the port.
        Err(error) if error.address.is_ipv6() && ipv6::is_switched_off() => {
            bound.not_applicable(ipv6::SWITCHED_OFF);
        }
        Err(error) => bound.unmet(format!("{error}: {}", error.source)),
    }
    Again::Later
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::mem::MaybeUninit;
    use std::net::IpAddr;
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::time::{sleep, timeout};

    use super::{BIND_AGAIN, SOCKET_BUFFER, bind};
    use crate::lifecycle::condition_name::ConditionName;
    use crate::lifecycle::readiness::Readiness;
    use crate::server::door::limits::ConnectionLimits;
    use crate::server::door::testing::{Client, FAST, PATIENCE, TestServer, eventually, few};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_the_node_does_not_have_can_be_bound() {
        for address in ["169.254.170.23", "fd00:ec2::23"] {
            assert_eq!(bind(ip(address), 0).unwrap().local_addr().ip(), ip(address));
        }
    }

    #[tokio::test]
    async fn a_client_that_is_not_read_takes_no_more_than_the_buffer_that_capacity_reckons_with() {
        let listener = bind(ip("127.0.0.1"), 0).unwrap();
        let mut client = TcpStream::connect(listener.local_addr()).await.unwrap();
        let (accepted, _) = listener.socket.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * SOCKET_BUFFER);
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * SOCKET_BUFFER);
        // What the kernel has not taken over from the client by now stays with the client.
        let stuffed = timeout(Duration::from_millis(200), client.write_all(&[b'x'; 8 << 20])).await;
        assert!(stuffed.is_err());
        let unread = socket.peek(&mut [MaybeUninit::uninit(); 1 << 20]).unwrap();
        assert!((2_048..=2 * SOCKET_BUFFER).contains(&unread), "{unread}");
    }

    #[tokio::test]
    async fn both_families_listen_on_one_port_and_neither_twice() {
        let v4 = bind(ip("127.0.0.1"), 0).unwrap();
        let port = v4.local_addr().port();
        let _v6 = bind(ip("::"), port).unwrap();
        let error = bind(ip("127.0.0.1"), port).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:{port}"));
    }

    #[tokio::test]
    async fn a_restart_does_not_wait_for_old_connections() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let mut client = server.connect().await;
        client.send("GET /fast HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        // The server closes first, so this connection is in TIME_WAIT on its side.
        client.rest().await.unwrap();
        drop(client);
        server.shutdown.begin(PATIENCE);
        server.served.await.unwrap();
        bind(server.address.ip(), server.address.port()).unwrap();
    }

    /// A port that is taken until the listener is dropped.
    fn taken_port() -> (super::Listener, u16) {
        let holder = bind(ip("127.0.0.1"), 0).unwrap();
        let port = holder.local_addr().port();
        (holder, port)
    }

    #[tokio::test]
    async fn a_taken_port_is_awaited_and_affects_no_other_listener() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let (holder, port) = taken_port();
        let readiness = Readiness::new();
        let bound = readiness.advisory(ConditionName::ListenerIpv4Second);
        let acceptor = server.acceptor.clone();
        let second =
            tokio::join!(timeout(PATIENCE, acceptor.serve_when_bound(ip("127.0.0.1"), port, bound)), async {
                eventually(|| readiness.report()[0].reason.contains("in use")).await;
                assert!(server.connect().await.get(FAST).await.ends_with("fast"));
                drop(holder);
                eventually(|| readiness.report()[0].met).await;
                let mut client = Client(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
                assert!(client.get(FAST).await.ends_with("fast"));
                server.shutdown.begin(PATIENCE);
            });
        second.0.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_the_old_agent_gives_up_is_taken_at_once() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let (holder, port) = taken_port();
        let readiness = Readiness::new();
        let bound = readiness.advisory(ConditionName::ListenerIpv4Second);
        let acceptor = server.acceptor.clone();
        tokio::join!(acceptor.serve_when_bound(ip("127.0.0.1"), port, bound), async {
            // As long as an old agent may drain.
            sleep(Duration::from_secs(20)).await;
            assert!(!readiness.report()[0].met);
            drop(holder);
            sleep(BIND_AGAIN + Duration::from_millis(1)).await;
            assert!(readiness.report()[0].met);
            server.shutdown.begin(PATIENCE);
        });
    }
}
