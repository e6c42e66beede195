//! Fairness by what is known at accept: the peer's address (docs/design/decisions.md#fairness).
//!
//! Owns: which kinds of places there are, who waits for which, and which connection closes to make room. Must
//! not know: HTTP, or which pod a peer is. One `Peers` serves all credential listeners.
//!
//! An accepted connection first has a place among those that wait, without any HTTP state. When a request
//! arrives on it, it takes a place for connections, or waits for one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::activity::{Activity, CloseRequest, Phase};
use super::capacity::Capacity;
use super::pace::Pace;
use super::places::{Full, Place, Places, Room};
use super::stats::{ConnectionStats, count};
use crate::workload::PeerKey;

/// How much one peer, and all together, may have open.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Connections with a request, and those that are kept after one. A pod has at least 64
    /// (docs/design/decisions.md#fairness): the busiest client pools seen hold ten.
    pub connections: Room,
    /// Accepted connections that have sent nothing yet, or wait for a place.
    pub waiting: Room,
    /// Requests that wait for an answer. A pod has at least 32 (docs/design/decisions.md#fairness).
    pub held: Room,
    /// How many times as much the node's own addresses get. 8 (docs/design/decisions.md#fairness): all
    /// host-network pods share them.
    pub host_factor: usize,
    /// How long a new connection does not count as idle although silent. 1 s: the longest that a client takes
    /// to send its request.
    pub fresh: Duration,
    /// Requests per second of one pod that are answered at once; `None`: all are.
    pub pace: Option<u32>,
}

impl PeerLimits {
    /// The limits of the credential listeners.
    pub fn for_credentials(capacity: Capacity, pace: Option<u32>) -> Self {
        Self {
            connections: Room { all: capacity.places, least: 64 },
            waiting: Room { all: capacity.waiting, least: 64 },
            held: Room { all: capacity.places, least: 32 },
            host_factor: 8,
            fresh: Duration::from_secs(1),
            pace,
        }
    }

    /// The limits of the admin listeners: few, so that scrapers and probes cannot starve the credential
    /// endpoint.
    pub fn for_admin() -> Self {
        let few = Room { all: 16, least: 16 };
        Self {
            connections: few,
            waiting: few,
            held: few,
            host_factor: 1,
            fresh: Duration::from_secs(1),
            pace: None,
        }
    }
}

/// Why a connection is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The peer has all the connections it may have, and as many again wait with a request.
    #[error("too many connections of this peer")]
    OfPeer,
    /// All places are taken, by connections that have sent a request.
    #[error("too many connections")]
    OfAll,
}

/// What each peer has open. Clones share it.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    limits: PeerLimits,
    is_host: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    epoch: Instant,
    stats: ConnectionStats,
    connections: Places,
    waiting: Places,
    held: Places,
    next_id: AtomicU64,
    known: Mutex<Known>,
}

/// Peers with a connection, and those that are still paying for a burst.
#[derive(Default)]
struct Known {
    peers: HashMap<PeerKey, KnownPeer>,
    /// Peers without connections are looked for when there are so many.
    sweep_at: usize,
}

struct KnownPeer {
    connections: BTreeMap<u64, Arc<Activity>>,
    pace: Option<Arc<Pace>>,
}

/// Peers that are known before those without connections are looked for.
const SWEEP_FROM: usize = 256;

