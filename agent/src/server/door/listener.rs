//! Sockets that listen, and the loop that accepts until everything sent before the end is answered.
//!
//! Owns: how we bind, what an accept error means, the order of the end. Must not know: HTTP or credentials.
//!
//! Invariant 10: a listener that cannot bind waits in the background and takes nobody down; the accept loop never
//! ends by itself.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use super::activity::CloseRequest;
use super::connection::{self, Respond, Service, http1_with};
use super::limits::ConnectionLimits;
use super::peers::Peers;
use super::stats::count;
use crate::backoff::Backoff;
use crate::lifecycle::readiness::Condition;
use crate::lifecycle::shutdown::{Phase, Shutdown};
use crate::lifecycle::tasks::Tasks;

/// Handshakes that are complete and wait for accept. 1,024: a burst of every process on a full node.
const BACKLOG: i32 = 1_024;
/// A new agent that stands beside the old one (a surge) waits for its port: the old one ends within so long, drained.
const REPLACING: Duration = Duration::from_secs(60);
/// Until then it tries this often: nobody serves from the old one's end to the next try.
const BIND_AGAIN: Duration = Duration::from_millis(20);
/// After that somebody else has the port, and may have it for long.
const BIND_LATER: Duration = Duration::from_secs(1);
/// The pauses after accepts that failed for want of descriptors or memory.
const ACCEPT_RETRY: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
/// How often a failing accept is logged, at most.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(10);
/// How long a new connection waits for others that are closing to make room for it.
const ROOM_PATIENCE: Duration = Duration::from_millis(100);
/// How long a handshake that has begun may take to end: a pod is microseconds away, so this is for a busy CPU.
const HANDSHAKE: Duration = Duration::from_millis(20);
/// How often idle connections are asked to close while draining.
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// An address we cannot listen on.
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
    socket: TcpListener,
    local: SocketAddr,
}

impl Listener {
    /// The address and, if 0 was asked for, the port the kernel has chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// Listens on an address, even one the node does not have yet: when it appears, the socket serves, and when it is
/// removed and comes back, it serves again (facts 7.2). Must be called inside the runtime.
pub fn bind(address: IpAddr, port: u16) -> Result<Listener, BindError> {
    let address = SocketAddr::new(address, port);
    let listen = || {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => {
                socket.set_freebind_v6(true)?;
                // IPv4 has a listener of its own; a v6 one must not take its port.
                socket.set_only_v6(true)?;
            }
        }
        // So that a restart need not wait for connections in TIME_WAIT. On Linux this does not let two sockets listen
        // on one address: that takes SO_REUSEPORT, which we never set, because with it any root process on the host
        // network could take half of all tokens (design 4.7).
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Listener { socket, local })
    };
    listen().map_err(|source| BindError { address, source })
}

/// Serves any number of listeners with one responder, under shared limits.
pub struct FrontDoor<R> {
    service: Arc<Service<R>>,
    tasks: Tasks,
}

impl<R> Clone for FrontDoor<R> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service), tasks: self.tasks.clone() }
    }
}

impl<R: Respond> FrontDoor<R> {
    /// A front door without listeners.
    pub fn new(
        respond: Arc<R>,
        peers: Peers,
        limits: ConnectionLimits,
        shutdown: Shutdown,
        tasks: Tasks,
    ) -> Self {
        let http = http1_with(&limits);
        Self { service: Arc::new(Service { respond, peers, shutdown, limits, http }), tasks }
    }

