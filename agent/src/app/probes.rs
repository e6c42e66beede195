//! The probes of ourselves, wired: from the host always, from where a pod stands if it is asked for.
//!
//! Owns: what is asked, and which condition hears of it. Must not know: how it is asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::Services;
use crate::config::Config;
use crate::lifecycle::condition_name::ConditionName;
use crate::node::self_probe::{HostProbe, HostProbeSpec, PodProbe, PodProbeSpec, ProbeKey, Prober};
use crate::workload::INSTANCE_METADATA;

impl Services {
    /// Asks ourselves on each address that is bound, and tells whether somebody else answers.
    pub(super) fn start_self_probes(
        &self,
        config: &Config,
        probe_key: ProbeKey,
        changes: watch::Receiver<u64>,
        prober: Option<io::Result<Prober>>,
    ) {
        // Nobody, pods included, knows a port that the kernel chose.
        if config.listen.port == 0 {
            return;
        }
        let hosts = config.listen.hosts.iter();
        let targets: Vec<_> = hosts.map(|host| SocketAddr::new(*host, config.listen.port)).collect();
        if let Some(prober) = prober {
            let blocks = config.node_network.block_imds;
            let spec = PodProbeSpec {
                // Loopback is a pod's own.
                targets: targets.iter().filter(|target| !target.ip().is_loopback()).copied().collect(),
                blocked: if blocks { metadata() } else { Vec::new() },
                condition: self.readiness.advisory(ConditionName::SelfProbeFromPod),
                imds_blocked: blocks.then(|| self.readiness.advisory(ConditionName::ImdsOutOfReach)),
                metrics: Arc::clone(&self.metrics.self_probe),
            };
            let probe = PodProbe::new(spec, probe_key.clone(), changes.clone());
            // Not essential: it ends when its helper does.
            let shutdown = self.shutdown.clone();
            self.tasks.spawn("probe-from-pod", async move {
                tokio::select! {
                    () = probe.keep(prober) => {}
                    () = shutdown.wait_for_stopped() => {}
                }
            });
        }
        let spec = HostProbeSpec {
            targets,
            condition: self.readiness.advisory(ConditionName::SelfProbe),
            metrics: Arc::clone(&self.metrics.self_probe),
        };
        self.until_stopped("self-probe", HostProbe::new(spec, probe_key, changes).keep());
    }
}

fn metadata() -> Vec<SocketAddr> {
    INSTANCE_METADATA.iter().map(|ip| SocketAddr::new(*ip, 80)).collect()
}
