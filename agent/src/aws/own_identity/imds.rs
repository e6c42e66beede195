//! The node's instance role, read with IMDSv2.
//!
//! Owns: the IMDS client and its limits. Must not know: what the credentials are for.

use std::time::Duration;

use aws_config::imds;
use aws_config::imds::client::EndpointMode;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SharedTimeSource;

use crate::aws::own_identity::load_error::LoadError;
use crate::aws::{http_client, time};
use crate::clock::Clock;

/// The time for one request. IMDS answers in milliseconds or, behind a hop limit of 1, never; where it is
/// slow (throttled, or another program stands before it), a limit that is too short would be met by no retry.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Attempts for each of token, role name and credentials, before the keeper's back-off applies.
const ATTEMPTS: u32 = 2;

/// The instance role.
#[derive(Debug)]
pub struct InstanceRole {
    client: imds::Client,
    provider: ImdsCredentialsProvider,
}

impl InstanceRole {
    /// A client for IMDS at its usual address, or at `endpoint`.
    pub fn new(endpoint: Option<&str>, ipv6: bool, clock: &Clock) -> Self {
        let environment = ProviderConfig::without_region()
            .with_http_client(time::taught_by_metadata(http_client::for_imds(TIMEOUT), clock))
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
        Self { client, provider }
    }

    /// Requests credentials from IMDS.
    ///
    /// # Errors
    /// [`LoadError::Imds`], when there is no role or no answer.
    pub async fn load(&self) -> Result<Credentials, LoadError> {
        self.provider.provide_credentials().await.map_err(LoadError::Imds)
    }

    /// One value of the instance metadata; `None` when IMDS does not return it.
    pub async fn metadata(&self, path: &'static str) -> Option<String> {
        self.client.get(path).await.ok().map(|value| value.as_ref().to_owned())
    }
}
