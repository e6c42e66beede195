//! Places that peers share: connections with HTTP state, accepted connections, held requests.
//!
//! Owns: how many places one peer may have (docs/design/decisions.md#fairness), and the lines of those who
//! wait for one. Must not know: what a place is for. Bounds bind under contention, not before: while places
//! are plenty one peer may have many of them; when they are scarce it may have its fair share.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::workload::PeerKey;

/// At most so many places are granted over the limit: while those that make room for them are closing, and to
/// peers that have less than their share.
const MOST_IN_ADVANCE: usize = 64;
/// A line is searched for waiters that have left when it has grown to this length.
const SWEEP_FROM: usize = 64;

/// The places of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Places of all peers together.
    pub all: usize,
    /// What a pod may have while less than half of all are taken.
    pub most: usize,
    /// What a pod may have, however many others there are.
    pub least: usize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The peer has as many as it may have now.
    Peer,
    /// All places are taken.
    All,
}

/// What decides whether a peer gets a place.
#[derive(Clone, Copy, Debug)]
struct Demand {
    /// Places taken by all.
    taken: usize,
    /// Places taken by this peer.
    mine: usize,
    /// Peers that have a place or wait for one.
    active: usize,
}

impl Room {
    /// A room in which one peer may have a quarter.
    pub const fn by_quarters(all: usize, least: usize) -> Self {
        Self { all, most: all / 4, least }
    }

    /// How many places one peer may have: `most` while less than half are taken. From there it shrinks
    /// evenly, to the fair share when all are taken. Never under `least`.
    fn allowance(self, taken: usize, active: usize) -> usize {
        let half = self.all / 2;
        let fair = (self.all / active.max(1)).min(self.most);
        let scarcity = taken.saturating_sub(half).min(half);
        let shrunk = self.most - (self.most - fair) * scarcity / half.max(1);
        shrunk.max(self.least)
    }

    /// With how many places a peer may still take one of the last eighth. Never more than half of that,
    /// however many shares the peer has, but for what every pod may have.
    fn little(self, peer: PeerKey) -> usize {
        peer.allowance(self.least).min((self.all / 16).max(self.least))
    }

    fn admits(self, peer: PeerKey, demand: Demand) -> Result<(), Full> {
        let Demand { taken, mine, active } = demand;
        if mine >= peer.allowance(self.allowance(taken, active)) {
            return Err(Full::Peer);
        }
        // The last eighth is for those who have little: four peers with a quarter each leave nothing else to
        // a fifth.
        if taken >= self.all - self.all / 8 && mine >= self.little(peer) {
            return Err(Full::Peer);
        }
        if taken >= self.all { Err(Full::All) } else { Ok(()) }
    }
}

/// The places of one kind, and who has them. Clones share them.
#[derive(Clone)]
pub(super) struct Places(Arc<Inner>);

struct Inner {
    room: Room,
    /// Waiters in all lines, those that have left included: nobody takes the lock to find that none waits.
    in_line: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    /// Only peers that have a place or wait for one.
    peers: HashMap<PeerKey, PeerPlaces>,
    /// The peers with a line, in the order of their turns: one long line delays no other peer.
    turns: VecDeque<PeerKey>,
}

#[derive(Default)]
struct PeerPlaces {
    taken: usize,
    line: VecDeque<oneshot::Sender<Place>>,
    sweep_at: usize,
}

/// A turn in line.
pub(super) struct Turn {
    places: Places,
    pub(super) peer: PeerKey,
    /// Why there was no place at once.
    pub(super) full: Full,
    called: oneshot::Receiver<Place>,
}

impl Turn {
    /// The place, when it comes. Cancel-safe.
    pub(super) async fn wait(mut self) -> Place {
        loop {
            // Nobody but the line has the sender, and it lets go only of those that have left.
            if let Ok(place) = (&mut self.called).await {
                return place;
            }
            match self.places.take_or_join(self.peer) {
                Ok(place) => return place,
                Err(turn) => self = turn,
            }
        }
    }
}

/// One place; dropping it gives it to the next in line.
pub(super) struct Place {
    places: Places,
    peer: PeerKey,
}

