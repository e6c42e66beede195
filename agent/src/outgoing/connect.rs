//! The way to one server, step by step: name, TCP, proxy, TLS.
//!
//! Owns: the steps and the time that each may take. Must not know: who waits for the connection.
//!
//! The limits are those of a way that is broken, not of one that is slow: nobody waits for a connection
//! longer than they want to (`pool`).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::dial::dial;
use super::error::{ConnectError, Step};
use super::lookup::Name;
use super::proxy::{Proxies, ProxyServer};
use super::tls::Tls;

/// Each of TCP, CONNECT and TLS; the lookup has a limit of its own. Three SYNs fit in.
const STEP: Duration = Duration::from_secs(5);

/// A server: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) is_https: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// The way to a server.
pub(super) struct Way {
    origin: Origin,
    proxy: Option<ProxyServer>,
    /// The first host on the way: the proxy, or the server.
    first: Name,
    /// The step that was begun last, by whichever connection. Where one never ends, all new ones come to it.
    begun: Mutex<Step>,
}

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Origin {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let is_https = uri.scheme()? == &Scheme::HTTPS;
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Some(Self { is_https, host, port })
    }

    /// `host:port`.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    /// The value of `Host`: the port only where it is not the scheme's own.
    pub(super) fn host_header(&self) -> String {
        if self.port == if self.is_https { 443 } else { 80 } { self.bracketed() } else { self.authority() }
    }

    fn bracketed(&self) -> String {
        bracketed(&self.host)
    }
}

/// A host as it stands before a port.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl Way {
    pub(super) fn new(origin: Origin, proxies: &Proxies) -> Self {
        let proxy = proxies.for_server(origin.is_https, &origin.host, origin.port);
        let first = match &proxy {
            Some(proxy) => Name::new(&proxy.host, proxy.port),
            None => Name::new(&origin.host, origin.port),
        };
        Self { origin, proxy, first, begun: Mutex::new(Step::Lookup) }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The addresses of the first host on the way, as they were found last.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.first.last_good()
    }

    /// The proxy that reads the requests itself, because there is no tunnel through it.
    pub(super) fn forwarding_proxy(&self) -> Option<&ProxyServer> {
        self.proxy.as_ref().filter(|_| !self.origin.is_https)
    }

    /// The step that was begun last.
    pub(super) fn begun(&self) -> Step {
        *self.begun.lock()
    }

    /// Goes it.
    pub(super) async fn connect(&self, tls: &Tls) -> Result<Box<dyn Stream>, ConnectError> {
        self.begin(Step::Lookup);
        let addresses = self.first.addresses().await?;
        let tcp = self.step(Step::Connect, dial(&addresses)).await?;
        let mut stream: Box<dyn Stream> = Box::new(tcp);
        if let Some(proxy) = &self.proxy {
            if proxy.is_https {
                stream = Box::new(self.step(Step::ProxyTls, tls.over(stream, &proxy.host)).await?);
            }
            if self.origin.is_https {
                self.begin(Step::Proxy);
                let authority = self.origin.authority();
                let asked = proxy.connect(&mut stream, &authority);
                tokio::time::timeout(STEP, asked)
                    .await
                    .unwrap_or(Err(ConnectError::TimedOut(Step::Proxy)))?;
            }
        }
        if self.origin.is_https {
            stream = Box::new(self.step(Step::Tls, tls.over(stream, &self.origin.host)).await?);
        }
        Ok(stream)
    }

    async fn step<T>(
        &self,
        step: Step,
        work: impl Future<Output = std::io::Result<T>>,
    ) -> Result<T, ConnectError> {
        self.begin(step);
        match tokio::time::timeout(STEP, work).await {
            Ok(done) => done.map_err(|error| ConnectError::failed(step, error)),
            Err(_elapsed) => Err(ConnectError::TimedOut(step)),
        }
    }

    fn begin(&self, step: Step) {
        *self.begun.lock() = step;
    }
}

impl fmt::Display for Way {
    /// The server, and the proxy on the way to it. Of the proxy's URL only host and port are known here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin.authority())?;
        match &self.proxy {
            Some(proxy) => write!(f, " through the proxy {}", proxy.authority()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn an_origin_knows_its_port_and_what_stands_in_host() {
        for (url, authority, host) in [
            ("https://a.example/x", "a.example:443", "a.example"),
            ("http://a.example:8080", "a.example:8080", "a.example:8080"),
            ("https://[::1]:443/", "[::1]:443", "[::1]"),
            ("http://[::1]:1", "[::1]:1", "[::1]:1"),
        ] {
            let origin = Origin::of(&url.parse().unwrap()).unwrap();
            assert_eq!(
                (origin.authority().as_str(), origin.host_header().as_str()),
                (authority, host),
                "{url}"
            );
        }
        assert!(Origin::of(&"/path".parse().unwrap()).is_none());
    }
}
