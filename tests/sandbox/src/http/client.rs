//! One request of the sandbox's own to another server on this machine.
//!
//! Owns: connect, send, read, a deadline over all. Must not know: what is asked.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::message::{Received, Reply};

/// A large object is copied on this machine; whatever takes longer is stuck.
const DEADLINE: Duration = Duration::from_secs(30);
/// Headers that are between two neighbours, or that the body here makes anew.
const HOP_BY_HOP: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::EXPECT, header::CONTENT_LENGTH];

/// No answer.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    /// Somebody listens but does not speak HTTP to the end.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be written.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
    /// Too slow.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
}

/// Sends `request` to `address` as it is, its `host` header included, and gives the answer as it came.
pub(crate) async fn forward(address: &str, request: &Received) -> Result<Reply, ClientError> {
    timeout(DEADLINE, exchange(address, request)).await.map_err(|_| ClientError::Deadline)?
}

async fn exchange(address: &str, request: &Received) -> Result<Reply, ClientError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut out = Request::builder().method(&request.method).uri(target);
    if let Some(headers) = out.headers_mut() {
        *headers = end_to_end(&request.headers);
    }
    let out = out.header(header::CONNECTION, "close").body(Full::new(request.body.clone()))?;
    let answered = async {
        let (parts, body) = sender.send_request(out).await?.into_parts();
        let body: Bytes = body.collect().await?.to_bytes();
        Ok((parts, body))
    };
    // Polled together: the connection moves the bytes, and its own error is also the request's.
    let (answer, _) = tokio::join!(answered, connection);
    let (parts, body) = answer.map_err(ClientError::Http)?;
    let mut headers = end_to_end(&parts.headers);
    // An answer to HEAD has the length of what it leaves away.
    if let (true, Some(length)) = (body.is_empty(), parts.headers.get(header::CONTENT_LENGTH)) {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    let status: StatusCode = parts.status;
    Ok(Reply { status, headers, body, code: None })
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}
