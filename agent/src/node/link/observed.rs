//! The observed state of the node.
//!
//! Owns: the types for it. Must not know: the desired state.

use std::net::IpAddr;

/// The links, addresses and routes of the node that may matter to the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// The routes of the main table to single addresses over the agent's link.
    pub routes: Vec<Route>,
    /// The addresses that the local table has as the node's own, over whatever link. Without its entry an
    /// address is only a label: the kernel forwards its packets, or drops them.
    pub local: Vec<IpAddr>,
    /// Whether IPv6 is switched off.
    pub is_ipv6_off: bool,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its index in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub is_up: bool,
}

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The index of its link.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
}

/// A route to a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The index of its output link.
    pub link: u32,
    /// Its destination.
    pub to: IpAddr,
}

impl Observed {
    /// The link with that name.
    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Whether the node can have this address at all.
    pub(super) fn can_have(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() || !self.is_ipv6_off
    }

    /// Whether the kernel delivers packets for this address here.
    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        self.local.contains(&ip)
    }

    /// The link that has this address.
    pub(super) fn holder(&self, ip: IpAddr) -> Option<&Link> {
        let address = self.addresses.iter().find(|address| address.ip == ip)?;
        self.links.iter().find(|link| link.index == address.link)
    }
}
