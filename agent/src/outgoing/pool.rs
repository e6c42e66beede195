//! The connections to one server: idle ones, those in the making, and who waits for one.
//!
//! Owns: which request gets which connection, and when one more is made. Must not know: how it is made.
//!
//! Nobody owns a connection in the making. When it is ready it goes to the request that has waited longest;
//! if all have left, it is kept for the next.
//!
//! What breaks one connection without a word (a lapsed NAT entry, a new address of the node, a firewall that
//! has restarted) has broken all. Nothing but an answer proves the way, and only for the time after its
//! request was sent. So a used connection that gives none takes with it all that were idle before: else each
//! would be paid for with an attempt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connect::Way;
use super::dial::MOST_AT_ONCE;
use super::error::{ConnectError, Step};
use super::tls::Tls;
use crate::lifecycle::tasks::spawn_detached;
use crate::telemetry::error_chain::ErrorChain;

/// An idle connection is used no longer than this: a busy node's next call is warm.
const IDLE: Duration = Duration::from_secs(90);
/// More idle connections than calls can be under way (docs/design/decisions.md#upstream) are of no use.
const MOST_IDLE: usize = 50;
/// A connection that has been in the making for longer has another one begun beside it while somebody waits:
/// it may be stuck, and another backend or a new SYN may be quicker.
const YOUNG: Duration = Duration::from_secs(1);
/// Connections in the making at most, stuck ones included.
const MOST_IN_THE_MAKING: usize = 100;
/// Sockets at most, with a request on as many as can be idle.
pub const MOST_SOCKETS: usize = MOST_IN_THE_MAKING * MOST_AT_ONCE + 2 * MOST_IDLE;
/// The head of an answer, and what is read ahead of the body.
const READ_BUFFER: usize = 64 * 1024;

type Sender = SendRequest<Full<Bytes>>;

/// The pool.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    way: Arc<Way>,
    tls: Arc<Tls>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    waiting: VecDeque<oneshot::Sender<Result<Free, ConnectError>>>,
    /// When each was begun.
    making: Vec<Instant>,
}

/// A connection that nobody has.
struct Free {
    sender: Sender,
    /// Whether another request was on it before.
    is_used: bool,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// A connection, for one request. Dropped before its answer is complete, it is closed.
pub(super) struct Lease {
    pub(super) sender: Sender,
    answer: Answer,
}

/// Whether the request on a connection is answered.
struct Answer {
    pool: Pool,
    /// When the connection was taken for the request.
    taken: Instant,
    is_used: bool,
    is_complete: bool,
}

impl Pool {
    pub(super) fn new(way: Way, tls: Arc<Tls>) -> Self {
        Self { shared: Arc::new(Shared { way: Arc::new(way), tls, state: Mutex::default() }) }
    }

    pub(super) fn way(&self) -> &Arc<Way> {
        &self.shared.way
    }

    /// A connection: an idle one, or the first that is free or made.
    pub(super) async fn connection(&self) -> Result<Lease, ConnectError> {
        let mut made = {
            let mut state = self.shared.state.lock();
            if let Some(sender) = state.idle_connection() {
                return Ok(Lease::new(sender, self, true));
            }
            let (sender, made) = oneshot::channel();
            state.waiting.retain(|waiting| !waiting.is_closed());
            state.waiting.push_back(sender);
            self.make_enough(&mut state);
            made
        };

        loop {
            match tokio::time::timeout(YOUNG, &mut made).await {
                Ok(Ok(made)) => return made.map(|free| Lease::new(free.sender, self, free.is_used)),
                // Only a process that ends drops the other end without an answer.
                Ok(Err(_)) => return Err(ConnectError::TimedOut(Step::Connect)),
                Err(_elapsed) => self.make_enough(&mut self.shared.state.lock()),
            }
        }
    }

    /// Begins one more if there are more requests that wait than connections that may soon be there.
    fn make_enough(&self, state: &mut State) {
        let young = state.making.iter().filter(|begun| begun.elapsed() < YOUNG).count();
        if young < state.waiting.len() && state.making.len() < MOST_IN_THE_MAKING {
            self.make(state);
        }
    }

    fn make(&self, state: &mut State) {
        let begun = Instant::now();
        state.making.push(begun);
        let mut making = Making { pool: self.clone(), begun, made: None };
        spawn_detached("upstream-connect", async move {
            let made = making.pool.shared.connect().await;
            if let Err(error) = &made {
                tracing::debug!(to = %making.pool.way(), err = %ErrorChain(error), "no connection");
            }
            making.made = Some(made);
            drop(making);
        });
    }

