//! Whether the agent answers on its own address.
//!
//! Owns: this one series. Must not know: how it is asked. A family that was never asked has no series: a 0 would call
//! somebody at night for a node without IPv6.

use std::net::IpAddr;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByWay {
    from: &'static str,
    family: &'static str,
}

/// Where the question came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbedFrom {
    /// The node's own network namespace.
    Host,
    /// A network namespace of its own, as a pod's.
    Namespace,
}

/// 1 where the agent answered itself, 0 where somebody else or nobody did.
pub struct SelfProbeMetrics {
    ours: Family<ByWay, Gauge>,
}

impl SelfProbeMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let ours = Family::<ByWay, Gauge>::default();
        registry.register(
            "pod_identity_agent_self_probe",
            "1 where the agent itself answers on its addresses, 0 where somebody else or nobody does",
            ours.clone(),
        );
        Self { ours }
    }

    /// A probe to an address of this family has ended.
    pub fn probed(&self, from: ProbedFrom, to: IpAddr, is_ours: bool) {
        let from = match from {
            ProbedFrom::Host => "host",
            ProbedFrom::Namespace => "namespace",
        };
        let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
        self.ours.get_or_create(&ByWay { from, family }).set(i64::from(is_ours));
    }
}
