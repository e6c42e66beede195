//! Requests to the API server, with bounded answers and one deadline each.
//!
//! Owns: the client, made when it is first needed and again while it cannot be made: the certificates of the
//! cluster may come later. kube reads token and certificates again by itself, every minute. Must not know:
//! what is asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::{Body, ClientBuilder};
use kube::config::AuthInfo;
use parking_lot::Mutex;

use crate::config::ApiServer;

/// The time for a request, from the connection to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);

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
        path: &'static str,
        /// The status.
        status: StatusCode,
    },
    /// The deadline has passed.
    #[error("the API server did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
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

    /// The document at a path, at most that long. Redirects are not followed.
    ///
    /// # Errors
    /// [`ApiError`], when there is no whole document in time.
    pub(super) async fn get(&self, path: &'static str, most: usize) -> Result<Bytes, ApiError> {
        tokio::time::timeout(DEADLINE, self.whole(path, most)).await.map_err(|_| ApiError::Timeout)?
    }

    async fn whole(&self, path: &'static str, most: usize) -> Result<Bytes, ApiError> {
        let request = Request::get(path).header(ACCEPT, HeaderValue::from_static("application/json"));
        let request = request.body(Body::empty()).map_err(|_| ApiError::Url)?;
        let answer = self.client()?.send(request).await.map_err(|error| ApiError::Send(Box::new(error)))?;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED {
            self.forget();
        }
        if status != StatusCode::OK {
            return Err(ApiError::Status { path, status });
        }
        let body = Limited::new(answer.into_body(), most).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => ApiError::TooLong(most),
            false => ApiError::Body(error),
        })?;
        Ok(body.to_bytes())
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
