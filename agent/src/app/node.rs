//! The node's network, wired: link, nftables rules and self-probes.
//!
//! Owns: which of these parts the configuration asks for, their conditions, and what connects them. Must not
//! know: how any of them works.

use std::io;
use std::net::IpAddr;

use tokio::sync::watch;

use super::listener_names::is_first_of_family;
use super::{CredentialListener, Services};
use crate::config::{Config, Guard, LinkPlace, NodeNetwork};
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::Condition;
use crate::node::guard::{Guarded, RuleConditions, RuleKeeper, Rules};
use crate::node::link::{Desired, LinkConditions, LinkKeeper};
use crate::node::self_probe::{ProbeKey, Prober};

/// Starts what the flags ask for. A change of the link or of the rules triggers a self-probe.
pub(super) fn start(
    services: &Services,
    config: &Config,
    listeners: &[CredentialListener],
    probe_key: ProbeKey,
    prober: Option<io::Result<Prober>>,
) {
    let (changed, changes) = watch::channel(0);
    keep_link(services, config, changed.clone());
    keep_rules(services, config, listeners, changed);
    services.start_self_probes(config, probe_key, changes, prober);
}

/// Checks that the node has the bound addresses, and adds them with `--manage-link`.
fn keep_link(services: &Services, config: &Config, changed: watch::Sender<u64>) {
    let manage = config.node_network.manage_link;
    let desired = Desired::of_bound(manage.unwrap_or(LinkPlace::Auto), &config.listen.hosts);
    if desired.addresses.is_empty() {
        return;
    }
    let addresses = desired.addresses.iter().map(|ip| (*ip, address_condition(services, config, *ip)));
    let conditions = LinkConditions {
        addresses: addresses.collect(),
        link: services.readiness.advisory(ConditionName::Link),
    };
    let keeper = LinkKeeper::new(desired, manage.is_some(), conditions, changed);
    services.until_stopped("link", keeper.keep());
}

/// Readiness waits for the first address of each family, as with the listeners. Of a family that is switched
/// off, the condition does not apply.
fn address_condition(services: &Services, config: &Config, ip: IpAddr) -> Condition {
    let name = match ip {
        IpAddr::V4(_) => ConditionName::AddressIpv4,
        IpAddr::V6(_) => ConditionName::AddressIpv6,
    };
    if is_first_of_family(config, &ip) {
        services.readiness.condition(name)
    } else {
        services.readiness.advisory(name)
    }
}

/// Keeps the agent's nftables table as the flags say. A table that an earlier start left behind and no flag
/// asks for any more is removed before this (`command::server`).
fn keep_rules(
    services: &Services,
    config: &Config,
    listeners: &[CredentialListener],
    changed: watch::Sender<u64>,
) {
    let NodeNetwork { guard, block_imds, .. } = config.node_network;
    if guard.is_none() && !block_imds {
        return;
    }
    let conditions = RuleConditions {
        guard: guard.map(|_| services.readiness.condition(ConditionName::AddressGuard)),
        imds: block_imds.then(|| services.readiness.advisory(ConditionName::ImdsBlock)),
    };
    let guard = guard.map(|guard| GuardedListeners::new(guard, config, listeners));
    let desired = move || Rules { guarded: guard.as_ref().map(GuardedListeners::rules), block_imds };
    services.until_stopped("rules", RuleKeeper::new(desired, conditions, changed).keep());
}

/// Which port each guarded address is redirected to. It depends on what is bound at the moment.
struct GuardedListeners {
    port: u16,
    guard_port: u16,
    hosts: Vec<IpAddr>,
    /// The listeners on `port` itself.
    own: Vec<(IpAddr, Condition)>,
}

impl GuardedListeners {
    fn new(guard: Guard, config: &Config, listeners: &[CredentialListener]) -> Self {
        let port = config.listen.port;
        let own = listeners.iter().filter(|listener| listener.port == port);
        Self {
            port,
            guard_port: guard.port,
            hosts: config.listen.hosts.iter().copied().filter(|host| !host.is_loopback()).collect(),
            own: own.map(|listener| (listener.host, listener.bound.clone())).collect(),
        }
    }

    fn rules(&self) -> Guarded {
        let addresses = self.hosts.iter().map(|host| (*host, self.port_of(host)));
        Guarded { port: self.port, addresses: addresses.collect() }
    }

    /// The port itself where the agent has bound it, because then nothing is translated.
    fn port_of(&self, host: &IpAddr) -> u16 {
        let is_bound = self.own.iter().any(|(own, bound)| own == host && bound.is_met());
        if is_bound { self.port } else { self.guard_port }
    }
}
