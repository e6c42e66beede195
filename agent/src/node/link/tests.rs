//! The decisions by tables, and the messages byte by byte. What the kernel does with them is tested end to
//! end, in network namespaces.

use std::net::IpAddr;

use rtnetlink::packet_core::Emitable;

use super::desired::Desired;
use super::difference::{Action, Foreign, Scope, difference};
use super::netlink::{address, create_link, route};
use super::observed::{Address, Link, Observed, Route};
use crate::config::LinkPlace;
use crate::workload::WELL_KNOWN;

const LO: u32 = 1;
const OWN: u32 = 7;
const ETH: u32 = 2;
const IPV4: IpAddr = WELL_KNOWN[0];
const IPV6: IpAddr = WELL_KNOWN[1];

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.to_owned(), is_up: true }
}

/// A node without anything of the agent.
fn bare() -> Observed {
    Observed { links: vec![link(LO, "lo"), link(ETH, "eth0")], ..Observed::default() }
}

fn with_link(mut node: Observed, index: u32, name: &str, is_up: bool) -> Observed {
    node.links.push(Link { is_up, ..link(index, name) });
    node
}

/// The kernel notes each address in its local table by itself.
fn with_address(node: Observed, link: u32, ip: IpAddr) -> Observed {
    let mut node = with_address_not_local(node, link, ip);
    node.local.push(ip);
    node
}

fn with_address_not_local(mut node: Observed, link: u32, ip: IpAddr) -> Observed {
    node.addresses.push(Address { link, ip });
    node
}

fn with_route(mut node: Observed, to: IpAddr) -> Observed {
    node.routes.push(Route { link: OWN, to });
    node
}

fn steps(place: LinkPlace, node: &Observed, dummy_supported: bool) -> Vec<Action> {
    difference(&Desired::well_known(place), node, dummy_supported).actions
}

fn add(link: u32, ip: IpAddr, scope: Scope) -> Action {
    Action::AddAddress { link, ip, scope }
}

#[test]
fn a_bare_node_gets_the_agents_link_first() {
    for place in [LinkPlace::Auto, LinkPlace::Dummy] {
        assert_eq!(steps(place, &bare(), true), [Action::CreateLink]);
    }
}

#[test]
fn without_dummy_links_auto_uses_lo_and_dummy_does_not() {
    let on_lo = [add(LO, IPV4, Scope::Host), add(LO, IPV6, Scope::Host)];
    assert_eq!(steps(LinkPlace::Auto, &bare(), false), on_lo);
    assert_eq!(steps(LinkPlace::Lo, &bare(), true), on_lo);
    assert_eq!(steps(LinkPlace::Dummy, &bare(), false), [Action::CreateLink]);
}

#[test]
fn beside_cilium_auto_uses_lo_and_the_address_has_the_scope_that_cilium_reads() {
    let node = with_link(bare(), 3, "cilium_host", true);
    let on_lo = [add(LO, IPV4, Scope::Global), add(LO, IPV6, Scope::Global)];
    assert_eq!(steps(LinkPlace::Auto, &node, true), on_lo);
    // If pod-id-link0 exists already, it is used: an admin or an earlier start chose it.
    let node = with_link(node, OWN, "pod-id-link0", true);
    assert_eq!(steps(LinkPlace::Auto, &node, true)[0], add(OWN, IPV4, Scope::Global));
}

#[test]
fn the_agents_link_is_set_up_before_it_gets_addresses_and_then_routes() {
    let node = with_link(bare(), OWN, "pod-id-link0", false);
    let first = [Action::BringUp { link: OWN }, add(OWN, IPV4, Scope::Global), add(OWN, IPV6, Scope::Global)];
    assert_eq!(steps(LinkPlace::Auto, &node, true), first);
    let node = with_address(with_address(node, OWN, IPV4), OWN, IPV6);
    let second = [
        Action::BringUp { link: OWN },
        Action::AddRoute { link: OWN, ip: IPV4 },
        Action::AddRoute { link: OWN, ip: IPV6 },
    ];
    assert_eq!(steps(LinkPlace::Auto, &node, true), second);
}

#[test]
fn a_complete_node_is_left_alone() {
    let own = with_link(bare(), OWN, "pod-id-link0", true);
    let own = with_address(with_address(own, OWN, IPV4), OWN, IPV6);
    let own = with_route(with_route(own, IPV4), IPV6);
    let lo = with_address(with_address(bare(), LO, IPV4), LO, IPV6);
    for place in [LinkPlace::Auto, LinkPlace::Dummy, LinkPlace::Lo] {
        assert_eq!(steps(place, &own, true), []);
        // An address on lo works as well as on pod-id-link0; moving it would interrupt service.
        assert_eq!(steps(place, &lo, true), []);
    }
}

