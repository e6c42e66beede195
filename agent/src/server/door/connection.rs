//! One HTTP/1 connection from its first request to its last byte.
//!
//! Owns: hyper's settings, every time limit of a connection, and how it ends. Must not know: what is
//! requested and answered; that is behind [`Respond`]. What comes before the first request is in `arrival`.
//!
//! hyper has one timer for request heads, which also runs while a connection is idle, and none for responses.
//! So [`WatchedStream`] notes what happens, and one timer per connection checks it: a request that is
//! answered at once costs no timer.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::activity::{CloseRequest, Phase};
use super::arrival::{Arrival, arrive};
use super::limits::ConnectionLimits;
use super::peers::{ConnectionPermit, HoldPermit, Peers};
use super::stats::count;
use super::watched_stream::WatchedStream;
use crate::lifecycle::shutdown::Shutdown;
use crate::workload::PeerKey;

/// Answers requests. It never reads a request's body and limits its own time.
pub trait Respond: Send + Sync + 'static {
    /// What it remembers of one connection, from one request to the next.
    type Memory: Default + Send + Sync;

    /// Answers one request. Dropped if the client leaves: work that must go on runs in its own
    /// task.
    fn respond(
        &self,
        peer: Peer,
        memory: &Self::Memory,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;

    /// The answer to a request that found no place for as long as it would have been held.
    fn refuse(&self, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>>;
}

/// The other end of a connection, as far as the socket knows.
#[derive(Clone)]
pub struct Peer {
    /// The address; an IPv4-mapped IPv6 address is given as IPv4.
    pub address: IpAddr,
    /// Its port; 0 if it has left already.
    pub port: u16,
    /// Whether it is one of the node's own addresses: a process of the node, or a pod on the host network.
    pub is_host: bool,
    /// The local address that it connected to.
    pub local: SocketAddr,
    /// When the request began to wait, for a place or for its answer.
    pub since: Instant,
    key: PeerKey,
    peers: Peers,
}

impl Peer {
    /// The peer that its requests are counted for.
    pub fn key(&self) -> PeerKey {
        self.key
    }

    /// Permission to be held; waited for if this peer has all it may have. Cancel-safe.
    pub async fn hold(&self) -> HoldPermit {
        self.peers.hold(self.key).await
    }
}

/// What all connections of a listener share.
pub(super) struct Service<R> {
    pub(super) respond: Arc<R>,
    pub(super) peers: Peers,
    pub(super) shutdown: Shutdown,
    pub(super) limits: ConnectionLimits,
    pub(super) http: http1::Builder,
}

/// hyper, with each of its limits set on purpose.
pub(super) fn http1_with(limits: &ConnectionLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        // The timer of `drive` does this, and tells slow from idle.
        .header_read_timeout(None)
        // 100 header lines, else 431: hyper's default, left alone because any other number, 100 included,
        // moves the parser's table from the stack to the heap, for every request (hyper's docs; measured).
        // SDKs send up to eight.
        .max_buf_size(limits.head_bytes)
        .keep_alive(true)
        // A client that closes its sending side has left: its request is dropped if it cannot be answered at
        // once (`watched_stream`). Most who do so have given up, and TCP cannot tell them from the others.
        .half_close(false)
        .auto_date_header(true);
    http
}

/// Serves one connection until it ends; it holds `permit`, and is `open`, until then.
pub(super) async fn serve<R: Respond>(
    service: Arc<Service<R>>,
    stream: TcpStream,
    mut permit: ConnectionPermit,
    open: TaskTrackerToken,
) {
    let arrival = match arrive(&service.limits, &service.peers, &stream, &mut permit).await {
        Some(arrival) => arrival,
        None => return,
    };
    // In a box of its own: a connection that waits costs none of this.
    Box::pin(serve_http(service, stream, permit, arrival)).await;
    drop(open);
}

async fn serve_http<R: Respond>(
    service: Arc<Service<R>>,
    stream: TcpStream,
    mut permit: ConnectionPermit,
    arrival: Arrival,
) {
    let Ok(local) = stream.local_addr() else { return };
    let address = permit.address();
    let is_host = service.peers.is_host(address);
    let port = stream.peer_addr().map_or(0, |peer| peer.port());
    let (key, peers) = (permit.peer(), service.peers.clone());
    let peer = Peer { address, port, is_host, local, since: Instant::now(), key, peers };
    let mut stream = WatchedStream::new(stream, Arc::clone(permit.activity()));
    let end = {
        let first = Mutex::new(Some(arrival));
        let memory = R::Memory::default();
        let requests = Requests { service: &service, permit: &permit, peer, first, memory };
        let answer = service_fn(|request| requests.answer(request));
        let connection = service.http.serve_connection(TokioIo::new(&mut stream), answer);
        drive(connection, &permit, &service.peers, &service.limits).await
    };
    let stats = service.peers.stats();
    match end {
        End::Http(result) => {
            if result.is_err_and(|error| error.is_parse()) {
                count(&stats.bad_requests);
            }
            if permit.give_place_up() {
                stream.linger(service.limits.linger).await;
            }
        }
        End::IdleTooLong => count(&stats.idle_expired),
        End::HeadTooSlow => count(&stats.slow_heads),
        End::ResponseNotRead => count(&stats.stalled_writes),
        End::CloseRequested => {}
    }
    drop(permit);
}

/// The requests of one connection.
struct Requests<'a, R: Respond> {
    service: &'a Service<R>,
    permit: &'a ConnectionPermit,
    peer: Peer,
    /// How the first request got here; taken by it.
    first: Mutex<Option<Arrival>>,
    memory: R::Memory,
}

