//! How many unverified calls one peer may have under way.
//!
//! Owns: 8 unverified flights per peer (docs/design/decisions.md#fairness), counted on the peer who started
//! them, and that a refused one keeps its place for a second more. Must not know: addresses, HTTP, or what is
//! called. A verified pod needs no quota here: it has one identity, and one identity has one flight.
//!
//! Without that second a peer with rubbish for tokens would get as many calls out of us as AWS can refuse; so
//! it is eight a second, evenly spread: eight (or the host's 64) at one moment would be felt by others
//! (measured: 4 ms at their 99th percentile in place of 0.8).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{BootTime, Clock};
use crate::lifecycle::limits::{Limit, Limits};
use crate::workload::PeerKey;

/// Unverified flights of one peer (docs/design/decisions.md#fairness).
const FLIGHTS: usize = 8;
/// A flight that was refused counts for this much longer: as long as a first refusal is remembered.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// A waiting request looks for itself at least this often, should it miss that something was freed.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// What each peer has under way. Clones share it.
#[derive(Clone)]
pub struct PeerQuotas {
    shared: Arc<Shared>,
}

struct Shared {
    /// Only peers with something under way or cooling_down: no more than there are flights and refusals of
    /// the last second.
    accounts: Mutex<HashMap<PeerKey, PeerQuota>>,
    clock: Clock,
    limits: Limits,
}

#[derive(Default)]
struct PeerQuota {
    flights: usize,
    /// Until when refused flights still count, in order.
    cooling_down: VecDeque<BootTime>,
    /// The end of a rest that one of those who wait sleeps for; the others are woken by it.
    timed: Option<BootTime>,
    freed: Arc<Notify>,
}

/// The right to one unverified flight; dropping it gives it back.
pub struct FlightPermit {
    shared: Arc<Shared>,
    peer: PeerKey,
    cools_down: bool,
}

/// The peer has its fill.
pub struct OverQuota {
    freed: Arc<Notify>,
    /// When the next of its places is free for certain, if one is cooling_down and nobody sleeps for it yet.
    next: Option<BootTime>,
    now: BootTime,
}

impl PeerQuotas {
    /// Nothing under way.
    pub fn new(clock: Clock, limits: Limits) -> Self {
        Self { shared: Arc::new(Shared { accounts: Mutex::default(), clock, limits }) }
    }

    /// The right to one more flight, if the peer has one left.
    pub fn try_flight(&self, peer: PeerKey) -> Result<FlightPermit, OverQuota> {
        self.attempt(peer, None)
    }

    /// `slept_for`: the end of a rest that the caller is the one to sleep for.
    fn attempt(&self, peer: PeerKey, slept_for: Option<BootTime>) -> Result<FlightPermit, OverQuota> {
        let now = self.shared.clock.now().boot;
        let mut accounts = self.shared.accounts.lock();
        let account = accounts.entry(peer).or_default();
        account.expire(now);
        let allowance = peer.allowance(FLIGHTS);
        if account.flights + account.cooling_down.len() < allowance {
            account.flights += 1;
            // Two places may have been freed for one call; and somebody must sleep for the next.
            account.freed.notify_one();
            return Ok(FlightPermit { shared: Arc::clone(&self.shared), peer, cools_down: false });
        }
        let next = account.cooling_down.front().copied();
        let is_ours = account.timed != next || account.timed == slept_for;
        account.timed = next;
        Err(OverQuota { freed: Arc::clone(&account.freed), next: next.filter(|_| is_ours), now })
    }

    /// Waits for the right to one more flight. Cancel-safe.
    pub async fn flight(&self, peer: PeerKey) -> FlightPermit {
        self.shared.limits.reached(Limit::UpstreamCallsPerPeer);
        let mut sleeps_for = None;
        loop {
            let full = match self.attempt(peer, sleeps_for) {
                Ok(permit) => return permit,
                Err(full) => full,
            };
            sleeps_for = full.next;
            let wait = full.next.map_or(LONGEST_WAIT, |next| next.since(full.now).min(LONGEST_WAIT));
            tokio::select! {
                // In a fixed order, so that a simulated story is the same each time.
                biased;
                () = full.freed.notified() => {}
                // A little longer than nothing, so that a clock which stands still is not a busy loop.
                () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {}
            }
        }
    }

    /// How many peers have something under way.
    pub fn peers(&self) -> usize {
        self.shared.accounts.lock().len()
    }

    /// Forgets peers that have nothing under way and nothing cooling down.
    pub fn tidy(&self) {
        self.shared.sweep(&mut self.shared.accounts.lock());
    }
}

impl FlightPermit {
    /// The peer that it belongs to.
    pub fn peer(&self) -> PeerKey {
        self.peer
    }

    /// AWS refused: the place is free again only after a rest.
    pub fn refused(&mut self) {
        self.cools_down = true;
    }
}

