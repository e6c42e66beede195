//! The steps from the observed state to the desired one. Pure.
//!
//! Owns: which link gets the addresses, the steps, and which addresses are left alone. Must not know:
//! netlink. One round of steps may not be enough: a link that is created now has no index yet. So the caller
//! observes and asks again until there is nothing left to do.

use std::fmt;
use std::net::IpAddr;

use super::desired::{CILIUM, Desired, LINK_NAME, LOOPBACK};
use super::observed::{Link, Observed};
use crate::config::LinkPlace;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Create the dummy link `pod-id-link0`.
    CreateLink,
    /// Set a link up.
    BringUp {
        /// The index of the link.
        link: u32,
    },
    /// Add an address to a link.
    AddAddress {
        /// The index of the link.
        link: u32,
        /// The address.
        ip: IpAddr,
        /// The scope of the address.
        scope: Scope,
    },
    /// Take an address from its link and add it again. That is how its entry in the local table comes back:
    /// an entry of the agent's own would stay when the address goes.
    RenewAddress {
        /// The index of the link.
        link: u32,
        /// The address.
        ip: IpAddr,
        /// The scope of the address.
        scope: Scope,
    },
    /// Add a route to an address over a link.
    AddRoute {
        /// The index of the link.
        link: u32,
        /// The address.
        ip: IpAddr,
    },
}

impl Action {
    /// The address that it takes away and adds again.
    pub(super) const fn renewed(&self) -> Option<IpAddr> {
        match self {
            Self::RenewAddress { ip, .. } => Some(*ip),
            Self::CreateLink | Self::BringUp { .. } | Self::AddAddress { .. } | Self::AddRoute { .. } => None,
        }
    }

    /// The address that it adds.
    pub(super) const fn added(&self) -> Option<IpAddr> {
        match self {
            Self::AddAddress { ip, .. } | Self::RenewAddress { ip, .. } => Some(*ip),
            Self::CreateLink | Self::BringUp { .. } | Self::AddRoute { .. } => None,
        }
    }

    /// Whether it is about what no address shows the lack of.
    pub(super) const fn is_beside_addresses(&self) -> bool {
        match self {
            Self::BringUp { .. } | Self::AddRoute { .. } => true,
            Self::CreateLink | Self::AddAddress { .. } | Self::RenewAddress { .. } => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateLink => write!(f, "create {LINK_NAME}"),
            Self::BringUp { .. } => f.write_str("set the link up"),
            Self::AddAddress { ip, .. } | Self::RenewAddress { ip, .. } => write!(f, "add {ip}"),
            Self::AddRoute { ip, .. } => write!(f, "add the route to {ip}"),
        }
    }
}

/// The scope of an IPv4 address; the kernel gives IPv6 addresses theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Global, as the Amazon agent has it. On `lo` only beside Cilium: with this scope the address may become
    /// the source of other traffic (docs/design/facts.md#address-scope).
    Global,
    /// This host.
    Host,
}

/// What is to be done, and what is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The steps, in this order.
    pub actions: Vec<Action>,
    /// The agent's addresses that are on other links.
    pub foreign: Vec<Foreign>,
}

/// One of the agent's addresses on a link that the agent does not manage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// The address.
    pub ip: IpAddr,
    /// The name of that link.
    pub link: String,
}

/// The next steps. `dummy_supported` is false once the kernel has refused to create a dummy link.
pub(super) fn difference(desired: &Desired, observed: &Observed, dummy_supported: bool) -> Plan {
    let mut plan = Plan::default();
    let place = place(desired.place, observed, dummy_supported);
    let missing: Vec<IpAddr> = desired
        .addresses
        .iter()
        .copied()
        .filter(|ip| match observed.holder(*ip) {
            None => true,
            Some(holder) if is_ours(holder) => false,
            Some(holder) => {
                plan.foreign.push(Foreign { ip: *ip, link: holder.name.clone() });
                false
            }
        })
        .collect();
    match observed.link(place) {
        Some(link) => {
            if !missing.is_empty() {
                plan.bring_up(link);
            }
            let scope = scope_on(link, observed);
            plan.actions.extend(missing.iter().map(|ip| Action::AddAddress {
                link: link.index,
                ip: *ip,
                scope,
            }));
        }
        None if missing.is_empty() => {}
        None => plan.actions.push(Action::CreateLink),
    }
    for ip in &desired.addresses {
        if let Some(holder) = observed.holder(*ip).filter(|holder| is_ours(holder)) {
            keep(*ip, holder, observed, &mut plan);
        }
    }
    plan
}

impl Plan {
    fn bring_up(&mut self, link: &Link) {
        let bring_up = Action::BringUp { link: link.index };
        if !link.is_up && !self.actions.contains(&bring_up) {
            self.actions.push(bring_up);
        }
    }
}

/// The name of the link that gets the missing addresses.
fn place(wanted: LinkPlace, observed: &Observed, dummy_supported: bool) -> &'static str {
    match wanted {
        LinkPlace::Dummy => LINK_NAME,
        LinkPlace::Lo => LOOPBACK,
        LinkPlace::Auto if observed.link(LINK_NAME).is_some() => LINK_NAME,
        LinkPlace::Auto if observed.link(CILIUM).is_some() || !dummy_supported => LOOPBACK,
        LinkPlace::Auto => LINK_NAME,
    }
}

fn is_ours(link: &Link) -> bool {
    link.name == LINK_NAME || link.name == LOOPBACK
}

fn scope_on(link: &Link, observed: &Observed) -> Scope {
    let is_loopback_without_cilium = link.name == LOOPBACK && observed.link(CILIUM).is_none();
    if is_loopback_without_cilium { Scope::Host } else { Scope::Global }
}

/// Steps so that the kernel answers on an address that one of the agent's links has.
fn keep(ip: IpAddr, holder: &Link, observed: &Observed, plan: &mut Plan) {
    let link = holder.index;
    plan.bring_up(holder);
    if !observed.is_local(ip) && observed.can_have(ip) {
        plan.actions.push(Action::RenewAddress { link, ip, scope: scope_on(holder, observed) });
    }
    let has_route = || observed.routes.iter().any(|route| route.link == link && route.to == ip);
    // Packets that the node sends on `lo` need no route there.
    if holder.name == LINK_NAME && !has_route() {
        plan.actions.push(Action::AddRoute { link, ip });
    }
}
