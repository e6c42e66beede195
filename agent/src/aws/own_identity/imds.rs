//! The node's instance role and other metadata, read with IMDSv2.
//!
//! Owns: the IMDS client, its limits, and when its session token is dropped. Must not know: what the
//! credentials are for.

mod answers;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::sync::Arc;
use std::time::Duration;

use aws_config::imds;
use aws_config::imds::client::EndpointMode;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SharedTimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::http::StatusCode;
use parking_lot::Mutex;

use crate::aws::own_identity::load_error::{LoadError, NoValue};
use crate::aws::{http_client, time};
use crate::clock::Clock;
use crate::config::MetadataService;
use crate::words;

/// The time for one request. IMDS answers in milliseconds or, behind a hop limit of 1, never; where it is
/// slow (throttled, or another program stands before it), a limit that is too short would be met by no retry.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Attempts for each of token, role name and credentials, before the keeper's back-off applies.
const ATTEMPTS: u32 = 2;
/// Credentials are below this, each under the name of the instance profile's role.
const ROLES: &str = "/iam/security-credentials/";
/// The longest name that is kept, in bytes; IAM's own limit is 64.
const LONGEST_NAME: usize = 128;

/// The instance role.
#[derive(Debug)]
pub struct InstanceRole {
    environment: Box<ProviderConfig>,
    endpoint: Option<String>,
    ipv6: bool,
    client: imds::Client,
    noted: Noted,
}

/// What the SDK does not tell, read from the requests that it makes.
#[derive(Clone, Debug, Default)]
struct Noted {
    /// The role that credentials were given for last.
    role: Arc<Mutex<Option<Arc<str>>>>,
    /// The status of the last answer, if it was no success. The SDK says of a 503 for a session token that
    /// the header with the lifetime is missing.
    refused: Arc<Mutex<Option<u16>>>,
}

impl InstanceRole {
    /// A client for IMDS at this address.
    pub fn new(service: &MetadataService, clock: &Clock) -> Self {
        let MetadataService { endpoint, ipv6 } = service;
        Self::through(http_client::for_imds(TIMEOUT, clock), endpoint.as_deref(), *ipv6, clock)
    }

    /// The same with this HTTP client: the simulation's seam.
    pub fn through(client: SharedHttpClient, endpoint: Option<&str>, ipv6: bool, clock: &Clock) -> Self {
        let noted = Noted::default();
        let http_client = time::taught_by_metadata(client, clock);
        let environment = ProviderConfig::without_region()
            .with_http_client(noting(http_client, &noted))
            .with_sleep_impl(TokioSleep::new())
            .with_time_source(SharedTimeSource::new(clock.clone()));
        let endpoint = endpoint.map(str::to_owned);
        let client = new_client(&environment, endpoint.as_deref(), ipv6);
        Self { environment: Box::new(environment), endpoint, ipv6, client, noted }
    }

    /// Requests credentials from IMDS.
    ///
    /// # Errors
    /// [`LoadError::Imds`], when there is no role or no answer.
    pub async fn load(&mut self) -> Result<Credentials, LoadError> {
        *self.noted.refused.lock() = None;
        // A provider that has loaded before gives out its old set when IMDS fails, as if that were an answer.
        let provider = ImdsCredentialsProvider::builder()
            .configure(&self.environment)
            .imds_client(self.client.clone())
            .build();
        match provider.provide_credentials().await.and_then(whole) {
            Ok(credentials) => Ok(credentials),
            Err(source) => {
                self.drop_session();
                Err(LoadError::Imds { refused: *self.noted.refused.lock(), source })
            }
        }
    }

    /// The SDK keeps a session token for its six hours even if IMDS answers 401 to it: IMDS may have been
    /// restarted, or something that is no token was given out for one. A new client asks for a new one.
    fn drop_session(&mut self) {
        self.client = new_client(&self.environment, self.endpoint.as_deref(), self.ipv6);
    }

