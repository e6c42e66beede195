//! What the node has.
//!
//! Owns: the picture of it. Must not know: what it should have.

use std::net::IpAddr;

/// What the node has, as far as it may concern us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// The main table's routes to single addresses over our link.
    pub routes: Vec<Route>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is switched on.
    pub is_up: bool,
}

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The number of its link.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
}

/// A route to a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The number of the link that it leads over.
    pub link: u32,
    /// Where it leads.
    pub to: IpAddr,
}

impl Observed {
    /// The link of that name.
    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link that has this address.
    pub(super) fn holder(&self, ip: IpAddr) -> Option<&Link> {
        let address = self.addresses.iter().find(|address| address.ip == ip)?;
        self.links.iter().find(|link| link.index == address.link)
    }
}
