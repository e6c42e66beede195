//! How often unknown key ids may make us ask the sources again. Pure.
//!
//! Owns: the two rates. Must not know: what is asked. Anybody can make up a key id, so asking is what an attacker gets for
//! free: one peer may cause little of it, and all together not much more. Whoever asks, all learn the answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::BootTime;

/// One peer makes us ask once in this time (design 4.4).
const PER_PEER: Duration = Duration::from_secs(10);
/// All peers together make us ask once in this time: thirty small documents a minute at the worst.
const OVERALL: Duration = Duration::from_secs(2);

/// Who made us ask, and when.
///
/// Bounded by construction: every entry took a turn of all, so there are at most six younger than [`PER_PEER`].
#[derive(Debug, Default)]
pub(super) struct AskLimiter {
    peers: HashMap<IpAddr, BootTime>,
    last: Option<BootTime>,
}

impl AskLimiter {
    /// Takes a turn, if this peer may have one now.
    pub(super) fn take(&mut self, peer: IpAddr, now: BootTime) -> bool {
        if self.last.is_some_and(|last| now.since(last) < OVERALL) {
            return false;
        }
        self.peers.retain(|_, asked| now.since(*asked) < PER_PEER);
        if self.peers.contains_key(&peer) {
            return false;
        }
        self.peers.insert(peer, now);
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::AskLimiter;
    use crate::clock::BootTime;

    fn peer(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, n).into()
    }

    fn at(ms: u64) -> BootTime {
        BootTime::from_boot(Duration::from_millis(1_000_000 + ms))
    }

    #[test]
    fn a_peer_makes_us_ask_once_in_ten_seconds_and_all_once_in_two() {
        let mut limiter = AskLimiter::default();
        let cases = [
            (0, 1, true),
            (1_999, 2, false),
            (2_000, 1, false),
            (2_000, 2, true),
            (9_999, 1, false),
            (10_000, 1, true),
            (11_999, 3, false),
            (12_000, 2, true),
        ];
        for (ms, who, expected) in cases {
            assert_eq!(limiter.take(peer(who), at(ms)), expected, "peer {who} at {ms} ms");
        }
    }

    #[test]
    fn a_flood_from_many_peers_neither_asks_more_nor_grows_the_map() {
        let mut limiter = AskLimiter::default();
        let asked = (0..60_000_u64).filter(|ms| limiter.take(peer((ms % 250) as u8), at(*ms))).count();
        assert!(asked <= 30, "{asked}");
        assert!(limiter.peers.len() <= 6, "{}", limiter.peers.len());
    }
}
