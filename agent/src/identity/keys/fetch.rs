//! Key documents over HTTP.
//!
//! Owns: the URL, and one deadline for a fetch. Must not know: what a document says.
//!
//! Redirects are not followed: an attacker who can send one could provide keys of their own. Connections are
//! not reused: the next request follows minutes later.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;

use super::document::MAX_DOCUMENT_BYTES;
use crate::clock::Clock;
use crate::config::Upstream;
use crate::outgoing::{Client, SendError, SetUpError};

/// The time for a fetch, from the name lookup to the last byte. A connection in the making outlives it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why a document cannot be fetched, or the client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is invalid.
    #[error("the URL of the token keys is invalid")]
    Url,
    /// Proxy or CA bundle cannot be used.
    #[error(transparent)]
    SetUp(#[from] SetUpError),
    /// The connection failed or broke, or the document is longer than the limit.
    #[error("the token keys cannot be fetched")]
    Send(#[from] SendError),
    /// The status is not 200; redirects included.
    #[error("the server of the token keys answered with status {0}")]
    Status(StatusCode),
    /// The deadline has passed.
    #[error("the server of the token keys did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// The URL of a document, with a client for it.
pub(super) struct KeyUrl {
    uri: Uri,
    client: Client,
}

impl KeyUrl {
    /// Uses the CA bundle and the proxy of the connection to AWS. http is allowed here; `config` has checked
    /// that it stays on this node.
    ///
    /// # Errors
    /// [`FetchError`], when URL, root certificates or proxy are invalid.
    pub(super) fn new(url: &str, upstream: &Upstream, clock: &Clock) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        Ok(Self { uri, client: Client::new(upstream, clock)? })
    }

    /// Fetches the document.
    pub(super) async fn fetch(&self) -> Result<Bytes, FetchError> {
        tokio::time::timeout(DEADLINE, self.request()).await.map_err(|_| FetchError::Timeout)?
    }

    async fn request(&self) -> Result<Bytes, FetchError> {
        let request = Request::get(self.uri.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(
                USER_AGENT,
                HeaderValue::from_static(concat!("pod-identity-agent/", env!("CARGO_PKG_VERSION"))),
            )
            .header(CONNECTION, HeaderValue::from_static("close"))
            .body(Full::default())
            .map_err(|_| FetchError::Url)?;
        let response = self.client.send(request, MAX_DOCUMENT_BYTES).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        Ok(response.into_body())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{FetchError, KeyUrl};
    use crate::clock::Clock;
    use crate::config::{NoProxy, Proxy, Upstream};
    use crate::lifecycle::tasks::spawn_detached;
    use crate::outgoing::SendError;
    use crate::secret::Secret;

    fn upstream(proxy: Option<Proxy>) -> Upstream {
        Upstream { endpoint: None, use_fips: false, ca_bundle: None, proxy }
    }

    fn at(url: &str, upstream: &Upstream) -> Result<KeyUrl, FetchError> {
        KeyUrl::new(url, upstream, &Clock::system())
    }

    fn through(proxy: &str) -> Upstream {
        upstream(Some(Proxy {
            http: None,
            https: Some(Secret::new(proxy.to_owned())),
            no_proxy: NoProxy::read("internal.example"),
        }))
    }

    #[tokio::test]
    async fn https_goes_through_the_proxy_with_its_password() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://user:planted@{}", listener.local_addr().unwrap());
        let keys = at("https://keys.example/keys", &through(&proxy)).unwrap();
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
        assert!(matches!(error, FetchError::Send(SendError::Connect(_))), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("planted"));
    }

    #[test]
    fn an_invalid_proxy_url_is_an_error_that_does_not_show_it() {
        let error = at("https://keys.example/keys", &through("://planted")).err().unwrap();
        assert!(matches!(error, FetchError::SetUp(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("planted"));
    }

    /// A server that answers every request with this head, and then with this again and again.
    async fn endless(head: &'static str, again: Vec<u8>, pause: Duration) -> KeyUrl {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        spawn_detached("test-server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let again = again.clone();
                spawn_detached("test-server", async move {
                    let _request = stream.read(&mut [0; 1024]).await;
                    let _sent = stream.write_all(head.as_bytes()).await;
                    while stream.write_all(&again).await.is_ok() {
                        tokio::time::sleep(pause).await;
                    }
                });
            }
        });
        at(&url, &upstream(None)).unwrap()
    }

    #[tokio::test]
    async fn a_document_without_end_is_an_error_at_the_limit_and_one_that_trickles_at_the_deadline() {
        let chunk = [b"1000\r\n", vec![b' '; 0x1000].as_slice(), b"\r\n"].concat();
        for (head, again) in [
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk),
            ("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n", vec![b' '; 4096]),
            ("HTTP/1.1 200 OK\r\n\r\n", vec![b' '; 4096]),
        ] {
            let error = endless(head, again, Duration::ZERO).await.fetch().await.unwrap_err();
            assert!(matches!(error, FetchError::Send(SendError::TooLong(_))), "{head}: {error:?}");
        }
        let trickle = endless("HTTP/1.1 200 OK\r\n\r\n", vec![b' '], Duration::from_millis(300)).await;
        assert!(matches!(trickle.fetch().await.unwrap_err(), FetchError::Timeout));
    }
}
