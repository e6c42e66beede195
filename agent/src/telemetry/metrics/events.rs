//! What is counted of Kubernetes Events.
//!
//! Owns: this one series. Must not know: when an Event is written.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ByOutcome;

/// What happened to an Event about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// The API server has a new one.
    Posted,
    /// It has a new count of one that it had.
    Repeated,
    /// Too many waited.
    Dropped,
    /// The API server refused it, or did not answer.
    Failed,
}

/// What is counted of Events. Each counter is made beforehand.
pub struct EventMetrics {
    posted: Counter,
    repeated: Counter,
    dropped: Counter,
    failed: Counter,
}

impl EventMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let outcomes = Family::<ByOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_events",
            "Kubernetes Events about pods that get no credentials. posted: a new one; repeated: a new count \
             of one that the cluster has; dropped: too many waited; failed: the API server refused it, as it \
             does without the right to create and patch events of events.k8s.io, or did not answer",
            outcomes.clone(),
        );
        let outcome = |outcome| outcomes.get_or_create_owned(&ByOutcome { outcome });
        Self {
            posted: outcome("posted"),
            repeated: outcome("repeated"),
            dropped: outcome("dropped"),
            failed: outcome("failed"),
        }
    }

    /// This happened to one.
    pub fn counted(&self, outcome: EventOutcome) {
        match outcome {
            EventOutcome::Posted => self.posted.inc(),
            EventOutcome::Repeated => self.repeated.inc(),
            EventOutcome::Dropped => self.dropped.inc(),
            EventOutcome::Failed => self.failed.inc(),
        };
    }
}
