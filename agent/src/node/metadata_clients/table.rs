//! The table that counts, as `nft` reads it. Pure.
//!
//! Owns: its text, and the transactions that change it. Must not know: when one is wanted.
//!
//! The table is always the same text, and what is in force are elements, as with the guard's table. No rule
//! has a verdict, so that no packet is touched; none asks for the state of a connection, because that would
//! have the kernel track the connections of a node that tracks none.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::ImdsBlock;
use crate::workload::INSTANCE_METADATA;

/// The name of the table, in the family `inet`.
pub(super) const TABLE: &str = "pod_identity_agent_imds";
/// A chain without rules, which says which text the table is of: nft lists rules in its own wording, which
/// differs between versions. Another text, another name.
pub(super) const VERSION: &str = "version_1";
/// The chains that count, each with a rule for each family.
pub(super) const CHAINS: [&str; 2] = ["passing", "blocking"];
/// The counter of connections that go on to the service.
pub(super) const PASSED: &str = "passed";
/// The counter of connections that come to the block.
pub(super) const BLOCKED: &str = "blocked";
/// The sets of addresses that connected.
pub(super) const CLIENTS: [&str; 2] = ["clients_ipv4", "clients_ipv6"];
/// The sets of addresses of the service, by the chain that looks there, and by family.
pub(super) const SERVICE: [[&str; 2]; 2] =
    [["passing_ipv4", "passing_ipv6"], ["blocking_ipv4", "blocking_ipv6"]];
/// So many clients of a family are known at once: a node of EC2 has 737 pods at most. When a set is full, the
/// rule ends there, and the packet goes on (measured). A pod that makes up senders fills the set and no more.
pub(super) const MOST_CLIENTS: usize = 1_024;

/// Everything inside the table but its elements.
///
/// A SYN alone begins a connection. What is forwarded comes from pods with their own network; the host and
/// pods on its network do not pass this hook, and neither do connections that another agent of the node (such
/// as kube2iam) has redirected to itself. Priority 300 is after the filters of policy engines: what they drop
/// does not reach the service, and counted it would be no evidence. Priority -20 is before the block, at -10.
///
/// 169.254.170.21 and fd00:ec2::21 are the agent's own probe from a pod's network (`veth_pair`).
const CONTENT: &str = "
counter passed { }
counter blocked { }
set passing_ipv4 { type ipv4_addr; flags timeout; }
set passing_ipv6 { type ipv6_addr; flags timeout; }
set blocking_ipv4 { type ipv4_addr; flags timeout; }
set blocking_ipv6 { type ipv6_addr; flags timeout; }
set clients_ipv4 { type ipv4_addr; flags dynamic,timeout; size 1024; timeout 1d; }
set clients_ipv6 { type ipv6_addr; flags dynamic,timeout; size 1024; timeout 1d; }
chain version_1 { }
chain passing {
    type filter hook forward priority 300; policy accept;
    ip daddr @passing_ipv4 ip saddr != 169.254.170.21 tcp flags & (fin | syn | rst | ack) == syn \
counter name passed update @clients_ipv4 { ip saddr counter }
    ip6 daddr @passing_ipv6 ip6 saddr != fd00:ec2::21 tcp flags & (fin | syn | rst | ack) == syn \
counter name passed update @clients_ipv6 { ip6 saddr counter }
}
chain blocking {
    type filter hook forward priority -20; policy accept;
    ip daddr @blocking_ipv4 ip saddr != 169.254.170.21 tcp flags & (fin | syn | rst | ack) == syn \
counter name blocked update @clients_ipv4 { ip saddr counter }
    ip6 daddr @blocking_ipv6 ip6 saddr != fd00:ec2::21 tcp flags & (fin | syn | rst | ack) == syn \
counter name blocked update @clients_ipv6 { ip6 saddr counter }
}
";

/// The table where there is none. Fails where there is one: another agent was faster.
pub(super) fn creation(mode: ImdsBlock, lasts: Duration) -> String {
    format!("create table inet {TABLE}\ntable inet {TABLE} {{{CONTENT}}}\n{}", in_force(mode, lasts))
}

/// The table instead of one that is not whole, or of another text. Its counts are lost.
pub(super) fn replacement(mode: ImdsBlock, lasts: Duration) -> String {
    removal() + &creation(mode, lasts)
}

