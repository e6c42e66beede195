//! What the node shall have.
//!
//! Owns: which addresses are ours to keep, and the name of our link. Must not know: what the node has.

use std::net::IpAddr;

use crate::config::LinkPlace;
use crate::workload::WELL_KNOWN;

/// Our link, by the name that the Amazon agent gives it.
pub const LINK_NAME: &str = "pod-id-link0";
/// The link every network namespace has.
pub(super) const LOOPBACK: &str = "lo";
/// The link by which Cilium is known. It counts addresses on `lo` as the host's own, and those on links that it does not
/// know as the world's (facts 7.5).
pub(super) const CILIUM: &str = "cilium_host";

/// What the node shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// On which link.
    pub place: LinkPlace,
    /// Which addresses, each as a host of its own (/32, /128).
    pub addresses: Vec<IpAddr>,
}

impl Desired {
    /// Both well-known addresses.
    pub fn well_known(place: LinkPlace) -> Self {
        Self { place, addresses: WELL_KNOWN.to_vec() }
    }

    /// Those of the well-known addresses that are bound. An address of the node that somebody bound is the node's affair.
    pub fn of_bound(place: LinkPlace, bound: &[IpAddr]) -> Self {
        Self { place, addresses: bound.iter().copied().filter(|ip| WELL_KNOWN.contains(ip)).collect() }
    }
}
