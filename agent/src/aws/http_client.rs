//! The HTTP client under the AWS SDK: one TLS stack, our CA, proxy and connect rules.
//!
//! Owns: which proxy is used for what, which roots are trusted, how long connecting may take. Must not know:
//! what is sent. The client is one of the simulation's seams: everything above it is the same code on
//! simulated AWS.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};

use crate::config::Upstream;

/// To connect, TLS included. Amazon's agent uses the same 500 ms; a retry on another address beats a long
/// wait.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// One attempt in all: under the 1.5 s that most SDKs still forgive, and long enough for a cold EKS Auth
/// (docs/design/decisions.md#upstream).
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1200);

/// Why the client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The CA bundle cannot be read.
    #[error("the CA bundle {path} cannot be read")]
    CaBundle {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The proxy's URL is not one. The URL may hold a password, so it is not repeated.
    #[error("the proxy URL in HTTP_PROXY or HTTPS_PROXY cannot be used")]
    Proxy,
    /// The CA bundle holds no usable certificate.
    #[error("the CA bundle holds no usable certificate")]
    Tls,
}

/// The client for AWS: proxy and CA bundle as configured.
///
/// # Errors
/// [`HttpClientError`], when bundle or proxy cannot be used.
pub fn for_aws(upstream: &Upstream) -> Result<SharedHttpClient, HttpClientError> {
    let proxy = proxy_for(upstream)?;
    let tls = tls_context(upstream)?;
    Ok(lazily(move || {
        connector(ATTEMPT_TIMEOUT)
            .proxy_config(proxy.clone())
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .build()
    }))
}

/// The client for IMDS: plain HTTP on a link-local address, never through a proxy
/// (docs/design/pains.md#data-path-probes and docs/design/pains.md#proxies).
pub fn for_imds() -> SharedHttpClient {
    lazily(|| connector(Duration::from_secs(1)).proxy_config(ProxyConfig::disabled()).build_http())
}

/// Builds the connector at the first call: loading the system's roots takes longer than everything else at
/// start.
fn lazily(build: impl Fn() -> Connector + Send + Sync + 'static) -> SharedHttpClient {
    let built: Arc<OnceLock<SharedHttpConnector>> = Arc::default();
    // The settings are those of `connector`, whatever operation asks, so one connector and one pool serve
    // all.
    http_client_fn(move |_settings, _components| {
        built.get_or_init(|| SharedHttpConnector::new(build())).clone()
    })
}

fn connector(read_timeout: Duration) -> ConnectorBuilder {
    let settings =
        HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(read_timeout).build();
    // The pool keeps idle connections for 90 s (hyper-util's default), so that a busy node's next call is
    // warm.
    Connector::builder()
        .connector_settings(settings)
        .sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new())
        .enable_tcp_nodelay(true)
}

/// The proxy for EKS Auth, chosen by the endpoint's scheme. Loopback and link-local endpoints never go
/// through one.
fn proxy_for(upstream: &Upstream) -> Result<ProxyConfig, HttpClientError> {
    let Some(proxy) = &upstream.proxy else { return Ok(ProxyConfig::disabled()) };
    if upstream.is_on_this_node() {
        return Ok(ProxyConfig::disabled());
    }
    let is_plain = upstream.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http:"));
    let url = if is_plain { &proxy.http } else { &proxy.https };
    let Some(url) = url else { return Ok(ProxyConfig::disabled()) };
    let config = if is_plain { ProxyConfig::http(url.reveal()) } else { ProxyConfig::https(url.reveal()) };
    let config = config.map_err(|_| HttpClientError::Proxy)?;
    Ok(match &proxy.no_proxy {
        Some(rules) => config.no_proxy(rules),
        None => config,
    })
}

fn tls_context(upstream: &Upstream) -> Result<TlsContext, HttpClientError> {
    let trust = match &upstream.ca_bundle {
        None => TrustStore::default(),
        // The bundle replaces the system's roots, as AWS_CA_BUNDLE does in every SDK.
        Some(path) => {
            let pem = std::fs::read(path)
                .map_err(|source| HttpClientError::CaBundle { path: path.clone(), source })?;
            TrustStore::empty().with_pem_certificate(pem)
        }
    };
    TlsContext::builder().with_trust_store(trust).build().map_err(|_| HttpClientError::Tls)
}

#[cfg(test)]
mod tests {
    use super::proxy_for;
    use crate::config::{Proxy, Upstream};
    use crate::secret::Secret;

    fn upstream(endpoint: Option<&str>) -> Upstream {
        let url = |text: &str| Some(Secret::new(text.to_owned()));
        Upstream {
            endpoint: endpoint.map(str::to_owned),
            use_fips: false,
            ca_bundle: None,
            proxy: Some(Proxy {
                http: url("http://proxy.example:1"),
                https: url("http://proxy.example:2"),
                no_proxy: None,
            }),
        }
    }

    #[test]
    fn local_endpoints_never_go_through_a_proxy() {
        for endpoint in
            ["http://127.0.0.1:8080", "http://[::1]:1", "http://169.254.169.254", "http://localhost:9"]
        {
            assert!(proxy_for(&upstream(Some(endpoint))).unwrap().is_disabled(), "{endpoint}");
        }
        assert!(!proxy_for(&upstream(Some("https://eks-auth.example"))).unwrap().is_disabled());
        assert!(!proxy_for(&upstream(None)).unwrap().is_disabled());
    }

    #[test]
    fn a_proxy_url_that_is_none_is_an_error_without_its_text() {
        let mut bad = upstream(None);
        bad.proxy = Some(Proxy {
            http: None,
            https: Some(Secret::new("ftp://user:planted@x".to_owned())),
            no_proxy: None,
        });
        let error = proxy_for(&bad).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("planted"));
    }
}
