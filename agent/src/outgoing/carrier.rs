//! What a request travels on, for who waits for its answer.
//!
//! Owns: telling it while the request is under way, and before that, which step the way to the server is at.
//! Must not know: connections, or what follows. A used connection may be dead without anybody having noticed
//! (a lapsed NAT entry, a new address of the node), so who waits may want to wait for less; on a new one that
//! cannot be, and an answer that does not come is merely late.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::connect::Way;
use super::error::{ConnectError, Unconnected};

/// Tells what a request travels on. It goes with the request, in its extensions; clones tell the same.
#[derive(Clone)]
pub struct Carrier {
    current: watch::Sender<Connection>,
    /// The way of the connection that it waits for.
    way: Arc<Mutex<Option<Arc<Way>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    /// None yet.
    Awaited,
    /// Nothing was ever sent on it before.
    New,
    /// It has carried other requests.
    Used,
}

impl Carrier {
    /// Of a request that is not on its way yet.
    pub fn new() -> Self {
        Self { current: watch::Sender::new(Connection::Awaited), way: Arc::default() }
    }

    /// The request waits for a connection on this way.
    pub(super) fn awaits(&self, way: &Arc<Way>) {
        *self.way.lock() = Some(Arc::clone(way));
    }

    /// What a request lacks that is given up now: a connection, and the step that was begun last on the way
    /// to it. `None` once the request has gone out on one, or before it has asked for any.
    pub fn lacks(&self) -> Option<Unconnected> {
        let way = self.way.lock().clone().filter(|_| !self.is_under_way())?;
        Some(Unconnected { to: way.to_string(), source: ConnectError::TimedOut(way.begun()) })
    }

    /// The request goes out on this connection now, perhaps after another one would not take it.
    pub fn takes(&self, is_used: bool) {
        self.current.send_replace(if is_used { Connection::Used } else { Connection::New });
    }

    /// Whether the request has gone out on a connection.
    pub fn is_under_way(&self) -> bool {
        match *self.current.borrow() {
            Connection::Awaited => false,
            Connection::New | Connection::Used => true,
        }
    }

    /// Waits until the request has been on one used connection for so long. If that never happens, for ever.
    pub async fn used_for(&self, time: Duration) {
        let mut current = self.current.subscribe();
        loop {
            let connection = *current.borrow_and_update();
            let long_enough = async {
                match connection {
                    Connection::Used => tokio::time::sleep(time).await,
                    Connection::Awaited | Connection::New => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = long_enough => return,
                // The sender lives as long as `self`.
                _changed = current.changed() => {}
            }
        }
    }
}

impl Default for Carrier {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::connect::{Origin, Way};
    use super::super::proxy::Proxies;
    use super::Carrier;
    use crate::telemetry::error_chain::ErrorChain;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_time_on_one_used_connection_counts() {
        let carrier = Carrier::new();
        let began = tokio::time::Instant::now();
        let travelling = async {
            // Being made, then one that turns out to be closed, then another one.
            tokio::time::sleep(ms(5_000)).await;
            carrier.takes(true);
            tokio::time::sleep(ms(900)).await;
            carrier.takes(true);
        };
        tokio::join!(carrier.used_for(ms(1_200)), travelling);
        assert_eq!(began.elapsed(), ms(5_000 + 900 + 1_200));
    }

    #[test]
    fn who_gives_up_without_a_connection_learns_the_server_and_the_step() {
        let origin = Origin { is_https: true, host: "a.example".to_owned(), port: 443 };
        let way = Arc::new(Way::new(origin, &Proxies::default()));
        let carrier = Carrier::new();
        assert!(carrier.lacks().is_none(), "it has not asked for a connection");
        carrier.awaits(&way);
        let lacks = carrier.lacks().unwrap();
        let told = "there is no connection to a.example:443: the name lookup took too long";
        assert_eq!(ErrorChain(&lacks).to_string(), told);
        carrier.takes(false);
        assert!(carrier.lacks().is_none(), "it is under way");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_has_no_end() {
        let carrier = Carrier::new();
        carrier.takes(true);
        carrier.takes(false);
        assert!(tokio::time::timeout(ms(3_600_000), carrier.used_for(ms(1_200))).await.is_err());
    }
}