impl Peers {
    /// Nothing open. `is_host` knows the node's own addresses, except loopback, which always counts as the
    /// node.
    pub fn new(limits: PeerLimits, is_host: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            limits,
            is_host: Box::new(is_host),
            epoch: Instant::now(),
            stats: ConnectionStats::default(),
            connections: Places::new(limits.connections),
            waiting: Places::new(limits.waiting),
            held: Places::new(limits.held),
            next_id: AtomicU64::new(0),
            known: Mutex::default(),
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

    /// The peer that requests from an address are counted for.
    pub fn key(&self, address: IpAddr) -> PeerKey {
        let address = address.to_canonical();
        PeerKey::new(address, if self.is_host(address) { self.0.limits.host_factor } else { 1 })
    }

    /// Lets one connection in, to wait for its request. Silent ones make room for it: first those of the
    /// same peer, at the limit of all those of the peer that has most.
    pub fn accept(&self, address: IpAddr) -> Result<ConnectionPermit, TooMany> {
        let peer = self.key(address);
        let place = match self.0.waiting.try_take(peer) {
            Ok(place) => Ok(place),
            Err(full) => self.replace_a_silent_one(peer, full),
        };
        match place {
            Ok(place) => {
                count(&self.0.stats.connections_accepted);
                count(&self.0.stats.connections_open);
                Ok(self.enter(address.to_canonical(), peer, place))
            }
            Err(reason) => Err(reason),
        }
    }

    /// Counts a connection that was not accepted.
    pub(super) fn count_refused(&self, reason: TooMany) {
        match reason {
            TooMany::OfPeer => count(&self.0.stats.connections_refused_peer),
            TooMany::OfAll => count(&self.0.stats.connections_refused_full),
        }
    }

    /// Permission to hold one request, after waiting for it if need be. Cancel-safe.
    pub async fn hold(&self, peer: PeerKey) -> HoldPermit {
        let place = match self.0.held.try_take(peer) {
            Ok(place) => place,
            Err(_full) => {
                count(&self.0.stats.holds_delayed);
                self.0.held.take(peer).await
            }
        };
        HoldPermit { _place: place }
    }

    /// Asks the connection that is idle longest to close; `false` if none is idle.
    pub fn close_oldest_idle(&self) -> bool {
        let known = self.0.known.lock();
        let evicted = close_oldest(known.all(), Activity::idle_since);
        drop(known);
        if evicted {
            count(&self.0.stats.idle_evicted);
        }
        evicted
    }

    /// Asks every connection to close.
    pub fn request_close_all(&self, request: CloseRequest) {
        for activity in self.0.known.lock().all() {
            // A fresh connection is left alone: its request is on the way.
            if request == CloseRequest::Now || activity.idle_since().is_some() {
                activity.request_close(request);
            }
        }
    }

    fn enter(&self, address: IpAddr, peer: PeerKey, place: Place) -> ConnectionPermit {
        let activity = Arc::new(Activity::accepted(self.0.epoch, self.0.limits.fresh));
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let mut known = self.0.known.lock();
        known.sweep();
        let entry = known.peers.entry(peer).or_insert_with(|| KnownPeer {
            connections: BTreeMap::new(),
            pace: self.0.limits.pace.map(|rate| Arc::new(Pace::new(rate, peer))),
        });
        entry.connections.insert(id, Arc::clone(&activity));
        let pace = entry.pace.clone();
        drop(known);
        ConnectionPermit { peers: self.clone(), address, peer, id, activity, pace, place: Some(place) }
    }

    /// A place among those that wait, in exchange for a connection that has sent nothing.
    fn replace_a_silent_one(&self, peer: PeerKey, full: Full) -> Result<Place, TooMany> {
        let known = self.0.known.lock();
        let silent = |peer: &PeerKey| {
            let connections = known.peers.get(peer).into_iter().flat_map(|known| known.connections.values());
            close_oldest(connections, Activity::silent_since)
        };
        let made_room = match full {
            Full::Peer => silent(&peer),
            Full::All => {
                let most = known.peers.keys().max_by_key(|peer| self.0.waiting.taken_by(**peer));
                most.is_some_and(silent)
            }
        };
        drop(known);
        let place = if made_room { self.0.waiting.take_in_advance(peer) } else { None };
        if place.is_some() {
            count(&self.0.stats.idle_evicted);
        }
        place.ok_or(match full {
            // One that is closing has not closed yet: that is a matter of microseconds.
            Full::Peer if made_room => TooMany::OfAll,
            Full::Peer => TooMany::OfPeer,
            Full::All => TooMany::OfAll,
        })
    }

    /// Asks one idle connection to close for a peer that waits for a place: one of its own if it has all it
    /// may have; else of a peer over its fair share, of one that has more than it, or its own.
    fn make_room(&self, peer: PeerKey, full: Full) {
        let known = self.0.known.lock();
        let of = |may: &dyn Fn(&PeerKey) -> bool| {
            let peers = known.peers.iter().filter(|(peer, _)| may(peer));
            close_oldest(peers.flat_map(|(_, known)| known.connections.values()), Activity::kept_since)
        };
        let (places, mine) = (&self.0.connections, self.0.connections.taken_by(peer));
        let made_room = match full {
            Full::Peer => of(&|other| *other == peer),
            Full::All => {
                let fair = places.fair_share();
                of(&|other| places.taken_by(*other) > other.allowance(fair))
                    || of(&|other| places.taken_by(*other) > mine)
                    || of(&|other| *other == peer)
            }
        };
        drop(known);
        if made_room {
            count(&self.0.stats.idle_evicted);
        }
    }
}

impl Known {
    fn all(&self) -> impl Iterator<Item = &Arc<Activity>> {
        self.peers.values().flat_map(|peer| peer.connections.values())
    }