#[test]
fn an_address_that_the_local_table_has_lost_is_renewed_on_whatever_link_of_ours_it_is() {
    let renew = |link, ip, scope| Action::RenewAddress { link, ip, scope };
    for (lost, kept) in [(IPV4, IPV6), (IPV6, IPV4)] {
        let lo = with_address_not_local(with_address(bare(), LO, kept), LO, lost);
        assert_eq!(steps(LinkPlace::Auto, &lo, true), [renew(LO, lost, Scope::Host)]);
        let own = with_link(bare(), OWN, "pod-id-link0", true);
        let own = with_route(with_route(with_address(own, OWN, kept), IPV4), IPV6);
        let own = with_address_not_local(own, OWN, lost);
        assert_eq!(steps(LinkPlace::Auto, &own, true), [renew(OWN, lost, Scope::Global)]);
        // Another's address is another's to mend.
        let foreign = with_address_not_local(with_address(bare(), LO, kept), ETH, lost);
        assert_eq!(steps(LinkPlace::Auto, &foreign, true), []);
    }
}

#[test]
fn a_link_that_holds_an_address_is_set_up_whichever_it_is() {
    let mut lo = with_address(with_address(bare(), LO, IPV4), LO, IPV6);
    assert_eq!(steps(LinkPlace::Auto, &lo, true), []);
    lo.links[0].is_up = false;
    assert_eq!(steps(LinkPlace::Auto, &lo, true), [Action::BringUp { link: LO }]);
}

#[test]
fn an_address_of_a_family_that_is_switched_off_is_not_taken_away() {
    let lo = with_address_not_local(with_address(bare(), LO, IPV4), LO, IPV6);
    assert_eq!(steps(LinkPlace::Auto, &Observed { is_ipv6_off: true, ..lo }, true), []);
}

#[test]
fn what_is_missing_is_added_and_nothing_else() {
    let own = with_link(bare(), OWN, "pod-id-link0", true);
    let own = with_route(with_address(own, OWN, IPV4), IPV4);
    assert_eq!(steps(LinkPlace::Auto, &own, true), [add(OWN, IPV6, Scope::Global)]);
}

#[test]
fn an_address_on_another_link_is_reported_and_left_there() {
    let node = with_address(bare(), ETH, IPV4);
    let plan = difference(&Desired::well_known(LinkPlace::Lo), &node, true);
    assert_eq!(plan.foreign, [Foreign { ip: IPV4, link: "eth0".to_owned() }]);
    assert_eq!(plan.actions, [add(LO, IPV6, Scope::Host)]);
}

#[test]
fn only_bound_well_known_addresses_are_managed() {
    let bound = ["10.0.0.7".parse().unwrap(), "127.0.0.1".parse().unwrap(), IPV4];
    assert_eq!(Desired::of_bound(LinkPlace::Auto, &bound).addresses, [IPV4]);
}

fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// The bytes of `ip link add pod-id-link0 up type dummy` (captured from iproute2 6.1), except for the zero
/// after "dummy": the kernel accepts the string with or without it. Kernels without dummy links refuse the
/// message, so on such a machine this is the only test of it.
#[test]
fn the_link_is_requested_as_by_iproute2() {
    let header = [
        0, 0, 0, 0, // family unspecified, type
        0, 0, 0, 0, // index: the kernel chooses
        1, 0, 0, 0, // IFF_UP
        1, 0, 0, 0, // of the flags, this one
    ];
    let name = [17, 0, 3, 0].iter().chain(b"pod-id-link0\0").copied().chain([0, 0, 0]).collect::<Vec<u8>>();
    let kind =
        [16, 0, 18, 0, 10, 0, 1, 0].iter().chain(b"dummy").copied().chain([0, 0, 0]).collect::<Vec<u8>>();
    assert_eq!(bytes(&create_link()), [header.to_vec(), name, kind].concat());
}

#[test]
fn addresses_are_single_hosts_and_ipv6_skips_duplicate_address_detection() {
    let ipv4 = bytes(&address(OWN, IPV4, Scope::Global));
    assert_eq!(ipv4[..8], [2, 32, 0, 0, 7, 0, 0, 0]);
    assert_eq!(bytes(&address(LO, IPV4, Scope::Host))[..8], [2, 32, 0, 254, 1, 0, 0, 0]);
    // IFA_F_NODAD is 2.
    assert_eq!(bytes(&address(OWN, IPV6, Scope::Global))[..8], [10, 128, 2, 0, 7, 0, 0, 0]);
}

#[test]
fn routes_are_in_the_main_table_and_have_no_gateway() {
    // family, lengths, tos, table main, protocol static, scope, unicast
    assert_eq!(bytes(&route(OWN, IPV4))[..8], [2, 32, 0, 0, 254, 4, 253, 1]);
    assert_eq!(bytes(&route(OWN, IPV6))[..8], [10, 128, 0, 0, 254, 4, 0, 1]);
}
