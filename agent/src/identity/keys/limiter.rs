//! How often unknown key ids may cause a refetch of the sources. Pure.
//!
//! Owns: the two rates. Must not know: what is fetched. An attacker can make up key ids at no cost, so each
//! peer may cause few refetches, and all peers together not many more. The result of a refetch serves all
//! peers.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::BootTime;
use crate::workload::PeerKey;

/// A pod may cause one refetch in this time, the host eight (docs/design/decisions.md#fairness).
const PER_PEER: Duration = Duration::from_secs(10);
/// All peers together may cause one refetch in this time: at most sixty small documents a minute, and some
/// are left for others when the host uses all of its own.
const OVERALL: Duration = Duration::from_secs(1);
/// Those who wait for the first keys, without which nobody is served, may cause one in this time: a request
/// that is held for that long meets two of them.
pub(in crate::identity) const FIRST_READS_APART: Duration = Duration::from_secs(2);
const _: () =
    assert!(8 * OVERALL.as_millis() < PER_PEER.as_millis(), "the host leaves refetches to the pods");

/// The recent refetches of each peer.
///
/// Bounded: refetches are at least [`OVERALL`] apart, so at most ten are younger than [`PER_PEER`].
#[derive(Debug, Default)]
pub(super) struct RefetchLimiter {
    refetches: HashMap<PeerKey, Vec<BootTime>>,
    last: Option<BootTime>,
}

impl RefetchLimiter {
    /// Whether those who wait for the first keys may cause a refetch now; if so, it is counted.
    pub(super) fn admit_first(&mut self, now: BootTime) -> bool {
        let is_due = self.last.is_none_or(|last| now.since(last) >= FIRST_READS_APART);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }

    /// Whether this peer may cause a refetch now; if so, it is counted.
    pub(super) fn admit(&mut self, peer: PeerKey, now: BootTime) -> bool {
        if self.last.is_some_and(|last| now.since(last) < OVERALL) {
            return false;
        }
        self.refetches.retain(|_, taken| {
            taken.retain(|at| now.since(*at) < PER_PEER);
            !taken.is_empty()
        });
        if self.refetches.get(&peer).is_some_and(|taken| taken.len() >= peer.allowance(1)) {
            return false;
        }
        self.refetches.entry(peer).or_default().push(now);
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::RefetchLimiter;
    use crate::clock::BootTime;
    use crate::workload::PeerKey;

    fn pod(n: u8) -> PeerKey {
        PeerKey::new(Ipv4Addr::new(10, 0, 0, n).into(), 1)
    }

    fn at(ms: u64) -> BootTime {
        BootTime::from_boot(Duration::from_millis(1_000_000 + ms))
    }

    #[test]
    fn a_pod_causes_one_refetch_in_ten_seconds_and_all_peers_one_in_a_second() {
        let mut limiter = RefetchLimiter::default();
        let cases = [
            (0, 1, true),
            (999, 2, false),
            (1_000, 1, false),
            (1_000, 2, true),
            (9_999, 1, false),
            (10_000, 1, true),
            (10_999, 3, false),
            (11_000, 2, true),
        ];
        for (ms, who, expected) in cases {
            assert_eq!(limiter.admit(pod(who), at(ms)), expected, "pod {who} at {ms} ms");
        }
    }

    #[test]
    fn the_host_may_cause_eight_refetches_and_leaves_some_to_the_pods() {
        let mut limiter = RefetchLimiter::default();
        let host = PeerKey::new(Ipv4Addr::LOCALHOST.into(), 8);
        let taken = (0..10).filter(|second| limiter.admit(host, at(second * 1_000))).count();
        assert_eq!(taken, 8);
        assert!(limiter.admit(pod(1), at(9_000)));
        assert!(limiter.admit(host, at(10_000)), "its first refetch was ten seconds ago");
    }

    #[test]
    fn a_flood_from_many_peers_causes_no_more_refetches_and_does_not_grow_the_map() {
        let mut limiter = RefetchLimiter::default();
        let asked = (0..60_000_u64).filter(|ms| limiter.admit(pod((ms % 250) as u8), at(*ms))).count();
        assert!(asked <= 60, "{asked}");
        assert!(limiter.refetches.len() <= 10, "{}", limiter.refetches.len());
    }
}
