//! Requests to the API server, with bounded answers and one deadline each.
//!
//! Owns: the client, made when it is first needed and again while it cannot be made: the certificates of the
//! cluster may come later. kube reads token and certificates again by itself, every minute. Must not know:
//! what is asked.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::api::{WatchEvent, WatchParams};
use kube::client::{Body, ClientBuilder};
use kube::config::AuthInfo;
use kube::core::Status;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::DEADLINE;
use super::error::{ApiError, Missing};
use super::said::{OwnTokens, Said};
use crate::config::ApiServer;

/// Its key document has a media type of its own, and it answers 406 to those who ask for another one.
const ACCEPTED: &str = "application/json, application/jwk-set+json";

/// A refusal with its reason is some hundred bytes.
const MOST_BYTES_OF_A_REFUSAL: usize = 16 * 1024;

/// Changes of objects, as they come.
pub(super) type Events<T> = BoxStream<'static, Result<WatchEvent<T>, ApiError>>;

/// Something to send.
pub(super) struct Sent<'a> {
    /// POST or PATCH.
    pub(super) method: Method,
    /// Where to.
    pub(super) path: &'a str,
    /// What the body is.
    pub(super) media_type: &'static str,
    /// JSON.
    pub(super) body: Bytes,
    /// A secret in it, which no error may quote.
    pub(super) secret: Option<&'a str>,
}

/// The API server, as this agent asks it. Clones share the connections.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    server: ApiServer,
    tokens: OwnTokens,
    /// Made when it is first needed, and again while it cannot be made: the cluster's certificates may come
    /// later.
    client: Mutex<Option<kube::Client>>,
}

impl Api {
    /// Nothing is read or connected yet.
    pub fn new(server: ApiServer) -> Self {
        let tokens = OwnTokens::new(server.token_file.clone());
        Self { shared: Arc::new(Shared { server, tokens, client: Mutex::default() }) }
    }

    /// The API server's URL.
    pub fn url(&self) -> &str {
        &self.shared.server.url
    }

    /// What may be repeated of a sentence that came from the API server.
    pub(super) fn said(&self, text: &str) -> Said {
        self.shared.tokens.said(text)
    }

    /// The same, where a secret was sent.
    pub(super) fn said_without(&self, secret: &str, text: &str) -> Said {
        self.shared.tokens.said_without(Some(secret), text)
    }

    /// The object at a path, in at most that many bytes. Redirects are not followed.
    ///
    /// # Errors
    /// [`ApiError`], when there is none in time.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, most: usize) -> Result<T, ApiError> {
        let body = self.get_bytes(path, most).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let why = self.shared.tokens.said_by(&error);
            ApiError::Unreadable { path: path.into(), why }
        })
    }

    /// The same as it comes.
    ///
    /// # Errors
    /// [`ApiError`], when there is no whole answer in time.
    pub(super) async fn get_bytes(&self, path: &str, most: usize) -> Result<Bytes, ApiError> {
        let request = Request::get(path).header(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let request = request.body(Body::empty()).map_err(|_| ApiError::Url)?;
        self.in_time(path, request, most, None).await
    }

    /// Sends an object, or a change of one, and returns what the API server makes of it: at most that many
    /// bytes.
    ///
    /// # Errors
    /// [`ApiError`], when the API server does not take it in time.
    pub(super) async fn send(&self, object: Sent<'_>, most: usize) -> Result<Bytes, ApiError> {
        let Sent { method, path, media_type, body, secret } = object;
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media_type);
        let request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
        let request = request.body(Body::from(body)).map_err(|_| ApiError::Url)?;
        self.in_time(path, request, most, secret).await
    }

    async fn in_time(
        &self,
        path: &str,
        request: Request<Body>,
        most: usize,
        secret: Option<&str>,
    ) -> Result<Bytes, ApiError> {
        let answer = tokio::time::timeout(DEADLINE, self.whole(path, request, most, secret));
        answer.await.map_err(|_| ApiError::Timeout)?
    }

    async fn whole(
        &self,
        path: &str,
        request: Request<Body>,
        most: usize,
        secret: Option<&str>,
    ) -> Result<Bytes, ApiError> {
        let answer = self.client()?.send(request).await.map_err(|error| self.failed(path, error))?;
        let status = answer.status();
        if status.is_success() {
            return self.body(answer.into_body(), most).await;
        }
        if status == StatusCode::UNAUTHORIZED {
            self.forget();
        }
        // Read in any case: the connection carries the next request only after that.
        let body = self.body(answer.into_body(), MOST_BYTES_OF_A_REFUSAL).await.unwrap_or_default();
        Err(match serde_json::from_slice::<Status>(&body) {
            Ok(said) if said.code == status.as_u16() => self.refused(path, &said, secret),
            Ok(_) | Err(_) => ApiError::Status { path: path.into(), status },
        })
    }

    async fn body(&self, body: Body, most: usize) -> Result<Bytes, ApiError> {
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => ApiError::TooLong(most),
            false => ApiError::Body(self.shared.tokens.said_by(&*error)),
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

    fn failed(&self, path: &str, error: kube::Error) -> ApiError {
        let kube::Error::Api(status) = error else {
            return ApiError::Send(self.shared.tokens.said_by(&error));
        };
        if status.code == StatusCode::UNAUTHORIZED.as_u16() {
            self.forget();
        }
        self.refused(path, &status, None)
    }

    fn refused(&self, path: &str, status: &Status, secret: Option<&str>) -> ApiError {
        let missing = status.details.as_ref().filter(|_| status.reason == "NotFound");
        ApiError::Refused {
            path: path.into(),
            status: StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            said: self.shared.tokens.said_without(secret, &status.message),
            missing: missing.map(|it| Missing { kind: it.kind.clone(), name: it.name.clone() }),
        }
    }

    fn client(&self) -> Result<kube::Client, ApiError> {
        self.shared.tokens.note();
        let mut made = self.shared.client.lock();
        if let Some(client) = &*made {
            return Ok(client.clone());
        }
        let url = self.url().parse().map_err(|_| ApiError::Url)?;
        let client = make(&self.shared.server, url)
            .map_err(|error| ApiError::SetUp(self.shared.tokens.said_by(&error)))?;
        *made = Some(client.clone());
        Ok(client)
    }

    /// Lets the next request read the token again. kube reads it every minute, by the wall clock: where that
    /// was set back by hours, it shows one that has expired.
    fn forget(&self) {
        *self.shared.client.lock() = None;
    }
}

fn make(server: &ApiServer, url: Uri) -> kube::Result<kube::Client> {
    let mut config = kube::Config::new(url);
    // Read again every minute by the verifier of this file. The list beside it is unused, and without one
    // kube would look for the system's roots, which the image does not have.
    config.root_cert_file = Some(server.ca_file.clone());
    config.root_cert = Some(Vec::new());
    config.auth_info =
        AuthInfo { token_file: Some(server.token_file.display().to_string()), ..AuthInfo::default() };
    // Those who ask repeat, at rates of their own.
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?.build())
}
