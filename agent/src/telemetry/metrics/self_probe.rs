//! Whether the agent answers on its own address.
//!
//! Owns: this one series. Must not know: how the probe is made. A family that the node does not have has no
//! series: a 0 would fire an alert on a healthy node without IPv6. Any other keeps its series, whatever
//! happens to its address: an alert about a series that vanishes does not fire.

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
            "1 while the agent itself answers on its address, 0 while another process or none does, or the \
             node has lost the address, or the probe has ended or had no outcome three times in a row; \
             absent for a family that the node does not have, or where the probe never had an outcome",
            answers.clone(),
        );
        Self { answers }
    }

    /// A probe to an address of this family has ended.
    pub fn probed(&self, from: ProbedFrom, to: IpAddr, is_own_answer: bool) {
        self.answers.get_or_create(&ByOrigin::new(from, to)).set(i64::from(is_own_answer));
    }

    /// Nobody probes from there any more, or none of the last probes had an outcome. What was found last must
    /// not stand for ever: a series that there is becomes 0.
    pub fn ended(&self, from: ProbedFrom, to: IpAddr) {
        if let Some(answers) = self.answers.get(&ByOrigin::new(from, to)) {
            answers.set(0);
        }
    }

    /// The node does not have this family: nothing can ask there.
    pub fn family_off(&self, from: ProbedFrom, to: IpAddr) {
        self.answers.remove(&ByOrigin::new(from, to));
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
    fn a_family_that_the_node_does_not_have_has_no_series() {
        let metrics = Metrics::new();
        let (ipv4, ipv6) = ("127.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        metrics.self_probe.probed(ProbedFrom::Host, ipv4, false);
        metrics.self_probe.probed(ProbedFrom::Host, ipv6, true);
        metrics.self_probe.family_off(ProbedFrom::Host, ipv6);
        metrics.self_probe.family_off(ProbedFrom::Namespace, ipv6);
        let counts = metrics.counts();
        let series: Vec<&str> =
            counts.lines().filter(|line| line.starts_with("pod_identity_agent_self_probe")).collect();
        assert_eq!(series, ["pod_identity_agent_self_probe{from=\"host\",family=\"ipv4\"} 0"]);
    }
}
