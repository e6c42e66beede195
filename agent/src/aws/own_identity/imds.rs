//! The node's instance role, read with IMDSv2.
//!
//! Owns: the IMDS client and its limits. Must not know: what the credentials are for.

use std::sync::Arc;
use std::time::Duration;

use aws_config::imds;
use aws_config::imds::client::EndpointMode;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SharedTimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use parking_lot::Mutex;

use crate::aws::own_identity::load_error::LoadError;
use crate::aws::{http_client, time, words};
use crate::clock::Clock;

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
    client: imds::Client,
    provider: ImdsCredentialsProvider,
    role: RoleName,
}

/// The role that credentials were given for last. The provider does not tell it, so it is read from the
/// requests that it makes.
#[derive(Clone, Debug, Default)]
struct RoleName {
    name: Arc<Mutex<Option<Arc<str>>>>,
}

impl InstanceRole {
    /// A client for IMDS at its usual address, or at `endpoint`.
    pub fn new(endpoint: Option<&str>, ipv6: bool, clock: &Clock) -> Self {
        Self::through(http_client::for_imds(TIMEOUT, clock), endpoint, ipv6, clock)
    }

    /// The same with this HTTP client: the simulation's seam.
    pub fn through(client: SharedHttpClient, endpoint: Option<&str>, ipv6: bool, clock: &Clock) -> Self {
        let role = RoleName::default();
        let http_client = time::taught_by_metadata(client, clock);
        let environment = ProviderConfig::without_region()
            .with_http_client(noting_the_role(http_client, &role))
            .with_sleep_impl(TokioSleep::new())
            .with_time_source(SharedTimeSource::new(clock.clone()));
        let mut client = imds::Client::builder().configure(&environment).max_attempts(ATTEMPTS);
        client = match endpoint {
            // A mode next to an endpoint would make the SDK warn. `config` has checked the endpoint, so this
            // succeeds.
            Some(endpoint) => client.endpoint(endpoint).unwrap_or_default().configure(&environment),
            None => client.endpoint_mode(if ipv6 { EndpointMode::IpV6 } else { EndpointMode::IpV4 }),
        };
        let client = client.build();
        let provider =
            ImdsCredentialsProvider::builder().configure(&environment).imds_client(client.clone()).build();
        Self { client, provider, role }
    }

    /// Requests credentials from IMDS.
    ///
    /// # Errors
    /// [`LoadError::Imds`], when there is no role or no answer.
    pub async fn load(&self) -> Result<Credentials, LoadError> {
        self.provider.provide_credentials().await.map_err(LoadError::Imds)
    }

    /// What admins know it by.
    pub(super) fn role_name(&self) -> Arc<str> {
        match &*self.role.name.lock() {
            Some(name) => format!("instance role {name}").into(),
            None => "the instance role".into(),
        }
    }

    /// One value of the instance metadata; `None` when IMDS does not return it.
    pub async fn metadata(&self, path: &'static str) -> Option<String> {
        self.client.get(path).await.ok().map(|value| value.as_ref().to_owned())
    }
}

impl RoleName {
    /// Keeps the name in the path of a request that was answered.
    fn note(&self, path: &str) {
        let name = path.rsplit_once(ROLES).map(|(_, name)| name);
        let name = name.filter(|name| !name.is_empty() && !name.contains('/') && name.len() <= LONGEST_NAME);
        if let Some(name) = name {
            *self.name.lock() = Some(words::one_line(name));
        }
    }
}

fn noting_the_role(client: SharedHttpClient, role: &RoleName) -> SharedHttpClient {
    let role = role.clone();
    http_client_fn(move |settings, components| {
        use aws_smithy_runtime_api::client::http::HttpClient;
        let inner = client.http_connector(settings, components);
        SharedHttpConnector::new(NotingConnector { inner, role: role.clone() })
    })
}

#[derive(Debug)]
struct NotingConnector {
    inner: SharedHttpConnector,
    role: RoleName,
}

impl HttpConnector for NotingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let path = request.uri().split(['?', '#']).next().unwrap_or_default().to_owned();
        let (answer, role) = (self.inner.call(request), self.role.clone());
        HttpConnectorFuture::new(async move {
            let response = answer.await?;
            if response.status().is_success() {
                role.note(&path);
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::RoleName;

    #[test]
    fn the_role_is_named_by_the_request_for_its_credentials() {
        let role = RoleName::default();
        let noted = |path: &str| {
            role.note(path);
            role.name.lock().as_deref().map(str::to_owned)
        };
        let url = "http://169.254.169.254/latest/meta-data/iam/security-credentials/";
        assert_eq!(noted("http://169.254.169.254/latest/meta-data/placement/region"), None);
        assert_eq!(noted(url), None, "the list of roles");
        assert_eq!(noted(&format!("{url}{}", "x".repeat(129))), None);
        assert_eq!(noted(&format!("{url}node-role")).as_deref(), Some("node-role"));
        assert_eq!(noted(&format!("{url}other")).as_deref(), Some("other"));
    }
}
