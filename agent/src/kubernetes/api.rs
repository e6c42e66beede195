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
use http::{HeaderValue, Request, StatusCode};
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

const JSON: &str = "application/json";

/// So much of the API server's sentences is repeated.
const MOST_SAID: usize = 300;

/// How it says that it refuses (`meta/v1.Status`).
#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
}

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

    /// Posts JSON to a path; the answer is at most that long.
    ///
    /// # Errors
    /// [`ApiError`], when there is no whole answer in time.
    pub(super) async fn post(&self, path: &str, body: Bytes, most: usize) -> Result<Bytes, ApiError> {
        let request = Request::post(path).header(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let request = request.header(ACCEPT, HeaderValue::from_static(JSON));
        let request = request.body(Body::from(body)).map_err(|_| ApiError::Url)?;
        let asking = async {
            let client = self.client()?;
            let answer = client.send(request).await.map_err(|error| ApiError::Send(Box::new(error)))?;
            let status = answer.status();
            let body = bounded(answer.into_body(), most).await?;
            if !status.is_success() {
                let said: Status = serde_json::from_slice(&body).unwrap_or_default();
                return Err(self.refused(path, status, &said.message));
            }
            Ok(body)
        };
        tokio::time::timeout(DEADLINE, asking).await.map_err(|_| ApiError::Timeout)?
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
        bounded(answer.into_body(), most).await
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

    fn failed(&self, path: &str, error: kube::Error) -> ApiError {
        let kube::Error::Api(status) = error else { return ApiError::Send(Box::new(error)) };
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.refused(path, code, &status.message)
    }

    fn refused(&self, path: &str, status: StatusCode, message: &str) -> ApiError {
        if status == StatusCode::UNAUTHORIZED {
            self.forget();
        }
        let said = message.chars().take(MOST_SAID).collect();
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

async fn bounded(body: Body, most: usize) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, most).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => ApiError::TooLong(most),
        false => ApiError::Body(error),
    })?;
    Ok(body.to_bytes())
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