    /// Forgets peers that have no connections and have paid for their burst, now and then.
    fn sweep(&mut self) {
        if self.peers.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.peers.retain(|_, peer| !peer.is_unused());
            self.sweep_at = 2 * self.peers.len();
        }
    }
}

impl KnownPeer {
    fn is_unused(&self) -> bool {
        self.connections.is_empty() && self.pace.as_ref().is_none_or(|pace| pace.is_rested())
    }
}

/// Asks the connection to close for which `since` is least; `false` if there is none.
fn close_oldest<'a>(
    all: impl Iterator<Item = &'a Arc<Activity>>,
    since: impl Fn(&Activity) -> Option<u64>,
) -> bool {
    let oldest = all
        .filter(|activity| activity.close_request() == CloseRequest::NotRequested)
        .filter_map(|activity| Some((since(activity)?, activity)))
        .min_by_key(|(since, _)| *since);
    if let Some((_, activity)) = oldest {
        activity.request_close(CloseRequest::WhenIdle);
    }
    oldest.is_some()
}

/// One accepted connection and its place; dropping it makes room.
pub struct ConnectionPermit {
    peers: Peers,
    address: IpAddr,
    peer: PeerKey,
    id: u64,
    activity: Arc<Activity>,
    pace: Option<Arc<Pace>>,
    /// Among those that wait at first, then among connections.
    place: Option<Place>,
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

    /// The peer that the connection is counted for.
    pub fn peer(&self) -> PeerKey {
        self.peer
    }

    /// How fast this peer is answered.
    pub(super) fn pace(&self) -> Option<&Arc<Pace>> {
        self.pace.as_ref()
    }

    /// Takes a place for a request, after waiting for it if need be. Cancel-safe.
    pub(super) async fn take_place(&mut self) {
        let places = &self.peers.0.connections;
        let place = match places.try_take(self.peer) {
            Ok(place) => place,
            Err(full) => {
                let stats = &self.peers.0.stats;
                match full {
                    Full::Peer => count(&stats.connections_delayed_peer),
                    Full::All => count(&stats.connections_delayed_full),
                }
                self.peers.make_room(self.peer, full);
                places.take(self.peer).await
            }
        };
        self.activity.set_placed();
        self.place = Some(place);
    }

    /// Whether somebody waits who would get this connection's place.
    pub(super) fn is_wanted(&self) -> bool {
        self.peers.0.connections.is_wanted(self.peer)
    }

