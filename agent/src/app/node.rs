//! The node's network, wired: link and rules; the probes are in `probes`.
//!
//! Owns: which of them a configuration asks for, and what each is told. Must not know: how any does its work.

use std::io;
use std::net::IpAddr;

use tokio::sync::watch;

use super::{CredentialListener, Services};
use crate::config::{Config, LinkPlace, NodeNetwork};
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::Condition;
use crate::node::guard::{Guarded, RuleConditions, RuleKeeper, Rules};
use crate::node::link::{Desired, LinkConditions, LinkKeeper};
use crate::node::self_probe::{ProbeKey, Prober};

/// Starts what the flags ask for. Each change that one of them sees or makes has us asked anew.
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

/// Watches that the node has the addresses that are bound, and sees to it with `--manage-link`.
fn keep_link(services: &Services, config: &Config, changed: watch::Sender<u64>) {
    let manage = config.node_network.manage_link;
    let desired = Desired::of_bound(manage.unwrap_or(LinkPlace::Auto), &config.listen.hosts);
    if desired.addresses.is_empty() {
        return;
    }
    let first = config.listen.hosts.first();
    let condition = |ip: &IpAddr| {
        let name = if ip.is_ipv4() { ConditionName::AddressIpv4 } else { ConditionName::AddressIpv6 };
        let is_required = Some(ip) == first;
        (
            *ip,
            if is_required { services.readiness.condition(name) } else { services.readiness.advisory(name) },
        )
    };
    let conditions = LinkConditions {
        addresses: desired.addresses.iter().map(condition).collect(),
        link: services.readiness.advisory(ConditionName::Link),
    };
    let keeper = LinkKeeper::new(desired, manage.is_some(), conditions, changed);
    services.until_stopped("link", keeper.keep());
}

/// Keeps our nftables table as the flags say. What an earlier start has left is gone by now (`command::server`).
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
        guard: guard.map(|_| services.readiness.advisory(ConditionName::AddressGuard)),
        imds: block_imds.then(|| services.readiness.advisory(ConditionName::ImdsBlock)),
    };
    let port = config.listen.port;
    let hosts: Vec<IpAddr> = config.listen.hosts.iter().copied().filter(|host| !host.is_loopback()).collect();
    let own: Vec<(IpAddr, Condition)> = listeners
        .iter()
        .filter(|listener| listener.port == port)
        .map(|listener| (listener.host, listener.bound.clone()))
        .collect();
    let wanted = move || {
        // To the port itself where we have it: that translates nothing.
        let has_own = |host: &IpAddr| own.iter().any(|(of, bound)| of == host && bound.is_met());
        let guarded = guard.map(|guard| Guarded {
            port,
            addresses: hosts
                .iter()
                .map(|host| (*host, if has_own(host) { port } else { guard.port }))
                .collect(),
        });
        Rules { guarded, block_imds }
    };
    services.until_stopped("rules", RuleKeeper::new(wanted, conditions, changed).keep());
}
