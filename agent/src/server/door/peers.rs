//! Fairness by what is known at accept: the peer's address (docs/design/decisions.md#fairness).
//!
//! Owns: how many connections and held requests a peer may have, how many connections there are in all, and
//! which idle one closes to make room. Must not know: HTTP, or which pod a peer is. One `Peers` serves all
//! credential listeners.
//!
//! Permits count work. A connection that was asked to close no longer counts although its descriptor is still
//! open for some microseconds; the number of those is bounded too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::activity::{Activity, CloseRequest};
use super::stats::{ConnectionStats, count};
use crate::workload::PeerKey;

/// How much one peer, and all together, may have open.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Connections of one peer. 64 (docs/design/decisions.md#fairness): the busiest client pools seen hold
    /// ten.
    pub connections: usize,
    /// Requests of one peer that wait for an answer. 32 (docs/design/decisions.md#fairness).
    pub held: usize,
    /// How many times as much the node's own addresses get. 8 (docs/design/decisions.md#fairness): all
    /// host-network pods share them.
    pub host_factor: usize,
    /// Connections of all peers.
    pub all_connections: usize,
    /// How many connections over `all_connections` may be closing.
    pub closing: usize,
    /// How long a new connection does not count as idle although silent. 1 s: the longest that a client takes
    /// to send its request.
    pub fresh: Duration,
}

impl PeerLimits {
    /// Half of this is for connections that are closing, the rest for files, upstream connections and the
    /// admin listeners.
    const RESERVED_DESCRIPTORS: usize = 64;
    /// Enough for 250 pods with 16 each; more would only hide a leak.
    const MOST_CONNECTIONS: usize = 4_096;

    /// The limits of the credential listeners, for the number of descriptors this process may have.
    pub fn for_this_process() -> Self {
        // Linux never fails here; if it did, the usual soft limit of a login is assumed.
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _hard)| soft);
        Self::for_descriptors(soft)
    }

    /// The limits of the credential listeners with `descriptors` to share.
    pub fn for_descriptors(descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let all_connections =
            descriptors.saturating_sub(Self::RESERVED_DESCRIPTORS).clamp(1, Self::MOST_CONNECTIONS);
        Self {
            connections: 64,
            held: 32,
            host_factor: 8,
            all_connections,
            closing: Self::RESERVED_DESCRIPTORS / 2,
            fresh: Duration::from_secs(1),
        }
    }

    /// The limits of the admin listeners: few, so that scrapers and probes cannot starve the credential
    /// endpoint.
    pub fn for_admin() -> Self {
        Self {
            connections: 16,
            held: 16,
            host_factor: 1,
            all_connections: 16,
            closing: 4,
            fresh: Duration::from_secs(1),
        }
    }
}

/// Why a connection or a held request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The peer is at its limit, and none of its connections is idle.
    #[error("too many connections of this peer")]
    ConnectionsOfPeer,
    /// The limit of all peers together is reached, and no connection is idle.
    #[error("too many connections")]
    Connections,
    /// Connections are closing, but have not closed yet.
    #[error("too many connections, some are closing")]
    Closing,
    /// The peer waits for too many answers.
    #[error("too many held requests of this peer")]
    HeldOfPeer,
}

/// What each peer has open. Clones share it.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    limits: PeerLimits,
    is_host: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    epoch: Instant,
    stats: ConnectionStats,
    /// Notified when a connection has closed.
    closed: Notify,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    connections: usize,
    /// Only peers with something open, so no larger than the number of connections.
    peers: HashMap<IpAddr, PeerOpen>,
}

#[derive(Default)]
struct PeerOpen {
    connections: Vec<Arc<Activity>>,
    held: usize,
}

