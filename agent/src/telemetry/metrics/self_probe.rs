//! Whether the agent answers on its own address.
//!
//! Owns: this one series. Must not know: how the probe is made. A family that was never probed has no series:
//! a 0 would fire an alert on a node without IPv6. A family that was probed keeps its series, whatever
//! happens to its address.

use std::net::IpAddr;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOrigin {
    from: &'static str,
    family: &'static str,
}

/// Where a probe came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbedFrom {
    /// The node's own network namespace.
    Host,
    /// A separate network namespace, as a pod has.
    Namespace,
}

/// 1 where the agent answered itself, 0 where another process or none did.
pub struct SelfProbeMetrics {
    answers: Family<ByOrigin, Gauge>,
}

impl SelfProbeMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let answers = Family::<ByOrigin, Gauge>::default();
        registry.register(
            "pod_identity_agent_self_probe",
            "1 while the agent itself answers on its address, 0 while another process or none does; absent \
             for a family that was never probed",
            answers.clone(),
        );
        Self { answers }
    }

    /// A probe to an address of this family has ended.
    pub fn probed(&self, from: ProbedFrom, to: IpAddr, is_own_answer: bool) {
        self.answers.get_or_create(&ByOrigin::new(from, to)).set(i64::from(is_own_answer));
    }

    /// The node does not have the address. If it had it before, nothing answers there any more.
    pub fn address_missing(&self, from: ProbedFrom, to: IpAddr) {
        if let Some(answers) = self.answers.get(&ByOrigin::new(from, to)) {
            answers.set(0);
        }
    }
}

impl ByOrigin {
    fn new(from: ProbedFrom, to: IpAddr) -> Self {
        let from = match from {
            ProbedFrom::Host => "host",
            ProbedFrom::Namespace => "namespace",
        };
        Self { from, family: if to.is_ipv4() { "ipv4" } else { "ipv6" } }
    }
}

#[cfg(test)]
mod tests {
    use super::ProbedFrom;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn an_address_that_goes_reads_0_and_one_that_never_was_has_no_series() {
        let metrics = Metrics::new();
        let (ipv4, ipv6) = ("127.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        metrics.self_probe.probed(ProbedFrom::Host, ipv4, true);
        metrics.self_probe.address_missing(ProbedFrom::Host, ipv4);
        metrics.self_probe.address_missing(ProbedFrom::Host, ipv6);
        metrics.self_probe.address_missing(ProbedFrom::Namespace, ipv4);
        let counts = metrics.counts();
        let series: Vec<&str> =
            counts.lines().filter(|line| line.starts_with("pod_identity_agent_self_probe")).collect();
        assert_eq!(series, ["pod_identity_agent_self_probe{from=\"host\",family=\"ipv4\"} 0"]);
    }
}
