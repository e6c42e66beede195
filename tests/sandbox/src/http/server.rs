//! Listens, reads whole requests, puts the faults in force in their way, and answers.
//!
//! Owns: connections and how each fault is carried out. Must not know: which faults there are (`faults`), or
//! what the right answer is (the service).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::body::ReplyBody;
use super::message::{Received, Reply};
use super::stream::{Stream, Wire};
use crate::calls::{Asked, Calls, Wanted};
use crate::clock::{self, Clock};
use crate::cluster::pod::PodSpec;
use crate::faults::{Effect, Faults, Interference, Service, Welcome};

/// The largest body that most services read; the largest real one, a token of EKS Auth, has 16 KiB at most.
const MAX_BODY: usize = 64 * 1024;
/// Pause after a failed accept: out of file descriptors is the usual reason, and asking at once will not
/// help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between the last answer of a connection and its unannounced end: the caller has read it by then.
const BEFORE_THE_CLOSE: Duration = Duration::from_millis(20);
/// Of a handshake that does not end: less than the server's first message.
const BEFORE_THE_SILENCE: usize = 40;

/// Answers requests.
pub(crate) trait Answer: Send + Sync + 'static {
    /// The right answer.
    fn answer(&self, request: &Received) -> Reply;

    /// The largest body it takes, in bytes.
    fn max_body(&self) -> usize {
        MAX_BODY
    }

    /// Which service it is; `None` for those without log and faults.
    fn service(&self) -> Option<Service> {
        None
    }

    /// How the log of calls names the request.
    fn operation(&self, request: &Received) -> String {
        format!("{} {}", request.method, request.path())
    }

    /// Whose request it is, by what it says itself, unverified.
    fn pod(&self, _request: &Received) -> Option<PodSpec> {
        None
    }

    /// What a request says of the node it comes from.
    fn node_details(&self, _request: &Received) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The session it asks for, where the caller chooses the role.
    fn wanted(&self, _request: &Received) -> Option<Wanted> {
        None
    }

    /// What is answered above a limit of the service.
    fn throttled(&self) -> Reply {
        self.error(StatusCode::TOO_MANY_REQUESTS, "ThrottlingException", "Rate exceeded")
    }

    /// An error in the service's own format.
    fn error(&self, status: StatusCode, code: &str, message: &str) -> Reply {
        Reply::text(status, message.to_owned()).code(code)
    }
}

/// A service on its listener.
pub(crate) struct Server {
    pub(crate) service: Arc<dyn Answer>,
    pub(crate) clock: Clock,
    pub(crate) faults: Faults,
    pub(crate) calls: Calls,
    /// Speaks https where given.
    pub(crate) tls: Option<TlsAcceptor>,
}

/// What the requests of one connection share.
#[derive(Debug)]
struct Connection {
    wire: Wire,
    /// Those that came so far.
    requests: AtomicU64,
    /// Notified when it is to be closed.
    is_over: Notify,
}

/// An answer, and how much of it is given.
enum Given {
    /// All of it.
    Whole(Reply),
    /// All of it, behind so many bytes of white space.
    Padded { reply: Reply, bytes: u64 },
    /// Its head, and white space without an end.
    Endless { reply: Reply, pause: Duration },
    /// The first half.
    Broken(Reply),
    /// Nothing, ever.
    Nothing,
}

/// A connection that ends without an answer.
type Cut = io::Error;

