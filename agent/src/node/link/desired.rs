//! The desired state of the node.
//!
//! Owns: which addresses the agent keeps in place, and the name of its link. Must not know: what the node
//! has.

use std::net::IpAddr;

use crate::config::LinkPlace;
use crate::workload::WELL_KNOWN;

/// The agent's link, by the name that the Amazon agent gives it.
pub const LINK_NAME: &str = "pod-id-link0";
/// The link that every network namespace has.
pub(super) const LOOPBACK: &str = "lo";
/// The link that shows that Cilium runs here. Cilium counts addresses on `lo` as the host's own, and
/// addresses on links that it does not know as outside the cluster (docs/design/facts.md#address-scope).
pub(in crate::node) const CILIUM: &str = "cilium_host";

/// The desired state of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The link that the addresses are added to.
    pub place: LinkPlace,
    /// The addresses, each as a single host (/32, /128).
    pub addresses: Vec<IpAddr>,
}

impl Desired {
    /// Both well-known addresses.
    pub fn well_known(place: LinkPlace) -> Self {
        Self { place, addresses: WELL_KNOWN.to_vec() }
    }

    /// The well-known addresses among those that are bound. Any other bound address already belongs to the
    /// node, and is not managed here.
    pub fn of_bound(place: LinkPlace, bound: &[IpAddr]) -> Self {
        Self { place, addresses: bound.iter().copied().filter(|ip| WELL_KNOWN.contains(ip)).collect() }
    }
}
