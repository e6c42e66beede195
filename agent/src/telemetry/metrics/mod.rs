//! What is counted, and the page that Prometheus reads.
//!
//! Owns: with the files of its folder, names, labels and help of every series; the crate `prometheus_client` is named nowhere
//! else. Must not know: what the numbers are used for. Labels are closed sets: never a pod, a token, an account or an error's
//! text.
//!
//! Amazon's three series keep their exact names beside ours, so that its dashboards keep working.

use std::fmt::Write as _;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::lifecycle::readiness::Report;
use conditions::Conditions;
use gauges::Gauges;

mod authentication;
mod conditions;
mod gauges;
mod plain_counter;
mod requests;
mod self_probe;
mod upstream;

pub use authentication::{Authenticated, AuthenticationMetrics};
pub use gauges::{BudgetNumbers, Snapshot};
pub use requests::{Outcome, RequestMetrics};
pub use self_probe::{ProbedFrom, SelfProbeMetrics};
pub use upstream::{CallOutcome, UpstreamMetrics};

/// The label that requests, verdicts and calls have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// All metrics of the process.
pub struct Metrics {
    /// Of the front door.
    pub requests: Arc<RequestMetrics>,
    /// Of the verdicts on tokens.
    pub authentications: Arc<AuthenticationMetrics>,
    /// Of the calls to AWS.
    pub upstream: Arc<UpstreamMetrics>,
    /// Of the probes of ourselves.
    pub self_probe: Arc<SelfProbeMetrics>,
    gauges: Gauges,
    conditions: Conditions,
    registry: Registry,
}

impl Metrics {
    /// Registers everything, so that each series is there from the first scrape on.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Arc::new(RequestMetrics::new(&mut registry));
        let authentications = Arc::new(AuthenticationMetrics::new(&mut registry));
        let upstream = Arc::new(UpstreamMetrics::new(&mut registry));
        let self_probe = Arc::new(SelfProbeMetrics::new(&mut registry));
        let conditions = Conditions::new(&mut registry);
        let gauges = Gauges::new(&mut registry);
        Self { requests, authentications, upstream, self_probe, gauges, conditions, registry }
    }

    /// The page, with these numbers in its gauges.
    pub fn page(&self, snapshot: &Snapshot, conditions: &[Report]) -> String {
        self.gauges.set(snapshot);
        self.conditions.set(conditions);
        let mut page = String::with_capacity(8 * 1024);
        if encode(&mut page, &self.registry).is_err() {
            // Writing to a String does not fail; a page that says so is still better than none.
            let _ = writeln!(page, "# EOF");
        }
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CallOutcome, Metrics, Outcome, Snapshot};

    #[test]
    fn amazons_three_series_keep_their_exact_names() {
        let metrics = Metrics::new();
        metrics.requests.answered(Outcome::Hit, Some(200), Duration::from_micros(20));
        metrics.requests.answered(Outcome::Refused, Some(403), Duration::from_micros(20));
        metrics.upstream.called(CallOutcome::Passing("throttled"), Duration::from_millis(20));
        let page = metrics.page(&Snapshot::default(), &[]);
        for line in [
            "pod_identity_http_response{code=\"200\"} 1",
            "pod_identity_http_response{code=\"403\"} 1",
            "pod_identity_cache_state{state=\"hit\"} 1",
            "pod_identity_cache_errors{type=\"recoverable\",code=\"throttled\"} 1",
            "pod_identity_agent_requests_total{outcome=\"hit\"} 1",
            "# EOF",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
