//! Sends a request, and reads an answer that has a maximum length.
//!
//! Owns: what a request looks like on the wire, and how much of an answer is taken. Must not know: what
//! either says. Redirects are not followed: who can send one could otherwise choose where tokens go, or where
//! keys come from.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use parking_lot::Mutex;

use super::carrier::Carrier;
use super::connect::{Origin, Way};
use super::error::{SendError, SetUpError, Unconnected};
use super::pool::Pool;
use super::proxy::Proxies;
use super::tls::Tls;
use crate::clock::Clock;
use crate::config::Upstream;

/// A client. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    proxies: Proxies,
    tls: Arc<Tls>,
    /// One per server. Servers come from the configuration, so there are few.
    pools: Mutex<HashMap<Origin, Pool>>,
}

/// A way to a server that was taken, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenWay {
    /// The server, and the proxy on the way to it.
    pub to: String,
    /// The addresses of the first of them, as they were found last.
    pub addresses: Vec<SocketAddr>,
}

impl Client {
    /// A client with the proxies and the CA bundle of the connection to AWS. Nothing is connected yet. By
    /// this clock certificates are judged.
    ///
    /// # Errors
    /// [`SetUpError`], when bundle or proxy cannot be used.
    pub fn new(upstream: &Upstream, clock: &Clock) -> Result<Self, SetUpError> {
        let proxies = Proxies::from_config(upstream.proxy.as_ref())?;
        Ok(Self::of(proxies, Tls::from_config(upstream, clock)?))
    }

    /// A client that never uses a proxy.
    pub fn direct(clock: &Clock) -> Self {
        Self::of(Proxies::default(), Tls::new(clock))
    }

    fn of(proxies: Proxies, tls: Tls) -> Self {
        Self { shared: Arc::new(Shared { proxies, tls: Arc::new(tls), pools: Mutex::default() }) }
    }

    /// Sends a request and reads the whole answer, `max_body` bytes at most. Dropping the future gives both
    /// up, but not a connection that is in the making. A [`Carrier`] among the
    /// request's extensions learns what it travels on.
    ///
    /// # Errors
    /// [`SendError`], when there is no complete answer.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        max_body: usize,
    ) -> Result<Response<Bytes>, SendError> {
        let origin = Origin::of(request.uri()).ok_or(SendError::Url)?;
        let pool = self.pool(&origin);
        let mut request = on_the_wire(request, pool.way())?;
        loop {
            if let Some(carrier) = request.extensions().get::<Carrier>() {
                carrier.awaits(pool.way());
            }
            let mut lease = pool.connection().await.map_err(|source| {
                let to = pool.way().to_string();
                Unconnected { to, source }
            })?;
            if let Some(carrier) = request.extensions().get::<Carrier>() {
                carrier.takes(lease.is_used());
            }
            match lease.sender.try_send_request(request).await {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    let body = Limited::new(body, max_body).collect().await;
                    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                        true => SendError::TooLong(max_body),
                        false => SendError::Body(error),
                    })?;
                    lease.give_back();
                    return Ok(Response::from_parts(parts, body.to_bytes()));
                }
                Err(mut error) => match error.take_message() {
                    // The server has closed an idle connection, and nothing of the request was sent. There
                    // are no more rounds than idle connections.
                    Some(unsent) if lease.is_used() => request = unsent,
                    Some(_) | None => return Err(SendError::Broken(error.into_error())),
                },
            }
        }
    }

    /// The ways that requests have taken so far.
    pub fn ways(&self) -> Vec<TakenWay> {
        let pools = self.shared.pools.lock();
        let ways = pools.values().map(|pool| pool.way());
        let mut taken: Vec<_> =
            ways.map(|way| TakenWay { to: way.to_string(), addresses: way.addresses() }).collect();
        taken.sort_by(|one, other| one.to.cmp(&other.to));
        taken
    }

    fn pool(&self, origin: &Origin) -> Pool {
        let mut pools = self.shared.pools.lock();
        let new = || Pool::new(Way::new(origin.clone(), &self.shared.proxies), Arc::clone(&self.shared.tls));
        pools.entry(origin.clone()).or_insert_with(new).clone()
    }
}

