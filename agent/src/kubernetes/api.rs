//! Requests to the API server, with bounded answers and one deadline each.
//!
//! Owns: the client, made when it is first needed and again while it cannot be made: the certificates of the
//! cluster may come later. kube reads token and certificates again by itself, every minute. Must not know:
//! what is asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::api::{WatchEvent, WatchParams};
use kube::client::{Body, ClientBuilder};
use kube::config::AuthInfo;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::ApiServer;

/// The time for a request, from the connection to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);

/// Its key document has a media type of its own, and it answers 406 to those who ask for another one.
const ACCEPTED: &str = "application/json, application/jwk-set+json";

/// So much of the API server's sentences is repeated.
const MOST_SAID: usize = 300;

/// An answer that nobody reads on: an object that was sent, with what the API server added to it.
const MOST_ECHOED: usize = 64 * 1024;

/// Changes of objects, as they come.
pub(super) type Events<T> = BoxStream<'static, Result<WatchEvent<T>, ApiError>>;

/// Why the API server gives no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// URL, token or certificates cannot be used.
    #[error("the connection to the API server cannot be set up")]
    SetUp(#[source] Box<kube::Error>),
    /// The URL is invalid.
    #[error("the URL of the API server is invalid")]
    Url,
    /// No connection, or it broke.
    #[error("the API server cannot be reached")]
    Send(#[source] Box<kube::Error>),
    /// The answer is longer than it may be.
    #[error("the API server's answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer broke off.
    #[error("the API server's answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another status than 200.
    #[error("the API server answered {path} with status {status}")]
    Status {
        /// What was asked for.
        path: Box<str>,
        /// The status.
        status: StatusCode,
    },
    /// It says in its own words why not.
    #[error("the API server refuses to answer {path}: {said} ({status})")]
    Refused {
        /// What was asked for.
        path: Box<str>,
        /// The status.
        status: StatusCode,
        /// Its sentence.
        said: String,
    },
    /// The deadline has passed.
    #[error("the API server did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// A refusal in the API server's words (`Status`).
#[derive(Deserialize)]
struct Said {
    message: String,
}

impl ApiError {
    /// What the API server has answered, if it has.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } | Self::Refused { status, .. } => Some(*status),
            Self::SetUp(_) | Self::Url | Self::Send(_) | Self::TooLong(_) | Self::Body(_) | Self::Timeout => {
                None
            }
        }
    }
}

/// Something to send.
pub(super) struct Sent<'a> {
    /// POST or PATCH.
    pub(super) method: Method,
    /// Where to.
    pub(super) path: &'a str,
    /// What the body is.
    pub(super) media_type: &'static str,
    /// JSON.
    pub(super) body: Vec<u8>,
}

/// The API server, as this agent asks it. Clones share the connections.
#[derive(Clone)]
pub struct Api {
    server: Arc<ApiServer>,
    /// Made when it is first needed, and again while it cannot be made: the cluster's certificates may come
    /// later.
    client: Arc<Mutex<Option<kube::Client>>>,
}

impl Api {
    /// Nothing is read or connected yet.
    pub fn new(server: ApiServer) -> Self {
        Self { server: Arc::new(server), client: Arc::default() }
    }

    /// The API server's URL.
    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// The document at a path, at most that long. Redirects are not followed.
    ///
    /// # Errors
    /// [`ApiError`], when there is no whole document in time.
    pub(super) async fn get(&self, path: &str, most: usize) -> Result<Bytes, ApiError> {
        tokio::time::timeout(DEADLINE, self.whole(path, most)).await.map_err(|_| ApiError::Timeout)?
    }

