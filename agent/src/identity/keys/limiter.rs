//! How often unknown key ids may make us ask the sources again. Pure.
//!
//! Owns: the two rates. Must not know: what is asked. Anybody can make up a key id, so asking is what an attacker gets for
//! free: one peer may cause little of it, and all together not much more. Whoever asks, all learn the answer.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::BootTime;
use crate::workload::PeerKey;

/// One pod makes us ask once in this time, the host eight times (design 4.4).
const PER_PEER: Duration = Duration::from_secs(10);
/// All peers together make us ask once in this time: sixty small documents a minute at the worst, and still a turn for
/// others when the host takes all of its own.
const OVERALL: Duration = Duration::from_secs(1);

/// Who made us ask, and when.
///
/// Bounded by construction: every entry took a turn of all, so there are at most ten younger than [`PER_PEER`].
#[derive(Debug, Default)]
pub(super) struct RefetchLimiter {
    refetches: HashMap<PeerKey, Vec<BootTime>>,
    last: Option<BootTime>,
}

impl RefetchLimiter {
    /// Takes a turn, if this peer may have one now.
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
    fn a_pod_makes_us_ask_once_in_ten_seconds_and_all_once_in_one() {
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
    fn the_host_has_eight_turns_and_leaves_some_to_the_pods() {
        let mut limiter = RefetchLimiter::default();
        let host = PeerKey::new(Ipv4Addr::LOCALHOST.into(), 8);
        let taken = (0..10).filter(|second| limiter.admit(host, at(second * 1_000))).count();
        assert_eq!(taken, 8);
        assert!(limiter.admit(pod(1), at(9_000)));
        assert!(limiter.admit(host, at(10_000)), "its first turn is ten seconds ago");
    }

    #[test]
    fn a_flood_from_many_peers_neither_asks_more_nor_grows_the_map() {
        let mut limiter = RefetchLimiter::default();
        let asked = (0..60_000_u64).filter(|ms| limiter.admit(pod((ms % 250) as u8), at(*ms))).count();
        assert!(asked <= 60, "{asked}");
        assert!(limiter.refetches.len() <= 10, "{}", limiter.refetches.len());
    }
}