impl fmt::Debug for Client {
    /// Shows nothing: a proxy may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The request as it is sent: with `Host`, and with the path alone unless a proxy has to read the URL.
fn on_the_wire(mut request: Request<Full<Bytes>>, way: &Way) -> Result<Request<Full<Bytes>>, SendError> {
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::try_from(way.origin().host_header()).map_err(|_| SendError::Url)?;
        request.headers_mut().insert(HOST, host);
    }
    match way.forwarding_proxy() {
        Some(proxy) => {
            if let Some(authorization) = proxy.authorization() {
                request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
            }
        }
        None => {
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::carrier::Carrier;
    use super::super::proxy::Proxies;
    use super::super::tls::Tls;
    use super::{Client, SendError};
    use crate::clock::Clock;
    use crate::lifecycle::tasks::spawn_detached;
    use crate::telemetry::error_chain::ErrorChain;

    fn direct() -> Client {
        Client::direct(&Clock::system())
    }

    /// A server that answers so many requests on each connection, each after this time, and then closes it.
    async fn server(
        answer: &'static str,
        per_connection: usize,
        after: Duration,
    ) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&connections);
        spawn_detached("test-server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                spawn_detached("test-server", async move {
                    for _ in 0..per_connection {
                        if !matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {
                            return;
                        }
                        tokio::time::sleep(after).await;
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (address, connections)
    }

    async fn get(client: &Client, address: SocketAddr) -> Result<http::Response<Bytes>, SendError> {
        let request = Request::get(format!("http://{address}/path")).body(Full::default()).unwrap();
        client.send(request, 100).await
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    #[tokio::test]
    async fn requests_one_after_the_other_share_a_connection_and_those_at_once_do_not() {
        let (address, connections) = server(OK, 100, Duration::from_millis(30)).await;
        let client = direct();
        for _ in 0..5 {
            assert_eq!(get(&client, address).await.unwrap().body(), "ok");
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);
        let (first, second, third) =
            tokio::join!(get(&client, address), get(&client, address), get(&client, address));
        assert!(first.is_ok() && second.is_ok() && third.is_ok());
        assert_eq!(connections.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_connection_that_the_server_has_closed_meanwhile_costs_nobody_an_error() {
        let (address, connections) = server(OK, 1, Duration::ZERO).await;
        let client = direct();
        for _ in 0..20 {
            assert_eq!(get(&client, address).await.unwrap().body(), "ok");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(connections.load(Ordering::Relaxed), 20);
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_takes_its_connection_with_it_and_no_other_gets_its_answer() {
        let (address, connections) = server(OK, 100, Duration::from_millis(200)).await;
        let client = direct();
        get(&client, address).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(50), get(&client, address)).await;
        assert!(given_up.is_err());
        assert_eq!(get(&client, address).await.unwrap().body(), "ok");
        assert_eq!(connections.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_a_long_answer_is_none() {
        let redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let (address, _) = server(redirect, 1, Duration::ZERO).await;
        assert_eq!(get(&direct(), address).await.unwrap().status(), 302);
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n".to_owned() + &"x".repeat(101);
        let (address, _) = server(long.leak(), 1, Duration::ZERO).await;
        let error = get(&direct(), address).await.unwrap_err();
        assert!(matches!(error, SendError::TooLong(100)), "{error:?}");
    }

    #[tokio::test]
    async fn where_nobody_listens_all_who_wait_are_told() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = direct();
        let asked: [_; 3] = std::array::from_fn(|_| get(&client, gone));
        for asked in asked {
            let told = tokio::time::timeout(Duration::from_secs(2), asked).await.expect("told");
            assert!(matches!(told, Err(SendError::Connect(_))), "{told:?}");
        }
    }

    #[tokio::test]
    async fn who_gives_up_on_a_silent_way_learns_at_which_step_it_is_silent() {
        // A queue of one that is full: the kernel drops every further SYN, as a packet filter does.
        let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        dead.listen(0).unwrap();
        let dead_at = dead.local_addr().unwrap().as_socket().unwrap();
        let _full = std::net::TcpStream::connect(dead_at).unwrap();
        // The kernel accepts, and nobody says a word.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent_at = silent.local_addr().unwrap();
        let proxy = crate::config::Proxy {
            http: None,
            https: Some(crate::secret::Secret::new(format!("http://{silent_at}"))),
            no_proxy: crate::config::NoProxy::default(),
        };
        let through_proxy =
            Client::of(Proxies::from_config(Some(&proxy)).unwrap(), Tls::new(&Clock::system()));
        for (client, url, told) in [
            (direct(), format!("http://{dead_at}/"), "the TCP connection took too long"),
            (direct(), format!("https://{silent_at}/"), "TLS took too long"),
            (
                through_proxy,
                "https://a.example/".to_owned(),
                "the connection through the proxy took too long",
            ),
        ] {
            let carrier = Carrier::new();
            let mut request = Request::get(&url).body(Full::new(Bytes::new())).unwrap();
            request.extensions_mut().insert(carrier.clone());
            let given_up = tokio::time::timeout(Duration::from_millis(300), client.send(request, 10)).await;
            assert!(given_up.is_err(), "{url}");
            let lacks = ErrorChain(&carrier.lacks().unwrap()).to_string();
            assert!(lacks.ends_with(told), "{lacks}");
        }
    }
}
