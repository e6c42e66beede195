//! The addresses of one name.
//!
//! Owns: one lookup at a time, and the last good answer. Must not know: what is done with the addresses.
//!
//! getaddrinfo blocks a thread, and with a dead resolver for up to a minute. All requests of a client to one
//! server share one lookup, which goes on when they have left; so a dead resolver costs one thread for each
//! client and server (EKS Auth, and each URL of keys), and while it is dead the addresses that worked last
//! are used.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::error::{ConnectError, Step};
use crate::lifecycle::tasks::spawn_detached;

/// A lookup, where there is nothing to fall back on: beyond 5 s, after which glibc asks again.
const LIMIT: Duration = Duration::from_secs(6);
/// After this time the last good addresses are used.
const LIMIT_WITH_LAST_GOOD: Duration = Duration::from_millis(300);

/// A name and its port.
#[derive(Clone)]
pub(super) struct Name {
    shared: Arc<Shared>,
}

struct Shared {
    host: String,
    port: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_good: Option<Addresses>,
    under_way: Option<watch::Receiver<Option<Found>>>,
}

type Addresses = Arc<[SocketAddr]>;
type Found = Result<Addresses, ConnectError>;

impl Name {
    pub(super) fn new(host: &str, port: u16) -> Self {
        let shared = Shared { host: host.to_owned(), port, state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Its addresses, in the order in which the system wants them tried.
    pub(super) async fn addresses(&self) -> Found {
        if let Ok(address) = self.shared.host.parse::<IpAddr>() {
            return Ok([SocketAddr::new(address, self.shared.port)].into());
        }
        let name = (self.shared.host.clone(), self.shared.port);
        self.shared_lookup(async move { tokio::net::lookup_host(name).await.map(Iterator::collect) }).await
    }

    /// The addresses that were found last; none yet where nobody has asked.
    pub(super) fn last_good(&self) -> Vec<SocketAddr> {
        if let Ok(address) = self.shared.host.parse::<IpAddr>() {
            return vec![SocketAddr::new(address, self.shared.port)];
        }
        self.shared.state.lock().last_good.as_deref().unwrap_or_default().to_vec()
    }

    /// Joins the lookup under way; if there is none, `lookup` is it.
    async fn shared_lookup(
        &self,
        lookup: impl Future<Output = io::Result<Addresses>> + Send + 'static,
    ) -> Found {
        let (mut under_way, last_good) = {
            let mut state = self.shared.state.lock();
            let under_way = state.under_way.clone().unwrap_or_else(|| self.start(&mut state, lookup));
            (under_way, state.last_good.clone())
        };
        let limit = if last_good.is_some() { LIMIT_WITH_LAST_GOOD } else { LIMIT };
        let found = match tokio::time::timeout(limit, under_way.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone(),
            // The task is gone without a result: it has panicked, or the process is ending.
            Ok(Err(_)) | Err(_) => None,
        };
        match found.unwrap_or(Err(ConnectError::TimedOut(Step::Lookup))) {
            Ok(found) => Ok(found),
            Err(error) => last_good.ok_or(error),
        }
    }

    fn start(
        &self,
        state: &mut State,
        lookup: impl Future<Output = io::Result<Addresses>> + Send + 'static,
    ) -> watch::Receiver<Option<Found>> {
        let (sender, receiver) = watch::channel(None);
        state.under_way = Some(receiver.clone());
        let ended = Ended(Arc::clone(&self.shared));
        spawn_detached("name-lookup", async move {
            let found = match lookup.await {
                Ok(found) if found.is_empty() => Err(io::Error::from(io::ErrorKind::NotFound)),
                found => found,
            };
            if let Ok(found) = &found {
                ended.0.state.lock().last_good = Some(Arc::clone(found));
            }
            drop(ended);
            sender.send_replace(Some(found.map_err(|error| ConnectError::failed(Step::Lookup, error))));
        });
        receiver
    }
}

/// Makes way for the next lookup, however this one ended.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state.lock().under_way = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::{Addresses, LIMIT, LIMIT_WITH_LAST_GOOD, Name};

    fn found(address: &str) -> io::Result<Addresses> {
        Ok([address.parse().unwrap()].into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_costs_one_lookup_however_many_ask() {
        let name = Name::new("aws.example", 443);
        let lookups = Arc::new(AtomicUsize::new(0));
        for _ in 0..50 {
            let counted = Arc::clone(&lookups);
            let hangs = async move {
                counted.fetch_add(1, Ordering::Relaxed);
                pending().await
            };
            let start = tokio::time::Instant::now();
            assert!(name.shared_lookup(hangs).await.is_err());
            assert_eq!(start.elapsed(), LIMIT);
        }
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_addresses_are_used_while_the_resolver_is_dead() {
        let name = Name::new("aws.example", 443);
        let good = name.shared_lookup(async { found("192.0.2.1:443") }).await.unwrap();
        let failed = name.shared_lookup(async { Err(io::Error::other("SERVFAIL")) }).await.unwrap();
        assert_eq!(failed, good);
        let start = tokio::time::Instant::now();
        assert_eq!(name.shared_lookup(pending()).await.unwrap(), good);
        assert_eq!(start.elapsed(), LIMIT_WITH_LAST_GOOD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_goes_on_when_those_who_asked_have_left_and_is_found_by_the_next() {
        let name = Name::new("aws.example", 443);
        let slow = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            found("192.0.2.1:443")
        };
        let left = tokio::time::timeout(Duration::from_secs(1), name.shared_lookup(slow)).await;
        assert!(left.is_err());
        let start = tokio::time::Instant::now();
        assert!(name.shared_lookup(pending()).await.is_ok());
        assert_eq!(start.elapsed(), Duration::from_secs(4));
        // A new one is begun once it has ended.
        let next = name.shared_lookup(async { found("192.0.2.2:443") }).await.unwrap();
        assert_eq!(next[0].to_string(), "192.0.2.2:443");
    }

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        for (host, shown) in [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1")] {
            assert_eq!(Name::new(host, 1).addresses().await.unwrap()[0].to_string(), shown);
        }
    }
}
