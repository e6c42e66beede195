//! The self-probes, wired: from the host always, from a pod's network if the configuration asks for it.
//!
//! Owns: what is probed, and which condition shows the outcome. Must not know: how a probe works.

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
    /// Probes each bound address, and reports whether this agent or another process answers there.
    pub(super) fn start_self_probes(
        &self,
        config: &Config,
        probe_key: ProbeKey,
        changes: watch::Receiver<u64>,
        prober: Option<io::Result<Prober>>,
    ) {
        // No pod uses a port that the kernel chose.
        if config.listen.port == 0 {
            return;
        }
        let hosts = config.listen.hosts.iter();
        let targets: Vec<_> = hosts.map(|host| SocketAddr::new(*host, config.listen.port)).collect();
        if let Some(prober) = prober {
            let spec = self.pod_probe_spec(&targets, config.node_network.blocks_imds());
            self.start_pod_probe(PodProbe::new(spec, probe_key.clone(), changes.clone()), prober);
        }
        let spec = HostProbeSpec {
            targets,
            condition: self.readiness.advisory(ConditionName::SelfProbe),
            metrics: Arc::clone(&self.metrics.self_probe),
        };
        self.until_stopped("self-probe", HostProbe::new(spec, probe_key, changes).keep());
    }

    fn pod_probe_spec(&self, targets: &[SocketAddr], block_imds: bool) -> PodProbeSpec {
        PodProbeSpec {
            // In a pod, loopback is the pod itself.
            targets: targets.iter().filter(|target| !target.ip().is_loopback()).copied().collect(),
            blocked: if block_imds { metadata_addresses() } else { Vec::new() },
            condition: self.readiness.advisory(ConditionName::SelfProbeFromPod),
            imds_blocked: block_imds.then(|| self.readiness.advisory(ConditionName::ImdsOutOfReach)),
            metrics: Arc::clone(&self.metrics.self_probe),
        }
    }

    /// Not an essential task: it ends when its helper process does.
    fn start_pod_probe(&self, probe: PodProbe, prober: io::Result<Prober>) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn("probe-from-pod", async move {
            tokio::select! {
                () = probe.keep(prober) => {}
                () = shutdown.wait_for_stopped() => {}
            }
        });
    }
}

fn metadata_addresses() -> Vec<SocketAddr> {
    INSTANCE_METADATA.iter().map(|ip| SocketAddr::new(*ip, 80)).collect()
}