    /// Binds and serves; while it cannot bind, tries again in the background. `bound` shows which it is: whether
    /// readiness waits for it is up to whoever made the condition.
    pub async fn serve_when_bound(&self, address: IpAddr, port: u16, bound: Condition) {
        let since = Instant::now();
        loop {
            match bind(address, port) {
                Ok(listener) => {
                    tracing::info!(address = %listener.local_addr(), "listening");
                    bound.met();
                    return self.serve(listener).await;
                }
                Err(error) => bound.unmet(format!("{error}: {}", error.source)),
            }
            let pause = if since.elapsed() < REPLACING { BIND_AGAIN } else { BIND_LATER };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.service.shutdown.wait_for_draining() => return,
            }
        }
    }

    /// Accepts until the process drains, then on until what was in flight then is answered (or the grace period ends).
    /// Then takes what waits in the kernel's queue, answers that too, and closes the listener last: closing it earlier
    /// would reset who waits there. It does not wait for a moment without any request: under load there is none.
    pub async fn serve(&self, listener: Listener) {
        let in_flight = self.accept_until(&listener, self.service.shutdown.wait_for_draining()).await;
        let late = self.accept_until(&listener, self.drained(&in_flight)).await;
        drop_new_syns(&listener.socket);
        let last = self.accept_until(&listener, sleep(HANDSHAKE)).await;
        // The kernel is asked itself: tokio knows only what the last turn of its event loop has seen.
        while let Ok((stream, peer)) = accept_now(&listener.socket) {
            self.admit(stream, peer, &last).await;
        }
        self.drained(&late).await;
        self.drained(&last).await;
        drop(listener);
        let left = in_flight.len() + late.len() + last.len();
        if left > 0 {
            tracing::warn!(connections = left, "grace period over, closing what is in flight");
            self.service.peers.ask_all(CloseRequest::CloseNow);
        }
    }

    /// The accept loop. Returns the connections it has let in, as a tracker whose wait ends when none is open.
    async fn accept_until(&self, listener: &Listener, end: impl Future<Output = ()>) -> TaskTracker {
        let open = TaskTracker::new();
        open.close();
        let mut trouble = AcceptTrouble::new();
        let mut end = pin!(end);
        loop {
            tokio::select! {
                // The end first: what is left then is taken by asking the kernel.
                biased;
                () = &mut end => return open,
                accepted = listener.socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        trouble.over();
                        self.admit(stream, peer, &open).await;
                    }
                    Err(error) => self.after_failed_accept(&error, &mut trouble).await,
                },
            }
        }
    }

    async fn admit(&self, stream: TcpStream, peer: SocketAddr, open: &TaskTracker) {
        let permit = match self.service.peers.connect(peer.ip(), ROOM_PATIENCE).await {
            Ok(permit) => permit,
            Err(reason) => {
                tracing::debug!(peer.addr = %peer, %reason, "connection refused");
                return;
            }
        };
        // A response is one write; waiting to send it with a next one would cost 40 ms. Failing means it has gone.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let token = open.token();
        let service = Arc::clone(&self.service);
        self.tasks.spawn("connection", async move {
            connection::serve(service, stream, permit).await;
            drop(token);
        });
    }

    async fn after_failed_accept(&self, error: &io::Error, trouble: &mut AcceptTrouble) {
        if is_about_one_connection(error) {
            return;
        }
        count(&self.service.peers.stats().accept_errors);
        let made_room = self.service.peers.close_oldest_idle();
        if trouble.should_log() {
            tracing::error!(err = %error, made_room, "accept failed");
        }
        sleep(trouble.next_pause()).await;
    }

    /// While the process drains: returns when these connections are closed, or no time is left.
    async fn drained(&self, open: &TaskTracker) {
        let shutdown = &self.service.shutdown;
        loop {
            self.service.peers.ask_all(CloseRequest::CloseWhenIdle);
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

/// Makes the kernel drop new knocks at this listener: a packet filter that lets everything but SYN through. Who knocks
/// now tries again a second later, at whoever listens then; without this, a connection that came between the last
/// accept and the close would be reset (measured: one in some dozen ends under load). Connections accepted, queued or
/// half open before are not touched.
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

fn accept_now(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

/// Whether accept failed because of the one connection it was to return (accept(2) lists these), so that the next
/// may well succeed. Everything else is want of descriptors or memory, or something new: then a pause is right.
fn is_about_one_connection(error: &io::Error) -> bool {
    const ONE_CONNECTION: [Errno; 14] = [
        Errno::ECONNABORTED,
        Errno::ECONNRESET,
        Errno::EINTR,
        Errno::EPERM,
        Errno::EPROTO,
        Errno::ETIMEDOUT,
        Errno::ENETDOWN,
        Errno::ENETUNREACH,
        Errno::ENONET,
        Errno::ENOPROTOOPT,
        Errno::EHOSTDOWN,
        Errno::EHOSTUNREACH,
        Errno::EOPNOTSUPP,
        Errno::EWOULDBLOCK,
    ];
    error.raw_os_error().is_some_and(|code| ONE_CONNECTION.contains(&Errno::from_raw(code)))
}

/// Accept failing again and again.
struct AcceptTrouble {
    in_a_row: u32,
    logged: Option<Instant>,
}

impl AcceptTrouble {
    const fn new() -> Self {
        Self { in_a_row: 0, logged: None }
    }

    const fn over(&mut self) {
        self.in_a_row = 0;
    }

    fn next_pause(&mut self) -> Duration {
        self.in_a_row = self.in_a_row.saturating_add(1);
        ACCEPT_RETRY.pause(self.in_a_row)
    }

    fn should_log(&mut self) -> bool {
        let now = Instant::now();
        let due = self.logged.is_none_or(|logged| now.duration_since(logged) >= ACCEPT_LOG_EVERY);
        if due {
            self.logged = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::{AcceptTrouble, BIND_AGAIN, Errno, HANDSHAKE, bind, is_about_one_connection};
    use crate::lifecycle::condition_name::ConditionName;
    use crate::lifecycle::readiness::Readiness;
    use crate::server::door::limits::ConnectionLimits;
    use crate::server::door::peers::PeerLimits;
    use crate::server::door::testing::{Client, Door, FAST, PATIENCE, SLOW, eventually, few};

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
    async fn both_families_listen_on_one_port_and_nobody_twice() {
        let v4 = bind(ip("127.0.0.1"), 0).unwrap();
        let port = v4.local_addr().port();
        let _v6 = bind(ip("::"), port).unwrap();
        let error = bind(ip("127.0.0.1"), port).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:{port}"));
    }

    #[tokio::test]
    async fn a_restart_does_not_wait_for_old_connections() {
        let door = Door::open(ConnectionLimits::default(), few(4));
        let mut client = door.connect().await;
        client.send("GET /fast HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        client.rest().await.unwrap(); // We closed first, so this connection is in TIME_WAIT on our side.
        drop(client);
        door.shutdown.begin(PATIENCE);
        door.served.await.unwrap();
        bind(door.address.ip(), door.address.port()).unwrap();
    }

    /// A port that somebody listens on until the listener is dropped.
    fn taken_port() -> (super::Listener, u16) {
        let holder = bind(ip("127.0.0.1"), 0).unwrap();
        let port = holder.local_addr().port();
        (holder, port)
    }

    #[tokio::test]
    async fn a_taken_port_is_awaited_and_takes_no_other_listener_down() {
        let door = Door::open(ConnectionLimits::default(), few(4));
        let (holder, port) = taken_port();
        let readiness = Readiness::new();
        let bound = readiness.advisory(ConditionName::ListenerIpv4Second);
        let front = door.front.clone();
        let second =
            tokio::join!(timeout(PATIENCE, front.serve_when_bound(ip("127.0.0.1"), port, bound)), async {
                eventually(|| readiness.report()[0].reason.contains("in use")).await;
                assert!(door.connect().await.get(FAST).await.ends_with("fast"));
                drop(holder);
                eventually(|| readiness.report()[0].met).await;
                let mut client = Client(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
                assert!(client.get(FAST).await.ends_with("fast"));
                door.shutdown.begin(PATIENCE);
            });
        second.0.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_the_old_agent_gives_up_is_taken_at_once() {
        let door = Door::open(ConnectionLimits::default(), few(4));
        let (holder, port) = taken_port();
        let readiness = Readiness::new();
        let bound = readiness.advisory(ConditionName::ListenerIpv4Second);
        let front = door.front.clone();
        tokio::join!(front.serve_when_bound(ip("127.0.0.1"), port, bound), async {
            // As long as an old agent may drain.
            sleep(Duration::from_secs(20)).await;
            assert!(!readiness.report()[0].met);
            drop(holder);
            sleep(BIND_AGAIN + Duration::from_millis(1)).await;
            assert!(readiness.report()[0].met);
            door.shutdown.begin(PATIENCE);
        });
    }

    #[tokio::test]
    async fn a_panic_ends_one_connection_and_nothing_else() {
        let door = Door::open(ConnectionLimits::default(), few(4));
        let mut client = door.connect().await;
        client.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.rest().await.unwrap_or_default(), "");
        assert!(door.connect().await.get(FAST).await.ends_with("fast"));
        eventually(|| door.stats().connections_open <= 1).await;
    }

    #[tokio::test]
    async fn one_connection_too_many_closes_the_one_idle_longest() {
        let door = Door::open(ConnectionLimits::default(), few(64));
        let mut clients = Vec::new();
        for _ in 0..64 {
            let mut client = door.connect().await;
            client.get(FAST).await;
            clients.push(client);
            // Idle times are compared in milliseconds.
            sleep(Duration::from_millis(2)).await;
        }
        // The first has been busy since, so the second is idle longest.
        clients[0].get(FAST).await;
        assert!(door.connect().await.get(FAST).await.ends_with("fast"));
        assert_eq!(clients[1].rest().await.unwrap(), "");
        assert!(clients[0].get(FAST).await.ends_with("fast"));
        assert!(clients[2].get(FAST).await.ends_with("fast"));
        assert_eq!(door.stats().idle_evicted, 1);
        assert_eq!(door.stats().connections_refused_peer, 0);
    }

    #[tokio::test]
    async fn a_peer_whose_connections_are_all_busy_is_refused_and_no_other() {
        let door = Door::open(ConnectionLimits::default(), few(64));
        let mut clients = Vec::new();
        for _ in 0..64 {
            let mut client = door.connect().await;
            client.send(SLOW).await;
            clients.push(client);
        }
        door.wait_for_slow(64).await;
        assert_eq!(door.connect().await.rest().await.unwrap_or_default(), "");
        eventually(|| door.stats().connections_refused_peer == 1).await;
        assert!(door.connect_from([127, 0, 0, 2]).await.get(FAST).await.ends_with("fast"));
        door.script.gate.add_permits(64);
        for client in &mut clients {
            assert!(client.response().await.ends_with("slow"));
        }
    }

    #[tokio::test]
    async fn idle_connections_of_many_peers_do_not_starve_a_new_one() {
        let mut limits = few(64);
        limits.all_connections = 20;
        let door = Door::open(ConnectionLimits::default(), limits);
        let mut idle = Vec::new();
        for peer in 1..=20 {
            let mut client = door.connect_from([127, 0, 1, peer]).await;
            client.get(FAST).await;
            idle.push(client);
        }
        let mut busy = Vec::new();
        for peer in 1..=20 {
            let mut client = door.connect_from([127, 0, 2, peer]).await;
            client.send(SLOW).await;
            busy.push(client);
        }
        door.wait_for_slow(20).await;
        // Now nobody is idle.
        assert_eq!(door.connect_from([127, 0, 3, 1]).await.rest().await.unwrap_or_default(), "");
        eventually(|| door.stats().connections_refused_full == 1).await;
        assert_eq!(door.stats().idle_evicted, 20);
        door.script.gate.add_permits(20);
        for client in &mut busy {
            assert!(client.response().await.ends_with("slow"));
        }
    }

    #[tokio::test]
    async fn draining_answers_what_is_in_flight_and_what_comes_and_closes_the_listener_last() {
        let door = Door::open(ConnectionLimits::default(), few(64));
        let mut idle = door.connect().await;
        idle.get(FAST).await;
        let mut held = door.connect().await;
        held.send(SLOW).await;
        door.wait_for_slow(1).await;
        door.shutdown.begin(PATIENCE * 6);
        assert_eq!(idle.rest().await.unwrap(), "");
        let late = door.connect().await.get(FAST).await;
        assert!(late.contains("connection: close") && late.ends_with("fast"), "{late}");
        assert!(!door.served.is_finished());
        door.script.gate.add_permits(1);
        let answer = held.rest().await.unwrap();
        assert!(answer.contains("connection: close") && answer.ends_with("slow"), "{answer}");
        timeout(PATIENCE, door.served).await.unwrap().unwrap();
        let refused = TcpStream::connect(door.address).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn what_waits_in_the_queue_when_the_end_begins_is_answered() {
        let door = Door::open(ConnectionLimits::default(), few(64));
        door.shutdown.begin(PATIENCE);
        // The listener's task has not run yet, and std connects without letting it.
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let mut client = std::net::TcpStream::connect(door.address).unwrap();
                io::Write::write_all(&mut client, FAST.as_bytes()).unwrap();
                client.set_nonblocking(true).unwrap();
                client
            })
            .collect();
        // It runs as far as it can without learning of them; after this it finds the time for handshakes over.
        let mut busy = JoinSet::new();
        busy.spawn(async { std::thread::sleep(HANDSHAKE * 2) });
        for client in clients {
            let answer = Client(TcpStream::from_std(client).unwrap()).rest().await.unwrap();
            assert!(answer.ends_with("fast"), "{answer}");
        }
        timeout(PATIENCE, door.served).await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn under_load_nobody_is_reset_while_the_listener_closes() {
        // Several ends at once, because each takes the second after which a dropped knock is repeated.
        let mut ends = JoinSet::new();
        for end in 0..12 {
            ends.spawn(async move {
                let door = Door::open(ConnectionLimits::default(), PeerLimits::for_descriptors(1_024));
                let mut clients = JoinSet::new();
                for _ in 0..4 {
                    clients.spawn(ask_until_nobody_listens(door.address));
                }
                sleep(Duration::from_millis(20 * end)).await;
                door.shutdown.begin(PATIENCE);
                timeout(PATIENCE, door.served).await.unwrap().unwrap();
                clients.join_all().await
            });
        }
        let answers: usize = ends.join_all().await.into_iter().flatten().sum();
        assert!(answers > 100, "{answers}");
    }

    /// How many answers there were; panics unless each connection that came about got one.
    async fn ask_until_nobody_listens(address: SocketAddr) -> usize {
        let mut answers = 0;
        loop {
            // A knock that the kernel drops is repeated after a second, and then refused.
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
        let door = Door::open(ConnectionLimits::default(), few(64));
        let mut held = door.connect().await;
        held.send(SLOW).await;
        door.wait_for_slow(1).await;
        door.shutdown.begin(Duration::from_millis(100));
        timeout(PATIENCE, door.served).await.unwrap().unwrap();
        assert_eq!(held.rest().await.unwrap_or_default(), "");
    }

    #[test]
    fn only_errors_about_one_connection_are_passed_over() {
        for errno in [Errno::ECONNABORTED, Errno::ECONNRESET, Errno::EINTR, Errno::EPERM] {
            assert!(is_about_one_connection(&errno.into()), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EINVAL] {
            assert!(!is_about_one_connection(&errno.into()), "{errno}");
        }
    }

    #[test]
    fn pauses_after_failed_accepts_double_and_begin_again_after_a_good_one() {
        let mut trouble = AcceptTrouble::new();
        let pauses: Vec<u128> = (0..9).map(|_| trouble.next_pause().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        trouble.over();
        assert_eq!(trouble.next_pause().as_millis(), 10);
    }
}
