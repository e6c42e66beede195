//! What calls to AWS count.
//!
//! Owns: the three kinds of their end, and the series about it. Must not know: which failure is of which
//! kind.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::ByOutcome;
use super::amazon::AmazonMetrics;

/// Every label that a call may have, so that each series exists from the first scrape on: a rate over a
/// series that has just appeared misses its first count. A label that is missing here fails the tests
/// (`called`).
pub(super) const CALL_LABELS: [&str; 21] = [
    "ok",
    "throttled",
    "timeout",
    "connection",
    "server_error",
    "unreadable",
    "lost",
    "own_credentials_missing",
    "own_credentials_rejected",
    "AccessDeniedException",
    "ResourceNotFoundException",
    "ExpiredTokenException",
    "InvalidTokenException",
    "InvalidParameterException",
    "InvalidRequestException",
    // Those of STS.
    "AccessDenied",
    "RegionDisabledException",
    "PackedPolicyTooLarge",
    "IDPRejectedClaim",
    "InvalidIdentityToken",
    "ValidationError",
];

/// How a call to AWS ended. A failure has its label: AWS's code for a refusal, else a word of the agent.
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

/// What calls to AWS count.
pub struct UpstreamMetrics {
    calls: Family<ByOutcome, Counter>,
    seconds: Histogram,
    amazon: AmazonMetrics,
}

impl UpstreamMetrics {
    pub(super) fn new(registry: &mut Registry, amazon: AmazonMetrics) -> Self {
        let calls = Family::<ByOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_upstream_calls",
            "Calls to AWS for credentials. ok: credentials were issued; AWS's code where it refused; else \
             why there was no usable answer",
            calls.clone(),
        );
        for outcome in CALL_LABELS {
            drop(calls.get_or_create(&ByOutcome { outcome }));
        }
        // A quick answer takes 50 ms; the longest attempt has some seconds (proxies and TLS inspection).
        let seconds = Histogram::new([0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 2.5, 5.0]);
        registry.register_with_unit(
            "pod_identity_agent_upstream_call_duration",
            "Time that calls to AWS took, however they ended",
            Unit::Seconds,
            seconds.clone(),
        );
        Self { calls, seconds, amazon }
    }

    /// A call to AWS ended.
    pub fn called(&self, outcome: CallOutcome, took: Duration) {
        let label = outcome.label();
        debug_assert!(CALL_LABELS.contains(&label), "CALL_LABELS lacks {label}");
        self.seconds.observe(took.as_secs_f64());
        self.calls.get_or_create(&ByOutcome { outcome: label }).inc();
        self.amazon.called(outcome);
    }
}
