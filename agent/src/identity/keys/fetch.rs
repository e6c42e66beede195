//! Key documents over HTTP.
//!
//! Owns: the client. Must not know: what a document says. Besides `server` this is the only place that names
//! hyper: the server accepts connections with it, this opens them, and the two share no code. The SDK's own
//! client is not used, because it is tied to the SDK's request types.
//!
//! Redirects are not followed: an attacker who can send one could provide keys of their own. Connections are
//! not reused: the next request follows minutes later. A fetch has one deadline and a maximum length.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::document::MAX_DOCUMENT_BYTES;
use crate::config::{Proxy, Upstream};
use crate::lifecycle::tasks::Tasks;

/// The time for a fetch, from the name lookup to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why a document cannot be fetched, or the client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is invalid.
    #[error("the URL of the token keys is invalid")]
    Url,
    /// The proxy's URL is invalid. It may contain a password, so it is not shown.
    #[error("the proxy URL in HTTPS_PROXY is invalid")]
    Proxy,
    /// The root certificates cannot be read.
    #[error("the CA certificates cannot be read")]
    Roots(#[source] std::io::Error),
    /// The TLS library rejects its settings or a certificate of the bundle.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The connection failed or broke.
    #[error("the token keys cannot be fetched")]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The body is incomplete or longer than the limit.
    #[error("the key document is incomplete or longer than {} KiB", MAX_DOCUMENT_BYTES / 1024)]
    Body,
    /// The status is not 200; redirects included.
    #[error("the server of the token keys answered with status {0}")]
    Status(StatusCode),
    /// The deadline has passed.
    #[error("the server of the token keys did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// Runs the client's connections as named tasks.
#[derive(Clone)]
struct ConnectionTasks(Tasks);

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        self.0.spawn("token-keys-connection", connection);
    }
}

/// The URL of a document, with a client for it.
pub(super) struct KeyUrl {
    uri: Uri,
    transport: Transport,
}

/// A client over this kind of connection.
type HttpsClient<C> = Client<HttpsConnector<C>, Empty<Bytes>>;
/// A connection through a proxy; the proxy itself may be https.
type ProxyConnector = Tunnel<HttpsConnector<HttpConnector>>;

/// How the server is reached.
enum Transport {
    Direct(Box<HttpsClient<HttpConnector>>),
    /// Through a proxy with CONNECT. TLS is end to end, so the proxy can neither read nor change the
    /// document.
    Tunnelled(Box<HttpsClient<ProxyConnector>>),
}

impl KeyUrl {
    /// Uses the CA bundle and the proxy of the connection to AWS. http is allowed here; `config` has checked
    /// that it stays on this node.
    ///
    /// # Errors
    /// [`FetchError`], when URL, root certificates or proxy are invalid.
    pub(super) fn new(url: &str, upstream: &Upstream, tasks: &Tasks) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(DEADLINE));
        // Root certificates are read only for https: loading those of the system takes longer than everything
        // else at start. http stays on this node, so it needs no proxy either.
        let is_https = uri.scheme_str() == Some("https");
        let tls = if is_https {
            tls_config(upstream)?
        } else {
            tls_builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        };
        let mut client = Client::builder(ConnectionTasks(tasks.clone()));
        client.pool_max_idle_per_host(0);
        let proxy = upstream.proxy.as_ref().filter(|_| is_https);
        let transport =
            match proxy.map(|proxy| tunnel(&uri, proxy, &tls, http.clone())).transpose()?.flatten() {
                None => Transport::Direct(Box::new(client.build(over_tls(tls, http)))),
                Some(tunnel) => Transport::Tunnelled(Box::new(client.build(over_tls(tls, tunnel)))),
            };
        Ok(Self { uri, transport })
    }

    /// Fetches the document.
    pub(super) async fn fetch(&self) -> Result<Bytes, FetchError> {
        tokio::time::timeout(DEADLINE, self.request()).await.map_err(|_| FetchError::Timeout)?
    }

    async fn request(&self) -> Result<Bytes, FetchError> {
        let request = Request::get(self.uri.clone())
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::USER_AGENT, concat!("pod-identity-agent/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|_| FetchError::Url)?;
        let response = match &self.transport {
            Transport::Direct(client) => client.request(request).await?,
            Transport::Tunnelled(client) => client.request(request).await?,
        };
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_DOCUMENT_BYTES);
        Ok(body.collect().await.map_err(|_| FetchError::Body)?.to_bytes())
    }
}