impl<R: Respond> Requests<'_, R> {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let activity = self.permit.activity();
        activity.enter(Phase::Answering);
        let arrival = self.first.lock().take().unwrap_or(Arrival::placed_at_once());
        let now = Instant::now();
        let peer = Peer { since: now.checked_sub(arrival.waited).unwrap_or(now), ..self.peer.clone() };
        let mut response = if arrival.has_place {
            self.keep_pace().await;
            self.service.respond.respond(peer, &self.memory, request).await
        } else {
            self.service.respond.refuse(peer, request)
        };
        // Its place goes to one that waits for it. The answer says so, because a client that does not know
        // sends its next request into a connection that closes.
        let service = self.service;
        let is_last = service.limits.one_whole_request || !service.shutdown.is_running();
        if is_last || !arrival.has_place || self.permit.is_wanted() {
            // Not hyper's graceful_shutdown: that closes an idle connection without checking for a request
            // that waits in the socket, and so resets it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        activity.enter(Phase::Writing);
        Ok(response)
    }

    /// Waits while this peer asks too fast.
    async fn keep_pace(&self) {
        if let Some(pace) = self.permit.pace() {
            pace.turn(|| count(&self.service.peers.stats().requests_paced)).await;
        }
    }
}

/// Why a connection ended.
enum End {
    /// As HTTP says, or because the client left.
    Http(hyper::Result<()>),
    IdleTooLong,
    HeadTooSlow,
    ResponseNotRead,
    /// It was asked to close now.
    CloseRequested,
}

