//! Fairness by what is known at accept: the peer's address (docs/design/decisions.md#fairness).
//!
//! Owns: which kinds of places there are, who waits for which, and which connection closes to make room. Must
//! not know: HTTP, or which pod a peer is. One `Peers` serves all credential listeners.
//!
//! An accepted connection first has a place among those that wait, without any HTTP state. When a request
//! arrives on it, it takes a place for connections, or waits for one.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::activity::{Activity, CloseRequest};
use super::limits::PeerLimits;
use super::pace::Pace;
use super::places::{Full, Place, Places, Turn};
use super::stats::{ConnectionStats, count};
use crate::workload::PeerKey;

/// Why a connection is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// As many wait as may of this peer.
    #[error("too many connections of this peer")]
    OfPeer,
    /// As many wait as may of all, and this peer has its share of them.
    #[error("too many connections")]
    OfAll,
}

/// Why a connection does not get in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// It is refused: others of its peer are in.
    Refuse(TooMany),
    /// Its peer has less than its share, and the next place that comes free is for it.
    Wait,
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

    /// The peer that requests from there are counted for.
    pub(super) fn key(&self, from: SocketAddr) -> PeerKey {
        PeerKey::of_socket(from, if self.is_host(from.ip()) { self.0.limits.host_factor } else { 1 })
    }

    /// Lets one connection in, to wait for its request. Silent ones make room for it: first those of the
    /// same peer, at the limit of all those of peers that have more.
    pub(super) fn accept(&self, from: SocketAddr) -> Result<ConnectionPermit, NotNow> {
        let peer = self.key(from);
        let place = match self.0.waiting.try_take(peer) {
            Ok(place) => place,
            Err(full) => self.make_room_to_wait(peer, full)?,
        };
        count(&self.0.stats.connections_accepted);
        count(&self.0.stats.connections_open);
        Ok(self.enter(from.ip().to_canonical(), peer, place))
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
        let place = match self.0.held.take_or_join(peer) {
            Ok(place) => place,
            Err(turn) => {
                count(&self.0.stats.holds_delayed);
                turn.wait().await
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

    /// A place among those that wait where all are taken: in exchange for a connection that has sent nothing,
    /// or because the peer has less than its share.
    fn make_room_to_wait(&self, peer: PeerKey, full: Full) -> Result<Place, NotNow> {
        let made_room = self.close_a_silent_one(peer, full);
        let (waiting, has_little) = match full {
            Full::Peer => (&self.0.waiting, false),
            Full::All => (&self.0.waiting, self.0.waiting.has_less_than_its_share(peer)),
        };
        // One that is closing has not closed yet: that is a matter of microseconds.
        let place = if made_room || has_little { waiting.take_in_advance(peer) } else { None };
        place.ok_or(match full {
            Full::Peer => NotNow::Refuse(TooMany::OfPeer),
            Full::All if has_little => NotNow::Wait,
            Full::All => NotNow::Refuse(TooMany::OfAll),
        })
    }

    /// Asks one connection to close that has sent nothing, and has had the time to: one of the same peer; at
    /// the limit of all of the peer that has most, else of any that has more.
    fn close_a_silent_one(&self, peer: PeerKey, full: Full) -> bool {
        let known = self.0.known.lock();
        let silent_of = |may: &dyn Fn(&PeerKey) -> bool| known.close_oldest_of(may, Activity::silent_since);
        let taken_by = |peer: &PeerKey| self.0.waiting.taken_by(*peer);
        let made_room = match full {
            Full::Peer => silent_of(&|other| *other == peer),
            Full::All => {
                let mine = taken_by(&peer);
                let most = known.peers.keys().max_by_key(|peer| taken_by(peer));
                silent_of(&|other| Some(other) == most) || silent_of(&|other| taken_by(other) > mine)
            }
        };
        drop(known);
        if made_room {
            count(&self.0.stats.idle_evicted);
        }
        made_room
    }

    /// Asks one idle connection to close for a peer that waits for a place: one of its own if it has all it
    /// may have; else of a peer over its fair share, of one that has more than it, or its own. Only for one
    /// who is in line: a connection that becomes idle before that finds nobody waiting, and stays.
    fn make_room_for(&self, turn: &Turn) {
        let peer = turn.peer;
        let known = self.0.known.lock();
        let of = |may: &dyn Fn(&PeerKey) -> bool| known.close_oldest_of(may, Activity::kept_since);
        let (places, mine) = (&self.0.connections, self.0.connections.taken_by(peer));
        let made_room = match turn.full {
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

    /// Asks one connection to close of the peers that may have to: the one for which `since` is least.
    fn close_oldest_of(
        &self,
        may: &dyn Fn(&PeerKey) -> bool,
        since: impl Fn(&Activity) -> Option<u64>,
    ) -> bool {
        let peers = self.peers.iter().filter(|(peer, _)| may(peer));
        close_oldest(peers.flat_map(|(_, known)| known.connections.values()), since)
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
        let place = match self.peers.0.connections.take_or_join(self.peer) {
            Ok(place) => place,
            Err(turn) => {
                let stats = &self.peers.0.stats;
                match turn.full {
                    Full::Peer => count(&stats.connections_delayed_peer),
                    Full::All => count(&stats.connections_delayed_full),
                }
                self.peers.make_room_for(&turn);
                turn.wait().await
            }
        };
        self.activity.set_placed();
        self.place = Some(place);
    }

    /// Why its request has no place yet: its peer's bound, which its pace is too, or that of all.
    pub(super) fn why_not_placed(&self) -> TooMany {
        match self.peers.0.connections.why_full(self.peer) {
            Some(Full::All) => TooMany::OfAll,
            Some(Full::Peer) | None => TooMany::OfPeer,
        }
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

    /// Since when it has been silent, if it has sent nothing at all. A fresh one is not: its request is on
    /// the way.
    fn silent_since(&self) -> Option<u64> {
        self.idle_since().filter(|_| !self.is_placed())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::{ConnectionPermit, NotNow, PeerLimits, Peers, TooMany};
    use crate::server::door::activity::{CloseRequest, Phase};
    use crate::server::door::capacity::Capacity;
    use crate::server::door::places::Room;

    const SOON: Duration = Duration::from_millis(1);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(text: &str) -> SocketAddr {
        (ip(text), 4_000).into()
    }

    fn peers_with(limits: PeerLimits) -> Peers {
        Peers::new(PeerLimits { fresh: Duration::ZERO, ..limits }, |address| address == ip("10.0.0.1"))
    }

    fn peers() -> Peers {
        peers_with(PeerLimits::for_credentials(Capacity { places: 1_024, waiting: 512 }, None))
    }

    /// A connection with a request.
    async fn busy(peers: &Peers, address: &str) -> Option<ConnectionPermit> {
        let mut permit = peers.accept(at(address)).ok()?;
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
            while let Ok(hold) = timeout(SOON, peers.hold(peers.key(at(address)))).await {
                holds.push(hold);
            }
            assert_eq!(holds.len(), connections, "{address}");
            assert!(timeout(SOON, peers.hold(peers.key(at("10.0.0.10")))).await.is_ok());
            assert_eq!(peers.stats().snapshot().holds_delayed, 1);
            holds.pop();
            assert!(timeout(SOON, peers.hold(peers.key(at(address)))).await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_ipv4_mapped_address_is_the_same_peer() {
        let peers = peers();
        assert_eq!(peers.key(at("::ffff:10.0.0.9")), peers.key(at("10.0.0.9")));
        assert_eq!(peers.key(at("::ffff:10.0.0.1")), peers.key(at("10.0.0.1")));
        assert!(peers.is_host(ip("::ffff:10.0.0.1")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_forgotten_when_it_has_nothing_open_and_its_burst_is_paid_for() {
        let limits = PeerLimits::for_credentials(Capacity { places: 1_024, waiting: 512 }, Some(2_000));
        let peers = peers_with(limits);
        let permit = busy(&peers, "10.0.0.9").await.unwrap();
        permit.pace().unwrap().turn(|| ()).await;
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
        let mut next = peers.accept(at("10.0.0.9")).ok().unwrap();
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

    /// Where 64 may wait, and 16 of them are one pod's.
    fn few_may_wait(fresh: Duration) -> Peers {
        let capacity = Capacity { places: 1_024, waiting: 512 };
        let waiting = Room { all: 64, most: 16, least: 2 };
        let limits = PeerLimits { fresh, waiting, ..PeerLimits::for_credentials(capacity, None) };
        Peers::new(limits, |_| false)
    }

    /// How many get in that have sent their request, and wait for a place.
    fn ask(peers: &Peers, address: &str, count: usize) -> Vec<ConnectionPermit> {
        let asked = (0..count).filter_map(|_| peers.accept(at(address)).ok());
        asked.inspect(|permit| permit.activity().enter(Phase::Head)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_make_room_and_those_with_a_request_are_not_closed_for_others() {
        let peers = few_may_wait(Duration::ZERO);
        let silent: Vec<_> = (0..16).map(|_| peers.accept(at("10.0.0.9")).ok().unwrap()).collect();
        let more = peers.accept(at("10.0.0.9")).ok().unwrap();
        assert_eq!(silent[0].activity().close_request(), CloseRequest::WhenIdle);
        assert_eq!(silent[1].activity().close_request(), CloseRequest::NotRequested);
        for permit in silent.iter().chain([&more]) {
            permit.activity().enter(Phase::Head);
        }
        assert_eq!(peers.accept(at("10.0.0.9")).err(), Some(NotNow::Refuse(TooMany::OfPeer)));
        assert!(peers.accept(at("10.0.0.8")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_a_moment_ago_is_not_closed_for_a_new_one() {
        let peers = few_may_wait(Duration::from_secs(1));
        let fresh: Vec<_> = (0..16).map(|_| peers.accept(at("10.0.0.9")).ok().unwrap()).collect();
        assert_eq!(peers.accept(at("10.0.0.9")).err(), Some(NotNow::Refuse(TooMany::OfPeer)));
        assert!(fresh.iter().all(|permit| permit.activity().close_request() == CloseRequest::NotRequested));
        sleep(Duration::from_secs(1)).await;
        assert!(peers.accept(at("10.0.0.9")).is_ok());
        assert_eq!(fresh[0].activity().close_request(), CloseRequest::WhenIdle);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_may_not_wait_who_has_his_share_is_refused_and_who_has_less_gets_in() {
        let peers = few_may_wait(Duration::from_secs(1));
        let greedy: Vec<_> = (1..=40).flat_map(|n| ask(&peers, &format!("10.0.1.{n}"), 40)).collect();
        assert!(greedy.len() >= 64, "{}", greedy.len());
        assert_eq!(peers.accept(at("10.0.1.1")).err(), Some(NotNow::Refuse(TooMany::OfPeer)));
        // Eight more than all, and then the next place that comes free is theirs.
        let late: Vec<_> = (1..=9).map(|n| peers.accept(at(&format!("10.0.2.{n}")))).collect();
        assert!(late.iter().any(|late| late.as_ref().err() == Some(&NotNow::Wait)));
        assert!(late.iter().all(|late| !matches!(late, Err(NotNow::Refuse(_)))));
        drop(greedy);
        assert!(peers.accept(at("10.0.2.9")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn four_hundred_of_one_pod_find_room_with_64_mib_or_1_024_descriptors_and_a_second_pod_too() {
        for capacity in [Capacity::of(1 << 20, Some(64 << 20)), Capacity::of(1_024, None)] {
            let peers = Peers::new(PeerLimits::for_credentials(capacity, None), |_| false);
            let mut placed = Vec::new();
            let mut waiting = Vec::new();
            for _ in 0..400 {
                let mut permit = peers.accept(at("10.0.0.9")).ok().unwrap();
                permit.activity().enter(Phase::Head);
                let has_place = timeout(SOON, permit.take_place()).await.is_ok();
                if has_place { placed.push(permit) } else { waiting.push(permit) }
            }
            let quarter = capacity.places / 4;
            assert_eq!((placed.len(), waiting.len()), (quarter, 400 - quarter), "{capacity:?}");
            assert_eq!(ask(&peers, "10.0.0.8", 40).len(), 40, "{capacity:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_pod_does_not_have_the_metrics_port_to_itself_nor_one_process_the_probes() {
        let peers = Peers::new(PeerLimits::for_metrics(), |_| false);
        let greedy = (ask(&peers, "10.0.0.9", 100), fill(&peers, "10.0.0.8").await);
        assert_eq!((greedy.0.len(), greedy.1.len()), (16, 16));
        assert!(busy(&peers, "10.0.0.7").await.is_some());
        let peers = Peers::new(PeerLimits::for_probes(), |_| false);
        let silent: Vec<_> = (0..100).filter_map(|_| peers.accept(at("127.0.0.1")).ok()).collect();
        assert_eq!(silent.len(), 48);
        sleep(SOON * 2).await;
        assert!(busy(&peers, "127.0.0.1").await.is_some(), "a probe comes from the same address");
    }
}