    /// Gives the place to others: the connection only waits for its client to close. `false` if there is no
    /// room even for that.
    pub(super) fn give_place_up(&mut self) -> bool {
        self.place = self.peers.0.waiting.try_take(self.peer).ok();
        self.place.is_some()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let inner = &self.peers.0;
        let mut known = inner.known.lock();
        if let Some(peer) = known.peers.get_mut(&self.peer) {
            peer.connections.remove(&self.id);
            if peer.is_unused() {
                known.peers.remove(&self.peer);
            }
        }
        drop(known);
        inner.stats.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request that waits; dropping it makes room.
pub struct HoldPermit {
    _place: Place,
}

impl Activity {
    /// Since when it is idle after a request, if it is.
    fn kept_since(&self) -> Option<u64> {
        self.idle_since().filter(|_| self.is_placed())
    }

    /// Since when it has been silent, if it has sent nothing at all.
    fn silent_since(&self) -> Option<u64> {
        (!self.is_placed() && self.phase() == Phase::Idle).then(|| self.since())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::{ConnectionPermit, PeerLimits, Peers, Room, TooMany};
    use crate::server::door::activity::{CloseRequest, Phase};
    use crate::server::door::capacity::Capacity;

    const SOON: Duration = Duration::from_millis(1);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn peers_with(limits: PeerLimits) -> Peers {
        Peers::new(PeerLimits { fresh: Duration::ZERO, ..limits }, |address| address == ip("10.0.0.1"))
    }

    fn peers() -> Peers {
        peers_with(PeerLimits::for_credentials(Capacity { places: 1_024, waiting: 512 }, None))
    }

    /// A connection with a request.
    async fn busy(peers: &Peers, address: &str) -> Option<ConnectionPermit> {
        let mut permit = peers.accept(ip(address)).ok()?;
        permit.activity().enter(Phase::Head);
        timeout(SOON, permit.take_place()).await.ok()?;
        permit.activity().enter(Phase::Answering);
        Some(permit)
    }

    /// How many fit while none is idle.
    async fn fill(peers: &Peers, address: &str) -> Vec<ConnectionPermit> {
        let mut permits = Vec::new();
        while let Some(permit) = busy(peers, address).await {
            permits.push(permit);
        }
        permits
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_has_a_quarter_and_the_node_eight_times_as_much_but_for_the_last_eighth() {
        for (address, connections) in
            [("10.0.0.9", 256), ("fd00::9", 256), ("10.0.0.1", 896), ("127.0.0.1", 896)]
        {
            let peers = peers();
            let taken = fill(&peers, address).await;
            assert_eq!(taken.len(), connections, "{address}");
            let mut holds = Vec::new();
            while let Ok(hold) = timeout(SOON, peers.hold(peers.key(ip(address)))).await {
                holds.push(hold);
            }
            assert_eq!(holds.len(), connections, "{address}");
            assert!(timeout(SOON, peers.hold(peers.key(ip("10.0.0.10")))).await.is_ok());
            assert_eq!(peers.stats().snapshot().holds_delayed, 1);
            holds.pop();
            assert!(timeout(SOON, peers.hold(peers.key(ip(address)))).await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_ipv4_mapped_address_is_the_same_peer() {
        let peers = peers();
        assert_eq!(peers.key(ip("::ffff:10.0.0.9")), peers.key(ip("10.0.0.9")));
        assert_eq!(peers.key(ip("::ffff:10.0.0.1")), peers.key(ip("10.0.0.1")));
        assert!(peers.is_host(ip("::ffff:10.0.0.1")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_forgotten_when_it_has_nothing_open_and_its_burst_is_paid_for() {
        let limits = PeerLimits::for_credentials(Capacity { places: 1_024, waiting: 512 }, Some(2_000));
        let peers = peers_with(limits);
        let permit = busy(&peers, "10.0.0.9").await.unwrap();
        permit.pace().unwrap().turn().await;
        drop(permit);
        // A loop that opens a connection for each request has one pace for all of them.
        assert_eq!(peers.0.known.lock().peers.len(), 1);
        sleep(SOON).await;
        drop(busy(&peers, "10.0.0.9").await.unwrap());
        assert_eq!(peers.0.known.lock().peers.len(), 0);
        assert_eq!((peers.0.connections.taken(), peers.0.waiting.taken()), (0, 0));
        assert_eq!(peers.stats().snapshot().connections_open, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn over_its_allowance_a_peer_closes_its_own_idle_connection_and_waits_for_its_place() {
        let peers = peers();
        let mut taken = fill(&peers, "10.0.0.9").await;
        let neighbour = busy(&peers, "10.0.0.8").await.unwrap();
        neighbour.activity().enter(Phase::Idle);
        let idle = taken.pop().unwrap();
        idle.activity().enter(Phase::Idle);
        sleep(SOON).await;
        let mut next = peers.accept(ip("10.0.0.9")).ok().unwrap();
        next.activity().enter(Phase::Head);
        let (placed, ()) = tokio::join!(timeout(Duration::from_secs(10), next.take_place()), async {
            tokio::task::yield_now().await;
            assert_eq!(idle.activity().close_request(), CloseRequest::WhenIdle);
            assert!(idle.is_wanted());
            drop(idle);
        });
        assert!(placed.is_ok());
        assert_eq!(neighbour.activity().close_request(), CloseRequest::NotRequested);
        assert!(!neighbour.is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_make_room_and_those_with_a_request_are_not_closed_for_others() {
        let limits = PeerLimits {
            waiting: Room { all: 256, least: 64 },
            ..PeerLimits::for_credentials(Capacity { places: 1_024, waiting: 256 }, None)
        };
        let peers = peers_with(limits);
        let silent: Vec<_> = (0..64).map(|_| peers.accept(ip("10.0.0.9")).ok().unwrap()).collect();
        let more = peers.accept(ip("10.0.0.9")).ok().unwrap();
        assert_eq!(silent[0].activity().close_request(), CloseRequest::WhenIdle);
        assert_eq!(silent[1].activity().close_request(), CloseRequest::NotRequested);
        for permit in silent.iter().chain([&more]) {
            permit.activity().enter(Phase::Head);
        }
        assert_eq!(peers.accept(ip("10.0.0.9")).err(), Some(TooMany::OfPeer));
        assert!(peers.accept(ip("10.0.0.8")).is_ok());
    }
}
