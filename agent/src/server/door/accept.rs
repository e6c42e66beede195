//! The loop that accepts connections.
//!
//! Owns: letting connections in, and what an accept error means. Must not know: HTTP or credentials. How a
//! socket is bound is in `bind`, how the loop ends in `drain`.
//!
//! Invariant 10: a listener that cannot bind waits in the background and affects no other; the accept loop
//! never ends by itself.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::bind::{self, Listener, bind_first_free};
use super::connection::{self, Respond, Service, http1_with};
use super::limits::ConnectionLimits;
use super::peers::{ConnectionPermit, NotNow, Peers, TooMany};
use super::stats::count;
use crate::backoff::Backoff;
use crate::lifecycle::readiness::Condition;
use crate::lifecycle::shutdown::{Phase, Shutdown};
use crate::lifecycle::tasks::Tasks;

/// First and longest pause after an accept that failed for lack of descriptors or memory.
const ACCEPT_RETRY: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
/// How often a failing accept is logged, at most.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(10);
/// While no more may wait, who has less than his share waits for a place, and the kernel's queue with him.
/// Not for long: those behind him may have nothing at all.
const ROOM_WAIT: Duration = Duration::from_millis(250);
/// Before a connection is refused, those that were accepted just now have this long to take their places: all
/// that come at once are accepted faster than that, and would have to wait together.
const BREATH: Duration = Duration::from_millis(2);
/// But not again within this time, so that one who is refused all the time delays nobody.
const BREATH_EVERY: Duration = Duration::from_millis(10);
/// This often it is tried again.
const ROOM_RETRY: Duration = Duration::from_millis(5);

/// Serves any number of listeners with one responder, under shared limits.
pub struct Acceptor<R> {
    pub(super) service: Arc<Service<R>>,
    tasks: Tasks,
    /// When refusals last waited for a breath.
    breath: Arc<Mutex<Option<Instant>>>,
}

impl<R> Clone for Acceptor<R> {
    fn clone(&self) -> Self {
        let (service, breath) = (Arc::clone(&self.service), Arc::clone(&self.breath));
        Self { service, tasks: self.tasks.clone(), breath }
    }
}

impl<R: Respond> Acceptor<R> {
    /// An acceptor without listeners.
    pub fn new(
        respond: Arc<R>,
        peers: Peers,
        limits: ConnectionLimits,
        shutdown: Shutdown,
        tasks: Tasks,
    ) -> Self {
        let http = http1_with(&limits);
        let service = Arc::new(Service { respond, peers, shutdown, limits, http });
        Self { service, tasks, breath: Arc::default() }
    }

    /// Binds and serves; while it cannot bind, it tries again. `bound` shows which of the two it does;
    /// whether readiness waits for that condition is decided where the condition is made.
    pub async fn serve_when_bound(&self, address: IpAddr, port: u16, bound: Condition) {
        let ports = [port];
        let listener = tokio::select! {
            biased;
            listener = bind_first_free(address, &ports, |tried| bind::show(&bound, tried)) => listener,
            () = self.service.shutdown.wait_for_draining() => return,
        };
        self.serve(listener).await;
    }

