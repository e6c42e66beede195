//! What is in force in the table, and the transactions that change it. Pure.
//!
//! Owns: elements, how long each lasts, and that no transaction overwrites what somebody else wrote
//! meanwhile. Must not know: when one is wanted.
//!
//! Every transaction but the first begins with deleting the epoch that was read: where somebody was faster,
//! that fails, and with it all of the transaction (measured, docs/design/facts.md#nftables).

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use super::table::{IPV4, IPV6, Maps, OWNER, TABLE, definition, removal};
use crate::config::Lasting;
use crate::workload::INSTANCE_METADATA;

/// The port of a connection that is to be refused. Nobody listens there (tcpmux, RFC 7805 made it historic),
/// and nobody but root could: the guard ports are anybody's on the node once the agent is dead.
const NOWHERE: u16 = 1;

/// Which writer wrote the table last, counted up with each change of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(pub(super) u32);

impl Epoch {
    /// Of a table that is made anew. Not always the same: its last owner must not take it for its own.
    pub(super) fn any() -> Self {
        let mut bytes = [0; 4];
        // Without random numbers there is no TLS, and so no agent.
        let _filled = getrandom::fill(&mut bytes);
        Self(u32::from_ne_bytes(bytes))
    }

    /// Of the agent that takes over from the owner with this one.
    pub(super) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// From the two numbers that nft lists.
    pub(super) const fn of_halves(high: u16, low: u16) -> Self {
        Self((high as u32) << 16 | low as u32)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// Where connections to the SDKs' port of one address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    /// One of the agent's addresses.
    pub(super) address: IpAddr,
    /// The port that the agent listens on there. `None`: nowhere yet, or the SDKs' port itself.
    pub(super) to: Option<u16>,
    /// A process that is no agent has the port of SDKs on every address, and so on this one. It must not
    /// receive a token even when the agent is dead: then connections go to where nobody listens, for as
    /// long as `to_self` lasts.
    pub(super) is_foreign: bool,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// The port that SDKs use.
    pub(super) port: u16,
    /// The guarded addresses; none: nothing is guarded.
    pub(super) leads: Vec<Lead>,
    /// Whether pods are kept from the instance metadata service.
    pub(super) block_imds: bool,
}

/// The table where there is none. Fails where there is one.
pub(super) fn creation(epoch: Epoch, rules: &Rules, lasting: Lasting) -> String {
    definition("create") + &in_force(rules, lasting, epoch)
}

/// The whole table, instead of the one with the epoch `read`. Open connections keep their translation: the
/// kernel has never a moment without rules.
pub(super) fn replacement(read: Option<Epoch>, epoch: Epoch, rules: &Rules, lasting: Lasting) -> String {
    let delete_epoch = read.map(delete_owner).unwrap_or_default();
    delete_epoch + &removal() + &definition("add") + &in_force(rules, lasting, epoch)
}

/// Other elements, or the same for longer. `delete element` + `add element` would fail for ever once an
/// element has lapsed, so the maps are flushed.
pub(super) fn renewal(own: Epoch, rules: &Rules, lasting: Lasting) -> String {
    delete_owner(own) + &flush() + &in_force(rules, lasting, own)
}

/// Nothing is in force any more, no matter who wrote it.
pub(super) fn flush() -> String {
    let mut text = String::new();
    for Maps { to_guard, to_self, blocked } in [IPV4, IPV6] {
        for (kind, name) in [("map", to_guard), ("map", to_self), ("set", blocked)] {
            line(&mut text, format_args!("flush {kind} inet {TABLE} {name}"));
        }
    }
    text
}

fn delete_owner(epoch: Epoch) -> String {
    format!("delete element inet {TABLE} {OWNER} {{ {epoch} }}\n")
}

fn in_force(rules: &Rules, lasting: Lasting, epoch: Epoch) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("add element inet {TABLE} {OWNER} {{ {epoch} }}"));
    for Lead { address, to, is_foreign } in &rules.leads {
        let Maps { to_guard, to_self, .. } = maps_of(*address);
        let mut add = |map: &str, lasts: Duration, to: u16| {
            let (seconds, port) = (lasts.as_secs().max(1), rules.port);
            line(
                &mut text,
                format_args!(
                    "add element inet {TABLE} {map} \
                     {{ {address} . {port} timeout {seconds}s : {address} . {to} }}"
                ),
            );
        };
        if let Some(to) = to.filter(|to| *to != rules.port) {
            add(to_guard, lasting.to_guard, to);
        }
        add(to_self, lasting.to_self, if *is_foreign { NOWHERE } else { rules.port });
    }
    for address in INSTANCE_METADATA.into_iter().filter(|_| rules.block_imds) {
        let blocked = maps_of(address).blocked;
        let timeout = match lasting.block.as_secs() {
            0 => String::new(),
            seconds => format!(" timeout {seconds}s"),
        };
        line(&mut text, format_args!("add element inet {TABLE} {blocked} {{ {address}{timeout} }}"));
    }
    text
}

