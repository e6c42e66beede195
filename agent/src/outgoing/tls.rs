//! TLS to servers: rustls on aws-lc-rs, with the system's roots or those of `AWS_CA_BUNDLE`.
//!
//! Owns: which roots are trusted, and that certificates are judged by AWS's time. Must not know: who is
//! connected to. By the node's own clock a wrong step of a year would end every connection, and with them the
//! answers that tell the time.

use std::io;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ca_bundle::CaBundle;
use super::error::SetUpError;
use crate::clock::Clock;
use crate::config::Upstream;

/// The settings of all TLS connections of a client.
pub(super) struct Tls {
    clock: Clock,
    /// It replaces the system's roots, as `AWS_CA_BUNDLE` does in every SDK.
    bundle: Option<CaBundle>,
    /// Empty until the first connection if the roots are the system's: loading these takes longer than
    /// everything else at start.
    connector: Mutex<Option<TlsConnector>>,
}

impl Tls {
    /// With the system's roots.
    pub(super) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), bundle: None, connector: Mutex::default() }
    }

    /// With those of the bundle, if there is one.
    pub(super) fn from_config(upstream: &Upstream, clock: &Clock) -> Result<Self, SetUpError> {
        let Some(path) = &upstream.ca_bundle else { return Ok(Self::new(clock)) };
        let (bundle, roots) = CaBundle::read(path)?;
        let connector = connector(roots, clock).map_err(|_| SetUpError::Tls)?;
        Ok(Self { clock: clock.clone(), bundle: Some(bundle), connector: Mutex::new(Some(connector)) })
    }

    /// Shakes hands. What the server shows must be a certificate for `host`.
    pub(super) async fn over<S>(&self, stream: S, host: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.connector().await?.connect(name, stream).await
    }

    async fn connector(&self) -> io::Result<TlsConnector> {
        let changed = match &self.bundle {
            Some(bundle) => bundle.changed().await,
            None => None,
        };
        if changed.is_none()
            && let Some(connector) = &*self.connector.lock()
        {
            return Ok(connector.clone());
        }
        let roots = changed.map_or_else(system_roots, Ok)?;
        let connector = connector(roots, &self.clock).map_err(io::Error::other)?;
        *self.connector.lock() = Some(connector.clone());
        Ok(connector)
    }
}

/// The time that certificates are judged by.
#[derive(Debug)]
struct AwsTime(Clock);

impl TimeProvider for AwsTime {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.to_sign_with().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

fn connector(roots: RootCertStore, clock: &Clock) -> Result<TlsConnector, rustls::Error> {
    // Set here, not taken from the process: two libraries may set different defaults for the process.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let time = Arc::new(AwsTime(clock.clone()));
    let mut config = ClientConfig::builder_with_details(provider, time)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use rustls::time_provider::TimeProvider;

    use super::AwsTime;
    use crate::clock::{Clock, Simulated, Teacher};

    #[tokio::test(start_paused = true)]
    async fn certificates_are_judged_by_the_time_of_aws_whatever_the_nodes_clock_says() {
        const YEAR_MS: i64 = 365 * 24 * 3_600_000;
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let simulated = Simulated::starting_at(start);
        let clock = Clock::simulated(Arc::clone(&simulated));
        let seconds = || AwsTime(clock.clone()).current_time().map(|time| time.as_secs());
        assert_eq!(seconds(), Some(1_800_000_000), "while nobody has told the time, by the node's clock");
        clock.learn(Teacher::Service, start, clock.asking(), None);
        for error_ms in [YEAR_MS, -50 * YEAR_MS] {
            simulated.set_wall_error_ms(error_ms);
            assert_eq!(seconds(), Some(1_800_000_000), "{error_ms}");
        }
    }
}