    /// What admins know it by.
    pub(super) fn role_name(&self) -> Arc<str> {
        match &*self.noted.role.lock() {
            Some(name) => format!("instance role {name}").into(),
            None => "the instance role".into(),
        }
    }

    /// One value of the instance metadata.
    ///
    /// # Errors
    /// [`NoValue`], when IMDS does not return it.
    pub async fn value(&mut self, path: &'static str) -> Result<String, NoValue> {
        *self.noted.refused.lock() = None;
        match self.client.get(path).await {
            Ok(value) => Ok(value.into()),
            Err(source) => {
                self.drop_session();
                Err(NoValue { path, refused: *self.noted.refused.lock(), source: Box::new(source) })
            }
        }
    }
}

/// The SDK takes an empty text for a key; with such a key nothing can be signed.
fn whole(credentials: Credentials) -> Result<Credentials, CredentialsError> {
    let parts = [credentials.access_key_id(), credentials.secret_access_key()];
    let is_whole = !parts.into_iter().chain(credentials.session_token()).any(str::is_empty);
    if is_whole { Ok(credentials) } else { Err(CredentialsError::not_loaded("a part of them is empty")) }
}

fn new_client(environment: &ProviderConfig, endpoint: Option<&str>, ipv6: bool) -> imds::Client {
    let client = imds::Client::builder().configure(environment).max_attempts(ATTEMPTS);
    match endpoint {
        // A mode next to an endpoint would make the SDK warn. `config` has checked the endpoint, so this
        // succeeds.
        Some(endpoint) => client.endpoint(endpoint).unwrap_or_default().configure(environment),
        None => client.endpoint_mode(if ipv6 { EndpointMode::IpV6 } else { EndpointMode::IpV4 }),
    }
    .build()
}

impl Noted {
    fn note(&self, path: &str, status: StatusCode) {
        *self.refused.lock() = (!status.is_success()).then(|| status.as_u16());
        if status.is_success() {
            self.note_role(path);
        }
    }

    /// Keeps the name in the path of a request that was answered.
    fn note_role(&self, path: &str) {
        let name = path.rsplit_once(ROLES).map(|(_, name)| name);
        let name = name.filter(|name| !name.is_empty() && !name.contains('/') && name.len() <= LONGEST_NAME);
        if let Some(name) = name {
            *self.role.lock() = Some(words::one_line(name));
        }
    }
}

fn noting(client: SharedHttpClient, noted: &Noted) -> SharedHttpClient {
    let noted = noted.clone();
    http_client_fn(move |settings, components| {
        use aws_smithy_runtime_api::client::http::HttpClient;
        let inner = client.http_connector(settings, components);
        SharedHttpConnector::new(NotingConnector { inner, noted: noted.clone() })
    })
}

#[derive(Debug)]
struct NotingConnector {
    inner: SharedHttpConnector,
    noted: Noted,
}

impl HttpConnector for NotingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let path = request.uri().split(['?', '#']).next().unwrap_or_default().to_owned();
        let (answer, noted) = (self.inner.call(request), self.noted.clone());
        HttpConnectorFuture::new(async move {
            let response = answer.await?;
            noted.note(&path, response.status());
            answers::checked(&path, response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Noted;

    #[test]
    fn the_role_is_named_by_the_request_for_its_credentials() {
        let noted = Noted::default();
        let noted = |path: &str| {
            noted.note_role(path);
            noted.role.lock().as_deref().map(str::to_owned)
        };
        let url = "http://169.254.169.254/latest/meta-data/iam/security-credentials/";
        assert_eq!(noted("http://169.254.169.254/latest/meta-data/placement/region"), None);
        assert_eq!(noted(url), None, "the list of roles");
        assert_eq!(noted(&format!("{url}{}", "x".repeat(129))), None);
        assert_eq!(noted(&format!("{url}node-role")).as_deref(), Some("node-role"));
        assert_eq!(noted(&format!("{url}other")).as_deref(), Some("other"));
    }
}