/// Polls hyper, then checks the limits.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    permit: &ConnectionPermit,
    peers: &Peers,
    limits: &ConnectionLimits,
) -> End {
    let activity = permit.activity();
    let mut connection = pin!(connection);
    let mut close_requested = pin!(activity.close_requested());
    let mut timer = pin!(sleep_until(activity.due(limits).unwrap_or_else(Instant::now)));
    let mut idle_too_long = false;
    poll_fn(move |context| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(if idle_too_long { End::IdleTooLong } else { End::Http(result) });
            }
            idle_too_long = false;
            if activity.close_request() == CloseRequest::Now {
                return Poll::Ready(End::CloseRequested);
            }
            if close_requested.as_mut().poll(context).is_ready() {
                // hyper is polled again, and the stream reports its end if nothing has arrived.
                close_requested.set(activity.close_requested());
                continue;
            }
            let is_idle = activity.phase() == Phase::Idle;
            if is_idle && activity.close_request() == CloseRequest::NotRequested && permit.is_wanted() {
                count(&peers.stats().idle_evicted);
                activity.request_close(CloseRequest::WhenIdle);
                continue;
            }
            let Some(due) = activity.due(limits) else { return Poll::Pending };
            if due < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if activity.due(limits).is_some_and(|due| due > Instant::now()) {
                continue;
            }
            match activity.phase() {
                Phase::Head => return Poll::Ready(End::HeadTooSlow),
                Phase::Writing => return Poll::Ready(End::ResponseNotRead),
                Phase::Answering => {}
                Phase::Idle => {
                    activity.request_close(CloseRequest::WhenIdle);
                    idle_too_long = true;
                }
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {

    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::time::{Instant, sleep};

    use super::ConnectionLimits;
    use crate::server::door::activity::CloseRequest;
    use crate::server::door::testing::{Client, FAST, SLOW, Script, TestServer, eventually, few};

    fn size_of_future<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// With what the kernel keeps, a connection that waits is to cost 8 KiB at most (`make bench` measures
    /// it); this part of it grows unnoticed.
    #[test]
    fn a_connection_that_waits_has_a_small_task() {
        let size = size_of_future(super::serve::<Script>);
        assert!(size <= 1_024, "{size} bytes");
    }

    const SHORT: Duration = Duration::from_millis(300);
    /// Times are noted in whole milliseconds.
    const ALMOST_SHORT: Duration = Duration::from_millis(295);

    #[tokio::test]
    async fn a_slow_head_is_cut_off_however_steadily_it_trickles() {
        let server = TestServer::start(
            ConnectionLimits { request_head: SHORT, ..ConnectionLimits::default() },
            few(4),
        );
        let mut client = server.connect().await;
        // Silence before the first byte does not count.
        sleep(SHORT * 2).await;
        let start = Instant::now();
        while client.0.write_all(b"G").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
            assert!(start.elapsed() < SHORT * 10);
        }
        assert!(start.elapsed() >= ALMOST_SHORT);
        assert_eq!(server.stats().slow_heads, 1);
    }

    #[tokio::test]
    async fn a_slow_head_on_a_kept_connection_is_cut_off_too() {
        let server = TestServer::start(
            ConnectionLimits { request_head: SHORT, ..ConnectionLimits::default() },
            few(4),
        );
        let mut client = server.connect().await;
        client.get(FAST).await;
        client.send("GET /fa").await;
        let start = Instant::now();
        assert_eq!(client.rest().await.unwrap_or_default(), "");
        assert!((ALMOST_SHORT..SHORT * 10).contains(&start.elapsed()));
        assert_eq!(server.stats().slow_heads, 1);
    }

    #[tokio::test]
    async fn the_beginning_of_a_next_request_sent_early_has_its_time_too() {
        let server = TestServer::start(
            ConnectionLimits { request_head: SHORT, ..ConnectionLimits::default() },
            few(4),
        );
        let mut client = server.connect().await;
        client.send(SLOW).await;
        server.wait_for_slow(1).await;
        client.send("GET /fa").await;
        sleep(SHORT * 2).await;
        server.script.gate.add_permits(1);
        let rest = client.rest().await.unwrap();
        assert!(rest.ends_with("slow"), "{rest}");
        assert_eq!(server.stats().slow_heads, 1);
    }

    #[tokio::test]
    async fn the_beginning_of_a_next_request_in_the_same_packet_has_its_time_too() {
        let server = TestServer::start(
            ConnectionLimits { request_head: SHORT, ..ConnectionLimits::default() },
            few(4),
        );
        for beginning in ["GET /fa", "GET /fast HTTP/1.1\r\n", "GET /fast HTTP/1.1\r\nHost: a\r\n"] {
            let mut client = server.connect().await;
            let start = Instant::now();
            client.send([FAST, FAST, beginning].concat()).await;
            let rest = client.rest().await.unwrap_or_default();
            assert_eq!(rest.matches("fast").count(), 2, "{rest}");
            assert!((ALMOST_SHORT..SHORT * 10).contains(&start.elapsed()), "{:?}", start.elapsed());
        }
        assert_eq!(server.stats().slow_heads, 3);
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
        let server =
            TestServer::start(ConnectionLimits { idle: SHORT, ..ConnectionLimits::default() }, few(4));
        let mut silent = server.connect().await;
        let mut idle = server.connect().await;
        idle.get(FAST).await;
        let mut busy = server.connect().await;
        busy.send(SLOW).await;
        let start = Instant::now();
        assert_eq!(silent.rest().await.unwrap(), "");
        assert_eq!(idle.rest().await.unwrap(), "");
        assert!(start.elapsed() < SHORT * 10);
        sleep(SHORT * 2).await;
        server.script.gate.add_permits(1);
        assert!(busy.response().await.ends_with("slow"));
        assert_eq!(server.stats().idle_expired, 2);
    }

    #[tokio::test]
    async fn a_connection_in_use_outlives_the_idle_time() {
        let server =
            TestServer::start(ConnectionLimits { idle: SHORT, ..ConnectionLimits::default() }, few(4));
        let mut client = server.connect().await;
        for _ in 0..9 {
            assert!(client.get(FAST).await.ends_with("fast"));
            sleep(SHORT / 5).await;
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_no_answer_is_cut_off() {
        let server = TestServer::start(
            ConnectionLimits { response_write: SHORT, ..ConnectionLimits::default() },
            few(4),
        );
        let mut client = server.connect().await;
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        eventually(|| server.stats().stalled_writes == 1).await;
        eventually(|| server.stats().connections_open == 0).await;
    }

    #[tokio::test]
    async fn bad_requests_get_hypers_answer_and_can_read_it() {
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", "t".repeat(200_000));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101));
        for (request, status) in [
            (large.as_str(), "431"),
            (many.as_str(), "431"),
            ("GET /\x01 HTTP/1.1\r\n\r\n", "400"),
            ("\x16\x03\x01\x02\x00\x01\x00\x01", "400"),
            ("GET / HTTP/1.1\r\nA b: c\r\n\r\n", "400"),
        ] {
            let server = TestServer::start(ConnectionLimits::default(), few(4));
            let mut client = server.connect().await;
            client.send(request).await;
            let answer = client.rest().await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            drop(client);
            eventually(|| server.stats().bad_requests == 1).await;
        }
    }

    #[tokio::test]
    async fn a_client_that_still_sends_when_it_is_refused_can_read_why() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let mut client = server.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {}", "t".repeat(40_000))).await;
        eventually(|| server.stats().bad_requests == 1).await;
        for _ in 0..5 {
            client.send("t".repeat(10_000)).await;
            sleep(Duration::from_millis(10)).await;
        }
        assert!(client.rest().await.unwrap().starts_with("HTTP/1.1 431 "));
    }

    #[tokio::test]
    async fn sixteen_kib_of_headers_pass_and_so_does_a_host_without_brackets() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let token = "t".repeat(16 * 1024);
        let request = format!("GET /host HTTP/1.1\r\nHost: fd00:ec2::23\r\nAuthorization: {token}\r\n\r\n");
        assert!(server.connect().await.get(&request).await.ends_with("\r\n\r\nfd00:ec2::23"));
    }

    #[tokio::test]
    async fn pipelined_requests_are_answered_in_order() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let mut client = server.connect().await;
        let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        client.send([SLOW, FAST, last].concat()).await;
        server.script.gate.add_permits(1);
        let answers = client.rest().await.unwrap();
        let at = |body: &str| answers.find(&format!("\r\n\r\n{body}")).unwrap();
        assert!(at("slow") < at("fast") && at("fast") < at("last"), "{answers}");
    }

    #[tokio::test]
    async fn a_body_is_not_read_and_does_not_cost_the_client_its_answer() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let mut client = server.connect().await;
        let head = "POST /fast HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
        client.send(format!("{head}{}", "b".repeat(100_000))).await;
        assert!(client.rest().await.unwrap().ends_with("fast"));
    }

    #[tokio::test]
    async fn a_request_that_has_arrived_wins_over_being_closed_as_idle() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let mut client = server.connect().await;
        client.get(FAST).await;
        // On this one thread the server sees the request and the request to close at the same moment.
        client.0.try_write(FAST.as_bytes()).unwrap();
        server.peers.request_close_all(CloseRequest::WhenIdle);
        assert!(client.response().await.ends_with("fast"));
        // Having had a request, it stays.
        assert!(client.get(FAST).await.ends_with("fast"));
        server.peers.request_close_all(CloseRequest::WhenIdle);
        assert_eq!(client.rest().await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_client_that_closes_its_sending_side_at_once_gets_every_answer_that_is_at_hand() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        for (before, requests) in [(0, 1), (0, 3), (2, 1), (1, 3)] {
            let mut client = server.connect().await;
            for _ in 0..before {
                client.get(FAST).await;
            }
            // On this one thread the server sees the requests and the end at the same moment.
            client.send(FAST.repeat(requests)).await;
            client.0.shutdown().await.unwrap();
            let answers = client.rest().await.unwrap();
            assert_eq!(answers.matches("fast").count(), requests, "{before} before: {answers}");
        }
        let mut client = server.connect().await;
        client.send([FAST, SLOW].concat()).await;
        client.0.shutdown().await.unwrap();
        let answers = client.rest().await.unwrap();
        assert!(answers.ends_with("fast"), "no one waits for the other: {answers}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_frees_its_place_while_its_request_waits() {
        let server = TestServer::start(ConnectionLimits::default(), few(4));
        let mut client = server.connect().await;
        client.send(SLOW).await;
        server.wait_for_slow(1).await;
        let Client(stream) = client;
        drop(stream);
        eventually(|| server.stats().connections_open == 0).await;
    }
}