    /// Gives a connection to the request that has waited longest, or keeps it.
    fn hand_on(&self, sender: Sender, is_used: bool) {
        let mut free = Free { sender, is_used };
        let mut state = self.shared.state.lock();
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.send(Ok(free)) {
                Err(Ok(back)) => free = back,
                Ok(()) | Err(Err(_)) => return,
            }
        }
        state.idle.retain(|idle| idle.since.elapsed() < IDLE && !idle.sender.is_closed());
        if state.idle.len() < MOST_IDLE {
            state.idle.push(Idle { sender: free.sender, since: Instant::now() });
        }
    }

    /// One that was in the making has failed. Those who cannot be served by the others get the error.
    fn failed(&self, error: &ConnectError) {
        let mut state = self.shared.state.lock();
        state.waiting.retain(|waiting| !waiting.is_closed());
        while state.waiting.len() > state.making.len() {
            if let Some(waiting) = state.waiting.pop_front() {
                let _left_in_this_moment = waiting.send(Err(error.clone()));
            }
        }
    }
}

impl State {
    /// The one that was used last: it is the likeliest to live.
    fn idle_connection(&mut self) -> Option<Sender> {
        while let Some(idle) = self.idle.pop() {
            if idle.since.elapsed() < IDLE && idle.sender.is_ready() {
                return Some(idle.sender);
            }
        }
        None
    }
}

impl Shared {
    async fn connect(&self) -> Result<Sender, ConnectError> {
        let stream = TokioIo::new(self.way.connect(&self.tls).await?);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake(stream)
            .await
            .map_err(|error| ConnectError::failed(Step::Connect, std::io::Error::other(error)))?;
        spawn_detached("upstream-connection", async move {
            // How it ended is the business of the request that was on it.
            let _ended = connection.await;
        });
        Ok(sender)
    }
}

/// A connection in the making. However its task ends, it is no longer counted, and those who wait get an
/// answer.
struct Making {
    pool: Pool,
    begun: Instant,
    made: Option<Result<Sender, ConnectError>>,
}

impl Drop for Making {
    fn drop(&mut self) {
        {
            let mut state = self.pool.shared.state.lock();
            if let Some(place) = state.making.iter().position(|begun| *begun == self.begun) {
                state.making.swap_remove(place);
            }
        }
        match self.made.take() {
            Some(Ok(sender)) => self.pool.hand_on(sender, false),
            Some(Err(error)) => self.pool.failed(&error),
            None => self.pool.failed(&ConnectError::TimedOut(Step::Connect)),
        }
    }
}

impl Lease {
    fn new(sender: Sender, pool: &Pool, is_used: bool) -> Self {
        let answer = Answer { pool: pool.clone(), taken: Instant::now(), is_used, is_complete: false };
        Self { sender, answer }
    }

    /// Whether another request was on it before.
    pub(super) fn is_used(&self) -> bool {
        self.answer.is_used
    }