impl Drop for FlightPermit {
    fn drop(&mut self) {
        let now = self.shared.clock.now().boot;
        let mut accounts = self.shared.accounts.lock();
        let Some(account) = accounts.get_mut(&self.peer) else { return };
        account.flights = account.flights.saturating_sub(1);
        if self.cools_down {
            account.cool_down(now, self.peer.allowance(FLIGHTS));
        } else {
            account.freed.notify_one();
        }
        account.expire(now);
        if account.is_empty() {
            accounts.remove(&self.peer);
        }
        if accounts.len() >= SWEEP_FROM {
            self.shared.sweep(&mut accounts);
        }
    }
}

/// From so many peers on, those that only rested are looked for at each return: more than a node has pods.
const SWEEP_FROM: usize = 512;

impl Shared {
    fn sweep(&self, accounts: &mut HashMap<PeerKey, PeerQuota>) {
        let now = self.clock.now().boot;
        accounts.retain(|_, account| {
            account.expire(now);
            !account.is_empty()
        });
    }
}

impl PeerQuota {
    /// One place rests from now on, and ends no sooner than its share of a second after the one before it.
    fn cool_down(&mut self, now: BootTime, allowance: usize) {
        let share = COOL_DOWN / u32::try_from(allowance.max(1)).unwrap_or(u32::MAX);
        let after_last = self.cooling_down.back().map(|last| last.plus(share));
        let until = after_last.map_or(now.plus(COOL_DOWN), |after| after.max(now.plus(COOL_DOWN)));
        self.cooling_down.push_back(until);
    }

    fn expire(&mut self, now: BootTime) {
        while self.cooling_down.front().is_some_and(|until| *until <= now) {
            self.cooling_down.pop_front();
        }
    }

    /// Nothing counts and nobody waits for it.
    fn is_empty(&self) -> bool {
        self.flights == 0 && self.cooling_down.is_empty() && Arc::strong_count(&self.freed) == 1
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, UNIX_EPOCH};

    use super::{COOL_DOWN, FlightPermit, PeerQuotas};
    use crate::clock::{Clock, Simulated};
    use crate::lifecycle::limits::{Limit, Limits};
    use crate::workload::PeerKey;

    fn quotas() -> PeerQuotas {
        PeerQuotas::new(Clock::simulated(Simulated::starting_at(UNIX_EPOCH)), Limits::default())
    }

    fn pod(number: u8) -> PeerKey {
        PeerKey::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)), 1)
    }

    fn all(quotas: &PeerQuotas, peer: PeerKey) -> Vec<FlightPermit> {
        std::iter::from_fn(|| quotas.try_flight(peer).ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_eight_flights_the_node_eight_times_as_many_and_nobody_elses_count() {
        let quotas = quotas();
        let permits = all(&quotas, pod(1));
        assert_eq!(permits.len(), 8);
        assert_eq!(all(&quotas, pod(2)).len(), 8);
        assert_eq!(all(&quotas, PeerKey::new(Ipv4Addr::LOCALHOST.into(), 8)).len(), 64);
        drop(permits);
        assert_eq!(quotas.peers(), 0, "a peer with nothing under way is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn refused_flights_count_for_a_second_more_return_one_by_one_and_then_are_forgotten() {
        let quotas = quotas();
        for mut permit in all(&quotas, pod(1)) {
            permit.refused();
        }
        assert!(quotas.try_flight(pod(1)).is_err());
        assert!(quotas.try_flight(pod(2)).is_ok());
        tokio::time::sleep(COOL_DOWN).await;
        let first = all(&quotas, pod(1));
        assert_eq!(first.len(), 1);
        tokio::time::sleep(COOL_DOWN / 8).await;
        assert_eq!(all(&quotas, pod(1)).len(), 1);
        drop(first);
        tokio::time::sleep(COOL_DOWN).await;
        assert_eq!(all(&quotas, pod(1)).len(), 8);
        assert_eq!(quotas.peers(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_gets_the_place_that_is_freed_and_it_is_counted() {
        let quotas = quotas();
        let mut permits = all(&quotas, pod(1));
        let freeing = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            permits.truncate(6);
        };
        let both = async { tokio::join!(quotas.flight(pod(1)), quotas.flight(pod(1))) };
        let started = tokio::time::Instant::now();
        let (_two, ()) = tokio::join!(both, freeing);
        assert!(started.elapsed() < Duration::from_millis(110), "{:?}", started.elapsed());
        assert_eq!(quotas.shared.limits.count(Limit::UpstreamCallsPerPeer), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_refused_all_the_time_gets_eight_calls_a_second() {
        let quotas = quotas();
        let mut calls = 0;
        let flood = async {
            loop {
                let mut permit = quotas.flight(pod(1)).await;
                calls += 1;
                permit.refused();
            }
        };
        let ended = tokio::time::timeout(Duration::from_millis(9_900), flood).await;
        assert!(ended.is_err());
        assert_eq!(calls, 80);
    }
}
