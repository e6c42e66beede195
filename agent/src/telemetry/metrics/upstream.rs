//! What calls to AWS count.
//!
//! Owns: the three kinds of their end, and the series about it, Amazon's one among them. Must not know: which failure is of
//! which kind.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::ByOutcome;
use super::plain_counter::PlainCounter;

/// What came of a call to AWS, each kind with its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It brought credentials.
    Done,
    /// It failed, and the same call may succeed later.
    Passing(&'static str),
    /// It was refused.
    Final(&'static str),
}

impl CallOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Passing(label) | Self::Final(label) => label,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTypeAndCode {
    r#type: &'static str,
    code: &'static str,
}

/// What calls to AWS count.
pub struct UpstreamMetrics {
    calls: Family<ByOutcome, Counter>,
    seconds: Histogram,
    cache_errors: Family<ByTypeAndCode, PlainCounter>,
}

impl UpstreamMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let calls = Family::<ByOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_upstream_calls",
            "Calls to AWS, by what came of them",
            calls.clone(),
        );
        let seconds = Histogram::new([0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2]);
        registry.register(
            "pod_identity_agent_upstream_seconds",
            "Time that calls to AWS took",
            seconds.clone(),
        );
        let cache_errors = Family::<ByTypeAndCode, PlainCounter>::default();
        registry.register(
            "pod_identity_cache_errors",
            "Errors of EKS Auth, by whether they are final",
            cache_errors.clone(),
        );
        Self { calls, seconds, cache_errors }
    }

    /// A call to AWS ended.
    pub fn called(&self, outcome: CallOutcome, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.calls.get_or_create(&ByOutcome { outcome: outcome.label() }).inc();
        // Amazon's series, with its words for the two kinds.
        let r#type = match outcome {
            CallOutcome::Done => return,
            CallOutcome::Passing(_) => "recoverable",
            CallOutcome::Final(_) => "irrecoverable",
        };
        self.cache_errors.get_or_create(&ByTypeAndCode { r#type, code: outcome.label() }).inc();
    }
}