/// The same elements for longer, or others. The counts stay.
pub(super) fn renewal(mode: ImdsBlock, lasts: Duration) -> String {
    let mut text = String::new();
    for set in SERVICE.iter().flatten() {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "flush set inet {TABLE} {set}");
    }
    text + &in_force(mode, lasts)
}

/// Deletes the table, whether or not there is one: deleting one that does not exist would fail the
/// transaction, so it is added first.
pub(super) fn removal() -> String {
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The sets that the addresses of the service are in, of IPv4 and IPv6.
pub(super) const fn sets_of(mode: ImdsBlock) -> Option<[&'static str; 2]> {
    let [passing, blocking] = SERVICE;
    match mode {
        ImdsBlock::Off => None,
        ImdsBlock::Observe => Some(passing),
        ImdsBlock::On => Some(blocking),
    }
}

fn in_force(mode: ImdsBlock, lasts: Duration) -> String {
    let timeout = match lasts.as_secs() {
        0 => String::new(),
        seconds => format!(" timeout {seconds}s"),
    };
    let [ipv4, ipv6] = match sets_of(mode) {
        Some(sets) => sets,
        None => return String::new(),
    };
    let mut text = String::new();
    for address in INSTANCE_METADATA {
        let set = match address {
            IpAddr::V4(_) => ipv4,
            IpAddr::V6(_) => ipv6,
        };
        let _written = writeln!(text, "add element inet {TABLE} {set} {{ {address}{timeout} }}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CHAINS, CLIENTS, CONTENT, MOST_CLIENTS, SERVICE, VERSION, creation, renewal, replacement};
    use crate::config::ImdsBlock;
    use crate::node::link::veth_pair::{POD_IPV4, POD_IPV6};

    const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

    fn elements(text: &str) -> Vec<&str> {
        text.lines().filter(|line| line.starts_with("add element")).collect()
    }

    #[test]
    fn each_mode_has_its_own_sets_in_force() {
        assert_eq!(
            elements(&creation(ImdsBlock::Observe, HALF_AN_HOUR)),
            [
                "add element inet pod_identity_agent_imds passing_ipv4 { 169.254.169.254 timeout 1800s }",
                "add element inet pod_identity_agent_imds passing_ipv6 { fd00:ec2::254 timeout 1800s }",
            ]
        );
        let on = renewal(ImdsBlock::On, Duration::ZERO);
        assert_eq!(
            elements(&on),
            [
                "add element inet pod_identity_agent_imds blocking_ipv4 { 169.254.169.254 }",
                "add element inet pod_identity_agent_imds blocking_ipv6 { fd00:ec2::254 }",
            ]
        );
        assert_eq!(on.matches("flush set").count(), 4, "what the other mode had in force ends");
        assert!(!on.contains("clients"), "a renewal leaves the counts alone: {on}");
        assert!(elements(&creation(ImdsBlock::Off, HALF_AN_HOUR)).is_empty());
    }

    #[test]
    fn only_a_replacement_deletes() {
        assert!(creation(ImdsBlock::On, HALF_AN_HOUR).starts_with("create table inet"));
        assert!(!creation(ImdsBlock::On, HALF_AN_HOUR).contains("delete"));
        assert!(
            replacement(ImdsBlock::On, HALF_AN_HOUR).contains("delete table inet pod_identity_agent_imds")
        );
    }

    #[test]
    fn the_text_has_what_others_read_of_it() {
        for set in SERVICE.iter().flatten().chain(&CLIENTS) {
            assert!(CONTENT.contains(&format!("set {set} {{")), "{set}");
        }
        for chain in CHAINS.iter().chain([&VERSION]) {
            assert!(CONTENT.contains(&format!("chain {chain} {{")), "{chain}");
        }
        assert_eq!(CONTENT.matches(&format!("size {MOST_CLIENTS};")).count(), 2);
        for probe in [POD_IPV4.to_string(), POD_IPV6.to_string()] {
            assert_eq!(CONTENT.matches(&format!("saddr != {probe} ")).count(), 2, "{probe} is no pod");
        }
        for verdict in [" accept\n", "drop", "reject", "ct state"] {
            assert!(!CONTENT.contains(verdict), "it touches nothing, and has nothing tracked: {verdict}");
        }
    }
}
