//! Which proxy a server is reached through, and how the proxy is asked.
//!
//! Owns: the choice, CONNECT, the proxy's password. Must not know: how a connection to the proxy is made.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connect::bracketed;
use super::error::{ConnectError, SetUpError, Step};
use crate::config::{NoProxy, Proxy, is_local_host};

/// The head of a proxy's answer is no longer; a page of an error is not read.
const MAX_HEAD: usize = 16 * 1024;

/// The proxies of a client.
#[derive(Default)]
pub(super) struct Proxies {
    http: Option<ProxyServer>,
    https: Option<ProxyServer>,
    no_proxy: NoProxy,
}

/// One proxy. It has no `Debug`: it may know a password.
#[derive(Clone)]
pub(super) struct ProxyServer {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the connection to the proxy itself is TLS.
    pub(super) is_https: bool,
    authorization: Option<HeaderValue>,
}

impl Proxies {
    pub(super) fn from_config(proxy: Option<&Proxy>) -> Result<Self, SetUpError> {
        let Some(proxy) = proxy else { return Ok(Self::default()) };
        let server = |url: &Option<crate::secret::Secret>| {
            url.as_ref().map(|url| ProxyServer::parse(url.reveal()).ok_or(SetUpError::Proxy)).transpose()
        };
        Ok(Self {
            http: server(&proxy.http)?,
            https: server(&proxy.https)?,
            no_proxy: proxy.no_proxy.clone(),
        })
    }

    /// The proxy for a server, by the scheme that is spoken with it. What is on this node never goes through
    /// one (docs/design/pains.md#data-path-probes and docs/design/pains.md#proxies).
    pub(super) fn for_server(&self, is_https: bool, host: &str, port: u16) -> Option<ProxyServer> {
        let proxy = if is_https { &self.https } else { &self.http };
        proxy.clone().filter(|_| !is_local_host(host) && !self.no_proxy.excludes(host, port))
    }
}

impl ProxyServer {
    fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host().trim_matches(['[', ']']);
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let authorization = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((user, _)) => Some(basic(user)?),
        };
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port, is_https, authorization })
    }

    /// `host:port`.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }

    /// What a request that is not tunnelled carries for the proxy.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Has the proxy connect to a server; from then on the stream is the server's.
    pub(super) async fn connect<S>(&self, stream: &mut S, authority: &str) -> Result<(), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let failed = |error| ConnectError::failed(Step::Proxy, error);
        let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        if let Some(value) = &self.authorization {
            head.extend_from_slice(b"Proxy-Authorization: ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        stream.write_all(&head).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        match status(&read_head(stream).await.map_err(failed)?) {
            Some(status) if status.is_success() => Ok(()),
            Some(status) => Err(ConnectError::Refused(status)),
            None => Err(failed(io::Error::from(io::ErrorKind::InvalidData))),
        }
    }
}

/// Reads to the empty line and not a byte further: what follows is TLS.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<StatusCode> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = line.split(|byte| *byte == b' ');
    words.next().filter(|version| version.starts_with(b"HTTP/1."))?;
    StatusCode::from_bytes(words.next()?).ok()
}

/// `user:password`, each as it stands in a URL.
fn basic(user: &str) -> Option<HeaderValue> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut pair = decoded(user);
    pair.push(b':');
    pair.extend(decoded(password));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Takes `%41` for `A`; a percent sign without two digits stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let mut all = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let Some((byte, rest)) = left.split_first() {
        match rest
            .split_first_chunk::<2>()
            .filter(|_| *byte == b'%')
            .map(|(digits, after)| (hex(*digits), after))
        {
            Some((Some(escaped), after)) => {
                all.push(escaped);
                left = after;
            }
            Some((None, _)) | None => {
                all.push(*byte);
                left = rest;
            }
        }
    }
    all
}

fn hex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{Proxies, ProxyServer, decoded};
    use crate::config::{NoProxy, Proxy};
    use crate::outgoing::ConnectError;
    use crate::secret::Secret;

    fn proxies(no_proxy: &str) -> Proxies {
        let url = |text: &str| Some(Secret::new(text.to_owned()));
        let proxy = Proxy {
            http: url("http://proxy.example:1"),
            https: url("http://proxy.example:2"),
            no_proxy: NoProxy::read(no_proxy),
        };
        Proxies::from_config(Some(&proxy)).unwrap()
    }

    #[test]
    fn what_is_on_this_node_never_goes_through_a_proxy() {
        for host in ["127.0.0.1", "::1", "169.254.169.254", "localhost", "fe80::1"] {
            assert!(proxies("").for_server(true, host, 443).is_none(), "{host}");
            assert!(proxies("").for_server(false, host, 80).is_none(), "{host}");
        }
        assert_eq!(proxies("").for_server(true, "eks-auth.example", 443).unwrap().port, 2);
        assert_eq!(proxies("").for_server(false, "eks-auth.example", 80).unwrap().port, 1);
        assert!(proxies("*.example").for_server(true, "eks-auth.example", 443).is_none());
        assert!(proxies("*.example:80").for_server(true, "eks-auth.example", 443).is_some());
    }

    #[test]
    fn a_proxy_url_that_is_none_is_an_error_without_its_text() {
        for bad in ["ftp://user:planted@x", "://planted", "http://planted@"] {
            let proxy =
                Proxy { http: None, https: Some(Secret::new(bad.to_owned())), no_proxy: NoProxy::default() };
            let error = Proxies::from_config(Some(&proxy)).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("planted"));
        }
    }

    #[test]
    fn a_url_gives_host_port_and_the_decoded_password() {
        let proxy = ProxyServer::parse("https://us%65r:p%40ss%zz@[2001:db8::1]").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port, proxy.is_https), ("2001:db8::1", 443, true));
        // base64 of "user:p@ss%zz".
        assert_eq!(proxy.authorization().unwrap().to_str().unwrap(), "Basic dXNlcjpwQHNzJXp6");
        assert!(!format!("{:?}", proxy.authorization()).contains("dXNl"));
        assert_eq!(ProxyServer::parse("http://proxy").unwrap().port, 80);
        assert_eq!(decoded("%"), b"%");
    }

    #[tokio::test]
    async fn connect_sends_the_password_and_leaves_what_follows_the_answer() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        let proxy = ProxyServer::parse("http://user:pass@proxy").unwrap();
        theirs.write_all(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nTLS").await.unwrap();
        proxy.connect(&mut ours, "aws.example:443").await.unwrap();
        let mut rest = [0; 3];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"TLS");
        let mut asked = vec![0; 1024];
        let length = theirs.read(&mut asked).await.unwrap();
        let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
        assert!(
            asked.starts_with("CONNECT aws.example:443 HTTP/1.1\r\nHost: aws.example:443\r\n"),
            "{asked}"
        );
        assert!(asked.ends_with("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn an_answer_that_is_none_or_has_no_end_is_an_error() {
        let proxy = ProxyServer::parse("http://proxy").unwrap();
        for (answer, refused) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_owned(), true),
            ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), false),
            ("HTTP/1.1 200 OK\r\n".repeat(2000), false),
            ("HTTP/1.1 200".to_owned(), false),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            let error = proxy.connect(&mut ours, "aws.example:443").await.unwrap_err();
            assert_eq!(matches!(error, ConnectError::Refused(_)), refused, "{error:?}");
        }
    }
}