fn over_tls<C>(tls: ClientConfig, connector: C) -> HttpsConnector<C> {
    HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector)
}

/// The tunnel to `uri`; `None`, when NO_PROXY excludes it or there is no proxy for https.
fn tunnel(
    uri: &Uri,
    proxy: &Proxy,
    tls: &ClientConfig,
    http: HttpConnector,
) -> Result<Option<ProxyConnector>, FetchError> {
    let Some(url) = &proxy.https else { return Ok(None) };
    let matcher =
        Matcher::builder().https(url.reveal()).no(proxy.no_proxy.as_deref().unwrap_or_default()).build();
    let Some(intercept) = matcher.intercept(uri) else {
        // A proxy URL that the matcher cannot parse intercepts nothing. The proxy must not be skipped because
        // of that.
        let everything = Matcher::builder().https(url.reveal()).build();
        return if everything.intercept(uri).is_some() { Ok(None) } else { Err(FetchError::Proxy) };
    };
    let tunnel = Tunnel::new(intercept.uri().clone(), over_tls(tls.clone(), http));
    Ok(Some(match intercept.basic_auth() {
        Some(password) => tunnel.with_auth(password.clone()),
        None => tunnel,
    }))
}

fn tls_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, FetchError> {
    // Set here, not taken from the process: two libraries may set different defaults for the process.
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

fn tls_config(upstream: &Upstream) -> Result<ClientConfig, FetchError> {
    let builder = tls_builder()?;
    let builder = match &upstream.ca_bundle {
        None => builder.with_native_roots().map_err(FetchError::Roots)?,
        Some(path) => {
            let pem = std::fs::read(path).map_err(FetchError::Roots)?;
            let mut roots = RootCertStore::empty();
            // The bundle was valid at start (`config`); certificates that no longer parse are not trusted.
            for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{FetchError, KeyUrl, Transport};
    use crate::config::{Proxy, Upstream};
    use crate::lifecycle::tasks::Tasks;
    use crate::secret::Secret;

    fn upstream(proxy: &str, no_proxy: Option<&str>) -> Upstream {
        let proxy = Proxy {
            http: Some(Secret::new("http://127.0.0.1:1".to_owned())),
            https: Some(Secret::new(proxy.to_owned())),
            no_proxy: no_proxy.map(str::to_owned),
        };
        Upstream { endpoint: None, use_fips: false, ca_bundle: None, proxy: Some(proxy) }
    }

    fn is_tunnelled(url: &str, upstream: &Upstream) -> bool {
        let transport = KeyUrl::new(url, upstream, &Tasks::new()).unwrap().transport;
        matches!(transport, Transport::Tunnelled(_))
    }

    #[tokio::test]
    async fn https_goes_through_the_proxy_with_its_password_and_local_urls_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://user:planted@{}", listener.local_addr().unwrap());
        let through = upstream(&proxy, Some("internal.example"));
        assert!(!is_tunnelled("http://127.0.0.1:1/keys", &through));
        assert!(!is_tunnelled("https://keys.internal.example/keys", &through));
        let keys = KeyUrl::new("https://keys.example/keys", &through, &Tasks::new()).unwrap();
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&request[..length]).to_lowercase()
        };
        let (fetched, asked) = tokio::join!(keys.fetch(), answering);
        assert!(asked.starts_with("connect keys.example:443 "), "{asked}");
        assert!(asked.contains("proxy-authorization: basic "), "{asked}");
        let error = fetched.unwrap_err();
        assert!(matches!(error, FetchError::Connection(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("planted"));
    }

    #[test]
    fn an_invalid_proxy_url_is_an_error_that_does_not_show_it() {
        let bad = upstream("://planted", None);
        let error = KeyUrl::new("https://keys.example/keys", &bad, &Tasks::new()).err().unwrap();
        assert!(matches!(error, FetchError::Proxy), "{error:?}");
    }
}
