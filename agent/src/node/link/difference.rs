//! From what is wanted and what is there to what is done. Pure.
//!
//! Owns: where the addresses live, the steps that lead there, and whose addresses are left alone. Must not know: netlink.
//! One round of steps need not lead all the way: a link that is made now has no number yet. So the caller looks and asks
//! again until there is nothing left to do.

use std::net::IpAddr;

use super::desired::{CILIUM, Desired, LINK_NAME, LOOPBACK};
use super::observed::{Link, Observed};
use crate::config::LinkPlace;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make the dummy link `pod-id-link0`.
    CreateLink,
    /// Switch a link on.
    BringUp {
        /// Its number.
        link: u32,
    },
    /// Put an address on a link.
    AddAddress {
        /// The number of the link.
        link: u32,
        /// The address.
        ip: IpAddr,
        /// How far it reaches.
        scope: Scope,
    },
    /// Lead an address over a link.
    AddRoute {
        /// The number of the link.
        link: u32,
        /// The address.
        ip: IpAddr,
    },
}

/// The scope of an IPv4 address; the kernel gives IPv6 addresses theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Global, as the Amazon agent has it. On `lo` for Cilium only: it may become the source of other traffic there
    /// (facts 7.5).
    Global,
    /// This host.
    Host,
}

/// What is to be done, and what is not ours to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Addresses that another link has.
    pub foreign: Vec<Foreign>,
}

/// One of our addresses on a link that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// The address.
    pub ip: IpAddr,
    /// Who has it.
    pub link: String,
}

/// The next steps. `dummy_supported` is false once the kernel has said that it knows no dummy links.
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

/// The name of the link that gets what is missing.
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

/// Our own link is on, and leads to the addresses it has.
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