impl Server {
    /// Accepts until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, tasks: TaskTracker) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((tcp, _)) => {
                    tasks.spawn(Arc::clone(&self).connection(tcp));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream) {
        let wire = Wire::default();
        // Small answers must not wait for the caller's delayed acknowledgement.
        let _ = tcp.set_nodelay(true);
        let stream = Stream::new(tcp, wire.clone());
        let welcome = self.service.service().map(|service| self.faults.welcome(service, self.tls.is_some()));
        match welcome {
            None | Some(Welcome::Served) => {}
            Some(Welcome::Refused) => return wire.reset(),
            Some(Welcome::Ignored) => {
                // The kernel goes on taking what comes, until its buffer is full.
                pending::<()>().await;
            }
            Some(Welcome::StuckInTls) => wire.silence_after(BEFORE_THE_SILENCE),
        }
        match self.tls.clone() {
            None => self.serve(stream, wire).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => {
                    if let Some(version) = stream.get_ref().1.protocol_version() {
                        self.calls.speaks(format!("{version:?}"));
                    }
                    self.serve(stream, wire).await;
                }
                Err(error) => tracing::debug!(%error, "TLS handshake failed"),
            },
        }
    }

    fn refuses(&self) -> bool {
        self.service.service().is_some_and(|service| self.faults.refuses(service))
    }

    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, wire: Wire) {
        let connection = Arc::new(Connection { wire, requests: AtomicU64::new(0), is_over: Notify::new() });
        let served = service_fn(|request| {
            // The first request of a connection was let in when the connection was.
            let is_first = connection.requests.fetch_add(1, Ordering::Relaxed) == 0;
            let cut = !is_first && self.refuses();
            let (server, connection) = (Arc::clone(&self), Arc::clone(&connection));
            async move {
                if cut {
                    connection.wire.reset();
                    return Err(Cut::other("a fault of the sandbox refuses"));
                }
                server.respond(request, &connection).await
            }
        });
        let mut http = http1::Builder::new();
        // Each answer has one already, or is to have none.
        let mut serving = pin!(http.auto_date_header(false).serve_connection(TokioIo::new(stream), served));
        let is_over = async {
            connection.is_over.notified().await;
            sleep(BEFORE_THE_CLOSE).await;
        };
        // An error here is a caller who left, or a fault at work.
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = is_over => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(%error, "connection ended early");
        }
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Result<Response<ReplyBody>, Cut> {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, self.service.max_body()).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                let reply = Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "body too large or broken off");
                return Ok(self.response(reply, &Interference::default(), ReplyBody::whole));
            }
        };
        let request = Received::new(parts, body);
        let Some(service) = self.service.service() else {
            let reply = self.service.answer(&request);
            return Ok(self.response(reply, &Interference::default(), ReplyBody::whole));
        };
        Ok(self.respond_as(service, &request, connection).await)
    }

    /// Answers as a service with log and faults.
    async fn respond_as(
        &self,
        service: Service,
        request: &Received,
        connection: &Connection,
    ) -> Response<ReplyBody> {
        let pod = self.service.pod(request);
        let asked = Asked {
            operation: self.service.operation(request),
            pod: pod.clone(),
            node_details: self.service.node_details(request),
            wanted: self.service.wanted(request),
        };
        let call = self.calls.begin(service, asked);
        let mut interference = self.faults.meet(service, pod.as_ref(), call.concurrent);
        if !interference.latency.is_zero() {
            sleep(interference.latency).await;
        }
        connection.wire.write_in(interference.pieces);
        let mut response = match self.given(interference.instead.take(), request) {
            Given::Whole(reply) => {
                call.answered(&reply);
                self.response(reply, &interference, ReplyBody::whole)
            }
            Given::Padded { reply, bytes: padding } => {
                call.answered(&reply);
                self.response(reply, &interference, |bytes| ReplyBody::padded(bytes, padding))
            }
            // What nobody gets to its end is not noted as answered.
            Given::Endless { reply, pause } => {
                self.response(reply, &interference, |_bytes| ReplyBody::endless(pause))
            }
            Given::Broken(reply) => {
                let wire = connection.wire.clone();
                self.response(reply, &interference, |bytes| ReplyBody::broken(bytes, wire))
            }
            Given::Nothing => pending().await,
        };
        if let Some(closing) = interference.closing.filter(|closing| connection.has_given(closing.answers)) {
            if closing.announced {
                response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            } else {
                connection.is_over.notify_one();
            }
        }
        response
    }

    /// What is given to a request, by the fault that changes the answer if there is one.
    fn given(&self, instead: Option<Effect>, request: &Received) -> Given {
        let right = || self.service.answer(request);
        match instead {
            Some(Effect::Status { status, code, message }) => {
                Given::Whole(self.service.error(status_of(status), &code, &message))
            }
            Some(Effect::Throttle { .. }) => Given::Whole(self.service.throttled()),
            Some(Effect::ProxyError { status }) => {
                let status = status_of(status);
                Given::Whole(Reply::html(status, &status.to_string()))
            }
            Some(Effect::Hang) => Given::Nothing,
            Some(Effect::BadJson) => {
                let right = right();
                let half = right.body.slice(..right.body.len() / 2);
                Given::Whole(Reply { status: StatusCode::OK, code: None, body: half, ..right })
            }
            Some(Effect::Padded { mib }) => Given::Padded { reply: right(), bytes: mib << 20 },
            Some(Effect::Endless { pause_ms }) => {
                Given::Endless { reply: right(), pause: Duration::from_millis(pause_ms) }
            }
            Some(Effect::ResetMidBody) => Given::Broken(right()),
            // The others change how an answer is given, and not which; they never stand here.
            None
            | Some(
                Effect::Latency { .. }
                | Effect::DateSkew { .. }
                | Effect::NoDate
                | Effect::Pieces { .. }
                | Effect::CloseAfter { .. }
                | Effect::Refuse
                | Effect::HangInAccept
                | Effect::HangInTls,
            ) => Given::Whole(right()),
        }
    }

    fn response(
        &self,
        reply: Reply,
        interference: &Interference,
        body: impl FnOnce(Bytes) -> ReplyBody,
    ) -> Response<ReplyBody> {
        let mut response = Response::new(body(reply.body));
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        let date = httpdate::fmt_http_date(clock::moved(self.clock.now(), interference.date_skew));
        if let (false, Ok(date)) = (interference.no_date, HeaderValue::from_str(&date)) {
            response.headers_mut().insert(http::header::DATE, date);
        }
        response
    }
}

impl Connection {
    /// Whether the answer to its present request is the last of so many.
    fn has_given(&self, answers: u64) -> bool {
        self.requests.load(Ordering::Relaxed) >= answers
    }
}

fn status_of(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
