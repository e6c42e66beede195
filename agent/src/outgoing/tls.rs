//! TLS to servers: rustls on aws-lc-rs, with the system's roots or the bundle's.
//!
//! Owns: which roots are trusted. Must not know: who is connected to.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::SetUpError;
use crate::config::Upstream;

/// The settings of all TLS connections of a client.
#[derive(Default)]
pub(super) struct Tls {
    /// Empty until the first connection if the roots are the system's: loading these takes longer than
    /// everything else at start.
    connector: OnceLock<TlsConnector>,
}

impl Tls {
    /// The bundle replaces the system's roots, as `AWS_CA_BUNDLE` does in every SDK.
    pub(super) fn from_config(upstream: &Upstream) -> Result<Self, SetUpError> {
        let tls = Self::default();
        if let Some(path) = &upstream.ca_bundle {
            let pem =
                std::fs::read(path).map_err(|source| SetUpError::CaBundle { path: path.clone(), source })?;
            let mut roots = RootCertStore::empty();
            // The bundle was valid at start (`config`); certificates that no longer parse are not trusted.
            for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
                roots.add(certificate).map_err(|_| SetUpError::Tls)?;
            }
            let _first = tls.connector.set(connector(roots).map_err(|_| SetUpError::Tls)?);
        }
        Ok(tls)
    }

    /// Shakes hands. What the server shows must be a certificate for `host`.
    pub(super) async fn over<S>(&self, stream: S, host: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.connector()?.connect(name, stream).await
    }

    fn connector(&self) -> io::Result<TlsConnector> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector.clone());
        }
        let connector = connector(system_roots()?).map_err(io::Error::other)?;
        Ok(self.connector.get_or_init(|| connector).clone())
    }
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    // Set here, not taken from the process: two libraries may set different defaults for the process.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The system's roots; those that do not parse are left out. None at all is an error, and is not remembered.
fn system_roots() -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the system has no CA certificates"));
    }
    Ok(roots)
}