impl Places {
    pub(super) fn new(room: Room) -> Self {
        Self(Arc::new(Inner { room, in_line: AtomicUsize::new(0), state: Mutex::default() }))
    }

    /// A place, if the peer may have one more now.
    pub(super) fn try_take(&self, peer: PeerKey) -> Result<Place, Full> {
        let mut state = self.0.state.lock();
        self.0.room.admits(peer, state.demand(peer))?;
        state.grant(peer);
        Ok(self.place(peer))
    }

    /// A place beyond the limits; `None` if there are too many of those.
    pub(super) fn take_in_advance(&self, peer: PeerKey) -> Option<Place> {
        let mut state = self.0.state.lock();
        let all = self.0.room.all;
        if state.taken >= all + (all / 8).clamp(1, MOST_IN_ADVANCE) {
            return None;
        }
        state.grant(peer);
        Some(self.place(peer))
    }

    /// A place, or a turn in the line of those who wait for one.
    pub(super) fn take_or_join(&self, peer: PeerKey) -> Result<Place, Turn> {
        let mut state = self.0.state.lock();
        let Err(full) = self.0.room.admits(peer, state.demand(peer)) else {
            state.grant(peer);
            return Ok(self.place(peer));
        };
        let (call, called) = oneshot::channel();
        self.0.in_line.fetch_add(1, Ordering::AcqRel);
        let left = state.join_line(peer, call);
        self.0.in_line.fetch_sub(left, Ordering::AcqRel);
        Err(Turn { places: self.clone(), peer, full, called })
    }

    /// Why the peer would get no place now, if it would not.
    pub(super) fn why_full(&self, peer: PeerKey) -> Option<Full> {
        self.0.room.admits(peer, self.0.state.lock().demand(peer)).err()
    }

    /// Whether the peer has less than it would have if all that have any had equally many.
    pub(super) fn has_less_than_its_share(&self, peer: PeerKey) -> bool {
        let Demand { mine, active, .. } = self.0.state.lock().demand(peer);
        mine < (self.0.room.all / active.max(1)).max(1)
    }

    /// How many places the peer has.
    pub(super) fn taken_by(&self, peer: PeerKey) -> usize {
        self.0.state.lock().peers.get(&peer).map_or(0, |peer| peer.taken)
    }

    /// Places taken by all.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.0.state.lock().taken
    }

    /// What each peer may have now that has as much as it may by a fair share.
    pub(super) fn fair_share(&self) -> usize {
        let state = self.0.state.lock();
        (self.0.room.all / state.peers.len().max(1)).max(self.0.room.least)
    }

    /// Whether somebody waits who would get the place that this peer gives up. Only the peer itself, or one
    /// that has fewer places.
    pub(super) fn is_wanted(&self, of: PeerKey) -> bool {
        if self.0.in_line.load(Ordering::Acquire) == 0 {
            return false;
        }
        let state = self.0.state.lock();
        let has = state.peers.get(&of).map_or(0, |peer| peer.taken);
        if has == 0 {
            return false;
        }
        state.turns.iter().any(|peer| {
            let Some(places) = state.peers.get(peer) else { return false };
            let mut demand = state.demand(*peer);
            demand.taken = demand.taken.saturating_sub(1);
            if *peer == of {
                demand.mine = demand.mine.saturating_sub(1);
            } else if demand.mine >= has || state.taken < self.0.room.all {
                return false;
            }
            places.line.iter().any(|call| !call.is_closed()) && self.0.room.admits(*peer, demand).is_ok()
        })
    }

    fn place(&self, peer: PeerKey) -> Place {
        Place { places: self.clone(), peer }
    }

    /// Gives what is free to those in line.
    fn serve_lines(&self) {
        while self.0.in_line.load(Ordering::Acquire) > 0 {
            let Some((call, peer)) = self.next_in_line() else { return };
            // One who has left just now sends the place back with the error; its drop goes on here.
            drop(call.send(self.place(peer)));
        }
    }

    fn next_in_line(&self) -> Option<(oneshot::Sender<Place>, PeerKey)> {
        let mut state = self.0.state.lock();
        for _ in 0..state.turns.len() {
            let peer = state.turns.pop_front()?;
            let demand = state.demand(peer);
            let Some(places) = state.peers.get_mut(&peer) else { continue };
            while places.line.front().is_some_and(oneshot::Sender::is_closed) {
                places.line.pop_front();
                self.0.in_line.fetch_sub(1, Ordering::AcqRel);
            }
            if places.line.is_empty() {
                state.forget_if_unused(peer);
                continue;
            }
            if self.0.room.admits(peer, demand).is_err() {
                state.turns.push_back(peer);
                continue;
            }
            let call = places.line.pop_front();
            self.0.in_line.fetch_sub(1, Ordering::AcqRel);
            if !places.line.is_empty() {
                state.turns.push_back(peer);
            }
            state.grant(peer);
            return call.map(|call| (call, peer));
        }
        None
    }
}