impl Peers {
    /// Nothing open. `is_host` knows the node's own addresses, except loopback, which always counts as the
    /// node.
    pub fn new(limits: PeerLimits, is_host: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            limits,
            is_host: Box::new(is_host),
            epoch: Instant::now(),
            stats: ConnectionStats::default(),
            closed: Notify::new(),
            open: Mutex::default(),
        }))
    }

    /// What is counted.
    pub fn stats(&self) -> &ConnectionStats {
        &self.0.stats
    }

    /// Whether the address is one of the node's own.
    pub fn is_host(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || (self.0.is_host)(address)
    }

    fn share(&self, address: IpAddr, limit: usize) -> usize {
        if self.is_host(address) { limit.saturating_mul(self.0.limits.host_factor) } else { limit }
    }

    /// The peer that requests from an address are counted for.
    pub fn key(&self, address: IpAddr) -> PeerKey {
        PeerKey::new(address, self.share(address, 1))
    }

    /// Room for one connection, made by asking an idle one to close if need be.
    pub fn try_connect(&self, address: IpAddr) -> Result<ConnectionPermit, TooMany> {
        let address = address.to_canonical();
        let result = self.admit(address);
        match &result {
            Ok(_) => {
                count(&self.0.stats.connections_accepted);
                count(&self.0.stats.connections_open);
            }
            Err(TooMany::ConnectionsOfPeer) => count(&self.0.stats.connections_refused_peer),
            Err(TooMany::Connections) => count(&self.0.stats.connections_refused_full),
            Err(TooMany::Closing | TooMany::HeldOfPeer) => {}
        }
        result
    }

    /// As [`Peers::try_connect`], but waits up to `patience` for connections that are closing.
    pub async fn connect(&self, address: IpAddr, patience: Duration) -> Result<ConnectionPermit, TooMany> {
        let deadline = Instant::now() + patience;
        loop {
            let closed = self.0.closed.notified();
            match self.try_connect(address) {
                Err(TooMany::Closing) => {}
                result => return result,
            }
            if tokio::time::timeout_at(deadline, closed).await.is_err() {
                count(&self.0.stats.connections_refused_full);
                return Err(TooMany::Connections);
            }
        }
    }

    /// Room for one request that waits for its answer.
    pub fn try_hold(&self, address: IpAddr) -> Result<HoldPermit, TooMany> {
        let address = address.to_canonical();
        let limit = self.share(address, self.0.limits.held);
        let mut open = self.0.open.lock();
        let peer = open.peers.entry(address).or_default();
        if peer.held < limit {
            peer.held += 1;
            return Ok(HoldPermit { peers: self.clone(), address });
        }
        open.forget_if_empty(address);
        drop(open);
        count(&self.0.stats.holds_refused);
        Err(TooMany::HeldOfPeer)
    }

    /// Asks the connection that is idle longest to close; `false` if none is idle.
    pub fn close_oldest_idle(&self) -> bool {
        let open = self.0.open.lock();
        let evicted = evict_oldest_idle(open.all());
        drop(open);
        if evicted {
            count(&self.0.stats.idle_evicted);
        }
        evicted
    }

    /// Asks every connection to close.
    pub fn request_close_all(&self, request: CloseRequest) {
        for activity in self.0.open.lock().all() {
            // A fresh connection is left alone: its request is on the way.
            if request == CloseRequest::Now || activity.idle_since().is_some() {
                activity.request_close(request);
            }
        }
    }

    fn admit(&self, address: IpAddr) -> Result<ConnectionPermit, TooMany> {
        let limits = &self.0.limits;
        let share = self.share(address, limits.connections);
        let mut open = self.0.open.lock();
        if let Some(peer) = open.peers.get(&address)
            && peer.connections.len() >= share
        {
            // As many again may be closing: descriptors are protected by the limit of all peers below.
            self.make_room(|| peer.connections.iter(), share, share)
                .map_err(|_full| TooMany::ConnectionsOfPeer)?;
        }
        if open.connections >= limits.all_connections {
            self.make_room(|| open.all(), limits.all_connections, limits.closing)?;
        }
        let activity = Arc::new(Activity::accepted(self.0.epoch, limits.fresh));
        open.connections += 1;
        open.peers.entry(address).or_default().connections.push(Arc::clone(&activity));
        Ok(ConnectionPermit { peers: self.clone(), address, activity })
    }

    /// Asks idle connections to close, oldest first, until one more fits under `limit`. It runs only at a
    /// limit, so it may visit each connection.
    fn make_room<'a, I>(&self, all: impl Fn() -> I, limit: usize, closing_limit: usize) -> Result<(), TooMany>
    where
        I: Iterator<Item = &'a Arc<Activity>>,
    {
        let open = all().count();
        let mut closing =
            all().filter(|activity| activity.close_request() != CloseRequest::NotRequested).count();
        if open >= limit.saturating_add(closing_limit) {
            return Err(TooMany::Closing);
        }
        while open - closing >= limit {
            if !evict_oldest_idle(all()) {
                return Err(TooMany::Connections);
            }
            count(&self.0.stats.idle_evicted);
            closing += 1;
        }
        Ok(())
    }
}

impl Open {
    fn all(&self) -> impl Iterator<Item = &Arc<Activity>> {
        self.peers.values().flat_map(|peer| &peer.connections)
    }

    fn forget_if_empty(&mut self, address: IpAddr) {
        if self.peers.get(&address).is_some_and(|peer| peer.connections.is_empty() && peer.held == 0) {
            self.peers.remove(&address);
        }
    }
}

fn evict_oldest_idle<'a>(all: impl Iterator<Item = &'a Arc<Activity>>) -> bool {
    let oldest = all
        .filter(|activity| activity.close_request() == CloseRequest::NotRequested)
        .filter_map(|activity| Some((activity.idle_since()?, activity)))
        .min_by_key(|(since, _)| *since);
    if let Some((_, activity)) = oldest {
        activity.request_close(CloseRequest::WhenIdle);
    }
    oldest.is_some()
}

/// One open connection; dropping it makes room.
pub struct ConnectionPermit {
    peers: Peers,
    address: IpAddr,
    activity: Arc<Activity>,
}

impl ConnectionPermit {
    /// What the connection is doing; its task keeps this up to date.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// The peer's address; an IPv4-mapped IPv6 address is given as IPv4.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let inner = &self.peers.0;
        let mut open = inner.open.lock();
        if let Some(peer) = open.peers.get_mut(&self.address)
            && let Some(index) = peer.connections.iter().position(|other| Arc::ptr_eq(other, &self.activity))
        {
            peer.connections.swap_remove(index);
            open.connections -= 1;
        }
        open.forget_if_empty(self.address);
        drop(open);
        inner.stats.connections_open.fetch_sub(1, Ordering::Relaxed);
        inner.closed.notify_waiters();
    }
}