const fn maps_of(address: IpAddr) -> Maps {
    match address {
        IpAddr::V4(_) => IPV4,
        IpAddr::V6(_) => IPV6,
    }
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _written = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::{Epoch, Lasting, Lead, Rules, creation, renewal, replacement};
    use crate::workload::WELL_KNOWN;

    const LASTING: Lasting = Lasting {
        to_guard: Duration::from_secs(120),
        to_self: Duration::from_secs(86_400),
        block: Duration::from_secs(1_800),
    };

    fn lead(address: IpAddr, to: Option<u16>, is_foreign: bool) -> Lead {
        Lead { address, to, is_foreign }
    }

    fn rules() -> Rules {
        let leads = vec![lead(WELL_KNOWN[0], Some(2707), false), lead(WELL_KNOWN[1], Some(80), false)];
        Rules { port: 80, leads, block_imds: true }
    }

    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| line.contains("element") || line.starts_with("flush")).collect()
    }

    #[test]
    fn an_address_leads_to_the_guards_port_and_behind_that_to_itself() {
        let text = creation(Epoch(1), &rules(), LASTING);
        assert!(text.starts_with("create table inet pod_identity_agent\n"));
        assert_eq!(
            lines(&text),
            [
                "add element inet pod_identity_agent owner { 0 . 1 }",
                "add element inet pod_identity_agent to_guard_ipv4 \
                 { 169.254.170.23 . 80 timeout 120s : 169.254.170.23 . 2707 }",
                "add element inet pod_identity_agent to_self_ipv4 \
                 { 169.254.170.23 . 80 timeout 86400s : 169.254.170.23 . 80 }",
                "add element inet pod_identity_agent to_self_ipv6 \
                 { fd00:ec2::23 . 80 timeout 86400s : fd00:ec2::23 . 80 }",
                "add element inet pod_identity_agent blocked_ipv4 { 169.254.169.254 timeout 1800s }",
                "add element inet pod_identity_agent blocked_ipv6 { fd00:ec2::254 timeout 1800s }",
            ]
        );
    }

    #[test]
    fn beside_a_foreign_process_on_port_80_a_dead_agent_means_refused() {
        let rules = Rules { port: 80, leads: vec![lead(WELL_KNOWN[0], Some(2707), true)], block_imds: false };
        let text = creation(Epoch(1), &rules, LASTING);
        // The guard port is anybody's then, and not for a day.
        let to_guard = "to_guard_ipv4 { 169.254.170.23 . 80 timeout 120s : 169.254.170.23 . 2707 }";
        let to_nowhere = "to_self_ipv4 { 169.254.170.23 . 80 timeout 86400s : 169.254.170.23 . 1 }";
        assert!(text.contains(to_guard) && text.contains(to_nowhere), "{text}");
    }

    #[test]
    fn an_address_without_a_listener_leads_to_itself_alone() {
        let rules = Rules { port: 80, leads: vec![lead(WELL_KNOWN[0], None, false)], block_imds: false };
        let text = creation(Epoch(1), &rules, Lasting { block: Duration::ZERO, ..LASTING });
        assert_eq!(lines(&text).len(), 2, "{text}");
        let forever = Rules { block_imds: true, ..rules };
        let text = creation(Epoch(1), &forever, Lasting { block: Duration::ZERO, ..LASTING });
        assert!(text.contains("blocked_ipv4 { 169.254.169.254 }"), "{text}");
    }

    #[test]
    fn whoever_writes_first_deletes_the_epoch_that_was_read() {
        let read = Epoch(7);
        let taken = replacement(Some(read), read.next(), &rules(), LASTING);
        assert!(taken.starts_with("delete element inet pod_identity_agent owner { 0 . 7 }\n"), "{taken}");
        assert!(taken.contains("owner { 0 . 8 }"));
        let renewed = renewal(read, &rules(), LASTING);
        assert!(renewed.starts_with("delete element inet pod_identity_agent owner { 0 . 7 }\nflush map"));
        assert!(renewed.contains("add element inet pod_identity_agent owner { 0 . 7 }"));
        assert_eq!(renewed.matches("flush ").count(), 6);
        assert!(!renewed.contains("table inet pod_identity_agent {"), "a renewal touches elements only");
        // Without an epoch nobody owns it.
        assert!(replacement(None, read, &rules(), LASTING).starts_with("add table"));
        assert_eq!(Epoch(u32::MAX).next(), Epoch(0));
        assert_eq!(
            (Epoch::of_halves(2, 3).to_string(), Epoch::of_halves(2, 3)),
            ("2 . 3".to_owned(), Epoch(131_075))
        );
    }
}
