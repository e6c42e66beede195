//! The names of the conditions and tasks of credential listeners: a closed set, whatever addresses are bound.
//!
//! Owns: which listener has which name. Must not know: how one is served.

use std::net::IpAddr;

use crate::config::Config;
use crate::lifecycle::condition_name::ConditionName;

/// Names for conditions and tasks: a closed set, whatever addresses are bound.
#[derive(Default)]
pub(super) struct ListenerNames {
    ipv4: usize,
    ipv6: usize,
}

impl ListenerNames {
    /// The first address of a family has a name for each kind of port, further ones go by number.
    pub(super) fn next(&mut self, config: &Config, host: IpAddr, port: u16) -> ConditionName {
        if !is_first_of_family(config, &host) {
            return self.further(host);
        }
        let is_guards = config.node_network.guard.map(|guard| guard.port == port);
        match (is_guards, host) {
            (None, IpAddr::V4(_)) => ConditionName::ListenerIpv4,
            (None, IpAddr::V6(_)) => ConditionName::ListenerIpv6,
            (Some(true), IpAddr::V4(_)) => ConditionName::ListenerIpv4Guard,
            (Some(true), IpAddr::V6(_)) => ConditionName::ListenerIpv6Guard,
            (Some(false), IpAddr::V4(_)) => ConditionName::ListenerIpv4Own,
            (Some(false), IpAddr::V6(_)) => ConditionName::ListenerIpv6Own,
        }
    }

    fn further(&mut self, host: IpAddr) -> ConditionName {
        const IPV4: [ConditionName; 3] = [
            ConditionName::ListenerIpv4Second,
            ConditionName::ListenerIpv4Third,
            ConditionName::ListenerIpv4Fourth,
        ];
        const IPV6: [ConditionName; 3] = [
            ConditionName::ListenerIpv6Second,
            ConditionName::ListenerIpv6Third,
            ConditionName::ListenerIpv6Fourth,
        ];
        let (names, count) = if host.is_ipv4() { (IPV4, &mut self.ipv4) } else { (IPV6, &mut self.ipv6) };
        let name = names.get(*count).copied().unwrap_or(ConditionName::ListenerOther);
        *count += 1;
        name
    }
}

/// Whether this is the first of the bound addresses of its family.
pub(super) fn is_first_of_family(config: &Config, ip: &IpAddr) -> bool {
    config.listen.hosts.iter().find(|host| host.is_ipv4() == ip.is_ipv4()) == Some(ip)
}
