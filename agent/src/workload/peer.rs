//! Who takes a share of what all have in common.
//!
//! Owns: that everybody who calls from one address counts together (docs/design/decisions.md#fairness). Must
//! not know: who anybody is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The peer that a request is charged to.
///
/// Opaque on purpose: it says what is charged to which peer, never who anybody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey {
    address: IpAddr,
    shares: usize,
}

impl PeerKey {
    /// All who call from `address`, with so many times what one pod may have.
    pub fn new(address: IpAddr, shares: usize) -> Self {
        Self { address: address.to_canonical(), shares }
    }

    /// All who call from where this one does.
    pub fn of_socket(from: SocketAddr, shares: usize) -> Self {
        Self::new(charged(from), shares)
    }

    /// `limit` is what one pod may have; this is what the peer may.
    pub fn allowance(self, limit: usize) -> usize {
        limit.saturating_mul(self.shares)
    }
}

/// As one sees it in logs: its address, `fe80::N` for everybody on the link with the number N.
impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The address that is charged. A client may call from as many link-local addresses as it likes, so all of a
/// link are one peer: the link.
fn charged(from: SocketAddr) -> IpAddr {
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    match from {
        SocketAddr::V6(on_link) if on_link.ip().is_unicast_link_local() => {
            Ipv6Addr::from_bits(LINK_LOCAL.to_bits() | u128::from(on_link.scope_id())).into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => from.ip(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

    use super::PeerKey;

    fn key(address: &str, scope: u32) -> PeerKey {
        let address: Ipv6Addr = address.parse().unwrap();
        PeerKey::of_socket(SocketAddr::V6(SocketAddrV6::new(address, 4_000, 0, scope)), 1)
    }

    #[test]
    fn all_link_local_addresses_of_a_link_are_one_peer_and_other_addresses_each_their_own() {
        let on_link = key("fe80::1", 7);
        for alias in ["fe80::2", "fe80::ffff:1", "febf:ffff::1"] {
            assert_eq!(key(alias, 7), on_link, "{alias}");
            assert_ne!(key(alias, 8), on_link, "{alias}");
        }
        assert_eq!(on_link.to_string(), "fe80::7");
        assert_ne!(key("fd00::1", 0), key("fd00::2", 0));
        assert_eq!(key("::ffff:10.0.0.9", 0), PeerKey::new([10, 0, 0, 9].into(), 1));
    }
}
