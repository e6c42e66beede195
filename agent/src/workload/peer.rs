//! Who takes a share of what all have in common.
//!
//! Owns: that everybody who calls from one address counts together (docs/design/decisions.md#fairness). Must
//! not know: who anybody is.

use std::net::IpAddr;

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

    /// `limit` is what one pod may have; this is what the peer may.
    pub fn allowance(self, limit: usize) -> usize {
        limit.saturating_mul(self.shares)
    }
}
