//! The table, as `nft` reads it. Pure.
//!
//! Owns: sets, maps, chains and rules. Must not know: which elements are in force, and how they get into the
//! kernel.
//!
//! The table is always the same text; what is in force are the elements of its maps and sets. So who changes
//! the port that an address leads to touches elements only: open connections keep their translation, which
//! they lose with the last rule of the node's last NAT table (docs/design/facts.md#nftables).

/// The name of the agent's table, in the family `inet`.
pub(super) const TABLE: &str = "pod_identity_agent";
/// The set with one element: the epoch of the table's owner, as two numbers of 16 bits. Of ports nft always
/// lists the number; most other types may have names on a node, in a file of iproute2.
pub(super) const OWNER: &str = "owner";

/// The maps of one family, in the order in which they are asked.
pub(super) struct Maps {
    /// Port 80 of an address to the port that the agent listens on meanwhile.
    pub(super) to_guard: &'static str,
    /// Port 80 of an address to itself: nothing is translated, and no later rule applies.
    pub(super) to_self: &'static str,
    /// Addresses of the instance metadata service that pods are kept from.
    pub(super) blocked: &'static str,
}

/// Those of IPv4.
pub(super) const IPV4: Maps =
    Maps { to_guard: "to_guard_ipv4", to_self: "to_self_ipv4", blocked: "blocked_ipv4" };
/// Those of IPv6.
pub(super) const IPV6: Maps =
    Maps { to_guard: "to_guard_ipv6", to_self: "to_self_ipv6", blocked: "blocked_ipv6" };

/// Everything inside the table but its elements.
///
/// Priority -110 is before portmap and kube-proxy, which do destination NAT at -100 (`dstnat`): the first NAT
/// rule that matches a connection decides (measured with all three of portmap's variants). What no element
/// matches goes on to them. Priority -10 is before the filters of policy engines at 0, which may accept
/// packets to the metadata service for reasons of their own.
///
/// Only packets from pods with their own network are forwarded: those of the host, and of pods that use host
/// networking, do not pass the hook of the last chain. They are rejected, not dropped: an SDK without
/// credentials must fail at once instead of waiting for a timeout.
const CONTENT: &str = "
set owner { type inet_service . inet_service; }
map to_guard_ipv4 { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags timeout; }
map to_self_ipv4 { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags timeout; }
map to_guard_ipv6 { type ipv6_addr . inet_service : ipv6_addr . inet_service; flags timeout; }
map to_self_ipv6 { type ipv6_addr . inet_service : ipv6_addr . inet_service; flags timeout; }
set blocked_ipv4 { type ipv4_addr; flags timeout; }
set blocked_ipv6 { type ipv6_addr; flags timeout; }
chain prerouting {
    type nat hook prerouting priority -110; policy accept;
    dnat ip to ip daddr . tcp dport map @to_guard_ipv4
    dnat ip to ip daddr . tcp dport map @to_self_ipv4
    dnat ip6 to ip6 daddr . tcp dport map @to_guard_ipv6
    dnat ip6 to ip6 daddr . tcp dport map @to_self_ipv6
}
chain output {
    type nat hook output priority -110; policy accept;
    dnat ip to ip daddr . tcp dport map @to_guard_ipv4
    dnat ip to ip daddr . tcp dport map @to_self_ipv4
    dnat ip6 to ip6 daddr . tcp dport map @to_guard_ipv6
    dnat ip6 to ip6 daddr . tcp dport map @to_self_ipv6
}
chain forward {
    type filter hook forward priority -10; policy accept;
    ip daddr @blocked_ipv4 meta l4proto tcp reject with tcp reset
    ip daddr @blocked_ipv4 reject with icmpx type admin-prohibited
    ip6 daddr @blocked_ipv6 meta l4proto tcp reject with tcp reset
    ip6 daddr @blocked_ipv6 reject with icmpx type admin-prohibited
}
";

/// Makes the table, after the command `verb`: `create` fails where there is one already, `add` does not.
pub(super) fn definition(verb: &str) -> String {
    format!("{verb} table inet {TABLE}\ntable inet {TABLE} {{{CONTENT}}}\n")
}

/// Deletes the table, whether or not there is one: deleting one that does not exist would fail the
/// transaction, so it is added first.
pub(super) fn removal() -> String {
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}
