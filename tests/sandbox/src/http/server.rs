//! Listens, reads whole requests, puts the faults in force in their way, and answers.
//!
//! Owns: connections and how each fault is carried out. Must not know: which faults there are (`faults`), or
//! what the right answer is (the service).

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::body::ReplyBody;
use super::message::{Received, Reply};
use super::stream::{Reset, Stream};
use crate::calls::Calls;
use crate::clock;
use crate::cluster::pod::PodSpec;
use crate::faults::{Effect, Faults, Service};

/// The largest body read; the largest real one, a token of EKS Auth, has 16 KiB at most.
const MAX_BODY: usize = 64 * 1024;
/// Pause after a failed accept: out of file descriptors is the usual reason, and asking at once will not
/// help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests.
pub(crate) trait Answer: Send + Sync + 'static {
    /// The right answer.
    fn answer(&self, request: &Received) -> Reply;

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

    /// An error in the service's own format.
    fn error(&self, status: StatusCode, code: &str, message: &str) -> Reply {
        Reply::text(status, message.to_owned()).code(code)
    }
}

/// A service on its listener.
pub(crate) struct Server {
    pub(crate) service: Arc<dyn Answer>,
    pub(crate) faults: Faults,
    pub(crate) calls: Calls,
    /// Speaks https where given.
    pub(crate) tls: Option<TlsAcceptor>,
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
        let reset = Reset::default();
        // Small answers must not wait for the caller's delayed acknowledgement.
        let _ = tcp.set_nodelay(true);
        let stream = Stream::new(tcp, reset.clone());
        if self.refuses() {
            reset.arm();
            return;
        }
        match self.tls.clone() {
            None => self.serve(stream, reset).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => {
                    if let Some(version) = stream.get_ref().1.protocol_version() {
                        self.calls.speaks(format!("{version:?}"));
                    }
                    self.serve(stream, reset).await;
                }
                Err(error) => tracing::debug!(%error, "TLS handshake failed"),
            },
        }
    }

    fn refuses(&self) -> bool {
        self.service.service().is_some_and(|service| self.faults.refuses(service))
    }

    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, reset: Reset) {
        let first = AtomicBool::new(true);
        let service = service_fn(|request| {
            // The first request of a connection was let in when the connection was.
            let cut = !first.swap(false, Ordering::Relaxed) && self.refuses();
            let (server, reset) = (Arc::clone(&self), reset.clone());
            async move {
                if cut {
                    reset.arm();
                    return Err(Cut::other("a fault of the sandbox refuses"));
                }
                server.respond(request, reset).await
            }
        });
        // An error here is a caller who left, or a fault at work.
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        if let Err(error) = served {
            tracing::trace!(%error, "connection ended early");
        }
    }

    async fn respond(&self, request: Request<Incoming>, reset: Reset) -> Result<Response<ReplyBody>, Cut> {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                let reply = Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "body too large or broken off");
                return Ok(response(reply, 0, ReplyBody::whole));
            }
        };
        let request = Received::new(parts, body);
        let Some(service) = self.service.service() else {
            return Ok(response(self.service.answer(&request), 0, ReplyBody::whole));
        };
        Ok(self.respond_as(service, &request, reset).await)
    }

    /// Answers as a service with log and faults.
    async fn respond_as(&self, service: Service, request: &Received, reset: Reset) -> Response<ReplyBody> {
        let pod = self.service.pod(request);
        let call = self.calls.begin(service, self.service.operation(request), pod.clone());
        let interference = self.faults.meet(service, pod.as_ref(), call.concurrent);
        if !interference.latency.is_zero() {
            sleep(interference.latency).await;
        }
        let reply = match interference.instead {
            None | Some(Effect::Latency { .. } | Effect::DateSkew { .. } | Effect::Refuse) => {
                self.service.answer(request)
            }
            Some(Effect::Status { status, code, message }) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                self.service.error(status, &code, &message)
            }
            Some(Effect::Throttle { .. }) => {
                self.service.error(StatusCode::TOO_MANY_REQUESTS, "ThrottlingException", "Rate exceeded")
            }
            Some(Effect::Hang) => pending().await,
            Some(Effect::BadJson) => {
                let right = self.service.answer(request);
                let half = right.body.slice(..right.body.len() / 2);
                Reply { status: StatusCode::OK, code: None, body: half, ..right }
            }
            Some(Effect::Padded { mib }) => {
                let right = self.service.answer(request);
                call.answered(right.status.as_u16(), right.code.as_deref());
                return response(right, interference.date_skew, |bytes| ReplyBody::padded(bytes, mib << 20));
            }
            Some(Effect::Endless { pause_ms }) => {
                let right = self.service.answer(request);
                let pause = Duration::from_millis(pause_ms);
                return response(right, interference.date_skew, |_bytes| ReplyBody::endless(pause));
            }
            Some(Effect::ResetMidBody) => {
                let right = self.service.answer(request);
                // Not noted as answered: nobody got it.
                return response(right, interference.date_skew, |bytes| ReplyBody::broken(bytes, reset));
            }
        };
        call.answered(reply.status.as_u16(), reply.code.as_deref());
        response(reply, interference.date_skew, ReplyBody::whole)
    }
}

fn response(reply: Reply, date_skew: i64, body: impl FnOnce(Bytes) -> ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    let date = httpdate::fmt_http_date(clock::moved(clock::now(), date_skew));
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().insert(http::header::DATE, date);
    }
    response
}