    /// The accept loop. Returns a tracker of the connections that it accepted; waiting on it ends when none
    /// is open.
    pub(super) async fn accept_until(
        &self,
        listener: &Listener,
        end: impl Future<Output = ()>,
    ) -> TaskTracker {
        let open = TaskTracker::new();
        open.close();
        let mut trouble = AcceptTrouble::new();
        let mut end = pin!(end);
        loop {
            tokio::select! {
                // The end first: what is left by then is taken from the kernel's queue.
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

    pub(super) async fn admit(&self, stream: TcpStream, peer: SocketAddr, open: &TaskTracker) {
        let Some(permit) = self.room_for(peer).await else { return };
        // A response is one write; waiting to send it with a next one would cost 40 ms. An error means that
        // the client has left.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let service = Arc::clone(&self.service);
        self.tasks.spawn("connection", connection::serve(service, stream, permit, open.token()));
    }

    /// Room for a connection. Where there is none, a peer that has its share is refused at once, and nobody
    /// waits for it.
    async fn room_for(&self, from: SocketAddr) -> Option<ConnectionPermit> {
        let peers = &self.service.peers;
        let deadline = Instant::now() + ROOM_WAIT;
        let reason = loop {
            match peers.accept(from) {
                Ok(permit) => return Some(permit),
                Err(NotNow::Wait) if Instant::now() < self.within_grace(deadline) => sleep(ROOM_RETRY).await,
                Err(NotNow::Wait) => break TooMany::OfAll,
                Err(NotNow::Refuse(_)) if self.may_take_a_breath() => sleep(BREATH).await,
                Err(NotNow::Refuse(reason)) => break reason,
            }
        };
        peers.count_refused(reason);
        tracing::debug!(peer.addr = %from, %reason, "connection refused");
        None
    }

    /// Whether a refusal may wait a moment. If so, others may not for a while.
    fn may_take_a_breath(&self) -> bool {
        let now = Instant::now();
        let mut last = self.breath.lock();
        let is_rested = last.is_none_or(|at| now.saturating_duration_since(at) >= BREATH_EVERY);
        if is_rested {
            *last = Some(now);
        }
        is_rested
    }

    /// The deadline, or the end of the grace period if that comes first.
    fn within_grace(&self, deadline: Instant) -> Instant {
        match self.service.shutdown.phase() {
            Phase::Running => deadline,
            Phase::Draining { until } => deadline.min(until),
            Phase::Stopped => Instant::now(),
        }
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
}

/// Whether accept failed because of the one connection that it was to return (accept(2) lists these), so that
/// the next call may succeed. All other errors are a lack of descriptors or memory, or unknown: then a pause
/// is right.
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

/// A series of failed accepts.
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
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::time::{Instant, sleep, timeout};

    use super::{AcceptTrouble, Errno, is_about_one_connection};
    use crate::server::door::limits::{ConnectionLimits, PeerLimits};
    use crate::server::door::places::Room;
    use crate::server::door::testing::{FAST, PATIENCE, SLOW, TestServer, eventually, few};

    #[tokio::test]
    async fn a_panic_ends_one_connection_and_nothing_else() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let mut client = server.connect().await;
        client.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.rest().await.unwrap_or_default(), "");
        assert!(server.connect().await.get(FAST).await.ends_with("fast"));
        eventually(|| server.stats().connections_open <= 1).await;
    }

    #[tokio::test]
    async fn one_connection_too_many_closes_the_one_idle_longest() {
        let server = TestServer::start(ConnectionLimits::default(), few(64));
        let mut clients = Vec::new();
        for _ in 0..64 {
            let mut client = server.connect().await;
            client.get(FAST).await;
            clients.push(client);
            // Idle times are compared in milliseconds.
            sleep(Duration::from_millis(2)).await;
        }
        // The first was used after that, so the second is idle longest.
        clients[0].get(FAST).await;
        assert!(server.connect().await.get(FAST).await.ends_with("fast"));
        assert_eq!(clients[1].rest().await.unwrap(), "");
        assert!(clients[0].get(FAST).await.ends_with("fast"));
        assert!(clients[2].get(FAST).await.ends_with("fast"));
        assert_eq!(server.stats().idle_evicted, 1);
        assert_eq!(server.stats().connections_refused_peer, 0);
    }

    #[tokio::test]
    async fn a_request_over_the_allowance_waits_for_a_place_and_delays_no_other_peer() {
        let server = TestServer::start(ConnectionLimits::default(), few(64));
        let mut clients = Vec::new();
        for _ in 0..64 {
            let mut client = server.connect().await;
            client.send(SLOW).await;
            clients.push(client);
        }
        server.wait_for_slow(64).await;
        let mut waiting = server.connect().await;
        waiting.send(FAST).await;
        eventually(|| server.stats().connections_delayed_peer == 1).await;
        assert!(server.connect_from([127, 0, 0, 2]).await.get(FAST).await.ends_with("fast"));
        server.script.gate.add_permits(1);
        // The answer says that its connection ends: another one waits for its place.
        let answer = waiting.response().await;
        assert!(answer.ends_with("fast"), "{answer}");
        server.script.gate.add_permits(63);
        let mut closed = 0;
        for client in &mut clients {
            let answer = client.response().await;
            assert!(answer.ends_with("slow"), "{answer}");
            closed += usize::from(answer.contains("connection: close"));
        }
        assert_eq!(closed, 1);
        assert_eq!(server.stats().connections_refused_peer, 0);
    }

    #[tokio::test]
    async fn a_request_is_refused_when_it_has_waited_as_long_as_it_would_be_held_and_silence_is_closed() {
        let place = Duration::from_millis(300);
        let server = TestServer::start(ConnectionLimits { place, ..ConnectionLimits::default() }, few(4));
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = server.connect().await;
            client.send(SLOW).await;
            clients.push(client);
        }
        server.wait_for_slow(4).await;
        let started = Instant::now();
        let (mut whole, mut half) = (server.connect().await, server.connect().await);
        whole.send(FAST).await;
        half.send("GET /fa").await;
        let refusal = whole.rest().await.unwrap();
        assert!(refusal.ends_with("refused") && refusal.contains("connection: close"), "{refusal}");
        assert!(started.elapsed() >= place);
        assert_eq!(half.rest().await.unwrap_or_default(), "");
        assert_eq!(server.stats().connections_refused_peer, 2);
    }

