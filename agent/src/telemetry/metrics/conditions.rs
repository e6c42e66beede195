//! The conditions of `/readyz` as a series, so that alerts need no probe.
//!
//! Owns: its name and label. Must not know: what any condition means.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::lifecycle::readiness::Report;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCondition {
    condition: &'static str,
}

/// Every condition: 1 while it is met.
pub(super) struct Conditions(Family<ByCondition, Gauge>);

impl Conditions {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let conditions = Family::<ByCondition, Gauge>::default();
        registry.register(
            "pod_identity_agent_condition",
            "Conditions as /readyz shows them, with their reasons; 1 while met",
            conditions.clone(),
        );
        Self(conditions)
    }

    pub(super) fn set(&self, reports: &[Report]) {
        for report in reports {
            let label = ByCondition { condition: report.name.as_str() };
            self.0.get_or_create_owned(&label).set(i64::from(report.met));
        }
    }
}