    async fn whole(&self, path: &str, most: usize) -> Result<Bytes, ApiError> {
        let request = Request::get(path).header(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let request = request.body(Body::empty()).map_err(|_| ApiError::Url)?;
        let answer = self.client()?.send(request).await.map_err(|error| ApiError::Send(Box::new(error)))?;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED {
            self.forget();
        }
        if status != StatusCode::OK {
            return Err(ApiError::Status { path: path.into(), status });
        }
        let body = Limited::new(answer.into_body(), most).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => ApiError::TooLong(most),
            false => ApiError::Body(error),
        })?;
        Ok(body.to_bytes())
    }

    /// Changes of what is at a path, from `version` on; they end when the server or the connection does. The
    /// deadline is for the beginning.
    ///
    /// # Errors
    /// [`ApiError`], when they do not begin in time.
    pub(super) async fn watch<T>(
        &self,
        path: &'static str,
        parameters: &WatchParams,
        version: &str,
    ) -> Result<Events<T>, ApiError>
    where
        T: DeserializeOwned + Clone + Send + 'static,
    {
        let request = kube::core::Request::new(path).watch(parameters, version).map_err(|_| ApiError::Url)?;
        let client = self.client()?;
        let beginning = tokio::time::timeout(DEADLINE, client.request_events(request)).await;
        let events = beginning.map_err(|_| ApiError::Timeout)?.map_err(|error| self.failed(path, error))?;
        let this = self.clone();
        Ok(events.map(move |event| event.map_err(|error| this.failed(path, error))).boxed())
    }

    /// Sends an object, or a change of one.
    ///
    /// # Errors
    /// [`ApiError`], when the API server does not take it in time.
    pub(super) async fn send(&self, object: Sent<'_>) -> Result<(), ApiError> {
        tokio::time::timeout(DEADLINE, self.taken(object)).await.map_err(|_| ApiError::Timeout)?
    }

    async fn taken(&self, object: Sent<'_>) -> Result<(), ApiError> {
        let Sent { method, path, media_type, body } = object;
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media_type);
        let request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
        let request = request.body(Body::from(body)).map_err(|_| ApiError::Url)?;
        let answer = self.client()?.send(request).await.map_err(|error| ApiError::Send(Box::new(error)))?;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED {
            self.forget();
        }
        // Read in any case: the connection carries the next request only after that.
        let echoed = Limited::new(answer.into_body(), MOST_ECHOED).collect().await;
        if status.is_success() {
            return Ok(());
        }
        let said = echoed.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
        let said = said.map(|Said { message }| message).unwrap_or_default();
        Err(ApiError::Refused { path: path.into(), status, said: cut(&said) })
    }

    fn failed(&self, path: &str, error: kube::Error) -> ApiError {
        let kube::Error::Api(status) = error else { return ApiError::Send(Box::new(error)) };
        let said = cut(&status.message);
        let status = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::UNAUTHORIZED {
            self.forget();
        }
        ApiError::Refused { path: path.into(), status, said }
    }

    fn client(&self) -> Result<kube::Client, ApiError> {
        let mut made = self.client.lock();
        if let Some(client) = &*made {
            return Ok(client.clone());
        }
        let client = make(&self.server)?;
        *made = Some(client.clone());
        Ok(client)
    }

    /// Lets the next request read the token again. kube reads it every minute, by the wall clock: where that
    /// was set back by hours, it shows one that has expired.
    fn forget(&self) {
        *self.client.lock() = None;
    }
}

fn cut(said: &str) -> String {
    said.chars().take(MOST_SAID).collect()
}

fn make(server: &ApiServer) -> Result<kube::Client, ApiError> {
    let mut config = kube::Config::new(server.url.parse().map_err(|_| ApiError::Url)?);
    // Read again every minute by the verifier of this file. The list beside it is unused, and without one
    // kube would look for the system's roots, which the image does not have.
    config.root_cert_file = Some(server.ca_file.clone());
    config.root_cert = Some(Vec::new());
    config.auth_info =
        AuthInfo { token_file: Some(server.token_file.display().to_string()), ..AuthInfo::default() };
    // Those who ask repeat, at rates of their own.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).map_err(|error| ApiError::SetUp(Box::new(error)))?;
    Ok(builder.build())
}
