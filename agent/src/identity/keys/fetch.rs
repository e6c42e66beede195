//! Key documents over HTTP.
//!
//! Owns: the client. Must not know: what a document says. Beside `server` this is the one place that names hyper: the
//! front door serves with it, this asks with it, and neither has anything the other could use. The SDK's own client is not
//! taken, because what it offers is bound to the SDK's requests.
//!
//! No redirects: whoever could answer with one could name any key of theirs. No connection is kept: the next question
//! comes in minutes. Everything within one deadline, at most one document's length.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::document::LONGEST_DOCUMENT;
use crate::lifecycle::tasks::Tasks;

/// From the name lookup to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why a document cannot be had, or the client not be made.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a URL that can be asked.
    #[error("the URL of the keys cannot be used")]
    Url,
    /// The roots cannot be read.
    #[error("the CA certificates cannot be read")]
    Roots(#[source] std::io::Error),
    /// The TLS library refuses its own settings or the bundle's certificates.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// No connection, or it broke.
    #[error("the keys cannot be fetched")]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The body broke off, or is longer than a document.
    #[error("the key document broke off or is longer than 256 KiB")]
    Body,
    /// Not 200. Redirects are in here.
    #[error("the keys were answered with status {0}")]
    Status(StatusCode),
    /// Nothing within 5 s.
    #[error("the keys did not come within 5 s")]
    Timeout,
}

/// Runs the client's connections as tasks of ours.
#[derive(Clone)]
struct OurTasks(Tasks);

impl<F> hyper::rt::Executor<F> for OurTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        self.0.spawn("token-keys-connection", connection);
    }
}

/// A document behind a URL.
pub(super) struct KeyUrl {
    uri: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl KeyUrl {
    /// `ca_bundle` replaces the system's roots, as AWS_CA_BUNDLE does in every SDK. http is let through here; `config` has
    /// seen to it that it stays on this node.
    ///
    /// # Errors
    /// [`FetchError`], when URL or roots cannot be used.
    pub(super) fn new(url: &str, ca_bundle: Option<&Path>, tasks: &Tasks) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(DEADLINE));
        // Without TLS no roots are read: loading the system's takes longer than everything else at start.
        let tls = if uri.scheme_str() == Some("https") {
            tls_config(ca_bundle)?
        } else {
            tls_builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(OurTasks(tasks.clone())).pool_max_idle_per_host(0).build(connector);
        Ok(Self { uri, client })
    }

    /// Fetches the document.
    pub(super) async fn fetch(&self) -> Result<Bytes, FetchError> {
        tokio::time::timeout(DEADLINE, self.ask()).await.map_err(|_| FetchError::Timeout)?
    }

    async fn ask(&self) -> Result<Bytes, FetchError> {
        let request = Request::get(self.uri.clone())
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::USER_AGENT, concat!("pod-identity-agent/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|_| FetchError::Url)?;
        let response = self.client.request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST_DOCUMENT);
        Ok(body.collect().await.map_err(|_| FetchError::Body)?.to_bytes())
    }
}

fn tls_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, FetchError> {
    // Named, not taken from the process: two libraries of the same process may have different ideas of a default.
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

fn tls_config(ca_bundle: Option<&Path>) -> Result<ClientConfig, FetchError> {
    let builder = tls_builder()?;
    let builder = match ca_bundle {
        None => builder.with_native_roots().map_err(FetchError::Roots)?,
        Some(path) => {
            let pem = std::fs::read(path).map_err(FetchError::Roots)?;
            let mut roots = RootCertStore::empty();
            // The bundle was whole at start (`config`); what does not parse any more is not trusted.
            for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}
