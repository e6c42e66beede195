//! The steps from the observed state to the desired one. Pure.
//!
//! Owns: which link gets the addresses, the steps, and which addresses are left alone. Must not know:
//! netlink. One round of steps may not be enough: a link that is created now has no index yet. So the caller
//! observes and asks again until there is nothing left to do.

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
    /// Add a route to an address over a link.
    AddRoute {
        /// The index of the link.
        link: u32,
        /// The address.
        ip: IpAddr,
    },
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
            if !missing.is_empty() && !link.is_up {
                plan.actions.push(Action::BringUp { link: link.index });
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
    if let Some(own) = observed.link(LINK_NAME) {
        keep_own_link(own, desired, observed, &mut plan);
    }
    plan
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

/// Steps so that the agent's own link is up, and has a route to each address on it.
fn keep_own_link(own: &Link, desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let bring_up = Action::BringUp { link: own.index };
    for ip in &desired.addresses {
        if observed.holder(*ip).is_none_or(|holder| holder.index != own.index) {
            continue;
        }
        if !own.is_up && !plan.actions.contains(&bring_up) {
            plan.actions.push(bring_up);
        }
        if !observed.routes.iter().any(|route| route.link == own.index && route.to == *ip) {
            plan.actions.push(Action::AddRoute { link: own.index, ip: *ip });
        }
    }
}
