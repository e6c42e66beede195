//! What the checks of callers against the cluster's pods count.
//!
//! Owns: this one series. Must not know: how a check is made, or what follows.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ByOutcome;

/// Where a caller is, by what the cluster says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPresence {
    /// Where its pod is.
    Confirmed,
    /// Nothing is known.
    Unknown,
    /// Its pod is gone.
    Gone,
    /// Its pod has not been reported.
    NotSeen,
    /// Its pod is on another node.
    Elsewhere,
    /// Its pod has another address.
    OtherAddress,
}

/// What the checks count. Each counter is made beforehand.
pub struct PodCheckMetrics {
    confirmed: Counter,
    unknown: Counter,
    gone: Counter,
    not_seen: Counter,
    elsewhere: Counter,
    other_address: Counter,
}

impl PodCheckMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let outcomes = Family::<ByOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_pod_checks",
            "Requests, by what the cluster says of their pod. confirmed: it is of this node and calls from \
             its own address; unknown: nothing is known of it; gone: it was deleted; not_seen: it has not been \
             reported as a pod of this node; elsewhere: it is on another node; other_address: it has another \
             address. All but gone are refused only where the check enforces",
            outcomes.clone(),
        );
        let outcome = |outcome| outcomes.get_or_create_owned(&ByOutcome { outcome });
        Self {
            confirmed: outcome("confirmed"),
            unknown: outcome("unknown"),
            gone: outcome("gone"),
            not_seen: outcome("not_seen"),
            elsewhere: outcome("elsewhere"),
            other_address: outcome("other_address"),
        }
    }

    /// A caller was judged.
    pub fn judged(&self, presence: PodPresence) {
        match presence {
            PodPresence::Confirmed => self.confirmed.inc(),
            PodPresence::Unknown => self.unknown.inc(),
            PodPresence::Gone => self.gone.inc(),
            PodPresence::NotSeen => self.not_seen.inc(),
            PodPresence::Elsewhere => self.elsewhere.inc(),
            PodPresence::OtherAddress => self.other_address.inc(),
        };
    }
}