    #[tokio::test]
    async fn idle_connections_of_many_peers_do_not_starve_a_new_one() {
        let mut limits = few(5);
        limits.connections.all = 20;
        let server = TestServer::start(ConnectionLimits::default(), limits);
        let mut idle = Vec::new();
        for peer in 1..=20 {
            let mut client = server.connect_from([127, 0, 1, peer]).await;
            client.get(FAST).await;
            idle.push(client);
        }
        let mut busy = Vec::new();
        for peer in 1..=20 {
            let mut client = server.connect_from([127, 0, 2, peer]).await;
            client.send(SLOW).await;
            busy.push(client);
        }
        server.wait_for_slow(20).await;
        // Now none is idle, so the next one waits.
        let mut next = server.connect_from([127, 0, 3, 1]).await;
        next.send(FAST).await;
        eventually(|| server.stats().connections_delayed_full >= 21).await;
        assert_eq!(server.stats().idle_evicted, 20);
        server.script.gate.add_permits(20);
        assert!(next.response().await.ends_with("fast"));
        for client in &mut busy {
            assert!(client.response().await.ends_with("slow"));
        }
        assert_eq!(server.stats().connections_refused_full, 0);
    }

    /// Each peer may have a quarter of 16 places, and one may wait with as many as may of all, which is 8.
    fn all_may_be_one_peers() -> PeerLimits {
        PeerLimits { waiting: Room { all: 8, most: 9, least: 9 }, ..few(4) }
    }

    #[tokio::test]
    async fn a_peer_that_fills_the_room_to_wait_is_refused_at_once_and_delays_nobody() {
        let server = TestServer::start(ConnectionLimits::default(), all_may_be_one_peers());
        let mut greedy = Vec::new();
        for n in 0..20 {
            let mut client = server.connect().await;
            // The last eight are refused, perhaps before they send.
            let _gone = client.0.write_all(SLOW.as_bytes()).await;
            if n == 3 {
                server.wait_for_slow(4).await;
            }
            greedy.push(client);
        }
        let began = Instant::now();
        assert!(server.connect_from([127, 0, 0, 2]).await.get(FAST).await.ends_with("fast"));
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        eventually(|| server.stats().connections_refused_full == 8).await;
        assert_eq!(server.stats().connections_refused_peer, 0);
    }

    #[tokio::test]
    async fn the_grace_period_ends_however_many_are_in_the_kernels_queue_and_find_no_room() {
        let server = TestServer::start(ConnectionLimits::default(), all_may_be_one_peers());
        let mut clients = Vec::new();
        for n in 0..120 {
            let mut client = server.connect_from([127, 0, 4, 1 + n]).await;
            let _gone = client.0.write_all(SLOW.as_bytes()).await;
            clients.push(client);
        }
        server.wait_for_slow(16).await;
        let began = Instant::now();
        server.shutdown.begin(Duration::from_millis(600));
        timeout(PATIENCE, server.served).await.unwrap().unwrap();
        let took = began.elapsed();
        assert!((600..1_200).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test]
    async fn a_refusal_after_waiting_is_charged_to_all_where_all_places_were_taken() {
        let place = Duration::from_millis(100);
        let server = TestServer::start(ConnectionLimits { place, ..ConnectionLimits::default() }, few(1));
        let mut busy = Vec::new();
        for peer in 1..=4 {
            let mut client = server.connect_from([127, 0, 5, peer]).await;
            client.send(SLOW).await;
            busy.push(client);
        }
        server.wait_for_slow(4).await;
        let mut fifth = server.connect_from([127, 0, 5, 5]).await;
        fifth.send(FAST).await;
        assert!(fifth.rest().await.unwrap().ends_with("refused"));
        let stats = server.stats();
        assert_eq!((stats.connections_refused_full, stats.connections_refused_peer), (1, 0));
    }

    #[tokio::test]
    async fn what_a_request_waits_for_a_place_is_part_of_its_time() {
        let server = TestServer::start(ConnectionLimits::default(), few(1));
        let mut busy = server.connect().await;
        busy.send(SLOW).await;
        server.wait_for_slow(1).await;
        let mut waiting = server.connect().await;
        waiting.send("GET /since HTTP/1.1\r\nHost: a\r\n\r\n").await;
        eventually(|| server.stats().connections_delayed_peer == 1).await;
        sleep(Duration::from_millis(100)).await;
        server.script.gate.add_permits(1);
        let answer = waiting.response().await;
        let (_, waited) = answer.split_once("\r\n\r\n").unwrap();
        assert!(waited.parse::<u64>().unwrap() >= 100, "{waited}");
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
