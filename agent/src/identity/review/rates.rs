//! How often the judge is asked. Pure.
//!
//! Owns: the two rates. Must not know: what it is asked. Anybody can make up tokens at no cost, so each peer
//! may cause few reviews, and all peers together not many more.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clock::BootTime;
use crate::workload::PeerKey;

/// Reviews that all peers may cause in [`OVERALL`]: of a cluster of 1,000 nodes no more than 5,000 a second
/// reach the API server, where every pod of it sends junk.
const MOST: usize = 5;
const OVERALL: Duration = Duration::from_secs(1);
/// A pod may cause one review in this time, the host eight (docs/design/decisions.md#fairness).
const PER_PEER: Duration = Duration::from_secs(2);
const _: () = assert!(
    8 * OVERALL.as_millis() < MOST as u128 * PER_PEER.as_millis(),
    "the host leaves reviews to the pods"
);

/// The recent reviews, and those of each peer.
///
/// Bounded: [`MOST`] in [`OVERALL`], so at most ten are younger than [`PER_PEER`].
#[derive(Debug, Default)]
pub(super) struct Rates {
    recent: VecDeque<BootTime>,
    of_peers: HashMap<PeerKey, Vec<BootTime>>,
}

impl Rates {
    /// From when on the next review may be made, by the rate of all; `None`: now.
    pub(super) fn next_at(&self, now: BootTime) -> Option<BootTime> {
        let oldest = self.recent.front().filter(|_| self.recent.len() >= MOST)?;
        let next = oldest.plus(OVERALL);
        (now < next).then_some(next)
    }

    /// Whether this peer may cause one now.
    pub(super) fn allow(&self, peer: PeerKey, now: BootTime) -> bool {
        let taken = self.of_peers.get(&peer).into_iter().flatten();
        taken.filter(|at| now.since(**at) < PER_PEER).count() < peer.allowance(1)
    }

    /// It has caused one.
    pub(super) fn count(&mut self, peer: PeerKey, now: BootTime) {
        self.of_peers.retain(|_, taken| {
            taken.retain(|at| now.since(*at) < PER_PEER);
            !taken.is_empty()
        });
        self.of_peers.entry(peer).or_default().push(now);
        self.recent.push_back(now);
        if self.recent.len() > MOST {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::Rates;
    use crate::clock::BootTime;
    use crate::workload::PeerKey;

    fn at(ms: u64) -> BootTime {
        BootTime::from_boot(Duration::from_millis(1_000_000 + ms))
    }

    fn peer(number: u64, shares: usize) -> PeerKey {
        PeerKey::new(Ipv4Addr::from_bits(number as u32).into(), shares)
    }

    /// When a peer that always wants one is given one, in milliseconds.
    fn given(rates: &mut Rates, peers: impl Fn(u64) -> PeerKey, ms: std::ops::Range<u64>) -> Vec<u64> {
        ms.filter(|ms| {
            let (peer, now) = (peers(*ms), at(*ms));
            let is_given = rates.next_at(now).is_none() && rates.allow(peer, now);
            if is_given {
                rates.count(peer, now);
            }
            is_given
        })
        .collect()
    }

    #[test]
    fn a_flood_from_many_peers_causes_five_reviews_in_any_second_and_does_not_grow_the_map() {
        let mut rates = Rates::default();
        let given = given(&mut rates, |ms| peer(ms % 250, 1), 0..60_000);
        for five in given.windows(6) {
            assert!(five[5] - five[0] >= 1_000, "{five:?}");
        }
        assert!(given.len() >= 299, "and no less: {}", given.len());
        assert!(rates.of_peers.len() <= 10, "{}", rates.of_peers.len());
        assert_eq!(rates.next_at(at(60_000)), Some(at(given[given.len() - 5] + 1_000)));
    }

    #[test]
    fn a_pod_causes_one_review_in_two_seconds_and_the_host_leaves_some_to_the_pods() {
        let mut rates = Rates::default();
        assert_eq!(given(&mut rates, |_| peer(1, 1), 0..5_000), [0, 2_000, 4_000]);
        let mut rates = Rates::default();
        let of_host = given(&mut rates, |_| peer(9, 8), 0..2_000);
        assert_eq!(of_host, [0, 1, 2, 3, 4, 1_000, 1_001, 1_002]);
        assert!(rates.next_at(at(1_999)).is_none() && rates.allow(peer(1, 1), at(1_999)));
    }
}