/// One request that waits; dropping it makes room.
pub struct HoldPermit {
    peers: Peers,
    address: IpAddr,
}

impl Drop for HoldPermit {
    fn drop(&mut self) {
        let mut open = self.peers.0.open.lock();
        if let Some(peer) = open.peers.get_mut(&self.address) {
            peer.held = peer.held.saturating_sub(1);
        }
        open.forget_if_empty(self.address);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::{PeerLimits, Peers, TooMany};
    use crate::server::door::activity::{CloseRequest, Phase};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits() -> PeerLimits {
        PeerLimits { fresh: Duration::ZERO, ..PeerLimits::for_descriptors(1_024) }
    }

    fn peers() -> Peers {
        Peers::new(limits(), |address| address == ip("10.0.0.1"))
    }

    /// How many fit while none is idle.
    fn fill(peers: &Peers, address: &str) -> usize {
        let mut permits = Vec::new();
        while let Ok(permit) = peers.try_connect(ip(address)) {
            permit.activity().enter(Phase::Answering);
            permits.push(permit);
        }
        permits.len()
    }

    #[tokio::test]
    async fn a_pod_has_its_share_and_the_node_eight_times_as_much() {
        for (address, connections, held) in
            [("10.0.0.9", 64, 32), ("fd00::9", 64, 32), ("10.0.0.1", 512, 256), ("127.0.0.1", 512, 256)]
        {
            let peers = peers();
            assert_eq!(fill(&peers, address), connections, "{address}");
            let mut holds = Vec::new();
            while let Ok(hold) = peers.try_hold(ip(address)) {
                holds.push(hold);
            }
            assert_eq!(holds.len(), held, "{address}");
            assert_eq!(peers.try_hold(ip(address)).err(), Some(TooMany::HeldOfPeer));
            assert!(peers.try_hold(ip("10.0.0.10")).is_ok());
            drop(holds);
            assert!(peers.try_hold(ip(address)).is_ok());
        }
    }

    #[tokio::test]
    async fn an_ipv4_mapped_address_is_the_same_peer() {
        let peers = peers();
        let _holds: Vec<_> = (0..32).map(|_| peers.try_hold(ip("10.0.0.9")).ok().unwrap()).collect();
        assert_eq!(peers.try_hold(ip("::ffff:10.0.0.9")).err(), Some(TooMany::HeldOfPeer));
        assert!(peers.is_host(ip("::ffff:10.0.0.1")));
    }

    #[tokio::test]
    async fn a_peer_with_nothing_open_is_forgotten() {
        let peers = peers();
        let permit = peers.try_connect(ip("10.0.0.9")).ok().unwrap();
        let hold = peers.try_hold(ip("10.0.0.9")).ok().unwrap();
        drop(permit);
        assert_eq!(peers.0.open.lock().peers.len(), 1);
        drop(hold);
        let open = peers.0.open.lock();
        assert!(open.peers.is_empty());
        assert_eq!(open.connections, 0);
        assert_eq!(peers.stats().snapshot().connections_open, 0);
    }

    #[tokio::test]
    async fn closing_connections_do_not_count_but_are_bounded() {
        let limits = PeerLimits { all_connections: 4, closing: 2, ..limits() };
        let peers = Peers::new(limits, |_| false);
        let _idle: Vec<_> = (0..4).map(|_| peers.try_connect(ip("10.0.0.9")).ok().unwrap()).collect();
        let _more: Vec<_> = (0..2).map(|_| peers.try_connect(ip("10.0.0.8")).ok().unwrap()).collect();
        assert_eq!(peers.try_connect(ip("10.0.0.8")).err(), Some(TooMany::Closing));
        let patience = Duration::from_millis(20);
        assert_eq!(peers.connect(ip("10.0.0.8"), patience).await.err(), Some(TooMany::Connections));
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_room_gets_it_when_another_closes() {
        let limits = PeerLimits { all_connections: 1, closing: 1, ..limits() };
        let peers = Peers::new(limits, |_| false);
        let first = peers.try_connect(ip("10.0.0.9")).ok().unwrap();
        let _second = peers.try_connect(ip("10.0.0.8")).ok().unwrap();
        assert_eq!(first.activity().close_request(), CloseRequest::WhenIdle);
        let (third, ()) =
            tokio::join!(peers.connect(ip("10.0.0.7"), Duration::from_secs(10)), async { drop(first) });
        assert!(third.is_ok());
    }

    #[test]
    fn the_number_of_connections_leaves_descriptors_for_everything_else() {
        for (descriptors, connections) in
            [(0, 1), (64, 1), (65, 1), (256, 192), (1_024, 960), (65_536, 4_096), (u64::MAX, 4_096)]
        {
            assert_eq!(
                PeerLimits::for_descriptors(descriptors).all_connections,
                connections,
                "{descriptors}"
            );
        }
    }
}
