//! The node's network, wired: link, nftables rules and self-probes.
//!
//! Owns: which of these parts the configuration asks for, their conditions, and what connects them. Must not
//! know: how any of them works.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::Services;
use super::listener_names::is_first_of_family;
use crate::config::{Config, LinkPlace, NodeNetwork};
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::Condition;
use crate::node::guard::{CanAnswer, Places, Switch, TableConditions, TableKeeper, TableSpec};
use crate::node::link::{Desired, LinkConditions, LinkKeeper};
use crate::node::metadata_clients::{self, CounterSpec, CountsKeeper};
use crate::node::other_agents;
use crate::node::self_probe::{ProbeKey, Prober};
use crate::pods::Pods;

/// What an agent waits for until the table leads to it: with everything else it can answer.
const FOLLOWS_THE_TABLE: [ConditionName; 3] =
    [ConditionName::AddressGuard, ConditionName::ListenerIpv4, ConditionName::ListenerIpv6];

/// The same where no other agent would answer instead: what is missing for AWS holds nothing up but an
/// update. Without the table another process on port 80 would be sent the tokens of pods, or they would be
/// refused a connection where the agent could say why it has no credentials.
const FOLLOWS_THE_TABLE_ALONE: [ConditionName; 6] = {
    let [guard, ipv4, ipv6] = FOLLOWS_THE_TABLE;
    [guard, ipv4, ipv6, ConditionName::TrialCall, ConditionName::Region, ConditionName::OwnCredentials]
};

/// Starts what the flags ask for. A change of the link or of the rules triggers a self-probe.
pub(super) fn start(
    services: &Services,
    config: &Config,
    pods: &Pods,
    places: &Places,
    switch: &Switch,
    probe_key: ProbeKey,
    prober: Option<io::Result<Prober>>,
) {
    let (changed, changes) = watch::channel(0);
    keep_link(services, config, changed.clone());
    count_metadata_clients(services, config, pods, switch);
    keep_table(services, config, places, switch, &probe_key, changed);
    services.until_stopped("other-agents", other_agents::answer_them(probe_key.clone()));
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

/// Counts which pods connect to the instance metadata service. No pod's credentials depend on it.
fn count_metadata_clients(services: &Services, config: &Config, pods: &Pods, switch: &Switch) {
    let NodeNetwork { block_imds, lasting, .. } = config.node_network;
    if !config.node_network.counts_imds() {
        // Where nothing else runs `nft`, the start has done this (`command::server`).
        if config.node_network.keeps_a_table() {
            services.beside("metadata-clients", metadata_clients::remove_leftover());
        }
        return;
    }
    let condition = services.readiness.advisory(ConditionName::ImdsCount);
    let spec = CounterSpec { mode: block_imds, lasts: lasting.block, condition };
    let keeper = CountsKeeper::new(spec, pods.clone(), switch.clone(), services.metadata_clients.clone());
    services.beside("metadata-clients", keeper.keep());
}

/// Keeps the agent's nftables table as the flags say. What an earlier start left in force and no flag asks
/// for any more is taken away before this (`command::server`).
fn keep_table(
    services: &Services,
    config: &Config,
    places: &Places,
    switch: &Switch,
    probe_key: &ProbeKey,
    changed: watch::Sender<u64>,
) {
    let NodeNetwork { guard, lasting, .. } = config.node_network;
    let block_imds = config.node_network.blocks_imds();
    if !config.node_network.keeps_a_table() {
        return;
    }
    let spec = TableSpec {
        port: config.listen.port,
        guards: guard.is_some(),
        block_imds,
        lasting,
        state_dir: config.state_dir.clone(),
        conditions: TableConditions {
            guard: guard.map(|_| services.readiness.condition(ConditionName::AddressGuard)),
            imds: block_imds.then(|| services.readiness.advisory(ConditionName::ImdsBlock)),
        },
    };
    let (readiness, alone) = (services.readiness.clone(), services.readiness.clone());
    let can_answer = CanAnswer {
        beside_others: Arc::new(move || readiness.is_ready_but_for(&FOLLOWS_THE_TABLE)),
        alone: Arc::new(move || alone.is_ready_but_for(&FOLLOWS_THE_TABLE_ALONE)),
    };
    let keeper =
        TableKeeper::new(spec, places.clone(), can_answer, probe_key.clone(), switch.clone(), changed);
    services.until_stopped("table", keeper.keep());
}
