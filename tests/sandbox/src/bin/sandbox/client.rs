//! One HTTP request to a server on this machine, and the one thing that is asked of every sandbox: a pod.
//!
//! Owns: connect, send, read, a deadline over all. Must not know: what is done with the answer.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sandbox::PodSpec;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Above the 4.5 s for which an agent may hold a request.
const DEADLINE: Duration = Duration::from_secs(6);

/// No answer.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// The URL is not one this client can use.
    #[error("{0} is not an http URL with a port")]
    Url(String),
    /// Nobody listens.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// Somebody listens but does not speak HTTP to the end.
    #[error("no answer")]
    Http(#[from] hyper::Error),
    /// The request cannot be written.
    #[error("a header is not valid")]
    Request(#[from] http::Error),
    /// Too slow.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// Not what was asked for.
    #[error("status {0}: {1}")]
    Status(StatusCode, String),
    /// Not JSON, or another JSON.
    #[error("the answer is not the JSON that was expected")]
    Json(#[from] serde_json::Error),
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

impl Answer {
    /// The body of a success.
    pub(crate) fn good(self) -> Result<String, ClientError> {
        if self.status.is_success() {
            Ok(self.body)
        } else {
            Err(ClientError::Status(self.status, self.body))
        }
    }
}

/// Sends `body` to `url`, with a token in `Authorization` if there is one.
pub(crate) async fn send(
    method: Method,
    url: &str,
    token: Option<&str>,
    body: String,
) -> Result<Answer, ClientError> {
    timeout(DEADLINE, exchange(method, url, token, body)).await.map_err(|_| ClientError::Deadline)?
}

/// The token file of a pod, made by the sandbox whose control port this is; the same one for the same pod.
pub(crate) async fn token_file(control_url: &str, pod: &PodSpec) -> Result<PathBuf, ClientError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Made {
        token_file: PathBuf,
    }
    let body = serde_json::to_string(pod)?;
    let answer = send(Method::POST, &format!("{control_url}/pods"), None, body).await?;
    Ok(serde_json::from_str::<Made>(&answer.good()?)?.token_file)
}

async fn exchange(
    method: Method,
    url: &str,
    token: Option<&str>,
    body: String,
) -> Result<Answer, ClientError> {
    let bad = || ClientError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().filter(|it| it.port().is_some()).ok_or_else(bad)?.clone();
    let stream = TcpStream::connect(authority.as_str()).await.map_err(ClientError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder().method(method).uri(uri.path()).header("host", authority.as_str());
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let request = request.header("connection", "close").body(Full::new(Bytes::from(body)))?;
    let answered = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    // Polled together: the connection moves the bytes, and its own error is also the request's.
    let (answer, _) = tokio::join!(answered, connection);
    answer
}