impl State {
    fn demand(&self, peer: PeerKey) -> Demand {
        let mine = self.peers.get(&peer);
        let active = self.peers.len() + usize::from(mine.is_none());
        Demand { taken: self.taken, mine: mine.map_or(0, |peer| peer.taken), active }
    }

    fn grant(&mut self, peer: PeerKey) {
        self.taken += 1;
        self.peers.entry(peer).or_default().taken += 1;
    }

    /// Adds a waiter; returns how many that had left were taken out of the line.
    fn join_line(&mut self, peer: PeerKey, call: oneshot::Sender<Place>) -> usize {
        let places = self.peers.entry(peer).or_default();
        if places.line.is_empty() && !self.turns.contains(&peer) {
            self.turns.push_back(peer);
        }
        places.line.push_back(call);
        let before = places.line.len();
        if before >= places.sweep_at.max(SWEEP_FROM) {
            places.line.retain(|call| !call.is_closed());
            places.sweep_at = 2 * places.line.len();
        }
        before - places.line.len()
    }

    fn forget_if_unused(&mut self, peer: PeerKey) {
        if self.peers.get(&peer).is_some_and(|places| places.taken == 0 && places.line.is_empty()) {
            self.peers.remove(&peer);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.0.state.lock();
        state.taken = state.taken.saturating_sub(1);
        if let Some(peer) = state.peers.get_mut(&self.peer) {
            peer.taken = peer.taken.saturating_sub(1);
        }
        state.forget_if_unused(self.peer);
        drop(state);
        self.places.serve_lines();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::{Full, Place, Places, Room};
    use crate::workload::PeerKey;

    const ROOM: Room = Room::by_quarters(16_384, 64);

    fn pod(n: u8) -> PeerKey {
        PeerKey::new(IpAddr::from([10, 0, 0, n]), 1)
    }

    fn fill(places: &Places, peer: PeerKey) -> Vec<Place> {
        std::iter::from_fn(|| places.try_take(peer).ok()).collect()
    }

    async fn take(places: &Places, peer: PeerKey) -> Place {
        match places.take_or_join(peer) {
            Ok(place) => place,
            Err(turn) => turn.wait().await,
        }
    }

    #[test]
    fn an_allowance_is_a_quarter_and_shrinks_to_the_fair_share_only_when_places_are_scarce() {
        for (taken, active, allowance) in [
            (0, 1, 4_096),
            (8_192, 1_000, 4_096),
            (12_288, 1_000, 2_056),
            (16_384, 64, 256),
            (16_384, 10, 1_638),
            (16_384, 1_000, 64),
            (16_384, 2, 4_096),
        ] {
            assert_eq!(ROOM.allowance(taken, active), allowance, "{taken} taken, {active} peers");
        }
        assert_eq!(Room::by_quarters(512, 32).allowance(512, 100), 32);
    }

    #[test]
    fn one_peer_gets_a_quarter_and_host_addresses_count_eightfold() {
        let places = Places::new(ROOM);
        let first = fill(&places, pod(1));
        assert_eq!(first.len(), 4_096);
        assert_eq!(places.try_take(pod(1)).err(), Some(Full::Peer));
        drop(first);
        let host = PeerKey::new(IpAddr::from([10, 0, 0, 9]), 8);
        // All but the last eighth.
        assert_eq!(fill(&Places::new(ROOM), host).len(), 14_336);
    }

    #[test]
    fn four_peers_that_take_all_they_can_leave_places_to_a_fifth() {
        // What a cgroup of 64 MiB has.
        let places = Places::new(Room::by_quarters(1_024, 64));
        let mut taken = Vec::new();
        for _ in 0..1_024 {
            for n in 1..=4 {
                taken.extend(places.try_take(pod(n)).ok());
            }
        }
        assert_eq!(places.taken(), 896, "seven eighths");
        assert_eq!(fill(&places, pod(5)).len(), 64);
    }

    #[test]
    fn a_peer_with_eight_shares_leaves_half_of_the_last_eighth_to_the_others() {
        // As the room to wait in at 64 MiB; sixteen times eight is more than the last eighth has.
        let places = Places::new(Room { all: 512, most: 384, least: 16 });
        let (host, other) =
            (PeerKey::new(IpAddr::from([10, 0, 0, 9]), 8), PeerKey::new([127, 0, 0, 1].into(), 8));
        let taken = (fill(&places, host), fill(&places, other));
        assert_eq!((taken.0.len(), taken.1.len()), (448, 32));
        assert_eq!(fill(&places, pod(1)).len(), 16);
    }

    #[test]
    fn only_a_peer_with_less_than_its_share_gets_a_place_beyond_all() {
        let places = Places::new(Room { all: 16, most: 12, least: 8 });
        let taken = (fill(&places, pod(1)), fill(&places, pod(2)));
        assert_eq!((taken.0.len(), taken.1.len()), (12, 4));
        let has_less = [1, 2, 3].map(|n| places.has_less_than_its_share(pod(n)));
        assert_eq!(has_less, [false, true, true]);
        let beyond: Vec<_> = std::iter::from_fn(|| places.take_in_advance(pod(3))).collect();
        assert_eq!(beyond.len(), 2, "an eighth");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_order_and_peers_take_turns() {
        let places = Places::new(Room::by_quarters(4, 1));
        let mut taken: Vec<_> = (1..=4).map(|n| places.try_take(pod(n)).ok().unwrap()).collect();
        let (told, mut order) = tokio::sync::mpsc::channel(8);
        let mut waiting = JoinSet::new();
        for (peer, name) in [(pod(5), "five"), (pod(6), "six")] {
            let (places, told) = (places.clone(), told.clone());
            waiting.spawn(async move {
                let place = take(&places, peer).await;
                told.send(name).await.unwrap();
                place
            });
            tokio::task::yield_now().await;
        }
        assert!(places.is_wanted(pod(1)), "one with nothing waits");
        assert!(!places.is_wanted(pod(5)), "it has nothing to give");
        taken.pop();
        assert_eq!(order.recv().await, Some("five"));
        assert!(order.try_recv().is_err());
        taken.pop();
        assert_eq!(order.recv().await, Some("six"));
        drop((taken, waiting.join_all().await));
        assert_eq!((places.taken(), places.0.state.lock().peers.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_leaves_leaves_no_hole() {
        let places = Places::new(Room::by_quarters(4, 1));
        let first = places.try_take(pod(1)).ok().unwrap();
        for _ in 0..1_000 {
            assert!(timeout(Duration::from_millis(1), take(&places, pod(1))).await.is_err());
        }
        assert!(places.0.state.lock().peers[&pod(1)].line.len() <= 64);
        assert!(!places.is_wanted(pod(1)), "nobody waits");
        let mut last = std::pin::pin!(take(&places, pod(1)));
        assert!(timeout(Duration::from_millis(1), last.as_mut()).await.is_err());
        assert!(places.is_wanted(pod(1)) && !places.is_wanted(pod(2)));
        drop(first);
        drop(timeout(Duration::from_millis(1), last).await.unwrap());
        assert_eq!((places.taken(), places.0.in_line.load(std::sync::atomic::Ordering::Relaxed)), (0, 0));
    }
}