    /// The answer has been read to its end: the connection can be used again, if the server keeps it.
    pub(super) fn give_back(self) {
        let Self { mut sender, mut answer } = self;
        answer.is_complete = true;
        if sender.is_ready() {
            answer.pool.hand_on(sender, true);
            return;
        }
        // It takes the connection's task a moment to see that the answer is over.
        spawn_detached("upstream-return", async move {
            if sender.ready().await.is_ok() {
                answer.pool.hand_on(sender, true);
            }
        });
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.is_used && !self.is_complete {
            let mut state = self.pool.shared.state.lock();
            state.idle.retain(|idle| idle.since > self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{sleep, timeout};

    use super::super::connect::{Origin, Way};
    use super::super::proxy::Proxies;
    use super::super::tls::Tls;
    use super::{Lease, MOST_IN_THE_MAKING, Pool, YOUNG};
    use crate::clock::Clock;
    use crate::lifecycle::tasks::spawn_detached;

    /// Longer than anything takes that works.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// What an attempt has.
    const ATTEMPT: Duration = Duration::from_millis(200);

    /// A server that answers until it is broken; then the connections that it has are dead, and new ones are
    /// not.
    struct Server {
        address: SocketAddr,
        accepted: Arc<AtomicUsize>,
        is_broken: Arc<AtomicBool>,
    }

    /// What happens to a request on a connection that was there before the break.
    #[derive(Clone, Copy, Debug)]
    enum Break {
        Silence,
        Reset,
    }

    impl Server {
        async fn start(how: Break) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = Self { address, accepted: Arc::default(), is_broken: Arc::default() };
            let (accepted, is_broken) = (Arc::clone(&server.accepted), Arc::clone(&server.is_broken));
            spawn_detached("test-server", async move {
                while let Ok((stream, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    let is_old = !is_broken.load(Ordering::Relaxed);
                    spawn_detached("test-server", answer(stream, is_old, Arc::clone(&is_broken), how));
                }
            });
            server
        }

        fn pool(&self) -> Pool {
            let uri = format!("http://{}/", self.address).parse().unwrap();
            Pool::new(
                Way::new(Origin::of(&uri).unwrap(), &Proxies::default()),
                Arc::new(Tls::new(&Clock::system())),
            )
        }

        fn accepted(&self) -> usize {
            self.accepted.load(Ordering::Relaxed)
        }
    }

    async fn answer(mut stream: TcpStream, is_old: bool, is_broken: Arc<AtomicBool>, how: Break) {
        while let Ok(1..) = stream.read(&mut [0; 1024]).await {
            match (is_old && is_broken.load(Ordering::Relaxed), how) {
                (false, _) => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                }
                (true, Break::Silence) => {}
                (true, Break::Reset) => {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
            }
        }
    }

    async fn taken(pool: &Pool) -> Lease {
        timeout(PATIENCE, pool.connection()).await.expect("a connection in time").unwrap()
    }

    /// Sends a request and gives the connection back.
    async fn send(mut lease: Lease) -> Result<(), hyper::Error> {
        let request = Request::get("/").header("Host", "a").body(Full::<Bytes>::default()).unwrap();
        let response = lease.sender.send_request(request).await?;
        response.into_body().collect().await?;
        lease.give_back();
        Ok(())
    }

    /// So many connections that were used and are idle.
    async fn with_idle(pool: &Pool, count: usize) {
        let mut leases = Vec::new();
        for _ in 0..count {
            leases.push(taken(pool).await);
        }
        for lease in leases {
            send(lease).await.unwrap();
        }
        while pool.shared.state.lock().idle.len() < count {
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_dead_way_costs_one_attempt_however_many_connections_were_used_a_moment_ago() {
        for how in [Break::Silence, Break::Reset] {
            let server = Server::start(how).await;
            let pool = server.pool();
            with_idle(&pool, 3).await;
            server.is_broken.store(true, Ordering::Relaxed);
            let lease = taken(&pool).await;
            assert!(lease.is_used(), "{how:?}");
            assert!(!matches!(timeout(ATTEMPT, send(lease)).await, Ok(Ok(()))), "{how:?}");
            let lease = taken(&pool).await;
            assert!(!lease.is_used(), "{how:?}: the others went idle before it was found dead");
            send(lease).await.unwrap();
            assert_eq!(server.accepted(), 4, "{how:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_answered_after_the_unanswered_request_was_sent_is_kept() {
        let server = Server::start(Break::Silence).await;
        let pool = server.pool();
        with_idle(&pool, 1).await;
        let unanswered = taken(&pool).await;
        assert!(unanswered.is_used());
        sleep(Duration::from_millis(2)).await;
        // A new one, which is used and idle while the other waits for its answer.
        with_idle(&pool, 1).await;
        drop(unanswered);
        assert!(taken(&pool).await.is_used());
        assert_eq!(server.accepted(), 2);
    }

    #[tokio::test]
    async fn a_new_connection_that_gives_no_answer_says_nothing_of_the_others() {
        let server = Server::start(Break::Silence).await;
        let pool = server.pool();
        let (first, new) = (taken(&pool).await, taken(&pool).await);
        send(first).await.unwrap();
        while pool.shared.state.lock().idle.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        drop(new);
        assert!(taken(&pool).await.is_used());
    }

    /// A listener with a full queue: the kernel drops every further SYN, as a dead address does.
    fn dead() -> (socket2::Socket, std::net::TcpStream, SocketAddr) {
        let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        dead.listen(0).unwrap();
        let address = dead.local_addr().unwrap().as_socket().unwrap();
        let full = std::net::TcpStream::connect(address).unwrap();
        (dead, full, address)
    }

    #[tokio::test]
    async fn however_many_wait_for_a_dead_server_the_connections_in_the_making_are_bounded() {
        let (_dead, _full, address) = dead();
        let uri = format!("http://{address}/").parse().unwrap();
        let pool = Pool::new(
            Way::new(Origin::of(&uri).unwrap(), &Proxies::default()),
            Arc::new(Tls::new(&Clock::system())),
        );
        let waiting = (0..MOST_IN_THE_MAKING).map(|_| timeout(2 * YOUNG, pool.connection()));
        let making = pool.clone();
        let most = async {
            let mut most = 0;
            for _ in 0..30 {
                most = most.max(making.shared.state.lock().making.len());
                sleep(YOUNG / 20).await;
            }
            most
        };
        let (waited, most) = tokio::join!(futures_util::future::join_all(waiting), most);
        assert!(waited.iter().all(Result::is_err), "nobody answers");
        assert_eq!(most, MOST_IN_THE_MAKING, "others are begun beside those that are stuck, and no more");
    }
}
